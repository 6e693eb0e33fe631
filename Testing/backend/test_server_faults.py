"""The server under faults: killed, full, hostile or slow clients, everything at once."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path

import numpy as np
import pytest
import requests
from server_helpers import Broken, Impatient, Server, noise, wait_until

from aiassist.client import RemoteBackend, RequestsTransport
from aiassist.engine import AnnotateRequest
from aiassist.errors import AIAssistError, ConnectionLostError
from aiassist.groundtruth.store import GroundTruthStore
from aiassist.imaging import MaskPatch, Volume, read_volume
from aiassist.prompts import Prompts
from aiassist.protocol.messages import OFFSET, RECEIVED, study_to_json, voxels_as_bytes
from aiassist.server.forms import image_bytes

BALL = Prompts(extreme_points=[[10, 15, 12], [26, 15, 12], [18, 7, 12], [18, 23, 12], [18, 15, 4], [18, 15, 20]])


# Killed


class Worker(threading.Thread):
    """Uploads, annotates and saves until the server is gone; notes what was acknowledged."""

    def __init__(self, server: Server, seed: int, opened: set[str], saved: dict[tuple[str, int], str]):
        super().__init__()
        self.server, self.seed, self.opened, self.saved = server, seed, opened, saved
        self.start()

    def run(self):
        transport = RequestsTransport(self.server.url, self.server.token, sleep=lambda _: None)
        with suppress(ConnectionLostError), RemoteBackend(transport) as backend:
            for turn in range(1000):
                study = backend.open_study(noise(1000 * self.seed + turn))
                self.opened.add(study)
                for number in (1, 2):
                    request = AnnotateRequest(study, BALL, model="ellipsoid")
                    patch = backend.annotate(request).patch
                    mask = MaskPatch(patch.region, patch.voxels ^ (number == 2))
                    parent = {"parent": 1} if number == 2 else {}
                    version = backend.run(backend.conversations.save(study, "ball", mask, **parent))
                    self.saved[study, version["number"]] = version["mask"]


def in_time(server, path: str) -> int:
    """The status of what is asked as often as the server allows."""
    while (status := server.ask("HEAD", path).status_code) == 429:
        time.sleep(0.5)
    return status


@pytest.mark.heavy
def test_whatever_was_acknowledged_is_there_after_fifty_kills(tmp_path):
    opened: set[str] = set()
    saved: dict[tuple[str, int], str] = {}
    rng = random.Random(0)
    server = Server(tmp_path)
    for turn in range(50):
        server.start()
        for study in rng.sample(sorted(opened), min(5, len(opened))):
            assert server.ask("HEAD", f"/api/studies/{study}").status_code == 200
        worker = Worker(server, turn, opened, saved)
        time.sleep(rng.uniform(0.05, 0.9))
        server.kill()
        worker.join()
    server.start()
    assert len(saved) > 50
    for study in opened:
        assert in_time(server, f"/api/studies/{study}") == 200
    with server.backend() as backend:
        for (study, number), version in saved.items():
            assert backend.run(backend.conversations.saved(study, "ball", number)).version == version
        for study in {study for study, _ in saved}:  # and nothing was saved twice
            numbers = [v["number"] for v in backend.run(backend.conversations.truth(study))]
            assert numbers == list(range(1, len(numbers) + 1)) and len(numbers) <= 2
    assert server.stop() == 0
    with GroundTruthStore(tmp_path) as store:
        for study in store.studies():
            for version in store.history(study.id):
                assert store.mask(version).version == version.mask


def test_killed_in_the_middle_of_an_upload_it_goes_on(tmp_path):
    volume = noise(1)
    data, study = bytes(voxels_as_bytes(volume)), volume.study_id
    server = Server(tmp_path)
    server.start()
    server.ask("PUT", f"/api/studies/{study}", json=study_to_json(volume))
    server.ask("PATCH", f"/api/studies/{study}/voxels", data=data[:30_000], headers={OFFSET: "0"})
    server.kill()
    server.start()
    assert server.ask("HEAD", f"/api/studies/{study}").status_code == 404
    with server.backend() as backend:
        told = []
        backend.open_study(volume, told.append)
        assert backend.annotate(AnnotateRequest(study, BALL, model="ellipsoid")).patch.mask.any()
    server.stop()
    assert (tmp_path / "uploads" / f"{study}.raw").read_bytes() == data


def test_a_study_that_a_power_cut_damaged_is_asked_for_again(tmp_path):
    volume = noise(2)
    with Server(tmp_path) as server, server.backend() as backend:
        study = backend.open_study(volume)
    raw = tmp_path / "uploads" / f"{study}.raw"
    raw.write_bytes(raw.read_bytes()[:-100] + bytes(100))
    with Server(tmp_path) as server:
        again = server.backend()
        again.conversations = backend.conversations
        assert again.annotate(AnnotateRequest(study, BALL, model="ellipsoid")).patch.mask.any()
        again.close()
    assert raw.read_bytes() == bytes(voxels_as_bytes(volume))


# Full


def gone(image: Path) -> None:
    image.unlink()


def cut_off(image: Path) -> None:
    image.write_bytes(image.read_bytes()[:-1000])


def another(image: Path) -> None:
    image.write_bytes(nrrd_bytes(noise(2)))


@pytest.mark.parametrize(
    ("first", "damage"),
    [
        ("annotate", cut_off),
        ("save", gone),
        *(pytest.param(*one, marks=pytest.mark.heavy) for one in (("annotate", another), ("save", another))),
    ],
)
def test_an_image_of_the_ground_truth_that_was_lost_is_healed_by_who_has_it(tmp_path, damage, first):
    volume = noise(1)
    with Server(tmp_path) as server, server.backend() as backend:
        study = backend.open_study(volume)
        mask = MaskPatch.of_mask(volume.voxels > 90)
        backend.run(backend.conversations.save(study, "one", mask))
        server.kill()
        image = tmp_path / "studies" / study / "image.nrrd"
        damage(image)
        for upload in (tmp_path / "uploads").iterdir():
            upload.unlink()
        server.start()
        with server.backend() as backend:
            backend.conversations._volumes[study] = volume  # as a client that opened it before
            if first == "annotate":
                assert backend.annotate(AnnotateRequest(study, BALL, model="ellipsoid")).patch.mask.any()
            assert backend.run(backend.conversations.save(study, "one", mask))["number"] == 2
        assert read_volume(image).study_id == study
        log = server.ask("GET", "/logs/").text
        assert f"The image of the study {study} was lost or damaged; somebody sent it again." in log


def test_a_full_disk_is_said_and_nothing_is_half_written(tmp_path):
    small, large = noise(3), noise(4, (64, 128, 128))
    with Server(tmp_path, largest_file=1_000_000) as server, server.backend() as backend:
        study = backend.open_study(small)
        mask = backend.annotate(AnnotateRequest(study, BALL, model="ellipsoid")).patch
        backend.run(backend.conversations.save(study, "ball", mask))
        with pytest.raises(AIAssistError, match="disk is full"):
            backend.open_study(large)
        assert server.ask("HEAD", f"/api/studies/{large.study_id}").status_code == 404
        assert backend.run(backend.conversations.save(study, "ball", mask, parent=1))["number"] == 2
    with Server(tmp_path) as server, server.backend() as backend:
        assert backend.open_study(large) == large.study_id  # with room again, it goes on


# Hostile and slow


def test_a_client_that_breaks_off_leaves_what_came(tmp_path):
    volume = noise(5)
    data, study = bytes(voxels_as_bytes(volume)), volume.study_id
    with Server(tmp_path) as server:
        server.ask("PUT", f"/api/studies/{study}", json=study_to_json(volume))
        head = f"PATCH /api/studies/{study}/voxels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        head += f"{OFFSET}: 0\r\nContent-Length: {len(data)}\r\n\r\n"
        with server.connection() as line:
            line.sendall(head.encode() + data[:20_000])
            time.sleep(0.5)  # until the server has read it
        time.sleep(0.5)
        assert server.ask("HEAD", f"/api/studies/{study}").headers[RECEIVED] == "20000"
        with server.backend() as backend:
            assert backend.open_study(volume) == study


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"a" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01 this is TLS",
        b"GET /api/health HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
        b"POST /api/annotate HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999\r\n\r\n",
        b"PUT /session/ HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nZZZ\r\n",
    ],
)
def test_broken_http_is_refused_and_the_server_lives(tmp_path_factory, bytes_sent):
    server = _shared(tmp_path_factory)
    with server.connection() as line:
        with suppress(OSError):
            line.sendall(bytes_sent)
            line.shutdown(1)
        answer = b""
        with suppress(OSError):
            answer = line.recv(65536)
    assert not answer or answer.split()[1].startswith(b"4")
    assert server.ask("GET", "/api/health").status_code == 200


_running: list[Server] = []


def _shared(tmp_path_factory) -> Server:
    if not _running:
        _running.append(Server(tmp_path_factory.mktemp("hostile")))
        _running[0].start()
    return _running[0]


@pytest.fixture(scope="module", autouse=True)
def _stop_shared():
    yield
    for server in _running:
        server.stop()
    _running.clear()


def test_a_picture_that_unpacks_without_end_is_refused(tmp_path_factory, tmp_path):
    import nibabel

    server = _shared(tmp_path_factory)
    header = nibabel.Nifti1Image(np.zeros((4, 4, 4), np.int16), np.eye(4)).to_bytes()
    bomb = gzip.compress(header + bytes(300_000_000), 9)
    files = {"params": (None, '{"points": [[0, 1, 1], [3, 1, 1]]}'), "datapoint": ("image.nii.gz", bomb)}
    answer = requests.post(f"{server.url}/t/{server.token}/v1/dextr3d?model=ellipsoid", files=files, timeout=60)
    assert len(bomb) < 400_000 and answer.status_code == 422 and "damaged" in answer.json()["message"]


def test_images_that_many_send_at_once_take_no_more_memory_than_the_server_may_hold(tmp_path):
    """Each is honest: a small file of as many voxels as it says."""
    import nibabel

    large, huge = (nibabel.Nifti1Image(np.zeros((512, 512, k), np.int16), np.eye(4)) for k in (120, 140))
    large, huge = (gzip.compress(one.to_bytes(), 1) for one in (large, huge))
    with Server(tmp_path, "--memory", "0.0625") as server:  # 64 MiB: 128 slices

        def send(image: bytes) -> requests.Response:
            files = {"params": (None, "{}"), "datapoint": ("image.nii.gz", image)}
            return server.ask("POST", "/v1/mask2polygon", files=files)

        refused = send(huge)
        assert refused.status_code == 422 and "too large to open" in refused.json()["message"]
        before = server.memory
        assert send(large).json() == [[]] * 120
        of_one = server.memory - before
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(send, [large] * 8))
        assert {answer.status_code for answer in answers} == {200}
        assert server.memory - before < 2 * of_one


# Everything at once


def test_slow_clients_hold_nobody_up_and_arrive_in_the_end(tmp_path):
    volume = noise(50)
    study, data = volume.study_id, bytes(voxels_as_bytes(volume))
    with Server(tmp_path) as server, ExitStack() as lines:
        assert server.ask("PUT", f"/api/studies/{study}", json=study_to_json(volume)).status_code == 200
        uploading = lines.enter_context(server.connection())
        head = f"PATCH /api/studies/{study}/voxels HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        uploading.sendall(f"{head}{OFFSET}: 0\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data[:100])
        for _ in range(40):  # they never finish their headers
            lines.enter_context(server.connection()).sendall(b"GET /api/models HTTP/1.1\r\nHost:")
        with server.backend() as backend:
            assert backend.annotate(AnnotateRequest(backend.open_study(noise(51)), BALL, model="ellipsoid")).patch
        for start in range(100, len(data), len(data) // 10):
            time.sleep(0.05)
            uploading.sendall(data[start : start + len(data) // 10])
        answer = uploading.recv(65536)
        assert answer.startswith(b"HTTP/1.1 200") and server.ask("HEAD", f"/api/studies/{study}").status_code == 200


def test_clients_that_do_not_read_hold_nobody_up_and_are_given_up(tmp_path):
    volume = noise(52, (64, 256, 256))
    study, size = volume.study_id, 2 * volume.voxels.size
    with Impatient(tmp_path) as server, ExitStack() as lines:
        with server.backend() as backend:
            backend.open_study(volume)
        before, connections = server.memory, server.connections
        ask = f"GET /api/studies/{study}/voxels HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        ask += f"Authorization: Bearer {server.token}\r\n\r\n"
        dripping, *never = [lines.enter_context(server.connection(65536)) for _ in range(101)]
        began = time.monotonic()
        dripping.sendall(ask.encode())
        assert dripping.recv(10) == b"HTTP/1.1 2"
        for line in never:
            line.sendall(ask.encode())
        with server.backend() as backend:
            assert backend.annotate(AnnotateRequest(backend.open_study(noise(53)), BALL, model="ellipsoid")).patch
        assert server.ask("GET", "/api/health").status_code == 200 and time.monotonic() - began < 15
        while time.monotonic() - began < 4:
            assert len(dripping.recv(10)) == 10  # 200 bytes a second
            time.sleep(0.05)
        assert server.memory - before < 500 * 2**20  # of 840 MB that were asked for
        wait_until(lambda: server.connections <= connections)
        answers = []
        for line in never:
            answers.append(bytearray())
            with suppress(ConnectionResetError):
                while piece := line.recv(65536):
                    answers[-1] += piece
        assert {bytes(answer[:12]) for answer in answers} == {b"HTTP/1.1 200", b"HTTP/1.1 429"}
        assert max(map(len, answers)) < size  # they were broken off
        assert len(server.ask("GET", f"/api/studies/{study}/voxels").content) == size


@pytest.mark.heavy
def test_ten_thousand_requests_by_its_own_description_bring_no_internal_error_and_no_undocumented_status(tmp_path):
    with Server(tmp_path) as server:
        tool = Path(sys.executable).with_name("st")
        options = [
            "-c",
            "not_a_server_error,status_code_conformance",
            "--max-examples",
            "220",
            "--seed",
            "1",
            "--suppress-health-check",
            "all",
            "--exclude-path-regex",
            "/api/learning/(pull|train)",  # one asks others, and while they work another task is refused by a 503
        ]
        done = subprocess.run(
            [tool, "run", f"{server.url}/openapi.json", "-H", f"Authorization: Bearer {server.token}", *options],
            capture_output=True,
            encoding="utf8",
            cwd=tmp_path,
        )
        assert done.returncode == 0, done.stdout[-5000:]
        generated = int(re.search(r"(\d[\d,]*) generated", done.stdout).group(1).replace(",", ""))
        assert generated >= 10_000
        assert server.ask("GET", "/api/health").status_code == 200


def test_a_fault_of_the_server_itself_is_called_that_and_logged(tmp_path):
    with Broken(tmp_path) as server, server.backend() as backend:
        study = backend.open_study(noise(1))
        with pytest.raises(AIAssistError, match=r"^The server failed at this; its log says why\.$"):
            backend.annotate(AnnotateRequest(study, BALL, model="ellipsoid"))
        clicks = {"params": (None, json.dumps({"foreground": [[18, 15, 12]]}))}
        for path in (f"/infer/ellipsoid?image={study}", f"/v1/deepgrow?model=ellipsoid&session_id={session(server)}"):
            answer = server.ask("POST", path, files=clicks)
            assert answer.status_code == 500
            assert answer.json() == {"error": "ServerError", "message": "The server failed at this; its log says why."}
        log = server.ask("GET", "/logs/?lines=2000").text
        assert log.count("A job failed.") == 3 and "integer division" in log and "POST /infer/{model} 500" in log


def session(server: Server) -> str:
    """A session of an image of noise."""
    image = {"image": ("image.nrrd", nrrd_bytes(noise(1)))}
    return server.ask("PUT", "/session/", files=image).json()["session_id"]


def nrrd_bytes(volume: Volume) -> bytes:
    """A volume as the file that clients send."""
    return image_bytes(volume.voxels, volume.geometry, {}, ".nrrd")[0]


def test_what_uvicorn_says_stands_in_the_log_too(server):
    with server.connection() as line:
        line.sendall(b"this is not HTTP\r\n\r\n")
        line.recv(1000)
    assert "WARNING Invalid HTTP request received." in server.ask("GET", "/logs/?lines=2000").text
