"""AIAA's and MONAI Label's clients that break off, send odd things, or meet a damaged disk."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace

import numpy as np
import pytest
import requests
from engine_helpers import WAIT
from server_helpers import ball, noise, wait_until
from server_here import Here

from aiassist.engine import LocalBackend
from aiassist.groundtruth.index import State
from aiassist.imaging import Geometry, MaskPatch, Volume
from aiassist.segmenters.ellipsoid import Ellipsoid
from aiassist.segmenters.registry import Registry
from aiassist.server.forms import image_bytes, read_image

LABELS = [{"name": f"part {n}", "idx": n} for n in (1, 2, 3)]


class Named(Ellipsoid):
    """A model whose name ends as those for clicks do."""

    @property
    def card(self):
        """The card by that name."""
        return replace(super().card, name="liver_deepgrow")


@pytest.fixture
def here(tmp_path):
    """A server in this process that knows only that."""
    registry = Registry()
    registry.add("liver_deepgrow", Named)
    with Here(tmp_path, LocalBackend(registry, default="liver_deepgrow")) as server:
        yield server


def file_of(volume: Volume) -> bytes:
    """A volume as clients send it."""
    return image_bytes(volume.voxels, volume.geometry, {}, ".nrrd")[0]


def keep(here: Here, image: Volume, name: str = "one") -> str:
    """Send an image as MONAI Label's clients do; returns its id."""
    answer = here.ask("PUT", f"/datastore/?image={name}", files={"file": ("image.nrrd", file_of(image))})
    return answer.json()["image"]


def label_form(image: Volume) -> dict:
    """The form of a labelmap of three parts."""
    voxels = np.zeros(image.shape, np.uint8)
    for one in LABELS:
        voxels[2 * one["idx"]] = one["idx"]
    params = json.dumps({"label_info": LABELS})
    return {"params": (None, params), "label": ("label.nrrd", file_of(Volume(voxels, image.geometry)))}


def break_off(here: Here, path: str, form: dict, entered: threading.Event) -> None:
    """Send a form, and go away once the server works on it."""
    request = requests.Request("PUT", here.url + path, files=form).prepare()
    head = f"PUT {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {here.token}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    with here.connection() as line:
        line.sendall(head.encode() + b"\r\n" + request.body)
        assert entered.wait(WAIT)
    wait_until(lambda: here.connections == 0)


def test_a_labelmap_is_saved_whole_when_its_client_goes_away(here, monkeypatch):
    image = noise(1)
    study, save, entered, go = keep(here, image), here.service.save, threading.Event(), threading.Event()

    def slowly(*arguments):
        entered.set()
        assert go.wait(WAIT)
        return save(*arguments)

    monkeypatch.setattr(here.service, "save", slowly)
    break_off(here, "/datastore/label?image=one", label_form(image), entered)
    go.set()
    wait_until(lambda: len(here.service.store.history(study)) == 3)
    again = here.ask("PUT", "/datastore/label?image=one", files=label_form(image))
    assert again.json()["saved"] == [] and len(here.service.store.history(study)) == 3


def test_an_image_that_is_read_when_its_client_goes_away_is_no_fault(here, monkeypatch, caplog):
    entered, go, read = threading.Event(), threading.Event(), []

    def slowly(part, most):
        entered.set()
        assert go.wait(WAIT)
        read.append(read_image(part, most))
        return read[0]

    monkeypatch.setattr("aiassist.server.adapters.read_image", slowly)
    with caplog.at_level(logging.WARNING):
        break_off(here, "/session/", {"image": ("image.nrrd", file_of(noise(1)))}, entered)
        go.set()
        wait_until(lambda: read)
    assert read[0].study_id == noise(1).study_id and "failed" not in caplog.text


def test_a_series_in_several_files_is_refused_and_not_taken_for_its_last_slice(here):
    slices = [Volume(plane[None], Geometry.from_spacing((1, *plane.shape))) for plane in noise(1).voxels[:3]]
    parts = [("files", (f"{n}.nrrd", file_of(one))) for n, one in enumerate(slices)]
    answer = here.ask("PUT", "/session/", files=parts)
    assert answer.status_code == 422
    assert "several files 'files' in the request; send a series as one file" in answer.json()["message"]


def test_lists_of_images_ask_the_index_for_all_studies_at_once(here, monkeypatch):
    studies = [keep(here, noise(seed), f"image {seed}") for seed in (1, 2, 3)]
    monkeypatch.setattr(here.service.store, "history", None)
    mask = MaskPatch.of_mask(noise(2).voxels > 90)
    for name in ("spleen", "aorta"):
        here.service.store.add(studies[1], name, mask, author="ann", state=State.SUBMITTED)
    info = here.ask("GET", "/info/").json()
    assert info["datastore"] == {"total": 3, "completed": 1} and info["labels"] == ["aorta", "spleen"]
    assert here.ask("GET", "/datastore/").json() == info["datastore"]  # as MONAI Label's own server
    assert here.ask("GET", "/datastore/?output=train").json() == [{"image": studies[1], "label": studies[1]}]
    listed = here.ask("GET", "/datastore/?output=all").json()["objects"]
    assert list(listed) == studies and [bool(one["labels"]) for one in listed.values()] == [False, True, False]
    told = listed[studies[1]]["labels"]["final"]["info"]["params"]["label_info"]
    assert told == [{"name": "spleen", "idx": 1}, {"name": "aorta", "idx": 2}]
    assert [here.ask("POST", "/activelearning/first").json()["id"] for _ in range(2)] == [studies[0]] * 2


def test_damage_on_the_servers_disk_and_newer_versions_are_no_mistakes_of_who_asks(here):
    study = keep(here, noise(1))
    masks = [MaskPatch.of_mask(noise(1).voxels > least) for least in (90, 80)]
    saved = [here.service.store.add(study, "spleen", mask, author="ann") for mask in masks]
    answer = here.ask("POST", f"/api/truth/{study}/spleen/1/review", json={"state": "approved"})
    assert (answer.status_code, answer.json()["error"]) == (409, "NotNewestError")
    saved[-1].path.unlink()
    for path in (f"/api/truth/{study}/spleen/2", f"/api/truth/{study}/export", f"/datastore/label?label={study}"):
        answer = here.ask("GET", path)
        assert (answer.status_code, answer.json()["error"]) == (500, "BrokenStoreError")
        assert "which holds 'spleen' v2, is gone; restore it from a backup" in answer.json()["message"]


@pytest.mark.parametrize("model", ["liver_deepgrow", "liver_deepgrow_deepgrow"])
def test_a_model_may_be_called_as_one_for_clicks_is(here, model):
    volume, prompts = ball(1)
    form = {
        "params": (None, json.dumps({"points": prompts.extreme_points.round().tolist()})),
        "image": ("image.nrrd", file_of(volume)),
    }
    assert here.ask("POST", f"/v1/dextr3d?model={model}", files=form).status_code == 200
    assert here.ask("POST", "/v1/dextr3d?model=liver", files=form).status_code == 404


def test_an_image_that_is_sent_without_a_name_is_called_as_its_file(here):
    sent = {"file": (r"C:\scans\torso.seg.nrrd", file_of(noise(1)))}
    study = here.ask("PUT", "/datastore/image", files=sent).json()["image"]
    assert here.service.store.study(study).name == "torso"


def test_the_structure_of_an_inference_is_the_first_of_a_list(here):
    study, clicks = keep(here, ball(1)[0]), {"foreground": [[18, 15, 12]]}
    for label, name in ((["spleen"], "spleen"), ("liver", "liver"), ([], "structure")):
        form = {"params": (None, json.dumps({**clicks, "label": label}))}
        answer = here.ask("POST", f"/infer/liver_deepgrow?image={study}&output=json", files=form)
        assert answer.json()["label_names"] == {name: 1}
