"""Which grey levels lie inside a structure, and which outside."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from aiassist.segmenters.blurring import blurred

BINS = 48
#: Evidence of one voxel's grey level, in logits, is cut off here.
CUT = 3.0


def grey_levels(grey: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Grey values mapped to 0..1 so that those of `reference` fill most of the range.

    The 2nd to 98th percentile of `reference`, widened by 15 % on each side; beyond is clipped. Air
    and bone thus cannot squeeze the contrast of soft tissue.
    """
    low, high = np.percentile(reference, [2, 98])
    spread = 0.15 * (high - low) + 1e-6 * max(abs(high), 1.0)
    return np.clip((grey - low + spread) / (high - low + 2 * spread), 0, 1).astype(np.float32)


def binned(levels: np.ndarray) -> np.ndarray:
    """Bin number of each grey level in 0..1."""
    return np.minimum((levels * BINS).astype(np.intp), BINS - 1)


def counts(bins: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """How many of each bin there are, or the sum of their weights."""
    return np.bincount(bins.ravel(), None if weights is None else weights.ravel(), BINS).astype(float)


def smoothed(found: np.ndarray, sigma: float = 1.2) -> np.ndarray:
    """A histogram from `counts`: smoothed, normalised, nowhere zero."""
    found = _smoothing(sigma) @ found
    floor = 1e-3 * max(found.sum(), 1e-9) / BINS
    return (found + floor) / (found + floor).sum()


@lru_cache(maxsize=64)
def _smoothing(sigma: float) -> np.ndarray:
    """The matrix of a Gaussian filter over the bins."""
    return ndimage.gaussian_filter1d(np.eye(BINS), sigma, axis=0, mode="nearest")


def evidence(inside: np.ndarray, outside: np.ndarray) -> np.ndarray:
    """Log-likelihood ratio of each bin, inside against outside, cut at `CUT`."""
    return np.clip(np.log(inside / outside), -CUT, CUT)


def logit(p: np.ndarray) -> np.ndarray:
    """Log odds of probabilities, which are kept within .01 and .97."""
    p = np.clip(p, 0.01, 0.97)
    return np.log(p / (1 - p))


def agree_with_neighbours(evidence: np.ndarray, start: np.ndarray, strength: float, rounds: int) -> np.ndarray:
    """Probabilities that weigh each cell's evidence (logits) against its neighbours'.

    Mean-field inference of a Potts model with a Gaussian neighbourhood of 0.7 cells (Krähenbühl and
    Koltun 2011, arXiv:1210.5644, with the appearance kernel left to `evidence`).
    """
    p = start
    for _ in range(rounds):
        neighbours = blurred(2 * p - 1, 0.7)
        p = 1 / (1 + np.exp(-np.clip(evidence + strength * neighbours, -30, 30)))
    return p
