"""Segments by the names, colours and codes of structures."""

from __future__ import annotations

from dataclasses import dataclass

import slicer

from aiassist.imaging import Code, Label
from aiassist.imaging.labels import terminology_entry
from AIAssistLib.tags import tag_of


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
    """ID of the segment of a name, letter by letter; empty when there is none."""
    segmentation = segmentation_node.GetSegmentation()  # whose own search takes "Lesion" for "lesion"
    for number in range(segmentation.GetNumberOfSegments()):
        if segmentation.GetNthSegment(number).GetName() == name:
            return segmentation.GetNthSegmentID(number)
    return ""


@dataclass(frozen=True)
class Coded:
    """What a segment is: name, colour and codes, the category of its code, and where in the body it lies."""

    label: Label
    category: Code | None = None
    region: Code | None = None


def terminology_of(segment) -> Coded:
    """What Slicer says a segment is; without codes when its terminology says nothing."""
    text = tag_of(segment, segment.GetTerminologyEntryTagName())
    colour = tuple(round(255 * part) for part in segment.GetColor())
    parts = text.split("~")
    if len(parts) != 7:
        return Coded(Label(segment.GetName() or "segment", colour=colour))
    category, kind, modifier, region = (_code(parts[n]) for n in (1, 2, 3, 5))
    label = Label(segment.GetName() or "segment", colour=colour, code=kind, side=modifier)
    return Coded(label, category if kind is not None else None, region)


def _code(text: str) -> Code | None:
    """A code that Slicer wrote as ``scheme^value^meaning``; None for an empty one."""
    scheme, value, meaning = (*text.split("^"), "", "", "")[:3]
    return Code(value, meaning, scheme) if scheme and value and meaning else None
