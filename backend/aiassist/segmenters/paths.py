"""The cheapest path between two cells of a grid, searched for on coarser cells first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from scipy import ndimage
from skimage.graph import MCP_Geometric

from aiassist.segmenters.halving import halved

#: A grid of fewer cells is searched as it is.
FEW = 8000
#: Cells along a side of a coarser one, as `halved` makes them.
COARSE = 2
#: Coarse cells around the path found on them in which the cheapest is looked for.
TUBE = 2


def cheapest_paths(cost: np.ndarray, pairs: Iterable, sampling) -> Iterator[np.ndarray]:
    """The cheapest path between each pair of cells, through faces.

    A large grid is searched on cells twice as large, and then near the path that was found there: a path of nearly the
    same cost that runs elsewhere may be missed.

    Parameters
    ----------
    cost : numpy.ndarray
        Of a step into each cell (k, j, i), per unit of length.
    pairs : iterable
        Pairs of cells ``(k, j, i)``.
    sampling : sequence of float
        Lengths of a cell's sides.

    Yields
    ------
    numpy.ndarray
        The cells (n, 3) of a path, both ends included.
    """
    if cost.size <= FEW:
        search = _searching(cost, sampling)
        for start, stop in pairs:
            yield _cheapest(search, start, stop)
        return
    search = _searching(_coarser(cost), sampling)
    for start, stop in pairs:
        places = _cheapest(search, start // COARSE, stop // COARSE)
        low, high = COARSE * np.maximum(places.min(axis=0) - TUBE, 0), COARSE * (places.max(axis=0) + TUBE + 1)
        part = cost[tuple(slice(a, b) for a, b in zip(low, high, strict=True))]
        part = np.where(_near(places - low // COARSE, part.shape), part, np.inf)
        yield _cheapest(_searching(part, sampling), start - low, stop - low) + low


def _searching(cost: np.ndarray, sampling) -> MCP_Geometric:
    return MCP_Geometric(cost, fully_connected=False, sampling=tuple(sampling))


def _cheapest(search: MCP_Geometric, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    search.find_costs([tuple(start)], [tuple(stop)])
    return np.array(search.traceback(tuple(stop)))


def _near(places: np.ndarray, shape) -> np.ndarray:
    """The cells (k, j, i) within `TUBE` coarse cells of some coarse ones."""
    near = np.zeros([-(-n // COARSE) for n in shape], bool)
    near[tuple(places.T)] = True
    near = ndimage.binary_dilation(near, np.ones((3, 3, 3)), TUBE)
    for axis in range(3):
        near = near.repeat(COARSE, axis)
    return near[tuple(slice(n) for n in shape)]


def _coarser(cost: np.ndarray) -> np.ndarray:
    """Cost of blocks of cells: half the mean and half the least, which keeps thin ways open."""
    blocks = np.pad(cost, [(0, n % COARSE) for n in cost.shape], mode="edge")
    return (halved(blocks) / COARSE**3 + halved(blocks, np.minimum)) / 2
