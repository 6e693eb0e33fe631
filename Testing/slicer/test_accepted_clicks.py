"""Clicks that were accepted: taken back, moved, marked beside; and what becomes of marks by undo."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest

from aiassist.imaging import MaskPatch
from AIAssistLib.segments import write_plainly
from helpers import add_segment, answered, click_ends, mask_of, wait


@pytest.fixture
def drawn(points, panel, case):
    """AI Points on a liver that somebody drew."""
    write_plainly(MaskPatch.of_mask(case.mask("liver")), case.node, case.segmentation, case.liver)
    panel.editor.setActiveEffectByName("")
    panel.points()
    return panel.editor.activeEffect().self()


def settled(points) -> np.ndarray:
    """The mask that would be accepted once nothing is awaited; the segment's where there is no preview."""
    session = points.session
    wait(lambda: not session.busy and not session.looks_closer)
    target = session.target
    shape = target.volume_node.GetImageData().GetDimensions()[::-1]
    return (target.mask() if session.preview.mask is None else session.preview.mask).to_mask(shape)


def accept_clicks(points, case, *structures: str, role: str = "positive") -> np.ndarray:
    """Click in the middle of structures, accept each; the segment's mask."""
    for name in structures:
        points.session.add(role, case.middle(name))
        answered(points)
    points.ui.acceptButton.click()
    return mask_of(case, case.liver)


@pytest.mark.parametrize(("structures", "role"), [(("spleen", "gallbladder"), "positive"), (("liver",), "negative")])
def test_a_click_that_is_taken_back_leaves_what_was_accepted(drawn, case, structures, role):
    accepted = accept_clicks(drawn, case, *structures, role=role)
    for _ in structures:
        drawn.ui.takeBackButton.click()
        assert np.array_equal(settled(drawn), accepted)


def test_a_click_that_is_moved_corrects_what_was_accepted(drawn, slice_views, case):
    accepted = accept_clicks(drawn, case, "spleen")
    view = slice_views["Red"]
    place = view.xy(case.middle("spleen"))
    view.drag(place, np.add(place, (3, 3)))
    assert (settled(drawn) != accepted).sum() < 0.02 * accepted.sum()


def test_what_was_drawn_after_accepting_stays_when_a_click_is_taken_back(points, slice_views, case):
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    accepted = accept_clicks(points, case, "spleen")
    by_hand = accepted & (np.arange(len(accepted)) < 100)[:, None, None]
    assert by_hand.sum() < accepted.sum()
    write_plainly(MaskPatch.of_mask(by_hand), case.node, case.segmentation, case.liver)
    points.ui.takeBackButton.click()
    assert np.array_equal(settled(points), by_hand)


def test_after_accepting_the_latest_click_is_taken_back_first(points, panel, slice_views, case):
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    points.session.add("negative", case.middle("liver"))
    answered(points)
    accept_clicks(points, case, "spleen")
    panel.editor.setCurrentSegmentID(add_segment(case, "other"))
    panel.editor.setCurrentSegmentID(case.liver)
    assert points.session.marks.roles()[6:] == ["negative", "positive"]
    points.ui.takeBackButton.click()
    assert points.session.marks.roles()[6:] == ["negative"]


def test_a_click_that_excludes_is_obeyed_on_a_mark_that_includes(points, slice_views, case):
    points.ui.clickButton.click()
    view = slice_views["Red"]
    place = view.xy(case.middle("liver"))
    view.click(place)
    answered(points)
    view.click(place, control=True)
    answered(points)
    assert points.session.marks.roles() == ["positive", "negative"]
    voxel = tuple(np.rint(points.session.marks.places()[1][1]).astype(int)[::-1])
    assert not points.session.preview.mask.to_mask(case.labels.shape)[voxel]


def test_a_click_on_a_mark_says_that_it_is_one(points, slice_views, case):
    view = slice_views["Red"]
    place = view.xy(case.middle("liver"))
    view.click(place)
    view.click(np.add(place, (4, 0)))
    assert points.session.marks.roles() == ["extreme"]
    assert "zoom in" in points.ui.statusLabel.text


def test_marks_survive_an_undo_that_goes_back_to_before_them(points, panel, slice_views, case):
    points.save_state()
    write_plainly(MaskPatch.of_mask(case.mask("spleen")), case.node, case.segmentation, case.liver)
    points.session.catch_up()
    for world in case.ends("liver")[:4]:
        slice_views["Green"].click(slice_views["Green"].xy(world))
    panel.editor.undo()
    panel.editor.setCurrentSegmentID(add_segment(case, "other"))
    panel.editor.setCurrentSegmentID(case.liver)
    assert points.session.marks.roles() == ["extreme"] * 4


def test_an_image_is_not_kept_in_memory_when_it_was_closed(points, slice_views, case, application):
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    volume = weakref.ref(points.session.assistant.studies.of(case.node))
    settled(points)
    application.scene.Clear(0)
    case.node = case.segmentation = None
    wait(lambda: gc.collect() >= 0 and volume() is None, seconds=5)
    assert volume() is None
