"""An image from Slicer's DICOM database: its headers go with its ground truth, its segments go back as DICOM SEG."""

from __future__ import annotations

from pathlib import Path

import highdicom
import numpy as np
import pytest
import qt
import slicer
from dicom_series import write_series

from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import MaskPatch, read_volume
from aiassist.imaging.dicom_header import read_header
from AIAssistLib import dicom_headers
from AIAssistLib.console import new_segmentation
from AIAssistLib.dicom_headers import UIDS
from AIAssistLib.segments import write_plainly
from AIAssistLib.server_worklist import show
from AIAssistLib.structures import terminology_of
from helpers import CASE, add_segment, answered, click_ends, said, wait
from homes import NAMES
from shell.dicom import load_series, series_in

LIVER_LESION = (
    "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure~"
    "SCT^4147007^Mass~^^~Anatomic codes - DICOM master list~SCT^10200004^Liver~^^"
)


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    """The bundled CT as a DICOM series."""
    return written(tmp_path_factory.mktemp("dicom") / "ct")


def written(folder: Path, change: int = 0) -> Path:
    volume = read_volume(CASE / "image.nii.gz")
    write_series(folder, volume.voxels.astype(np.int16) + change, volume.geometry.affine)
    return folder


@pytest.fixture
def ct(panel, case, folder):
    """The panel's case, loaded from the DICOM database."""
    return loaded(panel, case, folder)


def loaded(panel, case, folder: Path):
    """Load a series in place of the panel's case."""
    case.node = load_series(folder, "CT 4: thorax")
    case.segmentation = new_segmentation(case.node)
    case.series = series_in(folder)
    panel.editor.setSegmentationNode(case.segmentation)
    panel.editor.setSourceVolumeNode(case.node)
    show(case.node)
    return case


def save(panel) -> str:
    """Save as ground truth; what the panel says then."""
    panel.ui.saveLabel.setText("")
    panel.ui.saveButton.click()
    wait(lambda: panel.ui.saveLabel.text not in ("", "Saving") and panel.ui.saveButton.enabled)
    return panel.ui.saveLabel.text


def export(panel, path: Path):
    """Export as DICOM SEG and read it back."""
    panel.exporting.export_to(path)
    wait(lambda: not panel.ui.saveLabel.text.startswith("Writing"))
    assert said(panel.ui.saveLabel) == f"Written: {path}"
    return highdicom.seg.segread(path)


def masks_of(seg, series) -> np.ndarray:
    """The file's segments (k, j, i, segment) on the slices that its frames name."""
    order = [header["00080018"]["Value"][0] for header in series.dicom.headers]
    masks, shared = np.zeros((*series.shape, len(seg.SegmentSequence)), bool), seg.SharedFunctionalGroupsSequence[0]
    pixels = seg.pixel_array.reshape(-1, *series.shape[1:])
    for frame, plane in zip(seg.PerFrameFunctionalGroupsSequence, pixels, strict=True):
        said = frame if "SegmentIdentificationSequence" in frame else shared
        number = said.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        masks[order.index(source), :, :, number - 1] |= plane > 0
    return masks


# Headers with the ground truth


@pytest.mark.parametrize("home", NAMES)
def test_what_is_saved_carries_the_headers_of_its_series(home, panel, homes, ct):
    homes.use(panel.logic.assistant, home)
    add_segment(ct, "spleen", ct.mask("spleen"))
    assert save(panel).startswith("Saved: spleen (version ")
    assert "headers" not in panel.ui.saveLabel.text
    with GroundTruthStore(homes.folder / home) as store:
        assert store.series(ct.series.study_id) == ct.series.dicom
        assert store.volume(ct.series.study_id).study_id == ct.series.study_id


@pytest.mark.parametrize("home", NAMES)
@pytest.mark.parametrize("goes", ["image", "scene"])
def test_labels_are_saved_though_the_image_goes_while_its_headers_are_read(
    goes, home, panel, homes, case, tmp_path, monkeypatch
):
    homes.use(panel.logic.assistant, home)
    loaded(panel, case, written(tmp_path / "ct", change=10 + NAMES.index(home) + 3 * (goes == "scene")))
    node, calls = case.node, []

    def read(path):
        calls.append(path)
        if len(calls) == 3:
            slicer.mrmlScene.RemoveNode(node) if goes == "image" else slicer.mrmlScene.Clear(0)
        return read_header(path)

    monkeypatch.setattr(dicom_headers, "read_header", read)
    add_segment(case, "spleen", case.mask("spleen"))
    said = save(panel)
    assert said.startswith("Saved: spleen (version ") and node.GetScene() is None
    conversations = panel.logic.assistant.conversations
    assert not conversations.knows(case.series.study_id) and not conversations.keeper.knows(case.series.study_id)
    with GroundTruthStore(homes.folder / home) as store:
        assert store.series(case.series.study_id) == case.series.dicom


def test_headers_stay_here_until_something_is_saved(panel, homes, case, tmp_path, points, slice_views):
    homes.use(panel.logic.assistant, "server")
    loaded(panel, case, written(tmp_path / "ct", change=1))
    panel.editor.setCurrentSegmentID(add_segment(case, "spleen"))
    panel.points()
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    conversations, study = panel.logic.assistant.conversations, case.series.study_id
    assert conversations.knows(study) and not conversations.keeper.said_of_series(study, case.node.GetAttribute(UIDS))
    finish = panel.logic.assistant.home.finish
    assert finish(conversations.series(study, case.series.geometry)) is None
    points.ui.acceptButton.click()
    save(panel)
    assert finish(conversations.series(study, case.series.geometry)) == case.series.dicom


@pytest.mark.parametrize("home", NAMES)
def test_labels_of_a_copy_are_saved_and_the_first_series_stays(home, panel, homes, case, tmp_path):
    homes.use(panel.logic.assistant, home)
    first, second = (written(tmp_path / name, change=2) for name in ("first", "anonymised"))
    loaded(panel, case, first)
    add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    kept = case.series.dicom
    loaded(panel, case, second)
    liver = add_segment(case, "liver")
    for version, structure in enumerate(("liver", "spleen"), 1):
        write_plainly(MaskPatch.of_mask(case.mask(structure)), case.node, case.segmentation, liver)
        said = save(panel)
        assert said.startswith(f"Saved: liver (version {version})")
        assert "(without DICOM headers: This image is kept with the DICOM headers of another series" in said
    with GroundTruthStore(homes.folder / home) as store:
        assert store.series(case.series.study_id) == kept


def test_a_series_that_was_changed_in_slicer_is_saved_without_headers_and_says_so_each_time(panel, ct, monkeypatch):
    ct.node.SetOrigin(*np.add(ct.node.GetOrigin(), [0, 4, 0]))
    add_segment(ct, "spleen", ct.mask("spleen"))
    for _ in range(2):
        said = save(panel)
        assert said.startswith("Saved: spleen (version ")
        assert "the image was moved, turned, cropped or resampled" in said
        monkeypatch.setattr(dicom_headers, "read_header", None)  # no file is read twice


def test_headers_follow_a_volume_whose_slices_were_reversed(panel, ct, tmp_path):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    ct.node.GetIJKToRASMatrix(matrix)
    slicer.vtkMRMLVolumeNode.ReverseSliceOrder(ct.node.GetImageData(), matrix)
    ct.node.SetIJKToRASMatrix(matrix)
    add_segment(ct, "spleen", ct.mask("spleen")[::-1])
    seg = export(panel, tmp_path / "labels.dcm")
    assert (masks_of(seg, ct.series)[..., 0] == ct.mask("spleen")).all()


# DICOM SEG


def test_segments_go_back_as_dicom_seg_voxel_for_voxel(panel, ct, tmp_path):
    for name in ("spleen", "kidney_left"):
        add_segment(ct, name, ct.mask(name))
    add_segment(ct, "empty")
    seg = export(panel, tmp_path / "labels.dcm")
    masks, first = masks_of(seg, ct.series), ct.series.dicom.headers[0]
    assert (masks[..., 0] == ct.mask("spleen")).all()
    assert (masks[..., 1] == ct.mask("kidney_left")).all()
    assert (seg.PatientID, str(seg.PatientName)) == ("P-17", "Doe^Jane")
    assert (seg.StudyInstanceUID, seg.SeriesInstanceUID == ct.series.dicom.series_uid) == (
        ct.series.dicom.study_uid,
        False,
    )
    assert seg.FrameOfReferenceUID == first["00200052"]["Value"][0]
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == ct.series.dicom.series_uid
    assert {r.ReferencedSOPInstanceUID for r in referenced.ReferencedInstanceSequence} == set(
        ct.node.GetAttribute(UIDS).split()
    )
    for frame in seg.PerFrameFunctionalGroupsSequence:
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        (header,) = [h for h in ct.series.dicom.headers if h["00080018"]["Value"] == [source]]
        assert frame.PlanePositionSequence[0].ImagePositionPatient == pytest.approx(header["00200032"]["Value"])


def test_the_file_says_what_slicer_says_the_segments_are(panel, ct, tmp_path):
    kidney, lesion, plain = (add_segment(ct, name, ct.mask("spleen")) for name in ("kidney_left", "lesion 1", "thing"))
    segments = ct.segmentation.GetSegmentation()
    segments.GetSegment(kidney).SetTag("AIAssist.Model", "network 1")
    segments.GetSegment(lesion).SetTag(segments.GetSegment(lesion).GetTerminologyEntryTagName(), LIVER_LESION)
    segments.GetSegment(lesion).SetColor(1, 0.5, 0)
    seg = export(panel, tmp_path / "labels.dcm")
    said = list(seg.SegmentSequence)
    assert [s.SegmentLabel for s in said] == ["kidney_left", "lesion 1", "thing"]
    assert [s.SegmentAlgorithmType for s in said] == ["SEMIAUTOMATIC", "MANUAL", "MANUAL"]
    codes = [
        (s.SegmentedPropertyCategoryCodeSequence[0].CodeValue, s.SegmentedPropertyTypeCodeSequence[0].CodeMeaning)
        for s in said
    ]
    assert codes == [("123037004", "Kidney"), ("49755003", "Mass"), ("85756007", "Tissue")]
    side = said[0].SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodeMeaning) == ("7771000", "Left")
    assert said[1].AnatomicRegionSequence[0].CodeMeaning == "Liver"
    assert "AnatomicRegionSequence" not in said[2]
    for segment_id, one in zip((kidney, lesion, plain), said, strict=True):
        colour = highdicom.color.CIELabColor.from_dicom_value(one.RecommendedDisplayCIELabValue).to_rgb()
        assert colour == pytest.approx(terminology_of(segments.GetSegment(segment_id)).label.colour, abs=1)


def test_the_button_says_why_there_can_be_no_dicom_seg_before_it_asks_for_a_name(panel, case, monkeypatch):
    asked = []
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *a: asked.append(a) or "")
    panel.ui.exportCombo.setCurrentText("DICOM segmentation")
    other = slicer.util.addVolumeFromArray(case.volume.voxels + 7, ijkToRAS=case.to_world, name="a file")
    panel.editor.setSourceVolumeNode(other)
    panel.ui.exportButton.click()
    wait(lambda: "DICOM database" in panel.ui.saveLabel.text)
    assert panel.ui.saveLabel.text == (
        "'a file' did not come from Slicer's DICOM database, so nothing says whose it is; import its series in the "
        "module DICOM and load it from there."
    )
    assert asked == []


def test_each_export_names_its_segments_anew(panel, ct, tmp_path):
    for _ in range(2):
        add_segment(ct, "spleen" * 20, ct.mask("spleen"))
    files = [export(panel, tmp_path / name) for name in ("a.dcm", "b.dcm")]
    names = [segment.TrackingID for seg in files for segment in seg.SegmentSequence]
    assert len(set(names)) == 4 and all("spleenspleen" in name for name in names)


def test_the_button_asks_for_a_name_where_there_are_headers_and_reads_each_once(panel, ct, monkeypatch, tmp_path):
    read = []
    monkeypatch.setattr(dicom_headers, "read_header", lambda path: read.append(path) or read_header(path))
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *a: str(tmp_path / "labels"))
    add_segment(ct, "spleen", ct.mask("spleen"))
    panel.ui.exportCombo.setCurrentText("DICOM segmentation")
    panel.ui.exportButton.click()
    wait(lambda: said(panel.ui.saveLabel) == f"Written: {tmp_path / 'labels.dcm'}")
    assert len(read) == len(set(read)) == ct.series.shape[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ct: setattr(slicer.dicomDatabase, "_isOpen", False), "database is not open; open the module DICOM"),
        (lambda ct: slicer.dicomDatabase.removeSeries(ct.series.dicom.series_uid), "any more; import its series again"),
        (lambda ct: ct.node.SetSpacing(3, 3, 5), "the image was moved, turned, cropped or resampled"),
        (lambda ct: ct.node.SetAttribute(UIDS, "1.2.3"), "is not in Slicer's DICOM database any more"),
    ],
)
def test_what_stands_against_a_dicom_seg_is_one_sentence(panel, ct, tmp_path, change, said):
    add_segment(ct, "spleen", ct.mask("spleen"))
    change(ct)
    panel.exporting.export_to(tmp_path / "labels.dcm")
    wait(lambda: said in panel.ui.saveLabel.text)
    assert list(tmp_path.iterdir()) == []


def test_nothing_but_empty_segments_is_said(panel, ct, tmp_path):
    panel.exporting.export_to(tmp_path / "labels.dcm")
    wait(lambda: panel.ui.saveLabel.text == "All segments are empty; annotate something before you export.")
    assert list(tmp_path.iterdir()) == []


def test_headers_that_the_backend_keeps_serve_an_image_that_came_without(panel, homes, case, tmp_path):
    homes.use(panel.logic.assistant, "server")
    loaded(panel, case, written(tmp_path / "ct", change=3))
    add_segment(case, "spleen", case.mask("spleen"))
    save(panel)
    case.node.RemoveAttribute(UIDS)
    seg = export(panel, tmp_path / "labels.dcm")
    assert (masks_of(seg, case.series)[..., 0] == case.mask("spleen")).all()
    assert seg.StudyInstanceUID == case.series.dicom.study_uid
