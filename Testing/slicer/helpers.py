"""What the tests of the extension share: the bundled CT, and a person who waits and looks."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import qt
import slicer

from aiassist.imaging import describe_structure
from aiassist.prompts import extreme_points
from AIAssistLib.console import new_segmentation
from AIAssistLib.structures import new_segment
from AIAssistLib.texts import BREAK
from shell.interpreter_lock import starving_threads

CASE = Path(__file__).parents[2] / "Resources" / "SampleData" / "ts_ct_torso"
#: The views in which a person gives the six ends of a structure: left and right, front and back, top and bottom.
VIEWS_OF_ENDS = ("Green", "Green", "Yellow", "Yellow", "Green", "Yellow")


class Case:
    """The bundled CT: its volume node, an empty segmentation, its labels, and points on its structures."""

    def __init__(self):
        from aiassist.imaging import read_volume  # needs what Slicer lacks

        self.volume = read_volume(CASE / "image.nii.gz")
        self.labels = read_volume(CASE / "label.nii.gz").voxels
        self.names = {int(k): v[0] for k, v in json.loads((CASE / "meta.json").read_text())["labels"].items()}
        self.to_world = self.volume.geometry.affine_ras
        self.node = slicer.util.addVolumeFromArray(self.volume.voxels.copy(), ijkToRAS=self.to_world, name="torso")
        self.node.CreateDefaultDisplayNodes()
        self.node.GetDisplayNode().SetAutoWindowLevel(False)
        self.node.GetDisplayNode().SetWindowLevelMinMax(-160, 240)
        self.segmentation = new_segmentation(self.node)

    def mask(self, name: str) -> np.ndarray:
        """Bool ``(k, j, i)`` of a structure."""
        return self.labels == next(value for value, known in self.names.items() if known == name)

    def world(self, ijk) -> np.ndarray:
        """Voxel indices (n, 3) as places in the world (RAS, mm)."""
        ijk = np.asarray(ijk, dtype=float).reshape(-1, 3)
        return ijk @ self.to_world[:3, :3].T + self.to_world[:3, 3]

    def middle(self, name: str) -> np.ndarray:
        """A place in the world amid a structure's largest axial slice."""
        mask = self.mask(name)
        k = int(mask.sum(axis=(1, 2)).argmax())
        return self.world([*np.argwhere(mask[k]).mean(axis=0)[::-1], k])[0]

    def ends(self, name: str, jitter: float = 0.0, seed: int = 0) -> np.ndarray:
        """Six ends of a structure in the world, each missed by up to `jitter` voxels."""
        rng = np.random.default_rng(seed)
        points = extreme_points(self.mask(name), rng)
        return self.world(points + rng.uniform(-jitter, jitter, points.shape))


def add_segment(case: Case, name: str, mask: np.ndarray | None = None) -> str:
    """Add a segment, empty or with a mask; its ID."""
    from aiassist.imaging import MaskPatch
    from AIAssistLib.segments import write_plainly

    segment_id = new_segment(case.segmentation, describe_structure(name))
    if mask is not None:
        write_plainly(MaskPatch.of_mask(mask), case.node, case.segmentation, segment_id)
    return segment_id


def click_ends(views, places) -> None:
    """Click the six ends of a structure, each in a view that shows it."""
    for world, name in zip(places, VIEWS_OF_ENDS, strict=True):
        views[name].click(views[name].xy(world))


def wait(until, seconds: float = 60.0) -> None:
    """Let Slicer's event loop run until something is so; Python threads get nowhere, as in Slicer."""
    end = time.monotonic() + seconds
    heart = qt.QTimer()
    heart.start(5)
    with stopping(heart), starving_threads(seconds):
        while not until():
            assert time.monotonic() < end, "it did not happen in time"
            qt.QApplication.processEvents(qt.QEventLoop.WaitForMoreEvents)


@contextmanager
def stopping(timer) -> Iterator[None]:
    """Stop a timer at the end, and do not leave that to who collects it.

    An error that is kept keeps the frames of its callers and what they hold. That may be collected in any Python
    thread, and a running timer that goes in another thread than its own crashes Qt later.
    """
    try:
        yield
    finally:
        timer.stop()


def answered(effect) -> None:
    """Wait for the model's last answer; fails with the sentence that the person sees when there is none."""
    wait(lambda: not effect.session.busy and not effect.session.looks_closer)
    assert not effect.session.failed, effect.session.text
    assert effect.session.preview.mask is not None


def said(label) -> str:
    """What a label says, without the invisible places where a long word may break."""
    return label.text.replace(BREAK, "")


def dice(a, b) -> float:
    """Dice of two masks."""
    return 2 * np.logical_and(a, b).sum() / max(a.sum() + b.sum(), 1)


def mask_of(case: Case, segment_id: str) -> np.ndarray:
    """A segment's voxels on the volume's grid, as Slicer's own function gives them."""
    if slicer.util.arrayFromSegmentBinaryLabelmap(case.segmentation, segment_id, case.node) is None:
        return np.zeros(case.labels.shape, bool)
    return slicer.util.arrayFromSegmentBinaryLabelmap(case.segmentation, segment_id, case.node) > 0
