"""Cells twice as large, from pairs along each axis: several times as fast as reductions over blocks of cells."""

from __future__ import annotations

import numpy as np


def halved(cells: np.ndarray, join: np.ufunc = np.add) -> np.ndarray:
    """What `join` makes of each block of 2x2x2 cells, by default their sum; the sides of the grid are even."""
    for axis in range(3):
        first, second = (cells[(*[slice(None)] * axis, slice(start, None, 2))] for start in (0, 1))
        cells = join(first, second)
    return cells
