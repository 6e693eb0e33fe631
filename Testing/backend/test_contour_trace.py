"""The smart contour's outlines: traced, counted, and rasterised back to the mask."""

from __future__ import annotations

import numpy as np
import pytest
from contour_helpers import STRUCTURES, blobs, disc, real_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import find_contours

from aiassist.contour import (
    Ring,
    paint,
    rasterise,
    trace,
)
from aiassist.contour.rasterise import without_swallowed
from aiassist.contour.ring import is_simple, segment_lengths, signed_area
from aiassist.contour.trace import count_outlines, outline_length
from aiassist.evaluation.metrics import dice


@given(st.integers(0, 10_000), st.sampled_from([(1.0, 1.0), (0.4, 2.5), (3.0, 0.8)]), st.sampled_from([1.0, 3.0, 8.0]))
@settings(max_examples=60, deadline=None)
def test_tracing_and_rasterising_returns_the_mask(seed, spacing, distance):
    mask = blobs(seed)
    found = rasterise(trace(mask, spacing, distance), mask.shape)
    parts, count = ndimage.label(mask)
    for part in range(1, count + 1):
        pixels = parts == part
        if pixels.sum() >= 100:
            around = ndimage.binary_dilation(pixels)
            assert dice(found & around, pixels) >= 0.995
    assert dice(found, mask) >= 0.99 or not mask.any()


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_real_outlines_keep_mask_and_area(name, axis):
    _, mask, spacing = real_slice(name, axis)
    (ring,) = trace(mask, spacing)
    assert dice(rasterise([ring], mask.shape), mask) >= 0.995
    assert abs(ring.area - mask.sum()) <= 0.01 * mask.sum()


def test_vertices_lie_as_far_apart_as_asked_on_a_smooth_outline():
    for distance in (2.0, 4.0):
        (ring,) = trace(disc(60, (100, 100), (200, 200)), (0.8, 0.8), distance)
        assert segment_lengths(ring.points * 0.8).mean() == pytest.approx(distance, rel=0.1)


def test_vertices_lie_closer_where_the_outline_bends():
    mask = np.zeros((120, 220), bool)
    mask[40:80, 40:180] = True
    (ring,) = trace(mask, (1, 1), 10.0)
    corner = np.array([[40, 40], [179, 40], [40, 79], [179, 79]])
    near = np.linalg.norm(ring.points[:, np.newaxis] - corner, axis=2).min(axis=1) < 8
    lengths = segment_lengths(ring.points)
    assert lengths[near].mean() < 0.7 * lengths[~near].mean()


def test_holes_and_parts_are_told_apart():
    mask = disc(30) & ~disc(12) | disc(5, (8, 8))
    rings = trace(mask)
    assert [ring.hole for ring in rings] == [False, True, False]
    assert (rasterise(rings, mask.shape) == mask).mean() > 0.995


def test_a_thousand_islands_are_traced_exactly():
    mask = np.zeros((130, 130), bool)
    mask[1:-1:4, 1:-1:4] = mask[2:-1:4, 1:-1:4] = True
    rings = trace(mask)
    assert len(rings) == 1024 and np.array_equal(rasterise(rings, mask.shape), mask)


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_outlines_are_counted_as_they_are_traced(seed):
    mask = np.random.default_rng(seed).random((25, 30)) < 0.5
    rings = trace(mask)
    assert count_outlines(mask) == len(rings)
    assert np.array_equal(rasterise(rings, mask.shape), mask)
    first_pixels = [np.argwhere(rasterise([ring], mask.shape))[0] for ring in rings]
    assert [ring.hole for ring in rings] == [not mask[tuple(pixel)] for pixel in first_pixels]


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None)
def test_traced_outlines_are_as_long_as_counted_and_painting_them_is_rasterising_them(seed):
    mask = blobs(seed)
    rings = trace(mask)
    padded = np.pad(mask, 1).astype(float)
    assert outline_length(mask) == sum(len(outline) - 1 for outline in find_contours(padded, 0.5))
    assert np.array_equal(paint(rings, mask.shape), rasterise(rings, mask.shape))


def square(low: float, high: float, hole: bool = False) -> Ring:
    return Ring([[low, low], [high, low], [high, high], [low, high]], hole)


@pytest.mark.parametrize(
    ("rings", "kept"),
    [
        ([square(9.5, 12.5), square(4.5, 20.5)], [1]),  # a part inside a part
        ([square(9.5, 12.5, True), square(14.5, 20.5)], [1]),  # a hole outside all parts
        ([square(4.5, 20.5), square(9.5, 12.5, True), square(10.5, 11.5)], [0, 1, 2]),
        ([square(4.5, 20.5), square(6.5, 15.5), square(9.5, 12.5, True)], [0, 2]),
        ([square(4.5, 20.5), square(4.6, 20.4, True)], []),  # a hole that leaves nothing of its part
        ([square(4.5, 20.5), square(4.6, 20.4)], [0]),
        ([square(30.1, 30.9), square(4.5, 20.5)], [1]),  # no pixel's centre
    ],
)
def test_outlines_that_painting_makes_nothing_of_are_left_out_and_the_others_stay(rings, kept):
    left = without_swallowed(rings, (40, 40))
    assert [rings.index(ring) for ring in left] == kept
    assert np.array_equal(paint(left, (40, 40)), paint(rings, (40, 40)))


@given(st.integers(0, 10_000))
@settings(max_examples=60, deadline=None)
def test_of_any_outlines_those_are_left_that_painting_needs(seed):
    rng = np.random.default_rng(seed)
    rings = [
        Ring(rng.uniform(0, 20, 2) + rng.uniform(-6, 6, (3, 2)), bool(rng.integers(2)))
        for _ in range(rng.integers(1, 8))
    ]
    left, whole = without_swallowed(rings, (20, 20)), paint(rings, (20, 20))
    assert np.array_equal(paint(left, (20, 20)), whole)
    for ring in left:
        assert not np.array_equal(paint([other for other in left if other is not ring], (20, 20)), whole)


def test_no_traced_outline_is_left_out():
    for seed in range(20):
        mask = blobs(seed)
        rings = trace(mask)
        assert without_swallowed(rings, mask.shape) == tuple(rings)


def test_tracing_is_deterministic():
    first, second = trace(blobs(3)), trace(blobs(3))
    assert all(np.array_equal(a.points, b.points) for a, b in zip(first, second, strict=True))


def test_parts_of_one_pixel_and_at_the_edge_are_kept():
    mask = np.zeros((12, 15), bool)
    mask[5, 7] = mask[0, 0] = mask[11, 14] = True
    mask[3:9, 0:2] = True
    assert np.array_equal(rasterise(trace(mask), mask.shape), mask)
    full = np.ones((6, 7), bool)
    assert np.array_equal(rasterise(trace(full), full.shape), full)
    assert trace(np.zeros((5, 5), bool)) == []


def test_a_pixel_centre_on_an_outline_belongs_to_one_of_two_neighbours():
    left = Ring([[1, 1], [4, 1], [4, 5], [1, 5]])
    right = Ring([[4, 1], [8, 1], [8, 5], [4, 5]])
    one, other = (rasterise([ring], (8, 10)) for ring in (left, right))
    assert not (one & other).any()
    assert (one | other)[1:5, 1:8].all() and (one | other).sum() == 4 * 7


@pytest.mark.parametrize(
    ("mask", "spacing", "distance", "said"),
    [
        (np.zeros((3, 3, 3), bool), (1, 1), 3.0, "rows and columns"),
        (disc(), (0, 1), 3.0, "spacing"),
        (disc(), (1, np.inf), 3.0, "spacing"),
        (disc(), (1e-9, 1), 3.0, "spacing"),
        (disc(), (1, 1), -1.0, "distance -1.0"),
        (disc(), (1, 1), float("nan"), "distance nan"),
    ],
)
def test_bad_slices_are_refused(mask, spacing, distance, said):
    with pytest.raises(ValueError, match=said):
        trace(mask, spacing, distance)


def test_bad_rings_are_refused():
    with pytest.raises(ValueError, match="three or more"):
        Ring([[0, 0], [1, 1]])
    with pytest.raises(ValueError, match="not finite"):
        Ring([[0, 0], [1, 1], [np.nan, 3]])


def test_crossing_touching_and_folding_outlines_are_not_simple():
    assert is_simple(np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float))
    assert not is_simple(np.array([[0, 0], [4, 4], [4, 0], [0, 4]], float))
    assert not is_simple(np.array([[0, 0], [4, 0], [2, 0], [2, 4]], float))
    assert not is_simple(np.array([[0, 0], [4, 0], [4, 4], [2, 0], [0, 4]], float))
    assert signed_area(np.array([[0, 0], [4, 0], [4, 4], [0, 4]], float)) == 16
