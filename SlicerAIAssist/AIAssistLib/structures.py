"""Segments by the names, colours and codes of structures."""

from __future__ import annotations

import slicer

from aiassist.imaging import Label
from aiassist.imaging.labels import terminology_entry


def new_segment(segmentation_node, label: Label) -> str:
    """Add an empty segment with a structure's name, colour and terminology; its ID."""
    segment = slicer.vtkSegment()
    segment.SetName(label.name)
    segment.SetColor(*[c / 255 for c in label.colour])
    segment.SetTag(segment.GetTerminologyEntryTagName(), terminology_entry(label))
    segmentation = segmentation_node.GetSegmentation()
    segment_id = segmentation.GenerateUniqueSegmentID(label.name)
    segmentation.AddSegment(segment, segment_id)
    return segment_id


def segment_named(segmentation_node, name: str) -> str:
    """ID of the segment of a name; empty when there is none."""
    return segmentation_node.GetSegmentation().GetSegmentIdBySegmentName(name) or ""
