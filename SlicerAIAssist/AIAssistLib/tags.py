"""What is kept with a segment beside its voxels: tags that are saved with the scene, and when its voxels changed."""

from __future__ import annotations

import json

import slicer
import vtk

from aiassist.prompts import Prompts

#: Segment tags: the prompts that made the mask, and which model answered them.
PROMPTS, MODEL = "AIAssist.Prompts", "AIAssist.Model"
#: Attribute of the segmentation node, followed by a segment's ID: prompts that were not accepted yet.
DRAFT = "AIAssist.Draft."


def tag_of(segment, name: str) -> str:
    """A tag of a segment; empty when it has none."""
    text = vtk.mutable("")
    return str(text) if segment.GetTag(name, text) else ""


def prompts_of(segment) -> Prompts | None:
    """The prompts that made a segment's mask; None when there are none or they are damaged."""
    return _read(tag_of(segment, PROMPTS))


def keep_prompts(segment, prompts: Prompts) -> None:
    """Keep the prompts that made a segment's mask."""
    segment.SetTag(PROMPTS, json.dumps(prompts.to_json()))


def draft_of(segmentation_node, segment_id: str) -> Prompts | None:
    """Prompts of a segment that were not accepted yet; None when there are none or they are damaged."""
    return _read(segmentation_node.GetAttribute(DRAFT + segment_id) or "")


def keep_draft(segmentation_node, segment_id: str, prompts: Prompts | None) -> None:
    """Keep prompts that are not accepted yet, or forget them.

    Not with the segment: who draws segments, and who remembers them for undo, would take it for a change of the mask.
    """
    text = json.dumps(prompts.to_json()) if prompts is not None else None
    segmentation_node.SetAttribute(DRAFT + segment_id, text)


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
