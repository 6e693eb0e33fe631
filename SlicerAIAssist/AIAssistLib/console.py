"""Annotation from the Python console and scripts: asks, waits, and returns the segment."""

from __future__ import annotations

import uuid

import numpy as np
import slicer

from aiassist.engine.backend import AnnotateRequest
from aiassist.imaging import describe_structure
from aiassist.prompts import Prompts
from AIAssistLib.geometry import transform, world_to_ijk
from AIAssistLib.segments import check_keeps_voxels, write_plainly
from AIAssistLib.structures import segment_to_fill
from AIAssistLib.studies import opened
from AIAssistLib.tags import MODEL, keep_prompts, note_study


def annotate(assistant, volume_node, segmentation_node, name: str, **places) -> str:
    """Segment a structure into the empty segment of its name, or else a new one, and return its ID.

    Parameters
    ----------
    assistant : AIAssistLib.assistant.Assistant
    volume_node : vtkMRMLScalarVolumeNode
    segmentation_node : vtkMRMLSegmentationNode or None
        None makes one.
    name : str
    **places
        Parts of `Prompts` as points in the world (RAS, mm), or as markups nodes.

    Raises
    ------
    AIAssistError
        When the image, the points or the backend cannot be used. Nothing was changed then.
    """
    if segmentation_node is not None:
        check_keeps_voxels(segmentation_node)
    volume = assistant.studies.of(volume_node)
    to_ijk = world_to_ijk(volume_node)
    points = {part: transform(to_ijk, _points(given)) for part, given in places.items() if given is not None}
    prompts = Prompts(**points)
    prompts.check(volume.geometry)
    conversations = assistant.conversations

    def talk():
        study = yield from opened(conversations, volume)
        if not assistant.cards:  # which say what the model is where nobody chose
            assistant.cards = yield from conversations.models()
        request = AnnotateRequest(study, prompts, structure=name, model=assistant.model)
        return (yield from conversations.annotate(request, uuid.uuid4().hex))

    annotation = assistant.home.finish(talk())
    segmentation_node = segmentation_node or new_segmentation(volume_node)
    segment_id = segment_to_fill(segmentation_node, volume_node, describe_structure(name))
    write_plainly(annotation.patch, volume_node, segmentation_node, segment_id)
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    keep_prompts(segment, prompts, volume)
    segment.SetTag(MODEL, f"{annotation.model} {annotation.model_version}")
    note_study(segmentation_node, volume)
    return segment_id


def new_segmentation(volume_node):
    """An empty segmentation on a volume's grid, moving with it."""
    scene = volume_node.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{volume_node.GetName()} segmentation")
    node.CreateDefaultDisplayNodes()
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())  # first: the grid's place depends on it
    node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    return node


def drawn_on(segmentation_node):
    """The volume on whose grid the segments lie; None when it is not known."""
    return segmentation_node.GetNodeReference(segmentation_node.GetReferenceImageGeometryReferenceRole())


def _points(given) -> np.ndarray:
    if isinstance(given, slicer.vtkMRMLMarkupsNode):
        return slicer.util.arrayFromMarkupsControlPoints(given, world=True).reshape(-1, 3)
    return np.asarray(given, dtype=float).reshape(-1, 3)
