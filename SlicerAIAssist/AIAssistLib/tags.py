"""What is kept with a segment beside its voxels: tags that are saved with the scene, and when its voxels changed."""

from __future__ import annotations

import hashlib
import json

import slicer
import vtk

from aiassist.imaging import Volume
from aiassist.prompts import Prompts

#: Segment tags: the prompts that made the mask, which model answered them, and in which grid's voxels they are.
PROMPTS, MODEL, GRID = "AIAssist.Prompts", "AIAssist.Model", "AIAssist.Grid"


def tag_of(segment, name: str) -> str:
    """A tag of a segment; empty when it has none."""
    text = vtk.mutable("")
    return str(text) if segment.GetTag(name, text) else ""


def grid_of(volume: Volume) -> str:
    """Names a volume's grid: prompts are voxel indices, and mean something else on another one."""
    affine = volume.geometry.affine.round(3).tolist()
    return hashlib.blake2b(json.dumps([volume.shape, affine]).encode(), digest_size=8).hexdigest()


def prompts_of(segment, volume: Volume) -> Prompts | None:
    """The prompts that made a segment's mask on this volume; None when there are none or they are damaged."""
    if tag_of(segment, GRID) != grid_of(volume):
        return None
    return _read(tag_of(segment, PROMPTS))


def keep_prompts(segment, prompts: Prompts, volume: Volume) -> None:
    """Keep the prompts that made a segment's mask."""
    segment.SetTag(PROMPTS, json.dumps(prompts.to_json()))
    segment.SetTag(GRID, grid_of(volume))


def _read(text: str) -> Prompts | None:
    try:
        return Prompts.from_json(json.loads(text))
    except ValueError:
        return None


def stamp_of(segment) -> int:
    """A number that changes when the segment's voxels do."""
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    labelmap = segment.GetRepresentation(name)
    return labelmap.GetMTime() if labelmap is not None else 0


def stamps_of(segmentation_node) -> dict[str, int]:
    """The stamps of all segments by their IDs."""
    segmentation = segmentation_node.GetSegmentation()
    numbers = range(segmentation.GetNumberOfSegments())
    return {segmentation.GetNthSegmentID(n): stamp_of(segmentation.GetNthSegment(n)) for n in numbers}
