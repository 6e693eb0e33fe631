"""The native API, by a real server process and real sockets."""

from __future__ import annotations

import json
import threading
import time
import zlib
from dataclasses import replace

import numpy as np
import pytest
import requests
import trustme
from dicom_series import write_series
from server_helpers import Server, Watched

from aiassist.client import RemoteBackend, RequestsTransport
from aiassist.client.conversations import Conversations, Pace
from aiassist.contour import ContourSession
from aiassist.engine import AnnotateRequest, JobState, LocalBackend
from aiassist.errors import (
    AccessError,
    Cancelled,
    ConnectionLostError,
    ContourError,
    ModelError,
    PromptError,
    StoreError,
    UnknownMaskError,
    UnknownStudyError,
    UploadError,
)
from aiassist.imaging import Geometry, MaskPatch, Region, Volume, read_volume
from aiassist.prompts import Prompts, extreme_points
from aiassist.protocol.messages import OFFSET, PIECE, RECEIVED, study_bytes, study_to_json, voxels_as_bytes
from aiassist.server.tokens import add_token, revoke_token


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("studies")) as running:
        yield running


@pytest.fixture
def backend(server):
    with server.backend() as remote:
        yield remote


@pytest.fixture(scope="module")
def spleen(labelmap):
    return labelmap.voxels == 1


@pytest.fixture(scope="module")
def prompts(spleen):
    return Prompts(extreme_points=extreme_points(spleen, np.random.default_rng(0)))


def ball(seed: int, shape=(24, 30, 36)) -> tuple[Volume, Prompts]:
    """A bright ball in noise, and its extreme points."""
    rng = np.random.default_rng(seed)
    axes = np.ix_(*[np.arange(n) - n // 2 for n in shape])
    inside = sum((a / 8) ** 2 for a in axes) <= 1
    volume = Volume((rng.normal(0, 10, shape) + 200 * inside).astype(np.int16), Geometry.from_spacing(shape))
    return volume, Prompts(extreme_points=extreme_points(inside, rng))


# The main path


def test_a_mask_from_the_server_is_the_mask_from_this_process(backend, volume, prompts):
    with LocalBackend() as local:
        here = local.annotate(AnnotateRequest(local.open_study(volume), prompts))
    there = backend.annotate(AnnotateRequest(backend.open_study(volume), prompts))
    assert there.version == here.version and there.patch.version == here.version
    assert (there.model, there.device, there.base, there.structure) == ("network", "cpu", None, "structure")
    assert there.seconds["pass"] > 0


def test_the_models_are_those_of_this_process(backend):
    with LocalBackend() as local:
        assert backend.models() == local.models()


def test_a_correction_names_its_base_and_only_the_patch_travels(server, volume, prompts, spleen):
    wire = Watched(server.url, server.token)
    with RemoteBackend(wire) as backend:
        study = backend.open_study(volume)
        first = backend.annotate(AnnotateRequest(study, prompts, model="geodesic"))
        missing = np.argwhere(spleen & ~first.patch.to_mask(volume.shape))[:, ::-1]
        before = wire.bytes
        more = replace(prompts, positive=missing[:1])
        second = backend.annotate(AnnotateRequest(study, more, base=first.version, model="geodesic"))
        assert wire.bytes - before < 2000
        whole = second.patch.over(first.patch)
        assert second.base == first.version and whole.version == second.version
        assert whole.to_mask(volume.shape)[tuple(missing[0][::-1])]


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int16", "float32", "float64"])
def test_every_type_of_voxel_arrives_as_it_is(backend, dtype):
    voxels = (np.random.default_rng(0).normal(0, 50, (7, 8, 9)) > 0).astype(dtype)
    affine = np.array([[0.8, 0.1, 0, -30], [-0.1, 0.8, 0, 12], [0, 0, -3, 7.5], [0, 0, 0, 1]])
    volume = Volume(voxels, Geometry(voxels.shape, affine))
    assert backend.open_study(volume) == volume.study_id


def test_dicom_headers_travel_with_the_study(server, backend, tmp_path):
    write_series(tmp_path / "ct", np.arange(5 * 20 * 16, dtype=np.int16).reshape(5, 20, 16), np.eye(4))
    series = read_volume(tmp_path / "ct")
    study = backend.open_study(series)
    mask = MaskPatch(Region((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), bool))
    backend.run(backend.conversations.save(study, "spleen", mask, name="from DICOM"))
    listed = {s["id"]: s for s in server.ask("GET", "/api/truth").json()["studies"]}
    assert listed[study]["from_dicom"] and listed[study]["name"] == "from DICOM"
    answer = server.ask("GET", f"/api/truth/{study}/export?format=dcm")
    assert answer.status_code == 200 and answer.content[128:132] == b"DICM"


# Uploads


def test_a_second_opening_sends_no_voxels(server):
    volume, _ = ball(1)
    for number in range(2):
        wire = Watched(server.url, server.token)
        with RemoteBackend(wire) as backend:
            backend.open_study(volume)
        assert [request.method for request in wire.sent] == [["HEAD", "PUT", "PATCH"], ["HEAD"]][number]
    assert wire.bytes == 0


def test_an_upload_goes_on_where_it_broke_off(server, monkeypatch):
    monkeypatch.setattr(Pace, "pack", lambda self, piece: (piece[:20_000], {}))
    volume, _ = ball(2)
    wire = Watched(server.url, server.token)
    told = []
    with RemoteBackend(wire) as backend:
        wire.break_before = "/never"
        conversation = backend.conversations.open_study(volume, told.append)
        request = next(conversation)
        for _ in range(3):  # HEAD, PUT, first piece
            request = conversation.send(wire.send(request))
        conversation.close()  # the client dies
        half = wire.bytes
        assert 20_000 < half < volume.voxels.nbytes
        again = Watched(server.url, server.token)
        with RemoteBackend(again) as other:
            other.open_study(volume, told.append)
    sent = [int(r.headers[OFFSET]) for r in again.sent if r.method == "PATCH"]
    assert sent == [20_000, 40_000] and told[-1] == 1.0 == max(told) and told == sorted(told)


def test_two_windows_may_send_the_same_study_at_once(server, monkeypatch):
    monkeypatch.setattr(Pace, "pack", lambda self, piece: (piece[:3000], {}))
    volume, prompts = ball(3)
    with server.backend() as first, server.backend() as second:
        windows = [threading.Thread(target=b.open_study, args=(volume,)) for b in (first, second)]
        for window in windows:
            window.start()
        for window in windows:
            window.join()
        for backend in (first, second):
            assert backend.annotate(AnnotateRequest(volume.study_id, prompts, model="ellipsoid")).patch.mask.any()


def announce(server, volume) -> str:
    study = volume.study_id
    assert server.ask("PUT", f"/api/studies/{study}", json=study_to_json(volume)).json()["received"] == 0
    return f"/api/studies/{study}/voxels"


def test_a_piece_from_elsewhere_is_refused_with_the_place_to_go_on_from(server):
    volume, _ = ball(4)
    path = announce(server, volume)
    data = bytes(voxels_as_bytes(volume))
    assert server.ask("PATCH", path, data=data[:100], headers={OFFSET: "0"}).json() == {"received": 100, "whole": False}
    refused = server.ask("PATCH", path, data=data[:100], headers={OFFSET: "0"})
    assert refused.status_code == 409 and refused.headers[RECEIVED] == "100"
    beyond = server.ask("PATCH", path, data=data + b"x", headers={OFFSET: "100"})
    assert beyond.status_code == 422 and "would make it" in beyond.json()["message"]
    assert server.ask("PATCH", path, data=data[100:], headers={OFFSET: "100"}).json()["whole"]


def test_voxels_that_are_not_those_of_the_id_are_refused_and_forgotten(server):
    volume, _ = ball(5)
    path = announce(server, volume)
    data = bytearray(voxels_as_bytes(volume))
    data[7] ^= 1
    answer = server.ask("PATCH", path, data=bytes(data), headers={OFFSET: "0"})
    assert answer.status_code == 422 and f"not {volume.study_id}; send it again" in answer.json()["message"]
    assert server.ask("HEAD", path.removesuffix("/voxels")).status_code == 404
    announce(server, volume)


def test_compressed_pieces_are_unpacked_but_bombs_and_stumps_are_not(server):
    volume, _ = ball(6)
    path = announce(server, volume)
    packed = zlib.compress(bytes(voxels_as_bytes(volume)))
    deflate = {OFFSET: "0", "content-encoding": "deflate"}
    bomb = server.ask("PATCH", path, data=zlib.compress(bytes(PIECE + 1)), headers=deflate)
    assert bomb.status_code == 413
    stump = server.ask("PATCH", path, data=packed[: len(packed) // 2], headers=deflate)
    assert stump.status_code == 422 and "cut off" in stump.json()["message"]
    broken = server.ask("PATCH", path, data=b"not deflate", headers=deflate)
    assert broken.status_code == 422 and "damaged" in broken.json()["message"]
    other = server.ask("PATCH", path, data=packed, headers={OFFSET: "0", "content-encoding": "gzip"})
    assert other.status_code == 422 and "deflate" in other.json()["message"]
    assert server.ask("PATCH", path, data=packed, headers=deflate).json()["whole"]


def test_pieces_are_compressed_only_where_that_is_faster():
    piece = memoryview(bytes(np.random.default_rng(0).integers(0, 4, 2**20, dtype=np.uint8)))
    slow, fast = Pace(), Pace()
    assert slow.pack(piece) == (piece, {})  # the first piece measures
    slow.sent(2**20, 2**20, seconds=10.0)
    fast.sent(2**20, 2**20, seconds=0.0005)
    packed, headers = slow.pack(piece)
    assert zlib.decompress(packed) == piece and headers == {"content-encoding": "deflate"}
    assert fast.pack(piece)[1] == {}
    assert fast.size == PIECE and slow.size < 2**20


def test_nothing_is_compressed_for_this_computer_however_slow_it_is(server, monkeypatch):
    sent = Pace.sent
    monkeypatch.setattr(Pace, "sent", lambda self, held, travelled, seconds: sent(self, held, travelled, 1e3 * seconds))
    wire = Watched(server.url, server.token)
    volume = Volume(np.zeros((64, 128, 256), np.int16), Geometry.from_spacing((64, 128, 256)))
    with RemoteBackend(wire) as backend:
        backend.open_study(volume)
    assert wire.bytes > volume.voxels.nbytes
    assert not any("content-encoding" in request.headers for request in wire.sent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [4, 4]}, "shape"),
        ({"shape": [100_000, 100_000, 100_000]}, "this server keeps"),
        ({"shape": [0, 4, 4]}, "shape"),
        ({"dtype": "complex64"}, "complex64"),
        ({"dtype": "object"}, "object"),
        ({"affine": [[1, 0], [0, 1]]}, "affine"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_header_that_no_study_has_is_refused(server, change, said):
    volume, _ = ball(7)
    answer = server.ask("PUT", f"/api/studies/{volume.study_id}", json={**study_to_json(volume), **change})
    assert answer.status_code == 422 and said in answer.json()["message"]


@pytest.mark.parametrize("name", ["..%2F..%2Fetc%2Fpasswd", "0" * 31, "Z" * 32, "%00" * 8])
def test_no_name_from_a_client_becomes_a_path(server, name):
    assert server.ask("HEAD", f"/api/studies/{name}").status_code in (404, 422)
    assert server.ask("PUT", f"/api/studies/{name}", json=study_to_json(ball(7)[0])).status_code in (404, 405, 422)


# Forgetful servers


def test_a_restarted_server_goes_on_without_the_client_noticing(tmp_path):
    volume, prompts = ball(8)
    with Server(tmp_path) as server:
        first = server.backend()
        study = first.open_study(volume)
        before = first.annotate(AnnotateRequest(study, prompts, model="geodesic"))
    with Server(tmp_path) as server, RemoteBackend(Watched(server.url, server.token)) as again:
        again.conversations = first.conversations  # the same window, a new address
        wire = again.transport
        more = replace(prompts, negative=[[0, 0, 0]])
        after = again.annotate(AnnotateRequest(study, more, base=before.version, model="geodesic"))
        assert after.base == before.version
        assert [r.path.split("?")[0] for r in wire.sent] == [  # the voxels were still there, the mask was not
            "/api/annotate",
            f"/api/studies/{study}/masks",
            "/api/annotate",
        ]
        for file in (tmp_path / "uploads").iterdir():
            file.unlink()
    with Server(tmp_path) as server, RemoteBackend(Watched(server.url, server.token)) as third:
        third.conversations = first.conversations
        assert third.annotate(AnnotateRequest(study, prompts, model="geodesic")).version == before.version
        assert any(r.method == "PATCH" for r in third.transport.sent)  # this time they were not
    first.close()


def test_what_neither_side_knows_is_said(backend):
    _, prompts = ball(9)
    with pytest.raises(UnknownStudyError, match="open it first"):
        backend.annotate(AnnotateRequest("ab" * 16, prompts))
    volume, _ = ball(9)
    study = backend.open_study(volume)
    with pytest.raises(UnknownMaskError, match="send it again"):
        backend.annotate(AnnotateRequest(study, prompts, base="ab" * 16))


def test_volumes_beyond_the_memory_come_back_from_the_disk(tmp_path):
    volumes = [ball(seed, (64, 128, 128)) for seed in range(3)]  # 2 MB each
    with Server(tmp_path, "--memory", "0.003") as server, server.backend() as backend:
        studies = [backend.open_study(volume) for volume, _ in volumes]
        for study, (_, prompts) in zip(studies, volumes, strict=True):
            answer = backend.annotate(AnnotateRequest(study, prompts, model="ellipsoid"))
            assert answer.patch.mask.any()


# Jobs


def test_a_newer_request_overtakes_an_older_one(backend, volume, prompts):
    study = backend.open_study(volume)
    jobs = []
    for _ in range(4):
        jobs.append(backend.submit(AnnotateRequest(study, prompts)))
        time.sleep(0.03)
    assert jobs[-1].result(60).patch.mask.any()
    overtaken = 0
    for job in jobs[:-1]:
        try:
            job.result(60)
        except Cancelled:
            overtaken += 1
            assert job.state is JobState.CANCELLED
    assert overtaken >= 1


def test_a_job_can_be_watched_and_cancelled(backend, volume, prompts):
    study = backend.open_study(volume)
    blocking = [backend.submit(AnnotateRequest(study, prompts, structure=str(n))) for n in range(3)]
    time.sleep(0.05)
    where = blocking[-1].where()
    assert where["state"] in ("queued", "running") and where["position"] <= 2
    blocking[-1].cancel()
    with pytest.raises(Cancelled):
        blocking[-1].result(60)
    for job in blocking[:-1]:
        assert job.result(60).patch.mask.any()
    assert blocking[0].where()["state"] == "done"


def test_the_same_job_asked_twice_is_done_once(server, backend, volume, prompts):
    study = backend.open_study(volume)
    body = {"study": study, "prompts": prompts.to_json()}
    first, second = (server.ask("POST", "/api/annotate?job=same", json=body) for _ in range(2))
    assert first.content == second.content and first.headers["aiassist-answer"] == second.headers["aiassist-answer"]
    assert server.ask("GET", "/api/jobs/same").json() == {
        "state": "done",
        "position": 0,
        "phase": "answer",
        "fraction": 1.0,
    }


def test_the_job_of_a_client_that_is_gone_is_cancelled(server, backend, volume, prompts):
    study = backend.open_study(volume)
    blocking = [backend.submit(AnnotateRequest(study, prompts, structure=str(n))) for n in range(3)]
    time.sleep(0.05)
    body = json.dumps({"study": study, "prompts": prompts.to_json(), "structure": "gone"}).encode()
    with server.connection() as line:
        head = f"POST /api/annotate?job=gone HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body)
        time.sleep(0.1)
        assert server.ask("GET", "/api/jobs/gone").json()["state"] == "queued"
    for job in blocking:
        job.result(60)
    time.sleep(0.1)
    assert server.ask("GET", "/api/jobs/gone").status_code == 404


def test_a_job_goes_on_while_one_of_its_two_askers_is_left(server, backend, volume, prompts):
    study = backend.open_study(volume)
    blocking = backend.submit(AnnotateRequest(study, prompts, structure="before"))
    body = json.dumps({"study": study, "prompts": prompts.to_json(), "structure": "twice"}).encode()
    head = f"POST /api/annotate?job=twice HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    with server.connection() as line:
        line.sendall(head.encode() + body)
        time.sleep(0.1)
        waiting = []
        asker = threading.Thread(
            target=lambda: waiting.append(server.ask("POST", "/api/annotate?job=twice", json=json.loads(body)))
        )
        asker.start()
        time.sleep(0.1)
    asker.join()
    assert waiting[0].status_code == 200
    blocking.result(60)


@pytest.mark.parametrize(("limit", "value"), [("MASKS", 3), ("MASK_MEMORY", 14)])
def test_many_corrections_can_still_be_told_to_a_forgetful_server(monkeypatch, limit, value):
    monkeypatch.setattr(f"aiassist.client.conversations.{limit}", value)
    talk, whole, base = Conversations("me"), None, None
    for n in range(8):
        patch = MaskPatch(Region((n, 0, 0), (n + 1, 2, 2)), np.ones((1, 2, 2), bool))
        whole = patch.over(whole)
        talk._remember(whole.version, base, patch)
        base = whole.version
    assert talk._whole(base).version == whole.version and talk._whole(base).mask.sum() == 32
    assert len(talk._masks) <= 3


def test_a_full_queue_says_try_again(tmp_path, volume, prompts):
    with Server(tmp_path, "--queue", "1") as server, server.backend() as backend:
        study = backend.open_study(volume)
        backend.submit(AnnotateRequest(study, prompts))
        time.sleep(0.05)
        body = {"study": study, "prompts": prompts.to_json(), "structure": "other"}
        busy = server.ask("POST", "/api/annotate?job=b", json=body)
        assert busy.status_code == 503 and busy.headers["retry-after"] == "1"
        assert backend.annotate(AnnotateRequest(study, prompts, structure="third")).patch.mask.any()  # by trying again


# Wrong requests


def test_errors_keep_their_kind_and_their_sentence(backend):
    volume, prompts = ball(10)
    study = backend.open_study(volume)
    with pytest.raises(PromptError, match="outside the volume"):
        backend.annotate(AnnotateRequest(study, replace(prompts, positive=[[99, 0, 0]])))
    with pytest.raises(ModelError, match="There is no model 'totalsegmentator'"):
        backend.annotate(AnnotateRequest(study, prompts, model="totalsegmentator"))
    with pytest.raises(StoreError, match=r"no version 1 of 'liver'"):
        backend.run(backend.conversations.saved(study, "liver", 1))
    with pytest.raises(PromptError, match="beyond the volume"):
        backend.put_mask(study, MaskPatch(Region((0, 0, 0), (99, 1, 1)), np.ones((99, 1, 1), bool)))


def test_what_is_not_here_is_404_and_what_is_wrong_is_422(server, backend):
    volume, prompts = ball(17)
    study = backend.open_study(volume)
    save = backend.conversations.save(study, "ball", MaskPatch.of_mask(volume.voxels > 100))
    backend.run(save)
    truth, asked = f"/api/truth/{study}", {"study": study, "prompts": prompts.to_json()}
    for method, path, body in (
        ("GET", f"{truth}/ball/2", None),
        ("GET", f"{truth}/liver/1", None),
        ("POST", f"{truth}/ball/2/restore", None),
        ("GET", f"{truth}/export?structure=liver", None),
        ("GET", f"/api/truth/{'ab' * 16}/export", None),
        ("POST", f"/api/truth/{'ab' * 16}/ball", {"mask": "ab" * 16}),
        ("POST", "/api/annotate?job=a", {**asked, "model": "oracle"}),
        ("POST", "/api/segment?job=b", {"study": study, "model": "oracle"}),
        ("GET", "/api/jobs/never", None),
    ):
        answer = server.ask(method, path, json=body)
        assert (answer.status_code, set(answer.json())) == (404, {"error", "message"}), path
    for method, path, body in (
        ("GET", f"{truth}/ball/0", None),
        ("GET", f"{truth}/export?format=exe", None),
        ("GET", f"{truth}/export?format=dcm", None),
        ("POST", "/api/annotate?job=c", {**asked, "model": "lungs-ct"}),
        ("POST", "/api/segment?job=d", {"study": study, "model": "network"}),
    ):
        assert server.ask(method, path, json=body).status_code == 422, path


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b'{"study": 5}', b'{"study": "' + b"a" * 32 + b'", "prompts": {"points": [[NaN, 1, 2], [1, 2, 3]]}}'],
)
def test_a_malformed_body_is_one_sentence(server, body):
    answer = server.ask("POST", "/api/annotate?job=x", data=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422 and set(answer.json()) == {"error", "message"}


# Contour


def test_a_contour_is_pulled_on_the_server_as_here(backend, volume, spleen):
    study = backend.open_study(volume)
    base = backend.put_mask(study, MaskPatch.of_mask(spleen))
    k = int(np.argmax(spleen.sum(axis=(1, 2))))
    session = ContourSession(volume, MaskPatch.of_mask(spleen))
    start = session.open(0, k)[0].points[4]
    session.press(start)
    session.drag(start + 3)
    session.release()
    pull = {"axis": 0, "index": k, "start": start.tolist(), "stop": (start + 3).tolist()}
    patch, said = backend.run(backend.conversations.contour(study, base, **pull))
    assert said["slices"] == [k] and said["base"] == base
    assert patch.over(MaskPatch.of_mask(spleen)).version == said["version"]
    assert np.array_equal(patch.voxels, session.result().voxels)
    with pytest.raises(ContourError, match="no slice 9999"):
        backend.run(backend.conversations.contour(study, base, **{**pull, "index": 9999}))


# Ground truth


def test_ground_truth_is_saved_read_restored_and_exported(server, backend, volume, spleen, tmp_path):
    study = backend.open_study(volume)
    whole, less = spleen.copy(), spleen.copy()
    less[: volume.shape[0] // 2] = False
    talk = backend.conversations
    first = backend.run(talk.save(study, "spleen", MaskPatch.of_mask(whole), name="torso", comment="all of it"))
    second = backend.run(talk.save(study, "spleen", MaskPatch.of_mask(less), parent=first["number"], edits=3))
    assert (first["number"], second["number"], second["parent"], second["edits"]) == (1, 2, 1, 3)
    assert first["author"] == second["author"] == "me" and "path" not in first
    assert np.array_equal(backend.run(talk.saved(study, "spleen", 1)).to_mask(volume.shape), whole)
    third = backend.run(talk.restore(study, "spleen", 1))
    assert third["number"] == 3 and third["mask"] == first["mask"]
    assert [v["number"] for v in backend.run(talk.truth(study))] == [1, 2, 3]
    assert study in [s["id"] for s in backend.run(talk.truth())]
    answer = server.ask("GET", f"/api/truth/{study}/export?format=nii.gz&structure=spleen")
    (tmp_path / "out.nii.gz").write_bytes(answer.content)
    assert np.array_equal(read_volume(tmp_path / "out.nii.gz").voxels != 0, whole)
    audit = [json.loads(line) for line in (server.studies / "audit.jsonl").read_text().splitlines()]
    assert [a["what"] for a in audit if a.get("study") == study] == ["save", "save", "restore"]


def test_a_save_whose_answer_was_lost_is_not_saved_twice(server, backend):
    volume, _ = ball(11)
    study = backend.open_study(volume)
    talk = backend.conversations
    mask = MaskPatch.of_mask(volume.voxels > 100)
    backend.run(talk.save(study, "ball", MaskPatch.of_mask(volume.voxels > 90)))
    versions = [backend.run(talk.save(study, "ball", mask, parent=1)) for _ in range(3)]
    assert [v["number"] for v in versions] == [2, 2, 2]


def test_a_label_saved_again_after_others_is_a_new_version(server, backend):
    volume, _ = ball(15)
    study, talk = backend.open_study(volume), backend.conversations
    first, second = (MaskPatch.of_mask(volume.voxels > level) for level in (90, 110))
    made = [backend.run(talk.save(study, "ball", first, parent=0)) for _ in range(2)]
    made.append(backend.run(talk.save(study, "ball", second, parent=1)))
    made.append(backend.run(talk.save(study, "ball", first, parent=2)))
    assert [v["number"] for v in made] == [1, 1, 2, 3]


def test_equal_saves_at_once_are_one_version(server, backend):
    volume, _ = ball(16)
    study = backend.open_study(volume)
    mask = backend.put_mask(study, MaskPatch.of_mask(volume.voxels > 100))
    numbers = []

    def save():
        answer = server.ask("POST", f"/api/truth/{study}/ball", json={"mask": mask, "parent": 0})
        numbers.append(answer.json()["number"])

    threads = [threading.Thread(target=save) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert numbers == [1, 1, 1, 1]


# Who may do what


@pytest.fixture(scope="module")
def guarded(tmp_path_factory):
    """A server with a token file; its people's tokens."""
    file = tmp_path_factory.mktemp("secret") / "tokens.txt"
    tokens = {"ann": add_token(file, "ann", "annotator"), "boss": add_token(file, "boss", "admin")}
    with Server(tmp_path_factory.mktemp("studies"), "--token-file", str(file)) as running:
        running.file, running.tokens = file, tokens
        yield running


def test_only_health_and_the_api_page_are_open_to_all(guarded):
    assert guarded.ask("GET", "/api/health", None).json()["status"] == "ok"
    page = guarded.ask("GET", "/docs", None)
    assert page.status_code == 200 and "http" not in page.text.replace("httptools", "")  # nothing from elsewhere
    assert "/api/annotate" in page.text and "default-src 'none'" in page.headers["content-security-policy"]
    paths = guarded.ask("GET", "/openapi.json", None).json()["paths"]
    assert guarded.ask("GET", "/auth/", None).json()["enabled"] is True
    assert guarded.ask("POST", "/auth/token", None, data={"password": "wrong"}).status_code == 403
    closed = set(paths) - {"/api/health", "/auth/", "/auth/token"}
    assert len(closed) > 10
    for path in closed:
        answer = guarded.ask("GET", path.replace("{", "").replace("}", ""), None)
        assert answer.status_code == 401, path
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_author_of_a_label_is_whose_token_it_is(guarded):
    volume, _ = ball(12)
    with guarded.backend(guarded.tokens["ann"]) as backend:
        study = backend.open_study(volume)
        saved = backend.run(backend.conversations.save(study, "ball", MaskPatch.of_mask(volume.voxels > 100)))
    assert saved["author"] == "ann"


def test_only_an_admin_removes_studies_and_reads_the_log(guarded):
    volume, _ = ball(13)
    with guarded.backend(guarded.tokens["ann"]) as backend:
        study = backend.open_study(volume)
    for role, status in (("ann", 403), ("boss", 200)):
        assert guarded.ask("DELETE", f"/api/studies/{study}", guarded.tokens[role]).status_code == status
        assert guarded.ask("GET", "/logs/", guarded.tokens[role]).status_code == status
    assert guarded.ask("HEAD", f"/api/studies/{study}", guarded.tokens["ann"]).status_code == 404


def test_a_client_without_headers_puts_its_token_in_the_path_or_the_password(guarded):
    token = guarded.tokens["ann"]
    assert guarded.ask("GET", f"/t/{token}/api/models", None).status_code == 200
    assert guarded.ask("GET", "/t/wrong/api/models", None).status_code == 401
    assert requests.get(guarded.url + "/api/models", auth=("anybody", token), timeout=9).status_code == 200


def test_the_log_names_routes_and_people_but_no_path(guarded):
    guarded.ask("GET", "/api/truth/" + "ab" * 16 + "?patient=Mustermann", guarded.tokens["ann"])
    log = guarded.ask("GET", "/logs/", guarded.tokens["boss"]).text
    assert "/truth/{study} 200" in log and " ann" in log
    assert "Mustermann" not in log and "abab" not in log and guarded.tokens["ann"] not in log


def test_wrong_tokens_are_slowed_and_right_ones_are_not(guarded):
    began = time.perf_counter()
    for _ in range(3):
        assert guarded.ask("GET", "/api/models", "wrong").status_code == 401
    assert time.perf_counter() - began > 0.2 + 0.4 + 0.8
    began = time.perf_counter()
    assert guarded.ask("GET", "/api/models", guarded.tokens["ann"]).status_code == 200
    assert time.perf_counter() - began < 1.0


def test_a_revoked_token_is_shut_out_at_once(guarded):
    token = add_token(guarded.file, "temp", "annotator")
    assert guarded.ask("GET", "/api/models", token).status_code == 200
    revoke_token(guarded.file, "temp")
    assert guarded.ask("GET", "/api/models", token).status_code == 401
    assert guarded.ask("GET", "/api/models", guarded.tokens["ann"]).status_code == 200


def test_the_token_file_holds_no_token_and_is_nobody_elses(guarded):
    text = guarded.file.read_text()
    assert all(token not in text for token in guarded.tokens.values()) and "ann annotator" in text
    assert guarded.file.stat().st_mode & 0o077 == 0


def test_jobs_of_others_are_not_seen(guarded):
    volume, prompts = ball(14)
    with guarded.backend(guarded.tokens["ann"]) as backend:
        study = backend.open_study(volume)
        body = {"study": study, "prompts": prompts.to_json(), "model": "ellipsoid"}
        assert guarded.ask("POST", "/api/annotate?job=mine", guarded.tokens["ann"], json=body).status_code == 200
    assert guarded.ask("GET", "/api/jobs/mine", guarded.tokens["ann"]).json()["state"] == "done"
    assert guarded.ask("GET", "/api/jobs/mine", guarded.tokens["boss"]).status_code == 404


def test_no_page_of_another_site_may_ask(guarded):
    answer = guarded.ask("OPTIONS", "/api/models", guarded.tokens["ann"], headers={"Origin": "https://evil.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_tls_protects_the_token_and_an_unknown_certificate_is_refused(tmp_path):
    authority = trustme.CA()
    certificate = authority.issue_cert("localhost", "127.0.0.1")
    certificate.cert_chain_pems[0].write_to_path(tmp_path / "cert.pem")
    certificate.private_key_pem.write_to_path(tmp_path / "key.pem")
    authority.cert_pem.write_to_path(tmp_path / "hospital.pem")
    tls = ("--tls-cert", str(tmp_path / "cert.pem"), "--tls-key", str(tmp_path / "key.pem"))
    with Server(tmp_path / "studies", *tls) as server:
        assert server.url.startswith("https://")
        with RemoteBackend(RequestsTransport(server.url, server.token, verify=str(tmp_path / "hospital.pem"))) as good:
            assert good.models()
        with pytest.raises(ConnectionLostError, match=r"certificate .* not trusted"):
            RemoteBackend(RequestsTransport(server.url, server.token)).models()


# Starting and stopping


def test_it_stops_when_its_standard_input_closes(tmp_path):
    server = Server(tmp_path)
    server.start()
    assert server.url.startswith("http://127.0.0.1:") and len(server.token) > 30
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--host", "0.0.0.0"), "aiassist tokens add NAME --file tokens.txt"),
        (("--tls-cert", "cert.pem"), "give both"),
        (("--token-file", "missing.txt"), "holds no token; make one"),
    ],
)
def test_it_does_not_start_open_or_half_set_up(run_cli, tmp_path, options, said):
    outcome = run_cli("serve", "--studies", tmp_path / "s", "--port", "0", *options, cwd=tmp_path)
    assert outcome.returncode == 2 and said in outcome.stderr and len(outcome.stderr.splitlines()) == 1


def test_tokens_are_made_listed_and_revoked_from_the_command_line(run_cli, tmp_path):
    file = tmp_path / "tokens.txt"
    made = run_cli("tokens", "add", "ann", "--file", file)
    assert made.returncode == 0 and len(made.stdout.strip()) > 30
    assert run_cli("tokens", "list", "--file", file).stdout == "ann (annotator)\n"
    assert "revoke it first" in run_cli("tokens", "add", "ann", "--file", file).stderr
    assert run_cli("tokens", "revoke", "ann", "--file", file).returncode == 0
    assert "has no token of 'ann'" in run_cli("tokens", "revoke", "ann", "--file", file).stderr


def test_a_taken_port_is_said(server, run_cli, tmp_path):
    port = server.url.rsplit(":", 1)[1]
    outcome = run_cli("serve", "--studies", tmp_path, "--port", port)
    assert outcome.returncode == 2 and "choose another --port" in outcome.stderr


# The client's own care


def test_a_token_does_not_travel_unencrypted():
    with pytest.raises(AccessError, match="use https"):
        RequestsTransport("http://server.example:8000", token="secret")
    RequestsTransport("http://server.example:8000", token="secret", plain=True).close()


def test_an_address_that_is_none_or_does_not_answer_is_said():
    with pytest.raises(ConnectionLostError, match="write it as https"):
        RequestsTransport("ftp://server")
    backend = RemoteBackend(RequestsTransport("http://127.0.0.1:1", sleep=lambda _: None))
    with pytest.raises(ConnectionLostError, match="does not answer"):
        backend.models()


def test_proxies_and_passwords_of_the_environment_are_not_used_for_this_computer(server, monkeypatch, tmp_path):
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / ".netrc"))
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    with server.backend() as backend:
        assert backend.models()


def test_a_study_of_two_axes_is_refused():
    with pytest.raises(UploadError, match="three axes"):
        study_bytes({"shape": [1, 2], "dtype": "int16"})
