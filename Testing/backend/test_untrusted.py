"""Files that say they are one thing and are another."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import write_series
from pydicom.uid import UID

from aiassist.errors import ImageError, UploadError
from aiassist.imaging import read_volume
from aiassist.imaging.limits import at_most
from aiassist.imaging.volume import luminance
from aiassist.server.untrusted import DEFLATED, check_untrusted

HEADS = {
    ".png": b"\x89PNG\r\n\x1a\n",
    ".jpg": b"\xff\xd8\xff",
    ".tif": b"II*\0",
    ".dcm": bytes(128) + b"DICM",
}


@pytest.mark.parametrize("ending", HEADS)
def test_a_file_is_read_as_what_its_ending_says_and_not_as_hdf5(tmp_path, ending):
    """HDF5 may begin at byte 512 of a file, and take its voxels from any other file of this computer."""
    inner, path = tmp_path / "inner.h5", tmp_path / f"image{ending}"
    sitk.WriteImage(sitk.GetImageFromArray(np.arange(120, dtype=np.uint8).reshape(4, 5, 6)), str(inner))
    path.write_bytes(HEADS[ending].ljust(512, b"\0") + inner.read_bytes())
    assert sitk.ImageFileReader.GetImageIOFromFileName(str(path)) == "HDF5ImageIO"
    check_untrusted(path)
    with pytest.raises(ImageError, match=f"image\\{ending} is not a readable image"):
        read_volume(path)


def test_voxels_of_many_bytes_count_as_what_they_take(tmp_path):
    path = tmp_path / "colour.mha"
    image = sitk.GetImageFromArray(np.zeros((10, 20, 30, 4), np.uint16), isVector=True)
    sitk.WriteImage(image, str(path), useCompression=True)
    assert path.stat().st_size < 1000
    unpacked = 10 * 20 * 30 * 4 * 2
    with at_most(unpacked):
        assert read_volume(path).shape == (10, 20, 30)
    with at_most(unpacked - 1), pytest.raises(ImageError, match="promises 30x20x10 voxels"):
        read_volume(path)


def dicom_file(folder: Path, syntax: str | None = None) -> Path:
    """One slice; its syntax is what it is, or what is said here."""
    write_series(folder, np.zeros((1, 5, 6), np.int16), np.eye(4))
    path = next(folder.iterdir())
    if syntax is not None:
        image = pydicom.dcmread(path)
        image.file_meta.TransferSyntaxUID = UID(syntax)
        image.save_as(path)
    return path


def test_a_deflated_dicom_file_is_refused_before_it_is_unpacked(tmp_path):
    path = dicom_file(tmp_path / "ct", DEFLATED)
    assert path.stat().st_size < 1500
    with path.open("ab") as file:
        file.write(zlib.compress(bytes(10**6)))
    with pytest.raises(UploadError, match="deflated as a whole; save it uncompressed"):
        check_untrusted(path)


def test_a_dicom_file_that_names_two_syntaxes_is_refused_when_one_of_them_is_deflated(tmp_path):
    data = dicom_file(tmp_path / "ct").read_bytes()
    place = data.index(b"\x02\0\x10\0UI")
    path = tmp_path / "two.dcm"
    path.write_bytes(data[:place] + b"\x02\0\x10\0UI" + b"\x16\0" + DEFLATED.encode() + data[place:])
    with pytest.raises(UploadError, match="deflated as a whole"):
        check_untrusted(path)


def test_other_dicom_files_pass(tmp_path):
    check_untrusted(dicom_file(tmp_path / "plain"))
    path = dicom_file(tmp_path / "damaged")
    path.write_bytes(path.read_bytes()[:150])
    check_untrusted(path)  # whoever reads it says what is wrong


def nifti_file(path: Path, shape, dtype, before: int = 0, extensions: bool = False, slope: float = 1.0) -> Path:
    """A NIfTI-1 file of zeros, with so many zeros more before the voxels."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(shape)
    header.set_data_dtype(dtype)
    data = bytearray(header.structarr.tobytes())
    struct.pack_into("<3f", data, 108, 352 + before, slope, 0)
    with gzip.open(path, "wb", 1) as file:
        file.write(data + bytes([extensions, 0, 0, 0]))
        if extensions:
            file.write(struct.pack("<ii", before, 6) + bytes(before - 8))
        else:
            file.write(bytes(before))
        file.write(bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize))
    return path


def peak_of(work) -> int:
    """The most bytes that Python and numpy held at once."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("extensions", [True, False])
def test_what_unpacks_before_the_voxels_of_a_clients_nifti_is_limited(tmp_path, extensions):
    long = nifti_file(tmp_path / "long.nii.gz", (4, 5, 6), np.uint8, 2**25, extensions)
    assert long.stat().st_size < 200_000
    with at_most(10**9):
        assert read_volume(nifti_file(tmp_path / "ok.nii.gz", (4, 5, 6), np.uint8, 160, extensions)).shape == (6, 5, 4)

        def refused():
            with pytest.raises(ImageError, match="33,554,784 bytes before its voxels; save it without"):
                read_volume(long)

        assert peak_of(refused) < 2**22
    assert read_volume(long).shape == (6, 5, 4)  # one's own file may be anything


@pytest.mark.parametrize("before", [float("inf"), float("nan"), -400.0])
def test_voxels_that_begin_nowhere_are_damage(tmp_path, write_nifti, before):
    path = write_nifti(tmp_path / "odd.nii", np.zeros((4, 5, 6), np.uint8), patches={108: struct.pack("<f", before)})
    with pytest.raises(ImageError, match=r"odd\.nii is not a readable NIfTI file"):
        read_volume(path)


def test_scaled_voxels_count_as_what_they_become_and_take_little_more(tmp_path):
    path, count = nifti_file(tmp_path / "scaled.nii.gz", (200, 200, 200), np.uint8, slope=2), 200**3
    with at_most(4 * count - 1), pytest.raises(ImageError, match="promises 200x200x200 voxels"):
        read_volume(path)
    with at_most(4 * count):
        assert peak_of(lambda: read_volume(path)) < 4 * count + 2**26


def test_colour_becomes_grey_in_little_more_memory_than_the_grey_takes():
    colour = np.zeros((200, 200, 200, 3), np.uint8)
    assert peak_of(lambda: luminance(colour)) < 200**3 + 2**24
