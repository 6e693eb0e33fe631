"""A closed outline."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aiassist.errors import ContourError

#: Pairs of segments that are held against each other at once.
PAIRS = 4_000_000


@dataclass(frozen=True, eq=False)
class Ring:
    """A closed polygon on a slice. Immutable.

    Parameters
    ----------
    points : array_like
        Vertices (n, 2), ``(x, y)`` in pixels, n of three or more.
    hole : bool
        Whether it bounds a hole of the mask rather than a part of it.

    Raises
    ------
    ContourError
        With fewer than three vertices, or a vertex that is not finite.
    """

    points: np.ndarray
    hole: bool = False

    def __post_init__(self):
        points = np.array(self.points, dtype=float)
        if points.ndim != 2 or points.shape[1:] != (2,) or len(points) < 3:
            raise ContourError(f"A ring needs three or more vertices (x, y), not an array of shape {points.shape}.")
        if not np.isfinite(points).all():
            raise ContourError(f"The vertex {points[~np.isfinite(points).all(axis=1)][0].tolist()} is not finite.")
        points.flags.writeable = False
        object.__setattr__(self, "points", points)

    def __len__(self) -> int:
        return len(self.points)

    def moved(self, points: np.ndarray) -> Ring:
        """The same ring with other vertices."""
        return Ring(points, self.hole)

    @property
    def area(self) -> float:
        """Enclosed area in square pixels, never negative."""
        return abs(signed_area(self.points))

    @cached_property
    def box(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest ``(x, y)`` of the vertices."""
        return self.points.min(axis=0), self.points.max(axis=0)


def check_point(point) -> np.ndarray:
    """The point as an array ``(x, y)``, or `ContourError` when it is none, or not finite."""
    point = np.asarray(point, dtype=float)
    if point.shape != (2,) or not np.isfinite(point).all():
        raise ContourError(f"The place {point.tolist()} is not a point (x, y).")
    return point


def signed_area(points: np.ndarray) -> float:
    """Area of a closed polygon (n, 2); positive when it runs from x towards y."""
    x, y = points[:, 0], points[:, 1]
    return 0.5 * float(np.dot(x, following(y)) - np.dot(y, following(x)))


def following(points: np.ndarray) -> np.ndarray:
    """For each vertex of a closed polygon (n, ...), the next one."""
    return np.concatenate([points[1:], points[:1]])


def segment_lengths(points: np.ndarray) -> np.ndarray:
    """Length of the segment that starts at each vertex of a closed polygon."""
    return np.linalg.norm(following(points) - points, axis=1)


def crossings(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Which segments (n, 2, 2) touch or cross which segments (m, 2, 2): pairs of indices (c, 2).

    Segments that share an end count as touching; callers leave out neighbours.
    """
    few = max(1, PAIRS // max(1, len(second)))
    found = [np.empty((0, 2), int)]
    for start in range(0, len(first), few):
        found.append(_crossings(first[start : start + few], second) + np.array([start, 0]))
    return np.concatenate(found)


def _crossings(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    (low, high), (low_2, high_2) = ((part.min(axis=1).T, part.max(axis=1).T) for part in (first, second))
    near = (low[0][:, np.newaxis] <= high_2[0]) & (high[0][:, np.newaxis] >= low_2[0])
    near &= (low[1][:, np.newaxis] <= high_2[1]) & (high[1][:, np.newaxis] >= low_2[1])
    mine, other = np.nonzero(near)
    return np.column_stack([mine, other])[_touch(first[mine], second[other])]


def _touch(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whether each segment (n, 2, 2) touches or crosses its partner (n, 2, 2)."""
    p, r = first[:, 0], first[:, 1] - first[:, 0]
    q, s = second[:, 0], second[:, 1] - second[:, 0]
    between = q - p
    across = _cross(r, s)
    with np.errstate(divide="ignore", invalid="ignore"):
        t, u = _cross(between, s) / across, _cross(between, r) / across
    slack = 1e-9
    proper = (across != 0) & (t >= -slack) & (t <= 1 + slack) & (u >= -slack) & (u <= 1 + slack)
    return proper | _overlapping(p, r, q, s, between, across)


def _overlapping(p, r, q, s, between, across) -> np.ndarray:
    """Parallel segments on one line that share a place."""
    on_line = (across == 0) & (np.abs(_cross(between, r)) <= 1e-12 * np.maximum((r**2).sum(-1), 1))
    length = np.maximum((r**2).sum(-1), 1e-30)
    start = (between * r).sum(-1) / length
    stop = start + (s * r).sum(-1) / length
    return on_line & (np.minimum(start, stop) <= 1) & (np.maximum(start, stop) >= 0)


def _cross(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def segments(points: np.ndarray) -> np.ndarray:
    """Segments (n, 2, 2) of a closed polygon, the one that starts at each vertex."""
    return np.stack([points, following(points)], axis=1)


def is_simple(points: np.ndarray, changed: np.ndarray | None = None) -> bool:
    """Whether a closed polygon neither crosses nor touches itself.

    Parameters
    ----------
    points : numpy.ndarray
        Vertices (n, 2).
    changed : numpy.ndarray, optional
        Bool (n,): vertices that moved; segments between others are taken as good.
    """
    count = len(points)
    mine = segments(points)
    if (np.abs(mine[:, 0] - mine[:, 1]).max(axis=1) == 0).any():
        return False
    chosen = np.arange(count) if changed is None else np.flatnonzero(changed | following(changed))
    one, other = crossings(mine[chosen], mine).T
    gap = (other - chosen[one]) % count
    return bool((np.minimum(gap, count - gap) <= 1).all()) and not _folds_back(points)


def _folds_back(points: np.ndarray) -> bool:
    """Whether a segment runs back over the one before it."""
    before = following(points) - points
    step = following(before)
    scale = np.linalg.norm(step, axis=1) * np.linalg.norm(before, axis=1)
    return bool(((np.abs(_cross(before, step)) <= 1e-9 * scale) & ((before * step).sum(axis=1) < 0)).any())
