"""Points that were missed a little."""

import numpy as np

from aiassist.imaging import Region
from aiassist.segmenters.second_thoughts import better_points, unreached

#: Six extreme points of the box from 10 to 50 along every axis.
POINTS = np.array([[10, 30, 30], [50, 30, 30], [30, 10, 30], [30, 50, 30], [30, 30, 10], [30, 30, 50]], float)


def test_points_at_the_ends_of_the_answer_are_believed():
    assert better_points(POINTS, Region((10, 10, 10), (51, 51, 51))) is None
    assert better_points(POINTS, Region((11, 9, 10), (51, 50, 52))) is None  # a voxel is nothing


def test_a_point_goes_half_way_to_the_end_along_its_own_axis():
    moved = better_points(POINTS, Region((10, 10, 10), (51, 51, 53)))  # (k, j, i): the answer ends at i = 52
    assert np.allclose(moved - POINTS, [[0, 0, 0], [1, 0, 0], *[[0, 0, 0]] * 4])


def test_a_point_goes_no_farther_than_a_hand_misses():
    moved = better_points(POINTS, Region((2, 10, 10), (51, 51, 51)))  # the answer begins at k = 2
    assert np.allclose(moved - POINTS, [*[[0, 0, 0]] * 4, [0, 0, -1.2], [0, 0, 0]])


def test_an_answer_that_ends_far_short_of_a_point_is_wrong_and_the_point_stays():
    assert better_points(POINTS, Region((30, 10, 10), (51, 51, 51))) is None  # it begins at k = 30
    moved = better_points(POINTS, Region((12, 10, 10), (51, 51, 51)))  # at k = 12: a miss
    assert np.allclose(moved - POINTS, [*[[0, 0, 0]] * 4, [0, 0, 1], [0, 0, 0]])


def test_fewer_points_and_empty_answers_move_nothing():
    assert better_points(POINTS[:5], Region((0, 0, 0), (90, 90, 90))) is None
    assert better_points(POINTS, Region((0, 0, 0), (0, 0, 0))) is None


def test_of_a_large_structure_more_is_believed():
    large = 5 * POINTS  # from 50 to 250 along every axis
    assert better_points(large, Region((50, 50, 46), (251, 255, 251))) is None
    assert better_points(large, Region((50, 50, 45), (251, 251, 251))) is not None


def test_points_in_one_slice_say_nothing_of_the_axis_across_it():
    flat = POINTS * [1, 1, 0] + [0, 0, 5]
    moved = better_points(flat, Region((2, 10, 10), (9, 51, 53)))
    assert np.allclose(moved - flat, [[0, 0, 0], [1, 0, 0], *[[0, 0, 0]] * 4])


def test_points_are_unreached_beyond_four_cells_or_voxels_where_those_are_larger():
    answer = np.zeros((20, 20, 20), bool)
    answer[8:12, 8:12, 8:12] = True
    points = np.array([[10, 10, 15], [10, 10, 16], [3, 10, 10], [10, 25, 10]])
    assert unreached(points, answer, np.ones(3)).tolist() == [False, True, True, True]
    assert unreached(points, answer, np.full(3, 3.0)).tolist() == [False, True, True, True]
    assert unreached(points, answer, np.array([1.0, 1.0, 0.5])).tolist() == [False, False, True, True]
    assert unreached(points, np.zeros_like(answer), np.ones(3)).all()
    assert not len(unreached(np.zeros((0, 3)), answer, np.ones(3)))
