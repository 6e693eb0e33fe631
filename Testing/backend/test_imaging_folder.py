"""Folders of DICOM slices, some of which are no slices, or not those of one image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from pydicom.uid import RTDoseStorage, generate_uid

from aiassist.errors import ImageError
from aiassist.imaging import Volume, read_volume
from aiassist.imaging.dicom_header import read_header
from aiassist.imaging.dicom_listing import listing_series
from aiassist.segmenters.base import run

AFFINE = np.diag([0.7, 0.7, 2.0, 1.0])
STORED = np.random.default_rng(1).integers(-900, 900, (6, 8, 7)).astype(np.int16)

#: Names of the slices of a series, by number.
NAMES = {
    "dcm": "slice{:03}.dcm".format,
    "capitals": "IMG{:05}.DCM".format,
    "without an ending": "IM{:04}".format,
    "numbers": "{}".format,
    "identifiers": "1.2.840.113619.2.55.{}".format,
    "by sixteens": lambda n: f"{n * 2654435761 % 2**32:08X}",
    "ima": "CT.Thorax.{:04}.IMA".format,
}


def written(folder: Path, name=NAMES["dcm"]) -> list[Path]:
    """A series whose files are called by a scheme, in order of the slices."""
    write_series(folder, STORED, AFFINE, prefix="as-written")
    files = sorted(folder.glob("as-written*"), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    return [path.rename(folder / name(n)) for n, path in enumerate(files, start=8)]


def edited(path: Path, **elements) -> None:
    """Change elements of a file; None removes one."""
    dataset = pydicom.dcmread(path)
    for name, value in elements.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    dataset.save_as(path)


DAMAGES = {
    "empty": lambda whole: b"",
    "zeros": lambda whole: bytes(len(whole)),
    "cut within the preamble": lambda whole: whole[:100],
    "without its preamble": lambda whole: whole[132:],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_slice_that_a_broken_copy_emptied_is_named(tmp_path, name, damage):
    last = written(tmp_path, NAMES[name])[-1]
    last.write_bytes(DAMAGES[damage](last.read_bytes()))
    with pytest.raises(ImageError, match=rf"{last.name} is a damaged DICOM file; copy it again\."):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_called_otherwise_is_passed_over(tmp_path, name):
    files = written(tmp_path, NAMES[name])
    for other in ("README.txt", "Thumbs.db", "VERSION", "LOCKFILE", "report.pdf", "._" + files[0].name):
        (tmp_path / other).write_bytes(b"")
    for ending in (".jpg", ".txt", ".xml"):
        files[0].with_name(files[0].name + ending).write_bytes(b"no DICOM" * 40)
    assert np.array_equal(read_volume(tmp_path).voxels, STORED)


def test_a_folder_of_emptied_slices_says_so(tmp_path):
    for path in written(tmp_path):
        path.write_bytes(b"")
    with pytest.raises(ImageError, match=r"slice008\.dcm is a damaged DICOM file"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_an_emptied_slice_is_left_to_who_reads_the_series(tmp_path, name):
    files = written(tmp_path, NAMES[name])
    files[2].write_bytes(b"")
    for other in ("README.txt", "VERSION", "._" + files[0].name):
        (tmp_path / other).write_bytes(b"")
    (series,) = run(listing_series(tmp_path.iterdir()))
    assert list(series.files) == sorted(files)


@pytest.mark.parametrize(
    ("tag", "said"), [("StudyInstanceUID", "studies"), ("FrameOfReferenceUID", "frames of reference")]
)
def test_slices_of_several_places_are_no_series(tmp_path, tag, said):
    for path in written(tmp_path)[3:]:
        edited(path, **{tag: "1.2.3"})
    with pytest.raises(ImageError, match=f"The slices in .* are of several {said}; put those of each in a folder"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", ["SOPInstanceUID", "SOPClassUID"])
def test_slices_without_identifiers_are_read(tmp_path, name):
    for path in written(tmp_path):
        dataset = pydicom.dcmread(path)
        delattr(dataset, name)
        delattr(dataset.file_meta, f"MediaStorage{name}")
        dataset.save_as(path)
    volume: Volume = read_volume(tmp_path)
    tag = f"{pydicom.tag.Tag(name):08X}"
    assert np.array_equal(volume.voxels, STORED) and all(tag not in header for header in volume.dicom.headers)
    assert tag not in read_header(path)


def test_a_dose_is_named_with_its_frames(tmp_path):
    path = written(tmp_path)[0]
    for other in set(tmp_path.iterdir()) - {path}:
        other.unlink()
    frames = np.zeros((4, 8, 7), np.int16)
    edited(path, SOPClassUID=RTDoseStorage, NumberOfFrames=4, PixelData=frames.tobytes())
    for named in (tmp_path, path):
        with pytest.raises(ImageError, match=rf"{path.name} is a DICOM file of 4 frames that does not .*; save it as"):
            read_volume(named)


@pytest.mark.parametrize("spacing", [[0, 0.7], [0.7, 0], [-0.7, 0.7]])
def test_pixels_without_size_are_named_with_their_file(tmp_path, spacing):
    files = written(tmp_path)
    edited(files[2], PixelSpacing=spacing)
    said = rf"{files[2].name} has the PixelSpacing \[{spacing[0]:.1f}, {spacing[1]:.1f}\], .*; export the series again"
    with pytest.raises(ImageError, match=said):
        read_volume(tmp_path)


def test_one_series_beside_damaged_slices_of_another_is_a_choice(tmp_path):
    files = written(tmp_path)
    for path in files[3:]:
        edited(path, SeriesInstanceUID=generate_uid())
    files[-1].write_bytes(b"")
    assert [list(one.files) for one in run(listing_series(tmp_path.iterdir()))][-1] == files[-1:]
