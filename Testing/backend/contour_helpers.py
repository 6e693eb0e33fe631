"""Slices of the bundled CT, which is read once, and of other shapes."""

from __future__ import annotations

from functools import cache

import numpy as np
from scipy import ndimage

from aiassist.contour import Plane
from aiassist.contour.ring import crossings, is_simple, segments
from aiassist.imaging import Volume, finite, read_labelmap, read_volume
from aiassist.resources import resource

#: Structures of the bundled CT with a slice that shows them well.
STRUCTURES = {"spleen": 1, "kidney_right": 2, "liver": 5, "stomach": 6, "urinary_bladder": 21}


@cache
def torso() -> tuple[Volume, np.ndarray]:
    """The bundled CT and its labelmap."""
    volume = read_volume(resource("SampleData", "ts_ct_torso", "image.nii.gz"))
    return volume, read_labelmap(resource("SampleData", "ts_ct_torso", "label.nii.gz"), like=volume).voxels


def largest(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def real_slice(name: str, axis: int = 0):
    """Grey values, the largest part of the structure without holes, and spacing, where it is largest."""
    volume, labels = torso()
    mask = labels == STRUCTURES[name]
    index = int(np.argmax(mask.sum(axis=tuple(a for a in range(3) if a != axis))))
    plane = Plane(volume.geometry, axis, index)
    return finite(plane.of(volume.voxels)), ndimage.binary_fill_holes(largest(plane.of(mask))), plane.spacing


def blobs(seed: int, rows: int = 50, columns: int = 60) -> np.ndarray:
    """Random smooth parts with holes, some of which touch the edge."""
    rng = np.random.default_rng(seed)
    field = ndimage.gaussian_filter(rng.normal(size=(rows, columns)), rng.uniform(1.5, 6))
    return field > rng.uniform(-0.3, 0.6) * field.std()


def disc(radius: float = 20, centre=(40, 40), shape=(80, 80)) -> np.ndarray:
    row, column = np.indices(shape)
    return (row - centre[0]) ** 2 + (column - centre[1]) ** 2 <= radius**2


def all_valid(rings) -> bool:
    """Whether no ring crosses itself or another."""
    for number, ring in enumerate(rings):
        if not is_simple(ring.points):
            return False
        for other in rings[number + 1 :]:
            if len(crossings(segments(ring.points), segments(other.points))):
                return False
    return True
