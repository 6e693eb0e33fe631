"""Smart Contour: a vertex is pulled in a view, its neighbours settle, the rest stays."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from scipy import ndimage

from AIAssistLib.segments import read_mask
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
