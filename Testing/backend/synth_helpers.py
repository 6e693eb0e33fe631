"""Small scenes, networks and runners that watch, for the tests of the promptable network."""

from __future__ import annotations

import numpy as np

from aiassist.imaging import Geometry, Volume
from aiassist.segmenters.network_input import CHANNELS
from aiassist.synthesis.training import Settings

TINY = Settings(steps=6, batch=3, fresh=2, cells=16, widths=(8, 8), warmup=1, second=0.7)


class Watcher:
    """A runner that keeps what it is shown and answers from one channel."""

    cells, inputs = 32, len(CHANNELS)

    def __init__(self):
        self.shown = []

    def __call__(self, seen):
        self.shown.append(seen.copy())
        return 8 * seen[CHANNELS.index("guess of the classical segmenter")]


def scene():
    """A bright ball in noise, anisotropic voxels, and its six points."""
    geometry = Geometry.from_spacing((20, 40, 40), (1.0, 1.0, 3.0))
    k, j, i = np.indices(geometry.shape)
    mask = ((k - 10) * 3) ** 2 + (j - 20) ** 2 + (i - 20) ** 2 <= 15**2
    grey = np.where(mask, 50, 0) + np.random.default_rng(0).normal(0, 5, geometry.shape)
    points = [[5, 20, 10], [35, 20, 10], [20, 5, 10], [20, 35, 10], [20, 20, 5], [20, 20, 15]]
    return Volume(grey.astype(np.float32), geometry), mask, points
