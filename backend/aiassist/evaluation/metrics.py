"""How well a mask agrees with the truth."""

from __future__ import annotations

import numpy as np

from aiassist.errors import MissingExtraError


def dice(a: np.ndarray, b: np.ndarray) -> float:
    """Dice similarity coefficient of two masks; 1 when both are empty."""
    total = int(a.sum()) + int(b.sum())
    return 2 * int((a & b).sum()) / total if total else 1.0


def need_surface_distance():
    """The library that measures surfaces; `MissingExtraError` where it is not installed."""
    try:
        import surface_distance
    except ImportError as error:
        raise MissingExtraError("surface-distance-based-measures", "evaluate", "The NSD") from error
    return surface_distance


def normalised_surface_distance(a: np.ndarray, b: np.ndarray, spacing_kji, tolerance_mm: float) -> float:
    """NSD (surface Dice, Nikolov et al. 2018, arXiv:1809.04430) of two masks, by its authors' library.

    Parameters
    ----------
    a, b : numpy.ndarray
        Bool masks ``(k, j, i)`` of the same shape.
    spacing_kji : tuple of float
        In mm.
    tolerance_mm : float
        Surfaces closer than this agree.

    Returns
    -------
    float
        Share of both surfaces that agree, 0 to 1; 1 when both are empty, 0 when one is. Of masks of one voxel along an
        axis, which are pictures, the share of their outlines.
    """
    surface_distance = need_surface_distance()
    if not a.any() or not b.any():
        return float(a.any() == b.any())
    thick = [axis for axis in range(3) if a.shape[axis] > 1]
    if len(thick) == 2:
        a, b, spacing_kji = a.squeeze(), b.squeeze(), [spacing_kji[axis] for axis in thick]
    distances = surface_distance.compute_surface_distances(a, b, spacing_kji)
    return float(surface_distance.compute_surface_dice_at_tolerance(distances, tolerance_mm))
