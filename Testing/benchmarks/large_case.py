"""A case repeated to the size of a large CT."""

from __future__ import annotations

import numpy as np

from aiassist.imaging import Geometry, Volume

SHAPE = (300, 512, 512)


def large(volume: Volume, labels: np.ndarray, seed: int = 0) -> tuple[Volume, np.ndarray]:
    """The case enlarged to `SHAPE`, with a little noise so that no two seeds are the same study."""
    places = [
        np.minimum((np.arange(n) * size / n).astype(int), size - 1) for n, size in zip(SHAPE, volume.shape, strict=True)
    ]
    voxels, wide = volume.voxels[np.ix_(*places)].astype(np.int16), labels[np.ix_(*places)]
    voxels += np.random.default_rng(seed).integers(-8, 9, SHAPE, dtype=np.int16)
    spacing = [s * n / m for s, n, m in zip(volume.geometry.spacing_kji, volume.shape, SHAPE, strict=True)]
    return Volume(voxels, Geometry.from_spacing(SHAPE, spacing[::-1])), wide
