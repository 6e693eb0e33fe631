"""Segments by the names, colours and codes of structures."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, count

import slicer

from aiassist.imaging import Code, Label
from aiassist.imaging.labels import terminology_entry
from AIAssistLib.segments import check_keeps_voxels, read_mask
from AIAssistLib.tags import name_key, note_held, tag_of


def new_segment(segmentation_node, label: Label) -> str:
    """Add an empty segment with a structure's name, colour and terminology; its ID.

    The second one of a name is numbered, as in "lesion 2": ground truth keeps one of each name.
    """
    name, segmentation = _free_name(segmentation_node, label.name), segmentation_node.GetSegmentation()
    segment = slicer.vtkSegment()
    segment.SetName(name)
    segment.SetColor(*[c / 255 for c in label.colour])
    segment.SetTag(segment.GetTerminologyEntryTagName(), terminology_entry(label))
    segment_id = segmentation.GenerateUniqueSegmentID(name)
    segmentation.AddSegment(segment, segment_id)
    _lay_on_grid(segment, segmentation)
    note_held(segmentation_node, segment_id, None)  # Slicer uses the IDs of deleted segments again
    return segment_id


def segment_to_fill(segmentation_node, volume_node, label: Label) -> str:
    """ID of the segment that ground truth keeps under a structure's name if nothing is drawn in it, else of a new one.

    For segments that somebody prepared: what is found belongs there, and not into a second one of the name.
    `StudyError` when the segments are no voxels.
    """
    check_keeps_voxels(segmentation_node)
    segment_id = segment_of_structure(segmentation_node, label.name)
    if segment_id and read_mask(segmentation_node, segment_id, volume_node).region.is_empty:
        return segment_id
    return new_segment(segmentation_node, label)


def _lay_on_grid(segment, segmentation) -> None:
    """Give an empty segment the segmentation's grid; Slicer would resample others to its own when it saves them."""
    converter = slicer.vtkSegmentationConverter
    labelmap = segment.GetRepresentation(converter.GetSegmentationBinaryLabelmapRepresentationName())
    grid = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    if labelmap is not None and grid and converter.DeserializeImageGeometry(grid, labelmap, False):
        labelmap.SetExtent(0, -1, 0, -1, 0, -1)


def _free_name(segmentation_node, name: str) -> str:
    """The name, or with the first number from 2 on that no segment has."""
    numbered = (f"{name} {number}" for number in count(2))
    return next(one for one in chain([name], numbered) if not segment_of_structure(segmentation_node, one))


def segment_named(segmentation_node, name: str) -> str:
    """ID of the segment of a name, letter by letter; empty when there is none."""
    segmentation = segmentation_node.GetSegmentation()  # whose own search takes "Lesion" for "lesion"
    for number in range(segmentation.GetNumberOfSegments()):
        if segmentation.GetNthSegment(number).GetName() == name:
            return segmentation.GetNthSegmentID(number)
    return ""


def segment_of_structure(segmentation_node, name: str) -> str:
    """ID of the segment that ground truth keeps under a name, best letter by letter; empty when there is none."""
    segmentation = segmentation_node.GetSegmentation()
    numbers = range(segmentation.GetNumberOfSegments())
    alike = [n for n in numbers if name_key(segmentation.GetNthSegment(n).GetName()) == name_key(name)]
    return segment_named(segmentation_node, name) or (segmentation.GetNthSegmentID(alike[0]) if alike else "")


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
