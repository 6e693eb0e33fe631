"""What the server does, without HTTP."""

from __future__ import annotations

import json

import numpy as np
import pytest
from server_helpers import noise

from aiassist.engine import Job
from aiassist.errors import NotStoredError, PromptError, UploadError
from aiassist.groundtruth.index import State
from aiassist.imaging import Geometry, MaskPatch, Volume, read_volume
from aiassist.server.asked import NewVersion
from aiassist.server.monailabel import prompts_of, within
from aiassist.server.monailabel_labels import label_info, labelmap_file, saving
from aiassist.server.service import Service, Settings
from aiassist.server.tokens import Person

ANN, BOB = Person("ann", "annotator"), Person("bob", "annotator")


@pytest.fixture
def service(tmp_path):
    """A service of an empty studies folder."""
    made = Service(Settings(tmp_path / "studies"))
    yield made
    made.close()


def save(service: Service, study: str, label: Volume, named: list[dict]) -> list[str]:
    """What is saved of a labelmap by these names."""
    job = Job(saving(service, ANN, study, label, {"label_info": named}, "one tag"))
    while job.step():
        pass
    return job.result(0)


def test_a_labelmap_is_saved_without_pushing_out_the_masks_that_others_click_on(service):
    service.studies.mask_budget = 1  # remembers one mask
    image = noise(1)
    study = service.keep_study(ANN, image, "one")
    clicked = service.studies.remember(study, MaskPatch.of_mask(image.voxels > 90))
    label = Volume((image.voxels > 0).astype(np.uint8), image.geometry)
    assert save(service, study, label, [{"name": "liver", "idx": 1}]) == ["liver"]
    assert service.studies.mask(study, clicked).version == clicked
    saved = service.store.version(study, "liver", 1)
    assert (saved.state, saved.author, saved.comment) == (State.SUBMITTED, "ann", "one tag")
    assert np.array_equal(service.store.mask(saved).to_mask(image.shape), image.voxels > 0)


def test_where_structures_overlap_the_one_that_was_saved_last_is_seen(service, tmp_path):
    image = noise(1)
    study = service.keep_study(ANN, image, "one")
    with pytest.raises(NotStoredError, match="no labels of the study"):
        labelmap_file(service, ANN, study)
    wide, narrow = image.voxels > 0, image.voxels > 90
    for name, mask in (("liver", wide), ("cyst", narrow)):
        service.save(ANN, study, name, NewVersion(MaskPatch.of_mask(mask)))
    values = {one["name"]: one["idx"] for one in label_info(service.store.latest(study))}
    (tmp_path / "labels.nrrd").write_bytes(labelmap_file(service, BOB, study))
    labels = read_volume(tmp_path / "labels.nrrd")
    assert labels.geometry.same_grid(image.geometry)
    assert np.array_equal(labels.voxels == values["cyst"], narrow)
    assert np.array_equal(labels.voxels == values["liver"], wide & ~narrow)
    assert json.loads((service.settings.studies / "audit.jsonl").read_text().splitlines()[-1])["what"] == "export"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ([{"name": f"a{n}", "idx": n} for n in range(1, 1002)], "names 1,001 structures; at most 1,000 are taken"),
        ([{"name": "liver"}, {"name": "n" * 201}], "'nnnnnnnnnnnnnnnnnnnn'... has 201 letters; at most 200 are taken"),
        ([{"name": "liver", "idx": 0}], "The idx '0' of 'liver' is no structure; 1 is the first"),
        ([{"name": "liver", "idx": 10**400}], "of 'liver' is too large; 65535 is the last"),
        ([{"name": "liver", "idx": 1}, {"name": "Liver", "idx": 2}], "Two segments are called 'Liver'"),
    ],
)
def test_names_that_cannot_be_are_refused_and_nothing_is_saved(service, named, said):
    image = noise(1)
    study = service.keep_study(ANN, image, "one")
    label = Volume((image.voxels > 0).astype(np.uint8) + (image.voxels > 90), image.geometry)
    with pytest.raises(UploadError, match=said):
        save(service, study, label, named)
    assert service.store.history(study) == []


def test_others_come_between_the_structures_of_a_labelmap_and_empty_ones_take_no_time(service):
    image = noise(1)
    study = service.keep_study(ANN, image, "one")
    label = Volume((image.voxels > 0).astype(np.float32) + 2 * (image.voxels > 90), image.geometry)
    named = [{"name": f"a{n}", "idx": n} for n in range(1, 1001)]
    steps = list(saving(service, ANN, study, label, {"label_info": named}, ""))
    assert [step.fraction for step in steps] == [0, 0.5]  # of those that are drawn
    assert list(service.store.latest(study)) == ["a1", "a3"]
    assert np.array_equal(
        service.store.mask(service.store.version(study, "a3")).to_mask(image.shape), image.voxels > 90
    )
    assert save(service, study, label, named) == []


def test_a_roi_is_cut_to_the_image_and_refused_only_beyond_it():
    geometry = Geometry.from_spacing((20, 30, 40))
    box = within(prompts_of({"roi": [-5, 300, 10, 20, 0, 19.5]}), geometry).box
    assert box.tolist() == [[0, 10, 0], [39, 20, 19]]
    for roi in ([-9, -2, 0, 20, 0, 10], [0, 10, 30, 50, 0, 10]):
        with pytest.raises(PromptError, match=r"lies outside the image, .* from 0 to \[39, 29, 19\]"):
            within(prompts_of({"roi": roi}), geometry)
    clicked = prompts_of({"foreground": [[1, 2, 3]]})
    assert within(clicked, geometry) is clicked


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
