"""Saved versions: what becomes a new one, what is brought back with them, and names that are there once."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
import slicer

from aiassist.errors import StudyError
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import MaskPatch, describe_structure
from aiassist.prompts import Prompts
from aiassist.segmenters.base import run
from AIAssistLib.autosave import Autosave
from AIAssistLib.geometry import study_of
from AIAssistLib.segments import write_plainly
from AIAssistLib.structures import segment_named
from AIAssistLib.tags import MODEL, PROMPTS, held_of, keep_prompts, noted_studies, tag_of, tags_of
from helpers import add_segment, mask_of, wait


@pytest.fixture
def study(panel, case) -> str:
    """The id of a study that nobody saved labels of: the bundled CT with another voxel."""
    voxels = slicer.util.arrayFromVolume(case.node)
    voxels[0, 0, 0] = -3000 + time.time_ns() % 2000
    voxels[0, 0, 1] = time.time_ns() // 2000 % 30000
    slicer.util.arrayFromVolumeModified(case.node)
    return study_of(case.node).study_id


@pytest.fixture
def store(homes, study, panel):
    """The ground truth of this computer."""
    with GroundTruthStore(homes.folder / "computer") as store:
        yield store


@pytest.fixture
def author(panel):
    """The field with the name of who saves, in which a test may type and press a button at once, without Return."""
    yield panel.ui.authorEdit
    panel.logic.settings.author = ""
    panel.saving.show_author()


def save(panel) -> str:
    """Press Save and wait; what the panel says."""
    panel.ui.saveLabel.setText("")
    panel.ui.saveButton.click()
    wait(lambda: panel.ui.saveButton.enabled)
    return panel.ui.saveLabel.text


def press(panel, button) -> str:
    """Press a button that talks to the backend and wait for what the panel says."""
    panel.ui.saveLabel.setText("")
    button.click()
    wait(lambda: panel.ui.saveLabel.text not in ("", "Getting the latest labels"))
    return panel.ui.saveLabel.text


def numbers(store, study) -> dict[str, list[tuple[int, str, int]]]:
    """Number, author and voxels of all versions of each structure."""
    found: dict[str, list] = {}
    for version in store.history(study):
        found.setdefault(version.structure, []).append((version.number, version.author, version.voxels))
    return found


def segment_of(case, segment_id: str):
    return case.segmentation.GetSegmentation().GetSegment(segment_id)


def change(case, segment_id: str, mask: np.ndarray) -> None:
    """Draw in a segment."""
    write_plainly(MaskPatch.of_mask(mask), case.node, case.segmentation, segment_id)


def names(case) -> list[str]:
    segments = case.segmentation.GetSegmentation()
    return [segments.GetNthSegment(n).GetName() for n in range(segments.GetNumberOfSegments())]


def test_only_what_changed_becomes_a_new_version(panel, case, store, study, author):
    spleen, kidney = case.mask("spleen"), case.mask("kidney_right")
    add_segment(case, "spleen", spleen)
    right = add_segment(case, "kidney_right", kidney)
    panel.ui.commentEdit.setText("first")
    assert save(panel) == "Saved: spleen (version 1), kidney_right (version 1)"
    panel.ui.commentEdit.setText("second")
    assert save(panel) == "Saved: spleen (version 1, unchanged), kidney_right (version 1, unchanged)"
    assert panel.ui.commentEdit.text == "second"  # nothing has it yet
    smaller = kidney & (np.arange(kidney.shape[2]) % 2 == 0)
    change(case, right, smaller)
    author.setText("Cat")
    assert save(panel) == "Saved: kidney_right (version 2) (1 unchanged)"
    made = numbers(store, study)
    assert [number for number, *_ in made["spleen"]] == [1]
    assert made["kidney_right"][1] == (2, "Cat", int(smaller.sum()))
    assert panel.saving.unsaved(case.node, case.segmentation) == []


def test_what_another_saved_meanwhile_is_not_replaced_by_what_nobody_touched(panel, case, store, study):
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    store.add(study, "Spleen", MaskPatch.of_mask(case.mask("liver")), author="bob", state=State.APPROVED)
    newer = "Spleen (version 2 by bob) is newer than what is here, which nobody changed: Load latest labels shows it."
    assert save(panel) == newer
    add_segment(case, "kidney_right", case.mask("kidney_right"))
    assert save(panel) == f"Saved: kidney_right (version 1). {newer}"
    assert store.version(study, "spleen").number == 2
    assert panel.saving.unsaved(case.node, case.segmentation) == []
    assert press(panel, panel.ui.latestButton).startswith("Loaded: ")
    assert (mask_of(case, spleen) == case.mask("liver")).all()
    assert save(panel) == "Saved: spleen (version 2, unchanged), kidney_right (version 1, unchanged)"


def test_what_was_drawn_on_an_older_version_is_saved_and_the_newer_is_named(panel, case, store, study):
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    store.add(study, "Spleen", MaskPatch.of_mask(case.mask("liver")), author="bob", state=State.SUBMITTED)
    half = case.mask("spleen") & (np.arange(case.labels.shape[2]) % 2 == 0)
    change(case, spleen, half)
    assert save(panel) == (
        "Saved: spleen (version 3). Spleen (version 2 by bob) came before it, unseen here; it stays in the history."
    )
    third = store.version(study, "spleen")
    assert third.mask == MaskPatch.of_mask(half).version and third.parent == 1
    assert save(panel) == "Saved: spleen (version 3, unchanged)"


def test_a_version_that_is_brought_back_becomes_the_newest_whoever_saved_since(panel, case, store, study):
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    store.add(study, "spleen", MaskPatch.of_mask(case.mask("liver")), author="bob", state=State.SUBMITTED)
    panel.ui.historyGroup.collapsed = False
    panel.ui.refreshButton.click()
    wait(lambda: panel.ui.historyTable.rowCount == 2)
    panel.ui.historyTable.selectRow(1)
    assert "is version 1 again here" in press(panel, panel.ui.restoreButton)
    assert save(panel) == "Saved: spleen (version 3)"
    assert store.version(study, "spleen").mask == MaskPatch.of_mask(mask_of(case, spleen)).version


@pytest.mark.parametrize(("state", "number"), [("DRAFT", 2), ("SUBMITTED", 1), ("APPROVED", 1)])
def test_a_mask_that_is_not_submitted_yet_is_submitted_and_an_approved_one_stays(
    state, number, panel, case, store, study
):
    store.add_study(study_of(case.node), "torso")
    store.add(study, "spleen", MaskPatch.of_mask(case.mask("spleen")), author="bob", state=State[state])
    add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    assert store.version(study, "spleen").number == number
    assert store.version(study, "spleen").state == (State.APPROVED if state == "APPROVED" else State.SUBMITTED)


def test_what_a_reviewer_rejected_is_submitted_again_only_when_it_was_changed(panel, case, store, study):
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    mask = MaskPatch.of_mask(case.mask("spleen"))
    store.add(study, "spleen", mask, author="Carla", state=State.REJECTED, comment="The hilum is missing.")
    assert save(panel) == (
        "spleen (version 2 by Carla) was rejected; change it, and it is submitted again. The hilum is missing."
    )
    assert store.version(study, "spleen").number == 2
    change(case, spleen, case.mask("spleen") | case.mask("gallbladder"))
    assert save(panel).startswith("Saved: spleen (version 3)")
    assert store.version(study, "spleen").state == State.SUBMITTED


def test_a_label_is_rejected_and_approved_in_the_history(panel, case, store, study, author):
    add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    ui = panel.ui
    ui.historyGroup.collapsed = False
    wait(lambda: ui.historyTable.rowCount == 1)
    assert not ui.approveButton.enabled and not ui.rejectButton.enabled  # none is chosen
    ui.historyTable.selectRow(0)
    ui.commentEdit.setText("The hilum is missing.")
    assert press(panel, ui.rejectButton) == "spleen is rejected (version 2)."
    assert ui.commentEdit.text == ""
    wait(lambda: ui.historyTable.rowCount == 2)
    assert [ui.historyTable.item(row, 4).text() for row in range(2)] == ["rejected", "submitted"]
    assert store.version(study, "spleen").comment == "The hilum is missing."
    ui.historyTable.selectRow(1)
    assert press(panel, ui.approveButton).startswith("Version 1 is not the newest one, which is 'spleen' version 2")
    ui.historyTable.selectRow(0)
    author.setText("Carla")
    assert press(panel, ui.approveButton) == "spleen is approved (version 3)."
    version = store.version(study, "spleen")
    assert (version.state, version.author) == (State.APPROVED, "Carla")


def test_a_version_has_the_prompts_and_model_of_its_own_mask(panel, case, store, study):
    name = add_segment(case, "spleen", case.mask("spleen"))
    keep_prompts(segment_of(case, name), Prompts(positive=[[1, 1, 1]]), case.volume)
    segment_of(case, name).SetTag(MODEL, "network 5")
    panel.ui.saveButton.click()
    change(case, name, case.mask("liver"))  # while the image travels, as accepting another preview does
    keep_prompts(segment_of(case, name), Prompts(positive=[[9, 9, 9]]), case.volume)
    segment_of(case, name).SetTag(MODEL, "geodesic 1")
    wait(lambda: panel.ui.saveButton.enabled)
    version = store.version(study, "spleen")
    assert version.mask == MaskPatch.of_mask(case.mask("spleen")).version
    assert (version.model, version.model_version) == ("network", "5")
    assert version.prompts == Prompts(positive=[[1, 1, 1]]).to_json()


def test_an_emptied_segment_is_saved_as_empty_and_one_that_was_never_drawn_is_not(panel, case, store, study):
    store.add_study(study_of(case.node), "torso")
    store.add(study, "liver", MaskPatch.of_mask(case.mask("liver")), author="bob", state=State.SUBMITTED)
    lesion = add_segment(case, "lesion", case.mask("gallbladder"))
    assert save(panel) == "Saved: lesion (version 1)"
    change(case, lesion, np.zeros(case.labels.shape, bool))
    assert panel.saving.unsaved(case.node, case.segmentation) == ["lesion"]
    assert save(panel) == "Saved: lesion (version 2, now empty)"
    assert panel.saving.unsaved(case.node, case.segmentation) == []
    assert store.version(study, "lesion").voxels == 0
    assert store.mask(store.version(study, "lesion")).region.is_empty
    assert store.version(study, "liver").number == 1  # the panel's segment "liver" was empty all the time
    assert save(panel) == "All segments are empty; annotate something before you save."


def test_a_version_comes_back_with_its_prompts_and_model(panel, case, store, study):
    points = Prompts(extreme_points=np.argwhere(case.mask("spleen"))[::500, ::-1][:6])
    store.add_study(study_of(case.node), "torso")
    made = {"model": "network", "model_version": "7", "prompts": points, "author": "bob"}
    store.add(study, "spleen", MaskPatch.of_mask(case.mask("spleen")), **made)
    store.add(study, "liver", MaskPatch.of_mask(case.mask("liver")), author="bob")
    keep_prompts(segment_of(case, case.liver), points, case.volume)
    segment_of(case, case.liver).SetTag(MODEL, "geodesic 1")
    panel.ui.historyGroup.collapsed = False
    panel.ui.refreshButton.click()
    wait(lambda: panel.ui.historyTable.rowCount == 2)
    for row in (0, 1):
        panel.ui.historyTable.selectRow(row)
        assert "again here" in press(panel, panel.ui.restoreButton)
    spleen = segment_of(case, segment_named(case.segmentation, "spleen"))
    assert json.loads(tag_of(spleen, PROMPTS)) == points.to_json() and tag_of(spleen, MODEL) == "network 7"
    assert tag_of(segment_of(case, case.liver), PROMPTS) == tag_of(segment_of(case, case.liver), MODEL) == ""
    assert save(panel) == "Saved: liver (version 2), spleen (version 2)"  # they were drafts
    again = store.version(study, "spleen")
    assert (again.model, again.model_version, again.prompts) == ("network", "7", points.to_json())
    assert store.version(study, "liver").model is None and store.version(study, "liver").prompts is None


def test_recovered_work_has_its_prompts_and_model_again(panel, case, study):
    points = Prompts(extreme_points=[[1, 2, 3], [4, 5, 6]])
    spleen = segment_of(case, add_segment(case, "spleen", case.mask("spleen")))
    keep_prompts(spleen, points, study_of(case.node))
    spleen.SetTag(MODEL, "network 7")
    kept, recovery = tags_of(spleen), panel.recovery
    recovery.look()
    wait(lambda: not recovery._looking.active)
    while recovery.keep():
        pass
    recovery.autosave = Autosave(recovery.autosave._folder)
    change(case, segment_named(case.segmentation, "spleen"), case.mask("liver"))
    recovery.look()
    wait(lambda: not panel.ui.recoverButton.isHidden())
    panel.ui.recoverButton.click()
    assert names(case) == ["liver", "spleen", "spleen 2"]
    recovered = segment_named(case.segmentation, "spleen 2")
    assert (mask_of(case, recovered) == case.mask("spleen")).all()
    assert kept and tags_of(segment_of(case, recovered)) == kept


def test_the_console_says_which_model_it_was(module, case):
    segment = module.logic.annotate(case.node, case.ends("spleen"), case.segmentation, name="spleen")
    model, version = tag_of(segment_of(case, segment), MODEL).split(" ")
    assert model == "network-fine" and version


def test_the_console_fills_the_empty_segment_of_a_name_and_notes_the_study(module, case):
    empty = add_segment(case, "Spleen")
    assert module.logic.annotate(case.node, case.ends("spleen"), case.segmentation, name="spleen") == empty
    assert names(case) == ["Spleen"] and mask_of(case, empty).any()
    assert noted_studies(case.segmentation) == (study_of(case.node).study_id,)
    module.logic.annotate(case.node, case.ends("spleen"), case.segmentation, name="spleen")
    assert names(case) == ["Spleen", "spleen 2"]


def test_nothing_is_added_to_segments_that_are_surfaces(module, case):
    add_segment(case, "spleen", case.mask("spleen"))
    segmentation, converter = case.segmentation.GetSegmentation(), slicer.vtkSegmentationConverter
    surface = converter.GetSegmentationClosedSurfaceRepresentationName()
    segmentation.CreateRepresentation(surface)
    segmentation.SetSourceRepresentationName(surface)
    with pytest.raises(
        StudyError, match="are kept as Closed surface, not as voxels; make Binary labelmap their source"
    ):
        module.logic.annotate(case.node, case.ends("liver"), case.segmentation, name="liver")
    assert names(case) == ["spleen"]


def test_the_history_shows_the_time_of_this_place(panel, monkeypatch):
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    made = {"made": "2026-11-25T16:22:41.123+00:00", "structure": "liver", "number": 1}
    try:
        panel.saving._fill([{**made, "author": "ann", "state": "draft", "comment": ""}])
        assert panel.ui.historyTable.item(0, 2).text() == "2026-11-26 01:22"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_the_second_of_a_name_is_numbered(panel, case, study):
    from AIAssistLib.auto_segment import adding_segments

    for _again in range(3):
        panel.ui.structureCombo.setCurrentText("lesion")
        panel.ui.addStructureButton.click()
    assert names(case) == ["liver", "lesion", "lesion 2", "lesion 3"]
    patch = MaskPatch.of_mask(case.mask("liver"))
    write_plainly(patch, case.node, case.segmentation, case.liver)
    found = SimpleNamespace(patch=patch, model="lungs-ct", model_version="1")
    card = SimpleNamespace(labels=[describe_structure("Liver")])
    adding = adding_segments(found, card, case.node, case.segmentation, study_of(case.node))
    assert run(adding) == ["Liver 2"]
    segment = segment_of(case, segment_named(case.segmentation, "Liver 2"))
    assert "10200004" in tag_of(segment, segment.GetTerminologyEntryTagName())  # SNOMED CT: liver


def test_the_latest_labels_come_in_one_press_and_unsaved_work_stays(panel, case, store, study):
    store.add_study(study_of(case.node), "torso")
    half = case.mask("spleen") & (np.arange(case.labels.shape[2]) % 2 == 0)
    for structure, mask in (("spleen", half), ("spleen", case.mask("spleen")), ("kidney_right", half)):
        store.add(study, structure, MaskPatch.of_mask(mask), author="bob", state=State.SUBMITTED)
    store.add(study, "lesion", MaskPatch.empty(), author="bob")
    change(case, case.liver, case.mask("liver"))
    store.add(study, "Liver", MaskPatch.of_mask(half), author="bob")
    said = press(panel, panel.ui.latestButton)
    assert said == (
        "Loaded: kidney_right (version 1), spleen (version 2). Left alone, since their work is not saved: Liver."
    )
    assert names(case) == ["liver", "kidney_right", "spleen"]
    assert (mask_of(case, segment_named(case.segmentation, "spleen")) == case.mask("spleen")).all()
    assert (mask_of(case, segment_named(case.segmentation, "kidney_right")) == half).all()
    assert (mask_of(case, case.liver) == case.mask("liver")).all()
    assert save(panel) == "Saved: liver (version 2) (2 unchanged)"


def test_a_mask_that_is_saved_of_one_image_is_unsaved_work_on_another(panel, case, store, study):
    add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    slicer.util.arrayFromVolume(case.node)[0, 0, 2] += 1  # the next series of the same grid
    slicer.util.arrayFromVolumeModified(case.node)
    assert study_of(case.node).study_id != study
    assert panel.saving.unsaved(case.node, case.segmentation) == ["spleen"]


def test_without_saved_labels_loading_them_says_so(panel, case, study):
    assert press(panel, panel.ui.latestButton) == "No labels are saved of this image yet."


def test_a_segment_that_was_renamed_after_saving_is_not_saved(panel, case, study, store):
    segment = add_segment(case, "kidney_left", case.mask("spleen"))
    save(panel)
    assert panel.saving.unsaved(case.node, case.segmentation) == []
    segment_of(case, segment).SetName("kidney_right")
    assert panel.saving.unsaved(case.node, case.segmentation) == ["kidney_right"]


def test_undo_of_what_was_saved_is_not_saved_and_can_be_saved_as_empty(panel, case, study, store):
    segment = add_segment(case, "cyst")
    panel.editor.saveStateForUndo()
    change(case, segment, case.mask("gallbladder"))
    save(panel)
    panel.editor.undo()
    assert not mask_of(case, segment).any()
    assert panel.saving.unsaved(case.node, case.segmentation) == ["cyst"]
    assert save(panel) == "Saved: cyst (version 2, now empty)"
    assert panel.saving.unsaved(case.node, case.segmentation) == []
    assert [voxels for _number, _author, voxels in numbers(store, study)["cyst"]] == [case.mask("gallbladder").sum(), 0]


def test_a_new_segment_with_the_name_and_id_of_a_deleted_one_takes_nothing_back(panel, case, study, store):
    segment = add_segment(case, "cyst", case.mask("gallbladder"))
    save(panel)
    case.segmentation.GetSegmentation().RemoveSegment(segment)
    assert add_segment(case, "cyst") == segment
    assert save(panel).startswith("All segments are empty")


def test_a_segment_that_was_deleted_and_added_again_while_a_save_travels_holds_nothing(panel, case, study, store):
    segment = add_segment(case, "cyst", case.mask("gallbladder"))
    panel.ui.saveButton.click()
    case.segmentation.GetSegmentation().RemoveSegment(segment)
    assert add_segment(case, "cyst") == segment
    wait(lambda: panel.ui.saveButton.enabled)
    assert held_of(case.segmentation, segment) == ()
    assert panel.saving.unsaved(case.node, case.segmentation) == []
    add_segment(case, "spleen", case.mask("spleen"))
    assert save(panel) == "Saved: spleen (version 1)"
    assert store.version(study, "cyst").voxels == case.mask("gallbladder").sum()


def test_a_segment_that_was_emptied_forgets_which_model_made_it(case, tmp_path):
    segment = add_segment(case, "spleen", case.mask("spleen"))
    keep_prompts(segment_of(case, segment), Prompts(positive=[(1, 2, 3)]), study_of(case.node))
    segment_of(case, segment).SetTag(MODEL, "network 5")
    change(case, segment, np.zeros(case.labels.shape, bool))
    Autosave(tmp_path).keep_one("study", case.segmentation, case.node)
    assert tags_of(segment_of(case, segment)) == {}


def test_versions_of_another_home_are_neither_shown_nor_brought_back_nor_known_as_saved(panel, case, study, homes):
    with GroundTruthStore(homes.folder / "server") as there:
        there.add_study(study_of(case.node), "torso")
        other = MaskPatch.of_mask(case.mask("liver"))
        there.add(study, "spleen", other, author="bob", state=State.REJECTED)
    segment = add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    wait(lambda: panel.ui.historyTable.rowCount == 1)
    here = panel.saving._versions[0]
    panel.logic.assistant.move(homes.get("server"))
    assert panel.ui.historyTable.rowCount == 0
    assert panel.saving.unsaved(case.node, case.segmentation) == ["spleen"]
    assert press(panel, panel.ui.latestButton) == "Left alone, since their work is not saved: spleen."
    panel.saving._fill([here])  # as one who had asked before
    panel.ui.historyTable.selectRow(0)
    assert press(panel, panel.ui.restoreButton).startswith("Version 1 of 'spleen' is another one here")
    assert np.array_equal(mask_of(case, segment), case.mask("spleen"))


@pytest.fixture
def follow_up(panel, case, study):
    """Another image than the one that was drawn on, chosen as the source volume."""
    add_segment(case, "spleen", case.mask("spleen"))
    panel.editor.setSegmentationNode(case.segmentation)
    voxels = case.volume.voxels.copy()
    voxels[0, 0, 0] = -3000 + time.time_ns() % 2000
    node = slicer.util.addVolumeFromArray(voxels, ijkToRAS=case.to_world, name="follow-up")
    panel.editor.setSourceVolumeNode(node)
    return node


def test_segments_of_another_image_become_labels_only_of_who_says_so(panel, case, follow_up, store, monkeypatch):
    asked, answers = [], iter([False, True])
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or next(answers))
    panel.ui.saveButton.click()
    assert "Nothing was saved; choose 'torso', on which" in panel.ui.saveLabel.text
    assert not store.has(study_of(follow_up).study_id)
    assert "Saved: spleen (version 1)" in save(panel)
    assert [v.voxels for v in store.history(study_of(follow_up).study_id)] == [case.mask("spleen").sum()]
    save(panel)
    assert asked == ["The segments in the panel were drawn on torso. Save them as labels of follow-up?"] * 2


@pytest.mark.parametrize("wants", [True, False])
def test_a_structure_of_another_image_begins_a_segmentation_of_its_own_if_wanted(
    wants, panel, case, follow_up, monkeypatch
):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or wants)
    before = names(case)
    panel.ui.templateCombo.setCurrentIndex(0)
    for name in ("bone", "kidney"):
        panel.ui.structureCombo.setCurrentText(name)
        panel.ui.addStructureButton.click()
    assert asked == ["The segments in the panel were drawn on torso. Begin a new segmentation for follow-up?"]
    assert (panel.editor.segmentationNode() is not case.segmentation) == wants
    assert panel.editor.sourceVolumeNode() is follow_up
    assert names(case) == (before if wants else [*before, "bone", "kidney"])
