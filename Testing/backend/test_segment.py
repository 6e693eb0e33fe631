"""Automatic models end to end: engine, command line, server, client."""

from __future__ import annotations

import json
import re
import threading
import time
from dataclasses import replace

import nrrd
import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from server_helpers import Server, Watched
from test_server import ball
from thorax import LEFT, RIGHT, Thorax, grid

from aiassist import cli
from aiassist.client import RemoteBackend
from aiassist.engine import AnnotateRequest, JobState, LocalBackend, SegmentRequest
from aiassist.errors import BusyError, Cancelled, DeviceMemoryError, ModelError, UnknownStudyError
from aiassist.imaging import Label, MaskPatch, Region, Volume, read_labelmap, write_volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step
from aiassist.segmenters.lungs import LungsCT
from aiassist.segmenters.registry import Registry, bundled

WAIT = 20
BALL, PROMPTS = ball(0)
MODEL = "lungs-ct"


class Halves:
    """An automatic model that calls the lower half 1 and the upper half 2, once it is let go."""

    card = ModelCard(
        name="halves",
        version="7",
        kind="automatic",
        description="Halves.",
        labels=(Label("lower", 1), Label("upper", 2)),
    )

    def __init__(self):
        self.entered, self.go = threading.Event(), threading.Event()
        self.begun = 0

    def segment(self, volume):
        """Waits at the second of three steps."""
        self.begun += 1
        yield Step("pass", 0.0)
        yield Step("pass", 0.4)
        self.entered.set()
        assert self.go.wait(WAIT)
        yield Step("pass", 0.8)
        labels = np.ones(volume.shape, np.uint8)
        labels[volume.shape[0] // 2 :] = 2
        return MaskPatch(volume.geometry.whole, labels, "labels")


@pytest.fixture
def halves():
    segmenter = Halves()
    yield segmenter
    segmenter.go.set()


@pytest.fixture
def backend(halves):
    registry = bundled()
    registry.add("halves", lambda: halves)
    with LocalBackend(registry) as backend:
        yield backend
        halves.go.set()


@pytest.fixture(scope="module")
def chest() -> Volume:
    return Thorax().scan(grid((5, 5, 5)))[0]


# The engine


def test_a_segmentation_holds_the_labels_of_the_models_card(backend, halves):
    halves.go.set()
    study = backend.open_study(BALL)
    seen: list[Step] = []
    answer = backend.segment(SegmentRequest(study, "halves"), seen.append)
    assert (answer.study, answer.model, answer.model_version, answer.device) == (study, "halves", "7", "cpu")
    assert answer.patch.kind == "labels" and np.unique(answer.patch.voxels).tolist() == [1, 2]
    fractions = [step.fraction for step in seen]
    assert fractions == sorted(fractions) and (fractions[0], fractions[-1]) == (0, 1)
    assert list(answer.seconds) == ["open", "pass", "answer"]


def test_a_click_comes_before_the_rest_of_a_segmentation_and_neither_cancels_the_other(backend, halves):
    study = backend.open_study(BALL)
    annotate = AnnotateRequest(study, PROMPTS, structure="halves", model="ellipsoid", client="me")
    running = backend.submit(SegmentRequest(study, "halves", client="me"))
    assert halves.entered.wait(WAIT)
    click = backend.submit(annotate)
    behind = backend.submit(SegmentRequest(study, "halves", client="another"))
    assert [backend.worker.position(job) for job in (click, running, behind)] == [0, 1, 2]
    halves.go.set()
    assert running.result(WAIT).model == behind.result(WAIT).model == "halves"
    assert click.result(WAIT).patch.mask.any()


def test_a_newer_segmentation_of_the_same_client_and_model_overtakes_the_older(backend, halves):
    study = backend.open_study(BALL)
    older = backend.submit(SegmentRequest(study, "halves"))
    assert halves.entered.wait(WAIT)
    newer = backend.submit(SegmentRequest(study, "halves"))
    halves.go.set()
    with pytest.raises(Cancelled):
        older.result(WAIT)
    assert newer.result(WAIT).patch.voxels.shape == BALL.shape and halves.begun == 2


def test_a_segmentation_is_cancelled_between_its_steps(backend, halves):
    study = backend.open_study(BALL)
    job = backend.submit(SegmentRequest(study, "halves"))
    assert halves.entered.wait(WAIT)
    job.cancel()
    halves.go.set()
    with pytest.raises(Cancelled):
        job.result(WAIT)
    assert job.state is JobState.CANCELLED and job.last_step.fraction < 1


def test_each_kind_of_model_is_asked_in_its_own_way(backend):
    study = backend.open_study(BALL)
    with pytest.raises(ModelError, match="'network' needs prompts; run annotate"):
        backend.submit(SegmentRequest(study, "network"))
    with pytest.raises(ModelError, match="'lungs-ct' takes no prompts; run it with segment"):
        backend.submit(AnnotateRequest(study, PROMPTS, model=MODEL))
    with pytest.raises(ModelError, match=r"no model 'oracle'; the models are .*lungs-ct"):
        backend.submit(SegmentRequest(study, "oracle"))
    with pytest.raises(UnknownStudyError, match="open it first"):
        backend.submit(SegmentRequest("beef", MODEL))


def test_without_a_thread_segment_still_waits_for_its_answer(chest):
    with LocalBackend(threaded=False) as backend:
        answer = backend.segment(SegmentRequest(backend.open_study(chest), MODEL))
    assert np.unique(answer.patch.voxels).tolist() == [0, LEFT, RIGHT]


def test_when_the_device_is_full_the_cpu_takes_over_and_says_so(halves):
    class Hungry(Halves):
        card = replace(Halves.card, devices=("cpu", "cuda"))

        def segment(self, volume):
            yield Step("pass", 0.0)
            raise DeviceMemoryError("The cuda has too little memory for the network now.")

    registry = Registry()
    registry.add("halves", Hungry)
    halves.go.set()
    with LocalBackend(registry, default="halves", device="cuda") as backend:
        backend.fallback = Registry()
        backend.fallback.add("halves", lambda: halves)
        assert backend.segment(SegmentRequest(backend.open_study(BALL), "halves")).device == "cpu"


def test_an_automatic_model_of_the_cpu_runs_there_beside_a_better_device_and_says_so(chest):
    with LocalBackend(device="cuda") as backend:
        assert backend.segment(SegmentRequest(backend.open_study(chest), MODEL)).device == "cpu"


def test_a_full_queue_refuses_a_segmentation(halves):
    registry = Registry()
    registry.add("halves", lambda: halves)
    with LocalBackend(registry, default="halves", queue=1) as backend:
        study = backend.open_study(BALL)
        backend.submit(SegmentRequest(study, "halves"))
        with pytest.raises(BusyError, match="1 requests wait"):
            backend.submit(SegmentRequest(study, "halves", client="another"))
        halves.go.set()


def test_patches_become_whole_labelmaps():
    region = Region((1, 0, 2), (2, 1, 4))
    labels = MaskPatch(region, np.array([[[7, 0]]], np.uint16), "labels")
    bits = MaskPatch(region, np.array([[[True, False]]]))
    for patch, value, dtype in ((labels, 7, np.uint16), (bits, 1, np.uint8)):
        labelmap = patch.to_labelmap((3, 2, 5))
        assert labelmap.dtype == dtype and labelmap.sum() == value == labelmap[1, 0, 2]


# The command line


@pytest.fixture(scope="module")
def chest_file(chest, tmp_path_factory):
    path = tmp_path_factory.mktemp("chest") / "chest.nii.gz"
    write_volume(path, chest)
    return path


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd", ".mha", ".seg.nrrd"])
def test_the_command_writes_any_kind_of_labelmap(run_cli, chest, chest_file, tmp_path, ending):
    output = tmp_path / f"lungs{ending}"
    outcome = run_cli("segment", chest_file, "-o", output, "--model", MODEL)
    assert outcome.returncode == 0 and outcome.stderr == ""
    assert "lung_left 2" in outcome.stdout and "by lungs-ct 1 in" in outcome.stdout
    written = read_labelmap(output, like=chest)
    assert np.unique(written.voxels).tolist() == [0, LEFT, RIGHT]
    if ending == ".seg.nrrd":
        header = nrrd.read_header(str(output))
        assert (header["Segment0_Name"], header["Segment1_Name"]) == ("lung_left", "lung_right")
        assert "SCT^39607008^Lung~SCT^7771000^Left" in header["Segment0_Tags"]


def test_json_says_what_was_found(run_cli, chest_file, tmp_path):
    output = tmp_path / "lungs.nii.gz"
    outcome = run_cli("segment", chest_file, "-o", output, "--model", MODEL, "--json")
    said = json.loads(outcome.stdout)
    labelmap = read_labelmap(output).voxels
    assert (said["labelmap"], said["model"], said["model_version"]) == (str(output), MODEL, "1")
    for one, name, value in zip(said["labels"], ("lung_left", "lung_right"), (LEFT, RIGHT), strict=True):
        voxels = int((labelmap == value).sum())
        assert one == {"name": name, "value": value, "voxels": voxels, "millilitres": round(voxels * 0.125, 4)}


def test_a_dicom_series_becomes_a_dicom_seg_that_says_a_model_made_it(run_cli, chest, tmp_path):
    write_series(tmp_path / "ct", chest.voxels, chest.geometry.affine)
    outcome = run_cli("segment", tmp_path / "ct", "-o", tmp_path / "lungs.dcm", "--model", MODEL)
    assert outcome.returncode == 0, outcome.stderr
    told = pydicom.dcmread(tmp_path / "lungs.dcm")
    assert told.Modality == "SEG" and [s.SegmentLabel for s in told.SegmentSequence] == ["lung_left", "lung_right"]
    for segment, side in zip(told.SegmentSequence, ("Left", "Right"), strict=True):
        kind = segment.SegmentedPropertyTypeCodeSequence[0]
        assert (kind.CodeValue, kind.CodeMeaning) == ("39607008", "Lung")
        assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == side
        assert (segment.SegmentAlgorithmType, segment.SegmentAlgorithmName) == ("AUTOMATIC", MODEL)


def test_a_model_that_finds_nothing_leaves_no_dicom_seg(chest, tmp_path, capsys, monkeypatch):
    def nothing(_self, volume):
        yield Step("pass", 0.0)
        return MaskPatch(volume.geometry.whole, np.zeros(volume.shape, np.uint8), "labels")

    monkeypatch.setattr(LungsCT, "segment", nothing)
    write_series(tmp_path / "ct", chest.voxels, chest.geometry.affine)
    assert cli.main(["segment", str(tmp_path / "ct"), "-o", str(tmp_path / "lungs.dcm"), "--model", MODEL]) == 2
    assert capsys.readouterr().err == (
        "aiassist: lungs.dcm: nothing was found, and a DICOM SEG holds at least one structure; use .seg.nrrd.\n"
    )
    assert not list(tmp_path.glob("lungs*"))
    assert cli.main(["segment", str(tmp_path / "ct"), "-o", str(tmp_path / "lungs.seg.nrrd"), "--model", MODEL]) == 0
    assert not read_labelmap(tmp_path / "lungs.seg.nrrd", like=chest).voxels.any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("{image}", "-o", "out.nii.gz"), "--model"),
        (("{image}", "-o", "out.nii.gz", "--model", "network"), "needs prompts; run annotate"),
        (("{image}", "-o", "out.nii.gz", "--model", "oracle"), "no model 'oracle'"),
        (("{image}", "-o", "out.png", "--model", MODEL), "no known ending"),
        (("{image}", "-o", "missing/out.nrrd", "--model", MODEL), "no folder missing"),
        (("{image}", "-o", "{image}", "--model", MODEL), "is an input of this command"),
        (("{image}", "-o", "out.dcm", "--model", MODEL), "did not come from DICOM"),
        (("ball.nrrd", "-o", "out.nii.gz", "--model", MODEL), "needs a CT of the chest"),
        (("nothing.nrrd", "-o", "out.nii.gz", "--model", MODEL), "no file or folder nothing.nrrd"),
    ],
)
def test_what_is_wrong_is_one_sentence(run_cli, chest_file, tmp_path, arguments, said):
    write_volume(tmp_path / "ball.nrrd", BALL)
    filled = [argument.format(image=chest_file) for argument in arguments]
    outcome = run_cli("segment", *filled, cwd=tmp_path)
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert said in outcome.stderr and len(outcome.stderr.splitlines()) == 1
    assert not list(tmp_path.glob("out*"))


def test_models_are_listed_with_their_kind(run_cli):
    listed = run_cli("models", "list").stdout
    assert re.search(r"^lungs-ct +automatic, version 1: Left and right lung", listed, re.M)
    card = run_cli("models", "info", MODEL).stdout
    assert "labels:       lung_left, lung_right\n" in card and "kind:         automatic\n" in card
    assert json.loads(run_cli("models", "info", MODEL, "--json").stdout)["labels"][1]["value"] == 2


# The server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("studies")) as running:
        yield running


def test_a_segmentation_from_the_server_is_the_one_from_this_process(server, chest):
    with LocalBackend() as local:
        here = local.segment(SegmentRequest(local.open_study(chest), MODEL))
    wire = Watched(server.url, server.token)
    with RemoteBackend(wire) as remote:
        study = remote.open_study(chest)
        before = wire.bytes
        there = remote.segment(SegmentRequest(study, MODEL))
        assert wire.bytes - before < 200
    assert there.patch.to_bytes() == here.patch.to_bytes()
    assert replace(there, patch=None, seconds={}) == replace(here, patch=None, seconds={})
    assert set(there.seconds) == set(here.seconds)


def test_a_server_that_forgot_the_study_is_told_it_again(tmp_path, chest):
    with Server(tmp_path) as server, server.backend() as first:
        study = first.open_study(chest)
        before = first.segment(SegmentRequest(study, MODEL))
    for file in (tmp_path / "uploads").iterdir():
        file.unlink()
    with Server(tmp_path) as server, RemoteBackend(Watched(server.url, server.token)) as again:
        again.conversations = first.conversations
        assert again.segment(SegmentRequest(study, MODEL)).patch.to_bytes() == before.patch.to_bytes()
        assert any(request.method == "PATCH" for request in again.transport.sent)


def test_errors_keep_their_kind_and_their_sentence(server):
    with server.backend() as remote:
        study = remote.open_study(BALL)
        with pytest.raises(ModelError, match="'network' needs prompts; run annotate"):
            remote.segment(SegmentRequest(study, "network"))
        with pytest.raises(ModelError, match="needs a CT of the chest"):
            remote.segment(SegmentRequest(study, MODEL))
        with pytest.raises(UnknownStudyError):
            remote.segment(SegmentRequest("ab" * 16, MODEL))
    for body in ({"study": study}, {"study": study, "model": MODEL, "prompts": {}}, {"study": "x", "model": MODEL}):
        answer = server.ask("POST", "/api/segment?job=wrong", json=body)
        assert answer.status_code == 422 and set(answer.json()) == {"error", "message"}


@pytest.fixture(scope="module")
def large(server) -> tuple[Volume, str]:
    """A chest that takes a second, known to the server."""
    volume = Thorax().scan(grid((2.5, 2.5, 2.5)))[0]
    with server.backend() as remote:
        return volume, remote.open_study(volume)


def until(met, seconds: float = WAIT):
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_segmentation_can_be_watched_and_cancelled(server, large):
    with server.backend() as remote:
        job = remote.submit(SegmentRequest(large[1], MODEL))
        until(lambda: server.ask("GET", f"/api/jobs/{job.id}").json().get("state") == "running")
        assert job.where()["phase"] in ("open", "coarse", "pass", "border")
        job.cancel()
        with pytest.raises(Cancelled):
            job.result(WAIT)


def test_a_click_and_a_segmentation_of_one_window_both_get_their_answer(server, large):
    _, study = large
    with server.backend() as remote:
        lungs = remote.submit(SegmentRequest(study, MODEL))
        inside = Prompts(extreme_points=[[20, 20, 20], [60, 60, 60]])
        click = remote.submit(AnnotateRequest(study, inside, structure=MODEL, model="ellipsoid"))
        assert click.result(WAIT).patch.mask.any()
        assert np.unique(lungs.result(WAIT).patch.voxels).tolist() == [0, LEFT, RIGHT]


def test_the_job_of_a_client_that_is_gone_is_cancelled(server, large):
    body = json.dumps({"study": large[1], "model": MODEL}).encode()
    with server.connection() as line:
        head = f"POST /api/segment?job=gone HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {server.token}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        line.sendall(head.encode() + body)
        until(lambda: server.ask("GET", "/api/jobs/gone").status_code == 200)
    until(lambda: server.ask("GET", "/api/jobs/gone").status_code == 404)


def test_the_same_job_asked_twice_is_done_once(server, chest):
    with server.backend() as remote:
        body = {"study": remote.open_study(chest), "model": MODEL}
    first, second = (server.ask("POST", "/api/segment?job=same", json=body) for _ in range(2))
    assert first.status_code == 200 and first.content == second.content
    assert first.headers["aiassist-answer"] == second.headers["aiassist-answer"]
    assert server.ask("GET", "/api/jobs/same").json()["state"] == "done"
