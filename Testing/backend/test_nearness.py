"""Channels that say how near cells are to the prompts."""

from __future__ import annotations

import numpy as np
from skimage.graph import MCP_Geometric

from aiassist.segmenters.marks import Marks
from aiassist.segmenters.nearness import _distance, nearness

SIZE = 24
EVERYWHERE = np.ones((SIZE,) * 3, bool)
FLAT = np.zeros((SIZE,) * 3, np.float32)


def marks(*points, box=None) -> Marks:
    box = None if box is None else tuple(np.array(corner, float) for corner in box)
    return Marks(extreme=np.array(points, float), box=box)


def test_the_tree_joins_points_along_a_bent_structure_and_not_across():
    """Three points of an L: its corner lies near the tree, the middle between its ends does not."""
    tree = nearness(FLAT, EVERYWHERE, marks([4, 4, 4], [20, 4, 4], [20, 20, 4]), np.ones(3))[0]
    assert min(tree[4, 4, 4], tree[12, 4, 4], tree[20, 4, 4], tree[20, 12, 4]) > 0.7
    assert tree[12, 12, 4] < 0.25
    assert tree[12, 4, 12] < tree[12, 4, 8] < tree[12, 4, 4]


def test_distances_are_in_millimetres():
    tree = nearness(FLAT, EVERYWHERE, marks([12, 12, 4], [12, 12, 20]), np.array([4.0, 1.0, 1.0]))[0]
    assert tree[16, 12, 12] < tree[12, 16, 12]


def test_a_border_of_the_grey_levels_is_far_away():
    grey = np.where(np.arange(SIZE) < 12, 0.0, 1.0).astype(np.float32) * np.ones((SIZE,) * 3, np.float32)
    near = nearness(grey, EVERYWHERE, marks([12, 12, 6], [12, 12, 2]), np.ones(3))[2]
    assert near[12, 12, 10] > 1.5 * near[12, 12, 16]
    plain = nearness(FLAT, EVERYWHERE, marks([12, 12, 6], [12, 12, 2]), np.ones(3))[2]
    assert plain[12, 12, 16] > 1.5 * near[12, 12, 16]


def test_beyond_the_box_all_is_nearer_to_its_faces():
    box = ([4, 4, 4], [19, 19, 19])
    _, side, _ = nearness(FLAT, EVERYWHERE, marks([12, 12, 12], [12, 12, 14], box=box), np.ones(3))
    assert side[12, 12, 12] > 0.5
    assert side[1, 1, 1] < -0.999
    assert side.min() >= -1 and side.max() <= 1


def test_without_points_the_channels_say_nothing():
    empty = Marks(box=(np.full(3, 4.0), np.full(3, 19.0)))
    assert not nearness(FLAT, EVERYWHERE, empty, np.ones(3)).any()


def test_of_long_strokes_a_few_points_are_joined():
    stroke = np.column_stack([np.full(200, 12.0), np.full(200, 12.0), np.linspace(3, 20, 200)])
    tree = nearness(FLAT, EVERYWHERE, Marks(positive=stroke), np.ones(3))[0]
    assert tree[12, 12, 4:20].min() > 0.7


def test_ways_cost_what_scikit_image_finds():
    rng = np.random.default_rng(3)
    cost, sides = rng.uniform(0.1, 3, (14, 12, 13)), (1.5, 0.8, 0.7)
    for seeds in ([[2, 3, 4]], [[0, 0, 0], [13, 11, 12]], np.argwhere(rng.random(cost.shape) < 0.2)):
        found = _distance(cost, np.array(seeds), np.array(sides))
        wanted, _ = MCP_Geometric(cost, fully_connected=False, sampling=sides).find_costs(np.array(seeds).tolist())
        assert np.allclose(found, wanted, rtol=0, atol=1e-9)
