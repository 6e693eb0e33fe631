"""Small volumes of every type on named grids."""

from __future__ import annotations

import numpy as np
from strategies import NAMED_AFFINES

from aiassist.imaging import Geometry, Volume

FORMATS = [".nii", ".nii.gz", ".nrrd", ".mha"]
SHAPE = (3, 4, 5)


def voxels_of(dtype, shape=SHAPE) -> np.ndarray:
    """Voxels that use the whole range of a type."""
    kind = np.dtype(dtype)
    limits = np.iinfo(kind) if kind.kind in "iu" else np.finfo(kind)
    voxels = np.arange(np.prod(shape)).reshape(shape).astype(kind)
    voxels[0, 0, :3] = limits.min, limits.max, limits.max // 3
    return voxels


def named_volume(name="oblique", dtype="int16", **changes) -> Volume:
    """Such voxels on a grid of that name."""
    return Volume(voxels_of(dtype, **changes), Geometry(changes.get("shape", SHAPE), NAMED_AFFINES[name]))
