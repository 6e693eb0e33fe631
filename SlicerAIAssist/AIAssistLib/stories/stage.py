"""A case with ground truth before a person, in the panel and in the slice views."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import slicer

from aiassist.evaluation.annotator import jitter
from aiassist.evaluation.cases import load_case
from aiassist.imaging import MaskPatch, describe_structure
from aiassist.prompts import extreme_points
from aiassist.resources import resource
from AIAssistLib.console import new_segmentation
from AIAssistLib.geometry import ijk_to_world, transform
from AIAssistLib.segments import write_plainly
from AIAssistLib.stories.mouse import View
from AIAssistLib.structures import new_segment
from AIAssistLib.talks import Conversation, Outcome

#: Seconds that anything may take before a story fails.
PATIENCE = 120.0
#: Seconds after which something that was begun is under way, and which no answer is as fast as.
UNDER_WAY = 0.01
#: Array axis that the view cuts across in which an end along i, j or k is clicked: it shows that axis, and each of
#: the three views gets two of the ends.
SEEN_ACROSS = {0: 0, 1: 2, 2: 1}


class StoryError(AssertionError):
    """Something in a story is not as it should be."""


def expect(so: bool, what: str) -> None:
    """`StoryError` with a sentence when something is not so."""
    if not so:
        raise StoryError(f"It is not so that {what}.")


class Stage:
    """Lays a case out in an empty scene, and does what a person does with it.

    Parameters
    ----------
    panel : AIAssistLib.panel_qt.Panel
        Of the module, which is shown.
    folder : Path, optional
        A case as `aiassist evaluate` takes it; the bundled CT when absent.
    lose : callable, optional
        Takes away what computes, as a crash does, and brings it back where nobody else does. By default the process
        of the home in use is killed.

    Attributes
    ----------
    values : dict of str to int
        The structures of the truth and their values in its labelmap.
    node, segmentation
        The volume node and a segmentation node.
    """

    def __init__(self, panel, folder: Path | None = None, lose: Callable[[], None] | None = None):
        self.panel = panel
        self.lose = lose or (lambda: panel.logic.assistant.home.process.kill())
        folder = folder or resource("SampleData", "ts_ct_torso")
        self._volume, self._labels = load_case(folder)
        labels = json.loads((folder / "meta.json").read_text(encoding="utf8"))["labels"]
        self.values: dict[str, int] = {name: int(value) for value, (name, _count) in labels.items()}
        self.node = slicer.util.addVolumeFromArray(
            self._volume.voxels.copy(), ijkToRAS=self._volume.geometry.affine_ras, name=folder.name
        )
        self.node.CreateDefaultDisplayNodes()
        self.segmentation = new_segmentation(self.node)
        self.lay_out()

    def lay_out(self) -> None:
        """Show the volume in the three slice views, and both nodes in the panel."""
        layout = slicer.app.layoutManager()
        layout.setLayout(slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpView)
        slicer.app.processEvents()  # the views get their sizes
        self.panel.editor.setSegmentationNode(self.segmentation)
        self.panel.editor.setSourceVolumeNode(self.node)
        views = [View(layout.sliceWidget(name)) for name in ("Red", "Yellow", "Green")]
        for view in views:
            view.show(self.node)
        #: The views by the array axis that they cut across.
        self.views: dict[int, View] = {view.cuts(self.node): view for view in views}
        expect(set(self.views) == {0, 1, 2}, "the slice views show the three planes of the image")

    def take_from_scene(self) -> None:
        """Lay out the volume and the segmentation of a scene that was opened again."""
        (self.node,) = slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")
        (self.segmentation,) = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        self.lay_out()

    # What is known of the case

    def truth(self, name: str) -> np.ndarray:
        """Bool ``(k, j, i)`` of a structure."""
        return self._labels == self.values[name]

    def ends(self, name: str, seed: int = 0) -> np.ndarray:
        """Six ends of a structure in the world, missed as hands do: the first of ``aiassist evaluate --jitter``."""
        rng = np.random.default_rng([seed, 0, self.values[name]])
        points = extreme_points(self.truth(name), rng)
        return self.world(jitter(points, self._volume.geometry, rng))

    def world(self, ijk) -> np.ndarray:
        """Voxel indices (n, 3) as places in the world (RAS, mm)."""
        return transform(ijk_to_world(self.node), ijk)

    # What the person does

    def choose(self, name: str, mask: np.ndarray | None = None) -> str:
        """Add a segment, empty or with a mask, and choose it; its ID."""
        segment_id = new_segment(self.segmentation, describe_structure(name))
        if mask is not None:
            self.draw(segment_id, mask)
        self.panel.editor.setCurrentSegmentID(segment_id)
        return segment_id

    def draw(self, segment_id: str, mask: np.ndarray) -> None:
        """Give a segment other voxels, as somebody who paints does."""
        write_plainly(MaskPatch.of_mask(mask), self.node, self.segmentation, segment_id)

    def effect(self, name: str):
        """Activate one of the two effects; the Python object of it."""
        self.panel.editor.setActiveEffectByName(name)
        active = self.panel.editor.activeEffect()
        expect(active is not None and active.name == name, f"the effect {name} is active")
        return active.self()

    def points(self):
        """Activate AI Points, to click six ends."""
        effect = self.effect("AI Points")
        effect.ui.extremeButton.click()
        return effect

    def click_ends(self, places) -> None:
        """Click six ends, low and high along each axis of the image, each in a view that shows its axis."""
        for number, place in enumerate(places):
            self.views[SEEN_ACROSS[number // 2]].click(place)

    def outline(self, name: str):
        """Click the six ends of a structure with AI Points and wait for the answer; the effect."""
        effect = self.points()
        self.click_ends(self.ends(name))
        self.answered(effect)
        return effect

    # What the person sees

    def wait(self, until: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
        """Let Slicer go on until something is so; `StoryError` when it takes too long."""
        end = time.monotonic() + seconds
        while not until():
            expect(time.monotonic() < end, f"{what} within {seconds:.0f} s")
            slicer.app.processEvents()
            time.sleep(0.002)

    def pause(self, seconds: float) -> None:
        """Let Slicer go on for a while."""
        end = time.monotonic() + seconds
        self.wait(lambda: time.monotonic() > end, "time passes")

    def ask(self, conversation: Conversation[Outcome]) -> Outcome:
        """The outcome of a conversation with the backend."""
        outcomes: list = []
        self.panel.logic.assistant.start(conversation, outcomes.append, outcomes.append)
        self.wait(lambda: bool(outcomes), "the backend answers")
        expect(not isinstance(outcomes[0], Exception), f"the backend answers; instead it says: {outcomes[0]}")
        return outcomes[0]

    def answered(self, effect) -> None:
        """Wait for the model's last answer; `StoryError` with what the person reads when there is none."""
        self.wait(lambda: not effect.session.busy and not effect.session.looks_closer, "the model answers")
        expect(not effect.session.failed, f"the model answers; instead it says: {effect.session.text}")
        expect(effect.session.preview.mask is not None, "the answer is shown")

    def shown(self, effect) -> np.ndarray:
        """The voxels of the preview."""
        return effect.session.preview.mask.to_mask(self._volume.shape)

    def mask(self, segment_id: str) -> np.ndarray:
        """The voxels of a segment, as Slicer's own function gives them."""
        voxels = slicer.util.arrayFromSegmentBinaryLabelmap(self.segmentation, segment_id, self.node)
        return voxels > 0 if voxels is not None else np.zeros(self._volume.shape, bool)
