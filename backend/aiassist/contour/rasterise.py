"""From outlines back to pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from aiassist.contour.ring import Ring, following


def rasterise(rings: Iterable[Ring], shape: tuple[int, int]) -> np.ndarray:
    """The mask (rows, columns) whose pixel centres lie inside an odd number of rings.

    A hole thus empties the part around it, whether it is marked as one or not; `paint` goes by the marks. A
    centre exactly on an outline belongs to the part on its right and below, so that parts that share an edge
    share no pixel.
    """
    mask = np.zeros(shape, bool)
    for ring in rings:
        toggle_inside(mask, ring.points)
    return mask


def paint(rings: Iterable[Ring], shape: tuple[int, int]) -> np.ndarray:
    """The mask (rows, columns) that parts fill and holes empty, small rings over large ones.

    Of traced rings it is what `rasterise` makes. When an outline was pulled over another part, or over a hole,
    all of it is filled, or empty, where `rasterise` would turn what lies inside into its opposite.
    """
    mask = np.zeros(shape, bool)
    for ring in _largest_first(rings):
        box, inside = _inside(ring.points, shape)
        mask[box][inside] = not ring.hole
    return mask


def without_swallowed(rings: Sequence[Ring], shape: tuple[int, int]) -> tuple[Ring, ...]:
    """The rings without those that `paint` makes nothing of: parts inside filled parts, holes outside all parts."""
    mask, layers = np.zeros(shape, bool), []
    for ring in _largest_first(rings):
        box, inside = _inside(ring.points, shape)
        changed = inside & (mask[box] == ring.hole)
        if changed.any():
            mask[box][inside] = not ring.hole
            layers.append((ring, box, inside, changed))
    covered = np.zeros(shape, bool)
    for ring, box, inside, changed in reversed(layers):
        if not (changed & ~covered[box]).any():  # smaller rings undo all of it, which then may be for nothing, too
            return without_swallowed([other for other in rings if other is not ring], shape)
        covered[box] |= inside
    kept = {layer[0] for layer in layers}
    return tuple(ring for ring in rings if ring in kept)


def _largest_first(rings: Iterable[Ring]) -> list[Ring]:
    return sorted(rings, key=lambda ring: -ring.area)


def toggle_inside(mask: np.ndarray, points: np.ndarray, corner: tuple[float, float] = (0.0, 0.0)) -> None:
    """Flip, in place, the pixels whose centres lie inside a closed polygon; `corner` is pixel (0, 0)'s (x, y)."""
    box, inside = _inside(points - corner, mask.shape)
    mask[box] ^= inside


def _inside(points: np.ndarray, shape: tuple[int, int]) -> tuple[tuple[slice, slice], np.ndarray]:
    """A box of rows and columns around a closed polygon, and which of its pixel centres lie inside."""
    x, y = points.T
    rows, columns = shape
    x_next, y_next = following(x), following(y)
    # Rows that an edge crosses, half open: a vertex on a row counts below it.
    first, last = (np.clip(np.ceil(end(y, y_next)), 0, rows).astype(int) for end in (np.minimum, np.maximum))
    count = last - first
    edge = np.repeat(np.arange(len(x)), count)
    if not len(edge):
        return (slice(0), slice(0)), np.zeros((0, 0), bool)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count, count) + first[edge]
    rise = y_next[edge] - y[edge]
    at = x[edge] + (row - y[edge]) * (x_next[edge] - x[edge]) / rise
    start = np.clip(np.ceil(at), 0, columns).astype(int)  # the first pixel centre at or right of each crossing
    top, bottom = row.min(), row.max() + 1
    left, right = start.min(), start.max()
    flips = np.bincount((row - top) * (right - left + 1) + start - left, minlength=(bottom - top) * (right - left + 1))
    odd = np.cumsum(flips.reshape(bottom - top, -1)[:, :-1], axis=1, dtype=np.int32) % 2
    return (slice(top, bottom), slice(left, right)), odd.astype(bool)
