"""From outlines back to pixels."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from aiassist.contour.ring import Ring


def rasterise(rings: Iterable[Ring], shape: tuple[int, int]) -> np.ndarray:
    """The mask (rows, columns) whose pixel centres lie inside an odd number of rings.

    A hole thus empties the part around it. A centre exactly on an outline belongs to the part on its
    right and below, so that parts that share an edge share no pixel.
    """
    mask = np.zeros(shape, bool)
    for ring in rings:
        toggle_inside(mask, ring.points)
    return mask


def toggle_inside(mask: np.ndarray, points: np.ndarray, corner: tuple[float, float] = (0.0, 0.0)) -> None:
    """Flip, in place, the pixels whose centres lie inside a closed polygon; `corner` is pixel (0, 0)'s (x, y)."""
    points = points - corner
    rows, columns = mask.shape
    first = max(int(np.ceil(points[:, 1].min())), 0)
    last = min(int(np.ceil(points[:, 1].max())), rows)  # half open: a vertex on a row counts below it
    if first >= last:
        return
    x, y = points[:, 0], points[:, 1]
    x_next, y_next = np.roll(x, -1), np.roll(y, -1)
    row = np.arange(first, last)[:, np.newaxis]
    crosses = (y <= row) != (y_next <= row)
    rise = np.where(y_next == y, 1.0, y_next - y)
    at = np.where(crosses, x + (row - y) * (x_next - x) / rise, np.inf)
    start = np.clip(np.ceil(at), 0, columns)  # the first pixel centre at or right of each crossing
    which, _ = np.nonzero(crosses)
    flips = np.zeros((last - first, columns + 1), np.int32)
    np.add.at(flips, (which, start[crosses].astype(int)), 1)
    mask[first:last] ^= (np.cumsum(flips, axis=1)[:, :columns] % 2).astype(bool)
