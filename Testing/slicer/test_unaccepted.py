"""AI Points: marks that are not accepted yet, and what the segment under them holds."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from aiassist.imaging import MaskPatch
from AIAssistLib.drafts import draft_of, names_with_drafts
from AIAssistLib.segments import read_mask, write_plainly
from helpers import add_segment, answered, click_ends, dice, mask_of, wait


@pytest.fixture
def filled(points, panel, case) -> str:
    """A segment that holds the liver, chosen."""
    segment = add_segment(case, "filled", case.mask("liver"))
    panel.editor.setCurrentSegmentID(segment)
    return segment


def click(view, place, **keys) -> None:
    """Click a place in the world."""
    view.click(view.xy(place), **keys)


@pytest.mark.parametrize("how", ["taken back", "deleted", "dragged"])
def test_an_unfinished_outline_leaves_clicks_correcting_what_the_segment_holds(how, points, filled, slice_views, case):
    ends, view = case.ends("spleen"), slice_views["Green"]
    click(view, ends[0])
    if how == "taken back":
        points.ui.takeBackButton.click()
    elif how == "deleted":
        points.session.marks.node.RemoveNthControlPoint(0)
    else:
        view.drag(view.xy(ends[0]), np.add(view.xy(ends[0]), (20, 0)))
        points.ui.takeBackButton.click()
    assert points.session.marks.roles() == []
    points.ui.clickButton.click()
    click(slice_views["Red"], case.middle("gallbladder"))
    answered(points)
    points.ui.acceptButton.click()
    assert dice(mask_of(case, filled), case.mask("liver")) > 0.9


def test_four_points_and_return_are_an_outline(points, panel, slice_views, case):
    ends, view = case.ends("liver")[[0, 1, 2, 4]], slice_views["Green"]
    for world in ends:
        click(view, world)
    view.press_key("Return")
    answered(points)
    first = points.session.preview.mask.version
    view.drag(view.xy(ends[0]), np.add(view.xy(ends[0]), (25, 0)))
    answered(points)
    second = points.session.preview.mask.version
    assert second != first
    click(slice_views["Red"], case.middle("liver"))
    answered(points)
    assert points.session.marks.roles() == ["extreme"] * 4 + ["positive"]
    points.ui.takeBackButton.click()
    assert points.session.preview.mask.version == second
    panel.editor.setCurrentSegmentID(add_segment(case, "other"))
    panel.editor.setCurrentSegmentID(case.liver)
    answered(points)
    assert points.session.preview.mask.version == second
    assert points.kind == "positive"
    points.ui.takeBackButton.click()
    assert points.session.preview.mask is None
    assert "3 of 6" in points.ui.hintLabel.text


def test_a_preview_of_other_marks_is_not_accepted(points, slice_views, case):
    points.ui.clickButton.click()
    click(slice_views["Red"], case.middle("liver"))
    answered(points)
    points.ui.extremeButton.click()
    click(slice_views["Green"], case.ends("liver")[0])
    points.ui.acceptButton.click()
    assert "not of the marks as they are" in points.ui.statusLabel.text
    assert not mask_of(case, case.liver).any()
    points.ui.takeBackButton.click()
    answered(points)
    points.ui.acceptButton.click()
    assert mask_of(case, case.liver).any()


def test_a_click_after_the_sixth_corrects_though_the_answer_is_not_there_yet(points, slice_views, case):
    click_ends(slice_views, case.ends("liver"))
    assert points.session.busy
    click(slice_views["Red"], case.middle("liver"))
    assert points.session.marks.roles() == ["extreme"] * 6 + ["positive"]
    answered(points)


@pytest.mark.parametrize("count", [1, 3])
def test_marks_without_an_answer_come_back(count, points, panel, slice_views, case):
    for world in case.ends("spleen")[:count]:
        click(slice_views["Green"], world)
    places = np.array([ijk for _role, ijk in points.session.marks.places()])
    segment = case.segmentation.GetSegmentation().GetSegment(case.liver)
    segment.SetName("renamed meanwhile")
    panel.editor.setActiveEffectByName("Paint")
    panel.points()
    assert points.session.marks.roles() == ["extreme"] * count
    np.testing.assert_allclose([ijk for _role, ijk in points.session.marks.places()], places)
    assert not points.session.busy
    for _mark in range(count):
        points.ui.takeBackButton.click()
    assert not [name for name in case.segmentation.GetAttributeNames() if "Draft" in name]


def test_marks_that_the_backend_could_not_answer_come_back(points, panel, slice_views, case):
    for _again in range(6):
        points.session.add("extreme", case.middle("spleen"))
    assert points.session.failed
    panel.editor.setCurrentSegmentID(add_segment(case, "other"))
    panel.editor.setCurrentSegmentID(case.liver)
    assert points.session.marks.roles() == ["extreme"] * 6


def test_a_draft_outlives_a_rename_outside_of_ai_points_and_comes_back(points, panel, slice_views, case):
    for world in case.ends("spleen")[:3]:
        click(slice_views["Green"], world)
    panel.editor.setActiveEffectByName("Paint")
    case.segmentation.GetSegmentation().GetSegment(case.liver).SetName("spleen")
    panel.points()
    assert points.session.marks.roles() == ["extreme"] * 3
    panel.editor.setActiveEffectByName("")
    case.segmentation.GetSegmentation().GetSegment(case.liver).SetName("third name")
    panel.points()
    assert points.session.marks.roles() == ["extreme"] * 3


def test_a_draft_is_not_that_of_a_new_segment_with_the_id_of_a_deleted_one(points, panel, slice_views, case):
    segments = case.segmentation.GetSegmentation()
    click(slice_views["Green"], case.ends("spleen")[0])
    name = segments.GetSegment(case.liver).GetName()
    panel.editor.setActiveEffectByName("")
    segments.RemoveSegment(case.liver)
    assert segments.AddEmptySegment(case.liver, name) == case.liver
    panel.editor.setCurrentSegmentID(case.liver)
    panel.points()
    assert points.session.marks.roles() == []


def test_a_mark_leaves_undo_and_redo_as_they_were(points, panel, slice_views, case):
    click(slice_views["Green"], case.ends("spleen")[0])
    panel.editor.saveStateForUndo()
    write_plainly(MaskPatch.of_mask(case.mask("liver")), case.node, case.segmentation, case.liver)
    panel.editor.undo()
    assert not mask_of(case, case.liver).any()
    click(slice_views["Green"], case.ends("spleen")[1])
    panel.editor.redo()
    assert (mask_of(case, case.liver) == case.mask("liver")).all()
    assert draft_of(case.segmentation, case.liver, case.volume).marks[0][0] == "extreme"


def test_a_new_outline_of_a_filled_segment_comes_back_as_one(points, panel, filled, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    click(slice_views["Red"], case.middle("spleen"))
    answered(points)
    panel.editor.setCurrentSegmentID(case.liver)
    panel.editor.setCurrentSegmentID(filled)
    answered(points)
    shown = points.session.preview.mask.to_mask(case.labels.shape)
    assert dice(shown, case.mask("spleen")) > 0.6
    assert dice(shown, case.mask("liver")) < 0.2


def test_taking_back_the_first_correction_of_a_segment_leaves_nothing_to_accept(points, filled, slice_views, case):
    points.ui.clickButton.click()
    click(slice_views["Red"], case.middle("gallbladder"))
    answered(points)
    points.ui.takeBackButton.click()
    assert points.session.preview.mask is None
    assert not points.ui.acceptButton.enabled
    assert points.session.can_correct


def test_a_preview_leaves_no_display_nodes_and_no_warnings(points, slice_views, case, capfd):
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLDisplayNode")
    for button in (points.ui.acceptButton, points.ui.resetButton):
        points.session.reset()
        click_ends(slice_views, case.ends("spleen"))
        answered(points)
        button.click()
        assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLDisplayNode") == count
    assert "cannot be found" not in capfd.readouterr().err


def test_marks_follow_a_transform_that_comes_changes_and_is_hardened(points, slice_views, case):
    ends, view = case.ends("spleen"), slice_views["Green"]
    click(view, ends[0])
    move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    matrix = np.eye(4)

    def shift(*mm) -> None:
        matrix[:3, 3] = mm
        move.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))

    def click_moved(number: int) -> None:
        click(view, ends[number] + matrix[:3, 3])

    shift(0, 0, 12)
    case.node.SetAndObserveTransformNodeID(move.GetID())
    click_moved(1)
    shift(6, 0, 20)
    click_moved(2)
    case.node.HardenTransform()
    click_moved(3)
    found = points.session.marks.prompts().extreme_points
    np.testing.assert_allclose(case.world(found), ends[:4], atol=3.0)  # a click is worth a pixel


def test_a_preview_and_a_draft_follow_a_hardened_transform(points, panel, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    before = points.session.preview.mask
    move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    matrix = np.eye(4)
    matrix[:3, 3] = (5, 0, 30)
    move.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(matrix))
    for node in (case.node, case.segmentation):
        node.SetAndObserveTransformNodeID(move.GetID())
        node.HardenTransform()
    shown = read_mask(points.session.preview.node, "preview", case.node)
    assert (shown.to_mask(case.labels.shape) == before.to_mask(case.labels.shape)).all()
    panel.editor.setCurrentSegmentID(add_segment(case, "other"))
    panel.editor.setCurrentSegmentID(case.liver)
    assert points.session.marks.roles() == ["extreme"] * 6
    answered(points)
    points.ui.acceptButton.click()
    assert dice(mask_of(case, case.liver), before.to_mask(case.labels.shape)) > 0.98


def test_marks_and_preview_follow_an_image_that_is_centred(points, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    marked, shown = points.session.marks.places(), points.session.preview.mask
    case.node.SetOrigin(*np.add(case.node.GetOrigin(), (20, 0, -7)))
    for (_role, before), (_same, now) in zip(marked, points.session.marks.places(), strict=True):
        np.testing.assert_allclose(now, before, atol=1e-6)
    assert (read_mask(points.session.preview.node, "preview", case.node).mask == shown.mask).all()


def test_marks_whose_node_was_removed_can_be_made_and_dragged_anew(points, slice_views, case):
    slicer.mrmlScene.RemoveNode(points.session.marks.node)
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    node = points.session.marks.node
    node.SetNthControlPointPositionWorld(0, *np.subtract(node.GetNthControlPointPositionWorld(0), (10, 0, 0)))
    assert points.session.busy
    answered(points)
    points.ui.acceptButton.click()
    assert mask_of(case, case.liver).any()


@pytest.mark.parametrize("more", [0, 1])
def test_a_mark_that_is_taken_back_down_to_what_was_accepted_leaves_nothing_unaccepted(
    points, panel, slice_views, case, more
):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    if more:
        click(slice_views["Red"], case.middle("gallbladder"))
        answered(points)
        assert names_with_drafts(case.segmentation) == ["liver"]
    points.ui.takeBackButton.click()
    assert len(points.session.marks.roles()) == (6 if more else 5)
    assert names_with_drafts(case.segmentation) == []
    panel.editor.undo()
    points.ui.takeBackButton.click()
    assert names_with_drafts(case.segmentation) == ["liver"]


def test_clicks_that_were_not_accepted_correct_what_was_drawn_meanwhile(points, panel, slice_views, case):
    points.ui.clickButton.click()
    click(slice_views["Red"], case.middle("gallbladder"))
    answered(points)
    panel.editor.setActiveEffectByName("Paint")
    write_plainly(MaskPatch.of_mask(case.mask("liver")), case.node, case.segmentation, case.liver)
    panel.points()
    answered(points)
    shown = points.session.preview.mask.to_mask(case.labels.shape)
    assert dice(shown, case.mask("liver")) > 0.9


def test_a_save_names_the_segments_whose_marks_are_not_accepted(points, panel, slice_views, case):
    add_segment(case, "bone", case.mask("kidney_right"))
    slice_views["Green"].click(slice_views["Green"].xy(case.ends("liver")[0]))
    panel.editor.setCurrentSegmentID(add_segment(case, "empty"))
    panel.ui.saveLabel.setText("")
    panel.ui.saveButton.click()
    wait(lambda: panel.ui.saveButton.enabled)
    assert panel.ui.saveLabel.text.endswith("Not saved, since their marks are not accepted: liver.")
