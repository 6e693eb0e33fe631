"""What the server does, without HTTP."""

from __future__ import annotations

import json

import numpy as np
import pytest
from server_helpers import noise

from aiassist.engine import studies
from aiassist.groundtruth.index import State
from aiassist.imaging import MaskPatch, Volume
from aiassist.server.monailabel import _save
from aiassist.server.service import Service, Settings
from aiassist.server.tokens import Person

ANN, BOB = Person("ann", "annotator"), Person("bob", "annotator")


@pytest.fixture
def service(tmp_path):
    """A service of an empty studies folder."""
    made = Service(Settings(tmp_path / "studies"))
    yield made
    made.close()


def test_a_labelmap_is_saved_without_pushing_out_the_masks_that_others_click_on(service, monkeypatch):
    monkeypatch.setattr(studies, "MASKS", 1)  # remembers one mask
    image = noise(1)
    study = service.keep_study(ANN, image, "one")
    clicked = service.studies.remember(study, MaskPatch.of_mask(image.voxels > 90))
    label = Volume((image.voxels > 0).astype(np.uint8), image.geometry)
    assert _save(service, ANN, study, label, {"label_info": [{"name": "liver", "idx": 1}]}, "one tag") == ["liver"]
    assert service.studies.mask(study, clicked).version == clicked
    saved = service.store.version(study, "liver", 1)
    assert (saved.state, saved.author, saved.comment) == (State.SUBMITTED, "ann", "one tag")
    assert np.array_equal(service.store.mask(saved).to_mask(image.shape), image.voxels > 0)


def test_no_image_leaves_without_a_line_in_the_audit_log(service):
    image = noise(1)
    study = service.keep_study(ANN, image, "one")

    def notes() -> int:
        lines = (service.settings.studies / "audit.jsonl").read_text().splitlines()
        return sum(json.loads(line)["what"] == "fetch study" for line in lines)

    pieces = [service.fetch_voxels(ANN, study, start, 20_000) for start in range(0, image.voxels.nbytes, 20_000)]
    assert b"".join(pieces) == image.voxels.tobytes() and notes() == 1
    service.fetch_voxels(ANN, study, 1, 10**6)  # all but a byte
    service.fetch_voxels(ANN, study, 1, 10**6)
    assert notes() == 3
    service.fetch_voxels(BOB, study, 20_000, 20_000)  # a download of somebody else's that goes on
    service.fetch_voxels(BOB, study, 40_000, 20_000)
    assert notes() == 4
