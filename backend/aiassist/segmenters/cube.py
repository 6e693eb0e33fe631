"""A cube of cells around the prompts, sampled from a volume, and back.

Coordinates are array order ``(k, j, i)``, continuous voxel indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache, reduce

import numpy as np

from aiassist.imaging import Region
from aiassist.segmenters.working_grid import WorkingGrid, weigh

#: Share of the box's side that is added on each side of it.
MARGIN = 0.125
#: A side is never taken shorter than this share of the longest, in mm.
MIN_ASPECT = 0.25


@dataclass(frozen=True)
class Cube:
    """The cube of cells over a box of a volume.

    Parameters
    ----------
    low, high : numpy.ndarray
        Border-to-border extent ``(k, j, i)`` in continuous voxel indices; may reach beyond the volume.
    shape : tuple of int
        Of the volume.
    spacing : tuple of float
        Of the volume, ``(k, j, i)`` in mm.
    cells : int
        Along each side of the cube.
    """

    low: np.ndarray
    high: np.ndarray
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    cells: int

    @classmethod
    def around(cls, low, high, shape, spacing, cells: int) -> Cube:
        """The cube over a structure's box, with a margin; short sides are lengthened."""
        low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
        side = np.maximum(high - low, 1.0)
        millimetres = side * spacing
        side = np.maximum(millimetres, MIN_ASPECT * millimetres.max()) / spacing
        centre, half = (low + high) / 2, side * (0.5 + MARGIN)
        return cls(centre - half, centre + half, tuple(shape), tuple(spacing), cells)

    @property
    def cell(self) -> np.ndarray:
        """Voxels per cell ``(k, j, i)``."""
        return (self.high - self.low) / self.cells

    def to_cells(self, points) -> np.ndarray:
        """Continuous cell coordinates of continuous voxel indices, (n, 3), both ``(k, j, i)``."""
        points = np.asarray(points, dtype=float).reshape(-1, 3)
        return (points - self.low) / self.cell - 0.5

    def shift(self, by) -> Cube:
        """The same cube in coordinates in which it lies so much farther along each axis ``(k, j, i)``."""
        return replace(self, low=self.low + by, high=self.high + by)

    def weights(self) -> list[np.ndarray]:
        """One matrix (cells, voxels) per axis: a triangle filter; rows outside the volume are zero."""
        found = []
        for axis in range(3):
            size, step = self.shape[axis], self.cell[axis]
            centres = self.low[axis] + (np.arange(self.cells) + 0.5) * step
            rows = np.maximum(1 - np.abs(np.arange(size) - centres[:, np.newaxis]) / max(step, 1.0), 0)
            inside = (centres >= -0.5) & (centres <= size - 0.5)
            if not inside.any():  # a volume thinner than a cell: those that overlap it
                inside = np.abs(centres - (size - 1) / 2) < (step + size) / 2
            rows[~inside] = 0
            total = rows.sum(axis=1, keepdims=True)
            found.append((rows / np.where(total > 0, total, 1)).astype(np.float32))
        return found

    def sample(self, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells (c, c, c) of an array of voxels, and which of them lie inside the volume."""
        rows = self.weights()
        k, j, i = [row.sum(1) > 0 for row in rows]
        return weigh(voxels, rows), k[:, None, None] & j[None, :, None] & i[None, None, :]

    def thinned(self) -> tuple[Cube, tuple[slice, slice, slice]]:
        """The cube over fewer voxels, and which those are: two along a cell's side are enough to average."""
        steps = np.maximum(self.cell // 2, 1).astype(int)
        shape = tuple(-(-n // step) for n, step in zip(self.shape, steps, strict=True))
        cube = Cube(self.low / steps, self.high / steps, shape, tuple(np.array(self.spacing) * steps), self.cells)
        return cube, tuple(slice(None, None, step) for step in steps)

    def on_grid(self, grid: WorkingGrid) -> Cube:
        """The same cube in the coordinates of a working grid's cells."""
        low, high = grid.to_cells([self.low[::-1], self.high[::-1]])
        return Cube(low, high, grid.shape, tuple(grid.spacing), self.cells)

    def positive(self, cells: np.ndarray) -> np.ndarray:
        """Where a field of the cells, interpolated linearly at the volume's voxels, is above zero."""
        return together([(self, cells)])

    def extent(self, cells: np.ndarray) -> Region:
        """The box of the voxels at which a field of the cells is above zero."""
        box = self._reached(cells)
        rows, ends = self._rows(box), []
        for axis, start in enumerate(box.start):
            along, one, two = rows[axis], *(rows[other] for other in range(3) if other != axis)
            planes = np.moveaxis(cells, axis, 0)
            first, last = _first_above(along, planes, one, two), _first_above(along[::-1], planes, one, two)
            ends.append((0, 0) if first is None else (start + first, start + len(along) - last))
        return Region(*zip(*ends, strict=True))

    def _reached(self, cells: np.ndarray) -> Region:
        """The box of voxels in which cells above zero have a say."""
        ends = []
        for axis in range(3):
            above = (cells > 0).any(axis=tuple(other for other in range(3) if other != axis))
            voxels = np.flatnonzero(self._weights(axis) @ above > 0)
            ends.append((voxels[0], voxels[-1] + 1) if len(voxels) else (0, 0))
        return Region(*zip(*ends, strict=True))

    def _rows(self, box: Region) -> list[np.ndarray]:
        """For each axis the `_weights` of a box's voxels."""
        return [self._weights(axis)[part] for axis, part in enumerate(box.slices)]

    def _weights(self, axis: int) -> np.ndarray:
        """Matrix (voxels, cells) that interpolates along an axis."""
        places = np.clip((np.arange(self.shape[axis]) - self.low[axis]) / self.cell[axis] - 0.5, 0, self.cells - 1)
        return np.maximum(1 - np.abs(places[:, np.newaxis] - np.arange(self.cells)), 0).astype(np.float32)


def together(fields: Sequence[tuple[Cube, np.ndarray]]) -> np.ndarray:
    """Where the sum of fields of cubes over one volume, interpolated linearly at its voxels, is above zero.

    Parameters
    ----------
    fields : sequence of (Cube, numpy.ndarray)
        Cubes of the same shape of volume, and a field (c, c, c) of each one's cells.

    Returns
    -------
    numpy.ndarray
        Bool (k, j, i) of the volume.
    """
    out = np.zeros(fields[0][0].shape, bool)
    box = Region((0, 0, 0), (0, 0, 0))
    for cube, cells in fields:
        box = box.union(cube._reached(cells))
    found, planes = out[box.slices], []
    for cube, cells in fields:
        k, j, i = cube._rows(box)
        planes.append((np.matmul(j, np.tensordot(k, cells, axes=(1, 0))), i.T))
    for number, inside in enumerate(found):  # whole, the fields would not fit the processor's cache
        np.greater(reduce(np.add, (plane[number] @ across for plane, across in planes)), 0, out=inside)
    return out


def _first_above(along: np.ndarray, planes: np.ndarray, one: np.ndarray, two: np.ndarray) -> int | None:
    """The first row of `along` (voxels, cells) at which planes of cells, interpolated, are above zero at a voxel.

    Between cells none of which is above zero no voxel is, so that few planes are interpolated at their voxels.
    """
    for number, row in enumerate(along):
        held = np.flatnonzero(row)
        plane = np.tensordot(row[held], planes[held], axes=(0, 0))
        if (plane > 0).any() and (one @ plane @ two.T > 0).any():
            return number
    return None


@cache
def radius(size: int) -> np.ndarray:
    """Radius of each cell: 1 on the ellipsoid in the prompts' box, which the cube surrounds."""
    half = size / (1 + 2 * MARGIN) / 2
    square = (((np.arange(size) + 0.5 - size / 2) / half) ** 2).astype(np.float32)
    found = np.sqrt(square[:, None, None] + square[None, :, None] + square[None, None, :])
    found.flags.writeable = False
    return found
