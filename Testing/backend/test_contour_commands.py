"""aiassist contour."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from contour_helpers import STRUCTURES, torso
from scipy import ndimage

from aiassist import cli
from aiassist.contour import Plane, Ring, rasterise
from aiassist.evaluation.metrics import dice
from aiassist.imaging import Geometry, Volume, read_labelmap, write_volume
from aiassist.resources import resource


def run_cli(capsys, *arguments) -> tuple[int, str, str]:
    status = cli.main([str(a) for a in arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def sample(name: str):
    return resource("SampleData", "ts_ct_torso", name)


def test_trace_command_writes_outlines_that_bound_the_structure(tmp_path, capsys):
    out = tmp_path / "outlines.json"
    status, said, _ = run_cli(capsys, "contour", "trace", sample("label.nii.gz"), "--value", 1, "-o", out)
    assert status == 0 and "30 slices" in said
    volume, labels = torso()
    for found in json.loads(out.read_text(encoding="utf8"))["slices"]:
        plane = Plane(volume.geometry, 0, found["index"])
        rings = [Ring(plane.to_xy(ring["points"]), ring["hole"]) for ring in found["rings"]]
        truth = plane.of(labels == 1)
        assert dice(rasterise(rings, plane.shape), truth) > 0.99


def test_slices_are_the_patients_whatever_the_arrays_axes_are(tmp_path, capsys):
    mask = np.zeros((9, 12, 15), bool)
    mask[3:6, 4:8, 5:11] = True
    sagittal = [[0, 0, 2.0, 0], [1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]]  # k runs to the left, j to the head
    write_volume(tmp_path / "mask.nii.gz", Volume(mask.astype(np.uint8), Geometry(mask.shape, np.array(sagittal))))
    for name, across, indices in (
        ("axial", "j", range(4, 8)),
        ("coronal", "i", range(5, 11)),
        ("sagittal", "k", range(3, 6)),
    ):
        out = tmp_path / f"{name}.json"
        assert run_cli(capsys, "contour", "trace", tmp_path / "mask.nii.gz", "--axis", name, "-o", out)[0] == 0
        found = json.loads(out.read_text(encoding="utf8"))
        assert (found["axis"], found["across"]) == (name, across)
        assert [one["index"] for one in found["slices"]] == list(indices)


def test_outlines_are_written_into_json_files_only(tmp_path, capsys):
    victim = tmp_path / "ct.nii.gz"
    victim.write_bytes(b"an image")
    status, _, error = run_cli(capsys, "contour", "trace", sample("label.nii.gz"), "--value", 1, "-o", victim)
    assert status == 2 and "end it in .json" in error and victim.read_bytes() == b"an image"


def test_snap_command_corrects_a_slice_and_its_neighbours(tmp_path, capsys):
    volume, labels = torso()
    truth = labels == STRUCTURES["spleen"]
    mask, out, picture = tmp_path / "mask.nii.gz", tmp_path / "out.nii.gz", tmp_path / "change.png"
    faulty = truth & ndimage.shift(truth, [0, 0, 3], order=0)
    write_volume(mask, Volume(faulty, volume.geometry))
    k = int(np.argmax(truth.sum(axis=(1, 2))))
    row, column = np.argwhere(faulty[k])[np.argmin(np.argwhere(faulty[k])[:, 1])]
    pull = ["--from", f"{column},{row},{k}", "--to", f"{column - 3},{row},{k}", "--propagate", 2]
    status, said, _ = run_cli(
        capsys, "contour", "snap", sample("image.nii.gz"), mask, "-o", out, *pull, "--picture", picture
    )
    assert status == 0 and f"slices changed: {k - 2}, {k - 1}, {k}, {k + 1}, {k + 2}" in said
    after = read_labelmap(out, like=volume).voxels > 0
    assert dice(after[k], truth[k]) > dice(faulty[k], truth[k])
    assert picture.stat().st_size > 10_000


def test_snap_command_names_no_slice_where_no_pixel_changed(tmp_path, capsys):
    mask, k, out = torso()[1] == STRUCTURES["spleen"], 85, tmp_path / "out.nii.gz"
    row, column = np.argwhere(mask[k])[np.argmin(np.argwhere(mask[k])[:, 1])]
    place = f"{column},{row},{k}"
    files = [sample("image.nii.gz"), sample("label.nii.gz"), "--value", 1, "-o", out]
    status, said, _ = run_cli(
        capsys, "contour", "snap", *files, "--from", place, "--to", f"{column - 0.4},{row},{k}", "--radius", 1
    )
    assert status == 0 and "axial slices changed: none." in said
    assert np.array_equal(read_labelmap(out).voxels > 0, mask)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--from", "1,1,0", "--to", "2,2,0", "--value", "1"], "slice 0 holds no outline"),
        (["--from", "1,1,900", "--to", "2,2,0", "--value", "1"], "--from 1,1,900 lies outside the image"),
        (["--from", "35,41,102", "--to", "390,42,102", "--value", "1"], "indices I,J,K go to 121,100,111"),
        (["--from", "100,90,102", "--to", "99,90,102", "--value", "1"], "mm from the nearest outline"),
        (["--from", "1,1,90", "--to", "2,2,90"], "holds 61 values from 1 to 117; say which by --value."),
        (["--from", "35,41,102", "--to", "39,42,102", "--value", "1", "--radius", "-4"], "radius -4"),
        (["--from", "1,1,90", "--to", "2,2,90", "--value", "250"], "the value 250"),
        (["--from", "1,1,90", "--to", "2,2,90", "--value", "1", "--propagate", "-1"], "--propagate is -1"),
        (["--from", "1,1,90", "--to", "nan,2,90", "--value", "1"], "--to is nan,2.0,90.0, which is not a point"),
        (["--from", "1,1,nan", "--to", "2,2,90", "--value", "1"], "--from is 1.0,1.0,nan, which is not a point"),
        (["--from", "1,1,90", "--to", "2,2,inf", "--value", "1"], "--to is 2.0,2.0,inf, which is not a point"),
        (["--from", "nan,1,90", "--to", "2,2,90", "--value", "1"], "--from is nan,1.0,90.0, which is not a point"),
        (["--from", "18,12,6", "--to", "20,12,99", "--value", "1"], "a vertex stays on its slice"),
        (["--from", "1,1,90", "--to", "2,2,90", "--value", "1", "--picture", "change.foo"], "end it in .png"),
    ],
)
def test_snap_command_says_what_is_wrong(tmp_path, capsys, arguments, said):
    out = tmp_path / "out.nii.gz"
    image, mask = sample("image.nii.gz"), sample("label.nii.gz")
    status, _, error = run_cli(capsys, "contour", "snap", image, mask, "-o", out, *arguments)
    assert status == 2 and said in error and not out.exists()


def test_a_picture_that_cannot_be_drawn_is_said_before_the_mask_is_written(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out, pull = tmp_path / "out.nii.gz", ["--from", "35,41,102", "--to", "39,42,102", "--value", 1]
    files = [sample("image.nii.gz"), sample("label.nii.gz"), "-o", out]
    status, _, error = run_cli(capsys, "contour", "snap", *files, *pull, "--picture", tmp_path / "change.png")
    assert status == 2 and "needs the package matplotlib" in error and not out.exists()


def test_tracing_and_snapping_never_write_over_what_they_read(tmp_path, capsys):
    mask = tmp_path / "mask.nii.gz"
    mask.write_bytes(sample("label.nii.gz").read_bytes())
    before = mask.read_bytes()
    status, _, error = run_cli(capsys, "contour", "trace", mask, "--value", 1, "-o", mask)
    assert status == 2 and "would be lost" in error and mask.read_bytes() == before
    picture = tmp_path / "slice.png"
    write_volume(picture, Volume(np.zeros((1, 40, 40), np.uint8), Geometry.from_spacing((1, 40, 40))))
    before = picture.read_bytes()
    pull = ["--from", "1,1,0", "--to", "2,2,0", "--picture", picture]
    status, _, error = run_cli(capsys, "contour", "snap", picture, mask, "-o", tmp_path / "out.nii.gz", *pull)
    assert status == 2 and "would be lost" in error and picture.read_bytes() == before
