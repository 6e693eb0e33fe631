"""Axis-aligned boxes of voxels."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import numpy as np

from aiassist.errors import AIAssistError


@dataclass(frozen=True)
class Region:
    """A half-open box of voxels: ``start <= index < stop``, both in array order ``(k, j, i)``.

    A box that holds no voxel is valid and equals every other empty box at the same start.
    """

    start: tuple[int, int, int]
    stop: tuple[int, int, int]

    def __post_init__(self):
        start = tuple(int(x) for x in self.start)
        stop = tuple(int(x) for x in self.stop)
        if len(start) != 3 or len(stop) != 3:
            raise AIAssistError(f"A region needs three axes, not start {start} and stop {stop}.")
        if any(b <= a for a, b in zip(start, stop, strict=True)):
            stop = start
        object.__setattr__(self, "start", start)
        object.__setattr__(self, "stop", stop)

    @classmethod
    def of_mask(cls, mask: np.ndarray) -> Region:
        """The tightest box around the true voxels of a 3D array; empty when there are none."""
        bounds, shadow = [], mask.any(axis=0)
        for along in (mask.any(axis=(1, 2)), shadow.any(axis=1), shadow.any(axis=0)):
            hits = np.flatnonzero(along)
            if not hits.size:
                return cls((0, 0, 0), (0, 0, 0))
            bounds.append((hits[0], hits[-1] + 1))
        return cls(tuple(a for a, _ in bounds), tuple(b for _, b in bounds))

    @classmethod
    def of_points(cls, points_ijk) -> Region:
        """The tightest box of voxels that holds continuous indices ``(i, j, k)``, shape (n, 3)."""
        points = np.asarray(points_ijk, dtype=float).reshape(-1, 3)[:, ::-1]
        low, high = np.rint(points.min(axis=0)), np.rint(points.max(axis=0))
        return cls(tuple(low.astype(int)), tuple(high.astype(int) + 1))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels ``(k, j, i)``."""
        return tuple(b - a for a, b in zip(self.start, self.stop, strict=True))

    @property
    def voxels(self) -> int:
        """Number of voxels inside."""
        k, j, i = self.shape
        return k * j * i

    @property
    def is_empty(self) -> bool:
        """Whether no voxel lies inside."""
        return self.voxels == 0

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The region as an index of a ``(k, j, i)`` array."""
        return tuple(slice(a, b) for a, b in zip(self.start, self.stop, strict=True))

    def intersect(self, other: Region) -> Region:
        """The voxels in both."""
        start = tuple(map(max, self.start, other.start))
        return Region(start, tuple(map(min, self.stop, other.stop)))

    def union(self, other: Region) -> Region:
        """The tightest box around both."""
        if self.is_empty or other.is_empty:
            return other if self.is_empty else self
        return Region(tuple(map(min, self.start, other.start)), tuple(map(max, self.stop, other.stop)))

    def grow(self, mm, spacing_kji) -> Region:
        """The box grown on every side by at least `mm` (a number, or one per axis k, j, i)."""
        steps = np.ceil(np.broadcast_to(mm, 3) / np.asarray(spacing_kji, dtype=float) - 1e-9).astype(int)
        start = tuple(a - s for a, s in zip(self.start, steps, strict=True))
        return Region(start, tuple(b + s for b, s in zip(self.stop, steps, strict=True)))

    def clip(self, shape) -> Region:
        """The part inside an array of `shape`."""
        return self.intersect(Region((0, 0, 0), shape))

    def shift(self, offset) -> Region:
        """The box moved by ``(k, j, i)`` voxels."""
        start = tuple(a + int(o) for a, o in zip(self.start, offset, strict=True))
        return Region(start, tuple(b + int(o) for b, o in zip(self.stop, offset, strict=True)))

    def within(self, outer: Region) -> tuple[slice, slice, slice]:
        """This region as an index of an array that covers `outer`; it must lie inside."""
        if not self.is_empty and self.intersect(outer) != self:
            raise AIAssistError(f"The region {self.start} to {self.stop} reaches beyond {outer.start} to {outer.stop}.")
        return self.shift([-a for a in outer.start]).slices

    def to_json(self) -> dict:
        """``{"start": [i, j, k], "stop": [i, j, k]}``: on the wire all indices are ``(i, j, k)``."""
        return {"start": list(self.start[::-1]), "stop": list(self.stop[::-1])}

    @classmethod
    def from_json(cls, data: dict) -> Region:
        """Read what `to_json` wrote; `AIAssistError` when it is something else."""
        try:
            start, stop = (tuple(operator.index(x) for x in data[name][::-1]) for name in ("start", "stop"))
        except (KeyError, TypeError, ValueError) as error:
            raise AIAssistError(f"{data!r} is not a region: it needs start and stop as [i, j, k].") from error
        return cls(start, stop)
