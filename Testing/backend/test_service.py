"""What the server does, without HTTP."""

from __future__ import annotations

import numpy as np
import pytest
from server_helpers import noise

from aiassist.engine import studies
from aiassist.groundtruth.index import State
from aiassist.imaging import MaskPatch, Volume
from aiassist.server.monailabel import _save
from aiassist.server.service import Service, Settings
from aiassist.server.tokens import Person

ANN = Person("ann", "annotator")


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
