"""A field of a cube's cells at the voxels of a volume."""

import numpy as np
import pytest
from scipy import ndimage

from aiassist.imaging import Region
from aiassist.segmenters.cube import Cube, together

#: Shape of a volume, and half the size of a box in its middle, both (k, j, i) in voxels: cells of many sizes.
CASES = [
    ((30, 40, 50), (3, 4, 5)),
    ((60, 90, 80), (20, 30, 25)),
    ((60, 90, 80), (40, 60, 30)),
    ((6, 90, 80), (2, 40, 30)),
]


def field(cells: int, seed: int) -> np.ndarray:
    """Positive in a blob with a ragged border."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=(cells,) * 3), 1.5)
    away = np.linalg.norm(np.indices((cells,) * 3) - (cells - 1) / 2, axis=0)
    return (0.6 * cells / 2 - away + 15 * noise).astype(np.float32)


@pytest.mark.parametrize(("shape", "half"), CASES)
def test_voxels_are_positive_where_the_field_is_by_linear_interpolation(shape, half):
    middle = (np.array(shape) - 1) / 2
    cube, cells = Cube.around(middle - half, middle + half, shape, (2, 1, 1), 24), field(24, 1)
    places = cube.to_cells(np.argwhere(np.ones(shape, bool))).clip(0, 23)
    wanted = ndimage.map_coordinates(cells.astype(float), places.T, order=1).reshape(shape)
    sure = np.abs(wanted) > 1e-4
    found = cube.positive(cells)
    assert found.any() and (found == (wanted > 0))[sure].all()


@pytest.mark.parametrize(("shape", "half"), CASES)
def test_fields_of_two_cubes_are_added_at_the_voxels(shape, half):
    middle, voxels = (np.array(shape) - 1) / 2, np.argwhere(np.ones(shape, bool))
    fields, wanted = [], 0
    for cells, seed in ((24, 1), (32, 2)):
        cube = Cube.around(middle - half, middle + half, shape, (2, 1, 1), cells)
        fields.append((cube, field(cells, seed)))
        places = cube.to_cells(voxels).clip(0, cells - 1)
        wanted = wanted + ndimage.map_coordinates(fields[-1][1].astype(float), places.T, order=1).reshape(shape)
    sure, found = np.abs(wanted) > 1e-4, together(fields)
    assert found.any() and (found == (wanted > 0))[sure].all()
    assert (together(fields[:1]) == fields[0][0].positive(fields[0][1])).all()


@pytest.mark.parametrize(("shape", "half"), CASES)
def test_the_extent_is_that_of_the_voxels(shape, half):
    middle = (np.array(shape) - 1) / 2
    cube = Cube.around(middle - half, middle + half, shape, (2, 1, 1), 24)
    off = []
    for seed in range(5):
        cells = field(24, seed)
        whole, seen = Region.of_mask(cube.positive(cells)), cube.extent(cells)
        assert whole.voxels > 0
        off += [np.subtract(seen.start, whole.start), np.subtract(seen.stop, whole.stop)]
    assert np.abs(off).sum() <= 1  # the last bit may differ where the field crosses zero at a voxel


def test_a_field_that_is_nowhere_positive_has_no_voxels():
    cube = Cube.around((10, 10, 10), (20, 20, 20), (30, 30, 30), (1, 1, 1), 24)
    nothing = np.full((24,) * 3, -1, np.float32)
    assert not cube.positive(nothing).any() and cube.extent(nothing).is_empty
