"""Multi-frame DICOM files: read, matched by where their frames lie, kept, and gone back to as DICOM SEG."""

from __future__ import annotations

import io

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import write_frames, write_series

from aiassist.errors import ImageError
from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import DicomSeries, Geometry, MaskPatch, Volume, describe_structure, read_volume
from aiassist.imaging.dicom_header import read_header
from aiassist.imaging.dicom_listing import listing_series
from aiassist.imaging.dicom_seg import Segment, write_dicom_seg
from aiassist.protocol.dicom_lines import line_of, series_from_lines

SHAPE = (7, 20, 16)
ANGLE = np.radians(20)
TURNED = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]])
AFFINE = np.eye(4)
AFFINE[:3, :3], AFFINE[:3, 3] = TURNED * (0.8, 0.9, 2.5), (-50, 12, 30)


@pytest.fixture
def slices(tmp_path) -> Volume:
    """A series of one file a slice."""
    stored = np.random.default_rng(0).integers(-900, 900, SHAPE).astype(np.int16)
    write_series(tmp_path / "slices", stored, AFFINE, 2.0, -1024)
    return read_volume(tmp_path / "slices")


@pytest.fixture
def file(slices, tmp_path):
    """The same as one file, whose frames are shuffled."""
    (tmp_path / "frames").mkdir()
    write_frames(tmp_path / "slices", tmp_path / "frames" / "one.dcm")
    return tmp_path / "frames" / "one.dcm"


def changed(file, change) -> None:
    dataset = pydicom.dcmread(file)
    change(dataset)
    dataset.save_as(file)


@pytest.mark.parametrize("of_folder", [False, True])
def test_it_is_the_image_of_the_slices(slices, file, of_folder):
    volume = read_volume(file.parent if of_folder else file)
    assert volume.study_id == slices.study_id and np.array_equal(volume.voxels, slices.voxels)
    assert np.allclose(volume.geometry.affine, slices.geometry.affine)
    (header,) = volume.dicom.headers
    assert header == read_header(file) and volume.dicom.patient_id == "P-17" and volume.dicom.modality == "CT"


def test_its_header_is_matched_by_where_the_frames_lie(slices, file):
    series = DicomSeries.matched([read_header(file)], slices.geometry)
    places = [np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float) for groups in frames(file)]
    assert series.slices_of_frames(slices.geometry).tolist() == [
        round(float(slices.geometry.to_ijk(place)[0, 2])) for place in places
    ]
    assert sorted(series.slices_of_frames(slices.geometry)) != series.slices_of_frames(slices.geometry).tolist()
    assert slices.dicom.slices_of_frames(slices.geometry) is None
    backwards = slices.geometry.affine @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 6], [0, 0, 0, 1.0]])
    reversed_ = DicomSeries.matched([read_header(file)], Geometry(SHAPE, backwards))
    assert (
        reversed_.slices_of_frames(Geometry(SHAPE, backwards)) == 6 - series.slices_of_frames(slices.geometry)
    ).all()


def frames(file):
    return pydicom.dcmread(file).PerFrameFunctionalGroupsSequence


def test_the_header_of_an_image_that_was_changed_is_refused(slices, file):
    moved = slices.geometry.affine.copy()
    moved[2, 3] += 1
    with pytest.raises(ImageError, match="was moved, turned, cropped or resampled"):
        DicomSeries.matched([read_header(file)], Geometry(SHAPE, moved))
    with pytest.raises(ImageError, match="7 DICOM frames for 6 slices"):
        DicomSeries.matched([read_header(file)], Geometry((6, 20, 16), slices.geometry.affine))


def test_it_travels_and_is_kept_as_one_header(slices, file, tmp_path):
    volume = read_volume(file)
    assert series_from_lines(line_of(volume.dicom.headers[0]), slices.geometry) == volume.dicom
    store = GroundTruthStore(tmp_path / "store")
    assert store.series(store.add_study(volume, "one").id) == volume.dicom


def test_a_segmentation_names_the_frames_that_it_was_drawn_on(file, tmp_path):
    volume, mask = read_volume(file), np.zeros(SHAPE, bool)
    mask[1:3, 4:9, 2:8], mask[5, 10:15, 3:6] = True, True
    both = [Segment(describe_structure(name), MaskPatch.of_mask(mask), name) for name in ("liver", "spleen")]
    for segments in (both[:1], both):  # as a labelmap, and overlapping
        write_dicom_seg(tmp_path / "seg.dcm", volume, segments)
        made = highdicom.seg.segread(io.BytesIO((tmp_path / "seg.dcm").read_bytes()))
        for number, groups in enumerate(made.PerFrameFunctionalGroupsSequence):
            source = groups.DerivationImageSequence[0].SourceImageSequence[0]
            assert source.ReferencedSOPInstanceUID == pydicom.dcmread(file).SOPInstanceUID
            place = groups.PlanePositionSequence[0].ImagePositionPatient
            said = frames(file)[int(source.ReferencedFrameNumber) - 1].PlanePositionSequence[0].ImagePositionPatient
            assert np.allclose(place, said)
            k = round(float(volume.geometry.to_ijk(np.array(place, float))[0, 2]))
            assert np.array_equal(made.pixel_array[number].astype(bool), mask[k])
        assert len(made.PerFrameFunctionalGroupsSequence) == 3 * len(segments)


@pytest.mark.parametrize("said", [None, ""])
def test_a_segmentation_of_frames_that_do_not_say_how_thick_they_are_can_be_read_back(file, tmp_path, said):
    def forget(dataset):
        measures = dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
        del measures.SliceThickness
        if said is not None:
            measures.SliceThickness = said

    changed(file, forget)
    before = file.read_bytes()
    segment = Segment(describe_structure("liver"), MaskPatch.of_mask(np.ones(SHAPE, bool)), "liver")
    write_dicom_seg(tmp_path / "seg.dcm", read_volume(file), [segment])
    made = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SliceThickness == 2.5
    assert file.read_bytes() == before


def without_places(dataset):
    del dataset.PerFrameFunctionalGroupsSequence


def without_a_place(dataset):
    del dataset.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


def of_two_scales(dataset):
    shared = dataset.SharedFunctionalGroupsSequence[0]
    other = pydicom.Dataset.from_json(shared.PixelValueTransformationSequence[0].to_json())
    other.RescaleSlope = 3
    dataset.PerFrameFunctionalGroupsSequence[1].PixelValueTransformationSequence = [other]


def of_two_phases(dataset):
    groups = dataset.PerFrameFunctionalGroupsSequence
    groups[1].PlanePositionSequence = groups[0].PlanePositionSequence


def without_a_frame(dataset):
    groups = dataset.PerFrameFunctionalGroupsSequence
    heights = [float(one.PlanePositionSequence[0].ImagePositionPatient[2]) for one in groups]
    gone = int(np.argsort(heights)[3])
    size = len(dataset.PixelData) // len(groups)
    dataset.PixelData = dataset.PixelData[: gone * size] + dataset.PixelData[(gone + 1) * size :]
    dataset.PerFrameFunctionalGroupsSequence = [one for n, one in enumerate(groups) if n != gone]
    dataset.NumberOfFrames = len(groups) - 1


def cut_off(dataset):
    dataset.PixelData = dataset.PixelData[:-1000]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (without_places, r"one\.dcm does not say where its frames lie; save it as \.nii\.gz"),
        (without_a_place, r"one\.dcm has no ImagePositionPatient of 3 numbers"),
        (of_two_scales, r"The frames of .*one\.dcm are of 2 scales of grey values; save it as"),
        (of_two_phases, r"one\.dcm holds several frames of one place, as of phases or echoes; save it as"),
        (
            without_a_frame,
            r"in .*one\.dcm are not evenly spaced \(frame \d and frame \d lie 5\.00 mm apart, others 2\.50 mm\): some",
        ),
        (cut_off, r"one\.dcm is a damaged DICOM file; copy it again"),
    ],
)
def test_a_file_that_is_no_image_of_one_place_is_refused(file, change, said):
    changed(file, change)
    with pytest.raises(ImageError, match=said):
        read_volume(file)


def test_each_file_of_a_series_is_an_image_of_its_own(file, tmp_path):
    (file.parent / "two.dcm").write_bytes(file.read_bytes())
    listing = listing_series(file.parent.iterdir())
    with pytest.raises(StopIteration) as end:
        while True:
            next(listing)
    assert [[path.name for path in listed.files] for listed in end.value.value] == [["one.dcm"], ["two.dcm"]]
    with pytest.raises(ImageError, match=r"holds 2 DICOM images, of which one\.dcm has several slices by itself"):
        read_volume(file.parent)
