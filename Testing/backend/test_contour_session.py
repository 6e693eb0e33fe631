"""A session of the smart contour: drags, what they change, and moves that are carried to other slices."""

from __future__ import annotations

import numpy as np
import pytest
from contour_helpers import STRUCTURES, all_valid, disc, torso
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from aiassist.contour import (
    ContourSession,
    Plane,
    rasterise,
)
from aiassist.errors import ContourError
from aiassist.evaluation.metrics import dice
from aiassist.imaging import Geometry, MaskPatch, Volume


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


def test_a_drag_changes_its_slice_only():
    made, mask, truth = session()
    index = made.plane.index
    edit = pull_out(made)
    assert edit.slices == (index,)
    patch = made.result()
    assert patch.region.start[0] == index and patch.region.stop[0] == index + 1
    after = patch.over(MaskPatch.of_mask(mask)).to_mask(mask.shape)
    assert dice(after[index], truth[index]) > dice(mask[index], truth[index]) + 0.005


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


@given(st.lists(st.sampled_from(["pull", "insert", "delete", "propagate", "slice"]), min_size=1, max_size=8))
@settings(max_examples=15, deadline=None)
def test_what_edits_took_and_added_one_after_another_is_what_the_session_made(steps):
    made, mask, _ = session("kidney_right")
    axis, index, written = made.plane.axis, made.plane.index, mask.copy()
    for number, step in enumerate(steps):
        edit = None
        if not made.rings:
            break
        if step == "pull":
            edit = pull_out(made, 1.0 + number)
        elif step == "insert":
            edit = made.insert(made.rings[0].points[number % len(made.rings[0])] + 0.3)
        elif step == "delete":
            edit = made.delete(0, number % len(made.rings[0]))
        elif step == "propagate" and made.latest_move is not None:
            edit = made.propagate(2)
        else:
            made.open(axis, index + number % 2)
        if edit is not None and edit.slices:
            taken, added = edit.difference()
            box = written[taken.region.slices]
            assert box[taken.mask].all() and not box[added.mask].any()
            box ^= taken.mask | added.mask
    assert np.array_equal(written, now(made))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_propagation_says_which_slices_changed(axis):
    made, mask, _ = session("spleen", axis)
    if pull_out(made, 3.0) is None:
        pytest.fail("the pull changed nothing")
    edit = made.propagate(3, 20.0)
    index = made.plane.index
    assert set(edit.slices) <= set(range(index - 3, index + 4)) - {index} and len(edit.slices) >= 2
    after = made.result().over(MaskPatch.of_mask(mask)).to_mask(mask.shape)
    changed = {int(n) for n in np.unique(np.argwhere(after != mask)[:, axis])}
    assert changed - {index} <= set(edit.slices)


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


@pytest.mark.parametrize(("hole", "to"), [(False, 60), (True, 30)])
def test_a_part_or_hole_that_an_outline_was_pulled_over_leaves_no_outline(hole, to):
    mask, small = np.zeros((3, 80, 80), bool), np.s_[0, 38:43, 50:54] if not hole else np.s_[0, 38:43, 35:40]
    mask[:, 15:65, 15:45] = True
    mask[small] = not hole
    made = on(mask)
    assert len(made.open(0, 0)) == 2
    move(made, [44.5, 40], [to, 40])
    assert len(made.rings) == 1 and now(made)[small].all() != hole and now(made)[small].any() != hole
    assert made.propagate(2).slices == (1, 2)
    move(made, [to, 40], [44.5, 40])  # and back: it is gone for good
    assert now(made)[small].all() == hole and len(made.rings) == 1


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


def test_a_slice_knows_where_vertices_were_put_and_added_and_others_do_not():
    made = ball()
    made.open(0, 20)
    put = move(made, [45, 30], [49, 30]).place
    added = made.insert([20, 18]).place
    assert holds(made, put) and holds(made, added)
    assert np.array_equal(made.set_by_hand(), [put, added])
    made.open(0, 21)
    assert made.set_by_hand() == []


def test_what_was_put_on_a_neighbour_stays_when_a_move_is_carried_there():
    made = ball()
    made.open(0, 21)
    place = move(made, [43, 36], [46, 38]).place
    made.open(0, 20)
    move(made, [45, 29], [49, 28])
    assert 21 in made.propagate(1).slices
    made.open(0, 21)
    assert holds(made, place)


def test_the_vertex_that_moved_farthest_in_mm_is_carried():
    mask = np.zeros((20, 3, 100), bool)
    k, i = np.indices((20, 100))
    mask[:] = (((k - 10) * 5 / 35.0) ** 2 + ((i - 50) / 30.0) ** 2 < 1)[:, np.newaxis]
    geometry, rng = Geometry.from_spacing(mask.shape, (1.0, 5.0, 5.0)), np.random.default_rng(0)
    apart = 0
    for _ in range(20):
        grey = ndimage.gaussian_filter(rng.normal(size=mask.shape) * 300, (0.5, 1, 2)) + mask * 20
        made = ContourSession(Volume(grey, geometry), MaskPatch.of_mask(mask))
        before = made.open(1, 1)[0].points
        edit = move(made, held := before[np.argmin(before[:, 1])], held + rng.uniform([-1, -2.5], [1, 2.5]))
        steps = made.rings[0].points - before
        most = int(np.argmax(np.linalg.norm(steps * [1, 5], axis=1)))
        assert np.array_equal(edit.farthest, (before[most], steps[most]))
        apart += most != int(np.argmax(np.linalg.norm(steps, axis=1)))
    assert apart  # it is not always the one that moved farthest in pixels


def test_a_move_is_carried_on_after_vertices_were_added_to_its_slice_and_after_nothing_else():
    def moved() -> ContourSession:
        made = ball()
        made.open(0, 20)
        move(made, [45, 30], [49, 30])
        return made

    plain, added, elsewhere, deleted, carried = (moved() for _ in range(5))
    for place in ([20, 18], [30, 15]):
        added.insert(place)
    assert added.propagate(2).slices == plain.propagate(2).slices != ()
    assert np.array_equal(now(added), now(plain))
    elsewhere.open(0, 21)
    elsewhere.insert([20, 18])
    deleted.delete(0, 3)
    carried.propagate(2)
    untouched = ball()
    untouched.open(0, 20)
    untouched.insert([20, 18])
    for made in (elsewhere, deleted, carried, untouched):
        with pytest.raises(ContourError, match="move one first"):
            made.propagate(2)


def test_a_session_that_goes_on_from_another_carries_its_move_on():
    plain = ball()
    plain.open(0, 20)
    edit = move(plain, [45, 30], [49, 30])
    made = ContourSession(plain.volume, MaskPatch.of_mask(now(plain)), earlier=plain.latest_move)
    made.open(0, 20)
    assert made.latest_move is edit
    assert made.propagate(2).slices == plain.propagate(2).slices
    assert np.array_equal(now(made), now(plain)) and made.latest_move is None


def test_only_slices_of_which_pixels_changed_are_named():
    made = on(np.repeat(disc(20)[np.newaxis], 11, 0))
    made.open(0, 5)
    small = move(made, [60, 40], made.rings[0].points[made.nearest([60, 40])[1]] + [0.1, 0])
    taken, added = small.difference()
    assert small.slices == () and taken.region.is_empty and added.region.is_empty
    assert made.insert([40, 20]).slices == ()
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


def test_a_drag_can_be_dropped():
    made, _ = half_way()
    start = made._drag[2]
    made.drop()
    assert made.rings is start and made.release() is None
    made.drop()
    assert made.rings is start


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


def test_a_move_is_told_by_its_pixels_in_a_mask_that_somebody_else_changed():
    made, mask, _truth = session()
    move = pull_out(made)
    pulled = made.result().over(MaskPatch.of_mask(mask)).to_mask(mask.shape)
    assert made.move_left_in(pulled) is move and made.move_left_in(mask) is None
    assert made.propagate(2) is not None
    carried = made.result().over(MaskPatch.of_mask(mask)).to_mask(mask.shape)
    assert made.move_left_in(carried) is None and made.move_left_in(pulled) is move


def test_a_move_of_less_than_a_pixel_is_not_told_in_a_mask():
    made, mask, _truth = session()
    vertex = made.rings[0].points[0]
    made.press(vertex)
    made.drag(vertex + 0.001, 0.1, 0.0)
    edit = made.release()
    assert edit is not None and edit.slices == () and made.move_left_in(mask) is None
