"""Segmentations as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import slicer
import vtk

from aiassist.errors import ImageError
from AIAssistLib.label_files import is_segmentation, legend_of
from AIAssistLib.nodes import remove_with_display
from AIAssistLib.segments import read_mask, with_voxels

_TABLE = "vtkMRMLColorTableNode"


def export(segmentation_node, volume_node, path: Path) -> list[str]:
    """Write all segments as ``.seg.nrrd``, or as a labelmap in NIfTI or NRRD on the volume's grid and its legend.

    A labelmap has one segment a voxel, the last of those that overlap there. Returns the names of the segments that
    miss voxels in the file for that. `ImageError` when it cannot be written.
    """
    path, covered = Path(path), []
    if is_segmentation(path):
        written = _write(with_voxels(segmentation_node, volume_node), path, segmentation_node)
    else:
        written = _export_labelmap(segmentation_node, volume_node, path)
        covered = _covered(segmentation_node, volume_node)
    if not written:
        raise ImageError(f"{path} could not be written; check the folder and the free space.")
    return covered


def _covered(segmentation_node, volume_node) -> list[str]:
    """Names of the segments of which later ones cover voxels."""
    segmentation, names = segmentation_node.GetSegmentation(), []
    taken = np.zeros(slicer.util.arrayFromVolume(volume_node).shape[:3], bool)
    for number in reversed(range(segmentation.GetNumberOfSegments())):
        patch = read_mask(segmentation_node, segmentation.GetNthSegmentID(number), volume_node)
        here = taken[patch.region.slices]
        if (here & patch.mask).any():
            names.insert(0, segmentation.GetNthSegment(number).GetName())
        here |= patch.mask
    return names


def _export_labelmap(segmentation_node, volume_node, path: Path) -> bool:
    scene = segmentation_node.GetScene()
    tables = set(_colour_tables(scene))
    labelmap = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "AI Assist export")
    try:
        ids = vtk.vtkStringArray()
        segmentation_node.GetSegmentation().GetSegmentIDs(ids)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        done = logic.ExportSegmentsToLabelmapNode(segmentation_node, ids, labelmap, volume_node)
        if not done or not _write(labelmap, path):
            return False
        return _write(labelmap.GetDisplayNode().GetColorNode(), legend_of(path))
    finally:
        remove_with_display(labelmap)
        for table in set(_colour_tables(scene)) - tables:  # made for the labelmap
            scene.RemoveNode(table)


def _colour_tables(scene) -> list:
    return [scene.GetNthNodeByClass(n, _TABLE) for n in range(scene.GetNumberOfNodesByClass(_TABLE))]


def _write(node, path: Path, original=None) -> bool:
    """Write a node past its own storage, so that saving the scene goes where it always went.

    `original` is the node in the scene when this one is a copy in none.
    """
    storage = (original or node).CreateDefaultStorageNode()
    storage.UnRegister(None)
    storage.SetFileName(str(path))
    return bool(storage.WriteData(node))
