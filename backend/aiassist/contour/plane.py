"""One slice of a volume, across any of its own axes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiassist.errors import ContourError
from aiassist.imaging import Geometry


@dataclass(frozen=True)
class Plane:
    """Slice `index` across array axis `axis` (0, 1, 2 for k, j, i).

    Its rows and columns are the two remaining axes in the array's order, so ``(x, y)`` is ``(i, j)``
    across k, ``(i, k)`` across j, and ``(j, k)`` across i.

    Raises
    ------
    ContourError
        When there is no such axis or slice in `geometry`.
    """

    geometry: Geometry
    axis: int
    index: int

    def __post_init__(self):
        if self.axis not in (0, 1, 2):
            raise ContourError(f"A volume has the axes 0, 1 and 2 (k, j, i), not {self.axis!r}.")
        if not 0 <= self.index < self.geometry.shape[self.axis]:
            last = self.geometry.shape[self.axis] - 1
            raise ContourError(f"There is no slice {self.index} across axis {self.axis}; they run from 0 to {last}.")

    @property
    def spacing(self) -> np.ndarray:
        """Size of a pixel ``(x, y)`` in mm."""
        rows, columns = (self.geometry.spacing_kji[a] for a in range(3) if a != self.axis)
        return np.array([columns, rows])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        rows, columns = (self.geometry.shape[a] for a in range(3) if a != self.axis)
        return rows, columns

    def of(self, array: np.ndarray) -> np.ndarray:
        """The slice (rows, columns) of an array of the volume's shape; a view."""
        return array[(*(slice(None),) * self.axis, self.index)]

    def to_xy(self, points_ijk) -> np.ndarray:
        """Voxel indices ``(i, j, k)``, shape (n, 3), as ``(x, y)`` on the slice, shape (n, 2)."""
        kji = np.asarray(points_ijk, dtype=float).reshape(-1, 3)[:, ::-1]
        return np.delete(kji, self.axis, axis=1)[:, ::-1]

    def to_ijk(self, points_xy) -> np.ndarray:
        """Points ``(x, y)`` of the slice as voxel indices ``(i, j, k)``, shape (n, 3)."""
        rows_columns = np.asarray(points_xy, dtype=float).reshape(-1, 2)[:, ::-1]
        return np.insert(rows_columns, self.axis, self.index, axis=1)[:, ::-1]
