"""Voxel indices and patient coordinates agree on every kind of grid."""

from __future__ import annotations

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given
from hypothesis import strategies as st
from strategies import NAMED_AFFINES, SHEARED, affines, geometries, points

from aiassist.errors import ImageError
from aiassist.imaging import Geometry, Region


@given(geometries(), points(least=1))
def test_indices_return_from_lps(geometry, indices):
    assert np.allclose(geometry.to_ijk(geometry.to_lps(indices)), indices, rtol=0, atol=1e-7)


@given(geometries(), points(least=1))
def test_lps_returns_from_indices(geometry, lps):
    assert np.allclose(geometry.to_lps(geometry.to_ijk(lps)), lps, rtol=0, atol=1e-7)


@given(geometries())
def test_no_points_map_to_no_points(geometry):
    assert geometry.to_lps([]).shape == geometry.to_ijk([]).shape == (0, 3)


@given(geometries())
def test_spacing_direction_and_origin_make_up_the_affine(geometry):
    assert np.allclose(geometry.direction * geometry.spacing, geometry.affine[:3, :3], atol=1e-12)
    assert np.allclose(np.linalg.norm(geometry.direction, axis=0), 1)
    assert np.array_equal(geometry.to_lps([[0, 0, 0]])[0], geometry.origin)
    assert geometry.spacing_kji == geometry.spacing[::-1]
    assert geometry.size == geometry.shape[::-1]


@given(geometries(), points(least=1))
def test_ras_is_lps_with_x_and_y_turned_round(geometry, indices):
    ras = np.column_stack([indices, np.ones(len(indices))]) @ geometry.affine_ras.T
    assert np.allclose(ras[:, :3], geometry.to_lps(indices) * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize("name", NAMED_AFFINES)
def test_lps_agrees_with_simpleitk(name):
    geometry = Geometry((3, 4, 5), NAMED_AFFINES[name])
    image = sitk.Image([5, 4, 3], sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing)
    image.SetOrigin(geometry.origin)
    image.SetDirection(geometry.direction.ravel().tolist())
    for index in ([0, 0, 0], [4, 3, 2], [1.25, 2.5, 0.75]):
        expected = image.TransformContinuousIndexToPhysicalPoint(index)
        assert np.allclose(geometry.to_lps([index])[0], expected, atol=1e-9)


@given(geometries(), st.data())
def test_crop_keeps_every_voxel_where_it_was(geometry, data):
    start = [data.draw(st.integers(0, n - 1)) for n in geometry.shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, geometry.shape, strict=True)]
    region = Region(start, stop)
    crop = geometry.crop(region)
    corners = np.array([[0, 0, 0], np.array(crop.size) - 1, [0.5, 0.25, 0.75]])
    assert crop.shape == region.shape
    assert np.allclose(crop.to_lps(corners), geometry.to_lps(corners + region.start[::-1]), atol=1e-9)
    assert geometry.crop(geometry.whole).same_grid(geometry)


@given(affines())
def test_half_a_voxel_makes_another_grid_and_rounding_does_not(affine):
    geometry = Geometry((4, 4, 4), affine)
    for shift, same in ((0.5, False), (1e-2, False), (1e-4, True), (0.0, True)):
        moved = affine.copy()
        moved[:3, 3] += affine[:3, 0] * shift
        assert geometry.same_grid(Geometry((4, 4, 4), moved)) is same
    assert not geometry.same_grid(Geometry((4, 4, 5), affine))


def test_a_slight_turn_makes_another_grid_once_it_shows_at_the_corners():
    turned = np.eye(4)
    turned[0, 1] = 1e-4
    small, large = ((8, 8, 8), (8, 512, 8))
    assert Geometry(small, np.eye(4)).same_grid(Geometry(small, turned))
    assert not Geometry(large, np.eye(4)).same_grid(Geometry(large, turned))


def test_a_voxel_reaches_half_a_voxel_around_its_centre():
    geometry = Geometry.from_spacing((3, 4, 5))
    asked = [[-0.5, -0.5, -0.5], [4.5, 3.5, 2.5], [4.51, 0, 0], [0, 3.51, 0], [0, 0, 2.51], [-0.51, 0, 0]]
    assert geometry.contains(asked).tolist() == [True, True, False, False, False, False]


def test_only_right_angles_are_orthogonal():
    assert all(Geometry((2, 2, 2), affine).is_orthogonal for affine in NAMED_AFFINES.values())
    assert not Geometry((2, 2, 2), SHEARED).is_orthogonal


def _affine(**cells):
    affine = np.eye(4)
    for where, value in cells.items():
        affine[int(where[1]), int(where[2])] = value
    return affine


@pytest.mark.parametrize(
    ("shape", "affine", "named"),
    [
        ((2, 2, 2), _affine(a00=np.nan), "nan"),
        ((2, 2, 2), _affine(a13=np.inf), "inf"),
        ((2, 2, 2), _affine(a00=0.0), "singular"),
        ((2, 2, 2), _affine(a00=0.0, a10=1.0), "singular"),
        ((2, 2, 2), _affine(a22=1e-9, a12=1.0), "singular"),
        ((2, 2, 2), np.eye(3), "4x4"),
        ((0, 2, 2), np.eye(4), "[2, 2, 0]"),
        ((2, 2), np.eye(4), "[2, 2]"),
    ],
)
def test_unusable_geometry_is_refused_by_value(shape, affine, named):
    with pytest.raises(ImageError) as error:
        Geometry(shape, affine)
    assert named in str(error.value)


def test_tiny_voxels_are_not_singular():
    assert Geometry((2, 2, 2), np.diag([1e-4, 1e-4, 1e-4, 1.0])).spacing == (1e-4, 1e-4, 1e-4)


def test_geometry_cannot_be_changed_from_outside():
    affine = np.eye(4)
    geometry = Geometry((2, 2, 2), affine)
    affine[0, 3] = 99
    assert geometry.origin == (0, 0, 0)
    with pytest.raises(ValueError):
        geometry.affine[0, 3] = 99
