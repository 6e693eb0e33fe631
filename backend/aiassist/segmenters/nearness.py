"""How near each cell of a cube is to the prompts: along the tree that joins them, and through the grey levels.

A small network sees only so far; these channels tell it what hangs together across the whole cube, as geodesic
distances to clicks do in DeepIGeoS (Wang et al. 2018, arXiv:1707.00652).
"""

from __future__ import annotations

import numpy as np
from scipy import ndimage

from aiassist.segmenters.blurring import steepness
from aiassist.segmenters.halving import halved
from aiassist.segmenters.marks import Marks, box_mask

#: Nearness falls to 1/e this many cells (of their mean side) away from the tree, and at this geodesic distance.
FALL = 4.0
#: Cost of a step where the grey levels do not change; across a strong border it is ten times as much.
FLAT = 0.1
#: Of strokes this many points are joined.
MOST = 12


def nearness(grey: np.ndarray, inside: np.ndarray, marks: Marks, sides: np.ndarray) -> np.ndarray:
    """Three channels (3, c, c, c), float32, computed on cells twice as large, as the network computes.

    Nearness (0 to 1) to the shortest tree that joins the prompts by straight lines; whether a cell is nearer to the
    prompts (1) or to the faces of their box (-1) along the cheapest way through the grey levels, whose changes are
    dear; and nearness (0 to 1) to the prompts along such ways.

    Parameters
    ----------
    grey : numpy.ndarray
        Grey level (c, c, c) of each cell; c is even.
    inside : numpy.ndarray
        Which cells lie in the volume.
    marks : Marks
    sides : numpy.ndarray
        Of a cell ``(k, j, i)``, in mm.
    """
    points = np.concatenate([marks.extreme, marks.positive])
    if not len(points):
        return np.zeros((3, *grey.shape), np.float32)
    points = (points[:: -(-len(points) // MOST)] - 0.5) / 2
    sides, size = sides / np.cbrt(np.prod(sides)), len(grey) // 2
    ways = _cost(halved(grey) / 8, halved(inside, np.logical_or))
    seeds = np.unique(np.clip(np.rint(points), 0, size - 1).astype(int), axis=0)
    box = None if marks.box is None else box_mask([(corner - 0.5) / 2 for corner in marks.box], size) > 0
    box = box if box is not None and box.any() else None  # one that is thinner than these cells says nothing
    near, far = _distance(ways, seeds, sides), _distance(ways, _rim(box, size), sides)
    if box is not None:
        far = np.where(box, far, 0)
    channels = [_near_tree(points * sides, size, sides), (far - near) / (far + near + 1e-6), np.exp(-near / FALL)]
    return np.stack(channels).astype(np.float32).repeat(2, 1).repeat(2, 2).repeat(2, 3)


def _cost(grey: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Of a step into each cell, per unit of length."""
    edges = steepness(grey, 0.7)
    return FLAT + edges / max(float(np.percentile(edges, 90)), 1e-6) + ~inside


def _rim(box: np.ndarray | None, size: int) -> np.ndarray:
    """The cells (n, 3) around the prompts' box, or those on the faces of the cube."""
    if box is None:
        return np.argwhere(np.pad(np.zeros((size - 2,) * 3, bool), 1, constant_values=True))
    around = np.argwhere(ndimage.binary_dilation(box) & ~box)
    return around if len(around) else _rim(None, size)


def _distance(cost: np.ndarray, seeds: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """The cost of the cheapest way to each cell from any of the seeds (n, 3), through faces.

    Neighbours tell each other until nothing changes (Bellman 1958), which costs the same from any number of
    seeds; `MCP_Geometric` of scikit-image gives the same, ten times as slowly from those of a rim.
    """
    paid = np.full(cost.shape, np.inf)
    paid[tuple(seeds.T)] = 0
    rows = [(np.moveaxis(paid, axis, 0), np.moveaxis(cost, axis, 0)) for axis in range(3)]
    steps = [(c[1:] + c[:-1]) * (side / 2) for (_, c), side in zip(rows, sides, strict=True)]
    before = None
    while before is None or (paid < before).any():
        before = paid.copy()
        for (here, _), step in zip(rows, steps, strict=True):
            np.minimum(here[1:], here[:-1] + step, out=here[1:])
            np.minimum(here[:-1], here[1:] + step, out=here[:-1])
    return paid


def _near_tree(points: np.ndarray, size: int, sides: np.ndarray) -> np.ndarray:
    """Nearness of cells to the shortest tree of straight lines between points (n, 3), in units of length."""
    places = np.ix_(*[np.arange(size) * side for side in sides])

    def times(offset: np.ndarray, vector: np.ndarray) -> np.ndarray:
        """Of each cell, its offset from a point times a vector."""
        return sum((place - start) * length for place, start, length in zip(places, offset, vector, strict=True))

    away = sum((place - start) ** 2 for place, start in zip(places, points[0], strict=True))
    for start, stop in _tree(points):
        along = stop - start
        ahead, length = times(start, along), along @ along
        share = (ahead / max(length, 1e-12)).clip(0, 1)
        square = sum((place - at) ** 2 for place, at in zip(places, start, strict=True))
        np.minimum(away, square + share * (share * length - 2 * ahead), out=away)
    away = np.maximum(away, 0)
    return np.exp(-2 * np.sqrt(away) / FALL)  # these cells are twice as large


def _tree(points: np.ndarray):
    """The lines of the shortest tree that joins points (Prim 1957)."""
    gaps = np.linalg.norm(points[:, np.newaxis] - points, axis=-1)
    joined, left = [0], list(range(1, len(points)))
    while left:
        one, other = np.unravel_index(gaps[np.ix_(joined, left)].argmin(), (len(joined), len(left)))
        yield points[joined[one]], points[left[other]]
        joined.append(left.pop(other))
