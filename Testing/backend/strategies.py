"""Hypothesis strategies: affines of every kind, geometries, regions and mask patches."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.spatial.transform import Rotation

from aiassist.imaging import Geometry, MaskPatch, Region

_ANGLE = st.floats(-180, 180)

#: The geometries that files and scanners really have, by name.
NAMED_AFFINES = {
    "axial": np.diag([0.9765625, 0.9765625, 2.5, 1.0]),
    "flipped": np.diag([-0.7, -0.7, 3.0, 1.0]),
    "left-handed": np.diag([-0.7, 0.8, 3.0, 1.0]),
    "anisotropic": np.diag([0.1, 0.1, 8.0, 1.0]),
    "sagittal": np.array([[0, 0, -3.3, -70], [0.9, 0, 0, -112.3], [0, -0.9, 0, 141.7], [0, 0, 0, 1.0]]),
    "coronal": np.array([[0.9, 0, 0, -112.3], [0, 0, 4.1, -70.2], [0, -0.9, 0, 141.7], [0, 0, 0, 1.0]]),
}
_OBLIQUE = np.eye(4)
_OBLIQUE[:3, :3] = Rotation.from_euler("xyz", [17, -31, 143], degrees=True).as_matrix() * [0.683594, 0.71, 1.9]
_OBLIQUE[:3, 3] = [-249.51172, 183.123456, -1024.7]
NAMED_AFFINES["oblique"] = _OBLIQUE
NAMED_AFFINES["oblique left-handed"] = _OBLIQUE @ np.diag([1.0, -1.0, 1.0, 1.0])

#: A sheared grid, as a tilted gantry makes.
SHEARED = _OBLIQUE @ np.array([[1, 0, 0.4, 0], [0, 1, -0.3, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


@st.composite
def affines(draw, sheared: bool = True) -> np.ndarray:
    """Any usable affine: oblique, flipped, anisotropic, left-handed and, where allowed, sheared."""
    rotation = Rotation.from_euler("xyz", [draw(_ANGLE) for _ in range(3)], degrees=True).as_matrix()
    spacing = [draw(st.floats(0.05, 10)) * draw(st.sampled_from([1, -1])) for _ in range(3)]
    shear = np.eye(3)
    if sheared:
        shear[np.triu_indices(3, 1)] = [draw(st.floats(-0.7, 0.7)) for _ in range(3)]
    affine = np.eye(4)
    affine[:3, :3] = rotation @ shear * spacing
    affine[:3, 3] = [draw(st.floats(-1000, 1000)) for _ in range(3)]
    return affine


def geometries(sheared: bool = True) -> st.SearchStrategy[Geometry]:
    """Small grids anywhere in the patient."""
    return st.builds(Geometry, st.tuples(*[st.integers(1, 6)] * 3), affines(sheared))


def points(limit: float = 1000.0, least: int = 0, most: int = 6) -> st.SearchStrategy[list]:
    """Lists of points (i, j, k)."""
    number = st.floats(-limit, limit, allow_subnormal=False)
    return st.lists(st.tuples(number, number, number).map(list), min_size=least, max_size=most)


@st.composite
def regions(draw, low: int = -5, high: int = 7) -> Region:
    """Boxes, empty ones too."""
    start = [draw(st.integers(low, high)) for _ in range(3)]
    return Region(start, [s + draw(st.integers(0, 5)) for s in start])


@st.composite
def patches(draw, kinds=("bits", "labels", "probabilities")) -> MaskPatch:
    """Mask patches of any kind, empty ones too."""
    region = draw(regions(low=0))
    kind = draw(st.sampled_from(kinds))
    types = {"bits": [np.bool_], "labels": [np.uint8, np.uint16], "probabilities": [np.uint8]}[kind]
    voxels = draw(hnp.arrays(draw(st.sampled_from(types)), region.shape))
    return MaskPatch(region, voxels, kind)
