"""MONAI Label's own client, as PyPI has it, against our server."""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import pytest
import requests
from overlap import dice

from aiassist.errors import UploadError
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import Geometry, MaskPatch, Volume, read_volume, write_volume
from aiassist.prompts import extreme_points
from aiassist.server.forms import image_bytes

if sys.version_info >= (3, 13):
    pytest.skip("monailabel's client needs the module cgi of Python 3.12 and older", allow_module_level=True)

from monailabel.client import MONAILabelClient
from monailabel.client.client import MONAILabelClientException


@pytest.fixture
def client(server, tmp_path):
    """The client, logged in as its Slicer plugin does: any name, the token as the password."""
    client = MONAILabelClient(server.url, tmpdir=str(tmp_path), client_id="user-xyz")
    assert client.auth_enabled()
    client.update_auth(client.auth_token("anybody", server.token))
    assert client.auth_valid_token()
    return client


@pytest.fixture
def clicks(spleen):
    """Six points, and one click in the middle."""
    rng = np.random.default_rng(0)
    inside = np.argwhere(spleen)
    middle = inside[np.argmin(np.linalg.norm(inside - inside.mean(axis=0), axis=1))]
    return {"points": extreme_points(spleen, rng).astype(int).tolist(), "foreground": [middle[::-1].tolist()]}


def test_a_wrong_password_is_refused(server, tmp_path):
    with pytest.raises(MONAILabelClientException):
        MONAILabelClient(server.url, tmpdir=str(tmp_path)).auth_token("anybody", "wrong")


def test_info_lists_our_models_and_has_no_config(client):
    info = client.info()
    assert info["models"]["network"] == {**info["models"]["network"], "type": "deepgrow", "dimension": 3}
    assert info["models"]["lungs-ct"]["type"] == "segmentation"
    assert info["models"]["lungs-ct"]["labels"] == {"lung_left": 1, "lung_right": 2}
    assert {"lung_left", "lung_right"} <= set(info["labels"])
    assert {"name", "labels", "trainers", "strategies", "train_stats", "datastore"} <= set(info)
    assert not info.get("config")


def test_the_whole_round(client, server, image_file, volume, spleen, clicks, tmp_path):
    image = client.upload_image(str(image_file), image_id="torso")["image"]
    assert image == volume.study_id
    assert client.next_sample("first", {})["id"] == image
    params = {"label": "spleen", "background": [], "result_extension": ".nrrd", "result_dtype": "uint8"}
    file, told = client.infer("network", image, {**params, "foreground": [], "extreme_points": clicks["points"]})
    mask = read_volume(file)
    assert file.endswith(".nrrd") and mask.voxels.dtype == np.uint8 and mask.geometry.same_grid(volume.geometry)
    assert dice(mask.voxels > 0, spleen) > 0.9 and told["label_names"] == {"spleen": 1}
    for way in ({"foreground": clicks["foreground"]}, {"spleen": clicks["foreground"], "liver": [[5, 5, 5]]}):
        found = read_volume(client.infer("geodesic", "torso", {**params, **way})[0]).voxels > 0
        i, j, k = clicks["foreground"][0]
        assert found[k, j, i] and 100 < found.sum() < 3 * spleen.sum()
    label = tmp_path / "corrected.nii.gz"
    both = spleen.astype(np.uint8)
    both[0, :4, :4] = 2
    write_volume(label, Volume(both, volume.geometry))
    named = {"label_info": [{"name": "spleen", "idx": 1}, {"name": "corner", "idx": 2}]}
    assert client.save_label(image, str(label), "final", named)["saved"] == ["spleen", "corner"]
    assert client.save_label(image, str(label), "final", named)["saved"] == []  # nothing changed
    back = read_volume(client.download_label(image, "final")).voxels
    listed = client.datastore()["objects"][image]["labels"]["final"]["info"]["params"]["label_info"]
    values = {one["name"]: one["idx"] for one in listed}
    assert np.array_equal(back == values["spleen"], spleen) and (back == values["corner"]).sum() == 16
    assert client.info()["datastore"] == {"total": 1, "completed": 1}
    assert client.next_sample("first", {}) == {}


def upload(client, path, volume, name: str) -> str:
    """Send a volume as Slicer's plugin does; returns the id."""
    write_volume(path, volume)
    return client.upload_image(str(path), image_id=name)["image"]


def noise(seed: int) -> Volume:
    voxels = np.random.default_rng(seed).integers(0, 99, (4, 5, 6)).astype(np.int16)
    return Volume(voxels, Geometry.from_spacing(voxels.shape))


def test_a_name_means_the_image_that_the_person_sent_last_by_it(client, tmp_path):
    """Slicer's plugin asks by the node's name, whatever id it was told; patients' nodes may share one."""
    scan, label = tmp_path / "scan.nii.gz", tmp_path / "label.nii.gz"
    write_volume(label, Volume((noise(1).voxels > 50).astype(np.uint8), noise(1).geometry))
    known = upload(client, scan, noise(1), "case7")
    for seed in (2, 1, 3):  # the second is one that is here by another name
        sent = upload(client, scan, noise(seed), "T1")
        named = {"label_info": [{"name": f"spot {seed}", "idx": 1}]}
        assert client.save_label("T1", str(label), "final", named)["image"] == sent
    assert noise(1).study_id == known


def test_no_image_takes_the_id_of_another_for_its_name(client, server, tmp_path):
    first = upload(client, tmp_path / "a.nii.gz", noise(4), "first")
    with pytest.raises(MONAILabelClientException) as error:
        upload(client, tmp_path / "b.nii.gz", noise(5), first)
    assert "is another image's id; rename the image" in error.value.msg
    assert upload(client, tmp_path / "a.nii.gz", noise(4), first) == first
    server.ask("PUT", f"/datastore/?image={noise(9).study_id}", files={"file": (tmp_path / "b.nii.gz").open("rb")})
    assert upload(client, tmp_path / "c.nii.gz", noise(9), "ninth") == noise(9).study_id  # of that name was another
    label, mask = tmp_path / "label.nii.gz", noise(9).voxels > 50
    write_volume(label, Volume(mask.astype(np.uint8), noise(9).geometry))
    client.save_label(noise(9).study_id, str(label), "final", {"label_info": [{"name": "spot", "idx": 1}]})
    assert len(server.ask("GET", f"/api/truth/{noise(9).study_id}").json()["versions"]) == 1
    assert server.ask("GET", f"/api/truth/{noise(9).study_id}/export?format=nrrd").status_code == 200


def test_the_beginning_of_an_id_is_no_name(client, server, tmp_path):
    study = upload(client, tmp_path / "a.nii.gz", noise(10), "somebody")
    assert server.ask("GET", f"/datastore/image?image={study}").status_code == 200
    for other in (study[:4], study[:31]):
        assert server.ask("GET", f"/datastore/image?image={other}").status_code == 404


def test_two_segments_of_one_name_are_refused_and_none_is_saved(client, server, tmp_path):
    study = upload(client, tmp_path / "a.nii.gz", noise(11), "twice")
    label, values = tmp_path / "label.nii.gz", (noise(11).voxels > 50).astype(np.uint8)
    values[0] *= 2
    write_volume(label, Volume(values, noise(11).geometry))
    named = {"label_info": [{"name": "lesion", "idx": 1}, {"name": "Lesion", "idx": 2}, {"name": "LESION", "idx": 3}]}
    with pytest.raises(MONAILabelClientException) as error:
        client.save_label(study, str(label), "final", named)
    assert "Two segments are called 'Lesion'; give each structure a name of its own" in error.value.msg
    assert server.ask("GET", f"/api/truth/{study}").json().get("versions", []) == []
    values[0] = 0  # one of them is empty
    write_volume(label, Volume(values, noise(11).geometry))
    assert client.save_label(study, str(label), "final", named)["saved"] == ["lesion"]


def test_submitting_what_somebody_left_as_a_draft_submits_it(client, server, tmp_path):
    study = upload(client, tmp_path / "c.nii.gz", noise(6), "drafted")
    label, mask = tmp_path / "label.nii.gz", noise(6).voxels > 50
    write_volume(label, Volume(mask.astype(np.uint8), noise(6).geometry))
    with server.backend() as backend:
        version = backend.put_mask(backend.open_study(noise(6)), MaskPatch.of_mask(mask))
    assert server.ask("POST", f"/api/truth/{study}/Spot", json={"mask": version}).json()["state"] == "draft"
    named = {"label_info": [{"name": "spot", "idx": 1}, {"name": "nothing", "idx": 2}]}
    assert client.save_label(study, str(label), "final", named)["saved"] == ["spot"]
    assert client.save_label(study, str(label), "final", named)["saved"] == []
    bad = {"label_info": [{"name": "ok", "idx": 1}, {"name": " ", "idx": 2}]}
    with pytest.raises(MONAILabelClientException):
        client.save_label(study, str(label), "final", bad)
    saved = server.ask("GET", f"/api/truth/{study}").json()["versions"]
    assert sorted(one["state"] for one in saved) == ["draft", "submitted"]  # and none called "ok"
    with GroundTruthStore(server.studies) as store:
        store.add(study, "spot", MaskPatch.of_mask(mask), author="Carla", state=State.REJECTED)
    assert client.save_label(study, str(label), "final", named)["saved"] == []  # what was rejected, as it was


def test_a_session_carries_an_image_that_is_not_kept(client, image_file, volume, spleen, clicks):
    session = client.create_session(str(image_file))["session_id"]
    assert client.get_session(session)["image"] == volume.study_id
    file, _ = client.infer("network", "", {"points": clicks["points"]}, session_id=session)
    assert dice(read_volume(file).voxels > 0, spleen) > 0.9
    client.remove_session(session)
    with pytest.raises(MONAILabelClientException):
        client.get_session(session)
    with pytest.raises(MONAILabelClientException):
        client.infer("network", "", {"points": clicks["points"]}, session_id=session)


def test_an_automatic_model_needs_no_clicks(client, image_file, volume):
    file, told = client.infer("lungs-ct", "", {"result_extension": ".nrrd"}, file=str(image_file))
    found = read_volume(file)
    assert told["label_names"] == {"lung_left": 1, "lung_right": 2}
    assert found.geometry.same_grid(volume.geometry)
    assert np.unique(found.voxels).tolist() == [0, 1, 2]


def test_of_an_automatic_model_a_client_may_want_a_part(client, image_file):
    left, right = "lung_left", "lung_right"
    for params, names, values in (
        ({"label": right}, {right: 2}, [0, 2]),
        ({"label": [left, right]}, {left: 1, right: 2}, [0, 1, 2]),
        ({"label_prompt": [1], "restore_label_idx": False}, {left: 1}, [0, 1]),  # as OHIF's class prompts do
    ):
        file, told = client.infer("lungs-ct", "", {"result_extension": ".nrrd", **params}, file=str(image_file))
        assert told["label_names"] == names and np.unique(read_volume(file).voxels).tolist() == values
    for params in ({"label": "liver"}, {"label_prompt": [9]}, {"label": {}, "label_prompt": [[1]]}):
        with pytest.raises(MONAILabelClientException) as error:
            client.infer("lungs-ct", "", params, file=str(image_file))
        assert "finds lung_left (1), lung_right (2), not" in error.value.msg


def test_a_mask_that_comes_along_is_corrected(client, image_file, volume, spleen, clicks, tmp_path):
    label, params = tmp_path / "mask.nii.gz", {"background": clicks["foreground"]}
    write_volume(label, Volume(spleen.astype(np.uint8) * 3, volume.geometry))
    file, _ = client.infer("geodesic", "", params, label_in=str(label), file=str(image_file))
    found, (i, j, k) = read_volume(file).voxels > 0, clicks["foreground"][0]
    assert not found[k, j, i] and (found & spleen).sum() > 0.3 * spleen.sum() and not (found & ~spleen).any()
    write_volume(label, Volume(spleen[1:].astype(np.uint8), Geometry(spleen[1:].shape, volume.geometry.affine)))
    with pytest.raises(MONAILabelClientException) as error:
        client.infer("geodesic", "", params, label_in=str(label), file=str(image_file))
    assert "another grid than its image" in error.value.msg


@pytest.mark.parametrize(
    ("params", "encoding", "dtype"),
    [
        ({"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False}, b"raw", np.uint8),  # OHIF
        ({"result_extension": ".nrrd", "result_dtype": "uint16", "result_compress": True}, b"gzip", np.uint16),
        ({"result_extension": ".nrrd", "result_dtype": "uint8"}, b"gzip", np.uint8),  # 3D Slicer
    ],
)
def test_the_file_is_as_the_client_asked(server, image_file, clicks, params, encoding, dtype, tmp_path):
    said = json.dumps({**params, "foreground": clicks["foreground"], "background": []})
    answer = server.ask(
        "POST", "/infer/geodesic?output=image", data={"params": said}, files={"file": image_file.open("rb")}
    )
    assert b"\nencoding: " + encoding + b"\n" in answer.content[:1000]
    (tmp_path / "out.nrrd").write_bytes(answer.content)
    found = read_volume(tmp_path / "out.nrrd").voxels
    assert found.dtype == dtype and found.any()


def test_labels_are_never_wrapped_into_a_type_that_cannot_hold_them(volume):
    voxels = np.full(volume.shape, 300, np.uint16)
    with pytest.raises(UploadError, match="values up to 300, which uint8 cannot hold"):
        image_bytes(voxels, volume.geometry, {"result_dtype": "uint8"}, ".nrrd")


def test_a_raw_image_may_come_with_the_clicks(client, image_file, spleen, clicks):
    file, _ = client.infer("network", "", {"points": clicks["points"]}, file=str(image_file))
    assert dice(read_volume(file).voxels > 0, spleen) > 0.9


def test_what_is_wrong_is_said(client, image_file):
    for params, said in (
        ({"foreground": []}, "no click inside"),
        ({"foreground": [[1, 2]]}, "not points"),
        ({"foreground": [[1, 2, 3]], "result_extension": "/../../etc/passwd"}, "cannot be a"),
        ({"foreground": [[999, 2, 3]]}, "outside the volume"),
        ({"foreground": [[1, 2, 3]], "result_dtype": "complex64"}, "cannot have voxels of type 'complex64'"),
        ({"foreground": [[1, 2, 3]], "result_compress": "a lot"}, "result_compress is 'a lot'; it is true or false"),
    ):
        with pytest.raises(MONAILabelClientException) as error:
            client.infer("network", "", params, file=str(image_file))
        assert said in error.value.msg
    with pytest.raises(MONAILabelClientException) as error:
        client.infer("network", "nobody", {"foreground": [[1, 2, 3]]})
    assert "no image 'nobody'" in error.value.msg


@pytest.mark.parametrize("idx", [0, -1, True, "x", 1.5])
def test_a_value_that_is_no_structure_is_refused_before_anything_is_saved(
    client, server, image_file, volume, spleen, idx, tmp_path
):
    image = client.upload_image(str(image_file), image_id="torso")["image"]
    label = tmp_path / "label.nii.gz"
    write_volume(label, Volume(spleen.astype(np.uint8), volume.geometry))
    before = server.ask("GET", f"/api/truth/{image}").json()["versions"]
    told = {"label_info": [{"name": "fine", "idx": 1}, {"name": "odd", "idx": idx}]}
    with pytest.raises(MONAILabelClientException) as error:
        client.save_label(image, str(label), params=told)
    assert "is no structure; 1 is the first" in error.value.msg
    assert server.ask("GET", f"/api/truth/{image}").json()["versions"] == before


def test_a_training_is_started_watched_and_stopped_as_its_plugin_does(client):
    assert client.train_status(check_if_running=True) is False
    info = client.info()
    assert info["trainers"]["learned"]["config"] == {"epochs": 30} and info["train_stats"] == {}
    assert "on its own" in info["trainers"]["learned-automatic"]["description"]
    with pytest.raises(MONAILabelClientException) as error:
        client.train_start("network", {})
    assert "No model 'network' can be trained here, but learned, learned-automatic." in error.value.msg
    started = client.train_start("learned", {"epochs": 2})
    assert (started["model"], started["status"]) == ("learned", "RUNNING") and started["start_ts"]
    assert client.train_status(check_if_running=True) is True
    assert client.info()["train_stats"]["learned"]["total_epochs"] >= 1
    client.train_stop()
    end = time.monotonic() + 60
    while client.train_status(check_if_running=True):
        assert time.monotonic() < end
        time.sleep(0.5)  # as patient as the guard against floods wants it
    over = client.train_status()
    assert over["status"] in ("STOPPED", "ERROR") and over["end_ts"] and over["details"][-1]


def test_images_come_back_with_a_file_name(client, server, image_file, volume, tmp_path):
    image = client.upload_image(str(image_file), image_id="torso")["image"]
    answer = requests.get(
        f"{server.url}/datastore/image?image={image}", headers={"Authorization": f"Bearer {server.token}"}, timeout=20
    )
    assert f'filename="{image}.nrrd"' in answer.headers["content-disposition"]
    (tmp_path / "back.nrrd").write_bytes(answer.content)
    back = read_volume(tmp_path / "back.nrrd")
    assert np.array_equal(back.voxels, volume.voxels) and back.geometry.same_grid(volume.geometry)


def test_the_log_is_text(client, server):
    answer = requests.get(f"{server.url}/logs/?lines=5", headers={"Authorization": f"Bearer {server.token}"}, timeout=9)
    assert answer.headers["content-type"].startswith("text/plain") and len(answer.text.splitlines()) <= 5
