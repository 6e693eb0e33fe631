"""Jobs on a server: overtaken, watched, cancelled, asked for twice."""

from __future__ import annotations

import gc
import json
import logging
import socket
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace

import numpy as np
import pytest
from engine_helpers import WAIT, Broken, Steps, Whole
from server_helpers import Server, noise, wait_until
from server_here import Here

from aiassist.client import RemoteBackend, RequestsTransport
from aiassist.client.conversations import MASKS, Conversations
from aiassist.engine import AnnotateRequest, JobState, LocalBackend, SegmentRequest
from aiassist.errors import Cancelled
from aiassist.imaging import Geometry, MaskPatch, Region, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import Step
from aiassist.segmenters.ellipsoid import Ellipsoid
from aiassist.segmenters.model_store import ModelStore
from aiassist.segmenters.registry import Registry
from aiassist.server.forms import image_bytes
from aiassist.server.jobs import KEPT, Jobs
from aiassist.server.service import SHARE
from aiassist.server.tokens import Person, add_token, revoke_token

CLICK = Prompts(positive=[[5, 5, 5]])


@pytest.fixture
def steps():
    """A segmenter that waits until it is let go."""
    segmenter = Steps()
    yield segmenter
    segmenter.go.set()


@pytest.fixture
def here(tmp_path, steps):
    """A server in this process that knows only that."""
    registry = Registry()
    registry.add("steps", lambda: steps)
    with Here(tmp_path, LocalBackend(registry, default="steps")) as server:
        yield server
        steps.go.set()


def test_a_newer_request_overtakes_an_older_one(here, steps):
    with here.backend() as backend:
        study, jobs = backend.open_study(noise(3)), []
        for _ in range(4):
            jobs.append(backend.submit(AnnotateRequest(study, CLICK)))
            wait_until(lambda: here.knows(jobs[-1].id))
        assert steps.entered.wait(WAIT)
        steps.go.set()
        assert jobs[-1].result(WAIT).patch.mask.any()
        for job in jobs[:-1]:
            with pytest.raises(Cancelled):
                job.result(WAIT)
            assert job.state is JobState.CANCELLED


def test_a_request_that_was_held_up_does_not_overtake_a_newer_one():
    with LocalBackend() as backend:
        jobs, person = Jobs(backend), Person("ann", "annotator")
        study = backend.open_study(noise(3))
        asked = AnnotateRequest(study, CLICK, model="ellipsoid")
        newest = jobs.ask(person, "b", asked, turn=2)
        with pytest.raises(Cancelled, match="overtook"):
            jobs.ask(person, "a", asked, turn=1)
        other = jobs.ask(person, "c", replace(asked, structure="other"), turn=1)
        assert newest.result(60).patch.mask.any() and other.result(60).patch.mask.any()
        assert jobs.ask(person, "b", asked, turn=3) is newest  # asked again for its answer
        assert jobs.ask(person, "d", asked).result(60).patch.mask.any()  # of an elder protocol, which has no turns


def test_the_answer_of_a_long_job_is_remembered_however_many_short_ones_came_meanwhile():
    with LocalBackend() as backend:
        jobs, ann, bob = Jobs(backend), Person("ann", "annotator"), Person("bob", "annotator")
        asked = AnnotateRequest(backend.open_study(noise(3)), CLICK, model="ellipsoid")
        long = jobs.ask(ann, "long", asked)
        long.result(60)
        for n in range(KEPT):
            jobs.ask(bob, str(n), replace(asked, structure=str(n))).result(60)
            jobs.leave(bob, str(n))
        jobs.leave(ann, "long")
        assert jobs.get(ann, "long") is long
        assert jobs.get(bob, "0") is None and jobs.get(bob, "1") is not None


def test_a_failed_job_that_is_remembered_keeps_no_image(monkeypatch):
    registry = Registry()
    registry.add("broken", Broken)
    monkeypatch.setattr(logging.getLogger("aiassist.engine.job"), "disabled", True)  # pytest keeps what is logged
    with LocalBackend(registry, default="broken") as backend:
        jobs, person, volume = Jobs(backend), Person("ann", "annotator"), noise(3)
        study, image = backend.open_study(volume), weakref.ref(volume)
        job = jobs.ask(person, "a", AnnotateRequest(study, CLICK))
        with pytest.raises(RuntimeError, match="on fire"):
            job.result(WAIT)
        jobs.leave(person, "a")
        backend.close_study(study)
        del volume
        gc.collect()
        assert jobs.get(person, "a") is job and image() is None


class SlowDisk(ModelStore):
    """A models folder that is looked through only when it may be."""

    def __init__(self, folder):
        super().__init__(folder)
        self.looked, self.may = threading.Event(), threading.Event()
        self.may.set()

    def published_folders(self):
        self.looked.set()
        assert self.may.wait(60)
        return super().published_folders()


def test_who_leaves_does_not_wait_for_the_disk_that_another_request_reads(tmp_path):
    disk = SlowDisk(tmp_path)
    registry = Registry(disk)
    registry.add("ellipsoid", Ellipsoid)
    with LocalBackend(registry) as backend:
        jobs, person = Jobs(backend), Person("ann", "annotator")
        asked = AnnotateRequest(backend.open_study(noise(3)), Prompts(positive=[[5, 5, 5]]), model="ellipsoid")
        jobs.ask(person, "a", asked).result(60)
        disk.may.clear()
        disk.looked.clear()
        found = []
        asking = threading.Thread(target=lambda: found.append(jobs.ask(person, "b", asked)))
        leaving = threading.Thread(target=jobs.leave, args=(person, "a"))
        asking.start()
        assert disk.looked.wait(60)
        leaving.start()
        leaving.join(5)
        has_left = not leaving.is_alive()
        disk.may.set()
        asking.join()
        leaving.join()
        assert has_left and found[0].result(60).patch.mask.any()


def test_the_same_job_asked_twice_at_once_is_one(tmp_path):
    disk = SlowDisk(tmp_path)
    registry = Registry(disk)
    registry.add("ellipsoid", Ellipsoid)
    with LocalBackend(registry) as backend, ThreadPoolExecutor(8) as pool:
        jobs, person = Jobs(backend), Person("ann", "annotator")
        asked = AnnotateRequest(backend.open_study(noise(3)), Prompts(positive=[[5, 5, 5]]), model="ellipsoid")
        disk.may.clear()
        asking = [pool.submit(jobs.ask, person, "a", asked, None, turn) for turn in range(8)]
        assert disk.looked.wait(60)
        disk.may.set()
        assert len({one.result() for one in asking}) == 1
        for _ in range(7):
            jobs.leave(person, "a")
        assert asking[0].result().result(60).patch.mask.any()


def test_a_job_can_be_watched_and_cancelled(here, steps):
    with here.backend() as backend:
        study, jobs = backend.open_study(noise(3)), []
        for n in range(3):
            jobs.append(backend.submit(AnnotateRequest(study, CLICK, structure=str(n))))
            wait_until(lambda: here.knows(jobs[-1].id))
        assert steps.entered.wait(WAIT)
        where = [job.where() for job in jobs]
        assert [(one["state"], one["position"]) for one in where] == [("running", 0), ("queued", 1), ("queued", 2)]
        jobs[-1].cancel()
        with pytest.raises(Cancelled):
            jobs[-1].result(WAIT)
        steps.go.set()
        for job in jobs[:-1]:
            assert job.result(WAIT).patch.mask.any()
        assert jobs[0].where()["state"] == "done"


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


def test_the_job_of_a_client_that_is_gone_is_cancelled(here, steps):
    with here.backend() as backend:
        study = backend.open_study(noise(3))
        running = backend.submit(AnnotateRequest(study, CLICK))
        assert steps.entered.wait(WAIT)
        body = {"study": study, "prompts": CLICK.to_json(), "structure": "gone"}
        with posted(here, "/api/annotate?job=gone", body, here.token):
            wait_until(lambda: here.knows("gone"))
            assert here.ask("GET", "/api/jobs/gone").json()["state"] == "queued"
        wait_until(lambda: not here.knows("gone"))
        assert here.ask("GET", "/api/jobs/gone").status_code == 404
        steps.go.set()
        assert running.result(WAIT) and len(steps.order) == 1


def test_a_job_goes_on_while_one_of_its_two_askers_is_left(here, steps):
    with here.backend() as backend:
        study, path = backend.open_study(noise(3)), "/api/annotate?job=twice"
        backend.submit(AnnotateRequest(study, CLICK, structure="before"))
        assert steps.entered.wait(WAIT)
        body = {"study": study, "prompts": CLICK.to_json(), "structure": "twice"}

        def wait_for(askers: int) -> None:
            wait_until(lambda: here.knows("twice") and here.service.jobs._asked["me", "twice"].waiting == askers)

        with posted(here, path, body, here.token) as stays:
            wait_for(1)
            with posted(here, path, body, here.token):
                wait_for(2)
            wait_for(1)
            steps.go.set()
            assert read_all(stays).startswith(b"HTTP/1.1 200")


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


def test_any_number_of_answers_on_one_base_can_be_asked_for(monkeypatch):
    """As dragging one corrective click asks; the base stays known, and so does what comes after it."""
    monkeypatch.setattr("aiassist.client.conversations.MASKS", 3)
    talk, base = Conversations("me"), MaskPatch(Region((0, 0, 0), (1, 2, 2)), np.ones((1, 2, 2), bool))
    talk._remember(base.version, None, base)
    for n in range(1, 9):
        patch = MaskPatch(Region((n, 0, 0), (n + 1, 2, 2)), np.ones((1, 2, 2), bool))
        answer = patch.over(base)
        talk._remember(answer.version, base.version, patch)
        assert talk._whole(answer.version).version == answer.version
    assert talk._whole(base.version).version == base.version
    talk._remember("answer", "a base that is not known here", patch)
    assert "answer" not in talk._masks and len(talk._masks) <= 3


def test_threads_of_one_client_share_what_it_remembers():
    talk, failed = Conversations("me"), []

    def correct(first: int) -> None:
        whole, base = None, None
        try:
            for n in range(150):
                place = Region((n % 40, 16 * first, 0), (n % 40 + 20, 16 * first + 16, 64))
                patch = MaskPatch(place, np.random.default_rng(1000 * first + n).random(place.shape) < 0.5)
                whole = patch.over(whole)
                talk._remember(whole.version, base, patch)
                base = whole.version
        except Exception as error:  # noqa: BLE001 - said by the thread that asserts
            failed.append(error)

    threads = [threading.Thread(target=correct, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and len(talk._masks) == MASKS
    assert all(talk._whole(version).version == version for version in talk._masks)


def test_a_full_queue_says_try_again(tmp_path, steps):
    def let_go(seconds: float) -> None:
        waits.append(seconds)
        steps.go.set()
        running.result(WAIT)

    waits, registry = [], Registry()
    registry.add("steps", lambda: steps)
    with Here(tmp_path, LocalBackend(registry, default="steps", queue=1)) as here, here.backend() as backend:
        study = backend.open_study(noise(3))
        running = backend.submit(AnnotateRequest(study, CLICK))
        assert steps.entered.wait(WAIT)
        body = {"study": study, "prompts": CLICK.to_json(), "structure": "other"}
        busy = here.ask("POST", "/api/annotate?job=b", json=body)
        assert busy.status_code == 503 and busy.headers["retry-after"] == "1"
        with RemoteBackend(RequestsTransport(here.url, here.token, sleep=let_go)) as patient:
            assert patient.annotate(AnnotateRequest(study, CLICK, structure="third")).patch.mask.any()
        assert waits[0] == 1.0


@pytest.mark.parametrize("named", [True, False])
def test_who_floods_the_queue_fills_a_part_of_it_and_the_others_are_served_in_between(tmp_path, volume, prompts, named):
    """With a token file a flood is a person's, whatever their windows are called; without one, it is a client's."""
    file = tmp_path / "tokens.txt"
    tokens = {name: add_token(file, name, "annotator") for name in ("ann", "bob")}
    options = ("--token-file", str(file)) if named else ()
    with Server(tmp_path / "studies", "--queue", "16", *options) as server, ExitStack() as lines:
        tokens = tokens if named else dict.fromkeys(tokens, server.token)
        with server.backend(tokens["ann"]) as backend:
            study = backend.open_study(volume)

        def ask(name: str, n: int) -> socket.socket:
            client = f"{name}{n}" if named else name
            body = {"study": study, "prompts": prompts.to_json(), "structure": str(n), "client": client}
            return lines.enter_context(posted(server, f"/api/annotate?job={name}{n}", body, tokens[name]))

        def where(name: str, n: int) -> dict:
            return server.ask("GET", f"/api/jobs/{name}{n}", tokens[name]).json()

        for n in range(4):
            ask("ann", n)
        wait_until(lambda: all("state" in where("ann", n) for n in range(4)))
        refused = read_all(ask("ann", 4))
        assert refused.startswith(b"HTTP/1.1 503") and b"retry-after: 1\r\n" in refused
        assert b"4 requests of yours wait for the cpu already" in refused
        served = ask("bob", 0)
        wait_until(lambda: "state" in where("bob", 0))
        assert where("bob", 0)["position"] <= 1
        assert read_all(served).startswith(b"HTTP/1.1 200")
        assert where("ann", 3)["state"] in ("queued", "running")  # as far as a slow computer has got meanwhile


def test_a_token_that_is_revoked_while_its_job_runs_gets_no_answer(tmp_path, volume, prompts):
    file = tmp_path / "tokens.txt"
    add_token(file, "boss", "admin")
    token = add_token(file, "ann", "annotator")
    with Server(tmp_path / "studies", "--token-file", str(file)) as server, ExitStack() as lines:
        with server.backend(token) as backend:
            study = backend.open_study(volume)
        body = {"study": study, "prompts": prompts.to_json()}
        for n in range(4):
            more = {**body, "structure": str(n)}
            last = lines.enter_context(posted(server, f"/api/annotate?job={n}", more, token))
        wait_until(lambda: server.ask("GET", "/api/jobs/3", token).status_code == 200)
        revoke_token(file, "ann")
        answer = read_all(last)
    assert answer.startswith(b"HTTP/1.1 401") and b"This token is not known here" in answer


def test_who_pulls_outlines_without_end_holds_nobody_up(tmp_path):
    """Outlines have a thread of their own: other threads are free for all else, and of one person only so many wait."""
    file = tmp_path / "tokens.txt"
    tokens = {name: add_token(file, name, "annotator") for name in ("ann", "bob")}
    k, j, i = np.ogrid[:40, :128, :128]
    tube = np.broadcast_to((j - 64) ** 2 + (i - 64) ** 2 < 40**2, (40, 128, 128))
    volume = Volume((100 * tube + 0 * k).astype(np.int16), Geometry.from_spacing(tube.shape))
    with Server(tmp_path / "studies", "--queue", "16", "--token-file", str(file)) as server, ExitStack() as lines:
        with server.backend(tokens["ann"]) as backend:
            study = backend.open_study(volume)
            base = backend.put_mask(study, MaskPatch.of_mask(tube))
        pull = {"study": study, "base": base, "index": 20, "start": [104, 64], "stop": [110, 64], "radius": 60}
        body = {**pull, "propagate": 50}
        flood = [lines.enter_context(posted(server, "/api/contour", body, tokens["ann"])) for _ in range(24)]
        assert server.ask("POST", "/api/contour", tokens["bob"], json=pull).status_code == 200
        answers = [read_all(line) for line in flood]
    done = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200")]
    refused = [answer for answer in answers if answer.startswith(b"HTTP/1.1 503")]
    assert len(done) >= 4 and refused and len(done) + len(refused) == 24
    assert all(b"requests of yours wait for the outlines already" in answer for answer in refused)


@pytest.mark.parametrize("path", ["/datastore/image?image={}", "/datastore/label?label={}", "/api/truth/{}/export"])
def test_who_downloads_without_end_holds_nobody_up(here, steps, volume, monkeypatch, path):
    """Files for downloads are written one after the other: all other threads are free, for clicks as well."""
    go = threading.Event()

    def write_slowly(*arguments):
        assert go.wait(WAIT)
        return image_bytes(*arguments)

    def export_slowly(*_):
        assert go.wait(WAIT)
        return b"labels"

    monkeypatch.setattr("aiassist.server.monailabel.image_bytes", write_slowly)
    monkeypatch.setattr("aiassist.server.monailabel.labelmap_file", export_slowly)
    monkeypatch.setattr(here.service, "exported", export_slowly)
    steps.go.set()
    with here.backend() as backend, ThreadPoolExecutor(24) as pool:
        study = backend.open_study(volume)
        downloads = [pool.submit(here.ask, "GET", path.format(study)) for _ in range(24)]
        wait_until(lambda: sum(download.done() for download in downloads) == 24 - here.service.settings.queue // SHARE)
        assert backend.annotate(AnnotateRequest(study, CLICK)).patch.mask.any()
        assert not go.is_set()
        go.set()
        answers = [download.result() for download in downloads]
    refused = [answer.json()["message"] for answer in answers if answer.status_code == 503]
    assert all("requests of yours wait for the exports already; try again" in message for message in refused)
    assert [answer.status_code for answer in answers].count(200) == 16 and len(refused) == 8


def posted(server: Server, path: str, body: dict, token: str) -> socket.socket:
    """A connection on which a request was sent, and whose answer nobody has read yet."""
    data = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: Bearer {token}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n"
    line = server.connection()
    line.sendall(head.encode() + data)
    return line


def read_all(line: socket.socket) -> bytes:
    """What comes until the server closes the connection."""
    return b"".join(iter(lambda: line.recv(65536), b""))


class Endless(Whole):
    """An automatic segmenter that goes on until it is told to end."""

    def __init__(self):
        self.end = threading.Event()

    def segment(self, volume):
        """All of the volume, in the end."""
        while not self.end.wait(0.01):
            yield Step("pass", 0.0)
        return (yield from super().segment(volume))


def test_a_click_does_not_wait_at_the_client_for_segmentations_that_take_long(tmp_path):
    registry, endless = Registry(), Endless()
    registry.add("ellipsoid", Ellipsoid)
    registry.add("whole", lambda: endless)
    with Here(tmp_path, LocalBackend(registry, default="ellipsoid")) as here, here.backend() as backend:
        study = backend.open_study(noise(3))
        long = [backend.submit(SegmentRequest(study, "whole", client=str(n))) for n in range(5)]
        assert backend.submit(AnnotateRequest(study, CLICK)).result(WAIT).patch.mask.any()
        assert not any(job.finished for job in long)
        endless.end.set()
        for job in long:
            assert job.result(WAIT).patch.voxels.any()
