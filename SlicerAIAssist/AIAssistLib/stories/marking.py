"""Stories of AI Points."""

from __future__ import annotations

import time

import numpy as np
import slicer

from aiassist.evaluation.metrics import dice
from AIAssistLib.stories.stage import UNDER_WAY, Stage, expect

#: Least Dice on the bundled CT: what ``aiassist evaluate --jitter`` gives for the same points, less .02 since a click
#: is worth a pixel.
FLOORS = {"spleen": 0.9, "kidney_right": 0.87, "gallbladder": 0.71}


def six_clicks_in_three_views_give_the_organ(stage: Stage) -> None:
    """Nothing is written before it is accepted; then three organs reach what `aiassist evaluate` gives for them."""
    for name, floor in FLOORS.items():
        segment = stage.choose(name)
        effect = stage.outline(name)
        expect(not stage.mask(segment).any(), "nothing is written before it is accepted")
        shown = stage.shown(effect)
        effect.ui.acceptButton.click()
        written = stage.mask(segment)
        expect(effect.session.preview.node is None, "the preview goes when it is accepted")
        expect(effect.session.marks.roles() == ["extreme"] * 6, "the marks stay when they are accepted")
        expect(np.array_equal(written, shown), f"the segment {name} becomes what the preview showed")
        reached = dice(written, stage.truth(name))
        expect(reached >= floor, f"{name} reaches a Dice of {floor:.2f}; it is {reached:.2f}")


def a_point_is_dragged_and_the_segment_follows(stage: Stage) -> None:
    """The spleen's low end along i is dragged inwards; the preview follows, and the segment ends near the new place."""
    segment = stage.choose("spleen")
    effect, view = stage.outline("spleen"), stage.views[0]
    before, marks = stage.shown(effect), len(effect.session.marks.roles())
    end = effect.session.marks.prompts().extreme_points[0]
    inwards = end + np.array([0.3 * np.ptp(np.argwhere(before)[:, 2]), 0, 0])
    start, there = (view.pixel(stage.world(place)[0]) for place in (end, inwards))
    view.hold(start, there)
    stage.answered(effect)
    expect((stage.shown(effect) != before).any(), "the preview follows while the point is held")
    view.let_go(there)
    stage.answered(effect)
    expect(len(effect.session.marks.roles()) == marks, "the point is moved and none is added")
    effect.ui.acceptButton.click()
    was, now = (np.argwhere(mask)[:, 2].min() for mask in (before, stage.mask(segment)))
    expect(abs(now - inwards[0]) < abs(was - inwards[0]), "the segment ends where the point was dragged to")


def accepted_masks_are_undone_and_redone(stage: Stage) -> None:
    """Two accepted masks of one segment go by undo and come by redo, voxel by voxel."""
    segment, editor = stage.choose("organ"), stage.panel.editor
    held = [stage.mask(segment)]
    for name in ("spleen", "gallbladder"):
        stage.outline(name).ui.acceptButton.click()
        held.append(stage.mask(segment))
        expect((held[-1] != held[-2]).any(), f"accepting {name} changes the segment")
    for steps, again, step in ((held[1::-1], "undo", editor.undo), (held[1:], "redo", editor.redo)):
        for mask in steps:
            step()
            expect(np.array_equal(stage.mask(segment), mask), f"{again} brings back every voxel")


def a_click_is_cancelled_in_the_middle(stage: Stage) -> None:
    """What a segment holds stays as it is, no late answer comes, and the next click corrects it."""
    truth = stage.truth("spleen")
    half = _lower(truth)
    segment, began = stage.choose("spleen", half), time.monotonic()
    effect = stage.outline("gallbladder")
    late = 1.5 * (time.monotonic() - began)
    effect.ui.resetButton.click()
    stage.click_ends(stage.ends("gallbladder"))
    stage.pause(UNDER_WAY)
    expect(effect.session.busy, "the model is still at work when the person presses Reset")
    effect.ui.resetButton.click()
    stage.pause(late)
    expect(not effect.session.busy and effect.session.preview.mask is None, "no late answer comes")
    expect(np.array_equal(stage.mask(segment), half), "the segment is left as it was")
    effect.ui.clickButton.click()
    missing = np.argwhere(truth & ~half)
    place = missing[len(missing) // 4]
    stage.views[0].click(stage.world(place[::-1])[0])
    stage.answered(effect)
    effect.ui.acceptButton.click()
    corrected = stage.mask(segment)
    expect(corrected[tuple(place)], "the next click adds what was clicked")
    expect(dice(corrected, truth) > dice(half, truth), "the next click makes the segment better")


def a_locked_structure_stays_as_it_is(stage: Stage) -> None:
    """A second structure goes around the first where the editable area is outside all segments."""
    low = _lower(stage.truth("spleen"))
    first, second = stage.choose("first", low), stage.choose("second")
    node = stage.panel.editor.mrmlSegmentEditorNode()
    before = node.GetMaskMode(), node.GetOverwriteMode()
    node.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedOutsideAllSegments)
    node.SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteAllSegments)
    try:
        effect = stage.outline("spleen")
        shown = stage.shown(effect)
        effect.ui.acceptButton.click()
    finally:
        node.SetMaskMode(before[0])
        node.SetOverwriteMode(before[1])
    expect((shown & low).any(), "the model's answer overlaps the locked structure")
    expect(np.array_equal(stage.mask(first), low), "the locked structure keeps every voxel")
    expect(np.array_equal(stage.mask(second), shown & ~low), "the second one gets all the others")


def _lower(mask: np.ndarray) -> np.ndarray:
    """The half of a mask with the lower k."""
    half = mask.copy()
    half[int(np.argwhere(mask)[:, 0].mean()) :] = False
    return half
