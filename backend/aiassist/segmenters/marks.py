"""Prompts in the cells of a cube, and how they are drawn there."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from aiassist.prompts import Prompts
from aiassist.segmenters.cube import Cube
from aiassist.segmenters.strokes import stroke_points

#: Width of a point's mark, in cells.
POINT_SIGMA = 1.5


@dataclass
class Marks:
    """Prompts in cell coordinates ``(k, j, i)``, arrays (n, 3)."""

    extreme: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    positive: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    negative: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    box: tuple[np.ndarray, np.ndarray] | None = None

    @classmethod
    def of(cls, prompts: Prompts, cube: Cube) -> Marks:
        """The prompts in the cube's cells; strokes are chains of points."""
        positive = [prompts.positive, *([stroke_points(prompts.line)] if prompts.line is not None else [])]
        positive += [stroke_points(s.points) for s in prompts.scribbles if s.positive]
        negative = [prompts.negative, *(stroke_points(s.points) for s in prompts.scribbles if not s.positive)]
        outline = prompts.extreme_points if prompts.box is None else prompts.box
        corners = np.stack([outline.min(axis=0) - 0.5, outline.max(axis=0) + 0.5]) if len(outline) else None
        return cls(
            extreme=cube.to_cells(prompts.extreme_points[:, ::-1]),
            positive=cube.to_cells(np.concatenate(positive)[:, ::-1]),
            negative=cube.to_cells(np.concatenate(negative)[:, ::-1]),
            box=None if corners is None else tuple(cube.to_cells(corners[:, ::-1])),
        )

    def on(self, finer: float) -> Marks:
        """The same on so many cells for each one, over the same cube."""

        def there(points):
            return (points + 0.5) * finer - 0.5

        box = None if self.box is None else tuple(map(there, self.box))
        return Marks(there(self.extreme), there(self.positive), there(self.negative), box)


def blobs(points: np.ndarray, size: int, sigma: float = POINT_SIGMA) -> np.ndarray:
    """Gaussian marks of height 1 at cell coordinates (n, 3), merged by their maximum."""
    out = np.zeros((size,) * 3, np.float32)
    for point in points:
        start, stop = np.floor(point - 4 * sigma).astype(int), np.ceil(point + 4 * sigma).astype(int) + 1
        window = out[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True))]
        np.maximum(window, gaussian(point - np.maximum(start, 0), window.shape, sigma), out=window)
    return out


def box_mask(box, size: int) -> np.ndarray:
    """1 inside a box of cell coordinates (low, high), 0 outside or without a box."""
    out = np.zeros((size,) * 3, np.float32)
    if box is not None:
        start, stop = np.ceil(box[0]).astype(int), np.floor(box[1]).astype(int) + 1
        out[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True))] = 1
    return out


def gaussian(place: np.ndarray, shape, sigma: float) -> np.ndarray:
    """A Gaussian of height 1 at a place."""
    axes = zip(shape, place, strict=True)
    k, j, i = [np.exp(-0.5 * ((np.arange(n) - c) / sigma) ** 2).astype(np.float32) for n, c in axes]
    return k[:, None, None] * j[None, :, None] * i[None, None, :]
