"""Labels that others drew on the same image fit it; colours are none."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import write_series
from scipy.spatial.transform import Rotation

from aiassist.errors import ImageError
from aiassist.imaging import Geometry, Volume, read_labelmap, read_volume, write_volume

OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = Rotation.from_euler("xz", [17, 11], degrees=True).as_matrix() * [0.7, 0.7, 1.25]
STORED = np.random.default_rng(0).integers(0, 99, (60, 16, 20)).astype(np.int16)


def rounded_series(folder: Path, affine: np.ndarray, digits: int, turned: int) -> None:
    """A series whose positions and directions have few digits after the point."""
    write_series(folder, STORED, affine)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = [f"{x:.{digits}f}" for x in dataset.ImagePositionPatient]
        dataset.ImageOrientationPatient = [f"{x:.{turned}f}" for x in dataset.ImageOrientationPatient]
        dataset.save_as(path)


@pytest.mark.parametrize(("digits", "turned"), [(1, 6), (2, 4), (3, 6), (6, 4), (6, 6)])
@pytest.mark.parametrize("affine", [OBLIQUE, np.diag([0.7, 0.7, 1.25, 1.0])], ids=["oblique", "axial"])
def test_labels_drawn_on_the_grid_that_itk_makes_of_a_series_fit_it(tmp_path, digits, turned, affine):
    rounded_series(tmp_path / "series", affine, digits, turned)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(tmp_path / "series")))
    itk = reader.Execute()
    sitk.WriteImage(sitk.Cast(itk > 50, sitk.sitkUInt8), str(tmp_path / "labels.nrrd"))
    image = read_volume(tmp_path / "series")
    labels = read_labelmap(tmp_path / "labels.nrrd", like=image)
    assert np.array_equal(labels.voxels, image.voxels > 50)
    assert np.array_equal(labels.geometry.affine, image.geometry.affine)


@pytest.mark.parametrize(
    ("spacing", "origin", "shape"),
    [
        (0.01, (500.123, -300.77, 1234.567), (4, 5, 6)),
        (0.005, (100.1234, -100.77, 134.567), (4, 5, 6)),
        (0.0005, (100.1234, -100.77, 1134.567), (4, 5, 6)),
        (0.3, (100.1234, -100.77, -2534.567), (4, 500, 600)),
    ],
)
def test_a_mask_in_nifti_fits_an_image_of_tiny_voxels(tmp_path, spacing, origin, shape):
    volume = Volume(np.ones(shape, np.uint8), Geometry.from_spacing(shape, (spacing,) * 3, origin))
    for ending in (".nrrd", ".nii.gz", ".mha"):
        write_volume(tmp_path / f"a{ending}", volume)
    image = read_volume(tmp_path / "a.nrrd")
    for ending in (".nii.gz", ".mha"):
        assert image.geometry.same_grid(read_volume(tmp_path / f"a{ending}").geometry)
        assert read_labelmap(tmp_path / f"a{ending}", like=image).voxels.all()


GRID = Geometry((40, 500, 500), np.diag([0.5, 0.5, 1.0, 1.0]))
TURN = np.eye(4)
TURN[:3, :3] = Rotation.from_euler("z", 5e-4).as_matrix()
MOVE = np.eye(4)
MOVE[0, 3] = 0.03


@pytest.mark.parametrize(
    ("affine", "away"),
    [
        (TURN @ GRID.affine, "0.176"),
        (GRID.affine @ np.diag([1.0004, 1, 1, 1]), "0.0998"),
        (MOVE @ GRID.affine, "0.03"),
    ],
    ids=["turned", "finer", "moved"],
)
def test_labels_that_are_off_are_refused_with_how_far_they_are(tmp_path, affine, away):
    for name, grid in (("image", GRID.affine), ("labels", affine)):
        write_volume(tmp_path / f"{name}.nrrd", Volume(np.zeros(GRID.shape, np.uint8), Geometry(GRID.shape, grid)))
    with pytest.raises(ImageError, match=rf"labels\.nrrd lies on .*: its corners lie up to {away} mm away; resample"):
        read_labelmap(tmp_path / "labels.nrrd", like=read_volume(tmp_path / "image.nrrd"))


COLOUR = np.zeros((30, 30, 3), np.uint8)
COLOUR[5:10, 5:10], COLOUR[15:20, 15:20] = (128, 0, 0), (0, 128, 0)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.mha", "a.nrrd", "a.nii.gz"])
def test_colours_are_no_labels(tmp_path, name):
    volume = name.endswith((".mha", ".nrrd", ".nii.gz"))
    colour = np.stack([COLOUR] * 3) if volume else COLOUR
    image = sitk.GetImageFromArray(colour, isVector=True)
    if name.endswith(".nii.gz"):
        data = np.ascontiguousarray(colour.transpose(2, 1, 0, 3)).view([(c, "u1") for c in "RGB"])[..., 0]
        pytest.importorskip("nibabel").Nifti1Image(data, np.eye(4)).to_filename(tmp_path / name)
    else:
        sitk.WriteImage(image, str(tmp_path / name))
    with pytest.raises(ImageError, match=rf"{name}: it holds colours, which are no labels; save the labels as whole"):
        read_labelmap(tmp_path / name)
    assert read_volume(tmp_path / name).voxels.any()


def test_grey_that_a_picture_keeps_as_colour_may_be_labels(tmp_path):
    grey = np.repeat(COLOUR[..., :1] // 64, 3, axis=2)
    sitk.WriteImage(sitk.GetImageFromArray(grey, isVector=True), str(tmp_path / "a.png"))
    assert np.array_equal(read_labelmap(tmp_path / "a.png").voxels[0], grey[..., 0])
