"""Smart Contour: a vertex is pulled in a view, its neighbours settle, the rest stays."""

from __future__ import annotations

import types

import numpy as np
import pytest
import slicer
import vtk
from scipy import ndimage
from vtk.util.numpy_support import vtk_to_numpy

from aiassist.contour import Ring
from aiassist.imaging import MaskPatch, describe_structure
from AIAssistLib.console import new_segmentation
from AIAssistLib.segments import read_mask, write_plainly
from AIAssistLib.structures import new_segment
from helpers import add_segment, mask_of


@pytest.fixture
def spoiled(panel, case):
    """A spleen with a bite out of it on a few slices; the segment's ID, the truth, and a place amid the bite."""
    truth = case.mask("spleen")
    k = int(truth.sum(axis=(1, 2)).argmax())
    inside = np.argwhere(truth[k])
    j, i = inside[inside[:, 0].argmax()]
    kk, jj, ii = np.indices(truth.shape)
    bite = ((jj - j) ** 2 + (ii - i) ** 2 < 5**2) & (abs(kk - k) <= 2)
    segment = add_segment(case, "spoiled", truth & ~bite)
    panel.editor.setCurrentSegmentID(segment)
    panel.contour()
    return segment, truth, (i, j, k)


@pytest.fixture
def contour(spoiled, panel):
    """Smart Contour, active on the spoiled spleen."""
    effect = panel.editor.activeEffect().self()
    effect.ui.radiusSlider.value, effect.ui.strengthSlider.value = 20.0, 1.0
    assert effect.ui.statusLabel.text == ""
    return effect


def nearest_vertex(contour, view, place) -> np.ndarray:
    """Pixel of the vertex nearest to a pixel."""
    vertices = np.concatenate(contour.contour.rings(view.node))
    return vertices[np.linalg.norm(vertices - place, axis=1).argmin()]


def pull(contour, view, case, ijk) -> None:
    """Pull the vertex nearest to a place to that place."""
    place = view.xy(case.world(ijk)[0])
    view.event("MouseMoveEvent", place)
    view.drag(nearest_vertex(contour, view, place), place)


@pytest.mark.parametrize("name", ["Red", "Yellow", "Green"])
def test_every_direction_of_the_volume_can_be_corrected(name, contour, spoiled, slice_views, case):
    segment, _truth, (i, j, k) = spoiled
    before = mask_of(case, segment)
    pull(contour, slice_views[name], case, (i, j, k))
    axis = {"Red": 0, "Green": 1, "Yellow": 2}[name]
    changed = np.argwhere(mask_of(case, segment) != before)
    assert len(changed)
    assert set(changed[:, axis]) == {(k, j, i)[axis]}
    assert contour.ui.statusLabel.text == ""


def test_pulls_are_undone_and_redone_and_can_go_on_afterwards(contour, spoiled, panel, slice_views, case):
    segment, _truth, ijk = spoiled
    before = mask_of(case, segment)
    pull(contour, slice_views["Red"], case, ijk)
    after = mask_of(case, segment)
    panel.editor.undo()
    assert (mask_of(case, segment) == before).all()
    pull(contour, slice_views["Red"], case, ijk)
    assert (mask_of(case, segment) == after).all()
    panel.editor.undo()
    panel.editor.redo()
    assert (mask_of(case, segment) == after).all()


def test_propagate_carries_the_pull_to_neighbours_and_says_how_many(contour, spoiled, slice_views, case):
    segment, _truth, ijk = spoiled
    contour.ui.slicesSpinBox.value = 2
    contour.ui.propagateButton.click()
    assert "move one first" in contour.ui.statusLabel.text
    pull(contour, slice_views["Red"], case, ijk)
    before = mask_of(case, segment)
    contour.ui.propagateButton.click()
    changed = np.flatnonzero((mask_of(case, segment) != before).any(axis=(1, 2)))
    assert contour.ui.statusLabel.text == f"{len(changed)} neighbouring slices changed."
    assert set(changed) <= {ijk[2] + d for d in (-2, -1, 1, 2)}
    assert len(changed) >= 2


def test_shift_and_wheel_change_the_radius_and_the_wheel_alone_scrolls(contour, slice_views):
    view = slice_views["Red"]
    view.event("MouseWheelForwardEvent", (200, 200), shift=True)
    assert contour.ui.radiusSlider.value == pytest.approx(25.0)
    offset = view.node.GetSliceOffset()
    view.event("MouseWheelBackwardEvent", (200, 200), shift=True)
    assert contour.ui.radiusSlider.value == pytest.approx(20.0)
    assert view.node.GetSliceOffset() == offset
    view.event("MouseWheelForwardEvent", (200, 200))
    assert view.node.GetSliceOffset() != offset


def test_vertices_are_added_and_removed_with_ctrl(contour, spoiled, slice_views, case):
    view = slice_views["Red"]
    place = view.xy(case.world(spoiled[2])[0])
    view.event("MouseMoveEvent", place)
    count = sum(len(ring) for ring in contour.contour.rings(view.node))
    ring = max(contour.contour.rings(view.node), key=len)
    view.click(ring[0], control=True)
    assert sum(len(ring) for ring in contour.contour.rings(view.node)) == count - 1
    outside = ring[5] + 3 * (ring[5] - ring.mean(axis=0)) / np.linalg.norm(ring[5] - ring.mean(axis=0)) * 6
    view.click(outside, control=True)
    assert sum(len(ring) for ring in contour.contour.rings(view.node)) == count


def test_a_click_far_from_all_outlines_adds_no_vertex_and_says_so(contour, spoiled, slice_views, case):
    view = slice_views["Red"]
    view.event("MouseMoveEvent", view.xy(case.world(spoiled[2])[0]))
    before = contour.contour.session.rings
    away = min(np.linalg.norm(ring - (5, 390), axis=1).min() for ring in contour.contour.rings(view.node))
    assert away > 100
    view.click((5, 390), control=True)
    assert contour.contour.session.rings is before
    said = contour.ui.statusLabel.text
    assert said.startswith("The click lies ") and said.endswith(
        " pixels from the nearest outline; Ctrl+click at an outline."
    )
    assert away - 5 <= float(said.split()[3]) <= away
    view.event("MouseMoveEvent", view.xy(case.world([60, 50, 0])[0]))
    assert contour.contour.session.rings == ()
    view.click((200, 200), control=True)
    assert "no outline to add a vertex to" in contour.ui.statusLabel.text


def grab(contour, view, case, ijk, miss: float = 0.0):
    """Press `miss` pixels off the vertex nearest to a place, away from the others; the pixel, and that vertex."""
    place = view.xy(case.world(ijk)[0])
    view.event("MouseMoveEvent", place)
    vertex = nearest_vertex(contour, view, place)
    out = vertex - np.concatenate(contour.contour.rings(view.node)).mean(axis=0)
    pixel = (vertex + miss * out / np.linalg.norm(out)).astype(int)
    ring, number = contour.contour.vertex_at(view.node, pixel)
    view.event("MouseMoveEvent", pixel)
    view.event("LeftButtonPressEvent", pixel)
    return pixel, contour.contour.session.rings[ring].points[number]


def test_a_trembling_click_moves_nothing(contour, spoiled, slice_views, case):
    segment, _truth, ijk = spoiled
    view, before = slice_views["Red"], mask_of(case, segment)
    pixel, _vertex = grab(contour, view, case, ijk, miss=10)
    for step in ((1, 0), (2, 1), (0, -2), (0, 1)):
        view.event("MouseMoveEvent", pixel + step)
    view.event("LeftButtonReleaseEvent", np.add(pixel, (0, 1)))
    assert (mask_of(case, segment) == before).all() and contour.contour.session.latest_move is None


def test_a_vertex_goes_as_far_as_the_mouse_did_wherever_it_was_held(contour, spoiled, slice_views, case):
    view = slice_views["Red"]
    pixel, vertex = grab(contour, view, case, spoiled[2], miss=9)
    step = np.array([6, -4])
    for end in (
        pixel + step,
        np.add(pixel, (1, 1)),
        pixel + step,
    ):  # once it has left, it goes back to where it was, too
        view.event("MouseMoveEvent", end)
        went = contour.contour._xy(view.node, end) - contour.contour._xy(view.node, pixel)
        held, number = contour.contour.held
        assert np.allclose(contour.contour.session.rings[held].points[number] - vertex, went, atol=1e-6)
    view.event("LeftButtonReleaseEvent", pixel + step)
    assert np.allclose(contour.contour.session.latest_move.place - vertex, went, atol=1e-6)


@pytest.mark.parametrize("then", ["move", "release"])
def test_an_undo_during_a_pull_drops_it_and_says_so(then, contour, spoiled, panel, slice_views, case):
    segment, _truth, ijk = spoiled
    view, original = slice_views["Red"], mask_of(case, segment)
    pull(contour, view, case, ijk)
    assert (mask_of(case, segment) != original).any()
    pixel, _vertex = grab(contour, view, case, ijk)
    view.event("MouseMoveEvent", np.add(pixel, (9, 9)))
    panel.editor.undo()
    if then == "move":
        view.event("MouseMoveEvent", np.add(pixel, (10, 9)))
    view.event("LeftButtonReleaseEvent", np.add(pixel, (10, 9)))
    assert contour.ui.statusLabel.text == (
        "The segment or the image changed during the pull, which was dropped; pull again."
    )
    assert (mask_of(case, segment) == original).all() and contour.contour.held is None
    assert (contour.contour.session._mask == original).all()
    pull(contour, view, case, ijk)
    assert (mask_of(case, segment) != original).any() and contour.ui.statusLabel.text == ""


def test_the_wheel_scrolls_nothing_while_a_vertex_is_pulled(contour, spoiled, slice_views, case):
    segment, _truth, ijk = spoiled
    view, before = slice_views["Red"], mask_of(case, segment)
    pixel, _vertex = grab(contour, view, case, ijk)
    offset = view.node.GetSliceOffset()
    for name in ("MouseWheelForwardEvent", "MouseWheelForwardEvent", "MouseWheelBackwardEvent"):
        view.event(name, pixel)
        assert view.node.GetSliceOffset() == offset
    view.event("MouseMoveEvent", np.add(pixel, (0, 15)))
    view.event("LeftButtonReleaseEvent", np.add(pixel, (0, 15)))
    assert set(np.argwhere(mask_of(case, segment) != before)[:, 0]) == {ijk[2]}
    view.event("MouseWheelForwardEvent", pixel)
    assert view.node.GetSliceOffset() != offset


@pytest.mark.parametrize("then", ["move", "release"])
def test_a_pull_whose_slice_is_shown_no_longer_is_dropped(then, contour, spoiled, slice_views, case):
    segment, _truth, (i, j, k) = spoiled
    view, before = slice_views["Red"], mask_of(case, segment)
    pixel, _vertex = grab(contour, view, case, (i, j, k))
    view.event("MouseMoveEvent", np.add(pixel, (0, 15)))
    view.node.JumpSliceByOffsetting(*case.world([i, j, k + 2])[0])  # as a key or a linked view does
    if then == "move":
        view.event("MouseMoveEvent", np.add(pixel, (0, 16)))
    view.event("LeftButtonReleaseEvent", np.add(pixel, (0, 16)))
    assert contour.ui.statusLabel.text == "The view left the slice during the pull, which was dropped; pull again."
    assert (mask_of(case, segment) == before).all() and contour.contour.held is None
    assert contour.contour.session.plane.index == k + 2
    view.node.JumpSliceByOffsetting(*case.world([i, j, k])[0])
    pull(contour, view, case, (i, j, k))
    assert (mask_of(case, segment) != before).any() and contour.ui.statusLabel.text == ""


def test_a_pull_of_which_masking_refused_some_can_be_carried_on(contour, spoiled, panel, slice_views, case):
    segment, _truth, ijk = spoiled
    editor = panel.editor.mrmlSegmentEditorNode()
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(60, 1000)
    try:
        before, began = mask_of(case, segment), contour.contour._current()
        pull(contour, slice_views["Red"], case, ijk)
        after = mask_of(case, segment)
        assert (after != before).any() and contour.contour.session is not began  # it refused some
        contour.ui.slicesSpinBox.value = 2
        contour.ui.propagateButton.click()
        changed = np.argwhere(mask_of(case, segment) != after)
        slices = len(set(changed[:, 0]))
        assert contour.ui.statusLabel.text == f"{slices} neighbouring slices changed." and slices > 1
        assert set(changed[:, 0]) <= {ijk[2] + d for d in (-2, -1, 1, 2)}
        assert (case.volume.voxels[tuple(changed.T)] >= 60).all()
        contour.ui.propagateButton.click()
        assert "move one first" in contour.ui.statusLabel.text
    finally:
        editor.SetSourceVolumeIntensityMask(False)


def test_a_pull_is_carried_on_under_masking_while_no_slice_is_open(contour, spoiled, panel, slice_views, case):
    segment, _truth, ijk = spoiled
    pull(contour, slice_views["Red"], case, ijk)
    pulled = mask_of(case, segment)
    contour.ui.slicesSpinBox.value = 2
    contour.ui.propagateButton.click()
    slice_views["Red"].event("LeaveEvent", (0, 0))
    panel.editor.undo()
    editor = panel.editor.mrmlSegmentEditorNode()
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(60, 1000)
    try:
        contour.ui.propagateButton.click()
    finally:
        editor.SetSourceVolumeIntensityMask(False)
    changed = np.argwhere(mask_of(case, segment) != pulled)
    slices = len(set(changed[:, 0]))
    assert contour.ui.statusLabel.text == f"{slices} neighbouring slices changed." and slices > 1
    assert (case.volume.voxels[tuple(changed.T)] >= 60).all()


def test_the_outline_is_drawn_on_the_slice_under_the_mouse_and_goes_when_it_leaves(contour, spoiled, slice_views, case):
    view = slice_views["Red"]
    view.event("MouseMoveEvent", view.xy(case.world(spoiled[2])[0]))

    def yellow() -> int:
        picture = view.picture().astype(int)
        return int(((picture[..., 0] > 200) & (picture[..., 1] > 180) & (picture[..., 2] < 120)).sum())

    assert yellow() > 50
    before = np.concatenate(contour.contour.rings(view.node))
    view.event("MouseWheelForwardEvent", (200, 200))
    after = np.concatenate(contour.contour.rings(view.node))
    assert before.shape != after.shape or (before != after).any()
    view.event("LeaveEvent", (0, 0))
    assert yellow() == 0


def test_an_oblique_view_is_refused_with_a_sentence(contour, spoiled, slice_views, case):
    view = slice_views["Red"]
    turn = vtk.vtkTransform()
    turn.RotateX(20)
    view.node.GetSliceToRAS().DeepCopy(turn.GetMatrix())
    view.node.UpdateMatrices()
    before = mask_of(case, spoiled[0])
    view.drag((200, 200), (220, 220))
    assert "cuts the image obliquely" in contour.ui.statusLabel.text
    assert (mask_of(case, spoiled[0]) == before).all()


def test_an_empty_segment_is_refused_with_a_sentence(panel, slice_views, case):
    panel.editor.setCurrentSegmentID(case.liver)
    panel.contour()
    slice_views["Red"].event("MouseMoveEvent", (200, 200))
    status = panel.editor.activeEffect().self().ui.statusLabel.text
    assert status == "'liver' is empty; mark it with AI Points or paint it first."


def test_what_masking_forbids_is_not_drawn_as_if_it_had_happened(contour, spoiled, panel, slice_views, case):
    segment, truth, ijk = spoiled
    wall = add_segment(case, "wall", truth & ~mask_of(case, segment))
    editor = panel.editor.mrmlSegmentEditorNode()
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    before = mask_of(case, segment)
    pull(contour, slice_views["Red"], case, ijk)
    after = mask_of(case, segment)
    assert not (after & mask_of(case, wall)).any()
    shown = contour.contour.session.result().to_mask(truth.shape)
    assert not shown.any() or (after != before).any()
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)


def drawn(contour) -> int:
    """How many points of outlines are drawn, in whatever view."""
    return contour._actor._data.GetNumberOfPoints() if contour._view is not None else 0


@pytest.mark.parametrize("how", ["beyond the image", "tilted"])
def test_where_there_is_no_outline_none_is_drawn_and_back_on_the_image_all_is_right_again(
    how, contour, spoiled, slice_views, case
):
    view, place = slice_views["Red"], case.world(spoiled[2])[0]
    view.event("MouseMoveEvent", view.xy(place))
    assert drawn(contour) > 20
    if how == "tilted":
        turn = vtk.vtkTransform()
        turn.RotateX(20)
        view.node.GetSliceToRAS().DeepCopy(turn.GetMatrix())
        view.node.UpdateMatrices()
    else:
        view.node.JumpSliceByOffsetting(*place[:2], place[2] + 1000)
    assert drawn(contour) == 0
    wanted = "cuts the image obliquely" if how == "tilted" else "shows no slice of 'torso'"
    assert wanted in contour.ui.statusLabel.text
    if how == "tilted":
        view.show(case.node)
    view.node.JumpSliceByOffsetting(*place)  # as the wheel does: the mouse need not move
    assert contour.ui.statusLabel.text == ""
    assert drawn(contour) > 20


def test_a_pull_that_masking_forbids_is_said_and_the_outline_is_where_it_was(
    contour, spoiled, panel, slice_views, case
):
    segment, _truth, ijk = spoiled
    area = add_segment(case, "area", case.mask("kidney_right"))
    editor, view = panel.editor.mrmlSegmentEditorNode(), slice_views["Red"]
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID(area)
    before = mask_of(case, segment)
    view.event("MouseMoveEvent", view.xy(case.world(ijk)[0]))
    rings = np.concatenate(contour.contour.rings(view.node))
    pull(contour, view, case, ijk)
    assert contour.ui.statusLabel.text == (
        "Slicer's masking settings allow none of this change; look at Masking in the editor."
    )
    assert (mask_of(case, segment) == before).all()
    np.testing.assert_allclose(np.concatenate(contour.contour.rings(view.node)), rings)
    shown = np.array([contour._actor._data.GetPoint(n)[:2] for n in range(drawn(contour))])
    gaps = np.linalg.norm(shown[:, None] - rings[None], axis=2).min(axis=0)
    assert gaps.max() < 1.0  # each vertex is drawn where it was
    view.event("MouseMoveEvent", view.xy(case.world(ijk)[0]))
    assert "allow none of this change" in contour.ui.statusLabel.text  # there is time to read it
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)
    pull(contour, view, case, ijk)
    assert contour.ui.statusLabel.text == "" and (mask_of(case, segment) != before).any()


def test_after_the_image_changed_vertices_settle_on_its_borders(contour, spoiled, case):
    old = contour.contour._current().volume
    slicer.util.updateVolumeFromArray(case.node, np.ascontiguousarray(case.volume.voxels[:, ::-1]))
    new = contour.contour._current().volume
    assert not np.array_equal(new.voxels, old.voxels)
    assert np.array_equal(new.voxels, slicer.util.arrayFromVolume(case.node))


def test_outlines_follow_an_image_that_was_moved_alone(contour, spoiled, slice_views, case):
    segment, _truth, (i, j, k) = spoiled
    view, place = slice_views["Red"], slice_views["Red"].xy(case.world([i, j, k])[0])
    view.event("MouseMoveEvent", place)
    was = contour.contour.session.rings[0].points
    move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    shift = vtk.vtkMatrix4x4()
    shift.SetElement(0, 3, 5 * np.linalg.norm(case.to_world[:3, 0]))
    move.SetMatrixTransformToParent(shift)
    case.node.SetAndObserveTransformNodeID(move.GetID())
    view.event("MouseMoveEvent", place)
    seen = contour.contour.session.rings[0].points
    assert np.allclose(abs(seen.mean(axis=0) - was.mean(axis=0)), (5, 0), atol=0.3)
    before = read_mask(case.segmentation, segment, case.node).to_mask(case.labels.shape)
    vertex = nearest_vertex(contour, view, place)
    view.drag(vertex, np.add(vertex, (0, 12)))
    after = read_mask(case.segmentation, segment, case.node).to_mask(case.labels.shape)
    assert (after != before).any() and ndimage.label(after[k])[1] == ndimage.label(before[k])[1]


def vertices(contour, view) -> int:
    """How many vertices the outlines in a view have."""
    return sum(len(ring) for ring in contour.contour.rings(view.node))


def dots(contour) -> np.ndarray:
    """Pixels of the vertices that are drawn."""
    data, cell, places = contour._actor._data, vtk.vtkIdList(), []
    data.GetVerts().InitTraversal()
    while data.GetVerts().GetNextCell(cell):
        places.append(data.GetPoint(cell.GetId(0))[:2])
    return np.array(places)


def longest(contour, view) -> np.ndarray:
    """The outline in a view that has most vertices."""
    return max(contour.contour.rings(view.node), key=len)


def test_undo_shows_the_outlines_of_before_at_once(contour, spoiled, panel, slice_views, case):
    segment, _truth, ijk = spoiled
    view, before = slice_views["Red"], mask_of(case, segment)
    view.event("MouseMoveEvent", view.xy(case.world(ijk)[0]))
    first = outline_points(contour)
    pull(contour, view, case, ijk)
    assert not np.array_equal(outline_points(contour), first)
    panel.editor.undo()
    assert (mask_of(case, segment) == before).all() and np.array_equal(outline_points(contour), first)


def outline_points(contour) -> np.ndarray:
    """The points of the outlines that are on the screen."""
    return vtk_to_numpy(contour._actor._data.GetPoints().GetData()).copy()


@pytest.mark.parametrize("looks", [False, True])
def test_a_pull_is_carried_on_anew_after_that_was_undone(looks, contour, spoiled, panel, slice_views, case):
    segment, _truth, ijk = spoiled
    view = slice_views["Red"]
    pull(contour, view, case, ijk)
    pulled = mask_of(case, segment)
    for slices in (1, 3):
        contour.ui.slicesSpinBox.value = slices
        contour.ui.propagateButton.click()
        changed = np.argwhere(mask_of(case, segment) != pulled)[:, 0]
        assert slices - 1 <= changed.max() - ijk[2] <= slices and len(changed)
        contour.ui.propagateButton.click()  # of what is there already nothing is done twice
        assert "move one first" in contour.ui.statusLabel.text
        panel.editor.undo()
        assert (mask_of(case, segment) == pulled).all()
        if looks:
            view.event("MouseMoveEvent", (200, 200))
    panel.editor.undo()  # the pull itself
    contour.ui.propagateButton.click()
    assert "move one first" in contour.ui.statusLabel.text


def test_undo_takes_back_the_added_vertex_alone_and_then_the_pull(contour, spoiled, panel, slice_views, case):
    segment, _truth, ijk = spoiled
    view, before = slice_views["Red"], mask_of(case, segment)
    pull(contour, view, case, ijk)
    after = mask_of(case, segment)
    assert (after != before).any()
    panel.editor.undo()
    panel.editor.redo()  # from here on the outlines are those of the mask
    view.event("MouseMoveEvent", (200, 200))
    count, ring = vertices(contour, view), longest(contour, view)
    view.click(
        ring[10] + 20 * (ring[10] - ring.mean(axis=0)) / np.linalg.norm(ring[10] - ring.mean(axis=0)), control=True
    )
    assert vertices(contour, view) == count + 1 and (mask_of(case, segment) == after).all()
    panel.editor.undo()
    view.event("MouseMoveEvent", (201, 200))
    assert vertices(contour, view) == count and (mask_of(case, segment) == after).all()
    panel.editor.undo()
    assert (mask_of(case, segment) == before).all()


def test_undo_takes_back_the_pull_of_less_than_a_voxel_alone(contour, spoiled, panel, slice_views, case):
    segment, _truth, ijk = spoiled
    view, before = slice_views["Red"], mask_of(case, segment)
    pull(contour, view, case, ijk)
    after = mask_of(case, segment)
    contour.ui.radiusSlider.value, contour.ui.strengthSlider.value = 2, 0
    for number in range(20, 60):
        view.event("MouseMoveEvent", (200, 200))
        ring = longest(contour, view)
        view.drag(ring[number], ring[number] + 3.0)
        if (mask_of(case, segment) == after).all():
            break
        panel.editor.undo()
    assert (mask_of(case, segment) == after).all()
    assert np.abs(longest(contour, view) - ring).max() > 1  # it was seen to move
    panel.editor.undo()
    assert (mask_of(case, segment) == after).all()
    panel.editor.undo()
    assert (mask_of(case, segment) == before).all()


@pytest.fixture
def liver(panel, slice_views, case):
    """Smart Contour on the liver, whose vertices lie close together in the red view, where the mouse is."""
    segment = add_segment(case, "whole liver", case.mask("liver"))
    panel.editor.setCurrentSegmentID(segment)
    panel.contour()
    slice_views["Red"].event("MouseMoveEvent", slice_views["Red"].xy(case.middle("liver")))
    return panel.editor.activeEffect().self(), segment


def amid_dots(contour) -> np.ndarray:
    """Pixels half way between dots that can be told apart."""
    shown = dots(contour)
    following = np.roll(shown, -1, axis=0)
    gaps = np.linalg.norm(shown - following, axis=1)
    return np.rint((shown + following) / 2)[(gaps > 9.5) & (gaps < 20)]


def test_ctrl_click_adds_a_vertex_amid_dots_which_is_a_dot_that_ctrl_click_removes(liver, slice_views, case):
    (contour, segment), view = liver, slice_views["Red"]
    before, count, places = mask_of(case, segment), vertices(contour, view), amid_dots(contour)
    assert len(places) > 20
    for place in places[::4]:
        known = longest(contour, view)
        view.click(place, control=True)
        assert vertices(contour, view) == count + 1
        added = max(longest(contour, view), key=lambda vertex, known=known: np.abs(known - vertex).max(axis=1).min())
        assert np.linalg.norm(added - place) < 3 and np.abs(dots(contour) - added).max(axis=1).min() < 0.01
        view.click(np.rint(added), control=True)
        assert np.allclose(longest(contour, view), known)
    assert (mask_of(case, segment) == before).all() and contour.ui.statusLabel.text == ""


def test_ctrl_click_removes_the_dot_that_it_hits(liver, slice_views):
    (contour, _segment), view = liver, slice_views["Red"]
    count, dot = vertices(contour, view), dots(contour)[7]
    view.click(np.rint(dot), control=True)
    assert vertices(contour, view) == count - 1
    assert np.linalg.norm(np.concatenate(contour.contour.rings(view.node)) - dot, axis=1).min() > 0.1


@pytest.mark.parametrize("step", [1.0, 4.0, 6.2, 8.9, 30.0])
def test_dots_leave_room_between_them_to_click(step, module):
    from AIAssistLib.smart_contour import TOUCH, SmartContour

    turn = np.arange(60) * 2 * np.pi / 60
    ring = Ring(np.column_stack([np.cos(turn), np.sin(turn)]) * step / (turn[1] - turn[0]))
    contour = SmartContour(None, None, None)
    contour.session = types.SimpleNamespace(rings=[ring], set_by_hand=list)
    (numbers,) = contour.dots([ring.points])
    gaps = np.linalg.norm(np.diff(ring.points[numbers], axis=0), axis=1)
    assert (gaps > 2 * TOUCH).all() and (gaps < max(18, step + 1)).all()


def test_a_change_between_the_segments_voxels_is_not_laid_to_masking(panel, slice_views, case):
    coarse = case.to_world.copy()
    coarse[:3, :3] *= 3
    volume = slicer.util.addVolumeFromArray(case.volume.voxels[::3, ::3, ::3].copy(), ijkToRAS=coarse, name="coarse")
    segmentation = new_segmentation(volume)
    segment = new_segment(segmentation, describe_structure("spleen"))
    write_plainly(MaskPatch.of_mask(case.mask("spleen")[::3, ::3, ::3]), volume, segmentation, segment)
    panel.editor.setSegmentationNode(segmentation)
    panel.editor.setSourceVolumeNode(case.node)
    panel.editor.setCurrentSegmentID(segment)
    panel.contour()
    contour, view = panel.editor.activeEffect().self(), slice_views["Red"]
    i, j, k = np.argwhere(case.mask("spleen"))[:, ::-1].mean(axis=0).round()
    before = read_mask(segmentation, segment, case.node).mask.sum()
    for between in (k - k % 3 + 1, k - k % 3 + 2):  # rounded up and down, neither is a slice of the segments
        view.event("MouseMoveEvent", view.xy(case.world([i, j, between])[0]))
        vertex = longest(contour, view)[0]
        view.drag(vertex, vertex + 8 * (vertex - longest(contour, view).mean(axis=0)) / 20)
        assert "voxels are larger than the image's" in contour.ui.statusLabel.text
    assert read_mask(segmentation, segment, case.node).mask.sum() == before


def test_segments_that_are_surfaces_are_not_pulled_until_they_are_voxels(panel, slice_views, case):
    segment = add_segment(case, "spleen", case.mask("spleen"))
    segmentation, converter = case.segmentation.GetSegmentation(), slicer.vtkSegmentationConverter
    surface = converter.GetSegmentationClosedSurfaceRepresentationName()
    segmentation.CreateRepresentation(surface)
    segmentation.SetSourceRepresentationName(surface)
    panel.editor.setCurrentSegmentID(segment)
    panel.contour()
    contour, view, place = panel.editor.activeEffect().self(), slice_views["Red"], case.middle("spleen")
    view.drag(view.xy(place), view.xy(place))
    assert contour.ui.statusLabel.text == (
        f"The segments of {case.segmentation.GetName()!r} are kept as Closed surface, not as voxels; make Binary "
        "labelmap their source in the module Segmentations, then try again."
    )
    contour.ui.propagateButton.click()
    assert "move one first" in contour.ui.statusLabel.text
    segmentation.SetSourceRepresentationName(converter.GetSegmentationBinaryLabelmapRepresentationName())
    view.click(view.xy(place))
    assert contour.ui.statusLabel.text == "" and vertices(contour, view) > 20


@pytest.mark.parametrize("flipped", [False, True])
def test_half_way_between_two_slices_that_one_is_changed_whose_fill_is_seen(flipped, panel, slice_views, case):
    to_world, voxels, mask = case.to_world.copy(), case.volume.voxels, case.mask("spleen")
    if flipped:
        to_world[:3, 3] += to_world[:3, 2] * (len(voxels) - 1)
        to_world[:3, 2] *= -1
        voxels, mask = voxels[::-1], mask[::-1]
    volume = slicer.util.addVolumeFromArray(voxels.copy(), ijkToRAS=to_world, name="thick")
    volume.CreateDefaultDisplayNodes()
    segmentation = new_segmentation(volume)
    segment, view = new_segment(segmentation, describe_structure("spleen")), slice_views["Red"]
    view.show(volume)
    k = int(mask.sum(axis=(1, 2)).argmax())
    i, j = np.argwhere(mask[k]).mean(axis=0)[::-1]
    place = (to_world @ [i, j, k + 0.5, 1])[:3]

    def coloured(only: int) -> bool:
        one = np.zeros_like(mask)
        one[only] = mask[only]
        write_plainly(MaskPatch.of_mask(one), volume, segmentation, segment)
        view.xy(place + 5 * to_world[:3, 2])
        view.picture()
        view.xy(place)
        view.picture()
        picture = view.picture().astype(int)
        return (np.ptp(picture, axis=2) > 20).sum() > 500

    seen = [number for number in (k, k + 1) if coloured(number)]
    assert len(seen) == 1
    write_plainly(MaskPatch.of_mask(mask), volume, segmentation, segment)
    panel.editor.setSegmentationNode(segmentation)
    panel.editor.setSourceVolumeNode(volume)
    panel.editor.setCurrentSegmentID(segment)
    panel.contour()
    view.event("MouseMoveEvent", view.xy(place))
    ring = longest(panel.editor.activeEffect().self(), view)
    view.drag(ring[3], ring[3] + 30 * (ring[3] - ring.mean(axis=0)) / np.linalg.norm(ring[3] - ring.mean(axis=0)))
    changed = read_mask(segmentation, segment, volume).to_mask(mask.shape) != mask
    assert np.flatnonzero(changed.any(axis=(1, 2))).tolist() == seen


def test_a_pull_is_not_carried_on_over_another_image(contour, spoiled, slice_views, case):
    segment, _truth, ijk = spoiled
    pull(contour, slice_views["Red"], case, ijk)
    before = mask_of(case, segment)
    slicer.util.updateVolumeFromArray(case.node, np.ascontiguousarray(case.volume.voxels[:, ::-1]))
    contour.ui.propagateButton.click()
    assert "move one first" in contour.ui.statusLabel.text
    assert (mask_of(case, segment) == before).all()


def test_the_radius_can_be_made_small_on_fine_voxels_and_is_as_ever_on_others(panel, slice_views, case, contour):
    slider, view = contour.ui.radiusSlider, slice_views["Red"]
    assert (slider.minimum, slider.decimals, slider.singleStep) == (2, 0, 1)
    fine, mask = 0.02, np.zeros((20, 120, 120), bool)
    j, i = np.indices((120, 120))
    mask[:] = np.hypot(j - 60, i - 60) < 25
    volume = slicer.util.addVolumeFromArray(100.0 * mask, ijkToRAS=np.diag([fine, fine, fine, 1]), name="mouse")
    volume.CreateDefaultDisplayNodes()
    segmentation = new_segmentation(volume)
    segment = new_segment(segmentation, describe_structure("bone"))
    write_plainly(MaskPatch.of_mask(mask), volume, segmentation, segment)
    view.show(volume)
    panel.editor.setSegmentationNode(segmentation)
    panel.editor.setSourceVolumeNode(volume)
    panel.editor.setCurrentSegmentID(segment)
    assert slider.minimum == pytest.approx(0.06) and slider.value == 20
    for _ in range(40):
        view.event("MouseWheelBackwardEvent", (200, 200), shift=True)
    assert slider.value == contour.contour.radius == pytest.approx(0.06)
    slider.value = 0.2
    view.event("MouseMoveEvent", view.xy([60 * fine, 60 * fine, 10 * fine]))
    ring = longest(contour, view)
    held = ring[ring[:, 0].argmin()]
    view.drag(held, held - [20, 0])
    moved = np.abs(longest(contour, view) - ring).max(axis=1) > 0.5
    assert 1 < moved.sum() < len(ring) / 4
    panel.editor.setSegmentationNode(case.segmentation)
    panel.editor.setSourceVolumeNode(case.node)
    assert (slider.minimum, slider.decimals, slider.singleStep, slider.value) == (2, 0, 1, 2)
