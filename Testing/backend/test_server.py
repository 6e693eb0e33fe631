"""The native API, by a real server process and real sockets."""

from __future__ import annotations

import json
import os
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from dicom_series import write_series
from server_helpers import Server, Watched, ball

from aiassist.client import RemoteBackend
from aiassist.contour import ContourSession
from aiassist.engine import AnnotateRequest, LocalBackend, SegmentRequest
from aiassist.errors import (
    Cancelled,
    ContourError,
    ModelError,
    PromptError,
    StoreError,
    UnknownMaskError,
    UnknownStudyError,
)
from aiassist.imaging import Geometry, MaskPatch, Region, Volume, read_volume
from aiassist.prompts import Prompts
from aiassist.server.run import temporary_folder

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


def test_files_of_requests_lie_beside_the_studies_and_those_that_were_left_go_after_a_day(tmp_path):
    folder = temporary_folder(tmp_path / "studies")
    for name, age in (("aiassist-left", 2 * 86_400), ("aiassist-now", 60)):
        (folder / name).mkdir()
        (folder / name / "image.nii").write_bytes(b"")
        os.utime(folder / name, (time.time() - age,) * 2)
    assert temporary_folder(tmp_path / "studies") == folder == tmp_path / "studies" / "tmp"
    assert [path.name for path in folder.iterdir()] == ["aiassist-now"]


def test_a_click_that_changes_nothing_leaves_the_mask_known(tmp_path):
    """Its answer has the version of its base; the client must not take the mask for a change of itself."""
    volume, prompts = ball(23)
    with Server(tmp_path) as server, server.backend() as backend:
        study = backend.open_study(volume)
        first = backend.annotate(AnnotateRequest(study, prompts, model="geodesic"))
        inside = np.argwhere(first.patch.mask)[first.patch.mask.sum() // 2] + first.patch.region.start
        click = replace(prompts, positive=[inside[::-1]])
        same = backend.annotate(AnnotateRequest(study, click, base=first.version, model="geodesic"))
        assert same.version == first.version
    with Server(tmp_path) as server, server.backend() as again:
        again.conversations = backend.conversations  # which tells this server the mask once more
        after = again.annotate(AnnotateRequest(study, click, base=same.version, model="geodesic"))
        assert after.version == first.version
        for number in range(1, 67):  # more than are remembered
            again.put_mask(study, MaskPatch.of_mask(np.arange(volume.voxels.size).reshape(volume.shape) < number))


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
    voxels = volume.voxels.copy()
    voxels[0, 0, 0] += 1  # a study of its own: others save labels of the sample, too
    study = backend.open_study(Volume(voxels, volume.geometry))
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
    assert [a["what"] for a in audit if a.get("study") == study] == ["save", "save", "restore", "export"]


@pytest.mark.parametrize(
    "name", ["L5/S1", "GTV/CTV 50%", "liver/3/restore", "a%2Fb", "50%2E", ".", "..", "Größe & Ort?"]
)
def test_a_structure_may_have_any_name(server, backend, name):
    volume, _ = ball(21)
    study, talk = backend.open_study(volume), backend.conversations
    mask = MaskPatch.of_mask(volume.voxels > 100)
    made = backend.run(talk.save(study, name, mask))
    assert made["structure"] == name
    assert backend.run(talk.saved(study, name, made["number"])).version == mask.version
    assert backend.run(talk.restore(study, name, made["number"]))["structure"] == name


def test_a_structure_that_was_emptied_is_saved_and_corrected_as_here(server, backend):
    volume, _ = ball(22)
    study, talk = backend.open_study(volume), backend.conversations
    made = backend.run(talk.save(study, "ball", MaskPatch.empty()))
    assert backend.run(talk.saved(study, "ball", made["number"])).region.is_empty
    clicked = Prompts(prior=MaskPatch.empty(), positive=[[8, 8, 8]])
    with LocalBackend() as local:
        local.open_study(volume)
        here = local.annotate(AnnotateRequest(study, clicked, model="geodesic"))
    assert backend.annotate(AnnotateRequest(study, clicked, model="geodesic")).version == here.version


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
    made.append(backend.run(talk.save(study, "ball", first, parent=0)))  # the first once more, its answer late
    third = MaskPatch.of_mask(np.roll(volume.voxels > 100, 2, axis=0))
    made += [backend.run(talk.save(study, "ball", third, parent=0)) for _ in range(2)]  # drawn anew, sent twice
    assert [v["number"] for v in made] == [1, 1, 2, 3, 1, 4, 4]
    assert [v["parent"] for v in made] == [None, None, 1, 2, None, None, None]


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


def test_where_the_files_lie_is_said_in_the_log_only(tmp_path):
    volume, _ = ball(17)
    with Server(tmp_path) as server, server.backend() as backend:
        study = backend.open_study(volume)
        backend.run(backend.conversations.save(study, "ball", MaskPatch.of_mask(volume.voxels > 100)))
        backend.run(backend.conversations.save(study, "other", MaskPatch.of_mask(volume.voxels > 200)))
        one, other = (tmp_path / "studies" / study / name / "v0001.seg.nrrd" for name in ("ball", "other"))
        one.write_bytes(other.read_bytes())
        for method, path in (("GET", f"/api/truth/{study}/ball/1"), ("POST", f"/api/truth/{study}/ball/1/restore")):
            answer = server.ask(method, path)
            said = answer.json()["message"]
            assert answer.status_code == 500 and str(tmp_path) not in said
            assert said.startswith(f"the studies folder/studies/{study}/ball/v0001.seg.nrrd was changed")
        assert f"WARNING {one} was changed after it was saved" in server.ask("GET", "/logs/").text


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
        (("--port", "99999"), "--port is 99999"),
        (("--memory", "nan"), "--memory is nan"),
        (("--memory", "1e308"), "--memory is 1e+308; give gigabytes, more than 0 and at most 1,000,000,000."),
        (("--disk", "inf"), "--disk is inf"),
        (("--queue", "0"), "--queue is 0"),
        (("--tls-cert", "cert.pem", "--tls-key", "key.pem"), "There is no file cert.pem"),
        (("--tls-cert", __file__, "--tls-key", __file__), "are no certificate and its key in PEM"),
    ],
)
def test_it_does_not_start_open_or_half_set_up(run_cli, tmp_path, options, said):
    outcome = run_cli("serve", "--studies", tmp_path / "s", "--port", "0", *options, cwd=tmp_path)
    assert outcome.returncode == 2 and said in outcome.stderr and len(outcome.stderr.splitlines()) == 1


def test_a_server_for_others_says_when_it_does_not_encrypt(run_cli, tmp_path):
    assert run_cli("tokens", "add", "ann", "--file", tmp_path / "tokens.txt").returncode == 0
    where = ("--studies", tmp_path / "s", "--host", "0.0.0.0", "--port", "0", "--token-file", tmp_path / "tokens.txt")
    outcome = run_cli("serve", *where, "--until-stdin-closes")
    assert outcome.returncode == 0 and "travel unencrypted, which clients refuse: give --tls-cert" in outcome.stderr


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


def test_closing_a_client_stops_what_runs_for_it(server, volume):
    with RemoteBackend(Watched(server.url, server.token)) as backend:
        job = backend.submit(SegmentRequest(backend.open_study(volume), "lungs-ct"))
    assert any(r.method == "DELETE" and r.path == f"/api/jobs/{job.id}" for r in backend.transport.sent)
    with pytest.raises(Cancelled):
        job.result(10)
