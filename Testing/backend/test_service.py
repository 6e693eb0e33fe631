"""What the server does, without HTTP."""

from __future__ import annotations

import json

import nrrd
import numpy as np
import pytest
from server_helpers import noise

from aiassist.engine import Job
from aiassist.errors import NotStoredError, PromptError, UploadError
from aiassist.groundtruth.index import State
from aiassist.imaging import Geometry, MaskPatch, Volume, read_volume
from aiassist.server.asked import NewVersion
from aiassist.server.forms import image_bytes
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
    values = {one["name"]: one["idx"] for one in label_info(service.store.structures(study)[study])}
    labels = fetched(service, study, tmp_path)
    assert labels.geometry.same_grid(image.geometry)
    assert np.array_equal(labels.voxels == values["cyst"], narrow)
    assert np.array_equal(labels.voxels == values["liver"], wide & ~narrow)
    assert json.loads((service.settings.studies / "audit.jsonl").read_text().splitlines()[-1])["what"] == "export"


def fetched(service: Service, study: str, folder) -> Volume:
    """The labelmap that a client fetches."""
    (folder / "labels.nrrd").write_bytes(labelmap_file(service, BOB, study))
    return read_volume(folder / "labels.nrrd")


def test_a_structure_that_is_added_changes_the_value_of_no_other_and_the_file_says_the_names(service, tmp_path):
    image = noise(1, (4, 6, 20))
    study = service.keep_study(ANN, image, "one")
    for number, name in enumerate(("spleen", "Milz: rechts", "aorta", "spleen")):
        mask = np.zeros(image.shape, bool)
        mask[:, :, 4 * number : 4 * number + 4] = True
        service.save(ANN, study, name, NewVersion(MaskPatch.of_mask(mask)))
        names = {one["name"]: one["idx"] for one in label_info(service.store.structures(study)[study])}
        assert names == {"spleen": 1, **({"Milz: rechts": 2} if number else {}), **({"aorta": 3} if number > 1 else {})}
    voxels = fetched(service, study, tmp_path).voxels
    assert [voxels[0, 0, i] for i in (0, 4, 8, 12)] == [0, 2, 3, 1]
    header = nrrd.read_header(str(tmp_path / "labels.nrrd"))
    said = [(header[f"Segment{n}_Name"], header[f"Segment{n}_LabelValue"]) for n in range(3)]
    assert said == [("spleen", "1"), ("Milz: rechts", "2"), ("aorta", "3")]


@pytest.fixture
def overlapping(service):
    """A liver, and a tumour in it that was saved later: the study, and all of the liver."""
    image = noise(1)
    study = service.keep_study(ANN, image, "one")
    liver, tumour = np.zeros((2, *image.shape), bool)
    liver[2:20, 2:20, 2:20] = tumour[8:12, 8:12, 8:12] = True
    for name, mask in (("liver", liver), ("tumour", tumour)):
        service.save(ANN, study, name, NewVersion(MaskPatch.of_mask(mask), state=State.SUBMITTED))
    return study, liver


OVERLAPPING = [{"name": "liver", "idx": 1}, {"name": "tumour", "idx": 2}]


def test_a_labelmap_that_is_sent_back_as_it_was_fetched_changes_nothing(service, overlapping, tmp_path):
    study, liver = overlapping
    assert save(service, study, fetched(service, study, tmp_path), OVERLAPPING) == []
    service.store.review(study, "tumour", State.APPROVED, "boss")
    service.store.review(study, "liver", State.APPROVED, "boss")  # which hides the tumour from now on
    cyst = np.zeros(liver.shape, bool)
    cyst[3:5, 3:5, 3:5] = True
    service.save(ANN, study, "cyst", NewVersion(MaskPatch.of_mask(cyst)))
    again = fetched(service, study, tmp_path)
    assert np.unique(again.voxels).tolist() == [0, 1, 3]
    assert save(service, study, again, [*OVERLAPPING, {"name": "cyst", "idx": 3}]) == ["cyst"]  # it was a draft
    assert service.store.latest(study)["liver"].number == 2


def test_who_corrects_a_structure_again_and_again_leaves_what_lies_under_it_as_it_is(service, overlapping, tmp_path):
    study, liver = overlapping
    label = fetched(service, study, tmp_path)
    voxels = label.voxels.copy()
    for k in (8, 9):
        voxels[k][voxels[k] == 2] = 0
        assert save(service, study, Volume(voxels, label.geometry), OVERLAPPING) == ["tumour"]
    assert save(service, study, Volume(voxels, label.geometry), OVERLAPPING) == []
    kept = service.store.latest(study)["liver"]
    assert kept.number == 1 and np.array_equal(service.store.mask(kept).to_mask(liver.shape), liver)


def test_a_structure_that_was_corrected_is_saved_as_the_labelmap_shows_it(service, overlapping, tmp_path):
    study, liver = overlapping
    label = fetched(service, study, tmp_path)
    for change in (np.s_[2], np.s_[0]):  # less of it, and more
        voxels = label.voxels.copy()
        voxels[change][:, 2:20] = int(change == 0)
        assert save(service, study, Volume(voxels, label.geometry), OVERLAPPING) == ["liver"]
        newest = service.store.mask(service.store.latest(study)["liver"])
        assert np.array_equal(newest.to_mask(liver.shape), voxels == 1)


def test_a_draft_of_which_a_part_was_hidden_is_submitted_whole(service, overlapping, tmp_path):
    study, liver = overlapping
    label = fetched(service, study, tmp_path)
    service.store.add(study, "liver", MaskPatch.of_mask(liver), author="bob", state=State.DRAFT)
    assert save(service, study, label, OVERLAPPING) == ["liver"]
    newest = service.store.latest(study)["liver"]
    assert (newest.state, newest.author, newest.voxels) == (State.SUBMITTED, "ann", liver.sum())


def test_an_image_in_a_format_that_cannot_hold_it_is_refused_without_a_path():
    picture = noise(1, (1, 30, 40))
    with pytest.raises(UploadError, match=r"^The result cannot hold voxels of type float32; use \.nii\.gz\.$"):
        image_bytes(picture.voxels, picture.geometry, {"result_dtype": "float32"}, ".png")


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ([{"name": f"a{n}", "idx": n} for n in range(1, 1002)], "names 1,001 structures; at most 1,000 are taken"),
        ([{"name": "liver"}, {"name": "n" * 201}], "'nnnnnnnnnnnnnnnnnnnn'... has 201 letters; at most 200 are taken"),
        ([{"name": "liver", "idx": 0}], "The idx '0' of 'liver' is no structure; 1 is the first"),
        ([{"name": "liver", "idx": 10**400}], "of 'liver' is too large; 65535 is the last"),
        ([{"name": "liver", "idx": 1}, {"name": "Liver", "idx": 2}], "Two segments are called 'Liver'"),
        ([{"name": "liver", "idx": 1}], "holds the value 2, which label_info does not name; name each value"),
        ([], "holds the value 1, which label_info does not name"),
        (
            [{"name": "liver", "idx": 1}, {"name": "cyst", "idx": 2}, {"name": "spleen", "idx": 2}],
            "label_info calls the value 2 'cyst' and 'spleen'; give it one name",
        ),
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
    assert [step.fraction for step in steps if step.phase == "save"] == [0, 0.5]  # of those that are drawn
    assert len(steps) == 4
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
