"""What hangs together with a click."""

import numpy as np

from aiassist.segmenters.flood import FAR, flood


def two_blocks():
    """Two bright blocks that a dark gap parts."""
    grey = np.zeros((30, 30, 30), np.float32)
    grey[5:25, 5:14, 5:25] = 1
    grey[5:25, 17:26, 5:25] = 1
    return grey


def test_a_flood_fills_the_block_that_was_clicked_and_not_the_other():
    grey = two_blocks()
    near = flood(grey, np.ones(grey.shape, bool), np.array([[15.0, 9.0, 15.0]]))
    assert near[15, 9, 15] > 0.9
    assert near[7:23, 7:12, 7:23].min() > 0.4
    assert near[7:23, 19:24, 7:23].max() < 0.1 and near[15, 1, 15] < 0.1


def test_a_flood_stays_in_the_open_cells():
    grey = np.zeros((20, 20, 20), np.float32)
    open_cells = np.ones(grey.shape, bool)
    open_cells[:, 10] = False
    near = flood(grey, open_cells, np.array([[10.0, 5.0, 10.0]]))
    assert near[10, 8, 10] > 0.5 and not near[:, 10:].any()


def test_a_flood_ends_at_its_farthest_and_begins_only_in_the_grid():
    grey = np.zeros((64, 8, 8), np.float32)
    near = flood(grey, np.ones(grey.shape, bool), np.array([[0.0, 4.0, 4.0], [-3.0, 4.0, 4.0]]))
    assert near[FAR, 4, 4] > 0 and not near[FAR + 1 :].any()
    assert not flood(grey, np.ones(grey.shape, bool), np.array([[99.0, 4.0, 4.0]])).any()
