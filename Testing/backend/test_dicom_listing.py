"""Which DICOM series a folder holds, found by a few bytes of each file."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_series import write_series

from aiassist.imaging.dicom_folder import reading_dicom
from aiassist.imaging.dicom_listing import listing_series
from aiassist.segmenters.base import run

AFFINE = np.diag([0.7, 0.7, 2.0, 1.0])


def written(folder: Path, shape=(5, 8, 6), **change) -> list[Path]:
    """Write a series with some elements set in each file; its files."""
    before = set(folder.iterdir()) if folder.exists() else set()
    voxels = np.random.default_rng(1).integers(-900, 900, shape).astype(np.int16)
    write_series(folder, voxels, AFFINE, prefix=change.pop("prefix", "slice"))
    files = sorted(set(folder.iterdir()) - before)
    for path in files:
        dataset = pydicom.dcmread(path)
        for name, value in change.items():
            setattr(dataset, name, value)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
        dataset.save_as(path)
    return files


def listed(folder: Path):
    """The series among a folder's files."""
    return run(listing_series(path for path in folder.iterdir() if path.is_file()))


def test_several_series_in_a_folder_come_by_number_with_their_own_files(tmp_path):
    late = written(tmp_path, prefix="a", SeriesNumber=12, SeriesDescription="Lung")
    early = written(tmp_path, prefix="b", SeriesNumber=3)
    (tmp_path / "notes.txt").write_text("no DICOM" * 100)
    (tmp_path / "empty").touch()
    assert [(s.name, list(s.files)) for s in listed(tmp_path)] == [("3", early), ("12 Lung", late)]


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        ("1.2.840.10008.5.1.4.1.1.66.4", {}),  # a segmentation
        ("1.2.840.10008.5.1.4.1.1.88.33", {"Rows": None}),  # a report
        ("1.2.840.10008.5.1.4.1.1.7", {"ImagePositionPatient": None}),  # a picture
        ("1.2.840.10008.1.3.10", {"Rows": None}),  # a DICOMDIR
    ],
)
def test_what_is_no_image_in_the_patient_is_left_out(tmp_path, kind, left):
    image = written(tmp_path, prefix="a")
    for path in written(tmp_path, prefix="b", SOPClassUID=kind):
        dataset = pydicom.dcmread(path)
        for name in left:
            delattr(dataset, name)
        dataset.save_as(path)
    assert [list(s.files) for s in listed(tmp_path)] == [image]


@pytest.mark.parametrize("size", [133, 300, 700])
@pytest.mark.parametrize("others", [1, 2])
def test_a_file_that_was_cut_off_is_left_to_who_reads_the_series(tmp_path, size, others):
    files = written(tmp_path, prefix="a")
    if others == 2:
        written(tmp_path, prefix="b")
    files[2].write_bytes(files[2].read_bytes()[:size])
    found = listed(tmp_path)
    assert len(found) == (1 if others == 1 else 3)
    (damaged,) = [one for one in found if files[2] in one.files]
    with pytest.raises(Exception, match=r"is a damaged DICOM file; copy it again\.|holds no DICOM"):
        run(reading_dicom(damaged.files, tmp_path))


def test_only_the_beginnings_of_files_are_read(tmp_path, monkeypatch):
    files = written(tmp_path, shape=(3, 600, 500))
    (tmp_path / "film.mp4").write_bytes(b"x" * 10**6)
    read = []

    class Watched(io.FileIO):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            read.append(count)
            return count

        def readall(self):
            raise AssertionError("a whole file was read")

    monkeypatch.setattr(Path, "open", lambda path, mode: io.BufferedReader(Watched(path, mode)))
    assert len(listed(tmp_path)[0].files) == len(files)
    assert sum(read) <= 2 * 4 * io.DEFAULT_BUFFER_SIZE and sum(read) < 0.1 * files[0].stat().st_size


def test_a_series_is_read_bit_by_bit(tmp_path):
    files = written(tmp_path, shape=(23, 8, 6))
    shares = list(reading_dicom(files, tmp_path))
    assert shares == sorted(shares) and shares[-1] == 1 and len(shares) > 40
