"""Segmentations as files."""

from __future__ import annotations

from pathlib import Path

import slicer
import vtk

from aiassist.errors import ImageError


def export(segmentation_node, volume_node, path: Path) -> None:
    """Write all segments as ``.seg.nrrd``, or as a labelmap in NIfTI or NRRD on the volume's grid.

    `ImageError` when the file cannot be written.
    """
    path = Path(path)
    if path.name.lower().endswith(".seg.nrrd"):
        written = _write(segmentation_node, path)
    else:
        written = _export_labelmap(segmentation_node, volume_node, path)
    if not written:
        raise ImageError(f"{path} could not be written; check the folder and the free space.")


def _export_labelmap(segmentation_node, volume_node, path: Path) -> bool:
    scene = segmentation_node.GetScene()
    labelmap = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "AI Assist export")
    try:
        ids = vtk.vtkStringArray()
        segmentation_node.GetSegmentation().GetSegmentIDs(ids)
        logic = slicer.vtkSlicerSegmentationsModuleLogic
        done = logic.ExportSegmentsToLabelmapNode(segmentation_node, ids, labelmap, volume_node)
        return bool(done) and _write(labelmap, path)
    finally:
        scene.RemoveNode(labelmap)


def _write(node, path: Path) -> bool:
    """Write a node past its own storage, so that saving the scene goes where it always went."""
    storage = node.CreateDefaultStorageNode()
    storage.UnRegister(None)
    storage.SetFileName(str(path))
    return bool(storage.WriteData(node))
