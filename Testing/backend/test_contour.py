"""The smart contour: outlines round-trip, pulls are exact, local and valid, and settle on real borders."""

from __future__ import annotations

import numpy as np
import pytest
from contour_helpers import STRUCTURES, torso
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from scipy.spatial import cKDTree
from skimage.measure import find_contours

from aiassist.contour import (
    ContourSession,
    Plane,
    Ring,
    delete_vertex,
    insert_vertex,
    paint,
    pull_vertex,
    rasterise,
    trace,
)
from aiassist.contour.ring import crossings, is_simple, segment_lengths, segments, signed_area
from aiassist.contour.snap import Pull, drag, follow
from aiassist.contour.trace import count_outlines, outline_length
from aiassist.errors import ContourError
from aiassist.evaluation.metrics import dice
from aiassist.imaging import Geometry, MaskPatch, Volume, finite


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


# Trace and rasterise


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


# Pulling


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


def test_deleting_of_three_vertices_deletes_the_ring():
    triangle = Ring([[1, 1], [9, 1], [5, 8]])
    assert delete_vertex((triangle, Ring([[20, 20], [30, 20], [25, 30]])), 0, 1)[0].points[0].tolist() == [20, 20]


# The session


def session(name: str = "spleen", axis: int = 0):
    """A session on the bundled CT with the structure eroded on one side, its slice opened; the truth's slice."""
    volume, labels = torso()
    truth = labels == STRUCTURES[name]
    mask = truth & ndimage.shift(truth, [0, 0, 3], order=0)
    index = int(np.argmax(truth.sum(axis=tuple(a for a in range(3) if a != axis))))
    made = ContourSession(volume, MaskPatch.of_mask(mask))
    made.open(axis, index)
    return made, mask, truth


def pull_out(made: ContourSession, pixels: float = 3.0):
    """Pull the leftmost vertex outwards."""
    ring = made.rings[0]
    vertex = ring.points[np.argmin(ring.points[:, 0])]
    made.press(vertex)
    made.drag(vertex - [pixels / 2, 0], 20.0)
    made.drag(vertex - [pixels, 0], 20.0)
    return made.release()


def test_a_drag_changes_its_slice_only_and_undo_restores_it():
    made, mask, truth = session()
    index = made.plane.index
    start = made.rings
    edit = pull_out(made)
    assert edit.slices == (index,)
    patch = made.result()
    assert patch.region.start[0] == index and patch.region.stop[0] == index + 1
    after = patch.over(MaskPatch.of_mask(mask)).to_mask(mask.shape)
    assert dice(after[index], truth[index]) > dice(mask[index], truth[index]) + 0.005
    made.undo()
    assert made.result().region.is_empty
    assert all(np.array_equal(a.points, b.points) for a, b in zip(start, made.rings, strict=True))
    made.redo()
    assert np.array_equal(made.result().mask, patch.mask)


def pull_two(made: ContourSession, apart: int) -> np.ndarray:
    """Pull the leftmost vertex, then the one so many vertices on; where the first one was put."""
    place = pull_out(made).place
    ring = made.rings[0].points
    first = int(np.flatnonzero((ring == place).all(axis=1))[0])
    second = ring[(first + apart) % len(ring)]
    made.press(second)
    made.drag(second - [2.0, 0], 40.0)
    made.release()
    return place


def holds(made: ContourSession, place: np.ndarray) -> bool:
    """Whether a vertex lies exactly there."""
    return any((ring.points == place).all(axis=1).any() for ring in made.rings)


def test_what_was_put_somewhere_stays_when_the_next_stretch_is_pulled():
    made, _, _ = session()
    place = pull_two(made, apart=4)
    assert holds(made, place)
    moved = np.abs(made._done[-1].changes[0].rings[0][0].points - made.rings[0].points).max(axis=1) > 0
    assert moved.sum() >= 3
    made.undo()
    made.undo()
    assert not holds(made, place)


def test_what_was_put_somewhere_moves_when_its_neighbour_is_pulled():
    made, _, _ = session()
    assert not holds(made, pull_two(made, apart=1))


def test_drags_start_from_the_press_and_nothing_is_kept_before_release():
    made, _, _ = session()
    vertex = made.rings[0].points[0]
    made.press(vertex)
    made.drag(vertex + np.array([9, 9]))
    once = made.drag(vertex + np.array([2, 1]))
    assert made.result().region.is_empty
    made.press(vertex)
    made.open(made.plane.axis, made.plane.index)
    made.press(vertex)
    again = made.drag(vertex + np.array([2, 1]))
    assert np.array_equal(once[0].points, again[0].points)


@given(st.lists(st.sampled_from(["pull", "insert", "delete", "undo", "redo", "slice"]), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_undoing_everything_restores_the_mask(steps):
    made, _, _ = session("kidney_right")
    axis, index = made.plane.axis, made.plane.index
    for number, step in enumerate(steps):
        if not made.rings:
            break
        if step == "pull":
            pull_out(made, 1.0 + number)
        elif step == "insert":
            made.insert(made.rings[0].points[number % len(made.rings[0])] + 0.3)
        elif step == "delete":
            made.delete(0, number % len(made.rings[0]))
        elif step == "undo":
            made.undo()
        elif step == "redo":
            made.redo()
        else:
            made.open(axis, index + number % 2)
    while made.undo() is not None:
        pass
    assert made.result().region.is_empty


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_propagation_says_which_slices_changed_and_can_be_undone(axis):
    made, mask, _ = session("spleen", axis)
    if pull_out(made, 3.0) is None:
        pytest.fail("the pull changed nothing")
    edit = made.propagate(3, 20.0)
    index = made.plane.index
    assert set(edit.slices) <= set(range(index - 3, index + 4)) - {index} and len(edit.slices) >= 2
    after = made.result().over(MaskPatch.of_mask(mask)).to_mask(mask.shape)
    changed = {int(n) for n in np.unique(np.argwhere(after != mask)[:, axis])}
    assert changed - {index} <= set(edit.slices)
    made.undo()
    assert {int(n) for n in np.unique(np.argwhere(made.result().to_mask(mask.shape))[:, axis])} <= {index}


def on(mask: np.ndarray, spacing=(1.0, 1.0, 1.0)) -> ContourSession:
    """A session on an image that is bright where the mask is."""
    grey = np.random.default_rng(0).normal(mask * 100.0, 5)
    return ContourSession(Volume(grey, Geometry.from_spacing(mask.shape, spacing)), MaskPatch.of_mask(mask))


def move(made: ContourSession, near, to):
    """Pull the vertex nearest to a place to another."""
    made.press(near)
    made.drag(to)
    return made.release()


def now(made: ContourSession) -> np.ndarray:
    """The mask as the session made it."""
    return made.result().over(made._before).to_mask(made.volume.shape)


def test_an_outline_pulled_over_a_stray_island_takes_it_in():
    mask = disc(15, (40, 30))[np.newaxis].copy()
    mask[0, 40, 47] = True
    made = on(mask)
    made.open(0, 0)
    move(made, [45.5, 40], [55, 40])
    assert now(made)[0, 40, 40:54].all()


def test_an_outline_pulled_over_a_hole_leaves_nothing_of_it():
    mask = disc(25)[np.newaxis].copy()
    mask[0, 40, 60] = False
    made = on(mask)
    made.open(0, 0)
    move(made, [65.5, 40], [54, 40])
    assert not now(made)[0, 40, 55:].any()


def ball() -> ContourSession:
    k, j, i = np.indices((40, 60, 60))
    return on((k - 20) ** 2 + (j - 30) ** 2 + (i - 30) ** 2 < 15**2)


def test_a_move_is_carried_on_while_another_slice_is_open_which_shows_it():
    plain, made = ball(), ball()
    for one in (plain, made):
        one.open(0, 20)
        move(one, [45, 30], [49, 30])
    made.open(1, 30)
    before = made.rings
    assert made.propagate(3).slices == plain.propagate(3).slices != ()
    assert np.array_equal(now(made), now(plain))
    assert made.rings is not before and np.array_equal(rasterise(made.rings, (40, 60)), now(made)[:, 30])
    made.undo()
    assert len(np.unique(np.argwhere(made.result().to_mask((40, 60, 60)))[:, 0])) == 1


def test_a_slice_keeps_its_vertices_while_others_are_looked_at_and_until_it_is_changed():
    made = ball()
    made.open(0, 20)
    place = move(made, [45, 30], [49, 30]).place
    assert made.insert([20, 18]) is not None
    rings = made.rings
    made.open(1, 10)
    assert made.open(0, 20) is rings
    move(made, [44, 36], [47, 38])
    assert holds(made, place)
    made.open(1, 30)
    move(made, [49, 20], [54, 20])  # crosses the slice
    assert np.array_equal(rasterise(made.open(0, 20), (60, 60)), now(made)[20])
    made.undo()
    made.undo()
    assert made.open(0, 20) is rings


def test_what_was_put_on_a_neighbour_stays_when_a_move_is_carried_there():
    made = ball()
    made.open(0, 21)
    place = move(made, [43, 36], [46, 38]).place
    made.open(0, 20)
    move(made, [45, 29], [49, 28])
    assert 21 in made.propagate(1).slices
    made.open(0, 21)
    assert holds(made, place)


def test_only_slices_of_which_pixels_changed_are_named():
    made = on(np.repeat(disc(20)[np.newaxis], 11, 0))
    made.open(0, 5)
    small = move(made, [60, 40], made.rings[0].points[made.nearest([60, 40])[1]] + [0.1, 0])
    taken, added = small.difference()
    assert small.slices == () and taken.region.is_empty and added.region.is_empty
    assert made.insert([40, 20]).slices == ()
    assert made.undo() is not None and made.undo() is small
    move(made, [60, 40], [63, 40])
    before = now(made)
    edit = made.propagate(4)
    changed = np.flatnonzero((now(made) != before).any(axis=(1, 2))).tolist()
    assert sorted(edit.slices) == changed and len(edit.changes) > len(changed) > 2


def test_on_fine_pixels_a_move_is_not_carried_to_another_structure():
    mask = np.repeat((disc(15, (60, 40), (120, 160)) | disc(15, (60, 120), (120, 160)))[np.newaxis], 9, 0)
    mask[6:, :, :80] = False  # the left one ends
    made = on(mask, (0.05, 0.05, 0.05))
    made.open(0, 5)
    move(made, [54.5, 60], [60.5, 60])
    assert made.propagate(3).slices == (4, 3, 2)


def test_on_fine_pixels_a_move_is_carried_along_a_straight_border_of_few_vertices():
    mask = np.zeros((5, 200, 200), bool)
    mask[:, 30:170, 30:170] = True
    mask[3, 30:170, 30:171] = True
    made = on(mask, (0.05, 0.05, 0.05))
    made.open(0, 2)
    made.insert([170, 117])
    move(made, [169.5, 117], [174, 117])
    assert {change.plane.index for change in made.propagate(1).changes} == {1, 3}


def test_a_slice_with_an_endless_outline_is_refused_before_it_is_traced(monkeypatch):
    mask = np.zeros((2, 300, 300), bool)
    mask[0, 2:-2, 2] = mask[0, 2:-2:2, 2:-2] = True
    mask[1, 20:60, 20:60] = True
    made = on(mask)
    with (
        monkeypatch.context() as without,
        pytest.raises(ContourError, match=r"Slice 0 of the segment has outlines 8\d,\d{3} pixels long, too long"),
    ):
        without.setattr("aiassist.contour.session.trace", lambda *_: pytest.fail("it was traced"))
        made.open(0, 0)
    made.open(0, 1)
    pull_out(made)
    assert made.propagate(1) is None


def test_propagation_needs_a_move():
    made, _, _ = session()
    with pytest.raises(ValueError, match="no move"):
        made.propagate(3)


def test_a_slice_of_many_pieces_is_refused_whenever_it_is_opened():
    mask = np.zeros((3, 90, 90), bool)
    mask[1, ::3, ::3] = True
    mask[0, 20:60, 20:60] = mask[2, 20:60, 20:60] = True
    made = ContourSession(Volume(mask * 100.0, Geometry.from_spacing(mask.shape)), MaskPatch.of_mask(mask))
    made.open(0, 0)
    pull_out(made)
    for _ in range(2):
        with pytest.raises(ContourError, match="Slice 1 of the segment has 900 outlines, too many"):
            made.open(0, 1)
        assert made.plane is None and made.rings == ()
    for change in (lambda: made.press([5, 5]), lambda: made.insert([5, 5]), lambda: made.delete(0, 0)):
        with pytest.raises(ContourError, match="open one first"):
            change()
    assert made.undo().slices == (0,) and made.rings == ()
    assert len(made.open(0, 2)) == 1


def test_propagation_ends_at_a_slice_of_many_pieces():
    mask = np.zeros((3, 90, 90), bool)
    mask[0, ::3, ::3] = True
    mask[1:, 20:60, 20:60] = True
    made = ContourSession(Volume(mask * 100.0, Geometry.from_spacing(mask.shape)), MaskPatch.of_mask(mask))
    made.open(0, 1)
    pull_out(made)
    assert made.propagate(1).slices == (2,)


@pytest.mark.parametrize(
    "change",
    [
        lambda made: made.insert([30, 40]),
        lambda made: made.delete(0, 3),
        lambda made: made.propagate(1),
    ],
)
def test_nothing_else_is_changed_while_a_vertex_is_pulled(change):
    made, held = half_way()
    with pytest.raises(ContourError, match="let go of it first"):
        change(made)
    assert made.result().region.is_empty
    assert made.release().place.tolist() == held.tolist()
    assert np.array_equal(rasterise(made.rings, (60, 60)), made.result().over(made._before).to_mask((1, 60, 60))[0])


def test_pressing_anew_drops_the_drag_before():
    made, _ = half_way()
    start = made._drag[2]
    made.press([40, 30])
    assert made.rings is start and made.release() is None


def half_way() -> tuple[ContourSession, np.ndarray]:
    """A session in the middle of a drag, and where the vertex is."""
    mask = np.zeros((1, 60, 60), bool)
    mask[0, 20:40, 20:40] = True
    made = ContourSession(Volume(mask * 100.0, Geometry.from_spacing(mask.shape)), MaskPatch.of_mask(mask))
    made.open(0, 0)
    made.press([20, 30])
    made.drag([5, 30])
    return made, np.array([5.0, 30.0])


def test_an_empty_slice_has_nothing_to_hold():
    made, _, _ = session()
    assert made.open(0, 0) == ()
    assert made.press([5, 5]) is None and made.release() is None and made.insert([5, 5]) is None
    with pytest.raises(ValueError, match="press"):
        made.drag([5, 5])


@pytest.mark.parametrize("point", [[np.nan, 5], [5, np.inf], [1, 2, 3]])
def test_only_points_are_pressed(point):
    made, _, _ = session()
    with pytest.raises(ContourError, match="is not a point"):
        made.press(point)


def test_not_finite_pixels_and_constant_slices_do_no_harm():
    volume, mask = np.full((3, 80, 80), np.nan, np.float32), np.stack([disc()] * 3)
    for grey in (volume, np.zeros_like(volume)):
        made = ContourSession(Volume(grey, Geometry.from_spacing(grey.shape)), MaskPatch.of_mask(mask))
        made.open(0, 1)
        assert pull_out(made) is not None
        assert all_valid(made.rings)


def test_slices_convert_points_there_and_back():
    geometry = Geometry.from_spacing((10, 20, 30), (0.5, 0.6, 4.0))
    for axis, index in ((0, 3), (1, 7), (2, 9)):
        plane = Plane(geometry, axis, index)
        xy = np.array([[1.5, 2.5], [4.0, 3.0]])
        ijk = plane.to_ijk(xy)
        assert (ijk[:, 2 - axis] == index).all()
        assert np.array_equal(plane.to_xy(ijk), xy)
    assert Plane(geometry, 1, 0).spacing.tolist() == [0.5, 4.0]
    with pytest.raises(ValueError, match="slice 10"):
        Plane(geometry, 0, 10)
    with pytest.raises(ValueError, match="axes"):
        Plane(geometry, 3, 0)
