"""Region algebra agrees with sets of voxels."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import points, regions

from aiassist.errors import AIAssistError
from aiassist.imaging import Region


def voxels(region: Region) -> set[tuple[int, ...]]:
    return set(itertools.product(*[range(a, b) for a, b in zip(region.start, region.stop, strict=True)]))


@given(regions())
def test_size_counts_the_voxels(region):
    assert region.voxels == len(voxels(region)) == np.prod(region.shape)
    assert region.is_empty == (not voxels(region))


@given(regions(), regions())
def test_intersection_holds_the_voxels_of_both(one, other):
    assert voxels(one.intersect(other)) == voxels(one) & voxels(other)


@given(regions(), regions())
def test_union_is_the_tightest_box_around_both(one, other):
    both = voxels(one) | voxels(other)
    union = one.union(other)
    assert both <= voxels(union)
    if both:
        assert union.start == tuple(np.min(list(both), axis=0))
        assert union.stop == tuple(np.max(list(both), axis=0) + 1)
    else:
        assert union.is_empty


@given(regions(), st.tuples(*[st.integers(1, 8)] * 3))
def test_clip_keeps_what_lies_in_the_array(region, shape):
    whole = set(itertools.product(*map(range, shape)))
    assert voxels(region.clip(shape)) == voxels(region) & whole


@given(regions(), st.floats(0, 20), st.tuples(*[st.floats(0.1, 5)] * 3))
def test_grow_adds_at_least_the_millimetres_and_less_than_a_voxel_more(region, mm, spacing):
    grown = region.grow(mm, spacing)
    for axis in range(3):
        added = (region.start[axis] - grown.start[axis]) * spacing[axis]
        assert mm - 1e-6 <= added < mm + spacing[axis] + 1e-6
        assert grown.stop[axis] - region.stop[axis] == region.start[axis] - grown.start[axis]


def test_grow_takes_one_length_per_axis():
    assert Region((5, 5, 5), (6, 6, 6)).grow([2, 1, 0], (1, 2, 3)) == Region((3, 4, 5), (8, 7, 6))


@given(regions(), st.tuples(*[st.integers(-9, 9)] * 3))
def test_shift_moves_every_voxel_and_can_be_undone(region, offset):
    assert voxels(region.shift(offset)) == {tuple(np.add(v, offset)) for v in voxels(region)}
    assert region.shift(offset).shift(np.negative(offset)) == region


@given(regions(low=0), st.data())
def test_within_indexes_an_array_that_covers_the_outer_region(outer, data):
    inner = outer.intersect(data.draw(regions(low=0)))
    whole = np.arange(13**3).reshape(13, 13, 13)
    if not inner.is_empty:
        assert np.array_equal(whole[outer.slices][inner.within(outer)], whole[inner.slices])


@given(regions())
def test_json_returns_the_region_with_indices_as_ijk(region):
    data = json.loads(json.dumps(region.to_json()))
    assert Region.from_json(data) == region
    assert data["start"] == list(region.start[::-1])
    assert data["stop"] == list(region.stop[::-1])


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"start": [0, 0, 0]},
        {"start": [0, 0], "stop": [1, 1]},
        {"start": [0, 0, "1"], "stop": [1, 1, 2]},
        {"start": [0, 0, 0.7], "stop": [1, 1, 2]},
        {"start": [0, 0, float("inf")], "stop": [1, 1, 2]},
        {"start": None, "stop": [1, 1, 1]},
        {"start": {"0": 0}, "stop": [1, 1, 1]},
        [[0, 0, 0], [1, 1, 1]],
        "region",
    ],
)
def test_json_of_something_else_is_refused(data):
    with pytest.raises(AIAssistError, match="region"):
        Region.from_json(data)


def test_a_box_that_ends_before_it_starts_is_empty():
    assert Region((3, 3, 3), (9, 2, 9)) == Region((3, 3, 3), (3, 3, 3))


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=8))
def test_region_of_a_mask_is_the_tightest_box(true_voxels):
    mask = np.zeros((7, 7, 7), bool)
    mask[tuple(np.array(true_voxels, int).reshape(-1, 3).T)] = True
    region = Region.of_mask(mask)
    assert mask[region.slices].sum() == mask.sum()
    assert region.is_empty == (not true_voxels)
    for axis in range(3):
        if true_voxels:
            planes = mask[region.slices].any(axis=tuple({0, 1, 2} - {axis}))
            assert planes[0]
            assert planes[-1]


@given(points(limit=50, least=1))
def test_region_of_points_holds_the_voxel_of_each_point(indices):
    region = Region.of_points(indices)
    nearest = np.rint(np.array(indices)[:, ::-1]).astype(int)
    assert region.start == tuple(nearest.min(axis=0))
    assert region.stop == tuple(nearest.max(axis=0) + 1)
