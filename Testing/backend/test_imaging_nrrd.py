"""NRRD files of others are read as Teem, and so ITK, reads them, or are refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from aiassist.errors import ImageError
from aiassist.imaging import Label, Volume, read_volume
from aiassist.imaging.geometry import Geometry
from aiassist.imaging.segmentation_file import segment_names, write_segmentation

VOXELS = np.arange(120, dtype="<i2").reshape(6, 5, 4)


def written(path: Path, fields: str = "", data: bytes | None = None, **changes) -> Path:
    """A file of `VOXELS` by hand, with more fields."""
    head = {"type": "short", "dimension": 3, "sizes": "4 5 6", "endian": "little", "encoding": "raw"} | changes
    lines = ["NRRD0005", *(f"{name}: {value}" for name, value in head.items()), *fields.splitlines()]
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + (VOXELS.tobytes() if data is None else data))
    return path


@pytest.mark.parametrize(
    "fields",
    [
        "axis mins: 10 20 30",
        "axismins: 10 20 30\nspacings: 1 2 3",
        "axis mins: 10 20 30\nspacings: 1 2 3",
        "axis mins: 10 20 30\nspacings: -1 2 3",
        "axis mins: 10 20 30\nspacings: 1 2 3\ncenterings: node cell node",
        "axis mins: 10 20 30\nspacings: 1 2 3\ncenters: Node none cell",
        "axis mins: 10 20 30\naxis maxs: 20 40 60",
        "axis mins: 10 20 30\naxismaxs: 20 40 60\ncenters: node node node",
        "axis mins: 10 20 30\naxis maxs: 5 40 60\nspacings: 1 nan 3",
        "axis maxs: 20 40 60\nspacings: 1 2 3",
    ],
)
def test_the_limits_of_axes_place_an_image_where_itk_sees_it(tmp_path, fields):
    path = written(tmp_path / "a.nrrd", fields)
    seen, itk = read_volume(path), Volume.from_sitk(sitk.ReadImage(str(path)))
    assert np.allclose(seen.geometry.affine, itk.geometry.affine) and np.array_equal(seen.voxels, itk.voxels)


def test_the_limits_of_a_colour_image_are_those_of_its_space(tmp_path):
    fields = "kinds: RGB-color domain domain domain\nspacings: nan 1 2 3\naxis mins: nan 10 20 30"
    path = written(tmp_path / "a.nrrd", fields, bytes(360), type="uchar", dimension=4, sizes="3 4 5 6")
    assert read_volume(path).geometry.origin == (10.5, 21.0, 31.5)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("spacings: 1 2 3\naxis mins: 10 nan 30", "finite"),
        ("spacings: 1 2", "its spacings are not 3, one for each axis"),
        ("spacings: 1 2 3\naxis mins: 1 2 3 4", "its axis mins are not 3"),
        ("space: RAS\nspacings: 1 2 3\nspace origin: (1,2,3)", "names a space, but no space directions; save it again"),
        ("space dimension: 3\naxis mins: 1 2 3", "names a space, but no space directions"),
    ],
)
def test_what_places_no_image_is_refused(tmp_path, fields, said):
    with pytest.raises(ImageError, match=rf"a\.nrrd: .*{said}"):
        read_volume(written(tmp_path / "a.nrrd", fields))


BIG = VOXELS.astype(">i2").tobytes()


@pytest.mark.parametrize(
    ("changes", "data"),
    [
        ({"endian": "Big", "encoding": "gzip"}, gzip.compress(BIG)),
        ({"endian": "BIG"}, BIG),
        ({"endian": "Little", "encoding": "GZIP"}, gzip.compress(VOXELS.tobytes())),
        ({"encoding": "Raw", "type": "Short"}, None),
        ({"encoding": "ASCII"}, " ".join(map(str, VOXELS.ravel())).encode()),
    ],
    ids=["big, gzip", "big", "little, gzip", "raw", "ascii"],
)
def test_words_may_be_in_capitals(tmp_path, changes, data):
    assert np.array_equal(read_volume(written(tmp_path / "a.nrrd", "", data, **changes)).voxels, VOXELS)


@pytest.mark.parametrize("encoding", ["raw", "gzip"])
def test_another_order_of_bytes_is_refused(tmp_path, encoding):
    data = gzip.compress(BIG) if encoding == "gzip" else BIG
    with pytest.raises(ImageError, match=r"a\.nrrd says that its endian is 'middle', which must be little or big"):
        read_volume(written(tmp_path / "a.nrrd", "", data, endian="Middle", encoding=encoding))


@pytest.mark.parametrize("name", ["a.raw", "Schädel größer.raw", "肝臓 1.raw", "50%.raw", "s%d.raw", "LIST.raw"])
def test_a_detached_file_is_read(tmp_path, name):
    (tmp_path / name).write_bytes(BIG)
    path = written(tmp_path / "a.nhdr", f"data file: {name}", b"", endian="Big")
    assert np.array_equal(read_volume(path).voxels, VOXELS)


@pytest.mark.parametrize(
    "field", ["data file: s%d.raw 0 5 1", "datafile: s%03d.raw 1 6 1 2", "data file: LIST\na\nb.raw"]
)
def test_a_detached_file_of_several_says_so(tmp_path, field):
    said = field.split("\n")[0].split(": ")[1]
    with pytest.raises(ImageError, match=rf"a\.nhdr has its voxels in several files \({said}\); save it as one \.nrrd"):
        read_volume(written(tmp_path / "a.nhdr", field, b""))


NAMES = ["Läsion größer", "Узел 1", "Печень 2", "肝臓", "left\\right", "spleen"]


def segmentation(path: Path) -> Path:
    """A file of a structure for each of `NAMES`."""
    labels = [Label(name, value) for value, name in enumerate(NAMES, start=1)]
    write_segmentation(
        path, np.arange(8, dtype=np.uint8).reshape(2, 2, 2) % 7, Geometry.from_spacing((2, 2, 2)), labels
    )
    return path


def test_names_of_segments_keep_the_letters_of_every_language(tmp_path):
    assert segment_names(segmentation(tmp_path / "a.seg.nrrd")) == dict(enumerate(NAMES, start=1))


def test_a_name_of_letters_that_are_not_known_is_left_out(tmp_path):
    path = segmentation(tmp_path / "a.seg.nrrd")
    path.write_bytes(path.read_bytes().replace(NAMES[0].encode(), NAMES[0].encode("latin1")))
    assert segment_names(path) == dict(enumerate(NAMES[1:], start=2))


PLACED = "space: LPS\nspace origin: (7,8,9)\nspace directions:"


@pytest.mark.parametrize(
    ("sizes", "fields"),
    [
        ("4 5 6 1", "spacings: 1 2 3 4"),
        ("4 5 6 1", "kinds: domain domain domain time\nspacings: 1 2 3 nan"),
        ("4 5 6 1", f"kinds: domain domain domain list\n{PLACED} (1,0,0) (0,2,0) (0,0,3) none"),
        ("4 5 6 1 1", f"{PLACED} (1,0,0) (0,2,0) (0,0,3) none none"),
        ("1 4 5 6", f"kinds: list domain domain domain\n{PLACED} none (1,0,0) (0,2,0) (0,0,3)"),
    ],
)
def test_an_axis_of_one_voxel_beside_those_of_space_is_none(tmp_path, sizes, fields):
    volume = read_volume(written(tmp_path / "a.nrrd", fields, sizes=sizes, dimension=len(sizes.split())))
    assert np.array_equal(volume.voxels, VOXELS) and volume.geometry.spacing == (1, 2, 3)
    assert volume.geometry.origin == ((7, 8, 9) if PLACED in fields else (0, 0, 0))


def test_segments_in_layers_are_refused_with_what_to_do(tmp_path):
    fields = f"kinds: list domain domain domain\n{PLACED} none (1,0,0) (0,2,0) (0,0,3)\nSegment0_ID:=Segment_1"
    path = written(tmp_path / "a.seg.nrrd", fields, sizes="2 2 5 6", dimension=4)
    with pytest.raises(
        ImageError, match=r"a\.seg\.nrrd holds segments in 2 layers, .* export them to a labelmap in 3D"
    ):
        read_volume(path)


@pytest.mark.parametrize(
    ("kinds", "odd"),
    [("domain domain time", "time"), ("list domain domain", "list"), ("domain domain RGB-color", "rgb-color")],
)
def test_axes_along_which_no_voxels_lie_are_refused(tmp_path, kinds, odd):
    with pytest.raises(ImageError, match=rf"a\.nrrd has an axis of the kind '{odd}', which is none of space; split it"):
        read_volume(written(tmp_path / "a.nrrd", f"spacings: 1 1 1\nkinds: {kinds}"))


@pytest.mark.parametrize("kinds", ["domain space ???", "none Domain SPACE"])
def test_axes_of_space_may_say_so(tmp_path, kinds):
    assert np.array_equal(read_volume(written(tmp_path / "a.nrrd", f"kinds: {kinds}")).voxels, VOXELS)


@pytest.mark.parametrize("kind", ["RGB-color", "rgb-color", "3-color", "vector"])
def test_colours_become_grey(tmp_path, kind):
    colour = np.random.default_rng(0).integers(0, 256, (2, 5, 4, 3), dtype=np.uint8)
    fields = f"kinds: {kind} domain domain domain"
    path = written(tmp_path / "a.nrrd", fields, colour.tobytes(), type="uchar", dimension=4, sizes="3 4 5 2")
    assert np.abs(read_volume(path).voxels - colour @ [0.299, 0.587, 0.114]).max() <= 0.501


@pytest.mark.parametrize(
    ("voxels", "said"),
    [
        (np.ones((3, 4, 5, 3), np.float32), "3 numbers of type float32"),
        (np.ones((3, 4, 5, 2), np.float32), "2 numbers of type float32"),
        (np.ones((3, 4, 5, 3), np.int16), "3 numbers of type int16"),
        (np.ones((3, 4, 5, 6), np.uint8), "6 numbers of type uint8"),
        (np.ones((3, 4, 5), np.complex64), "complex64|2 numbers of type float32|'complex'|axes"),
    ],
    ids=["vectors", "pairs", "whole vectors", "six channels", "complex"],
)
@pytest.mark.parametrize("ending", [".nrrd", ".mha"])
def test_vectors_and_complex_numbers_are_no_grey_values(tmp_path, voxels, said, ending):
    sitk.WriteImage(sitk.GetImageFromArray(voxels, isVector=voxels.ndim == 4), str(tmp_path / f"a{ending}"))
    with pytest.raises(ImageError, match=rf"a{ending}.*({said})"):
        read_volume(tmp_path / f"a{ending}")
