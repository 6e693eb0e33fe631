"""``aiassist annotate`` answers bad input with one sentence and no file, and odd input with a mask."""

from __future__ import annotations

import gzip
import json
import re
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from aiassist.cli import main
from aiassist.errors import ImageError
from aiassist.imaging import Geometry, Volume, read_volume, write_volume
from aiassist.imaging.limits import at_most

Z, Y, X = np.ogrid[:12, :14, :16]
BALL = (Z - 6) ** 2 + (Y - 7) ** 2 + (X - 8) ** 2 <= 16
SIX = ["--point", "4,7,6", "12,7,6", "8,3,6", "8,11,6", "8,7,2", "8,7,10"]

#: Offsets in a NIfTI-1 header.
DIM, SROW_X, DATATYPE = 40, 280, 70


@pytest.fixture
def image(tmp_path, write_nifti):
    """A ball in a tiny volume, in a folder of its own."""
    return write_nifti(tmp_path / "ball.nii.gz", (BALL * 100).astype(np.int16).T)


def dims(*sizes) -> dict[int, bytes]:
    return {DIM: struct.pack("<8h", len(sizes), *sizes, *[1] * (7 - len(sizes)))}


# Each maker writes a bad image and returns its path.


def missing(folder, write):
    return folder / "missing.nii.gz"


def empty_folder(folder, write):
    (folder / "bad").mkdir()
    return folder / "bad"


def text(folder, write):
    (folder / "bad.nii.gz").write_text("This is no image.\n")
    return folder / "bad.nii.gz"


def text_in_gzip(folder, write):
    (folder / "bad.nii.gz").write_bytes(gzip.compress(b"This is no image.\n" * 40))
    return folder / "bad.nii.gz"


def truncated_gzip(folder, write):
    path = write(folder / "bad.nii.gz", np.random.default_rng(0).integers(0, 999, (16, 14, 12), dtype=np.int16))
    path.write_bytes(path.read_bytes()[:2000])
    return path


def truncated_header(folder, write):
    path = write(folder / "bad.nii", BALL.astype(np.uint8).T)
    path.write_bytes(path.read_bytes()[:200])
    return path


def empty_file(folder, write):
    (folder / "bad.nii.gz").touch()
    return folder / "bad.nii.gz"


def four_dimensions(folder, write):
    return write(folder / "bad.nii.gz", np.zeros((16, 14, 12, 2), np.int16))


def one_dimension(folder, write):
    return write(folder / "bad.nii.gz", np.zeros(16, np.int16))


def zero_axis(folder, write):
    return write(folder / "bad.nii.gz", np.zeros((4, 4, 4), np.int16), None, dims(4, 0, 4))


def negative_axis(folder, write):
    return write(folder / "bad.nii.gz", np.zeros((4, 4, 4), np.int16), None, dims(4, -4, 4))


def promise(folder, write):
    return write(folder / "bad.nii.gz", np.zeros((4, 4, 4), np.int16), None, dims(32000, 32000, 32000))


def promise_nrrd(folder, write):
    head = "NRRD0004\ntype: short\ndimension: 3\nsizes: 32000 32000 32000\nencoding: gzip\nendian: little\n\n"
    (folder / "bad.nrrd").write_bytes(head.encode() + gzip.compress(bytes(16)))
    return folder / "bad.nrrd"


def promise_mha(folder, write):
    head = (
        "ObjectType = Image\nNDims = 3\nDimSize = 32000 32000 32000\nElementType = MET_SHORT\nElementDataFile = LOCAL\n"
    )
    (folder / "bad.mha").write_bytes(head.encode() + bytes(16))
    return folder / "bad.mha"


def unknown_type(folder, write):
    return write(folder / "bad.nii.gz", np.zeros((4, 4, 4), np.int16), None, {DATATYPE: struct.pack("<h", 999)})


def complex_numbers(folder, write):
    return write(folder / "bad.nii.gz", np.zeros((4, 4, 4), np.complex64))


def singular_affine(folder, write):
    return write(folder / "bad.nii.gz", np.zeros((4, 4, 4), np.int16), None, {SROW_X: bytes(16)})


def nan_affine(folder, write):
    row = struct.pack("<4f", np.nan, 0, 0, 0)
    return write(folder / "bad.nii.gz", np.zeros((4, 4, 4), np.int16), None, {SROW_X: row})


def text_called_nrrd(folder, write):
    (folder / "bad.nrrd").write_text("This is no image.\n")
    return folder / "bad.nrrd"


def text_called_png(folder, write):
    (folder / "bad.png").write_text("This is no image.\n")
    return folder / "bad.png"


def no_known_image(folder, write):
    (folder / "bad").write_text("This is no image.\n")
    return folder / "bad"


BAD_IMAGES = [
    missing,
    empty_folder,
    text,
    text_in_gzip,
    truncated_gzip,
    truncated_header,
    empty_file,
    four_dimensions,
    one_dimension,
    zero_axis,
    negative_axis,
    promise,
    promise_nrrd,
    promise_mha,
    unknown_type,
    complex_numbers,
    singular_affine,
    nan_affine,
    text_called_nrrd,
    text_called_png,
    no_known_image,
]


def assert_refused(status: int, stdout: str, stderr: str, named: str) -> None:
    """Status 2, nothing on stdout, one line on stderr that names what is wrong."""
    assert status == 2
    assert stdout == ""
    lines = stderr.splitlines()
    assert len(lines) == 1, stderr
    assert re.match(r"aiassist: \S", lines[0])
    assert named in lines[0]


def annotate(capfd, *arguments) -> tuple[int, str, str]:
    """Run the command in this process; what libraries print from C counts too."""
    status = main(["annotate", *map(str, arguments)])
    printed = capfd.readouterr()
    return status, printed.out, printed.err


def files(folder) -> set:
    return {p for p in folder.rglob("*")}


@pytest.mark.parametrize("make", BAD_IMAGES, ids=lambda make: make.__name__)
def test_a_bad_image_is_named_and_nothing_is_left(tmp_path, capfd, write_nifti, make):
    path = make(tmp_path, write_nifti)
    before = files(tmp_path)
    assert_refused(*annotate(capfd, path, "-o", tmp_path / "mask.nii.gz", *SIX), named=str(path))
    assert files(tmp_path) == before


@pytest.mark.parametrize("make", [missing, truncated_gzip, unknown_type], ids=lambda make: make.__name__)
def test_a_bad_image_is_refused_by_the_command_itself(tmp_path, run_cli, write_nifti, make):
    path = make(tmp_path, write_nifti)
    before = files(tmp_path)
    outcome = run_cli("annotate", path, "-o", tmp_path / "mask.nii.gz", *SIX)
    assert_refused(outcome.returncode, outcome.stdout, outcome.stderr, named=str(path))
    assert files(tmp_path) == before


PEAK = """
import sys
from pathlib import Path
from aiassist.cli import main
status = main(sys.argv[1:])
lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(lines["VmHWM"].split()[0])
sys.exit(status)
"""


def test_a_promise_of_65_terabytes_takes_no_memory(tmp_path, run_python, write_nifti):
    peaks = {}
    for make in (missing, promise, promise_nrrd, promise_mha):
        path = make(tmp_path, write_nifti)
        outcome = run_python("-c", PEAK, "annotate", path, "-o", tmp_path / "mask.nii.gz", *SIX)
        assert outcome.returncode == 2
        assert str(path) in outcome.stderr
        peaks[make] = int(outcome.stdout) / 1024
        assert make is missing or "32000x32000x32000 voxels" in outcome.stderr
    assert max(peaks.values()) < peaks[missing] + 20
    assert max(peaks.values()) < 500


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ([], "prompt"),
        (["--negative", "1,1,1"], "prompt"),
        (["--point", "4,7,6", "12,7,99"], "[12.0, 7.0, 99.0]"),
        (["--point", "-3,7,6", "12,7,6"], "[-3.0, 7.0, 6.0]"),
        (["--point", *["5,6,7"] * 6], "[5.0, 6.0, 7.0]"),
        (["--point", "5,6,7"], "[5.0, 6.0, 7.0]"),
        (["--point", "nan,6,7", "1,1,1"], "nan"),
        (["--point", "5,6", "1,1,1"], "'5,6'"),
        (["--point", "5,6,x", "1,1,1"], "'5,6,x'"),
        (["--positive", "5,6,99"], "[5.0, 6.0, 99.0]"),
        (["--line", "1,1,1"], "--line"),
        (["--line", "1,1,1", "1,1,1"], "[1.0, 1.0, 1.0]"),
        (["--points", "{folder}/nowhere.json", *SIX], "--points"),
        (["--points", "{folder}/nowhere.json"], "nowhere.json"),
        (["--from-label", "{folder}/nowhere.nii.gz"], "nowhere.nii.gz"),
        (["--prior", "{folder}/nowhere.nii.gz"], "nowhere.nii.gz"),
        (["--from-label", "{folder}/ball.nii.gz", "--value", "7"], "7"),
        ([*SIX, "--model", "oracle"], "'oracle'"),
        ([*SIX, "--device", "abacus"], "abacus"),
        ([*SIX, "--frobnicate"], "--frobnicate"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_prompts_are_named_and_nothing_is_left(tmp_path, capfd, image, arguments, named):
    before = files(tmp_path)
    arguments = [a.format(folder=tmp_path) for a in arguments]
    assert_refused(*annotate(capfd, image, "-o", tmp_path / "mask.nii.gz", *arguments), named=named)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "points.json"),
        (b"{", "points.json"),
        (b"[" * 100_000, "points.json"),
        (b"\xff\xfe\x00", "points.json"),
        (b"[[4,7,6],[12,7,6]]", "JSON object"),
        (b'{"pionts": [[4,7,6],[12,7,6]]}', "'pionts'"),
        (b'{"points": [[4,7,6],[12,7]]}', "[12, 7]"),
        (b'{"points": [[4,7,6],["a",7,6]]}', "'a'"),
        (b'{"points": [[4,7,6],[NaN,7,6]]}', "nan"),
        (b'{"points": {}}', "{}"),
        (b'{"points": null}', "None"),
        (b'{"positive": null}', "None"),
        (b'{"scribbles": [{"radius": 3}]}', "scribbles"),
        (b'{"prior": "AAAA"}', "3 bytes"),
    ],
    ids=lambda value: value[:40].decode("latin1") if isinstance(value, bytes) else "",
)
def test_bad_points_files_are_named_and_nothing_is_left(tmp_path, capfd, image, content, named):
    (tmp_path / "points.json").write_bytes(content)
    before = files(tmp_path)
    points = ["--points", tmp_path / "points.json"]
    assert_refused(*annotate(capfd, image, "-o", tmp_path / "mask.nii.gz", *points), named=named)
    assert files(tmp_path) == before


@pytest.mark.parametrize("option", ["--from-label", "--prior"])
@pytest.mark.parametrize("other", ["shape", "place"])
def test_a_label_on_another_grid_is_named(tmp_path, capfd, image, write_nifti, option, other):
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    affine[0, 3] = 0.5 if other == "place" else 0
    mask = BALL.T[: 15 if other == "shape" else 16].astype(np.uint8)
    label = write_nifti(tmp_path / "label.nii.gz", mask, affine)
    before = files(tmp_path)
    assert_refused(*annotate(capfd, image, "-o", tmp_path / "mask.nii.gz", option, label), named=str(label))
    assert files(tmp_path) == before


@pytest.mark.parametrize("option", ["--from-label", "--prior"])
def test_an_empty_label_says_nothing(tmp_path, capfd, image, write_nifti, option):
    label = write_nifti(tmp_path / "label.nii.gz", np.zeros((16, 14, 12), np.uint8))
    before = files(tmp_path)
    named = "label.nii.gz" if option == "--from-label" else "prior"
    assert_refused(*annotate(capfd, image, "-o", tmp_path / "mask.nii.gz", option, label), named=named)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("output", "named"),
    [
        ("nowhere/mask.nii.gz", "nowhere"),
        ("mask", "mask"),
        ("mask.jpg", "mask.jpg"),
        ("mask.nii.gz.txt", "mask.nii.gz.txt"),
        ("ball.nii.gz/mask.nii.gz", "ball.nii.gz"),
        ("folder.nii.gz", "folder.nii.gz"),
        ("x" * 300 + ".nii.gz", "xxx.nii.gz"),
        ("mask.png", "mask.png"),
    ],
)
def test_a_bad_output_is_named_and_nothing_is_left(tmp_path, capfd, image, output, named):
    (tmp_path / "folder.nii.gz").mkdir()
    before = files(tmp_path)
    assert_refused(*annotate(capfd, image, "-o", tmp_path / output, *SIX), named=named)
    assert files(tmp_path) == before


@pytest.mark.parametrize("ending", [".nii", ".nrrd"])
def test_a_full_disk_is_named_and_nothing_is_left(tmp_path, image, run_cli, ending):
    before = files(tmp_path)
    output = tmp_path / f"mask{ending}"
    outcome = run_cli("annotate", image, "-o", output, *SIX, largest_file=100)
    assert_refused(outcome.returncode, outcome.stdout, outcome.stderr, named=str(output))
    assert files(tmp_path) == before


# What is odd but no fault


def mask_of(capfd, path, output, *arguments) -> Volume:
    """Annotate, see that nothing was complained of, and read the mask."""
    status, stdout, stderr = annotate(capfd, path, "-o", output, *arguments, "--json")
    assert (status, stderr) == (0, "")
    mask = read_volume(output)
    assert json.loads(stdout)["voxels"] == int(mask.voxels.sum())
    assert mask.geometry.same_grid(read_volume(path).geometry)
    assert set(np.unique(mask.voxels)) <= {0, 1}
    return mask


def dice(one, other) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


@pytest.mark.parametrize("dtype", ["i1", "u1", "<i2", ">i2", "<u2", ">u4", "<i4", "<i8", ">u8", "<f4", ">f4", "<f8"])
def test_every_voxel_type_is_annotated(tmp_path, capfd, write_nifti, dtype):
    path = write_nifti(tmp_path / "image.nii", (BALL * 100).T.astype(dtype))
    mask = mask_of(capfd, path, tmp_path / "mask.nii.gz", *SIX)
    assert dice(mask.voxels > 0, BALL) > 0.95


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_voxels_that_are_not_finite_or_huge_do_not_spread(tmp_path, capfd, write_nifti, dtype):
    voxels = (BALL * 100).astype(dtype)
    largest = np.finfo(dtype).max
    for place, odd in zip(
        ((0, 0, 0), (6, 7, 8), (5, 7, 8), (6, 6, 8), (6, 7, 14)),
        (np.nan, np.inf, largest, -largest, -np.inf),
        strict=True,
    ):
        voxels[place] = odd
    path = write_nifti(tmp_path / "image.nii.gz", voxels.T)
    mask = mask_of(capfd, path, tmp_path / "mask.nii.gz", *SIX)
    assert dice(mask.voxels > 0, BALL) > 0.9


@pytest.mark.parametrize("value", [0, 7, np.nan, np.inf])
@pytest.mark.parametrize("model", ["geodesic", "ellipsoid"])
def test_an_image_without_contrast_gives_a_mask_inside_the_points(tmp_path, capfd, write_nifti, value, model):
    path = write_nifti(tmp_path / "image.nii.gz", np.full((16, 14, 12), value, np.float32))
    mask = mask_of(capfd, path, tmp_path / "mask.nii.gz", *SIX, "--model", model).voxels > 0
    assert mask.any()
    k, j, i = np.argwhere(mask).T
    assert k.min() >= 2
    assert k.max() <= 10
    assert j.min() >= 3
    assert j.max() <= 11
    assert i.min() >= 4
    assert i.max() <= 12


def test_coplanar_points_make_a_solid(tmp_path, capfd, image):
    mask = mask_of(capfd, image, tmp_path / "mask.nii.gz", *SIX[:5])
    assert dice(mask.voxels > 0, BALL) > 0.9


@pytest.mark.parametrize("name", ["Schädel CT – Größe 1", "頭部 画像", "a b  c", "émoji 🧠", 'it\'s "quoted"', "-dash"])
def test_any_name_will_do(tmp_path, capfd, write_nifti, name):
    folder = tmp_path / name
    folder.mkdir()
    path = write_nifti(folder / f"{name}.nii.gz", (BALL * 100).astype(np.int16).T)
    mask = mask_of(capfd, path, folder / f"{name} mask.nii.gz", *SIX)
    assert dice(mask.voxels > 0, BALL) > 0.95
    assert len(files(folder)) == 2


def test_names_in_unicode_pass_through_the_command_itself(tmp_path, run_cli, image):
    output = tmp_path / "Maske Größe 頭.nii.gz"
    outcome = run_cli("annotate", image, "-o", output, *SIX)
    assert (outcome.returncode, outcome.stderr) == (0, "")
    assert str(output) in outcome.stdout
    assert dice(read_volume(output).voxels > 0, BALL) > 0.95


def test_a_two_dimensional_nifti_is_annotated(tmp_path, capfd, write_nifti):
    path = write_nifti(tmp_path / "image.nii.gz", (BALL[6] * 100).astype(np.int16).T)
    mask = mask_of(capfd, path, tmp_path / "mask.nii.gz", "--point", "4,7,0", "12,7,0", "8,3,0", "8,11,0")
    assert mask.shape == (1, 14, 16)
    assert dice(mask.voxels[0] > 0, BALL[6]) > 0.95


def test_a_colour_picture_is_annotated(tmp_path, capfd):
    colour = np.repeat((BALL[6] * 100).astype(np.uint8)[..., np.newaxis], 3, axis=-1)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "image.png"))
    points = ["--point", "4,7,0", "12,7,0", "8,3,0", "8,11,0"]
    mask = mask_of(capfd, tmp_path / "image.png", tmp_path / "mask.png", *points)
    assert dice(mask.voxels[0] > 0, BALL[6]) > 0.95


@pytest.mark.parametrize("shape", [(2, 2, 2), (1, 1, 1), (1, 1, 9), (9, 1, 1)])
@pytest.mark.parametrize("model", ["geodesic", "ellipsoid"])
def test_the_smallest_volumes_are_annotated(tmp_path, capfd, write_nifti, shape, model):
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = write_nifti(tmp_path / "image.nii.gz", voxels)
    mask = mask_of(capfd, path, tmp_path / "mask.nii.gz", "--positive", "0,0,0", "--model", model)
    assert mask.voxels[0, 0, 0] == 1
    if np.prod(shape) > 1:
        corner = ",".join(str(n - 1) for n in shape)
        mask = mask_of(capfd, path, tmp_path / "mask.nii.gz", "--point", "0,0,0", corner, "--model", model)
        assert mask.shape == shape[::-1]


@pytest.mark.parametrize("model", ["geodesic", "ellipsoid"])
def test_a_structure_at_the_corner_of_the_volume_is_annotated(tmp_path, capfd, write_nifti, model):
    truth = Z**2 + Y**2 + X**2 <= 49
    path = write_nifti(tmp_path / "image.nii.gz", (truth * 100).astype(np.int16).T)
    points = ["--point", "-0.5,0,0", "7,0,0", "0,-0.5,0", "0,7,0", "0,0,-0.5", "0,0,7"]
    mask = mask_of(capfd, path, tmp_path / "mask.nii.gz", *points, "--model", model)
    assert dice(mask.voxels > 0, truth) > (0.9 if model == "geodesic" else 0.5)


def test_a_label_gives_the_points_and_a_prior_is_corrected(tmp_path, capfd, image, write_nifti):
    label = write_nifti(tmp_path / "label.nii.gz", (BALL * 5).astype(np.uint8).T)
    mask = mask_of(capfd, image, tmp_path / "mask.nii.gz", "--from-label", label, "--value", "5")
    assert dice(mask.voxels > 0, BALL) > 0.95
    half = write_nifti(tmp_path / "half.nii.gz", (BALL & (X < 8)).astype(np.uint8).T)
    mask = mask_of(capfd, image, tmp_path / "mask.nii.gz", "--prior", half, "--positive", "10,7,6")
    assert mask.voxels[6, 7, 10] == 1
    assert dice(mask.voxels > 0, BALL) > dice(BALL & (X < 8), BALL)


def test_points_with_a_byte_order_mark_are_read(tmp_path, capfd, image):
    content = json.dumps({"points": [[float(x) for x in p.split(",")] for p in SIX[1:]]})
    (tmp_path / "points.json").write_text(content, encoding="utf-8-sig")
    mask = mask_of(capfd, image, tmp_path / "mask.nii.gz", "--points", tmp_path / "points.json")
    assert dice(mask.voxels > 0, BALL) > 0.95


def test_an_oblique_left_handed_grid_keeps_its_place_through_the_command(tmp_path, capfd):
    affine = np.array([[0.6, -0.8, 0, 10], [0.8, 0.6, 0, -20], [0, 0, -3, 30], [0, 0, 0, 1.0]])
    image = Volume((BALL * 100).astype(np.int16), Geometry(BALL.shape, affine))
    write_volume(tmp_path / "image.nrrd", image)
    for ending in (".nii.gz", ".nrrd", ".mha"):
        mask = mask_of(capfd, tmp_path / "image.nrrd", tmp_path / f"mask{ending}", *SIX)
        assert np.allclose(mask.geometry.affine, affine, atol=1e-5)
        assert dice(mask.voxels > 0, BALL) > 0.95


def test_an_existing_mask_is_replaced_as_a_whole(tmp_path, capfd, image):
    output = tmp_path / "mask.nii"
    output.write_bytes(b"old" * 100_000)
    assert dice(mask_of(capfd, image, output, *SIX).voxels > 0, BALL) > 0.95
    assert nibabel.load(output).shape == (16, 14, 12)


def test_an_honest_file_that_unpacks_to_more_than_it_may_is_refused_before_memory_is_asked_for(tmp_path):
    write_volume(tmp_path / "zeros.nrrd", Volume(np.zeros((40, 50, 60), np.int16), Geometry.from_spacing((40, 50, 60))))
    with at_most(2 * 40 * 50 * 60):
        assert read_volume(tmp_path / "zeros.nrrd").shape == (40, 50, 60)
    with at_most(2 * 40 * 50 * 60 - 1), pytest.raises(ImageError, match="too large to open"):
        read_volume(tmp_path / "zeros.nrrd")
