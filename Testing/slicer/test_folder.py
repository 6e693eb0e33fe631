"""The next image of a folder whose subfolders hold DICOM series."""

from __future__ import annotations

import shutil
from pathlib import Path, PureWindowsPath
from types import SimpleNamespace

import highdicom
import numpy as np
import pydicom
import pytest
import qt
import slicer
from dicom_series import write_frames, write_series

from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import MaskPatch, read_volume
from AIAssistLib import worklist
from AIAssistLib.geometry import study_of
from AIAssistLib.structures import segment_named
from AIAssistLib.worklist import after
from helpers import CASE, add_segment, said, stopping, wait

OBLIQUE = np.array([[2.4, -1.92, 0, 11.5], [1.8, 2.56, 0, -7], [0, 0, -3, 3], [0, 0, 0, 1]])


@pytest.fixture
def folder(panel, tmp_path) -> Path:
    """A folder with a series in "a/ct", two in "b", and none in "c"; chosen in the panel."""
    volume = read_volume(CASE / "image.nii.gz")
    for number, (place, prefix) in enumerate((("a/ct", "one"), ("b", "first"), ("b", "second"))):
        stored = volume.voxels[: 10 + number].astype(np.int16)
        write_series(tmp_path / place, stored, OBLIQUE if prefix == "second" else volume.geometry.affine, prefix=prefix)
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "notes.txt").write_text("nothing to see here")
    panel.ui.folderEdit.currentPath = str(tmp_path)
    return tmp_path


def go_on(panel) -> None:
    """Press Next and wait until it is over."""
    panel.ui.nextButton.click()
    wait(lambda: panel.ui.nextButton.enabled)


def slices_of(panel) -> int:
    return panel.editor.sourceVolumeNode().GetImageData().GetDimensions()[2]


def test_each_series_of_a_folder_is_an_image_after_the_files(panel, folder, monkeypatch):
    from AIAssistLib.auto_segment import modality_of

    def load(path):  # as Slicer's own, which no test has
        raise RuntimeError(f"Failed to load node from file: {path}")

    monkeypatch.setattr(slicer.util, "loadVolume", load)
    (folder / "a.nii.gz").write_bytes(b"no image")
    go_on(panel)
    assert panel.ui.saveLabel.text.startswith("a.nii.gz cannot be loaded as an image; press Next image again")
    seen = []
    for _ in range(3):
        go_on(panel)
        seen.append(slices_of(panel))
        node = panel.editor.sourceVolumeNode()
        assert modality_of(node) == "CT" and not panel.ui.cancelNextButton.isVisible()
    assert seen[0] == 10 and sorted(seen[1:]) == [11, 12]
    go_on(panel)
    assert panel.ui.saveLabel.text == "That was the last image of the folder."
    assert panel.editor.sourceVolumeNode() is node


def test_voxels_and_geometry_are_those_of_the_files(panel, folder):
    wanted = read_volume(folder / "a" / "ct")
    go_on(panel)
    study = study_of(panel.editor.sourceVolumeNode())
    assert study.study_id == wanted.study_id
    assert panel.editor.sourceVolumeNode().GetName() == "ct"


def test_its_headers_are_saved_with_its_ground_truth(panel, homes, folder, case):
    wanted = read_volume(folder / "a" / "ct")
    go_on(panel)
    case.node, case.segmentation = panel.editor.sourceVolumeNode(), panel.editor.segmentationNode()
    add_segment(case, "spleen", np.ones((10, *case.labels.shape[1:]), bool))
    panel.ui.saveButton.click()
    wait(lambda: "Saved: spleen" in panel.ui.saveLabel.text)
    assert "without DICOM headers" not in panel.ui.saveLabel.text
    with GroundTruthStore(homes.folder / "computer") as store:
        assert store.series(wanted.study_id) == wanted.dicom


def test_a_multi_frame_file_is_an_image_whose_header_is_saved_and_whose_segments_go_back(
    panel, homes, folder, case, tmp_path
):
    write_frames(folder / "b", folder / "c" / "enhanced.dcm", prefix="first")
    for name in ("a", "b"):
        shutil.rmtree(folder / name)
    wanted = read_volume(folder / "c" / "enhanced.dcm")
    go_on(panel)
    case.node, case.segmentation = panel.editor.sourceVolumeNode(), panel.editor.segmentationNode()
    assert study_of(case.node).study_id == wanted.study_id and case.node.GetName() == "c 9"
    mask = np.zeros(wanted.shape, bool)
    mask[3:5, 20:40, 30:60] = True
    add_segment(case, "spleen", mask)
    panel.ui.saveButton.click()
    wait(lambda: "Saved: spleen" in panel.ui.saveLabel.text)
    assert "without DICOM headers" not in panel.ui.saveLabel.text
    with GroundTruthStore(homes.folder / "computer") as store:
        assert store.series(wanted.study_id) == wanted.dicom
    panel.exporting.export_to(tmp_path / "labels.dcm")
    wait(lambda: said(panel.ui.saveLabel) == f"Written: {tmp_path / 'labels.dcm'}")
    made = highdicom.seg.segread(tmp_path / "labels.dcm").get_volume(combine_segments=True)
    places = np.argwhere(made.array) @ made.affine[:3, :3].T + made.affine[:3, 3]
    assert {tuple(p) for p in np.rint(wanted.geometry.to_ijk(places)).astype(int)} == {
        tuple(p[::-1]) for p in np.argwhere(mask)
    }


def test_files_that_are_gone_are_said_when_labels_are_saved(panel, folder, case):
    go_on(panel)
    case.node, case.segmentation = panel.editor.sourceVolumeNode(), panel.editor.segmentationNode()
    slicer.util.arrayFromVolume(case.node)[:] += 1  # a study that nobody keeps the headers of
    slicer.util.arrayFromVolumeModified(case.node)
    add_segment(case, "spleen", np.ones((10, *case.labels.shape[1:]), bool))
    for path in (folder / "a" / "ct").iterdir():
        path.unlink()
    panel.ui.saveButton.click()
    wait(lambda: "Saved: spleen" in panel.ui.saveLabel.text)
    assert "(without DICOM headers: " in panel.ui.saveLabel.text and "cannot be read" in panel.ui.saveLabel.text


@pytest.mark.parametrize("size", [200, 1500])
def test_a_damaged_series_is_said_and_passed(panel, folder, size):
    damaged = next((folder / "a" / "ct").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:size])
    before = panel.editor.sourceVolumeNode()
    go_on(panel)
    assert panel.ui.saveLabel.text.startswith("ct cannot be loaded as an image (")
    assert "press Next image again to go past it" in panel.ui.saveLabel.text
    assert panel.editor.sourceVolumeNode() is before
    go_on(panel)
    assert slices_of(panel) in (11, 12)


def test_a_missing_slice_is_said(panel, folder):
    before = panel.editor.sourceVolumeNode()
    files = sorted((folder / "a" / "ct").iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    files[4].unlink()
    go_on(panel)
    assert "not evenly spaced" in panel.ui.saveLabel.text
    assert panel.editor.sourceVolumeNode() is before


def test_reading_can_be_cancelled_and_shows_how_far_it_is(panel, folder, monkeypatch):
    first, told = panel.editor.sourceVolumeNode(), []
    show = panel.images._show_progress

    def watched(share):
        show(share)
        told.append(share)
        if share and share > 0.3:
            assert not panel.ui.cancelNextButton.isHidden() and panel.ui.saveLabel.text == "Loading ct"
            qt.QTimer.singleShot(0, panel.ui.cancelNextButton.click)

    monkeypatch.setattr(panel.images, "_show_progress", watched)
    go_on(panel)
    monkeypatch.undo()
    assert panel.ui.saveLabel.text == "Cancelled; this image stays."
    assert panel.editor.sourceVolumeNode() is first and 0.3 < max(s for s in told if s is not None) < 1
    go_on(panel)
    assert slices_of(panel) == 10


def test_the_event_loop_goes_on_while_a_series_is_looked_for_and_read(panel, folder):
    beats = []
    heart = qt.QTimer()
    heart.connect("timeout()", lambda: beats.append(1))
    heart.start(0)
    with stopping(heart):
        go_on(panel)
    assert len(beats) >= 20


def drained(generator):
    """What a generator returns, and how often it gave a turn."""
    turns = 0
    while True:
        try:
            next(generator)
            turns += 1
        except StopIteration as end:
            return end.value, turns


def images_in(folder: Path) -> list[str]:
    """The names of a folder's images, one after the other."""
    current, seen = None, []
    while (found := drained(after(folder, current))[0]) is not None:
        current = found.files[0]
        seen.append(found.name)
    return seen


def test_files_that_hold_labels_are_no_images_of_a_folder(tmp_path, module):
    images = ["case 1.nii.gz", "img0002.nii.gz", "labelled.mha", "segment.nrrd", "volume-0.nii"]
    labels = ["a.seg.nrrd", "case 1_seg.nii.gz", "label0002.nii.gz", "Labels.nrrd", "segmentation-0.nii", "x-label.mhd"]
    for name in [*images, *labels]:
        (tmp_path / name).write_bytes(b"voxels")
    assert images_in(tmp_path) == sorted(images)


def test_what_was_exported_into_the_folder_of_images_is_none_of_them(panel, case, tmp_path):
    (tmp_path / "ct.nii.gz").write_bytes(b"voxels")
    add_segment(case, "spleen", case.mask("spleen"))
    for name in ("done.nii.gz", "labels.nrrd"):
        panel.exporting.export_to(tmp_path / name)
    assert images_in(tmp_path) == ["ct.nii.gz"]
    panel.exporting.export_to(tmp_path / "ct.nrrd")  # with its legend, the image has the same
    assert images_in(tmp_path) == ["ct.nii.gz", "ct.nrrd"]


def test_folders_before_the_current_image_are_not_looked_into_again(tmp_path, module):
    plane = np.zeros((2, 4, 4), np.int16)
    for name in ("a", "b", "b/inner", "c"):
        write_series(tmp_path / name, plane, np.eye(4), prefix=name[-1])
    (tmp_path / "loop").symlink_to(tmp_path)
    current, seen = None, []
    while (found := drained(after(tmp_path, current))[0]) is not None:
        current = found.files[0]
        seen.append(current.parent.relative_to(tmp_path).as_posix())
    assert seen == ["a", "b", "b/inner", "c"]
    for number in range(50):
        (tmp_path / "a" / f"note {number}").write_text("x")
    assert drained(after(tmp_path, tmp_path / "c" / "nothing"))[1] < 10


@pytest.fixture
def opened(monkeypatch) -> list[Path]:
    """The files whose headers were looked at, to find series."""
    from aiassist.imaging import dicom_listing

    files, look = [], dicom_listing._is_dicom
    monkeypatch.setattr(dicom_listing, "_is_dicom", lambda path: files.append(path) or look(path))
    return files


def test_the_headers_of_a_folder_are_read_once_while_it_stays_as_it_is(panel, folder, opened):
    go_on(panel)
    go_on(panel)
    first = len(opened)
    assert first and slices_of(panel) in (11, 12)
    go_on(panel)
    assert len(opened) == first and slices_of(panel) in (11, 12)
    (folder / "b" / "note").write_text("x")
    go_on(panel)
    assert panel.ui.saveLabel.text == "That was the last image of the folder."
    assert len(opened) > first


def test_headers_are_read_again_after_an_image_that_is_damaged_and_for_the_first(panel, folder, opened):
    def looked_at() -> int:
        return sum(path.parent.name == "ct" for path in opened)

    damaged = next((folder / "a" / "ct").iterdir())
    whole = damaged.read_bytes()
    damaged.write_bytes(whole[:1500])
    go_on(panel)
    assert panel.ui.saveLabel.text.startswith("ct cannot be loaded") and looked_at() == 10
    damaged.write_bytes(whole)  # in its place: the folder has the same files as before
    go_on(panel)
    assert slices_of(panel) in (11, 12) and looked_at() == 20
    for times in (30, 40):
        panel.ui.firstButton.click()
        wait(lambda: panel.ui.nextButton.enabled)
        assert slices_of(panel) == 10 and looked_at() == times


@pytest.fixture
def next_day(panel, folder):
    """Called: Slicer starts again with the same folder, and nothing is loaded yet but an image from elsewhere."""

    def begin():
        panel.editor.setSourceVolumeNode(None)
        slicer.mrmlScene.Clear(0)
        panel.images._damaged = (None, None)
        panel.editor.setSourceVolumeNode(slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), name="other"))

    return begin


LEFT = "You go on where you left this folder; First image begins anew."


def test_the_next_day_goes_on_with_the_image_that_was_not_saved_and_after_one_that_was(panel, folder, next_day, case):
    for _ in range(2):
        go_on(panel)
    second = slices_of(panel)
    assert second in (11, 12)
    next_day()
    go_on(panel)
    assert slices_of(panel) == second and panel.ui.saveLabel.text == LEFT
    case.node, case.segmentation = panel.editor.sourceVolumeNode(), panel.editor.segmentationNode()
    voxels = np.zeros((second, *case.labels.shape[1:]), bool)
    voxels[3:5, 20:30, 20:40] = True
    add_segment(case, "spleen", voxels)
    panel.ui.saveButton.click()
    wait(lambda: "Saved" in panel.ui.saveLabel.text)
    next_day()
    go_on(panel)
    assert slices_of(panel) == 23 - second and panel.ui.saveLabel.text == LEFT
    panel.ui.firstButton.click()
    wait(lambda: panel.ui.nextButton.enabled)
    assert slices_of(panel) == 10 and panel.ui.saveLabel.text == ""
    next_day()
    go_on(panel)
    assert slices_of(panel) == 10


def test_a_folder_is_left_and_gone_on_with_apart_from_others(panel, folder, next_day, tmp_path):
    go_on(panel)
    go_on(panel)
    second = slices_of(panel)
    next_day()
    panel.ui.folderEdit.currentPath = str(folder / "a")
    go_on(panel)
    assert slices_of(panel) == 10 and panel.ui.saveLabel.text == ""
    panel.ui.folderEdit.currentPath = str(folder)
    next_day()
    go_on(panel)
    assert slices_of(panel) == second


def test_an_image_of_a_folder_that_has_labels_says_so(panel, homes, folder):
    volume = read_volume(folder / "a" / "ct")
    mask = np.zeros(volume.shape, bool)
    mask[2:4, 5:9, 7:8] = True
    with GroundTruthStore(homes.folder / "computer") as store:
        store.add_study(volume, "ct")
        store.add(volume.study_id, "cyst", MaskPatch.of_mask(mask), author="bob")
    go_on(panel)
    wait(lambda: panel.ui.saveLabel.text == "ct has labels already; press Load latest labels to see them.")
    assert "cyst" in [panel.ui.historyTable.item(n, 0).text() for n in range(panel.ui.historyTable.rowCount)]
    panel.ui.latestButton.click()
    wait(lambda: "Loaded: " in panel.ui.saveLabel.text)
    assert segment_named(panel.editor.segmentationNode(), "cyst")


@pytest.mark.parametrize(("here", "left"), [("alpha", ["Beta", "Gamma"]), ("Beta", ["Gamma"]), ("Gamma", [])])
def test_folders_come_by_name_whatever_the_case_where_case_does_not_count(here, left, monkeypatch):
    root = PureWindowsPath(r"C:\scans")
    inner = {root: ["Beta", "alpha", "Gamma"]}

    def entries(folder):
        return [SimpleNamespace(path=str(folder / n), is_dir=lambda **_: True) for n in inner.get(folder, [])]

    monkeypatch.setattr(worklist, "Path", PureWindowsPath)
    monkeypatch.setattr(worklist, "_entries", entries)
    assert [folder.name for folder in worklist._folders(root, root / here)] == [here, *left]
