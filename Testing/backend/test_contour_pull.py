"""Pulling the smart contour: exact, local and valid, and settling on real borders."""

from __future__ import annotations

import numpy as np
import pytest
from contour_helpers import all_valid, blobs, disc, real_slice
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree

from aiassist.contour import (
    ContourSession,
    Ring,
    delete_vertex,
    insert_vertex,
    pull_vertex,
    trace,
)
from aiassist.contour.ring import crossings, segments, signed_area
from aiassist.contour.snap import Pull, drag, follow, snap
from aiassist.imaging import Geometry, MaskPatch, Volume


def pulled(mask, grey, spacing, vertex, target, radius, strength=1.0):
    rings = tuple(trace(mask, spacing))
    return rings, pull_vertex(rings, 0, vertex % len(rings[0]), target, grey, spacing, radius, strength)


@given(
    seed=st.integers(0, 500),
    vertex=st.integers(0, 500),
    step=st.tuples(st.floats(-25, 25), st.floats(-25, 25)),
    radius=st.floats(0, 300),
    strength=st.sampled_from([0.0, 0.5, 1.0]),
    spacing=st.sampled_from([(1.0, 1.0), (0.5, 2.0)]),
)
@settings(max_examples=120, deadline=None)
def test_any_pull_is_valid_local_and_exact_or_stops_on_its_way(seed, vertex, step, radius, strength, spacing):
    mask = blobs(seed)
    rings = tuple(trace(mask, spacing))
    if not rings:
        return
    rng = np.random.default_rng(seed)
    grey = np.where(mask, 100.0, 0.0) + rng.normal(0, 30, mask.shape)
    number = seed % len(rings)
    vertex %= len(rings[number])
    start = rings[number].points[vertex]
    after = pull_vertex(rings, number, vertex, start + step, grey, spacing, radius, strength)
    if all_valid(rings):
        assert all_valid(after)
    assert [len(ring) for ring in after] == [len(ring) for ring in rings]
    for other, (old, new) in enumerate(zip(rings, after, strict=True)):
        if other != number:
            assert new is old
    away = np.abs(Pull(rings[number].points * np.array(spacing), vertex, start, radius).away)
    far = away >= max(radius, 1e-9)
    far[vertex] = False
    assert np.array_equal(after[number].points[far], rings[number].points[far])
    goal = np.clip(start + step, -0.5, np.array(mask.shape)[::-1] - 0.5)
    way, whole = after[number].points[vertex] - start, goal - start
    share = float(way @ whole / max(whole @ whole, 1e-12))
    assert np.allclose(way, share * whole, atol=1e-6) and -1e-9 <= share <= 1 + 1e-9


@pytest.mark.parametrize("name", ["spleen", "kidney_right", "urinary_bladder"])
def test_a_sensible_pull_puts_the_vertex_exactly_there(name):
    grey, truth, spacing = real_slice(name)
    mask = ndimage.binary_erosion(truth, iterations=2)
    rings = tuple(trace(mask, spacing))
    for vertex in range(0, len(rings[0]), 7):
        along = rings[0].points[(vertex + 2) % len(rings[0])] - rings[0].points[vertex - 2]
        outward = np.sign(signed_area(rings[0].points)) * np.array([along[1], -along[0]])
        target = rings[0].points[vertex] + 1.5 * outward / np.linalg.norm(outward)
        after = pull_vertex(rings, 0, vertex, target, grey, spacing, 15.0)
        assert np.allclose(after[0].points[vertex], target, atol=1e-9)


def border_distance(points: np.ndarray, truth: np.ndarray, spacing) -> float:
    """Mean distance in mm of a ring's outline to the truth's."""

    def dense(ring):
        following = np.roll(ring, -1, axis=0)
        return (ring + np.linspace(0, 1, 8, endpoint=False)[:, None, None] * (following - ring)).reshape(-1, 2)

    right = dense(max(trace(truth, spacing, 1.0), key=lambda r: r.area).points * spacing)
    return float(cKDTree(right).query(dense(points * spacing))[0].mean())


@pytest.mark.parametrize("name", ["spleen", "kidney_right", "urinary_bladder"])
def test_one_pull_out_of_a_leak_brings_the_outline_closer_to_the_border_than_following_does(name):
    grey, truth, spacing = real_slice(name)
    rows, columns = np.nonzero(truth)
    centre = rows[np.argmax(columns)], columns.max()
    mask = truth | disc(0.35 * np.sqrt(truth.sum()), centre, truth.shape)
    rings = tuple(r for r in trace(mask, spacing) if not r.hole)[:1]
    vertex = int(np.argmax(rings[0].points[:, 0]))
    target = np.array([centre[1] + 0.5, rings[0].points[vertex, 1]])
    after = pull_vertex(rings, 0, vertex, target, grey, spacing, 30.0)[0].points
    smooth = follow(Pull(rings[0].points * spacing, vertex, target * spacing, 30.0)) / spacing
    left = border_distance(after, truth, spacing)
    assert left < 0.6 * border_distance(rings[0].points, truth, spacing)
    assert left < border_distance(smooth, truth, spacing)


def test_without_grey_values_to_go_by_the_outline_moves_smoothly():
    mask = disc()
    vertex = int(np.argmax(trace(mask)[0].points[:, 0]))
    (old,), (new,) = pulled(mask, np.full(mask.shape, 7.0), (1, 1), vertex, [66.0, 40.0], 20.0)
    assert np.array_equal(new.points[vertex], [66.0, 40.0])
    assert old.area < new.area < 1.2 * old.area
    pull = Pull(old.points, vertex, np.array([66.0, 40.0]), 20.0)
    assert np.abs(new.points - follow(pull, pull.share_of_ring)).max() < 2.0


@pytest.mark.parametrize(("noise", "least", "most"), [(0.3, 1.0, 3.0), (0.8, 0.0, 0.5)])
def test_weak_evidence_costs_at_most_half_a_pixel_beside_following(noise, least, most):
    truth, mask = disc(34, (60, 60), (120, 120)), disc(30, (60, 60), (120, 120))
    grey = np.random.default_rng(0).normal(truth * 1.0, noise)
    (ring,) = trace(mask)
    apart = []
    for vertex in range(0, len(ring), 3):
        out = ring.points[vertex] - ring.points.mean(axis=0)
        pull = Pull(ring.points, vertex, ring.points[vertex] + 4 * out / np.linalg.norm(out), 30.0)
        away = np.linalg.norm(drag(pull, grey, (1, 1)) - follow(pull), axis=1)
        apart.append(away[pull.moves].mean())
    assert least <= max(apart) <= most + 1e-6


def test_strength_zero_is_smooth_dragging_and_full_strength_is_not():
    grey, truth, spacing = real_slice("spleen")
    mask = ndimage.binary_erosion(truth, iterations=3)
    rings = tuple(trace(mask, spacing))[:1]
    vertex = int(np.argmin(rings[0].points[:, 1]))
    target = rings[0].points[vertex] - [0, 3]
    pull = Pull(rings[0].points * spacing, vertex, target * spacing, 25.0)
    smooth = pull_vertex(rings, 0, vertex, target, grey, spacing, 25.0, 0.0)[0].points
    assert np.allclose(smooth, follow(pull, pull.share_of_ring) / spacing)
    assert not np.allclose(smooth, pull_vertex(rings, 0, vertex, target, grey, spacing, 25.0, 1.0)[0].points)


@pytest.mark.parametrize(
    ("target", "radius", "strength", "said"),
    [
        ([np.nan, 1], 5, 1, "point"),
        ([1, 2, 3], 5, 1, "point"),
        ([1, 2], -1, 1, "radius -1"),
        ([1, 2], float("nan"), 1, "radius nan"),
        ([1, 2], 5, 2, "strength 2"),
    ],
)
def test_bad_pulls_are_refused(target, radius, strength, said):
    with pytest.raises(ValueError, match=said):
        pulled(disc(), disc() * 1.0, (1, 1), 0, target, radius, strength)


def test_a_pull_is_not_held_against_outlines_far_away(monkeypatch):
    compared = []
    monkeypatch.setattr(
        "aiassist.contour.edit.crossings", lambda one, other: compared.append(other) or crossings(one, other)
    )
    square = np.array([[0, 0], [20, 0], [20, 20], [0, 20]], float)
    near, far = (Ring(square + np.array(step)) for step in ([22.5, 12], [200, 12]))
    after = pull_vertex((Ring(square), near, far), 0, 1, [23, 5], np.zeros((60, 260)), (1, 1), 3.0)
    assert after[0].points[1].tolist() == [23, 5]
    assert compared and all(np.array_equal(other, segments(near.points)) for other in compared)


def test_inserting_keeps_the_outline_and_deleting_undoes_it():
    rings = tuple(trace(disc()))
    more, ring, vertex = insert_vertex(rings, [60.3, 41.0], (1, 1))
    assert ring == 0 and len(more[0]) == len(rings[0]) + 1
    assert more[0].area == pytest.approx(rings[0].area)
    less = delete_vertex(more, 0, vertex)
    assert np.array_equal(less[0].points, rings[0].points)


def test_a_vertex_goes_to_the_nearest_stretch_of_outline_not_to_the_ring_of_the_nearest_vertex():
    long, small = Ring([[0, 0], [100, 0], [100, 20], [0, 20]]), Ring([[48, -12], [52, -12], [50, -8]])
    rings, ring, vertex = insert_vertex((long, small), [50, -3], (1, 1))
    assert (ring, vertex) == (0, 1) and rings[0].points[1].tolist() == [50, 0]


def test_a_vertex_goes_to_the_stretch_of_outline_that_is_nearest_in_mm():
    square = Ring([[0, 0], [100, 0], [100, 20], [0, 20]])
    rings, _, vertex = insert_vertex([square], [96, 2], (0.3, 8.0))  # 1.2 mm from the right side, 16 from the upper
    assert vertex == 2 and np.allclose(rings[0].points[2], [100, 2])


def test_a_session_adds_a_vertex_where_it_is_nearest_in_mm():
    mask = np.zeros((20, 1, 140), bool)
    mask[4:15, 0, 20:121] = True
    geometry = Geometry.from_spacing(mask.shape, (0.3, 0.3, 8.0))
    made = ContourSession(Volume(np.zeros(mask.shape, np.int16), geometry), MaskPatch.of_mask(mask))
    before = made.open(1, 0)[0].points.tolist()
    made.insert([118.5, 5.2])
    (new,) = [point for point in made.rings[0].points.tolist() if point not in before]
    assert abs(new[0] - 120.5) < 0.5 and abs(new[1] - 5.2) < 0.6


def test_what_settles_stays_on_the_slice():
    mask = np.zeros((40, 40), bool)
    mask[10:, 15:25] = True  # cut by the slice's lower edge
    grey = np.random.default_rng(0).normal(mask * 50.0, 5)
    (old,), (new,) = pulled(mask, grey, (1, 1), 0, [8.0, 34.0], 60.0)
    assert new.points.max() <= 39.5 and not np.array_equal(old.points, new.points)


@pytest.mark.parametrize("column", [False, True])
def test_a_slice_of_one_row_or_column_is_looked_at_where_it_lies(column):
    grey = np.random.default_rng(5).normal(np.arange(40) < 34, 0.1)[np.newaxis] * 100
    mask, spacing = np.zeros(grey.shape, bool), np.array([1.0, 8.0])
    mask[0, 5:28] = True
    if column:
        grey, mask, spacing = grey.T, mask.T, spacing[::-1]
    (ring,) = trace(mask, spacing)
    points = ring.points * spacing
    vertex = int(np.argmax(points[:, int(column)]))
    pull = Pull(points, vertex, points[vertex] + ([0, 6] if column else [6, 0]), 15.0)
    assert np.array_equal(drag(pull, grey, spacing), snap(pull, grey, (0, 0), spacing))


def test_deleting_of_three_vertices_deletes_the_ring():
    triangle = Ring([[1, 1], [9, 1], [5, 8]])
    assert delete_vertex((triangle, Ring([[20, 20], [30, 20], [25, 30]])), 0, 1)[0].points[0].tolist() == [20, 20]
