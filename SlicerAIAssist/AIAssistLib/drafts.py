"""Marks of a segment that are not accepted yet; they are saved with the scene."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass

from aiassist.imaging import Volume
from aiassist.prompts import Prompts
from AIAssistLib.marks import SIX, Place, places_of
from AIAssistLib.tags import grid_of, tag_of

#: Attribute of the segmentation node, followed by a segment's ID.
DRAFT = "AIAssist.Draft."
#: Segment tag by which a draft knows its segment: Slicer uses the IDs of deleted segments again, and people rename.
OWNER = "AIAssist.DraftOwner"


@dataclass(frozen=True)
class Draft:
    """Marks, how many extreme points are an outline, and after how many clicks the segment's mask comes.

    ``held`` is None when the marks begin anew, whatever the segment holds.
    """

    marks: tuple[Place, ...] = ()
    ends: int = SIX
    held: int | None = 0

    @classmethod
    def of(cls, prompts: Prompts, click_order: str = "") -> Draft:
        """The marks that made what the segment holds; for the order see `places_of`."""
        ends = len(prompts.extreme_points)
        clicks = len(prompts.positive) + len(prompts.negative)
        return cls(tuple(places_of(prompts, click_order)), ends if 2 <= ends < SIX else SIX, clicks)


def draft_of(segmentation_node, segment_id: str, volume: Volume) -> Draft | None:
    """The draft of a segment on this volume; None when there is none or it is damaged."""
    try:
        draft = _read(segmentation_node, segment_id)
        if draft is None or draft["grid"] != grid_of(volume):
            return None
        marks = tuple((str(role), [float(x), float(y), float(z)]) for role, (x, y, z) in draft["marks"])
        return Draft(marks, int(draft["ends"]), None if draft["held"] is None else int(draft["held"]))
    except (ValueError, KeyError, TypeError):
        return None


def names_with_drafts(segmentation_node) -> list[str]:
    """Names of the segments that have marks which are not accepted."""
    segmentation = segmentation_node.GetSegmentation()
    numbers = range(segmentation.GetNumberOfSegments())
    marked = [n for n in numbers if _read(segmentation_node, segmentation.GetNthSegmentID(n)) is not None]
    return [segmentation.GetNthSegment(number).GetName() for number in marked]


def keep_draft(segmentation_node, segment_id: str, draft: Draft | None, volume: Volume) -> None:
    """Keep a draft, or forget it.

    Not with the segment, which is tagged once: who draws segments, and who remembers them for undo, would take each
    mark for a change of the mask.
    """
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    text = None
    if draft is not None and segment is not None:
        said = {"marks": draft.marks, "ends": draft.ends, "held": draft.held}
        text = json.dumps({"grid": grid_of(volume), "owner": own(segment), **said})
    segmentation_node.SetAttribute(DRAFT + segment_id, text)


def own(segment) -> str:
    """Tag a segment, once, so that drafts know it; before it is drawn in, or Undo would take the tag away."""
    if not tag_of(segment, OWNER):
        segment.SetTag(OWNER, uuid.uuid4().hex)
    return tag_of(segment, OWNER)


def _read(segmentation_node, segment_id: str) -> dict | None:
    """The draft of a segment on whatever volume; None when there is none, or it is of one that was deleted."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    try:
        draft = json.loads(segmentation_node.GetAttribute(DRAFT + segment_id) or "null")
    except ValueError:
        return None
    is_own = isinstance(draft, dict) and segment is not None and draft.get("owner") == tag_of(segment, OWNER)
    return draft if is_own else None
