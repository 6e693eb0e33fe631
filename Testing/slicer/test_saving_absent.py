"""Images in which nothing was found: their structures are saved as absent, if the person says so."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import MaskPatch
from AIAssistLib.geometry import study_of
from AIAssistLib.segments import write_plainly
from helpers import add_segment, wait


@pytest.fixture
def study(panel, case) -> str:
    """The id of a study that nobody saved labels of: the bundled CT with other voxels."""
    voxels = slicer.util.arrayFromVolume(case.node)
    voxels[0, 0, :4] = np.random.default_rng().integers(-3000, 3000, 4)
    slicer.util.arrayFromVolumeModified(case.node)
    return study_of(case.node).study_id


@pytest.fixture
def store(homes, study):
    """The ground truth of this computer."""
    with GroundTruthStore(homes.folder / "computer") as store:
        yield store


@pytest.fixture
def says(monkeypatch) -> dict:
    """What the person is asked, and answers."""
    says = {"asked": [], "answer": True}
    monkeypatch.setattr(
        slicer.util, "confirmYesNoDisplay", lambda text, **_: says["asked"].append(text) or says["answer"]
    )
    return says


def save(panel) -> str:
    """Press Save and wait; what the panel says."""
    panel.ui.saveLabel.setText("")
    panel.ui.saveButton.click()
    wait(lambda: panel.ui.saveButton.enabled)
    return panel.ui.saveLabel.text


def test_an_image_without_findings_is_saved_as_such_and_is_done(panel, case, store, study, says):
    add_segment(case, "lesion")
    assert save(panel) == "Saved: liver (version 1, absent), lesion (version 1, absent)"
    assert says["asked"] == ["Nothing is drawn. Save liver, lesion as absent in torso?"]
    assert [(v.structure, v.voxels, v.state) for v in store.history(study)] == [
        ("lesion", 0, State.SUBMITTED),
        ("liver", 0, State.SUBMITTED),
    ]
    assert next(one for one in store.worklist() if one["id"] == study)["state"] == "done"
    assert panel.saving.unsaved(case.node, case.segmentation) == []
    assert save(panel) == "Saved: liver (version 1, unchanged), lesion (version 1, unchanged)"
    panel.ui.saveLabel.setText("")
    panel.ui.latestButton.click()
    wait(lambda: panel.ui.saveLabel.text == "Saved as absent in this image: lesion, liver.")
    add_segment(case, "spleen", case.mask("spleen"))
    assert save(panel) == "Saved: spleen (version 1)"
    assert len(says["asked"]) == 2  # once something is drawn nobody asks


def test_without_a_yes_nothing_is_saved(panel, case, store, study, says):
    says["answer"] = False
    assert save(panel) == "All segments are empty; annotate something before you save."
    assert not store.has(study)


def test_what_somebody_drew_does_not_become_absent_unseen(panel, case, store, study, says):
    store.add_study(study_of(case.node), "torso")
    store.add(study, "liver", MaskPatch.of_mask(case.mask("liver")), author="bob", state=State.SUBMITTED)
    add_segment(case, "lesion")
    newer = "liver (version 1 by bob) is newer than what is here, which nobody changed: Load latest labels shows it."
    assert save(panel) == f"Saved: lesion (version 1, absent). {newer}"
    assert store.version(study, "liver").voxels == case.mask("liver").sum()


def test_marks_that_are_not_accepted_and_what_was_emptied_are_no_reason_to_ask(
    panel, points, slice_views, case, store, study, says
):
    lesion = add_segment(case, "lesion", case.mask("gallbladder"))
    assert save(panel) == "Saved: lesion (version 1)"
    write_plainly(MaskPatch.empty(), case.node, case.segmentation, lesion)
    assert save(panel) == "Saved: lesion (version 2, now empty)"
    slice_views["Green"].click(slice_views["Green"].xy(case.ends("liver")[0]))
    assert save(panel) == "All segments are empty; annotate something before you save."
    assert says["asked"] == []
