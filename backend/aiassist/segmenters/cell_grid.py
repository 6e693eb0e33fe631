"""A whole volume averaged to coarse cells, and back: for methods that see all of it at once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aiassist.imaging import Geometry, Region


@dataclass(frozen=True)
class CellGrid:
    """Cells of whole voxels that cover a grid; the last cell of an axis may hold fewer voxels than the others.

    Parameters
    ----------
    geometry : Geometry
        Of the volume.
    voxels_a_cell : tuple of int
        Along each axis ``(k, j, i)``.
    """

    geometry: Geometry
    voxels_a_cell: tuple[int, int, int]

    @classmethod
    def of_size(cls, geometry: Geometry, mm: float) -> CellGrid:
        """The grid whose cells are about `mm` wide; voxels that are wider stay as they are."""
        return cls(geometry, tuple(max(1, round(mm / spacing)) for spacing in geometry.spacing_kji))

    @cached_property
    def shape(self) -> tuple[int, int, int]:
        """Number of cells ``(k, j, i)``."""
        return tuple(-(-n // few) for n, few in zip(self.geometry.shape, self.voxels_a_cell, strict=True))

    @cached_property
    def spacing(self) -> np.ndarray:
        """Size of a cell ``(k, j, i)`` in mm."""
        return np.array(self.geometry.spacing_kji) * self.voxels_a_cell

    @cached_property
    def millilitres(self) -> float:
        """Volume of a cell."""
        voxel = abs(np.linalg.det(self.geometry.affine[:3, :3]))
        return float(voxel * np.prod(self.voxels_a_cell)) / 1000

    def along(self, axis_lps: int) -> np.ndarray:
        """Patient coordinate of each cell's centre in mm, float32 ``(k, j, i)``; axis 0 is L, 1 P, 2 S."""
        total = np.float32(self.geometry.affine[axis_lps, 3])
        for axis, (cells, few) in enumerate(zip(self.shape, self.voxels_a_cell, strict=True)):
            step = self.geometry.affine[axis_lps, 2 - axis]
            centres = (np.arange(cells) + 0.5) * few - 0.5
            total = total + (step * centres).astype(np.float32).reshape([-1 if a == axis else 1 for a in range(3)])
        return total

    def average(self, voxels: np.ndarray, low: float, high: float) -> np.ndarray:
        """Mean of the voxels of each cell, float32, clipped to a range first; NaN counts as `low`."""
        thick, *few = self.voxels_a_cell
        cells = np.empty(self.shape, np.float32)
        missing = [(0, n * f - m) for n, f, m in zip(self.shape[1:], few, voxels.shape[1:], strict=True)]
        for k in range(self.shape[0]):
            slab = np.clip(voxels[k * thick : (k + 1) * thick].astype(np.float32), low, high)
            plane = np.pad(np.nan_to_num(slab, copy=False, nan=low).mean(axis=0), missing, mode="edge")
            cells[k] = plane.reshape(self.shape[1], few[0], self.shape[2], few[1]).mean(axis=(1, 3))
        return cells

    def voxel_region(self, cells: Region) -> Region:
        """The voxels of a box of cells."""
        start, stop = (np.multiply(at, self.voxels_a_cell) for at in (cells.start, cells.stop))
        return Region(tuple(start), tuple(stop)).clip(self.geometry.shape)

    def spread(self, values: np.ndarray, k: int, cells: Region) -> np.ndarray:
        """Values of one layer ``(j, i)`` of a box of cells at the voxels ``(j, i)`` of that box."""
        region = self.voxel_region(cells)
        wide = values[k].repeat(self.voxels_a_cell[1], axis=0).repeat(self.voxels_a_cell[2], axis=1)
        return wide[: region.shape[1], : region.shape[2]]
