"""What the promptable network sees: a cube of cells around the prompts, in channels.

Training and inference share this file. Coordinates here are array order ``(k, j, i)``, continuous voxel
indices.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from aiassist.prompts import Prompts
from aiassist.segmenters.strokes import stroke_points
from aiassist.segmenters.working_grid import WorkingGrid

#: Share of the box's side that is added on each side of it.
MARGIN = 0.125
#: A side is never taken shorter than this share of the longest, in mm.
MIN_ASPECT = 0.25
#: Cells along the prompts' box in which the classical segmenter makes its guess.
GUESS_CELLS = 40
#: Width of a point's mark, in cells.
POINT_SIGMA = 1.5
#: Cells from the points towards their centre at which the structure's grey level is read.
DEPTHS = (0.0, 1.5, 3.0)
#: Above this height of its mark, a click's surroundings (4 cells) say nothing of the grey levels inside or
#: outside a prior mask, which the click contradicts.
DOUBT = 0.03
#: Above this height of its mark (2.3 cells), a click's surroundings are what it points at.
NEAR = 0.3
#: Weight of the grey levels at all clicks, where those of the prior mask weigh one.
CLICKED = 0.4
#: A window holds grey levels up to this many times as far from the structure's as what lies around it.
REACH = 4.0
#: Bins of the grey-level histograms, and how they are smoothed.
BINS = 48
_SMOOTH = np.exp(-0.5 * ((np.arange(BINS)[:, np.newaxis] - np.arange(BINS)) / 1.6) ** 2).astype(np.float32)

CHANNELS = (
    "grey, around the structure's level",
    "grey, whole crop",
    "evidence of the grey levels",
    "guess of the classical segmenter",
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
GREY = 0
WIDE = 1
EVIDENCE = 2
CLICKS = [5, 6]
PRIOR = 8
INSIDE = 10
SIZES = slice(11, 14)


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

    def sample(self, voxels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Cells (c, c, c) of an array of voxels, and which of them lie inside the volume."""
        rows = self.weights()
        cells = voxels
        for axis in range(3):
            cells = np.moveaxis(np.tensordot(rows[axis], cells, axes=(1, axis)), 0, axis)
        k, j, i = [row.sum(1) > 0 for row in rows]
        return np.ascontiguousarray(cells), k[:, None, None] & j[None, :, None] & i[None, None, :]

    def thinned(self) -> tuple[Cube, tuple[slice, slice, slice]]:
        """The cube over fewer voxels, and which those are: two along a cell's side are enough to average."""
        steps = np.maximum(self.cell // 2, 1).astype(int)
        shape = tuple(-(-n // step) for n, step in zip(self.shape, steps, strict=True))
        cube = Cube(self.low / steps, self.high / steps, shape, tuple(np.array(self.spacing) * steps), self.cells)
        return cube, tuple(slice(None, None, step) for step in steps)

    def on_grid(self, grid: WorkingGrid) -> Cube:
        """The same cube in the coordinates of a working grid's cells."""
        low, high = grid.to_cells([self.low[::-1], self.high[::-1]])
        return Cube(low, high, grid.shape, tuple(grid.spacing), self.cells)

    def positive(self, cells: np.ndarray) -> np.ndarray:
        """Where a field of the cells, interpolated linearly at the volume's voxels, is above zero."""
        k, j, i = (self._weights(axis) for axis in range(3))
        fine = np.matmul(j, np.tensordot(k, cells, axes=(1, 0)))
        out = np.empty(self.shape, bool)
        for number, plane in enumerate(fine):  # whole, the field would not fit the processor's cache
            np.greater(plane @ i.T, 0, out=out[number])
        return out

    def _weights(self, axis: int) -> np.ndarray:
        """Matrix (voxels, cells) that interpolates along an axis."""
        places = np.clip((np.arange(self.shape[axis]) - self.low[axis]) / self.cell[axis] - 0.5, 0, self.cells - 1)
        return np.maximum(1 - np.abs(places[:, np.newaxis] - np.arange(self.cells)), 0).astype(np.float32)


def channels(cells: np.ndarray, valid: np.ndarray, cube: Cube, marks: Marks, prior=None, guess=None) -> np.ndarray:
    """The network's input (channels, c, c, c), float32; see `CHANNELS`.

    Parameters
    ----------
    cells : numpy.ndarray
        Grey values (c, c, c), cut off at their `window`.
    valid : numpy.ndarray
        Which cells lie inside the volume.
    cube : Cube
    marks : Marks
    prior : numpy.ndarray, optional
        Share (c, c, c) of each cell that the prior mask covers.
    guess : numpy.ndarray, optional
        Probability (c, c, c) of each cell by the classical segmenter.
    """
    inside = valid.astype(np.float32)
    grey, evidence = prompted_grey(cells, valid, marks) if prior is None else (cells, cells)
    size = np.log2(cube.cell * cube.spacing)
    stack = [
        grey,
        wide_grey(cells, valid),
        evidence,
        np.zeros_like(cells) if guess is None else 2 * guess - 1,
        blobs(marks.extreme, len(cells)),
        blobs(marks.positive, len(cells)),
        blobs(marks.negative, len(cells)),
        box_mask(marks.box, len(cells)),
        np.zeros_like(cells),
        np.zeros_like(cells),
        inside,
        *[np.full_like(cells, s - size.mean()) for s in size],
    ]
    stack[:4] = [channel * inside for channel in stack[:4]]
    seen = np.stack(stack).astype(np.float32)
    if prior is not None:
        show_prior(seen, prior)
    return seen


def show_prior(seen: np.ndarray, prior: np.ndarray) -> None:
    """Show the network a prior mask, in place: the mask, and grey levels inside it against those outside.

    Parameters
    ----------
    seen : numpy.ndarray
        The network's input (channels, c, c, c), changed in place.
    prior : numpy.ndarray
        Share (c, c, c) of each cell that the prior mask covers.
    """
    inside = seen[INSIDE]
    seen[PRIOR], seen[PRIOR + 1] = prior, 1.0
    grey, evidence = prior_grey(seen[WIDE], inside > 0, prior, *(seen[n] for n in CLICKS))
    seen[GREY], seen[EVIDENCE] = grey * inside, evidence * inside


def sample_guess(cube: Cube, grid: WorkingGrid, probability: np.ndarray) -> np.ndarray:
    """A field of a working grid's cells as the cube's; 0 beyond the grid."""
    cells, valid = cube.on_grid(grid).sample(probability.astype(np.float32))
    return np.where(valid, cells, 0)


def window(cells: np.ndarray, valid: np.ndarray, marks: Marks, prior=None) -> tuple[float, float]:
    """The grey values worth telling apart: those about as far from the structure's as its surroundings are.

    Air around the patient, or metal in it, would else take up most of the scale on which organs differ.

    Parameters
    ----------
    cells, valid, marks, prior
        As for `channels`; grey values before they are cut off.
    """
    radius = _radius(len(cells))
    around = valid & (radius > 1) & (radius < 1.5) if prior is None else valid & (prior < 0.5)
    if prior is not None and (known := valid & (prior > 0.5)).any():
        level = np.median(cells[known])
    else:
        _, ratio, (low, width) = _likeness(cells, valid, marks)
        level = low + (np.argmax(ratio) + 0.5) / BINS * width
    if not around.any():
        return -np.inf, np.inf
    reach = REACH * np.median(np.abs(cells[around] - level))
    return level - reach, level + reach


def wide_grey(cells: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Grey levels mapped from the crop's .5 and 99.5 percentiles to -1 and 1."""
    low, high = _quantiles(cells[valid], (0.005, 0.995))
    return np.clip((cells - low) / (high - low + 1e-6 + 1e-6 * abs(high)) * 2 - 1, -1.5, 1.5)


def prompted_grey(cells: np.ndarray, valid: np.ndarray, marks: Marks) -> tuple[np.ndarray, np.ndarray]:
    """Two channels that say how like the structure each cell's grey level is, by the prompts.

    The grey levels near *every* prompt (the geometric mean of their histograms, so that a point that
    misses a thin structure by a voxel does no harm) are held against those around the prompts' ellipsoid.

    Returns
    -------
    grey : numpy.ndarray
        Grey levels around the likeliest one: 0 is alike, +-1 far off.
    evidence : numpy.ndarray
        From -1 (found around the structure only) to 1 (the likeliest level).
    """
    bins, ratio, scale = _likeness(cells, valid, marks)
    best = np.argmax(ratio)
    return _around(_levels(cells, scale), valid, best), np.clip(1 + (ratio - ratio[best]) / 3, -1, 1)[bins]


def prior_grey(
    cells: np.ndarray, valid: np.ndarray, prior: np.ndarray, positive: np.ndarray, negative: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The channels of `prompted_grey` by a prior mask: grey levels inside it against those outside.

    `positive` and `negative` are the marks of clicks. Around them the mask is not believed; what lies
    right at them counts for the side that they say, whatever the mask holds.
    """
    levels = _levels(cells, _scale(cells, valid))
    bins = _binned(levels)
    inside = _histogram(bins, _with_clicks(prior * (valid & (negative <= DOUBT)), positive * valid))
    outside = _histogram(bins, _with_clicks((1 - prior) * (valid & (positive <= DOUBT)), negative * valid))
    evidence = (np.log(inside) - np.log(outside)) / 3
    return _around(levels, valid, np.argmax(inside)), np.clip(evidence, -1, 1)[bins]


def _with_clicks(weight: np.ndarray, marks: np.ndarray) -> np.ndarray:
    """Weights of the cells, and of clicks beside them: together `CLICKED` times all the others, if there are any."""
    marks = marks * (marks > NEAR)
    total, others = marks.sum(), weight.sum()
    return weight + marks * (CLICKED * (others or total) / total) if total > 0 else weight


def _likeness(cells: np.ndarray, valid: np.ndarray, marks: Marks):
    """The bin of each cell, how like the structure each bin is by the prompts (log), and the bins' scale."""
    scale = _scale(cells, valid)
    bins = _binned(_levels(cells, scale))
    around = _histogram(bins, valid & (_radius(len(cells)) > 1))
    return bins, np.log(_common_greys(bins, valid, marks)) - 0.65 * np.log(around), scale


def _scale(cells: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """The grey value of level 0, and how far that of level 1 is, by what is found near the prompts' box."""
    near = cells[valid & (_radius(len(cells)) < 1.3)]
    low, high = _quantiles(near if near.size else cells, (0.02, 0.98))
    spread = 0.15 * (high - low) + 1e-6 + 1e-6 * abs(high)
    return low - spread, high - low + 2 * spread


def _levels(cells: np.ndarray, scale: tuple[float, float]) -> np.ndarray:
    """Grey values from 0 to 1."""
    return np.clip((cells - scale[0]) / scale[1], 0, 1)


def _binned(levels: np.ndarray) -> np.ndarray:
    return np.minimum((levels * BINS).astype(np.intp), BINS - 1)


def _around(levels: np.ndarray, valid: np.ndarray, best: int) -> np.ndarray:
    """Levels around a bin's: 0 is alike, +-1 far off."""
    few = levels[valid].ravel()[::8] if valid.any() else levels.ravel()[::8]
    unit = 0.1 * np.subtract(*np.quantile(few, (0.9, 0.1)))
    return np.tanh((levels - (best + 0.5) / BINS) / (4 * (unit + 0.02)))


def _radius(size: int) -> np.ndarray:
    """Radius of each cell: 1 on the ellipsoid in the prompts' box, which the cube surrounds."""
    half = size / (1 + 2 * MARGIN) / 2
    square = (((np.arange(size) + 0.5 - size / 2) / half) ** 2).astype(np.float32)
    return np.sqrt(square[:, None, None] + square[None, :, None] + square[None, None, :])


def _common_greys(bins: np.ndarray, valid: np.ndarray, marks: Marks) -> np.ndarray:
    """Geometric mean of the histograms around each prompt, normalised."""
    logs = []
    for chain in _evidence(marks, len(bins)):
        weight = sum(_gaussian(place, bins.shape, 1.0) for place in chain)
        logs.append(np.log(_histogram(bins, weight * valid) + 0.004))
    common = np.exp(sum(logs) / len(logs))
    return common / common.sum()


def _histogram(bins: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Smoothed, normalised histogram of the bins, nowhere zero."""
    counts = _SMOOTH @ np.bincount(bins.ravel(), weight.ravel(), BINS) + 1e-6
    counts = counts / counts.sum() + 1e-5
    return counts / counts.sum()


def _quantiles(values: np.ndarray, shares) -> np.ndarray:
    """Quantiles of every eighth value (enough for a window); zeros when there are none."""
    some = values.ravel()[::8] if values.size > 4096 else values.ravel()
    return np.quantile(some, shares) if some.size else np.zeros(len(shares))


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


def _gaussian(place: np.ndarray, shape, sigma: float) -> np.ndarray:
    """A Gaussian of height 1 at a place."""
    axes = zip(shape, place, strict=True)
    k, j, i = [np.exp(-0.5 * ((np.arange(n) - c) / sigma) ** 2).astype(np.float32) for n, c in axes]
    return k[:, None, None] * j[None, :, None] * i[None, None, :]


def blobs(points: np.ndarray, size: int, sigma: float = POINT_SIGMA) -> np.ndarray:
    """Gaussian marks of height 1 at cell coordinates (n, 3), merged by their maximum."""
    out = np.zeros((size,) * 3, np.float32)
    for point in points:
        start, stop = np.floor(point - 4 * sigma).astype(int), np.ceil(point + 4 * sigma).astype(int) + 1
        window = out[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True))]
        np.maximum(window, _gaussian(point - np.maximum(start, 0), window.shape, sigma), out=window)
    return out


def box_mask(box, size: int) -> np.ndarray:
    """1 inside a box of cell coordinates (low, high), 0 outside or without a box."""
    out = np.zeros((size,) * 3, np.float32)
    if box is not None:
        start, stop = np.ceil(box[0]).astype(int), np.floor(box[1]).astype(int) + 1
        out[tuple(slice(max(a, 0), max(b, 0)) for a, b in zip(start, stop, strict=True))] = 1
    return out
