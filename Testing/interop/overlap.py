"""How well two masks agree."""

from __future__ import annotations

import numpy as np


def dice(first: np.ndarray, second: np.ndarray) -> float:
    """Overlap of two masks, 0 to 1."""
    return 2 * (first & second).sum() / (first.sum() + second.sum())
