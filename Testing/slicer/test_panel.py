"""The panel: structures, automatic segmentation, ground truth, export, the next image."""

from __future__ import annotations

import csv
import json
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
import qt
import slicer

from aiassist.errors import AIAssistError, ConnectionLostError
from aiassist.imaging import MaskPatch, describe_structure, read_volume
from aiassist.segmenters.base import ModelCard
from AIAssistLib.autosave import Autosave
from AIAssistLib.geometry import study_of
from AIAssistLib.segments import read_mask, write_plainly
from AIAssistLib.shortcuts import SHORTCUTS
from AIAssistLib.structures import segment_named
from AIAssistLib.tags import PROMPTS, stamps_of, tag_of
from AIAssistLib.templates import read_templates
from AIAssistLib.texts import BREAK, breakable
from helpers import CASE, Case, add_segment, answered, click_ends, dice, mask_of, said, wait
from homes import NAMES
from shell.qt_api import QtApi

ROOT = CASE.parents[2]


def segment_names(case) -> list[str]:
    """Names of the segments in order."""
    segments = case.segmentation.GetSegmentation()
    return [segments.GetNthSegment(n).GetName() for n in range(segments.GetNumberOfSegments())]


def names_in(path) -> set[str]:
    """The names of the widgets in a ``.ui`` file."""
    return {widget.get("name") for widget in ElementTree.parse(path).iter("widget")}


def test_our_effects_come_first_and_slicers_beside_them(panel):
    assert list(panel.editor.effectNameOrder())[:4] == ["AI Points", "Smart Contour", "Paint", "Draw"]
    assert set(panel.editor.availableEffectNames()) >= {"AI Points", "Smart Contour"}
    assert not panel.editor.unorderedEffectsVisible


def test_no_key_of_ours_is_taken_in_slicer():
    taken = QtApi().taken_shortcuts()
    assert [shortcut.key for shortcut in SHORTCUTS if shortcut.key in taken] == []
    assert len({shortcut.key for shortcut in SHORTCUTS}) == len(SHORTCUTS)


def test_the_keys_live_only_while_the_module_is_shown(module, application):
    def keys():
        return [key.key.toString() for key in application.window.findChildren(qt.QShortcut)]

    assert sorted(keys()) == sorted(shortcut.key for shortcut in SHORTCUTS)
    module.exit()
    qt.QApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
    assert keys() == []


def test_every_widget_that_does_something_has_a_tooltip(module):
    kinds = (qt.QPushButton, qt.QToolButton, qt.QComboBox, qt.QLineEdit, qt.QTableWidget)
    names = vars(module.panel.ui)
    silent = [n for n, w in names.items() if isinstance(w, kinds) and not n.startswith("qt_") and not w.toolTip]
    assert silent == []


def test_no_widget_of_the_panel_has_the_name_of_one_of_an_effect():
    """Slicer's editor builds the effects' widgets inside the panel, where the last one of a name is what is found."""
    names = {path.stem: names_in(path) for path in (ROOT / "SlicerAIAssist" / "Resources" / "UI").glob("*.ui")}
    ours = names.pop("AIAssist")
    assert [sorted(ours & theirs) for theirs in names.values()] == [[], []]


def test_the_panel_drives_its_own_widgets_and_none_of_the_effects(module):
    panel, inside = module.panel, module.panel.editor
    own = names_in(ROOT / "SlicerAIAssist" / "Resources" / "UI" / "AIAssist.ui") - {"AIAssist", "editorWidget"}
    assert own - set(vars(panel.ui)) == set()
    assert [name for name in own if inside.isAncestorOf(getattr(panel.ui, name))] == []


MANY = [f"pulmonary_artery_branch_{number}" for number in range(104)]
#: Paths that are long, in their folders and in their names.
LONG_PATHS = [
    "/" + "/".join(["the_studies_of_a_whole_year"] * 12) + "/labels.nii.gz",
    "C:\\" + "\\".join(["Documents and Settings"] * 12) + "\\" + "x" * 200 + ".nii.gz",
]


@pytest.fixture
def open_panel(module):
    """The panel with all its sections open."""
    for section in ("backendSection", "structuresSection", "autoSection", "saveSection", "learnSection"):
        getattr(module.panel.ui, section).collapsed = False
    return module.panel


@pytest.mark.parametrize("path", LONG_PATHS)
def test_long_paths_and_a_hundred_structures_do_not_make_the_panel_wide(open_panel, monkeypatch, path):
    panel, ui = open_panel, open_panel.ui
    labels = [describe_structure(name) for name in MANY]
    monkeypatch.setattr(
        panel.logic.assistant, "cards", [ModelCard("whole-body", "1", "automatic", "All.", labels=labels)]
    )
    panel.auto.models_seen()
    panel.recovery._offer("study", [SimpleNamespace(name=name) for name in MANY])
    panel.saving.tell(f"Written: {path}")
    ui.structureCombo.addItems(["a structure with a name that takes many words to write and to read" * 4])
    for section in ("autoSection", "saveSection", "structuresSection"):
        getattr(ui, section).layout().activate()
    assert panel.widget.minimumSizeHint.width() < 500
    assert ui.autoCombo.currentText == f"whole-body: {', '.join(MANY[:3])} and 101 more"
    assert ui.recoverButton.text == "Recover unsaved work: pulmonary_artery_branch…"
    assert said(ui.saveLabel) == f"Written: {path}"
    for tip in (ui.autoCombo.toolTip, ui.recoverButton.toolTip):
        assert tip.replace("\n", " ").endswith(", ".join(MANY)) and max(map(len, tip.split("\n"))) <= 80
    panel.recovery._offer("", [])


def test_a_word_breaks_only_where_it_is_long_and_at_the_same_places_again(module):
    short = "Saved: liver (version 1). See /tmp/labels.nii.gz"
    assert breakable(short) == short
    for path in LONG_PATHS:
        text = breakable(path)
        assert max(map(len, text.replace(BREAK, " ").split())) <= 41 and breakable(text) == text


def test_next_structure_accepts_and_goes_through_the_list(panel, points, slice_views, case):
    panel.ui.templateCombo.setCurrentIndex(panel.ui.templateCombo.findText("Abdomen CT"))
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    panel.next_structure()
    assert mask_of(case, case.liver).any()
    assert segment_names(case) == ["liver", "spleen"]
    assert panel.editor.currentSegmentID() != case.liver
    segment = case.segmentation.GetSegmentation().GetSegment(panel.editor.currentSegmentID())
    assert "78961009" in tag_of(segment, segment.GetTerminologyEntryTagName())  # SNOMED CT: spleen
    assert case.node.GetDisplayNode().GetWindow() == 400
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    panel.next_structure()
    assert segment_names(case) == ["liver", "spleen", "kidney_right"]


def test_a_typed_name_becomes_a_segment_ready_to_be_marked(panel, case):
    panel.ui.structureCombo.setCurrentText("gallbladder")
    panel.ui.addStructureButton.click()
    assert segment_names(case) == ["liver", "gallbladder"]
    assert panel.editor.activeEffect().name == "AI Points"
    panel.ui.structureCombo.setCurrentText(" ")
    panel.ui.addStructureButton.click()
    assert "has no name" in panel.ui.lesionLabel.text


def test_measurements_are_right_can_be_jumped_to_and_saved(panel, slice_views, case, tmp_path, monkeypatch):
    ball = np.zeros(case.labels.shape, bool)
    ball[50:54, 40:44, 60:70] = True
    segment = add_segment(case, "lesion_1", ball)
    panel.ui.lesionsGroup.collapsed = False
    panel.ui.measureButton.click()
    table = panel.ui.lesionTable
    assert [table.item(0, c).text() for c in range(4)] == [
        "lesion_1",
        f"{ball.sum() * 27 / 1000:.2f}",
        f"{3 * np.linalg.norm([3, 3, 9]):.1f}",
        f"{case.volume.voxels[ball].mean():.1f}",
    ]
    panel.structures._jump(0)
    assert panel.editor.currentSegmentID() == segment
    middle = case.world([64.5, 41.5, 51.5])[0]
    assert slice_views["Red"].node.GetSliceOffset() == pytest.approx(middle[2], abs=1.6)
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "lesions.csv"))
    panel.ui.csvButton.click()
    rows = list(csv.DictReader((tmp_path / "lesions.csv").open(encoding="utf-8-sig")))
    assert (rows[0]["image"], rows[0]["name"]) == ("torso", "lesion_1")
    assert float(rows[0]["middle_s"]) == pytest.approx(middle[2])
    ball[50:54, 40:44, 70:80] = True
    write_plainly(MaskPatch.of_mask(ball), case.node, case.segmentation, segment)  # corrected after it was measured
    panel.ui.csvButton.click()
    rows = list(csv.DictReader((tmp_path / "lesions.csv").open(encoding="utf-8-sig")))
    assert float(rows[0]["millilitres"]) == pytest.approx(ball.sum() * 27 / 1000)


def test_measurements_of_another_image_or_a_removed_segment_are_not_used(panel, case):
    panel.ui.lesionsGroup.collapsed = False
    segment = add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.measureButton.click()
    assert panel.ui.lesionTable.rowCount == 1 and panel.ui.csvButton.enabled
    case.segmentation.GetSegmentation().RemoveSegment(segment)
    panel.structures._jump(0)
    assert panel.ui.lesionLabel.text == "'spleen' was removed; press Measure again."
    other = slicer.util.addVolumeFromArray(case.volume.voxels + 1, name="other patient")
    panel.editor.setSourceVolumeNode(other)
    assert panel.ui.lesionTable.rowCount == 0 and not panel.ui.csvButton.enabled
    panel.editor.setSourceVolumeNode(case.node)
    add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.measureButton.click()
    assert panel.ui.lesionTable.rowCount == 1
    slicer.mrmlScene.Clear(0)
    assert panel.ui.lesionTable.rowCount == 0 and not panel.ui.csvButton.enabled


def with_modality(node, modality: str) -> None:
    """Let a volume node have the modality that the DICOM module writes."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    hierarchy.SetItemAttribute(hierarchy.CreateItem(hierarchy.GetSceneItemID(), node), "DICOM.Modality", modality)


def test_only_models_of_the_images_modality_are_offered_also_after_another_image_was_chosen(panel, case):
    from AIAssistLib.auto_segment import fitting, modality_of

    panel.backend.look()
    wait(lambda: panel.logic.assistant.cards)
    card = next(card for card in panel.logic.assistant.cards if card.name == "lungs-ct")
    mr, unknown = (slicer.util.addVolumeFromArray(case.volume.voxels.copy(), name=name) for name in ("mr", "unknown"))
    with_modality(mr, "MR")
    with_modality(case.node, "CT")
    assert [modality_of(node) for node in (case.node, mr, unknown)] == ["CT", "MR", ""]
    assert [fitting([card], node) for node in (case.node, mr, unknown, None)] == [[card], [], [card], [card]]
    ui = panel.ui
    panel.editor.setSourceVolumeNode(mr)
    assert (ui.autoCombo.count, ui.autoRunButton.enabled) == (0, False)
    assert ui.autoLabel.text.startswith("No automatic model here fits this image")
    panel.editor.setSourceVolumeNode(case.node)
    assert ui.autoCombo.itemText(0).startswith("lungs-ct") and ui.autoRunButton.enabled
    assert ui.autoLabel.text == ""


@pytest.mark.parametrize("home", NAMES)
def test_automatic_models_give_segments_with_points_to_adjust_them_by(home, panel, homes, case):
    homes.use(panel.logic.assistant, home)
    panel.backend.look()
    wait(lambda: panel.logic.assistant.cards)
    names = [panel.ui.autoCombo.itemText(n) for n in range(panel.ui.autoCombo.count)]
    assert any(name.startswith("lungs-ct") for name in names)
    panel.ui.autoCombo.setCurrentIndex(next(n for n, t in enumerate(names) if t.startswith("lungs-ct")))
    panel.ui.autoRunButton.click()
    assert not panel.ui.autoRunButton.enabled
    assert panel.ui.autoCancelButton.enabled
    wait(lambda: not panel.auto._auto.running)
    assert panel.ui.autoRunButton.enabled
    if panel.auto._auto.failed:  # the bundled CT holds only the lungs' lowest parts
        assert "lungs-ct needs a CT of the chest" in panel.ui.autoLabel.text
        return
    segments = case.segmentation.GetSegmentation()
    found = [segments.GetNthSegment(n) for n in range(1, segments.GetNumberOfSegments())]
    assert found
    for segment in found:
        assert len(json.loads(tag_of(segment, PROMPTS))["points"]) == 6


@pytest.mark.parametrize("home", NAMES)
def test_saving_history_and_bringing_back(home, panel, homes, case):
    homes.use(panel.logic.assistant, home)
    slicer.util.arrayFromVolume(case.node)[0, 0, 0] = -2500  # a study that nobody saved labels of
    slicer.util.arrayFromVolumeModified(case.node)
    case.segmentation.GetSegmentation().RemoveSegment(case.liver)
    first, second = case.mask("spleen"), case.mask("spleen") & (np.arange(112) % 2 == 0)[:, None, None]
    segment = add_segment(case, "spleen", first)
    panel.ui.commentEdit.setText("first look")
    panel.ui.saveButton.click()
    wait(lambda: "Saved" in panel.ui.saveLabel.text)
    first_number = int(panel.ui.saveLabel.text.split("version ")[1].split(")")[0])
    case.segmentation.GetSegmentation().RemoveSegment(segment)
    segment = add_segment(case, "spleen", second)
    panel.ui.saveLabel.setText("")
    panel.ui.saveButton.click()
    wait(lambda: f"version {first_number + 1}" in panel.ui.saveLabel.text)
    table = panel.ui.historyTable
    wait(lambda: table.rowCount >= 2 and table.item(0, 1).text() == str(first_number + 1))
    assert table.item(1, 5).text() == "first look"
    assert table.item(0, 3).text() == ("Bo" if home == "server" else panel.logic.settings.author)
    assert table.item(0, 4).text() == "submitted"
    panel.ui.historyGroup.collapsed = False
    table.selectRow(1)
    panel.ui.restoreButton.click()
    wait(lambda: "again here" in panel.ui.saveLabel.text)
    assert (mask_of(case, segment) == first).all()
    panel.editor.undo()
    assert (mask_of(case, segment) == second).all()


def test_what_is_drawn_while_a_version_travels_can_be_brought_back(panel, case):
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.saveButton.click()
    wait(lambda: "Saved" in panel.ui.saveLabel.text and panel.ui.historyTable.rowCount)
    panel.ui.historyGroup.collapsed = False
    panel.ui.historyTable.selectRow(0)
    panel.ui.restoreButton.click()
    write_plainly(MaskPatch.of_mask(case.mask("liver")), case.node, case.segmentation, spleen)  # a stroke meanwhile
    wait(lambda: "again here" in panel.ui.saveLabel.text)
    assert (mask_of(case, spleen) == case.mask("spleen")).all()
    panel.editor.undo()
    assert (mask_of(case, spleen) == case.mask("liver")).all()


def test_a_version_that_cannot_be_brought_back_leaves_no_segment(panel, case, monkeypatch):
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.saveButton.click()
    wait(lambda: "Saved" in panel.ui.saveLabel.text and panel.ui.historyTable.rowCount)
    case.segmentation.GetSegmentation().RemoveSegment(spleen)
    panel.ui.historyGroup.collapsed = False
    panel.ui.historyTable.selectRow(0)

    def lost(*_):
        raise ConnectionLostError("The server does not answer.")
        yield

    monkeypatch.setattr("aiassist.client.conversations.Conversations.saved", lost)
    panel.ui.restoreButton.click()
    wait(lambda: panel.ui.saveLabel.text == "The server does not answer.")
    assert segment_named(case.segmentation, "spleen") == ""


def test_work_of_a_scene_that_was_closed_is_offered_again_and_not_overwritten(panel, case, module):
    add_segment(case, "spleen", case.mask("spleen"))
    wait(lambda: panel.recovery.keep() or panel.recovery.autosave._written)
    slicer.mrmlScene.Clear(0)
    again = Case()
    panel.editor.setSegmentationNode(again.segmentation)
    panel.editor.setSourceVolumeNode(again.node)
    wait(lambda: not panel.ui.recoverButton.isHidden())
    assert panel.ui.recoverButton.text == "Recover unsaved work: spleen"
    add_segment(again, "spleen")  # which may have the ID of the one before
    while panel.recovery.keep():
        pass
    panel.ui.recoverButton.click()
    segments = again.segmentation.GetSegmentation()
    recovered = segments.GetNthSegmentID(segments.GetNumberOfSegments() - 1)
    assert (
        read_mask(again.segmentation, recovered, again.node).to_mask(again.labels.shape) == case.mask("spleen")
    ).all()


def test_marking_begins_by_itself_once_the_packages_are_there(panel, case, monkeypatch):
    def missing():
        raise AIAssistError("AI Assist still needs a package; press Install.")

    monkeypatch.setattr(panel.logic, "check_packages", missing)
    panel.editor.setActiveEffectByName("")
    panel.points()
    effect = panel.editor.activeEffect().self()
    assert effect.ui.statusLabel.text == "AI Assist still needs a package; press Install."
    monkeypatch.setattr(effect, "session", None)
    for key in (panel.accept, panel.take_back, panel.look):
        key()
        assert effect.ui.statusLabel.text == "Nothing is being marked yet; choose an image and a segment."
    monkeypatch.setattr(panel.logic, "check_packages", lambda: None)
    monkeypatch.setattr(panel.backend, "_move", lambda _where: None)
    panel.backend._installed(None)
    assert effect.session is not None and effect.session.target.segment_id == case.liver


def test_one_install_at_a_time(panel, monkeypatch):
    monkeypatch.setattr("AIAssistLib.backend_section_qt.Installer.start", lambda *_: None)
    panel.backend.install()
    buttons = (panel.ui.installButton, panel.ui.wheelsButton, panel.ui.cancelInstallButton)
    assert [button.enabled for button in buttons] == [False, False, True]
    panel.backend.cancel_install()
    assert [button.enabled for button in buttons] == [True, True, False]


def test_an_export_is_of_the_image_whose_headers_were_read(panel, case, monkeypatch, tmp_path):
    def headers(_assistant, volume_node):
        yield
        return volume_node.GetName()

    monkeypatch.setattr("AIAssistLib.export_section_qt.with_series", headers)
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "labels.dcm"))
    written = []
    monkeypatch.setattr(panel.exporting, "export_to", lambda *given: written.append(given))
    panel.ui.exportCombo.setCurrentIndex(3)
    panel.ui.exportButton.click()
    other = Case()
    panel.editor.setSegmentationNode(other.segmentation)
    panel.editor.setSourceVolumeNode(other.node)
    wait(lambda: written)
    assert written == [(tmp_path / "labels.dcm", (case.node, case.segmentation), "torso")]


def test_saving_nothing_or_two_of_a_name_says_so(panel, case):
    panel.ui.saveButton.click()
    assert panel.ui.saveLabel.text == "All segments are empty; annotate something before you save."
    add_segment(case, "spleen", case.mask("spleen"))
    twin = add_segment(case, "twin", case.mask("spleen"))
    case.segmentation.GetSegmentation().GetSegment(twin).SetName("Spleen")
    panel.ui.saveButton.click()
    assert "Two segments are called 'Spleen'" in panel.ui.saveLabel.text


@pytest.mark.parametrize("ending", [".seg.nrrd", ".nii.gz", ".nrrd"])
def test_export_writes_what_is_in_the_segments(panel, case, tmp_path, ending):
    add_segment(case, "spleen", case.mask("spleen"))
    panel.exporting.export_to(tmp_path / f"labels{ending}")
    if ending == ".seg.nrrd":
        loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
        storage.SetFileName(str(tmp_path / f"labels{ending}"))
        assert storage.ReadData(loaded)
        assert "spleen" in [loaded.GetSegmentation().GetNthSegment(n).GetName() for n in range(2)]
    else:
        written = read_volume(tmp_path / f"labels{ending}")
        assert written.geometry.same_grid(case.volume.geometry)
        assert dice(written.voxels > 0, case.mask("spleen")) == 1


def test_next_image_goes_through_a_folder_and_says_when_it_is_over(panel, case, tmp_path, monkeypatch):
    for name in ("b.nii.gz", "a.nii.gz", "a.seg.nrrd", "notes.txt"):
        (tmp_path / name).write_bytes((CASE / "image.nii.gz").read_bytes())

    def load(path):
        node = slicer.util.addVolumeFromArray(read_volume(path).voxels.copy(), name=str(path))
        storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVolumeArchetypeStorageNode")
        storage.SetFileName(str(path))
        node.SetAndObserveStorageNodeID(storage.GetID())
        return node

    monkeypatch.setattr(slicer.util, "loadVolume", load)
    panel.ui.folderEdit.currentPath = str(tmp_path)
    for name in ("a.nii.gz", "b.nii.gz"):
        panel.ui.nextButton.click()
        assert panel.editor.sourceVolumeNode().GetName() == str(tmp_path / name)
    segmentation = panel.editor.segmentationNode()
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 0
    panel.ui.nextButton.click()
    wait(lambda: panel.ui.saveLabel.text == "That was the last image of the folder.")
    (tmp_path / "c.nii.gz").write_bytes((CASE / "image.nii.gz").read_bytes())
    count = len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode"))
    case.segmentation, case.node = segmentation, panel.editor.sourceVolumeNode()
    add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.saveNextButton.click()
    wait(lambda: panel.editor.sourceVolumeNode().GetName() == str(tmp_path / "c.nii.gz"))
    assert len(slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")) == count  # what is saved has left the memory


@pytest.mark.parametrize("ending", [".nii.gz", ".seg.nrrd"])
def test_export_says_which_segments_are_covered_by_others_and_leaves_nothing_behind(panel, case, tmp_path, ending):
    spleen = case.mask("spleen")
    half = spleen & (np.arange(spleen.shape[1]) % 2 == 0)[None, :, None]
    add_segment(case, "spleen", spleen)
    add_segment(case, "lesion", half)
    nodes = {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")}
    panel.exporting.export_to(tmp_path / f"labels{ending}")
    assert {node.GetID() for node in slicer.util.getNodesByClass("vtkMRMLNode")} == nodes
    text = said(panel.ui.saveLabel)
    if ending == ".seg.nrrd":
        assert text == f"Written: {tmp_path / 'labels.seg.nrrd'}"
        return
    assert text.startswith(f"Written: {tmp_path / 'labels.nii.gz'}, and beside it labels.labels.csv, which says")
    assert " what each value is. Segments overlap, and a labelmap keeps one for each voxel" in text
    assert "voxels are missing of: spleen. Export a Slicer segmentation" in text
    written = read_volume(tmp_path / "labels.nii.gz").voxels
    (last,) = np.unique(written[half])
    assert ((written == last) == half).all() and ((written > 0) == spleen).all()


def test_a_damaged_image_of_a_folder_is_said_and_passed(panel, tmp_path, monkeypatch):
    for name in ("a.nii.gz", "b.nii.gz"):
        (tmp_path / name).write_bytes(b"no image")
    loaded = []

    def load(path):
        loaded.append(path)
        raise RuntimeError(f"Failed to load node from file: {path}")

    monkeypatch.setattr(slicer.util, "loadVolume", load)
    panel.ui.folderEdit.currentPath = str(tmp_path)
    before = panel.editor.sourceVolumeNode()
    for name in ("a.nii.gz", "b.nii.gz"):
        panel.ui.nextButton.click()
        assert panel.ui.saveLabel.text.startswith(f"{name} cannot be loaded as an image; press Next image again")
        assert panel.editor.sourceVolumeNode() is before
    panel.ui.nextButton.click()
    wait(lambda: panel.ui.saveLabel.text == "That was the last image of the folder.")
    assert loaded == [str(tmp_path / "a.nii.gz"), str(tmp_path / "b.nii.gz")]


def test_the_formats_of_export_are_named_in_slicers_language(module, monkeypatch):
    monkeypatch.setattr("AIAssistLib.export_section_qt._", lambda text: f"<{text}>")
    ui = SimpleNamespace(saveLabel=qt.QLabel(), exportCombo=qt.QComboBox(), exportButton=qt.QPushButton())
    structures = SimpleNamespace(nodes=lambda: (SimpleNamespace(GetName=lambda: "ct"), None))
    panel = SimpleNamespace(ui=ui, logic=module.logic, widget=None, structures=structures, accept_if_any=lambda: None)
    section = type(module.panel.exporting)(panel)
    assert ui.exportCombo.itemText(1) == "<NIfTI labelmap>"
    asked = []
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *given: asked.append(given[-1]) or "")
    ui.exportCombo.setCurrentIndex(1)
    section.begin()
    assert asked == ["*.nii.gz"]


def test_without_an_image_the_panel_says_so(module):
    module.panel.ui.structureCombo.setCurrentText("liver")
    module.panel.ui.addStructureButton.click()
    assert module.panel.ui.lesionLabel.text == "There is no image; load one first."


def test_a_scene_saved_and_opened_again_goes_on_where_it_was_left(panel, points, slice_views, case, tmp_path):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    preview = points.session.preview.mask
    assert slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(tmp_path), None)
    slicer.mrmlScene.Clear(0)
    slicer.mrmlScene.SetURL(str(next(tmp_path.glob("*.mrml"))))
    assert slicer.mrmlScene.Connect()
    nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
    assert [node.GetName() for node in nodes] == ["torso segmentation"]  # no preview was saved
    volume = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")[0]
    panel.editor.setSegmentationNode(nodes[0])
    panel.editor.setSourceVolumeNode(volume)
    panel.editor.setCurrentSegmentID(nodes[0].GetSegmentation().GetNthSegmentID(0))
    panel.points()
    answered(points)
    assert points.session.preview.mask.version == preview.version
    points.ui.acceptButton.click()
    held = slicer.util.arrayFromSegmentBinaryLabelmap(nodes[0], nodes[0].GetSegmentation().GetNthSegmentID(0), volume)
    assert dice(held > 0, case.mask("spleen")) > 0.8


def test_unsaved_work_survives_a_crash_and_is_offered_again(panel, module, points, slice_views, case):
    recovery = panel.recovery
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    accepted = mask_of(case, case.liver)
    while recovery.keep():
        pass
    case.segmentation.GetSegmentation().RemoveAllSegments()  # as after a crash: the scene is new, and so is Slicer
    recovery.autosave = Autosave(recovery.autosave._folder)
    empty = add_segment(case, "liver")
    panel.editor.setCurrentSegmentID(empty)
    while recovery.keep():  # an empty segment of the same name and ID does not take its place
        pass
    recovery.look()
    wait(lambda: not panel.ui.recoverButton.isHidden())
    assert panel.ui.recoverButton.text == "Recover unsaved work: liver"
    panel.ui.recoverButton.click()
    assert segment_names(case) == ["liver"] and (mask_of(case, empty) == accepted).all()
    assert panel.ui.recoverButton.isHidden()
    panel.ui.saveButton.click()
    wait(lambda: "Saved" in panel.ui.saveLabel.text)
    recovery.autosave = Autosave(recovery.autosave._folder)
    case.segmentation.GetSegmentation().RemoveAllSegments()
    recovery.look()
    slicer.app.processEvents()
    assert panel.ui.recoverButton.isHidden()  # what is ground truth needs no recovery


@pytest.mark.parametrize("answer", [False, True])
def test_unsaved_work_is_deleted_only_after_a_question(panel, case, monkeypatch, answer):
    asked, recovery = [], panel.recovery
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or answer)
    segment = add_segment(case, "spleen", case.mask("spleen"))
    study = study_of(case.node).study_id
    earlier = Autosave(recovery.autosave._folder)
    assert earlier.keep_one(study, case.segmentation, case.node) == "spleen"
    earlier.begin_run()
    case.segmentation.GetSegmentation().RemoveSegment(segment)
    recovery.look()
    wait(lambda: not panel.ui.recoverButton.isHidden())
    panel.ui.discardButton.click()
    assert asked == ["Delete the unsaved work (spleen)? It cannot be recovered then."]
    assert [found.name for found in recovery.autosave.found(study)] == ([] if answer else ["spleen"])
    assert panel.ui.recoverButton.isHidden() is answer
    if not answer:
        panel.ui.recoverButton.click()  # what came back is deleted from the disk without a question
        assert len(asked) == 1 and panel.ui.recoverButton.isHidden()


def test_unsaved_work_is_offered_for_an_image_that_is_loaded_while_the_module_is_shown(module, case):
    panel, recovery = module.panel, module.panel.recovery
    add_segment(case, "spleen", case.mask("spleen"))
    earlier = Autosave(recovery.autosave._folder)
    assert earlier.keep_one(study_of(case.node).study_id, case.segmentation, case.node) == "spleen"
    earlier.begin_run()
    case.segmentation.GetSegmentation().RemoveAllSegments()
    panel.editor.setSegmentationNode(case.segmentation)
    assert module.logic.assistant.studies.of(case.node).study_id  # known at once, as when AI Points is active
    panel.editor.setSourceVolumeNode(case.node)
    wait(lambda: not panel.ui.recoverButton.isHidden())
    assert panel.ui.recoverButton.text == "Recover unsaved work: spleen"
    other = slicer.util.addVolumeFromArray(case.volume.voxels + 1, name="other patient")
    panel.editor.setSourceVolumeNode(other)
    assert panel.ui.recoverButton.isHidden()
    case.node.GetImageData().Modified()  # the same node, another study
    panel.editor.setSourceVolumeNode(case.node)
    wait(lambda: not panel.ui.recoverButton.isHidden())
    slicer.util.arrayFromVolume(case.node)[:] += 1
    slicer.util.arrayFromVolumeModified(case.node)
    assert module.logic.assistant.studies.of(case.node).study_id
    recovery.keep()  # the tick
    assert panel.ui.recoverButton.isHidden()


def test_the_segment_in_hand_is_kept_first(panel, points, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    while panel.recovery.keep():
        pass
    kept = []
    keep_one = panel.recovery.autosave.keep_one
    panel.recovery.autosave.keep_one = lambda *a: kept.append(keep_one(*a)) or kept[-1]
    for name in ("kidney_right", "gallbladder"):
        panel.editor.setCurrentSegmentID(add_segment(case, name, case.mask(name)))
    panel.recovery.keep()
    assert kept == ["gallbladder"]


def test_another_images_version_is_not_brought_back(panel, module, points, slice_views, case):
    add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.saveButton.click()
    assert not panel.ui.saveNextButton.enabled  # one save at a time
    wait(lambda: "Saved" in panel.ui.saveLabel.text and panel.ui.historyTable.rowCount > 0)
    assert panel.ui.saveNextButton.enabled
    versions = panel.saving._versions
    other = slicer.util.addVolumeFromArray(case.volume.voxels + 1, name="other patient")
    panel.editor.setSourceVolumeNode(other)
    assert panel.ui.historyTable.rowCount == 0 and not panel.ui.restoreButton.enabled
    panel.saving._fill(versions)  # as when they arrive late
    panel.ui.historyGroup.collapsed = False
    panel.ui.historyTable.selectRow(0)
    before = {s: mask_of(case, s) for s in stamps_of(case.segmentation)}
    panel.ui.restoreButton.click()
    wait(lambda: "another image's" in panel.ui.saveLabel.text)
    assert all((mask_of(case, s) == mask).all() for s, mask in before.items())


def test_what_is_drawn_while_saving_is_not_thrown_away(panel, points, slice_views, case, tmp_path):
    (tmp_path / "a.nii.gz").write_bytes((CASE / "image.nii.gz").read_bytes())
    panel.ui.folderEdit.currentPath = str(tmp_path)
    segment = add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.saveNextButton.click()
    write_plainly(MaskPatch.of_mask(case.mask("liver")), case.node, case.segmentation, segment)
    wait(lambda: "Saved" in panel.ui.saveLabel.text)
    assert panel.ui.saveLabel.text.endswith("The segments were changed meanwhile, so this image stays.")
    assert panel.editor.sourceVolumeNode() is case.node


def test_nothing_is_saved_before_the_models_answer(panel, points, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    panel.ui.saveButton.click()
    assert "still answering" in panel.ui.saveLabel.text
    answered(points)
    panel.ui.saveButton.click()
    wait(lambda: "Saved: liver" in panel.ui.saveLabel.text)


def test_templates_of_ones_own_and_damaged_ones(tmp_path):
    text = '{"name": "Knee", "window": [0, 800], "structures": ["femur", {"name": "tibia"}]}'
    (tmp_path / "knee.json").write_text(text)
    (template,), refused = read_templates(tmp_path)
    assert refused == []
    assert [s.label.name for s in template.structures] == ["femur", "tibia"]
    assert template.structures[0].window == (0.0, 800.0)
    assert template.after(["Femur "]).label.name == "tibia"
    assert template.after(["femur", "tibia"]) is None
    bad = {
        "a.json": ("[1, 2]", "its parts are of another kind"),
        "b.json": ('{"name": "Hip",\n"structures" []}', "line 2, column 14: Expecting ':' delimiter"),
        "c.json": ('{"name": "Hip"}', "'structures' is missing"),
        "d.json": ('{"name": "Hip", "window": [400], "structures": ["femur"]}', "its parts are of another kind"),
    }
    for name, (text, _why) in bad.items():
        (tmp_path / name).write_text(text)
    (template,), refused = read_templates(tmp_path)
    assert template.name == "Knee"
    advice = 'write it as {"name": "Abdomen", "structures": [{"name": "liver"}]}.'
    assert refused == [f"{tmp_path / n} is no list of structures ({why}); {advice}" for n, (_text, why) in bad.items()]


def test_a_damaged_list_hides_no_other_and_is_said(panel, tmp_path, monkeypatch):
    folder = tmp_path / "AIAssist" / "templates"
    folder.mkdir(parents=True)
    (folder / "knee.json").write_text('{"name": "Knee", "structures": ["femur"]}')
    (folder / "bad.json").write_text("{")
    monkeypatch.setattr(type(panel.logic.settings), "folder", folder.parent)
    section = panel.structures
    monkeypatch.setattr(section, "_templates", [])
    section._read_templates()
    assert {"Knee", "Abdomen CT"} <= {template.name for template in section._templates}
    assert said(panel.ui.lesionLabel).startswith(f"{folder / 'bad.json'} is no list of structures (line 1, column 2: ")
    assert not panel.ui.lesionLabel.isHidden()
