"""A crop of a study resampled to a small grid for computing, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from aiassist.imaging import Geometry, MaskPatch, Region, Volume, finite


@dataclass(frozen=True)
class WorkingGrid:
    """A region of the study, covered by cells of one or more voxels.

    Parameters
    ----------
    region : Region
        The crop, inside the volume.
    shape : tuple of int
        Cells ``(k, j, i)``; never more than there are voxels.
    spacing : numpy.ndarray
        Size of a cell ``(k, j, i)`` in mm.
    """

    region: Region
    shape: tuple[int, int, int]
    spacing: np.ndarray

    @classmethod
    def around(cls, low_ijk, high_ijk, geometry: Geometry, cells: int, margin: float) -> WorkingGrid:
        """The grid over a box of continuous indices.

        Parameters
        ----------
        low_ijk, high_ijk : array_like
            Opposite corners ``(i, j, k)``.
        geometry : Geometry
            Of the volume.
        cells : int
            Cells along a side of the box at most; a side of fewer voxels keeps them.
        margin : float
            Share of the side that is added on each side, at least two voxels.
        """
        low, high = np.asarray(low_ijk)[::-1], np.asarray(high_ijk)[::-1]
        side = high - low
        grow = np.maximum(margin * side, 2.0)
        start, stop = np.floor(low - grow).astype(int), np.ceil(high + grow).astype(int) + 1
        region = Region(tuple(start), tuple(stop)).clip(geometry.shape)
        voxels_a_cell = np.maximum(side / cells, 1.0)
        shape = tuple(int(max(1, np.rint(n / v))) for n, v in zip(region.shape, voxels_a_cell, strict=True))
        spacing = np.array(geometry.spacing_kji) * region.shape / shape
        return cls(region, shape, spacing)

    def to_cells(self, points_ijk) -> np.ndarray:
        """Continuous cell indices ``(k, j, i)``, shape (n, 3), of voxel indices ``(i, j, k)``."""
        points = np.asarray(points_ijk, dtype=float).reshape(-1, 3)[:, ::-1]
        scale = np.array(self.shape) / self.region.shape
        return (points - self.region.start + 0.5) * scale - 0.5

    def nearest_cells(self, points_ijk) -> np.ndarray:
        """Whole cell indices (n, 3) inside the grid nearest to voxel indices ``(i, j, k)``."""
        return np.clip(np.rint(self.to_cells(points_ijk)), 0, np.array(self.shape) - 1).astype(int)

    def ellipsoid(self, low_ijk, high_ijk) -> tuple[np.ndarray, np.ndarray]:
        """Radius of each cell, 1 on the ellipsoid in a box of voxel indices, and whether it lies in the box."""
        low, high = self.to_cells(low_ijk)[0], self.to_cells(high_ijk)[0]
        centre, half = (low + high) / 2, np.maximum((high - low) / 2, 0.5)
        offsets = np.ix_(*[(np.arange(n) - c) / h for n, c, h in zip(self.shape, centre, half, strict=True)])
        radius = np.sqrt(sum(o**2 for o in offsets)).astype(np.float32)
        inside = np.ones(self.shape, bool)
        for offset in offsets:
            inside &= np.abs(offset) <= 1 + 1e-6
        return radius, inside

    def sample(self, volume: Volume) -> np.ndarray:
        """Grey values of the cells, float32; what is not finite takes the median of what is."""
        steps = tuple(max(1, int(n / cells / 2)) for n, cells in zip(self.region.shape, self.shape, strict=True))
        few = tuple(slice(step // 2, None, step) for step in steps)
        return resample(finite(volume.voxels[self.region.slices][few]), self.shape, self.region.shape, steps)

    def sample_mask(self, patch: MaskPatch) -> np.ndarray:
        """Share of each cell, 0 to 1, that a mask covers."""
        return resample(patch.within(self.region).astype(np.float32), self.shape)

    def to_voxels(self, field: np.ndarray) -> np.ndarray:
        """A float field of the cells, interpolated to the region's voxels."""
        return resample(field.astype(np.float32), self.region.shape)


def resample(array: np.ndarray, shape, whole=None, steps=(1, 1, 1)) -> np.ndarray:
    """Linear interpolation to `shape` over the same extent, averaging where it shrinks.

    Separable: one small matrix per axis, so that it costs three matrix products.

    Parameters
    ----------
    array : numpy.ndarray
    shape : tuple of int
    whole, steps : tuple of int, optional
        `array` holds every n-th voxel, beginning at number n // 2, of one of the shape `whole`; `steps` are the n.
    """
    rows = [
        _triangle_weights(old, cells, step) if held != cells or step > 1 else None
        for cells, held, old, step in zip(shape, array.shape, whole or array.shape, steps, strict=True)
    ]
    return weigh(array, rows)


def weigh(array: np.ndarray, rows: Sequence[np.ndarray | None]) -> np.ndarray:
    """An array (k, j, i) with each of its axes multiplied by a matrix (new, old); None leaves an axis as it is."""
    k, j, i = rows
    if k is not None:
        array = np.tensordot(k, array, axes=(1, 0))
    if j is not None:
        array = np.matmul(j, array)
    return np.ascontiguousarray(array if i is None else array @ i.T)


def _triangle_weights(old: int, new: int, step: int) -> np.ndarray:
    """Matrix (new, held) of a triangle filter, one new or old cell wide, whichever is larger.

    Of the old cells every `step`-th is held, beginning at number ``step // 2``.
    """
    scale, places = old / new, np.arange(step // 2, old, step)
    centres = (np.arange(new) + 0.5) * scale - 0.5
    width = max(scale, 1.0)
    weights = np.maximum(1 - np.abs(places - centres[:, np.newaxis]) / width, 0)
    nearest = np.clip(np.rint((centres - step // 2) / step), 0, len(places) - 1).astype(int)
    empty = weights.sum(axis=1) == 0
    weights[empty, nearest[empty]] = 1
    return (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32)
