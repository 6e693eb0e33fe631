"""What the grey values of a slice say: which pixels look like the structure, judged by its trusted outline."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import ndimage

from aiassist.contour.rasterise import toggle_inside

BINS = 32
#: Evidence of one pixel, in logits, is cut off here.
CUT = 2.0
#: Pixels count less the farther they lie from the outline: a third at this many pixels.
BAND = 6.0


@dataclass(frozen=True)
class Window:
    """Values of the pixels of a window of a slice.

    ``values`` (rows, columns), ``corner`` the window's first pixel ``(x, y)``, ``spacing`` ``(x, y)`` in mm.
    """

    values: np.ndarray
    corner: np.ndarray
    spacing: np.ndarray

    def at(self, points_mm: np.ndarray) -> np.ndarray:
        """Interpolated at points (..., 2) in mm; beyond the window its edge continues."""
        places = points_mm / self.spacing - self.corner
        return ndimage.map_coordinates(self.values, [places[..., 1], places[..., 0]], order=1, mode="nearest")

    def replaced(self, values: np.ndarray) -> Window:
        """The same window of something else."""
        return replace(self, values=values)


def inside_window(points: np.ndarray, shape, corner) -> np.ndarray:
    """Bool (rows, columns): the pixels of a window inside a polygon (n, 2) in pixels."""
    inside = np.zeros(shape, bool)
    toggle_inside(inside, points, corner)
    return inside


def signed_depth(inside: np.ndarray, step) -> np.ndarray:
    """Distance of pixels from the border of a mask, positive inside, in units of `step` (rows, columns)."""
    within = ndimage.distance_transform_edt(inside, sampling=step)
    return within - ndimage.distance_transform_edt(~inside, sampling=step)


def evidence(grey: np.ndarray, depth: np.ndarray, doubt: np.ndarray, pixel: float) -> np.ndarray:
    """Log odds (rows, columns) of being inside, by grey-level histograms of both sides along the outline.

    Parameters
    ----------
    grey : numpy.ndarray
        Finite grey values of a window.
    depth : numpy.ndarray
        Signed depth in mm in the mask as it is now believed to be.
    doubt : numpy.ndarray
        Bool, pixels that teach nothing: where the outline is being corrected.
    pixel : float
        Size of a pixel in mm.
    """
    low, high = np.percentile(grey, [1, 99])
    if not high > low:
        return np.zeros(grey.shape, np.float32)
    bins = np.clip((grey - low) / (high - low) * BINS, 0, BINS - 1).astype(np.intp)
    weight = np.exp(-np.abs(depth) / (BAND * pixel)) * (~doubt & (np.abs(depth) > 0.75 * pixel))
    inside = depth > 0
    ratio = np.log(_histogram(bins[inside], weight[inside]) / _histogram(bins[~inside], weight[~inside]))
    return ndimage.gaussian_filter(np.clip(ratio, -CUT, CUT).astype(np.float32)[bins], 0.5)


def _histogram(bins: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Smoothed, normalised, and flat where there is little to count."""
    counts = ndimage.gaussian_filter1d(np.bincount(bins, weight, BINS), 1.2, mode="nearest") + 0.2
    return counts / counts.sum()
