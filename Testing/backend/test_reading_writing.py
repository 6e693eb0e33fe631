"""Volumes come back from every format as they were; damage is refused."""

from __future__ import annotations

import bz2
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from dicom_series import write_series
from hypothesis import HealthCheck, given, settings
from pydicom.uid import EnhancedCTImageStorage, SegmentationStorage
from strategies import NAMED_AFFINES, SHEARED, geometries
from volume_helpers import FORMATS, SHAPE, named_volume, voxels_of

from aiassist.errors import ImageError
from aiassist.imaging import Geometry, Volume, read_labelmap, read_volume, write_volume
from aiassist.imaging.dicom_series import DicomSeries
from aiassist.imaging.image_files import WRITABLE

DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64"]


def worst(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.abs(one - other).max())


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_voxels_of_every_type_return(tmp_path, ending, dtype):
    volume = named_volume(dtype=dtype)
    write_volume(tmp_path / f"a{ending}", volume)
    back = read_volume(tmp_path / f"a{ending}")
    assert back.voxels.dtype == volume.voxels.dtype
    assert np.array_equal(back.voxels, volume.voxels)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("name", NAMED_AFFINES)
def test_every_kind_of_grid_returns(tmp_path, ending, name):
    volume = named_volume(name)
    write_volume(tmp_path / f"a{ending}", volume)
    back = read_volume(tmp_path / f"a{ending}").geometry
    ulp = 2.0**-24 * np.abs(volume.geometry.affine).max()  # half a unit in the last of 24 bits: what NIfTI rounds
    assert worst(back.affine, volume.geometry.affine) <= (ulp if "nii" in ending else 1e-9)
    assert back.same_grid(volume.geometry, 1e-4)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(geometry=geometries())
def test_an_affine_rounded_once_by_nifti_stays_bit_identical(tmp_path, geometry):
    paths = [tmp_path / "first.nii", tmp_path / "second.nii", tmp_path / "third.nrrd"]
    volume = Volume(np.zeros(geometry.shape, np.uint8), geometry)
    affines = []
    for path in paths:
        write_volume(path, volume)
        volume = read_volume(path)
        affines.append(volume.geometry.affine)
    assert worst(affines[0], geometry.affine) <= 2.0**-24 * np.abs(geometry.affine).max()
    assert np.array_equal(affines[0], affines[1])
    assert np.array_equal(affines[1], affines[2])


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd"])
def test_a_sheared_grid_survives(tmp_path, ending):
    write_volume(tmp_path / f"a{ending}", Volume(voxels_of("int16"), Geometry(SHAPE, SHEARED)))
    assert worst(read_volume(tmp_path / f"a{ending}").geometry.affine, SHEARED) < 7e-5


def test_metaimage_refuses_a_sheared_grid_and_leaves_nothing(tmp_path):
    with pytest.raises(ImageError, match="sheared"):
        write_volume(tmp_path / "a.mha", Volume(voxels_of("int16"), Geometry(SHAPE, SHEARED)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", FORMATS)
def test_simpleitk_sees_the_same_voxels_in_the_same_places(tmp_path, ending):
    volume = named_volume("oblique left-handed")
    write_volume(tmp_path / f"a{ending}", volume)
    image = sitk.ReadImage(str(tmp_path / f"a{ending}"))
    assert np.array_equal(sitk.GetArrayFromImage(image), volume.voxels)
    for index in ([0, 0, 0], [4, 3, 2], [1, 2, 0]):
        assert np.allclose(
            image.TransformIndexToPhysicalPoint(index), volume.geometry.to_lps([index])[0], rtol=0, atol=2e-4
        )


@pytest.mark.parametrize("ending", [*map(str.upper, WRITABLE), ".Nii", ".Nii.gz", ".Mha"])
def test_endings_may_be_in_capitals(tmp_path, ending):
    plane = voxels_of("uint8", (1, 4, 5))
    write_volume(tmp_path / f"a{ending}", Volume(plane, Geometry.from_spacing(plane.shape)))
    assert [path.name for path in tmp_path.iterdir()] == [f"a{ending}"]
    assert np.array_equal(read_volume(tmp_path / f"a{ending}").voxels, plane)


@pytest.mark.parametrize("ending", FORMATS)
def test_views_that_are_not_contiguous_are_written_in_order(tmp_path, ending):
    voxels = np.arange(3 * 8 * 10, dtype=np.int16).reshape(10, 8, 3).T[:, ::2, ::-2]
    volume = Volume(voxels, Geometry.from_spacing(voxels.shape))
    write_volume(tmp_path / f"a{ending}", volume)
    assert np.array_equal(read_volume(tmp_path / f"a{ending}").voxels, voxels)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize(("dtype", "stored"), [("bool", "uint8"), ("float16", "float32")])
def test_types_that_no_format_holds_are_written_wider(tmp_path, ending, dtype, stored):
    voxels = np.arange(60).reshape(SHAPE).astype(dtype)
    volume = Volume(voxels, Geometry.from_spacing(SHAPE))
    write_volume(tmp_path / f"a{ending}", volume)
    back = read_volume(tmp_path / f"a{ending}")
    assert back.voxels.dtype == stored and back.study_id == volume.study_id
    assert np.array_equal(back.voxels, voxels.astype(stored))


@pytest.mark.parametrize("dtype", [">i2", ">u2", ">i4", ">i8", ">u8", ">f4", ">f8"])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_big_endian_nifti_is_read_to_native_values(tmp_path, write_nifti, dtype, ending):
    voxels = voxels_of(np.dtype(dtype).newbyteorder("="))
    path = write_nifti(tmp_path / f"a{ending}", voxels.T.astype(dtype))
    assert nibabel.load(path).header.endianness == ">"
    back = read_volume(path)
    assert back.voxels.dtype.isnative
    assert np.array_equal(back.voxels, voxels)
    assert np.array_equal(back.geometry.affine, np.eye(4))


def test_nan_and_infinities_return(tmp_path):
    voxels = np.array([np.nan, np.inf, -np.inf, -0.0], np.float32).reshape(1, 2, 2)
    for ending in FORMATS:
        write_volume(tmp_path / f"a{ending}", Volume(voxels, Geometry.from_spacing((1, 2, 2))))
        assert np.array_equal(read_volume(tmp_path / f"a{ending}").voxels, voxels, equal_nan=True)


def test_a_scaled_nifti_is_read_as_its_real_values(tmp_path):
    image = nibabel.Nifti1Image(voxels_of("int16").T, np.eye(4))
    image.header.set_slope_inter(0.5, -1000)
    data = bytearray(image.to_bytes())
    data[112:120] = np.array([0.5, -1000], "<f4").tobytes()
    (tmp_path / "a.nii").write_bytes(data)
    back = read_volume(tmp_path / "a.nii")
    assert back.voxels.dtype == np.float32
    assert np.array_equal(back.voxels, voxels_of("int16") * np.float32(0.5) - 1000)


@pytest.mark.parametrize(("unit", "millimetres"), [(0, 1.0), (1, 1000.0), (2, 1.0), (3, 0.001)])
def test_the_unit_of_length_of_a_nifti_counts_as_it_does_in_slicer(tmp_path, write_nifti, unit, millimetres):
    affine = np.diag([-5.0, -6.0, 7.0, 1.0])
    affine[:3, 3] = -100, -200, 300
    path = write_nifti(tmp_path / "a.nii", np.zeros((2, 2, 2), np.int16), affine, {123: bytes([unit])})
    geometry, image = read_volume(path).geometry, sitk.ReadImage(str(path))
    assert np.allclose(geometry.spacing, np.array([5, 6, 7]) * millimetres)
    assert np.allclose(geometry.spacing, image.GetSpacing())
    assert np.allclose(geometry.origin, image.GetOrigin())


def nifti_header(**fields) -> nibabel.Nifti1Header:
    """The header of a file of `SHAPE` whose voxels are 2, 3 and 4 mm wide along i, j and k, and more of its fields."""
    header = nibabel.Nifti1Header()
    header.set_data_shape(SHAPE[::-1])
    header.set_data_dtype(np.int16)
    header.set_zooms((2, 3, 4))
    header["magic"], header["vox_offset"] = b"n+1", 352
    for name, value in fields.items():
        header[name] = value
    return header


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({}, id="nothing says where it lies"),
        pytest.param({"qform_code": 1, "qoffset_x": 7, "quatern_d": 0.6}, id="qform"),
        pytest.param({"qform_code": 1, "sform_code": 1, "qoffset_y": 5}, id="an sform of zeros beside a qform"),
        pytest.param(
            {"qform_code": 1, "quatern_b": 0.70711, "quatern_c": 0.70711, "quatern_d": 0.002}, id="a rounded rotation"
        ),
    ],
)
def test_a_nifti_lies_where_slicer_sees_it(tmp_path, fields):
    voxels = np.arange(np.prod(SHAPE), dtype=np.int16)
    path = tmp_path / "a.nii"
    path.write_bytes(nifti_header(**fields).binaryblock + bytes(4) + voxels.tobytes())
    seen, itk = read_volume(path), Volume.from_sitk(sitk.ReadImage(str(path)))
    assert seen.geometry.same_grid(itk.geometry) and np.array_equal(seen.voxels, itk.voxels)
    write_volume(tmp_path / "mask.nii.gz", Volume((seen.voxels > 30).astype(np.uint8), seen.geometry))
    assert Volume.from_sitk(sitk.ReadImage(str(tmp_path / "mask.nii.gz"))).geometry.same_grid(itk.geometry)


def test_a_two_dimensional_nifti_is_one_slice(tmp_path, write_nifti):
    plane = np.arange(12, dtype=np.int16).reshape(3, 4)
    back = read_volume(write_nifti(tmp_path / "a.nii.gz", plane))
    assert back.shape == (1, 4, 3)
    assert np.array_equal(back.voxels[0], plane.T)


def test_a_volume_does_not_change_when_its_file_does(tmp_path):
    path = tmp_path / "a.nii"
    write_volume(path, named_volume())
    volume = read_volume(path)
    before = volume.study_id
    with path.open("r+b") as file:
        file.seek(352)
        file.write(bytes(range(1, 60)))
    assert np.array_equal(volume.voxels, named_volume().voxels)
    assert Volume(volume.voxels, volume.geometry).study_id == before


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_a_flipped_byte_in_compressed_voxels_is_noticed(tmp_path, ending):
    path = tmp_path / f"a{ending}"
    noise = np.random.default_rng(0).integers(-999, 999, (8, 9, 10), dtype=np.int16)
    write_volume(path, Volume(noise, Geometry.from_spacing(noise.shape)))
    whole = path.read_bytes()
    stream = whole.index(b"\x1f\x8b") + 10
    for place in range(stream, len(whole) - 4, 13):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ImageError, match=f"a{ending}"):
            read_volume(path)


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("share", [0.3, 0.6, 0.97])
def test_a_truncated_file_is_noticed(tmp_path, ending, share):
    path = tmp_path / f"a{ending}"
    noise = np.random.default_rng(0).integers(-999, 999, (8, 9, 10), dtype=np.int16)
    write_volume(path, Volume(noise, Geometry.from_spacing(noise.shape)))
    path.write_bytes(path.read_bytes()[: int(share * path.stat().st_size)])
    with pytest.raises(ImageError, match=f"a{ending}"):
        read_volume(path)


# Pictures


def test_a_colour_picture_becomes_grey_by_the_weights_of_bt601(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    sitk.WriteImage(sitk.GetImageFromArray(colour, isVector=True), str(tmp_path / "a.png"))
    back = read_volume(tmp_path / "a.png")
    assert back.voxels.dtype == np.uint8
    assert back.shape == (1, 6, 7)
    expected = colour.astype(float) @ [0.299, 0.587, 0.114]
    assert np.abs(back.voxels[0] - expected).max() <= 0.5 + 1e-4


def test_transparency_does_not_change_the_grey(tmp_path):
    colour = np.random.default_rng(0).integers(0, 256, (6, 7, 4), dtype=np.uint8)
    for name, channels in (("rgba.png", 4), ("rgb.png", 3)):
        sitk.WriteImage(sitk.GetImageFromArray(colour[..., :channels], isVector=True), str(tmp_path / name))
    assert np.array_equal(read_volume(tmp_path / "rgba.png").voxels, read_volume(tmp_path / "rgb.png").voxels)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_a_grey_picture_is_a_volume_of_one_slice(tmp_path, dtype, ending):
    plane = voxels_of(dtype, (1, 6, 7))
    write_volume(tmp_path / f"a{ending}", Volume(plane, Geometry.from_spacing(plane.shape)))
    back = read_volume(tmp_path / f"a{ending}")
    assert back.voxels.dtype == dtype
    assert np.array_equal(back.voxels, plane)


@pytest.mark.parametrize(
    ("ending", "dtype", "slices", "named"),
    [
        (".png", "float32", 1, "float32"),
        (".png", "int16", 1, "int16"),
        (".tif", "int64", 1, "int64"),
        (".png", "uint8", 3, "3"),
    ],
)
def test_a_picture_that_cannot_hold_the_volume_is_refused(tmp_path, ending, dtype, slices, named):
    shape = (slices, 4, 5)
    with pytest.raises(ImageError, match=named):
        write_volume(tmp_path / f"a{ending}", Volume(np.ones(shape, dtype), Geometry.from_spacing(shape)))
    assert not list(tmp_path.iterdir())


PLANE = voxels_of("uint8", (1, 6, 7))
PLACED = {
    "thick": Geometry.from_spacing(PLANE.shape, (0.5, 0.5, 3.0)),
    "elsewhere": Geometry.from_spacing(PLANE.shape, (0.5, 0.5, 1.0), (5.0, 0.0, 0.0)),
    "turned": Geometry.from_spacing(PLANE.shape, direction=np.diag([-1.0, -1.0, 1.0])),
}


@pytest.mark.parametrize("ending", [".png", ".tif"])
@pytest.mark.parametrize("grid", PLACED)
def test_a_picture_that_would_lose_the_grid_is_refused_where_that_matters(tmp_path, ending, grid):
    with pytest.raises(ImageError, match=f"a{ending} is a picture, which cannot keep where the slice lies"):
        write_volume(tmp_path / f"a{ending}", Volume(PLANE, PLACED[grid]), keep_grid=True)
    assert not list(tmp_path.iterdir())
    write_volume(tmp_path / f"a{ending}", Volume(PLANE, PLACED[grid]))
    assert np.array_equal(read_volume(tmp_path / f"a{ending}").voxels, PLANE)


@pytest.mark.parametrize("ending", [".png", ".tif", ".nii.gz", ".mha"])
def test_a_grid_that_the_file_can_hold_is_kept(tmp_path, ending):
    geometry = Geometry.from_spacing(PLANE.shape, (0.7, 0.25, 1.0))
    write_volume(tmp_path / f"a{ending}", Volume(PLANE, geometry), keep_grid=True)
    assert read_volume(tmp_path / f"a{ending}").geometry.same_grid(geometry)


# DICOM

DICOM_NAMES = ["axial", "sagittal", "coronal", "oblique", "anisotropic"]


@pytest.mark.parametrize("name", DICOM_NAMES)
def test_a_dicom_series_is_read_where_it_lies(tmp_path, name):
    stored = voxels_of("int16")
    uids = write_series(tmp_path / "series", stored, NAMED_AFFINES[name])
    volume = read_volume(tmp_path / "series")
    assert worst(volume.geometry.affine, NAMED_AFFINES[name]) < 1e-6
    assert np.array_equal(volume.voxels, stored)
    assert (volume.dicom.study_uid, volume.dicom.series_uid) == (uids["study"], uids["series"])
    assert (volume.dicom.patient_id, volume.dicom.modality) == ("P-17", "CT")
    assert len(volume.dicom.headers) == len(stored)
    assert all("7FE00010" not in header for header in volume.dicom.headers)


def test_slices_that_descend_are_turned_so_that_the_grid_is_right_handed(tmp_path):
    stored, affine = voxels_of("int16"), NAMED_AFFINES["left-handed"] @ np.diag([-1.0, 1, -1, 1])
    write_series(tmp_path / "series", stored, affine)
    volume = read_volume(tmp_path / "series")
    assert np.linalg.det(volume.geometry.affine[:3, :3]) > 0
    assert np.array_equal(volume.voxels, stored[::-1])
    assert np.allclose(volume.geometry.to_lps([[4, 3, 0]]), Geometry(SHAPE, affine).to_lps([[4, 3, 2]]), atol=1e-6)


def test_headers_are_in_the_order_of_the_slices(tmp_path):
    write_series(tmp_path / "series", voxels_of("int16"), NAMED_AFFINES["oblique"])
    volume = read_volume(tmp_path / "series")
    for k, header in enumerate(volume.dicom.headers):
        assert np.allclose(header["00200032"]["Value"], volume.geometry.to_lps([[0, 0, k]])[0], atol=1e-6)


@pytest.mark.parametrize(
    ("slopes", "intercept"), [(1, -1024), (2, 0), (0.5, 10), ([1, 0.25, 3], -7), ([1, 2, 30000], 0)]
)
def test_dicom_voxels_are_rescaled_slice_by_slice(tmp_path, slopes, intercept):
    stored = np.arange(60, dtype=np.int16).reshape(SHAPE)
    write_series(tmp_path / "series", stored, NAMED_AFFINES["axial"], slopes, intercept)
    expected = stored * np.broadcast_to(slopes, 3)[:, np.newaxis, np.newaxis] + intercept
    assert np.array_equal(read_volume(tmp_path / "series").voxels, expected)


@pytest.mark.parametrize(
    ("name", "first", "other", "slope"),
    [
        ("PixelRepresentation", (0, 5, "<u2"), (1, -5, "<i2"), "1"),
        ("BitsStored", (12, 100, "<u2"), (16, 60000, "<u2"), "1"),
        ("BitsAllocated", (8, 200, "u1"), (16, 1000, "<u2"), "2"),
    ],
)
def test_slices_of_different_types_keep_their_values(tmp_path, name, first, other, slope):
    write_series(tmp_path, voxels_of("int16", (6, 4, 5)), NAMED_AFFINES["axial"])
    for k in range(6):
        path = slice_at(tmp_path, k)
        dataset = pydicom.dcmread(path)
        value, voxel, dtype = other if k else first
        dataset.PixelRepresentation = 0
        setattr(dataset, name, value)
        dataset.BitsStored = min(dataset.BitsStored, dataset.BitsAllocated)
        dataset.HighBit = dataset.BitsStored - 1
        dataset.PixelData, dataset.RescaleSlope = np.full((4, 5), voxel, dtype).tobytes(), slope
        dataset.save_as(path)
    voxels = read_volume(tmp_path).voxels
    assert voxels.dtype == np.float32
    assert [set(plane.ravel()) for plane in voxels] == [{first[1] * int(slope)}] + [{other[1] * int(slope)}] * 5


def write_positions(folder: Path, positions) -> None:
    """Write an axial series whose slices lie at these heights, in mm."""
    write_series(folder, voxels_of("int16", (len(positions), 4, 5)), NAMED_AFFINES["axial"])
    for path, z in zip([slice_at(folder, k) for k in range(len(positions))], positions, strict=True):
        dataset = pydicom.dcmread(path)
        dataset.ImagePositionPatient = ["-3", "7.7", f"{z:g}"]
        dataset.save_as(path)


@pytest.mark.parametrize("spacing", [0.35, 0.5, 0.625, 1.25])
@pytest.mark.parametrize("count", [3, 4, 23])
def test_positions_may_be_rounded_to_a_tenth_of_a_millimetre(tmp_path, spacing, count):
    exact = -100.05 + spacing * np.arange(count)
    write_positions(tmp_path, np.round(exact, 1))
    volume = read_volume(tmp_path)
    corners = volume.geometry.to_lps([[0, 0, k] for k in range(count)])
    assert np.array_equal(corners[:, :2], np.tile([-3, 7.7], (count, 1)))
    assert np.abs(corners[:, 2] - exact).max() <= 0.121
    assert np.abs(corners[:, 2] - np.round(exact, 1)).max() <= 0.071
    assert DicomSeries.matched(volume.dicom.headers[::-1], volume.geometry) == volume.dicom


@pytest.mark.parametrize("spacing", [0.1, 0.125, 0.3, 0.625, 1.25])
@pytest.mark.parametrize("count", [4, 5, 12])
def test_a_missing_or_doubled_slice_is_found_among_thin_ones(tmp_path, spacing, count):
    exact = spacing * np.arange(count)
    spoilers = {
        "missing or doubled": lambda k: np.delete(exact, k),
        "several images of one place": lambda k: np.insert(exact, k, exact[k]),
    }
    for said, spoil in spoilers.items():
        for k in {1, 2, count // 2, count - 2} - {0, count - 1}:
            write_positions(tmp_path / f"{said} {k}", spoil(k))
            with pytest.raises(ImageError, match=said):
                read_volume(tmp_path / f"{said} {k}")


@pytest.mark.parametrize("gap", [1, 3, 5], ids=["at the beginning", "between", "at the end"])
def test_a_gap_is_named_by_the_slices_beside_it(tmp_path, gap):
    write_positions(tmp_path, [2 * k + 3 * (k >= gap) for k in range(6)])
    one, other = (slice_at(tmp_path, k).name for k in (gap - 1, gap))
    with pytest.raises(ImageError, match=rf"evenly spaced \({one} and {other} lie 5\.00 mm apart, others 2\.00 mm\)"):
        read_volume(tmp_path)


@pytest.mark.parametrize("count", [1, 4])
def test_phases_are_named_as_images_of_one_place(tmp_path, count):
    write_positions(tmp_path / "series", np.repeat(2.0 * np.arange(count), 2))
    names = sorted(slice_at(tmp_path / "series", k).name for k in (0, 1))
    said = rf"series holds several images of one place, as {names[0]} and {names[1]}: those of phases or echoes, or one"
    with pytest.raises(ImageError, match=said):
        read_volume(tmp_path / "series")


def test_a_spacing_that_drifts_is_refused(tmp_path):
    write_positions(tmp_path, np.cumsum(np.linspace(0.6, 0.65, 60)))
    with pytest.raises(ImageError, match="not evenly spaced"):
        read_volume(tmp_path)


def test_one_slice_takes_its_thickness(tmp_path):
    write_series(tmp_path / "series", voxels_of("int16", (1, 4, 5)), NAMED_AFFINES["axial"])
    path = next((tmp_path / "series").iterdir())
    dataset = pydicom.dcmread(path)
    dataset.SliceThickness = "4.5"
    dataset.save_as(path)
    assert read_volume(tmp_path / "series").geometry.spacing == (0.9765625, 0.9765625, 4.5)


@pytest.mark.parametrize("said", [b"3,7500", b"3.7\\5 ", b"nan   "])
def test_a_thickness_that_is_no_number_is_refused(tmp_path, said):
    write_series(tmp_path, voxels_of("int16", (1, 4, 5)), NAMED_AFFINES["axial"])
    path = next(tmp_path.iterdir())
    edit(tmp_path, lambda dataset: setattr(dataset, "SliceThickness", "3.7500"), number=0)
    path.write_bytes(path.read_bytes().replace(b"3.7500", said))
    with pytest.raises(ImageError, match=f"{path.name} has no SliceThickness of 1 number, .*; export the series again"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", ["one.dcm", "one.DCM", "IM0001", "one.ima"])
def test_a_single_file_is_read_as_a_folder_that_holds_it(tmp_path, name):
    write_series(tmp_path, voxels_of("int16", (1, 4, 5)), NAMED_AFFINES["oblique"], 2, -1024)
    edit(tmp_path, lambda dataset: setattr(dataset, "SliceThickness", "4.5"), number=0)
    file = next(tmp_path.iterdir()).rename(tmp_path / name)
    alone, folder = read_volume(file), read_volume(tmp_path)
    assert alone.study_id == folder.study_id and alone.dicom == folder.dicom
    assert np.array_equal(alone.geometry.affine, folder.geometry.affine)
    assert alone.geometry.spacing[2] == pytest.approx(4.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"NumberOfFrames": 3}, "is a DICOM file of 3 frames that does not say where they lie"),
        ({"SOPClassUID": EnhancedCTImageStorage}, "does not say where its frames lie"),
        ({"SOPClassUID": SegmentationStorage}, "is a DICOM segmentation"),
    ],
)
def test_a_single_file_that_is_no_slice_is_refused(tmp_path, change, said):
    write_series(tmp_path, voxels_of("int16", (1, 4, 5)), NAMED_AFFINES["axial"])
    file = next(tmp_path.iterdir())
    edit(tmp_path, lambda dataset: dataset.update(change), number=0)
    with pytest.raises(ImageError, match=rf"{file.name} {said}.*; save it as \.nii\.gz or \.nrrd"):
        read_volume(file)


def test_a_slice_of_fewer_pixels_than_it_says_is_refused(tmp_path):
    write_series(tmp_path, voxels_of("int16", (5, 4, 5)), NAMED_AFFINES["axial"])
    edit(tmp_path, lambda dataset: setattr(dataset, "PixelData", dataset.PixelData[:-2]), number=3)
    with pytest.raises(ImageError, match=rf"{sorted(tmp_path.iterdir())[3].name} is a damaged DICOM file; copy it"):
        read_volume(tmp_path)


@pytest.mark.parametrize("name", ["one.dcm", "IM0001", "1.2.840.10008"])
def test_a_single_file_that_lies_nowhere_in_the_patient_is_a_picture(tmp_path, name):
    stored = voxels_of("int16", (1, 4, 5))
    write_series(tmp_path, stored, NAMED_AFFINES["axial"])
    without("ImagePositionPatient", number=0)(tmp_path)
    picture = read_volume(next(tmp_path.iterdir()).rename(tmp_path / name))
    assert np.array_equal(picture.voxels, stored) and picture.dicom is None


@pytest.mark.parametrize("name", ["a.vtk", "a.gipl", "a.h5", "a.nia", "a.nii.bak", "a.gz", "a"])
def test_a_file_of_another_ending_is_refused_even_if_itk_could_read_it(tmp_path, name, capfd):
    known = tmp_path / (name if name.endswith((".vtk", ".gipl", ".h5", ".nia")) else "a.nii")
    sitk.WriteImage(sitk.GetImageFromArray(voxels_of("int16")), str(known))
    path = known.rename(tmp_path / name)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(ImageError, match=rf"{name} has no known image ending and is no DICOM file; use one of \.nii, "):
        read_volume(path)
    assert capfd.readouterr().err == ""


def test_a_damaged_single_file_is_named(tmp_path):
    write_series(tmp_path, voxels_of("int16", (1, 4, 5)), NAMED_AFFINES["axial"])
    file = next(tmp_path.iterdir())
    whole = file.read_bytes()
    for share in (0.2, 0.5, 0.95):
        file.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ImageError, match=file.name):
            read_volume(file)


def test_slices_of_several_patients_are_no_series(tmp_path):
    volume = named_volume("oblique")
    write_series(tmp_path, volume.voxels.astype(np.int16), volume.geometry.affine)
    path = min(tmp_path.iterdir())
    slice_ = pydicom.dcmread(path)
    slice_.PatientID = "somebody else"
    slice_.save_as(path)
    with pytest.raises(ImageError, match=r"The slices in .* are of several patients; put those of each in a folder"):
        read_volume(tmp_path)


def test_other_files_beside_the_series_do_not_matter(tmp_path):
    write_series(tmp_path, voxels_of("int16"), NAMED_AFFINES["axial"])
    (tmp_path / "README.txt").write_text("Scanner 3")
    (tmp_path / ".DS_Store").write_bytes(b"\0" * 10)
    (tmp_path / "empty").touch()
    (tmp_path / "folder").mkdir()
    assert np.array_equal(read_volume(tmp_path).voxels, voxels_of("int16"))


def edit(folder, change, number=1):
    path = sorted(folder.iterdir())[number]
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(path)


def without(name, number=1):
    return lambda folder: edit(folder, lambda dataset: delattr(dataset, name), number)


def with_value(name, value):
    return lambda folder, number=1: edit(folder, lambda dataset: setattr(dataset, name, value), number)


def slice_at(folder, k):
    """The file of slice k of an axial series."""
    return sorted(folder.iterdir(), key=lambda p: pydicom.dcmread(p).ImagePositionPatient[2])[k]


SPOILERS = {
    "missing slice": (lambda folder: slice_at(folder, 2).unlink(), "missing"),
    "duplicate slice": (
        lambda folder: (folder / "copy.dcm").write_bytes(slice_at(folder, 1).read_bytes()),
        r"several images of one place, as copy\.dcm and slice",
    ),
    "two series": (
        lambda folder: write_series(folder, voxels_of("int16"), np.eye(4), prefix="other"),
        "2 DICOM series",
    ),
    "another size": (with_value("Rows", 2), "size"),
    "another pixel spacing": (with_value("PixelSpacing", [0.98, 0.99]), "pixel spacing"),
    "another orientation": (with_value("ImageOrientationPatient", [0, 1, 0, 1, 0, 0]), "orientation"),
    "no orientation": (without("ImageOrientationPatient"), "ImageOrientationPatient"),
    "no spacing": (without("PixelSpacing"), "PixelSpacing"),
    "no columns": (without("Columns"), r"Columns of 1 number\b.*; export the series again\.$"),
    "half a position": (with_value("ImagePositionPatient", ["0", "", "6"]), r"ImagePositionPatient of 3 numbers"),
    "position that is no place": (with_value("ImagePositionPatient", ["0", "nan", "6"]), "ImagePositionPatient"),
    "empty position": (with_value("ImagePositionPatient", None), "ImagePositionPatient"),
    "axes of no length": (
        with_value("ImageOrientationPatient", [0] * 6),
        r"slice001\.dcm has the ImageOrientationPatient \[0\.0, .*\], whose axes coincide or have no length",
    ),
    "axes that coincide": (with_value("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "whose axes coincide"),
    "slices beside each other": (
        lambda folder: [with_value("ImagePositionPatient", [9 * n, 0, 0])(folder, n) for n in range(6)],
        r"/series: The affine .* is singular: two voxel axes coincide",
    ),
    "no pixels": (without("PixelData"), "is a damaged DICOM file"),
    "cut pixels": (
        lambda folder: (p := slice_at(folder, 0)).write_bytes(p.read_bytes()[:-30]),
        "decoded",
    ),
}


@pytest.mark.parametrize("spoiler", SPOILERS)
def test_a_series_that_is_not_whole_is_refused(tmp_path, spoiler):
    folder = tmp_path / "series"
    write_series(folder, voxels_of("int16", (6, 4, 5)), NAMED_AFFINES["axial"])
    spoil, named = SPOILERS[spoiler]
    spoil(folder)
    with pytest.raises(ImageError, match=named) as error:
        read_volume(folder)
    assert str(folder) in str(error.value)


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(ImageError, match="no DICOM images"):
        read_volume(tmp_path)


# The study


@pytest.mark.parametrize("name", NAMED_AFFINES)
def test_the_study_is_the_same_in_every_format(tmp_path, name):
    volume = named_volume(name)
    for ending in FORMATS:
        write_volume(tmp_path / f"a{ending}", volume)
        assert read_volume(tmp_path / f"a{ending}").study_id == volume.study_id, ending


@pytest.mark.parametrize("name", DICOM_NAMES)
def test_a_series_and_its_conversion_are_the_same_study(tmp_path, name):
    write_series(tmp_path / "series", voxels_of("int16"), NAMED_AFFINES[name])
    series = read_volume(tmp_path / "series")
    for ending in FORMATS:
        write_volume(tmp_path / f"a{ending}", series)
        assert read_volume(tmp_path / f"a{ending}").study_id == series.study_id, ending


def test_the_id_of_a_study_stays_the_same_between_releases():
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    assert (
        Volume(voxels, Geometry.from_spacing((2, 3, 4), (0.5, 0.5, 2.0))).study_id == "e994da64760e273cafbaaed582507bc3"
    )


def test_another_voxel_type_shape_or_place_is_another_study():
    voxels = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    geometry = Geometry.from_spacing((2, 3, 4))
    changed = voxels.copy()
    changed[1, 2, 3] += 1
    moved = geometry.affine + np.pad([[1e-3]], ((0, 3), (3, 0)))
    others = [
        Volume(changed, geometry),
        Volume(voxels.astype(np.int32), geometry),
        Volume(voxels.reshape(2, 4, 3), Geometry.from_spacing((2, 4, 3))),
        Volume(voxels, Geometry((2, 3, 4), moved)),
        Volume(voxels, Geometry.from_spacing((2, 3, 4), (1.0, 1.0, 1.001))),
        Volume(voxels, geometry),
    ]
    assert len({v.study_id for v in others}) == len(others)


# Labelmaps


def test_a_labelmap_is_read_in_the_smallest_type(tmp_path):
    for largest, dtype in ((255, np.uint8), (256, np.uint16), (65535, np.uint16)):
        voxels = np.full((2, 3, 4), largest, np.float64)
        write_volume(tmp_path / "a.nii.gz", Volume(voxels, Geometry.from_spacing(voxels.shape)))
        assert read_labelmap(tmp_path / "a.nii.gz").voxels.dtype == dtype
        assert read_labelmap(tmp_path / "a.nii.gz").voxels.max() == largest


@pytest.mark.parametrize("value", [-1.0, 0.5, 65536.0, np.nan, np.inf])
def test_voxels_that_are_no_labels_are_refused(tmp_path, value):
    voxels = np.zeros((2, 3, 4))
    voxels[1, 1, 1] = value
    write_volume(tmp_path / "a.nii.gz", Volume(voxels, Geometry.from_spacing(voxels.shape)))
    with pytest.raises(ImageError, match="whole numbers"):
        read_labelmap(tmp_path / "a.nii.gz")


# NRRD files of others


def write_header(path: Path, fields: str, voxels: np.ndarray) -> Path:
    """An NRRD file by hand: 8-bit voxels under some fields."""
    head = f"NRRD0004\ntype: uint8\nencoding: raw\n{fields}\n\n"
    path.write_bytes(head.encode() + voxels.astype(np.uint8).tobytes())
    return path


def test_the_spacings_of_a_colour_nrrd_are_those_of_its_space(tmp_path):
    fields = "dimension: 4\nsizes: 3 4 5 6\nkinds: RGB-color domain domain domain\nspacings: nan 0.5 0.7 2.0"
    volume = read_volume(write_header(tmp_path / "colour.nrrd", fields, np.zeros((6, 5, 4, 3))))
    assert volume.shape == (6, 5, 4) and volume.geometry.spacing == pytest.approx((0.5, 0.7, 2.0))


def sparse_nrrd(promised: str = "256 256 240") -> bytes:
    """A mask of one voxel in 15.7 million, by bzip2."""
    voxels = np.zeros((240, 256, 256), np.uint8)
    voxels[120, 100, 90] = 1
    head = f"NRRD0004\ntype: uint8\ndimension: 3\nsizes: {promised}\nencoding: bzip2\n\n"
    return head.encode() + bz2.compress(voxels.tobytes())


def test_a_sparse_mask_that_bzip2_made_tiny_is_read(tmp_path):
    (tmp_path / "mask.nrrd").write_bytes(sparse_nrrd())
    assert (tmp_path / "mask.nrrd").stat().st_size < 400
    assert np.argwhere(read_labelmap(tmp_path / "mask.nrrd").voxels).tolist() == [[120, 100, 90]]


@pytest.mark.parametrize(
    ("promised", "named"),
    [("1000 1000 999", "promises 1000x1000x999 voxels"), ("256 256 241", "truncated"), ("2 2 2", "truncated")],
)
def test_bzip2_voxels_other_than_their_header_promises_are_refused(tmp_path, monkeypatch, promised, named):
    monkeypatch.setattr("aiassist.imaging.streams.SURPLUS", 1000)
    (tmp_path / "mask.nrrd").write_bytes(sparse_nrrd(promised))
    with pytest.raises(ImageError, match=named):
        read_volume(tmp_path / "mask.nrrd")


@pytest.mark.parametrize(
    "space",
    [
        "space dimension: 5\nspace directions: (1,0,0,0,0) (0,1,0,0,0) (0,0,1,0,0)",
        "space: RAST\nspace directions: (1,0,0,0) (0,1,0,0) (0,0,1,0)\nspace origin: (0,0,0,0)",
    ],
)
def test_an_nrrd_of_a_space_of_more_dimensions_is_refused(tmp_path, space):
    file = write_header(tmp_path / "odd.nrrd", f"dimension: 3\nsizes: 4 5 6\n{space}", np.zeros((6, 5, 4)))
    with pytest.raises(ImageError, match="more than three dimensions"):
        read_volume(file)
