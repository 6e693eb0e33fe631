"""Goes through the tutorial's stories inside a running Slicer; anyone can start it by the module's Reload and Test."""

from __future__ import annotations

import numpy as np
import slicer

from aiassist.imaging import read_volume
from aiassist.prompts import extreme_points
from aiassist.resources import resource
from AIAssistLib.console import new_segmentation
from AIAssistLib.geometry import ijk_to_ras
from AIAssistLib.segments import read_mask

#: Least Dice of the bundled case's spleen and of what the stories do to it.
FLOOR = 0.8


def run(test) -> None:
    """Run all stories on the bundled CT.

    Parameters
    ----------
    test : ScriptedLoadableModuleTest
        Shows the messages. `AssertionError` when a story goes wrong.
    """
    slicer.mrmlScene.Clear(0)
    logic = slicer.util.getModuleLogic("AIAssist")
    volume_node, spleen = _bundled_case()
    test.delayDisplay("Six points on the spleen, from the console")
    segmentation = new_segmentation(volume_node)
    ijk = extreme_points(spleen, np.random.default_rng(0))
    to_ras = ijk_to_ras(volume_node)
    world = ijk @ to_ras[:3, :3].T + to_ras[:3, 3]
    segment = logic.annotate(volume_node, world, segmentation, name="spleen")
    found = read_mask(segmentation, segment, volume_node).to_mask(spleen.shape)
    _expect("the spleen is found", _dice(found, spleen) >= FLOOR)

    test.delayDisplay("A click that excludes")
    middle = np.argwhere(found)[len(np.argwhere(found)) // 2]
    out = logic.annotate(volume_node, world, segmentation, name="less", negative=[_world(to_ras, middle)])
    less = read_mask(segmentation, out, volume_node).to_mask(spleen.shape)
    _expect("the excluded place is outside", not less[tuple(middle)])
    again = read_mask(segmentation, segment, volume_node).to_mask(spleen.shape)
    _expect("the first segment is untouched", (again == found).all())

    test.delayDisplay("The panel and its effects")
    slicer.util.selectModule("AIAssist")
    editor = slicer.util.getModuleWidget("AIAssist").panel.editor
    editor.setSegmentationNode(segmentation)
    editor.setSourceVolumeNode(volume_node)
    editor.setCurrentSegmentID(segment)
    for name in ("AI Points", "Smart Contour"):
        editor.setActiveEffectByName(name)
        _expect(f"{name} is active", editor.activeEffect() is not None and editor.activeEffect().name == name)
    editor.setActiveEffectByName("")
    test.delayDisplay("All stories went well")


def _bundled_case():
    folder = resource("SampleData", "ts_ct_torso")
    volume, labels = read_volume(folder / "image.nii.gz"), read_volume(folder / "label.nii.gz")
    node = slicer.util.addVolumeFromArray(volume.voxels.copy(), ijkToRAS=volume.geometry.affine_ras, name="torso")
    node.CreateDefaultDisplayNodes()
    return node, labels.voxels == 1


def _world(to_ras: np.ndarray, kji) -> list[float]:
    return list(to_ras[:3, :3] @ np.asarray(kji)[::-1] + to_ras[:3, 3])


def _dice(a: np.ndarray, b: np.ndarray) -> float:
    return 2 * np.logical_and(a, b).sum() / (a.sum() + b.sum())


def _expect(what: str, so: bool) -> None:
    if not so:
        raise AssertionError(f"It is not so that {what}.")
