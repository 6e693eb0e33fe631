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
    for said, field in (("compressed", "CompressedData = True\n"), ("text", "BinaryData = False\n")):
        (tmp_path / "a.mhd").write_text(head.format(field))
        with pytest.raises(ImageError, match=rf"a\.mhd is {said} in several files; save it as one \.mha"):
            read_volume(tmp_path / "a.mhd")


HEAD = "ObjectType = Image\nNDims = 3\nDimSize = 8 7 6\nElementType = MET_SHORT\n"
TEXT = b" ".join(b"%d" % value for value in NOISE.ravel()) + b"\n"


def by_hand(path: Path, fields: str, where: str, data: bytes) -> Path:
    """A MetaImage of `NOISE` with some fields and its voxels in a file; that file."""
    path.write_text(HEAD + fields + f"ElementDataFile = {where}\n", encoding="utf8", newline="\n")
    file = path if where == "LOCAL" else path.parent / where
    with file.open("ab") as stream:
        stream.write(data)
    return file


@pytest.mark.parametrize("where", ["LOCAL", "Schädel.raw"])
@pytest.mark.parametrize(
    ("fields", "cut", "said"),
    [
        ("", 1, "671 of 672 bytes"),
        ("", 600, "72 of 672 bytes"),
        ("HeaderSize = 0\n", 1, "671 of 672 bytes"),
        ("HeaderSize = -1\n", 1, "671 of 672 bytes"),
        ("BinaryData = False\n", 40, "[0-9]+ of 336 numbers"),
        ("BinaryData = False\n", 1, "a last number that no space or line break ends"),
    ],
)
def test_voxels_of_a_metaimage_that_were_cut_off_are_noticed_before_itk_reads(
    tmp_path, capfd, where, fields, cut, said
):
    path = tmp_path / ("a.mha" if where == "LOCAL" else "a.mhd")
    file = by_hand(path, fields, where, TEXT if "False" in fields else NOISE.tobytes())
    assert np.array_equal(read_volume(path).voxels, NOISE)
    file.write_bytes(file.read_bytes()[:-cut])
    with pytest.raises(ImageError, match=rf"{path.name} is cut off: {file.name} holds {said}; copy it again"):
        read_volume(path)
    assert capfd.readouterr().err == ""


def test_bytes_before_the_voxels_of_a_metaimage_do_not_count(tmp_path):
    file = by_hand(tmp_path / "a.mhd", "HeaderSize = 20\n", "a.raw", bytes(20) + NOISE.tobytes())
    assert np.array_equal(read_volume(tmp_path / "a.mhd").voxels, NOISE)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ImageError, match=r"a\.raw holds 652 of 672 bytes"):
        read_volume(tmp_path / "a.mhd")


def test_a_promise_of_a_detached_metaimage_takes_no_memory(tmp_path):
    by_hand(tmp_path / "a.mhd", "", "a.raw", NOISE.tobytes())
    text = (tmp_path / "a.mhd").read_text(encoding="utf8")
    (tmp_path / "a.mhd").write_text(text.replace("8 7 6", "2000 2000 1000"), encoding="utf8")
    with pytest.raises(ImageError, match=r"a\.raw holds 672 of 8,000,000,000 bytes"):
        read_volume(tmp_path / "a.mhd")


SEVERAL = {
    "list": "LIST\n" + "\n".join(f"s{n}.raw" for n in range(1, 7)),
    "list of planes": "LIST 2D\n" + "\n".join(f"s{n}.raw" for n in range(1, 7)),
    "pattern": "s%d.raw 1 6 1",
    "pattern from": "s%d.raw 1",
    "pattern alone": "s%d.raw",
}


@pytest.mark.parametrize("where", SEVERAL.values(), ids=SEVERAL)
@pytest.mark.parametrize("spoiler", ["cut off", "missing", "more slices"])
def test_a_metaimage_of_several_files_is_refused_unless_all_are_whole(tmp_path, capfd, where, spoiler):
    for number, plane in enumerate(NOISE, start=1):
        (tmp_path / f"s{number}.raw").write_bytes(plane.tobytes())
    path = tmp_path / "a.mhd"
    path.write_text(f"{HEAD}ElementDataFile = {where}\n")
    assert np.array_equal(read_volume(path).voxels, NOISE)
    said = "a.mhd has its voxels in .*s5.raw, which is missing"
    if spoiler == "cut off":
        (tmp_path / "s5.raw").write_bytes(NOISE[4].tobytes()[:-1])
        said = "a.mhd is cut off: s5.raw holds 111 of 112 bytes"
    elif spoiler == "missing":
        (tmp_path / "s5.raw").unlink()
    else:
        path.write_text(path.read_text().replace("8 7 6", "8 7 7"))
        said = "a.mhd names 6 of 7 files with its voxels; save it as one .mha|a.mhd has .*s7.raw, which is missing"
    with pytest.raises(ImageError, match=said):
        read_volume(path)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("where", ["s%d.raw 1 6", "s%s.raw 1 6 1", "s%d%d.raw 1 6 1", "s%d.raw a b c"])
def test_a_metaimage_whose_files_are_not_counted_one_by_one_is_refused(tmp_path, where):
    (tmp_path / "a.mhd").write_text(f"{HEAD}ElementDataFile = {where}\n")
    with pytest.raises(ImageError, match=r"a\.mhd names 0 of 6 files with its voxels"):
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
