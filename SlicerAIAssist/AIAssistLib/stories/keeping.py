"""Stories of what is kept: ground truth and scenes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer

from AIAssistLib.ground_truth import GroundTruth
from AIAssistLib.stories.stage import Stage, expect


@dataclass(frozen=True)
class Kept:
    """The newest version of a structure's ground truth."""

    number: int
    mask: np.ndarray


def save(stage: Stage) -> None:
    """Press *Save as ground truth* and wait."""
    ui = stage.panel.ui
    stage.panel.saving.save()
    stage.wait(lambda: ui.saveButton.enabled, "the labels are saved")
    expect(ui.saveLabel.text.startswith("Saved: "), f"the labels are saved; it says: {ui.saveLabel.text}")


def newest(stage: Stage, name: str) -> Kept:
    """The newest ground truth of a structure, from where it is kept."""
    assistant = stage.panel.logic.assistant
    versions = [v for v in stage.ask(GroundTruth(assistant).history(stage.node)) if v["structure"] == name]
    expect(bool(versions), f"there is ground truth of {name}")
    version = max(versions, key=lambda version: version["number"])
    patch = stage.ask(assistant.conversations.saved(version["study"], name, version["number"]))
    return Kept(version["number"], patch.to_mask(stage.truth(name).shape))


def a_scene_is_saved_closed_and_opened_and_the_work_goes_on(stage: Stage) -> None:
    """Voxels, marks and ground truth are there again, and the next click corrects what the segment held."""
    segment, by_hand = stage.choose("gallbladder"), stage.truth("adrenal_gland_left")
    stage.outline("gallbladder").ui.acceptButton.click()
    stage.draw(segment, stage.mask(segment) | by_hand)
    held = stage.mask(segment)
    save(stage)
    first = newest(stage, "gallbladder")
    expect(np.array_equal(first.mask, held), "the ground truth is what the segment held")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        saved = slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(folder, None)
        expect(bool(saved), "the scene is saved")
        slicer.mrmlScene.Clear(0)
        slicer.mrmlScene.SetURL(str(next(Path(folder).glob("*.mrml"))))
        expect(bool(slicer.mrmlScene.Connect()), "the scene is opened again")
    stage.take_from_scene()
    expect(np.array_equal(stage.mask(segment), held), "the opened scene holds every voxel")
    _go_on(stage, segment)
    expect(stage.mask(segment)[by_hand].all(), "the click corrects what the segment held, and begins nothing new")
    save(stage)
    second = newest(stage, "gallbladder")
    expect(second.number == first.number + 1, "the next save is the next version")
    expect(np.array_equal(second.mask, stage.mask(segment)), "its ground truth is what was accepted then")


def _go_on(stage: Stage, segment: str) -> None:
    """Choose the segment again, exclude a place of the organ in it, and accept."""
    stage.panel.editor.setCurrentSegmentID(segment)
    effect = stage.effect("AI Points")
    expect(effect.session.marks.roles() == ["extreme"] * 6, "the six points are there again")
    inside = np.argwhere(stage.mask(segment) & stage.truth("gallbladder"))
    place = inside[len(inside) // 2]
    stage.views[0].click(stage.world(place[::-1])[0], control=True)
    stage.answered(effect)
    effect.ui.acceptButton.click()
    expect(not stage.mask(segment)[tuple(place)], "Ctrl+click takes away what was clicked")
