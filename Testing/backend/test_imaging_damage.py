"""Damage that ITK passes over is noticed before ITK reads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from aiassist.errors import ImageError
from aiassist.imaging import read_labelmap, read_volume

MASK = np.zeros((16, 16, 16), np.uint8)
MASK[5:11, 4:12, 6:13] = 1
NOISE = np.random.default_rng(0).integers(-999, 999, (6, 7, 8), dtype=np.int16)


def packed(path: Path, voxels: np.ndarray) -> Path:
    """A compressed MetaImage; the file that holds its voxels."""
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), useCompression=True)
    return path if path.suffix == ".mha" else path.with_suffix(".zraw")


@pytest.mark.parametrize("ending", [".mha", ".mhd"])
@pytest.mark.parametrize("voxels", [MASK, NOISE], ids=["mask", "noise"])
def test_a_flipped_byte_in_a_compressed_metaimage_is_noticed(tmp_path, ending, voxels):
    path = tmp_path / f"a{ending}"
    data = packed(path, voxels)
    assert np.array_equal(read_volume(path).voxels, voxels)
    whole = data.read_bytes()
    stream = whole.index(b"LOCAL\n") + 6 if ending == ".mha" else 0
    for place in range(stream, len(whole), max(1, (len(whole) - stream) // 40)):
        data.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(ImageError, match=f"a{ending} is damaged: .*; copy it again"):
            read_labelmap(path)


@pytest.mark.parametrize("ending", [".mha", ".mhd"])
def test_a_compressed_metaimage_of_other_voxels_than_it_says_is_noticed(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    packed(path, MASK)
    whole = path.read_bytes()
    for size in (b"16 16 15", b"16 16 17"):
        path.write_bytes(whole.replace(b"DimSize = 16 16 16", b"DimSize = " + size))
        with pytest.raises(ImageError, match=f"a{ending} is damaged"):
            read_volume(path)


def test_a_metaimage_whose_voxels_are_gone_names_their_file(tmp_path):
    packed(tmp_path / "a.mhd", MASK).unlink()
    with pytest.raises(ImageError, match=r"a\.mhd has its voxels in .*a\.zraw, which is missing; put both"):
        read_volume(tmp_path / "a.mhd")


def test_a_metaimage_of_several_files_is_read_unless_it_is_compressed(tmp_path):
    head = "ObjectType = Image\nNDims = 3\nDimSize = 8 7 2\nElementType = MET_SHORT\n{}ElementDataFile = LIST\na\nb\n"
    for name, plane in zip("ab", NOISE[:2], strict=True):
        (tmp_path / name).write_bytes(plane.tobytes())
    (tmp_path / "a.mhd").write_text(head.format(""))
    assert np.array_equal(read_volume(tmp_path / "a.mhd").voxels, NOISE[:2])
    (tmp_path / "a.mhd").write_text(head.format("CompressedData = True\n"))
    with pytest.raises(ImageError, match=r"a\.mhd is compressed in several files; save it as one \.mha"):
        read_volume(tmp_path / "a.mhd")


def picture(path: Path) -> Path:
    plane = np.add.outer(np.arange(60), np.arange(80)).astype(np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(plane), str(path))
    return path


@pytest.mark.parametrize("ending", [".jpg", ".JPEG", ".bmp", ".png", ".tif"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.98])
def test_a_picture_that_was_cut_off_is_noticed(tmp_path, ending, share):
    path = picture(tmp_path / f"a{ending.lower()}").rename(tmp_path / f"a{ending}")
    whole = path.read_bytes()
    assert read_volume(path).shape == (1, 60, 80)
    path.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ImageError, match=f"a{ending} is .*damaged"):
        read_volume(path)


@pytest.mark.parametrize("after", [bytes(100), b"\n", b"\xff" * 9, b"a phone's own data"])
def test_a_jpeg_may_go_on_after_its_end(tmp_path, after):
    path = picture(tmp_path / "a.jpg")
    voxels = read_volume(path).voxels
    path.write_bytes(path.read_bytes() + after)
    assert np.array_equal(read_volume(path).voxels, voxels)


def test_the_end_of_a_thumbnail_is_not_that_of_its_jpeg(tmp_path):
    path = picture(tmp_path / "a.jpg")
    whole = path.read_bytes()
    thumbnail = b"\xff\xe1" + (2 + len(whole)).to_bytes(2, "big") + whole
    path.write_bytes(whole[:2] + thumbnail + whole[2:])
    assert read_volume(path).shape == (1, 60, 80)
    path.write_bytes(whole[:2] + thumbnail + whole[2:-40])
    with pytest.raises(ImageError, match="ends before its picture does"):
        read_volume(path)
