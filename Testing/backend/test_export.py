"""Ground truth leaves the store as labelmaps, Slicer segmentations and DICOM SEG, unchanged."""

from __future__ import annotations

import random

import highdicom
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from groundtruth_helpers import SHAPE, random_volume, store_with_study, unfinished_files
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from aiassist.cli import main
from aiassist.errors import AIAssistError, StoreError
from aiassist.groundtruth import GroundTruthStore
from aiassist.groundtruth.export import export
from aiassist.imaging import (
    DicomSeries,
    Geometry,
    MaskPatch,
    Volume,
    describe_structure,
    read_labelmap,
    read_volume,
    write_volume,
)
from aiassist.imaging.dicom_seg import Segment, write_dicom_seg


def box(start, stop, shape=SHAPE) -> np.ndarray:
    """A mask that is a box of voxels (k, j, i)."""
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


SPLEEN, LIVER = box((1, 2, 3), (4, 6, 8)), box((5, 2, 3), (8, 9, 12))
OVERLAPPING = box((3, 5, 7), (6, 10, 12))


@pytest.fixture
def store(tmp_path):
    store, study = store_with_study(tmp_path / "studies")
    store.add(study.id, "spleen", MaskPatch.of_mask(SPLEEN), author="ann")
    store.add(study.id, "liver", MaskPatch.of_mask(LIVER), author="ann")
    with store:
        yield store


def versions_of(store, *structures):
    study = store.study("torso")
    return study, [store.version(study.id, name) for name in structures]


# Labelmaps and Slicer segmentations


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nrrd", "out.mha", "OUT.NII.GZ"])
def test_a_labelmap_lies_on_the_images_grid_with_values_in_order(store, tmp_path, name):
    study, versions = versions_of(store, "liver", "spleen")
    export(store, study, versions, tmp_path / name)
    labelmap = read_labelmap(tmp_path / name, like=random_volume())
    assert labelmap.voxels.dtype == np.uint8
    assert (labelmap.voxels == np.where(LIVER, 1, np.where(SPLEEN, 2, 0))).all()


@pytest.mark.parametrize("ending", ["nii.gz", "nrrd", "mha"])
def test_an_oblique_grid_survives_the_export(tmp_path, ending):
    a, b = np.cos(0.4), np.sin(0.4)
    grid = Geometry.from_spacing(SHAPE, (0.5, 1.25, 3), (-7, 8, 9), [[a, -b, 0], [b, a, 0], [0, 0, -1]])
    with GroundTruthStore(tmp_path / "studies") as store:
        study = store.add_study(random_volume(0, grid), "oblique")
        version = store.add(study.id, "spleen", MaskPatch.of_mask(SPLEEN), author="ann")
        export(store, study, [version], tmp_path / f"out.{ending}")
    labelmap = read_labelmap(tmp_path / f"out.{ending}")
    assert labelmap.geometry.same_grid(grid)
    assert (labelmap.voxels == SPLEEN).all()


def test_a_slicer_segmentation_names_each_segment(store, tmp_path):
    study, versions = versions_of(store, "spleen", "liver")
    export(store, study, versions, tmp_path / "out.seg.nrrd")
    image = sitk.ReadImage(str(tmp_path / "out.seg.nrrd"))
    assert (sitk.GetArrayFromImage(image) == np.where(SPLEEN, 1, np.where(LIVER, 2, 0))).all()
    fields = {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}
    for n, name, code, extent in ((0, "spleen", "78961009", "3 7 2 5 1 3"), (1, "liver", "10200004", "3 11 2 8 5 7")):
        assert fields[f"Segment{n}_Name"] == name
        assert fields[f"Segment{n}_LabelValue"] == str(n + 1)
        assert fields[f"Segment{n}_Extent"] == extent
        assert f"SCT^{code}^" in fields[f"Segment{n}_Tags"]
    assert fields["Segment0_ID"] != fields["Segment1_ID"]
    assert "Segment2_Name" not in fields


def test_more_than_255_structures_get_two_bytes_a_voxel(tmp_path):
    store, study = store_with_study(tmp_path / "studies")
    places = [np.unravel_index(n, SHAPE) for n in range(260)]
    versions = [
        store.add(study.id, f"dot {n}", MaskPatch.of_mask(box(p, np.add(p, 1))), author="ann")
        for n, p in enumerate(places)
    ]
    export(store, study, versions, tmp_path / "out.nii.gz")
    assert read_labelmap(tmp_path / "out.nii.gz").voxels.ravel()[:261].tolist() == [*range(1, 261), 0]


@pytest.mark.parametrize("name", ["out.nii.gz", "out.nrrd", "out.seg.nrrd"])
def test_an_overlap_is_refused_by_both_names_and_leaves_nothing(store, tmp_path, name):
    study = store.study("torso")
    store.add(study.id, "stomach", MaskPatch.of_mask(OVERLAPPING), author="ann")
    _, versions = versions_of(store, "spleen", "liver", "stomach")
    with pytest.raises(StoreError, match=r"'stomach' overlaps '(spleen|liver)'"):
        export(store, study, versions, tmp_path / name)
    assert not (tmp_path / name).exists()
    assert unfinished_files(tmp_path) == []


@pytest.mark.parametrize("name", ["out.txt", "out", "out.png", "no/such/folder/out.nrrd", "no/folder/out.seg.nrrd"])
def test_a_file_that_cannot_be_written_is_refused_by_its_name(store, tmp_path, name):
    study, versions = versions_of(store, "spleen")
    with pytest.raises((AIAssistError, OSError), match=name.split("/")[-1]) as caught:
        export(store, study, versions, tmp_path / name)
    assert ".unfinished" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["studies"]


def test_a_failed_export_leaves_the_earlier_file_as_it_was(store, tmp_path):
    study, versions = versions_of(store, "spleen")
    path = tmp_path / "out.nii.gz"
    export(store, study, versions, path)
    before = path.read_bytes()
    versions[0].path.write_bytes(b"no longer a label")
    with pytest.raises(AIAssistError):
        export(store, study, versions, path)
    assert path.read_bytes() == before
    assert unfinished_files(tmp_path) == []


def test_nothing_to_export_is_said(store, tmp_path):
    with pytest.raises(StoreError, match="'torso' has no labels to export"):
        export(store, store.study("torso"), [], tmp_path / "out.nrrd")


def test_an_empty_label_is_exported_as_such(store, tmp_path):
    study = store.study("torso")
    empty = store.add(study.id, "gallbladder", MaskPatch.empty(), author="ann")
    export(store, study, [empty, store.version(study.id, "spleen")], tmp_path / "out.seg.nrrd")
    assert (read_volume(tmp_path / "out.seg.nrrd").voxels == 2 * SPLEEN).all()


# DICOM SEG

SLICES, ROWS, COLUMNS = 12, 20, 24
DICOM_SHAPE = (SLICES, ROWS, COLUMNS)
KIDNEY = box((2, 3, 4), (9, 12, 15), DICOM_SHAPE)
LESION = box((5, 8, 10), (11, 16, 20), DICOM_SHAPE)


def write_series(folder, anonymised: bool = False) -> list[pydicom.Dataset]:
    """An oblique CT series of shuffled, numbered files; returns the slices by position."""
    folder.mkdir()
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    angle = np.radians(15)
    row, column = np.array([np.cos(angle), np.sin(angle), 0]), np.array([-np.sin(angle), np.cos(angle), 0])
    rng = np.random.default_rng(0)
    names = random.Random(3).sample(range(SLICES), SLICES)
    slices = []
    for n, name in enumerate(names):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, generate_uid()
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        image = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        image.SOPClassUID, image.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
        image.StudyInstanceUID, image.SeriesInstanceUID, image.FrameOfReferenceUID = study, series, frame
        image.PatientID, image.PatientName, image.PatientSex = "P-42", "Doe^Jane", "F"
        image.PatientBirthDate, image.AccessionNumber, image.StudyID = "19700101", "A-7", "S-1"
        image.StudyDate, image.StudyTime, image.ReferringPhysicianName = "20240102", "101112", ""
        image.Modality, image.SeriesNumber, image.InstanceNumber = "CT", 4, n + 1
        image.Manufacturer, image.PositionReferenceIndicator = "Synthetic", ""
        image.ImageOrientationPatient = [*row, *column]
        image.ImagePositionPatient = [-50.0, -60.0, 100.0 + 2.5 * n]
        image.PixelSpacing, image.SliceThickness = [0.8, 0.9], 2.5
        image.Rows, image.Columns, image.SamplesPerPixel = ROWS, COLUMNS, 1
        image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 1
        image.BitsAllocated, image.BitsStored, image.HighBit = 16, 16, 15
        image.RescaleSlope, image.RescaleIntercept = 1, -1024
        image.PixelData = rng.integers(0, 2000, (ROWS, COLUMNS)).astype("<i2").tobytes()
        if anonymised:
            image.StudyInstanceUID = image.SeriesInstanceUID = image.SOPInstanceUID = ""
            image.PatientID = image.PatientName = ""
            del image.AccessionNumber, image.PatientBirthDate
        image.save_as(folder / f"{name:03d}.dcm")
        slices.append(image)
    return slices


def add_label(tmp_path, structure: str, mask: np.ndarray, *arguments: str) -> None:
    """``truth add`` a mask that lies on the series' grid."""
    volume = read_volume(tmp_path / "series")
    write_volume(tmp_path / "label.nrrd", Volume(mask.astype(np.uint8), volume.geometry))
    places = ["--studies", str(tmp_path / "studies"), str(tmp_path / "series"), str(tmp_path / "label.nrrd")]
    assert main(["truth", "add", *places, "--study-name", "ct", "--name", structure, *arguments]) == 0


def export_seg(tmp_path, *arguments: str):
    """``truth export`` to DICOM SEG and read it back by highdicom."""
    out = tmp_path / "out.dcm"
    assert main(["truth", "export", "--studies", str(tmp_path / "studies"), "ct", "-o", str(out), *arguments]) == 0
    return highdicom.seg.segread(out)


def masks_by_volume(seg, tmp_path) -> np.ndarray:
    """The segments' voxels on the series' own grid (k, j, i, segment), placed by position in the patient."""
    geometry = read_volume(tmp_path / "series").geometry
    found = seg.get_volume()
    masks = np.zeros((*geometry.shape, found.array.shape[-1]), bool)
    for index in np.argwhere(found.array):
        lps = found.affine[:3, :3] @ index[:3] + found.affine[:3, 3]
        i, j, k = geometry.to_ijk([lps])[0]
        assert np.abs([i - round(i), j - round(j), k - round(k)]).max() < 1e-3
        masks[round(k), round(j), round(i), index[3]] = True
    return masks


@pytest.fixture
def series(tmp_path):
    return write_series(tmp_path / "series")


def test_dicom_seg_holds_the_same_voxels_in_the_patient(series, tmp_path):
    add_label(tmp_path, "kidney_right", KIDNEY)
    masks = masks_by_volume(export_seg(tmp_path), tmp_path)
    assert masks.shape[-1] == 1
    assert (masks[..., 0] == KIDNEY).all()


def test_dicom_seg_refers_to_the_slices_it_was_drawn_on(series, tmp_path):
    add_label(tmp_path, "kidney_right", KIDNEY)
    seg = export_seg(tmp_path)
    assert (seg.StudyInstanceUID, seg.PatientID) == (series[0].StudyInstanceUID, "P-42")
    assert seg.FrameOfReferenceUID == series[0].FrameOfReferenceUID
    assert str(seg.PatientName) == "Doe^Jane"
    assert seg.SeriesInstanceUID != series[0].SeriesInstanceUID
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == series[0].SeriesInstanceUID
    instances = {r.ReferencedSOPInstanceUID for r in referenced.ReferencedInstanceSequence}
    assert instances <= {s.SOPInstanceUID for s in series}
    by_position = {round(float(s.ImagePositionPatient[2]), 3): s.SOPInstanceUID for s in series}
    used = set()
    for frame in seg.PerFrameFunctionalGroupsSequence:
        position = round(float(frame.PlanePositionSequence[0].ImagePositionPatient[2]), 3)
        source = frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        assert source == by_position[position]
        used.add(source)
    assert used == {series[k].SOPInstanceUID for k in range(2, 9)}


def test_dicom_seg_says_what_the_segments_are_and_how_they_were_made(series, tmp_path):
    add_label(tmp_path, "kidney_right", KIDNEY, "--model", "geodesic", "--model-version", "1")
    add_label(tmp_path, "spleen", LESION & ~KIDNEY)
    add_label(tmp_path, "Back\\slash", box((0, 0, 0), (1, 2, 2), DICOM_SHAPE))
    seg = export_seg(tmp_path, "--structure", "kidney_right", "--structure", "spleen", "--structure", "back\\slash")
    kidney, spleen, odd = seg.SegmentSequence
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["kidney_right", "spleen", "Back/slash"]
    assert [s.SegmentAlgorithmType for s in seg.SegmentSequence] == ["SEMIAUTOMATIC", "MANUAL", "MANUAL"]
    assert kidney.SegmentAlgorithmName == "geodesic"
    for segment in seg.SegmentSequence:  # the colours survive CIELab's 16 bits
        colour = highdicom.color.CIELabColor.from_dicom_value(segment.RecommendedDisplayCIELabValue).to_rgb()
        assert colour == pytest.approx(describe_structure(segment.SegmentLabel.replace("/", "\\")).colour, abs=1)
    algorithm = kidney.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmVersion, algorithm.AlgorithmFamilyCodeSequence[0].CodeValue) == ("1", "123110")
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator, kind.CodeMeaning) == ("64033007", "SCT", "Kidney")
    side = kind.SegmentedPropertyTypeModifierCodeSequence[0]
    assert (side.CodeValue, side.CodingSchemeDesignator, side.CodeMeaning) == ("24028007", "SCT", "Right")
    kind = spleen.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, "SegmentedPropertyTypeModifierCodeSequence" in kind) == ("78961009", False)
    assert odd.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"


def test_dicom_seg_tells_findings_from_anatomy(series, tmp_path):
    for structure in ("kidney_right", "lesion", "unheard of"):
        add_label(tmp_path, structure, KIDNEY)
    categories = [s.SegmentedPropertyCategoryCodeSequence[0] for s in export_seg(tmp_path).SegmentSequence]
    assert [(c.CodeValue, c.CodeMeaning) for c in categories] == [
        ("123037004", "Anatomical Structure"),
        ("49755003", "Morphologically Altered Structure"),
        ("85756007", "Tissue"),
    ]


def test_dicom_seg_keeps_overlapping_segments_whole(series, tmp_path):
    assert (KIDNEY & LESION).any()
    add_label(tmp_path, "kidney_right", KIDNEY)
    add_label(tmp_path, "lesion", LESION)
    masks = masks_by_volume(export_seg(tmp_path), tmp_path)
    assert (masks[..., 0] == KIDNEY).all()
    assert (masks[..., 1] == LESION).all()


def test_overlapping_segments_that_would_take_too_much_memory_are_refused_in_a_sentence(series, tmp_path, monkeypatch):
    volume = read_volume(tmp_path / "series")
    masks = {name: MaskPatch.of_mask(mask) for name, mask in (("kidney", KIDNEY), ("lesion", LESION))}
    segments = [Segment(describe_structure(name), mask, name) for name, mask in masks.items()]
    monkeypatch.setattr("aiassist.imaging.dicom_seg.OVERLAPS", 2 * KIDNEY.size)
    write_dicom_seg(tmp_path / "out.dcm", volume, segments)
    monkeypatch.setattr("aiassist.imaging.dicom_seg.OVERLAPS", 2 * KIDNEY.size - 1)
    with pytest.raises(StoreError, match=r"Some of the 2 structures overlap, .*; export fewer at a time"):
        write_dicom_seg(tmp_path / "more.dcm", volume, segments)
    write_dicom_seg(tmp_path / "less.dcm", volume, segments[:1])
    assert not (tmp_path / "more.dcm").exists() and (tmp_path / "less.dcm").exists()


def _changed(tmp_path, **change) -> None:
    """Change all headers of the written series."""
    for path in (tmp_path / "series").iterdir():
        image = pydicom.dcmread(path)
        for name, value in change.items():
            setattr(image, name, value)
        image.save_as(path)


def test_dicom_seg_keeps_names_that_the_patients_character_set_lacks(series, tmp_path):
    _changed(tmp_path, SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Änne")
    add_label(tmp_path, "脾脏", KIDNEY)
    seg = export_seg(tmp_path)
    assert (str(seg.PatientName), seg.SegmentSequence[0].SegmentLabel) == ("Müller^Änne", "脾脏")


def test_a_series_whose_values_cannot_be_written_is_refused_in_a_sentence(series, tmp_path, caplog, recwarn):
    volume = read_volume(tmp_path / "series")
    headers = [{**header, "001021C0": {"vr": "US", "Value": [2**40]}} for header in volume.dicom.headers]
    segment = Segment(describe_structure("spleen"), MaskPatch.of_mask(KIDNEY), "spleen v1")
    recwarn.clear()
    caplog.clear()
    with pytest.raises(StoreError, match=r"out.dcm: the series cannot carry a DICOM SEG \([^\n]+\); export"):
        write_dicom_seg(tmp_path / "out.dcm", volume.with_dicom(DicomSeries(tuple(headers))), [segment])
    assert not (tmp_path / "out.dcm").exists() and caplog.text == "" and not recwarn.list


def test_dicom_seg_of_an_older_version(series, tmp_path):
    add_label(tmp_path, "lesion", KIDNEY)
    add_label(tmp_path, "lesion", LESION)
    assert (masks_by_volume(export_seg(tmp_path), tmp_path)[..., 0] == LESION).all()
    seg = export_seg(tmp_path, "--structure", "lesion", "--version", "1")
    assert (masks_by_volume(seg, tmp_path)[..., 0] == KIDNEY).all()


def test_a_series_emptied_by_anonymisation_still_gives_a_valid_dicom_seg(tmp_path):
    slices = write_series(tmp_path / "series", anonymised=True)
    add_label(tmp_path, "kidney_right", KIDNEY)
    seg = export_seg(tmp_path)
    assert (masks_by_volume(seg, tmp_path)[..., 0] == KIDNEY).all()
    assert seg.StudyInstanceUID and seg.ReferencedSeriesSequence[0].SeriesInstanceUID
    sources = [
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for frame in seg.PerFrameFunctionalGroupsSequence
    ]
    assert set(sources) == {slices[k].file_meta.MediaStorageSOPInstanceUID for k in range(2, 9)}
    again = export_seg(tmp_path)
    assert again.StudyInstanceUID == seg.StudyInstanceUID  # made up once, so both go to one study


def test_a_study_without_dicom_cannot_become_dicom_seg(store, tmp_path, capsys):
    out = tmp_path / "out.dcm"
    arguments = ["truth", "export", "--studies", str(store.folder), "torso", "--structure", "spleen", "-o", str(out)]
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "aiassist: out.dcm: this study did not come from DICOM, so it cannot go back as DICOM SEG.\n"
    )
    assert not out.exists() and unfinished_files(tmp_path) == []


def test_an_empty_label_among_others_does_not_spoil_the_dicom_seg(series, tmp_path):
    add_label(tmp_path, "kidney_right", KIDNEY)
    with GroundTruthStore(tmp_path / "studies") as store:
        store.add(store.study("ct").id, "lesion", MaskPatch.empty(), author="ann")
    masks = masks_by_volume(export_seg(tmp_path), tmp_path)
    assert (masks[..., 0] == KIDNEY).all()


def test_an_empty_label_alone_becomes_an_empty_segment(series, tmp_path):
    add_label(tmp_path, "kidney_right", KIDNEY)
    with GroundTruthStore(tmp_path / "studies") as store:
        store.add(store.study("ct").id, "kidney_right", MaskPatch.empty(), author="ann")
    seg = export_seg(tmp_path)
    assert [s.SegmentLabel for s in seg.SegmentSequence] == ["kidney_right"]
    assert not masks_by_volume(seg, tmp_path).any()


def test_an_unknown_ending_is_refused_with_the_known_ones(store, tmp_path):
    study, versions = versions_of(store, "spleen")
    with pytest.raises(StoreError, match=r"a\.stl has no known ending; use \.seg\.nrrd, \.dcm .*\.nii\.gz"):
        export(store, study, versions, tmp_path / "a.stl")
    assert not (tmp_path / "a.stl").exists()
