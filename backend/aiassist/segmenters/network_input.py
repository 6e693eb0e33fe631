"""What the promptable network sees: a cube of cells around the prompts, in channels.

Training and inference share this file. It works on numpy arrays and on torch tensors alike: ``xp`` is
the module, numpy or torch. Coordinates here are array order ``(k, j, i)``, continuous voxel indices.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Share of the box's side that is added on each side of it.
MARGIN = 0.125
#: A side is never taken shorter than this share of the longest, in mm.
MIN_ASPECT = 0.25
#: Width of a point's mark, in cells.
POINT_SIGMA = 1.5
#: Cells from the points towards their centre at which the structure's grey level is read.
DEPTHS = (0.0, 1.5, 3.0)
#: Bins of the grey-level histograms, and how they are smoothed.
BINS = 48
_SMOOTH = np.exp(-0.5 * ((np.arange(BINS)[:, np.newaxis] - np.arange(BINS)) / 1.6) ** 2).astype(np.float32)

CHANNELS = (
    "grey, around the level at the prompts",
    "grey, whole crop",
    "evidence of the grey levels common to the prompts",
    "extreme points",
    "positive clicks and strokes",
    "negative clicks and strokes",
    "box",
    "prior mask",
    "has a prior mask",
    "inside the volume",
    "cell size along k",
    "cell size along j",
    "cell size along i",
)
#: Places of some channels.
CLICKS = [4, 5]
PRIOR = 7
SIZES = slice(10, 13)


@dataclass
class Marks:
    """Prompts in cell coordinates ``(k, j, i)``, arrays (n, 3) of numpy."""

    extreme: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    positive: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    negative: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    box: tuple[np.ndarray, np.ndarray] | None = None


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

    def weights(self) -> list[np.ndarray]:
        """One matrix (cells, voxels) per axis: a triangle filter; rows outside the volume are zero."""
        found = []
        for axis in range(3):
            size, step = self.shape[axis], self.cell[axis]
            centres = self.low[axis] + (np.arange(self.cells) + 0.5) * step
            rows = np.maximum(1 - np.abs(np.arange(size) - centres[:, np.newaxis]) / max(step, 1.0), 0)
            rows[(centres < -0.5) | (centres > size - 0.5)] = 0
            total = rows.sum(axis=1, keepdims=True)
            found.append((rows / np.where(total > 0, total, 1)).astype(np.float32))
        return found

    def sample(self, xp, voxels):
        """Cells (c, c, c) of an array of voxels, and which of them lie inside the volume."""
        rows = [_like(xp, w, voxels) for w in self.weights()]
        cells = xp.einsum("ak,kji->aji", rows[0], voxels)
        cells = xp.einsum("bj,aji->abi", rows[1], cells)
        cells = xp.einsum("ci,abi->abc", rows[2], cells)
        k, j, i = [(row.sum(1) > 0) for row in rows]
        return cells, k[:, None, None] & j[None, :, None] & i[None, None, :]


def _like(xp, array: np.ndarray, other):
    """A numpy array as the kind of `other`."""
    return array if xp is np else xp.as_tensor(array, dtype=other.dtype, device=other.device)


def channels(xp, cells, valid, cube: Cube, marks: Marks, prior=None):
    """The network's input (channels, c, c, c) of float32; see `CHANNELS`.

    Parameters
    ----------
    xp : module
        numpy or torch.
    cells, valid : array
        From `Cube.sample`.
    cube : Cube
    marks : Marks
    prior : array, optional
        Share of each cell that the prior mask covers.
    """
    ones = cells * 0 + 1
    size = np.log2(cube.cell * cube.spacing)
    inside = valid * ones
    grey, evidence = prompted_grey(xp, cells, valid, marks)
    stack = [
        grey * inside,
        wide_grey(xp, cells, valid) * inside,
        evidence * inside,
        blobs(xp, marks.extreme, cells),
        blobs(xp, marks.positive, cells),
        blobs(xp, marks.negative, cells),
        box_mask(xp, marks.box, cells),
        prior if prior is not None else ones * 0,
        ones * float(prior is not None),
        inside,
        *[ones * float(s - size.mean()) for s in size],
    ]
    return xp.stack(stack)


def wide_grey(xp, cells, valid):
    """Grey levels mapped from the crop's .5 and 99.5 percentiles to -1 and 1."""
    low, high = _quantiles(xp, cells[valid], (0.005, 0.995))
    return xp.clip((cells - low) / (high - low + 1e-6 + 1e-6 * abs(high)) * 2 - 1, -1.5, 1.5)


def prompted_grey(xp, cells, valid, marks: Marks):
    """Two channels that say how like the prompted structure each cell's grey level is.

    The grey levels near *every* prompt (the geometric mean of their histograms, so that a point that
    misses a thin structure by a voxel does no harm) are held against those around the structure.

    Returns
    -------
    grey : array
        Grey levels around the likeliest one: 0 is alike, +-1 far off.
    evidence : array
        From -1 (found around the structure, not at the prompts) to 1 (the likeliest level).
    """
    radius = _radius(xp, cells)
    near = cells[valid & (radius < 1.3)]
    low, high = _quantiles(xp, near if near.shape[0] else cells.reshape(-1), (0.02, 0.98))
    spread = 0.15 * (high - low) + 1e-6 + 1e-6 * abs(high)
    levels = xp.clip((cells - low + spread) / (high - low + 2 * spread), 0, 1)
    bins = xp.clip((levels * BINS), 0, BINS - 1)
    bins = bins.astype(np.int64) if xp is np else bins.long()
    ratio = xp.log(_common_greys(xp, bins, valid, marks)) - 0.65 * xp.log(_histogram(xp, bins, valid & (radius > 1)))
    best = xp.argmax(ratio)
    middle = (best + 0.5) / BINS
    unit = 0.1 * (xp.quantile(levels[valid].reshape(-1)[::8], 0.9) - xp.quantile(levels[valid].reshape(-1)[::8], 0.1))
    grey = xp.tanh((levels - middle) / (4 * (unit + 0.02)))
    return grey, xp.clip(1 + (ratio - ratio[best]) / 3, -1, 1)[bins]


def _radius(xp, cells):
    """Radius of each cell: 1 on the ellipsoid in the prompts' box, which the cube surrounds."""
    half = cells.shape[0] / (1 + 2 * MARGIN) / 2
    axis = _like(xp, ((np.arange(cells.shape[0]) + 0.5 - cells.shape[0] / 2) / half).astype(np.float32), cells)
    return xp.sqrt((axis**2)[:, None, None] + (axis**2)[None, :, None] + (axis**2)[None, None, :])


def _common_greys(xp, bins, valid, marks: Marks):
    """Geometric mean of the histograms around each prompt, normalised."""
    ones = valid * 1.0
    logs = []
    for chain in _evidence(marks, bins.shape[0]):
        weight = sum(_ball(xp, place, ones) for place in chain) * ones
        logs.append(xp.log(_histogram(xp, bins, weight) + 0.004))
    common = xp.exp(sum(logs) / len(logs))
    return common / common.sum()


def _ball(xp, place: np.ndarray, like):
    """A Gaussian of one cell's width at a place."""
    axis = np.arange(like.shape[0])
    k, j, i = [_like(xp, np.exp(-0.5 * (axis - c) ** 2).astype(np.float32), like) for c in place]
    return k[:, None, None] * j[None, :, None] * i[None, None, :]


def _histogram(xp, bins, weight):
    """Smoothed, normalised histogram of the bins, nowhere zero."""
    counts = xp.bincount(bins.reshape(-1), (weight * 1.0).reshape(-1), BINS)
    counts = _like(xp, _SMOOTH, counts) @ counts + 1e-6
    counts = counts / counts.sum() + 1e-5
    return counts / counts.sum()


def _quantiles(xp, values, shares):
    """Quantiles of every eighth value (enough for a window)."""
    some = values.reshape(-1)[::8] if values.shape[0] > 4096 else values
    return [xp.quantile(some, share) for share in shares]


def _evidence(marks: Marks, size: int) -> list[np.ndarray]:
    """For each prompt, the cells (n, 3) where its grey level is read, probably inside the structure."""
    found = [point[np.newaxis] for point in marks.positive[:: max(1, len(marks.positive) // 8)]]
    if len(marks.extreme):
        towards = marks.extreme.mean(axis=0) - marks.extreme
        length = np.maximum(np.linalg.norm(towards, axis=1, keepdims=True), 1e-6)
        steps = [marks.extreme + towards / length * np.minimum(depth, length) for depth in DEPTHS]
        found += list(np.stack(steps, axis=1))
    elif marks.box is not None and not found:
        low, high = marks.box
        offsets = np.stack(np.meshgrid(*[(-0.15, 0.0, 0.15)] * 3), axis=-1).reshape(-1, 3)
        found.append((low + high) / 2 + offsets * (high - low))
    return [np.clip(chain, 0, size - 1) for chain in found or [np.full((1, 3), size / 2)]]


def blobs(xp, points: np.ndarray, like):
    """Gaussian marks of height 1 at cell coordinates (n, 3), merged by their maximum."""
    out = like * 0
    axis = np.arange(like.shape[0])
    for point in points:
        k, j, i = [_like(xp, np.exp(-0.5 * ((axis - c) / POINT_SIGMA) ** 2).astype(np.float32), like) for c in point]
        out = xp.maximum(out, k[:, None, None] * j[None, :, None] * i[None, None, :])
    return out


def box_mask(xp, box, like):
    """1 inside a box of cell coordinates (low, high), 0 outside or without a box."""
    if box is None:
        return like * 0
    axis = np.arange(like.shape[0])
    k, j, i = [
        _like(xp, ((axis >= low) & (axis <= high)).astype(np.float32), like) for low, high in zip(*box, strict=True)
    ]
    return (like * 0 + 1) * k[:, None, None] * j[None, :, None] * i[None, None, :]


def as_channels(xp, voxels, cube: Cube, marks: Marks, prior_voxels=None) -> Any:
    """`Cube.sample` and `channels` in one: the input for a volume's finite float32 voxels."""
    cells, valid = cube.sample(xp, voxels)
    prior = None if prior_voxels is None else cube.sample(xp, prior_voxels)[0]
    return channels(xp, cells, valid, cube, marks, prior)
