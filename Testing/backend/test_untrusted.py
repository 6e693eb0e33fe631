"""Files that say they are one thing and are another."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk

from aiassist.errors import ImageError
from aiassist.imaging import read_volume
from aiassist.imaging.limits import at_most
from aiassist.server.untrusted import check_untrusted

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
    image = sitk.GetImageFromArray(np.zeros((10, 20, 30, 4)), isVector=True)
    sitk.WriteImage(image, str(path), useCompression=True)
    assert path.stat().st_size < 1000
    unpacked = 10 * 20 * 30 * 4 * 8
    with at_most(unpacked):
        assert read_volume(path).shape == (10, 20, 30)
    with at_most(unpacked - 1), pytest.raises(ImageError, match="promises 30x20x10 voxels"):
        read_volume(path)
