"""Gaussian filters of few cells by matrix products, several times as fast there as convolving."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from scipy import ndimage

from aiassist.segmenters.working_grid import weigh


def blurred(cells: np.ndarray, sigma: float) -> np.ndarray:
    """Cells (k, j, i), float32, as `scipy.ndimage.gaussian_filter` blurs them."""
    return weigh(cells, [_rows(n, sigma) for n in cells.shape])


def steepness(cells: np.ndarray, sigma: float) -> np.ndarray:
    """Length of the gradient of cells (k, j, i), float32, as `scipy.ndimage.gaussian_gradient_magnitude` has it."""
    total = np.zeros(cells.shape, np.float32)
    for axis in range(3):
        total += np.square(weigh(cells, [_rows(n, sigma, int(a == axis)) for a, n in enumerate(cells.shape)]))
    return np.sqrt(total)


@lru_cache(maxsize=64)
def _rows(size: int, sigma: float, order: int = 0) -> np.ndarray:
    """The matrix (size, size) of a Gaussian filter along an axis, or of its derivative, float32."""
    return ndimage.gaussian_filter1d(np.eye(size, dtype=np.float32), sigma, axis=0, order=order)
