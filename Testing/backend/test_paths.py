"""The cheapest path between two cells."""

import numpy as np
import pytest
from scipy import ndimage
from skimage.graph import MCP_Geometric

from aiassist.segmenters import paths
from aiassist.segmenters.paths import cheapest_paths

ENDS = [(np.array([20, 20, 1]), np.array([21, 18, 39])), (np.array([1, 30, 22]), np.array([38, 4, 20]))]


def hills(seed: int) -> np.ndarray:
    """Costs from 1 to 10 that change within a few cells."""
    field = ndimage.gaussian_filter(np.random.default_rng(seed).random((40, 40, 41)), 2)
    return 1 + 9 * (field - field.min()) / np.ptp(field)


def paid(cost: np.ndarray, path: np.ndarray) -> float:
    """What a path costs: half of each step lies in either cell."""
    there = cost[tuple(path.T)]
    return float((there[1:] + there[:-1]).sum() / 2)


@pytest.mark.parametrize("seed", range(4))
def test_a_path_joins_its_ends_through_faces_at_hardly_more_than_the_least_cost(seed):
    cost = hills(seed)
    for (start, stop), path in zip(ENDS, cheapest_paths(cost, ENDS, (1, 1, 1)), strict=True):
        assert (path[0] == start).all() and (path[-1] == stop).all()
        assert (np.abs(np.diff(path, axis=0)).sum(axis=1) == 1).all()
        everywhere, _ = MCP_Geometric(cost, fully_connected=False).find_costs([tuple(start)], [tuple(stop)])
        assert everywhere[tuple(stop)] <= paid(cost, path) + 1e-6 <= 1.02 * everywhere[tuple(stop)] + 1e-6


def test_a_large_grid_is_not_searched_whole(monkeypatch):
    seen = []
    searching = paths._searching
    monkeypatch.setattr(
        paths, "_searching", lambda cost, sides: seen.append(np.isfinite(cost).sum()) or searching(cost, sides)
    )
    cost = hills(0)
    list(cheapest_paths(cost, ENDS, (1, 1, 1)))
    assert len(seen) == 1 + len(ENDS) and max(seen) < cost.size / 3
    seen.clear()
    small = cost[:20, :20, :20]
    list(cheapest_paths(small, [(np.array([1, 1, 1]), np.array([18, 18, 18]))], (1, 1, 1)))
    assert seen == [small.size]


def test_a_way_one_cell_wide_is_found():
    cost = np.full((40, 40, 41), 100.0)
    cost[21, 17, :] = 1
    start, stop = np.array([21, 17, 0]), np.array([21, 17, 40])
    (path,) = cheapest_paths(cost, [(start, stop)], (1, 1, 1))
    assert (path[:, :2] == [21, 17]).all() and len(path) == 41


def test_the_lengths_of_a_cells_sides_count():
    cost = np.ones((40, 40, 41))
    cost[:, 1:-1] = 1.2  # along j = 0 or across: a step along k is dear where cells are long
    (path,) = cheapest_paths(cost, [(np.array([20, 0, 0]), np.array([20, 0, 40]))], (5, 1, 1))
    assert (path[:, 0] == 20).all() and (path[:, 1] == 0).all()
