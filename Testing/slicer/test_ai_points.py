"""AI Points: from clicks in the views to the accepted segment."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import slicer
import vtk

from aiassist.imaging import MaskPatch
from AIAssistLib.geometry import ijk_to_world
from AIAssistLib.segments import read_mask, write_plainly
from AIAssistLib.tags import MODEL, PROMPTS, tag_of
from helpers import add_segment, answered, click_ends, dice, mask_of, wait


def test_the_sixth_point_asks_and_fewer_do_when_return_is_pressed(points, slice_views, case):
    ends = case.ends("spleen")
    for world in ends[:4]:
        slice_views["Green"].click(slice_views["Green"].xy(world))
    assert not points.session.busy
    assert "4 of 6" in points.ui.hintLabel.text
    slice_views["Green"].press_key("Return")
    assert points.session.busy
    answered(points)


def test_clicks_correct_and_taking_one_back_brings_back_what_was_before(points, slice_views, case):
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    first = points.session.preview.mask
    missed = np.argwhere(case.mask("liver") & ~first.to_mask(case.labels.shape))
    place = case.world(missed[len(missed) // 2][::-1])[0]
    view = slice_views["Red"]
    view.click(view.xy(place))
    answered(points)
    second = points.session.preview.mask
    assert second.version != first.version
    assert second.to_mask(case.labels.shape)[tuple(missed[len(missed) // 2])]
    assert np.array_equal(
        shown_change(points, case), first.to_mask(case.labels.shape) ^ second.to_mask(case.labels.shape)
    )
    assert re.fullmatch(r"[\d.]+ ml \(\+[\d.]+, -0\)", points.ui.statusLabel.text)
    inside = np.argwhere(second.to_mask(case.labels.shape) & ~case.mask("liver"))
    wrong = inside[len(inside) // 2]
    view.click(view.xy(case.world(wrong[::-1])[0]), control=True)
    answered(points)
    assert points.session.marks.roles()[-2:] == ["positive", "negative"]
    assert not points.session.preview.mask.to_mask(case.labels.shape)[tuple(wrong)]
    points.ui.takeBackButton.click()
    assert points.session.preview.mask.version == second.version
    points.ui.takeBackButton.click()
    assert points.session.preview.mask.version == first.version
    assert not shown_change(points, case).any()
    assert re.fullmatch(r"[\d.]+ ml", points.ui.statusLabel.text)


def test_panning_that_begins_on_a_mark_moves_no_marks(points, slice_views, case):
    """Slicer moves all points of a list by a drag with the middle button."""
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    marks, view = points.session.marks, slice_views["Red"]
    before, (x, y) = marks.places(), view.xy(case.ends("spleen")[0])
    view.event("MouseMoveEvent", (x, y))
    view.event("MiddleButtonPressEvent", (x, y))
    for step in range(1, 6):
        view.event("MouseMoveEvent", (x + 12 * step, y + 6 * step))
    view.event("MiddleButtonReleaseEvent", (x + 60, y + 30))
    assert str(marks.places()) == str(before)


def test_marks_that_are_moved_all_at_once_are_asked_with(points, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    marks, moved = points.session.marks.node, vtk.vtkPoints()
    for n in range(6):
        moved.InsertNextPoint(np.add(marks.GetNthControlPointPositionWorld(n), (3.0, 0, 0)))
    marks.SetControlPointPositionsWorld(moved)
    marks.InvokeEvent(marks.PointEndInteractionEvent)
    answered(points)
    points.ui.acceptButton.click()
    assert mask_of(case, case.liver).any()


def shown_change(points, case) -> np.ndarray:
    """The voxels that the preview draws as changed."""
    node = points.session.preview.node
    if node.GetSegmentation().GetSegment("change") is None:
        return np.zeros(case.labels.shape, bool)
    return read_mask(node, "change", case.node).to_mask(case.labels.shape)


@pytest.mark.parametrize(("button", "role"), [("boxButton", "box"), ("lineButton", "line")])
def test_a_box_and_a_line_take_two_clicks(points, slice_views, case, button, role):
    getattr(points.ui, button).click()
    mask = np.argwhere(case.mask("gallbladder"))
    low, high = case.world([mask.min(axis=0)[::-1], mask.max(axis=0)[::-1]])
    slice_views["Red"].click(slice_views["Red"].xy(low))
    assert not points.session.busy
    slice_views["Red"].click(slice_views["Red"].xy(high))
    answered(points)
    assert points.session.marks.roles() == [role, role]


def test_one_click_is_enough_and_the_next_corrects(points, slice_views, case):
    points.ui.clickButton.click()
    view = slice_views["Red"]
    view.click(view.xy(case.middle("gallbladder")))
    answered(points)
    assert dice(points.session.preview.mask.to_mask(case.labels.shape), case.mask("gallbladder")) > 0.3
    view.click(view.xy(np.add(case.middle("gallbladder"), (0, 0, 9))))
    answered(points)
    assert points.session.marks.roles() == ["positive", "positive"]


def test_reset_removes_marks_and_preview_and_leaves_the_segment(points, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.resetButton.click()
    assert points.session.marks.roles() == []
    assert points.session.preview.node is None
    assert not mask_of(case, case.liver).any()


def test_marks_come_back_with_the_segment_and_clicks_correct_what_is_in_it(points, panel, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    other = add_segment(case, "kidney_right")
    panel.editor.setCurrentSegmentID(other)
    assert points.session.marks.roles() == []
    panel.editor.setCurrentSegmentID(case.liver)
    assert points.session.marks.roles() == ["extreme"] * 6
    held = mask_of(case, case.liver)
    inside = np.argwhere(held)[len(np.argwhere(held)) // 2]
    slice_views["Red"].click(slice_views["Red"].xy(case.world(inside[::-1])[0]), control=True)
    answered(points)
    corrected = points.session.preview.mask.to_mask(case.labels.shape)
    assert not corrected[tuple(inside)]
    assert dice(corrected, held) > 0.5  # the rest of the segment is what the click corrected


def test_unaccepted_marks_survive_another_segment_and_are_asked_again(points, panel, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    preview = points.session.preview.mask
    panel.editor.setCurrentSegmentID(add_segment(case, "kidney_right"))
    assert points.session.preview.node is None
    panel.editor.setCurrentSegmentID(case.liver)
    answered(points)
    assert points.session.preview.mask.version == preview.version


def test_window_and_level_and_scrolling_do_not_end_the_effect(points, panel, slice_views, case):
    ends = case.ends("spleen")
    slice_views["Green"].click(slice_views["Green"].xy(ends[0]))
    interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
    interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.AdjustWindowLevel)
    slice_views["Red"].drag((100, 100), (150, 120))
    interaction.SetCurrentInteractionMode(slicer.vtkMRMLInteractionNode.ViewTransform)
    slice_views["Red"].event("MouseWheelForwardEvent", (200, 200))
    assert panel.editor.activeEffect().name == "AI Points"
    assert points.session.marks.roles() == ["extreme"]


def test_the_preview_is_hidden_kept_out_of_files_and_shown_as_fill_outline_or_not_at_all(points, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    node = points.session.preview.node
    assert node.GetHideFromEditors()
    assert not node.GetSaveWithScene()
    seen = []
    for _look in range(3):
        display = node.GetDisplayNode()
        seen.append((display.GetOpacity2DFill() > 0, display.GetOpacity2DOutline() > 0))
        points.ui.lookButton.click()
    assert seen == [(True, True), (False, True), (False, False)]
    assert points.session.preview.look == "fill"


def test_a_click_beyond_the_image_says_so(points, slice_views):
    slice_views["Red"].click((2, 2))
    assert points.ui.statusLabel.text == "That place lies beyond the image; click on the image."
    assert points.session.marks.roles() == []


def test_points_that_say_nothing_give_one_sentence(points, slice_views, case):
    place = slice_views["Red"].xy(case.middle("spleen"))
    for _again in range(6):
        points.session.add("extreme", case.middle("spleen"))
    assert place and "they must lie apart" in points.ui.statusLabel.text
    assert points.session.failed


def test_other_segments_stay_bit_identical_unless_the_overwrite_mode_says_otherwise(points, panel, slice_views, case):
    kidney = add_segment(case, "kidney_right", case.mask("kidney_right"))
    everything = add_segment(case, "body", np.ones(case.labels.shape, bool) & ~case.mask("kidney_right"))
    before = {s: mask_of(case, s) for s in (kidney, everything)}
    editor = panel.editor.mrmlSegmentEditorNode()
    editor.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    accepted = mask_of(case, case.liver)
    assert accepted.any()
    for segment, mask in before.items():
        assert (mask_of(case, segment) == mask).all()
    panel.editor.undo()
    editor.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    accepted = mask_of(case, case.liver)
    assert (mask_of(case, everything) == before[everything] & ~accepted).all()
    assert (mask_of(case, kidney) == before[kidney] & ~accepted).all()


def test_the_editable_area_is_honoured(points, panel, slice_views, case):
    left_half = np.zeros(case.labels.shape, bool)
    i = int(np.argwhere(case.mask("spleen"))[:, 2].mean())
    left_half[:, :, i:] = True
    area = add_segment(case, "area", left_half)
    editor = panel.editor.mrmlSegmentEditorNode()
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID(area)
    editor.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    preview = points.session.preview.mask.to_mask(case.labels.shape)
    points.ui.acceptButton.click()
    assert (mask_of(case, case.liver) == preview & left_half).all()
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere)


def test_prompts_are_kept_in_the_segment_as_voxel_indices(points, slice_views, case):
    ends = case.ends("spleen")
    click_ends(slice_views, ends)
    answered(points)
    points.ui.acceptButton.click()
    segment = case.segmentation.GetSegmentation().GetSegment(case.liver)
    stored = np.array(json.loads(tag_of(segment, PROMPTS))["points"])
    assert np.abs(case.world(stored) - ends).max() < 3.0  # a click is worth a pixel
    assert tag_of(segment, MODEL).startswith("network-fine ")


def test_a_deleted_segment_volume_or_segmentation_ends_the_work_with_a_sentence(points, panel, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    case.segmentation.GetSegmentation().RemoveSegment(case.liver)
    wait(lambda: not points.session.busy)
    points.accept()
    assert "was deleted" in points.ui.statusLabel.text
    slicer.mrmlScene.RemoveNode(case.node)
    points.run()
    assert points.session.preview.node is None


def test_closing_the_scene_in_the_middle_ends_the_work(points, panel, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    slicer.mrmlScene.Clear(0)
    slicer.app.processEvents()
    assert points.session.target is None
    assert not points.session.busy


def test_while_a_point_is_dragged_answers_come_and_the_first_is_not_thrown_away(points, slice_views, case, monkeypatch):
    ends = case.ends("liver")
    click_ends(slice_views, ends)
    answered(points)
    asked = []
    ask = points.session.ask
    monkeypatch.setattr(points.session, "ask", lambda dragging=False: (asked.append(dragging), ask(dragging)))
    view = slice_views["Green"]
    start = view.xy(ends[0])
    view.drag(start, np.add(start, (24, 0)), steps=6)
    assert asked.count(True) >= 5
    answered(points)


def test_dragging_a_click_keeps_what_the_clicks_before_it_gave(points, slice_views, case):
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    view = slice_views["Red"]
    first, second = case.middle("liver"), np.add(case.middle("liver"), (24, 0, 0))
    for place in (first, second):
        view.click(view.xy(place))
        answered(points)
    bases = []
    start = points.session._asking.start

    def noting(question):
        bases.append(question.base)
        start(question)

    points.session._asking.start = noting
    from_here = view.xy(second)
    view.drag(from_here, np.add(from_here, (10, 10)))
    answered(points)
    assert {base.clicks for base in bases} == {1}


def test_after_undo_clicks_correct_what_the_segment_holds_then(points, panel, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    accepted = mask_of(case, case.liver)
    panel.editor.undo()
    points.ui.clickButton.click()
    slice_views["Red"].click(slice_views["Red"].xy(case.middle("gallbladder")))
    answered(points)
    shown = points.session.preview.mask.to_mask(case.labels.shape)
    assert dice(shown, accepted) < 0.5


def test_what_masking_forbids_is_said_and_nothing_is_lost(points, panel, slice_views, case):
    editor = panel.editor.mrmlSegmentEditorNode()
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(5000, 6000)
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    assert "masking settings allow none of this change" in points.ui.statusLabel.text
    assert points.session.marks.roles() == ["extreme"] * 6
    assert points.session.preview.mask is not None
    editor.SetSourceVolumeIntensityMaskRange(-100, 300)
    points.ui.acceptButton.click()
    written = mask_of(case, case.liver)
    assert written.any()
    assert case.volume.voxels[written].min() >= -100
    editor.SetSourceVolumeIntensityMask(False)


def test_what_masking_kept_back_of_a_preview_is_said_also_to_who_goes_on(points, panel, slice_views, case):
    editor = panel.editor.mrmlSegmentEditorNode()
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(120, 3000)
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    shown, millilitres = points.session.preview.mask, points.ui.statusLabel.text
    points.ui.acceptButton.click()
    written = mask_of(case, case.liver)
    assert np.array_equal(written, shown.to_mask(written.shape) & (case.volume.voxels >= 120))
    done = 0.027 * np.count_nonzero(written)
    says = (
        f"Slicer's masking settings let only {done:.2g} of {millilitres} change in liver; look at Masking in the editor"
    )
    assert points.ui.statusLabel.text == f"{says}." and points.session.failed
    assert editor.GetSourceVolumeIntensityMask()
    panel.editor.setCurrentSegmentID(add_segment(case, "next"))
    assert points.ui.statusLabel.text == f"{says}."
    editor.SetSourceVolumeIntensityMask(False)
    click_ends(slice_views, case.ends("gallbladder"))
    answered(points)
    points.ui.acceptButton.click()
    assert points.ui.statusLabel.text == ""


@pytest.mark.parametrize("control", [False, True])
def test_after_undo_an_outline_that_is_in_view_is_corrected(points, panel, slice_views, case, control):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    panel.editor.undo()
    place = case.middle("gallbladder" if not control else "spleen")
    slice_views["Red"].click(slice_views["Red"].xy(place), control=control)
    answered(points)
    assert points.session.marks.roles() == ["extreme"] * 6 + ["negative" if control else "positive"]
    assert dice(points.session.preview.mask.to_mask(case.labels.shape), case.mask("spleen")) > 0.6


def test_an_outline_of_another_kind_takes_the_place_of_the_one_before(points, slice_views, case):
    green, ends = slice_views["Green"], case.ends("liver")
    points.ui.lineButton.click()
    for end in case.ends("spleen")[:2]:
        green.click(green.xy(end))
    answered(points)
    points.ui.extremeButton.click()
    green.click(green.xy(ends[0]))
    assert points.session.marks.roles() == ["extreme"] and not points.session.failed
    assert points.session.preview.mask is None and "1 of 6" in points.ui.hintLabel.text
    for world, view in zip(ends[1:], ("Green", "Yellow", "Yellow", "Green", "Yellow"), strict=True):
        slice_views[view].click(slice_views[view].xy(world))
    answered(points)
    red, ends = slice_views["Red"], case.ends("gallbladder")
    points.ui.boxButton.click()
    for corner in (ends.min(axis=0), ends.max(axis=0)):
        red.click(red.xy(corner))
    answered(points)
    assert points.session.marks.roles() == ["box", "box"]
    shown = points.session.preview.mask.to_mask(case.labels.shape)
    assert dice(shown, case.mask("gallbladder")) > 0.6


def test_the_persons_own_markups_stay_theirs(points, panel, slice_views, case):
    selection = slicer.mrmlScene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
    own = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "mine")
    selection.SetReferenceActivePlaceNodeID(own.GetID())
    panel.editor.setCurrentSegmentID(add_segment(case, "other"))
    marks = points.session.marks.node
    assert selection.GetActivePlaceNodeID() == own.GetID()
    assert marks.GetHideFromEditors()
    assert not marks.GetSaveWithScene()
    assert not marks.GetDisplayNode().GetVisibility3D()


def test_a_double_click_is_a_click_and_does_not_maximise_the_view(points, slice_views, case):
    view = slice_views["Green"]
    place = view.xy(case.ends("spleen")[0])
    seen = []
    view.interactor.AddObserver("LeftButtonDoubleClickEvent", lambda *_: seen.append(1), 0.5)
    view.event("MouseMoveEvent", place)
    view.event("LeftButtonDoubleClickEvent", place)
    assert points.session.marks.roles() == ["extreme"]
    assert seen == []


def test_an_error_leaves_zooming_and_scrolling_to_slicer(panel, slice_views, case):
    panel.editor.setCurrentSegmentID(case.liver)
    panel.contour()
    view = slice_views["Red"]
    seen = []
    view.interactor.AddObserver("MouseMoveEvent", lambda *_: seen.append(1), 0.5)
    view.event("MouseMoveEvent", (200, 200))
    assert "is empty" in panel.editor.activeEffect().self().ui.statusLabel.text
    assert seen == [1]


def test_a_preview_over_a_filled_segment_shows_what_would_go(points, panel, slice_views, case):
    filled = add_segment(case, "filled", case.mask("liver"))
    panel.editor.setCurrentSegmentID(filled)
    display = case.segmentation.GetDisplayNode()
    points.ui.clickButton.click()
    inside = case.middle("liver")
    slice_views["Red"].click(slice_views["Red"].xy(inside), control=True)
    answered(points)
    assert display.GetSegmentOpacity2DFill(filled) == 0
    points.ui.resetButton.click()
    assert display.GetSegmentOpacity2DFill(filled) == 1


def test_the_prompts_that_are_kept_are_those_of_the_mask_that_is_accepted(points, slice_views, case):
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    slice_views["Red"].click(slice_views["Red"].xy(case.middle("liver")))
    answered(points)
    points.ui.takeBackButton.click()
    points.ui.acceptButton.click()
    stored = json.loads(tag_of(case.segmentation.GetSegmentation().GetSegment(case.liver), PROMPTS))
    assert len(stored["points"]) == 6
    assert "positive" not in stored


def test_a_view_that_shows_another_image_takes_no_marks(points, panel, slice_views, case):
    """Two images are loaded: whoever clicks on one must not annotate the other."""
    other = slicer.util.addVolumeFromArray(
        case.volume.voxels.copy() + 1, ijkToRAS=ijk_to_world(case.node), name="another"
    )
    for view in slice_views.values():
        view.show(other)
    world = case.middle("spleen")
    slice_views["Red"].click(slice_views["Red"].xy(world))
    assert points.ui.statusLabel.text == (
        "This view shows 'another', but 'torso' is being annotated; choose 'another' as the source volume, or show "
        "'torso'."
    )
    assert points.session.marks.roles() == []
    panel.contour()
    contour = panel.editor.activeEffect().self()
    slice_views["Red"].click(slice_views["Red"].xy(world))
    assert contour.ui.statusLabel.text.startswith("This view shows 'another'")


def test_after_accepting_plain_clicks_correct_and_the_six_points_are_kept(points, slice_views, case):
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    points.ui.acceptButton.click()
    accepted = mask_of(case, case.liver)
    outside = np.argwhere(case.mask("liver") & ~accepted)
    place = case.world([outside[len(outside) // 2][::-1]])[0]
    slice_views["Red"].click(slice_views["Red"].xy(place))
    answered(points)
    assert points.session.marks.roles() == ["extreme"] * 6 + ["positive"]
    points.ui.acceptButton.click()
    stored = json.loads(tag_of(case.segmentation.GetSegmentation().GetSegment(case.liver), PROMPTS))
    assert (len(stored["points"]), len(stored["positive"])) == (6, 1)


def test_a_correction_leaves_alone_what_was_drawn_by_hand_where_an_earlier_click_was(points, panel, slice_views, case):
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    middle = case.middle("liver")
    slice_views["Red"].click(slice_views["Red"].xy(middle))
    answered(points)
    points.ui.acceptButton.click()
    panel.editor.setActiveEffectByName("")
    accepted = mask_of(case, case.liver)
    k = int(case.mask("liver").sum(axis=(1, 2)).argmax())
    j, i = np.argwhere(case.mask("liver")[k]).mean(axis=0).astype(int)
    by_hand = accepted.copy()
    by_hand[k - 2 : k + 3, j - 2 : j + 3, i - 2 : i + 3] = False
    write_plainly(MaskPatch.of_mask(by_hand), case.node, case.segmentation, case.liver)
    panel.points()
    marks = panel.editor.activeEffect().self()
    inside = np.argwhere(by_hand)
    far = inside[np.argmax(np.linalg.norm(3.0 * (inside - [k, j, i]), axis=1))]
    marks.session.add("negative", case.world([far[::-1]])[0])
    answered(marks)
    shown = marks.session.preview.mask.to_mask(by_hand.shape)
    changed = np.argwhere(shown != by_hand)
    assert len(changed)
    assert np.linalg.norm(3.0 * (changed - far), axis=1).max() <= 31


def test_a_mark_that_is_only_touched_asks_nothing(points, slice_views, case, monkeypatch):
    ends = case.ends("liver")
    click_ends(slice_views, ends)
    answered(points)
    asked = []
    monkeypatch.setattr(points.session, "ask", lambda dragging=False: asked.append(dragging))
    slice_views["Green"].click(slice_views["Green"].xy(ends[0]))
    assert points.session.marks.roles() == ["extreme"] * 6
    assert asked == []


def test_another_outline_in_a_segment_replaces_what_it_holds_or_is_added_and_says_so(points, slice_views, case):
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    spleen = mask_of(case, case.liver)
    points.ui.resetButton.click()
    click_ends(slice_views, case.ends("kidney_left"))
    answered(points)
    kidney = points.session.preview.mask.to_mask(spleen.shape)
    assert re.fullmatch(r"\d+ ml, in place of the \d+ ml before", points.ui.statusLabel.text)
    points.ui.addCheck.setChecked(True)
    assert re.fullmatch(r"\d+ ml, added to the \d+ ml of the segment", points.ui.statusLabel.text)
    points.ui.acceptButton.click()
    points.ui.addCheck.setChecked(False)
    assert np.array_equal(mask_of(case, case.liver), spleen | kidney)
    assert tag_of(case.segmentation.GetSegmentation().GetSegment(case.liver), PROMPTS) == ""
    assert points.session.marks.roles() == []


def test_finished_segments_keep_their_voxels_by_default_also_after_closing_a_scene(points, panel, slice_views, case):
    assert panel.editor.mrmlSegmentEditorNode().GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteNone
    slicer.mrmlScene.Clear(0)
    assert panel.editor.mrmlSegmentEditorNode().GetOverwriteMode() == slicer.vtkMRMLSegmentEditorNode.OverwriteNone


def test_clicks_correct_a_segment_where_it_lies_after_it_was_moved(points, panel, slice_views, case):
    segment = add_segment(case, "filled", case.mask("spleen"))
    panel.editor.setCurrentSegmentID(segment)
    move = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "move")
    shift = np.eye(4)
    shift[2, 3] = -45
    move.SetMatrixTransformToParent(slicer.util.vtkMatrixFromArray(shift))
    case.segmentation.SetAndObserveTransformNodeID(move.GetID())
    moved = read_mask(case.segmentation, segment, case.node).to_mask(case.labels.shape)
    points.ui.clickButton.click()
    slice_views["Red"].click(slice_views["Red"].xy(case.middle("gallbladder")))
    answered(points)
    points.ui.acceptButton.click()
    now = read_mask(case.segmentation, segment, case.node).to_mask(case.labels.shape)
    assert dice(now, moved) > 0.8 > 0.3 > dice(moved, case.mask("spleen"))


@pytest.mark.parametrize("control", [False, True], ids=["adds", "removes"])
def test_a_correction_stays_one_when_the_image_changes_while_it_is_answered(points, panel, slice_views, case, control):
    panel.editor.setCurrentSegmentID(add_segment(case, "filled", case.mask("spleen")))
    marks = panel.editor.activeEffect().self()
    before = case.mask("spleen")
    place = case.middle("spleen" if control else "gallbladder")
    marks.ui.clickButton.click()
    slice_views["Red"].click(slice_views["Red"].xy(place), control=control)
    assert marks.session.busy
    slicer.util.arrayFromVolume(case.node)[0, 0, 0] += 1
    slicer.util.arrayFromVolumeModified(case.node)
    answered(marks)
    after = marks.session.preview.mask.to_mask(before.shape)
    assert dice(after, before) > 0.6 and "in place of" not in marks.ui.statusLabel.text
    assert (after & ~before).any() != control and (before & ~after).any() == control


def test_a_hidden_preview_is_said_to_be_and_the_next_structure_is_shown(points, panel, slice_views, case):
    points.ui.lookButton.click()
    assert points.session.preview.look == "fill"  # there is nothing to hide
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    for _look in range(2):
        points.ui.lookButton.click()
    assert points.ui.statusLabel.text.endswith("; hidden (H shows it)")
    panel.editor.setCurrentSegmentID(add_segment(case, "gallbladder"))
    click_ends(slice_views, case.ends("gallbladder"))
    answered(points)
    assert points.session.preview.look == "fill" and "hidden" not in points.ui.statusLabel.text


def test_without_a_structure_the_effects_say_what_to_choose(points, panel, slice_views, case):
    panel.editor.setCurrentSegmentID("")
    slice_views["Red"].click(slice_views["Red"].xy(case.middle("liver")))
    assert points.ui.statusLabel.text == "Choose an image and a structure first, or press Add."
    panel.contour()
    contour = panel.editor.activeEffect().self()
    contour.ui.propagateButton.click()
    assert contour.ui.statusLabel.text.startswith("There is no pull to carry on")


def test_a_click_begins_once_what_kept_the_effect_from_it_is_gone(points, panel, slice_views, case):
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode")
    case.node.SetAndObserveTransformNodeID(warp.GetID())
    panel.begin_again()
    assert "transform" in points.ui.statusLabel.text
    case.node.SetAndObserveTransformNodeID(None)
    slice_views["Red"].click(slice_views["Red"].xy(case.middle("liver")))
    assert points.session.marks.roles() == ["extreme"]
