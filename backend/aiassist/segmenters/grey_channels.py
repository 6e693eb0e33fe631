"""What the grey levels of a cube's cells say of the structure that the prompts mark."""

from __future__ import annotations

import numpy as np

from aiassist.segmenters.cube import radius
from aiassist.segmenters.marks import Marks, gaussian

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


def window(cells: np.ndarray, valid: np.ndarray, marks: Marks, prior=None) -> tuple[float, float]:
    """The grey values worth telling apart: those about as far from the structure's as its surroundings are.

    Air around the patient, or metal in it, would else take up most of the scale on which organs differ.

    Parameters
    ----------
    cells, valid, marks, prior
        As for `channels`; grey values before they are cut off.

    Returns
    -------
    tuple of float
        The lowest and the highest; infinite where nothing surrounds the structure.
    """
    away = radius(len(cells))
    around = valid & (away > 1) & (away < 1.5) if prior is None else valid & (prior < 0.5)
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
    around = _histogram(bins, valid & (radius(len(cells)) > 1))
    return bins, np.log(_common_greys(bins, valid, marks)) - 0.65 * np.log(around), scale


def _scale(cells: np.ndarray, valid: np.ndarray) -> tuple[float, float]:
    """The grey value of level 0, and how far that of level 1 is, by what is found near the prompts' box."""
    near = cells[valid & (radius(len(cells)) < 1.3)]
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


def _common_greys(bins: np.ndarray, valid: np.ndarray, marks: Marks) -> np.ndarray:
    """Geometric mean of the histograms around each prompt, normalised."""
    logs = []
    for chain in _evidence(marks, len(bins)):
        low = np.maximum(np.floor(chain.min(axis=0) - 4), 0).astype(int)
        near = tuple(slice(a, b) for a, b in zip(low, np.ceil(chain.max(axis=0) + 5).astype(int), strict=True))
        weight = sum(gaussian(place - low, bins[near].shape, 1.0) for place in chain)
        logs.append(np.log(_histogram(bins[near], weight * valid[near]) + 0.004))
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
