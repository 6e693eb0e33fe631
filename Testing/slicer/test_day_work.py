"""A day of work: what is asked before labels are saved, what measurements and files leave out, what is remembered."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import qt
import slicer

from aiassist.imaging import MaskPatch, Region, describe_structure
from aiassist.segmenters.base import ModelCard, run
from AIAssistLib.geometry import study_of
from AIAssistLib.structures import segment_named
from AIAssistLib.tags import note_study_id, noted_studies
from helpers import CASE, add_segment, answered, click_ends, mask_of, said, wait

UI = CASE.parents[2] / "SlicerAIAssist" / "Resources" / "UI" / "AIAssist.ui"


@pytest.fixture
def asked(monkeypatch):
    """The questions that were asked; all but those in `refused` are answered with yes."""
    questions = SimpleNamespace(said=[], refused=False)

    def confirm(text, **_):
        questions.said.append(text)
        return not questions.refused

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", confirm)
    return questions


@pytest.fixture
def another_day(module):
    """Called: the panel's widgets as Slicer loads them when it starts again, and what a section needs of the panel."""

    def begin() -> SimpleNamespace:
        widget = slicer.util.loadUI(str(UI))
        ui = slicer.util.childWidgetVariables(widget)
        panel = module.panel
        return SimpleNamespace(ui=ui, logic=module.logic, resources=panel.resources, widget=widget)

    yield begin
    for key in ("images", "structures", "exports"):
        module.logic.settings.set_choice(key, "")
    module.panel.ui.templateCombo.setCurrentIndex(0)


# The folder of images


def test_the_folder_of_images_is_chosen_among_folders(panel, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda *_: asked.append("folder") or str(tmp_path))
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *_: asked.append("file") or "")
    panel.ui.folderEdit.browse()
    assert asked == ["folder"] and panel.ui.folderEdit.currentPath == str(tmp_path)


# Other voxels under the same node


def next_time_point(case, steps: int = 1) -> None:
    """Let the image's node hold the next time point, as the proxy of a sequence does."""
    slicer.util.arrayFromVolume(case.node)[:] += steps
    slicer.util.arrayFromVolumeModified(case.node)


def accept(panel, points, views, case, name: str) -> None:
    """Mark six ends of a structure in the segment in hand, and accept."""
    click_ends(views, case.ends(name))
    answered(points)
    points.ui.acceptButton.click()


def save(panel) -> str:
    """Press Save and wait; what the panel says."""
    panel.ui.saveLabel.setText("")
    panel.ui.saveButton.click()
    wait(lambda: panel.ui.saveButton.enabled)
    return panel.ui.saveLabel.text


OTHER = "torso holds other voxels than when the segments were drawn (another time point?). Save them as its labels?"
BEGIN = (
    "torso holds other voxels than when the segments were drawn (another time point?). "
    "Begin a new segmentation for what it holds now?"
)
SOME = (
    "Some of the segments in the panel were drawn when torso held other voxels (another time point?). "
    "Save all of them as labels of what it holds now?"
)


def test_labels_of_another_time_point_are_saved_after_a_question(panel, points, slice_views, case, asked):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    assert noted_studies(case.segmentation) == (study_of(case.node).study_id,)
    panel.ui.saveButton.click()
    wait(lambda: "Saved: liver" in panel.ui.saveLabel.text)
    assert asked.said == []
    next_time_point(case)
    asked.refused = True
    panel.ui.saveButton.click()
    assert asked.said == [OTHER]
    assert panel.ui.saveLabel.text == "Nothing was saved; go back to the time point on which it was drawn."
    asked.refused = False
    for _again in range(2):
        panel.ui.saveLabel.setText("")
        panel.ui.saveButton.click()
        wait(lambda: "Saved: liver" in panel.ui.saveLabel.text)
    assert asked.said == [OTHER, OTHER]  # once after the first, which was refused


def test_what_is_drawn_after_everything_was_removed_is_of_the_time_point_then(panel, points, slice_views, case, asked):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    next_time_point(case)
    case.segmentation.GetSegmentation().RemoveAllSegments()
    panel.ui.structureCombo.setCurrentText("spleen")
    panel.ui.addStructureButton.click()
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    panel.ui.saveButton.click()
    wait(lambda: "Saved: spleen" in panel.ui.saveLabel.text)
    assert asked.said == []


@pytest.mark.parametrize("wants", [True, False])
def test_a_structure_of_another_time_point_begins_a_segmentation_of_its_own_if_wanted(
    wants, panel, points, slice_views, case, asked
):
    accept(panel, points, slice_views, case, "spleen")
    assert save(panel).startswith("Saved: liver")
    next_time_point(case)
    asked.refused = not wants
    panel.ui.structureCombo.setCurrentText("gallbladder")
    panel.ui.addStructureButton.click()
    assert asked.said == [BEGIN]
    assert (panel.editor.segmentationNode() is not case.segmentation) == wants
    accept(panel, points, slice_views, case, "gallbladder")
    next_time_point(case, -1)
    asked.refused = True
    assert save(panel).startswith("Nothing was saved")
    assert asked.said == [BEGIN, OTHER if wants else SOME]


def test_a_correction_at_another_time_point_is_asked_about_at_both(panel, points, slice_views, case, asked):
    accept(panel, points, slice_views, case, "spleen")
    next_time_point(case)
    slice_views["Red"].click(slice_views["Red"].xy(case.middle("gallbladder")))
    answered(points)
    points.ui.acceptButton.click()
    asked.refused = True
    for steps in (0, -1):
        next_time_point(case, steps)
        assert "remove the segments that are of another time point" in save(panel)
    assert asked.said == [SOME, SOME]


def test_a_correction_on_another_phase_asks_nothing(panel, points, slice_views, case, asked):
    accept(panel, points, slice_views, case, "spleen")
    phase = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "arterial")
    slicer.util.updateVolumeFromArray(phase, case.volume.voxels + 1)
    note_study_id(case.segmentation, panel.logic.assistant.studies.of(phase).study_id)
    assert len(noted_studies(case.segmentation)) == 2
    assert save(panel).startswith("Saved: liver")
    panel.ui.structureCombo.setCurrentText("gallbladder")
    panel.ui.addStructureButton.click()
    assert asked.said == []


def test_labels_of_another_time_point_are_loaded_into_a_segmentation_of_their_own(
    panel, points, slice_views, case, asked
):
    next_time_point(case, 2)
    add_segment(case, "kidney", case.mask("kidney_right"))
    assert "kidney" in save(panel)
    next_time_point(case, -2)
    case.segmentation.GetSegmentation().RemoveSegment(segment_named(case.segmentation, "kidney"))
    accept(panel, points, slice_views, case, "spleen")
    assert asked.said == [] and noted_studies(case.segmentation)[-1] == study_of(case.node).study_id
    case.segmentation.SetAttribute("AIAssist.Study", study_of(case.node).study_id)
    next_time_point(case, 2)
    panel.ui.latestButton.click()
    wait(lambda: "Loaded: kidney" in panel.ui.saveLabel.text)
    assert asked.said == [BEGIN]
    assert not segment_named(case.segmentation, "kidney")
    assert segment_named(panel.editor.segmentationNode(), "kidney")


def test_what_is_painted_by_hand_is_of_the_time_point_on_which_it_was(panel, case, asked):
    add_segment(case, "spleen", case.mask("spleen"))
    wait(lambda: panel.recovery._shown[0])  # which image this is
    now = study_of(case.node).study_id
    next_time_point(case)
    assert noted_studies(case.segmentation) == (now,)
    asked.refused = True
    assert save(panel) == "Nothing was saved; go back to the time point on which it was drawn."
    assert asked.said == [OTHER]


# Previews


def test_measuring_accepts_the_preview(panel, points, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    panel.ui.lesionsGroup.collapsed = False
    panel.ui.measureButton.click()
    assert panel.ui.lesionTable.rowCount == 1 and mask_of(case, case.liver).any()
    assert panel.ui.lesionLabel.text == ""


def test_exporting_accepts_the_preview(panel, points, slice_views, case, tmp_path, monkeypatch):
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "labels.nrrd"))
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    panel.ui.exportCombo.setCurrentIndex(2)
    panel.ui.exportButton.click()
    assert mask_of(case, case.liver).any()
    assert slicer.util.arrayFromSegmentBinaryLabelmap(case.segmentation, case.liver, case.node).any()
    assert (tmp_path / "labels.nrrd").exists()


LEFT_OUT = "Not in it, since their marks are not accepted: liver."


@pytest.fixture
def marked(panel, points, slice_views, case):
    """A spleen that is drawn and in hand, and a liver with marks that are not accepted."""
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    panel.editor.setCurrentSegmentID(add_segment(case, "spleen", case.mask("spleen")))
    return panel


def test_the_table_says_which_segments_are_not_in_it(marked):
    marked.ui.lesionsGroup.collapsed = False
    marked.ui.measureButton.click()
    assert marked.ui.lesionLabel.text == LEFT_OUT and marked.ui.lesionTable.rowCount == 1


def test_a_file_of_segments_says_which_are_not_in_it(marked, tmp_path):
    marked.exporting.export_to(tmp_path / "a.seg.nrrd")
    assert said(marked.ui.saveLabel) == f"Written: {tmp_path / 'a.seg.nrrd'} {LEFT_OUT}"


# What is remembered


def test_the_list_of_structures_is_chosen_again_the_next_day(panel, another_day):
    panel.ui.templateCombo.setCurrentIndex(0)  # whatever another test chose
    panel.ui.templateCombo.setCurrentIndex(panel.ui.templateCombo.findText("Abdomen CT"))
    day = another_day()
    section = type(panel.structures)(day)
    assert day.ui.templateCombo.currentText == "Abdomen CT" and day.ui.structureCombo.itemText(0) == "liver"
    section._template_chosen()
    panel.logic.settings.set_choice("structures", "a list that is gone")
    day = another_day()
    type(panel.structures)(day)
    assert day.ui.templateCombo.currentIndex == 0


def test_the_source_of_images_is_chosen_again_and_listed_when_it_is_looked_at(panel, another_day, monkeypatch):
    looked = []
    monkeypatch.setattr(type(panel.images), "look", lambda section: looked.append(section))
    panel.ui.imagesCombo.setCurrentIndex(0)  # whatever another test chose
    panel.ui.imagesCombo.setCurrentIndex(1)
    assert looked == [panel.images]
    day = another_day()
    section = type(panel.images)(day)
    assert day.ui.imagesCombo.currentIndex == 1 and looked == [panel.images]
    assert day.ui.folderEdit.isHidden() and not day.ui.studiesWidget.isHidden()
    day.ui.saveSection.collapsed = False
    assert looked == [panel.images, section]
    panel.ui.imagesCombo.setCurrentIndex(0)
    day = another_day()
    type(panel.images)(day)
    assert day.ui.imagesCombo.currentIndex == 0 and not day.ui.folderEdit.isHidden()


def test_the_folder_of_images_is_chosen_again(panel, another_day, tmp_path):
    panel.ui.folderEdit.currentPath = str(tmp_path)
    panel.images._remember(tmp_path / "elsewhere")
    assert another_day().ui.folderEdit.currentPath != str(tmp_path)
    panel.images._remember(tmp_path)
    assert another_day().ui.folderEdit.currentPath == str(tmp_path)


def test_files_are_proposed_under_the_images_name_where_one_was_written_last(
    panel, case, another_day, tmp_path, monkeypatch
):
    proposed, chosen = [], [str(tmp_path / "a.seg.nrrd"), "", ""]

    def choose(_parent, _title, path, _filter):
        proposed.append(path)
        return chosen[len(proposed) - 1]

    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", choose)
    panel.logic.settings.set_choice("exports", str(tmp_path / "gone"))
    case.node.SetName("Ann: 1/2")
    add_segment(case, "spleen", case.mask("spleen"))
    for index in (0, 1):
        panel.ui.exportCombo.setCurrentIndex(index)
        panel.ui.exportButton.click()
    panel.ui.lesionsGroup.collapsed = False
    panel.ui.measureButton.click()
    panel.ui.csvButton.click()
    folders = [Path.home(), tmp_path, tmp_path]
    names = ["Ann_ 1_2 labels.seg.nrrd", "Ann_ 1_2 labels.nii.gz", "Ann_ 1_2 lesions.csv"]
    assert proposed == [str(folder / name) for folder, name in zip(folders, names, strict=True)]


def test_the_table_shows_its_umlauts_in_excel(panel, case, tmp_path, monkeypatch):
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "a.csv"))
    add_segment(case, "Läsion", case.mask("spleen"))
    panel.ui.lesionsGroup.collapsed = False
    panel.ui.measureButton.click()
    panel.ui.csvButton.click()
    assert (tmp_path / "a.csv").read_bytes().startswith("\N{BOM}image,".encode())
    with (tmp_path / "a.csv").open(encoding="utf-8-sig") as stream:
        assert [row["name"] for row in csv.DictReader(stream)] == ["Läsion"]


# Models that are known only later


def test_models_that_are_known_only_later_are_offered(panel, homes):
    assistant = panel.logic.assistant
    homes.use(assistant, "computer")
    if assistant._looking is not None:
        assistant._looking.cancel()  # as where nobody answered when the module was opened
    panel.backend._names = []
    panel.ui.modelCombo.clear()
    panel.ui.autoCombo.clear()
    assistant.know_models()  # as the first click does
    wait(lambda: assistant.cards)
    assert panel.ui.modelCombo.currentText == "network-fine"
    assert panel.ui.autoCombo.count > 0
    assert panel.ui.backendStatusLabel.text == assistant.status


# Keys


def test_a_key_that_is_held_does_its_thing_once(panel):
    assert panel._keys and not any(key.autoRepeat for key in panel._keys)


def test_a_key_saves_and_goes_on_unless_that_waits(panel, monkeypatch):
    pressed = []
    panel.ui.saveNextButton.connect("clicked()", lambda: pressed.append(1))
    monkeypatch.setattr(panel.saving, "_save", lambda *_: None)
    panel.ui.saveSection.collapsed = True
    panel.ui.saveNextButton.setEnabled(False)
    panel.save_and_next()
    panel.ui.saveNextButton.setEnabled(True)
    assert pressed == []
    panel.save_and_next()
    assert pressed == [1] and not panel.ui.saveSection.collapsed


# Colours


def contrast(one: qt.QColor, other: qt.QColor) -> float:
    """The contrast of two colours, from 1 to 21, after WCAG 2.1."""

    def luminance(colour: qt.QColor) -> float:
        parts = np.array([colour.redF(), colour.greenF(), colour.blueF()])
        return float(
            np.where(parts <= 0.04045, parts / 12.92, ((parts + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]
        )

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("window", ["#353535", "#f0f0f0"])
def test_what_went_wrong_can_be_read_on_a_dark_window_as_on_a_light_one(application, window):
    from AIAssistLib.section_qt import error_style

    label, palette = qt.QLabel(), qt.QPalette()
    palette.setColor(qt.QPalette.Window, qt.QColor(window))
    label.setPalette(palette)
    red = error_style(label).removeprefix("color: ").removesuffix(";")
    assert contrast(qt.QColor(red), qt.QColor(window)) > 4.5


# Automatic models


def test_many_segments_are_added_with_turns_in_between(panel, case):
    from AIAssistLib.auto_segment import adding_segments

    labels = [describe_structure(f"part {number}") for number in range(1, 6)]
    voxels = np.zeros((70, 20, 20), np.uint8)
    labels = [replace(label, value=number) for number, label in enumerate(labels, start=1)]
    for number in range(1, 5):  # the fifth is nowhere
        voxels[20 * number - 20 + 2 : 20 * number - 10, number : number + 3, 5:9] = number
    patch = MaskPatch(Region((3, 4, 5), (73, 24, 25)), voxels, "labels")
    found = SimpleNamespace(patch=patch, model="whole", model_version="1")
    card = ModelCard("whole", "1", "automatic", "All.", labels=labels)
    shares, turns = [], 0
    adding = adding_segments(found, card, case.node, case.segmentation, study_of(case.node), shares.append)
    while True:
        try:
            next(adding)
            turns += 1
        except StopIteration as end:
            names = end.value
            break
    assert names == ["part 1", "part 2", "part 3", "part 4"] and turns >= 4 and shares == [0.25, 0.5, 0.75, 1.0]
    whole = np.zeros(case.labels.shape, np.uint8)
    whole[patch.region.slices] = voxels
    for number, name in enumerate(names, start=1):
        assert np.array_equal(mask_of(case, segment_named(case.segmentation, name)), whole == number)


def test_what_a_model_finds_fills_the_empty_segments_that_somebody_prepared(panel, case):
    from AIAssistLib.auto_segment import adding_segments

    spleen, drawn = add_segment(case, "spleen"), add_segment(case, "kidney", case.mask("kidney_left"))
    labels = [replace(describe_structure(name), value=n) for n, name in enumerate(["Spleen", "kidney"], start=1)]
    voxels = case.mask("spleen").astype(np.uint8) + 2 * case.mask("kidney_right").astype(np.uint8)
    patch = MaskPatch(Region((0, 0, 0), voxels.shape), voxels, "labels")
    found = SimpleNamespace(patch=patch, model="whole", model_version="1")
    card = ModelCard("whole", "1", "automatic", "All.", labels=labels)
    assert run(adding_segments(found, card, case.node, case.segmentation, study_of(case.node))) == [
        "spleen",
        "kidney 2",
    ]
    assert np.array_equal(mask_of(case, spleen), case.mask("spleen"))
    assert np.array_equal(mask_of(case, drawn), case.mask("kidney_left"))


@pytest.mark.parametrize("what", ["nothing", "image"])
def test_segments_are_added_only_while_the_image_is_there(panel, case, monkeypatch, what):
    from AIAssistLib import auto_segment

    def segment(_conversations, request, _job):
        yield
        voxels = np.zeros((9, 9, 9), np.uint8)
        voxels[1:3, 1:3, 1:3], voxels[5:8, 5:8, 5:8] = 1, 2
        patch = MaskPatch(Region((0, 0, 0), (9, 9, 9)), voxels, "labels")
        return SimpleNamespace(patch=patch, model=request.model, model_version="1")

    labels = [replace(describe_structure(name), value=number) for number, name in ((1, "one"), (2, "two"))]
    monkeypatch.setattr("aiassist.client.conversations.Conversations.segment", segment)
    add = auto_segment._add_segment

    def added(*given):
        name = add(*given)
        if what == "image":
            slicer.mrmlScene.RemoveNode(case.node)
        return name

    monkeypatch.setattr(auto_segment, "_add_segment", added)
    running = auto_segment.AutoSegment(panel.logic.assistant, lambda: None)
    states = []
    card = ModelCard("whole", "1", "automatic", "All.", labels=labels)
    running.run(card, case.node, case.segmentation, states.append)
    wait(lambda: not running.running)
    assert states == [case.segmentation]
    if what == "image":
        assert running.failed and running.text.startswith("The image was changed or removed while whole ran")
        assert not segment_named(case.segmentation, "two")
    else:
        assert running.text == "Found one, two" and segment_named(case.segmentation, "two")
