"""What is kept with a segment beside its voxels: tags that are saved with the scene, and when its voxels changed."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass

import slicer
import vtk

from aiassist.imaging import Volume
from aiassist.prompts import Prompts

#: Segment tags: the prompts that made the mask, which model answered them, and in which grid's voxels they are.
PROMPTS, MODEL, GRID = "AIAssist.Prompts", "AIAssist.Model", "AIAssist.Grid"
#: Segment tag: in which order the clicks among the prompts came, a "+" or "-" each.
CLICKS = "AIAssist.Clicks"
#: Segment tag: which saved version the segment held, see `Held`.
HELD = "AIAssist.Held"
#: Attribute of the segmentation node, followed by a segment's ID: the same of what was saved, which Undo, that gives
#: segments the tags back that they had, does not take away.
SAVED = "AIAssist.Saved."
#: Attribute of the segmentation node: the studies on which its masks were drawn, with spaces between.
STUDY = "AIAssist.Study"
#: What goes with a mask wherever it is kept.
KEPT = (PROMPTS, MODEL, GRID, CLICKS, HELD)


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


def keep_prompts(segment, prompts: Prompts, volume: Volume, click_order: str = "") -> None:
    """Keep the prompts that made a segment's mask, and in which order their clicks came, if that is known."""
    segment.SetTag(PROMPTS, json.dumps(prompts.to_json()))
    segment.SetTag(GRID, grid_of(volume))
    set_tag(segment, CLICKS, click_order)


def set_tag(segment, name: str, text: str) -> None:
    """Set a tag of a segment, or take it away when the text is empty."""
    if text:
        segment.SetTag(name, text)
    elif tag_of(segment, name):
        segment.RemoveTag(name)


def tags_of(segment) -> dict[str, str]:
    """What is kept with a segment's mask."""
    return {name: text for name in KEPT if (text := tag_of(segment, name))}


def replace_tags(segment, tags: Mapping[str, str]) -> None:
    """Let a segment have what was kept with another mask, and nothing of what it had."""
    for name in KEPT:
        set_tag(segment, name, tags.get(name, ""))


def tags_of_version(version: Mapping, volume: Volume) -> dict[str, str]:
    """The tags of a segment that holds a saved version's mask; a version is as the backend lists it."""
    model = f"{version.get('model') or ''} {version.get('model_version') or ''}".strip()
    prompts = {PROMPTS: json.dumps(version["prompts"]), GRID: grid_of(volume)} if version.get("prompts") else {}
    return {**prompts, MODEL: model, HELD: Held.of(version).to_text()}


@dataclass(frozen=True)
class Held:
    """Which saved version a segment held: of a study and of the structure of a key, its number, and its mask's version.

    Without a number where an old version was brought back: that is to become the newest, as if somebody had drawn it.
    """

    study: str
    key: str
    number: int = 0
    mask: str = "-"

    @classmethod
    def of(cls, version: Mapping) -> Held:
        """A version as the backend lists it."""
        return cls(version["study"], name_key(version["structure"]), version["number"], version["mask"])

    def to_text(self) -> str:
        """The text of the tag `HELD`."""
        return f"{self.study} {self.number} {self.mask} {self.key}"

    @classmethod
    def from_text(cls, text: str) -> Held | None:
        """What `to_text` said; None of any other text."""
        study, number, mask, key = [*text.split(" ", 3), "", "", "", ""][:4]
        return cls(study, key, int(number), mask) if number.isdecimal() and key else None


def held_of(segmentation_node, segment_id: str) -> tuple[Held, ...]:
    """Which saved versions a segment held, by its tag and by what was saved of it."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    texts = tag_of(segment, HELD), segmentation_node.GetAttribute(SAVED + segment_id) or ""
    return tuple(held for text in dict.fromkeys(texts) if (held := Held.from_text(text)) is not None)


def note_held(segmentation_node, segment_id: str, held: Held | None) -> None:
    """A segment, if it is still there, holds a version that was saved, or none."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    if segment is not None:
        text = held.to_text() if held is not None else ""
        set_tag(segment, HELD, text)
        segmentation_node.SetAttribute(SAVED + segment_id, text or None)


def noted_studies(segmentation_node) -> tuple[str, ...]:
    """The studies on which masks of a segmentation were drawn, the first one first; empty when none is known."""
    return tuple((segmentation_node.GetAttribute(STUDY) or "").split())


def note_study(segmentation_node, volume: Volume) -> None:
    """A mask is drawn on this study: its node may hold other voxels later, as that of a sequence does."""
    note_study_id(segmentation_node, vars(volume).get("study_id", ""))


def note_study_id(segmentation_node, study: str) -> None:
    """As `note_study`, of the study of an id; nothing when that is not known."""
    noted = noted_studies(segmentation_node)
    if study and study not in noted:
        segmentation_node.SetAttribute(STUDY, " ".join([*noted, study]))


def forget_studies(segmentation_node) -> None:
    """Nothing is left of what was drawn."""
    if noted_studies(segmentation_node):
        segmentation_node.SetAttribute(STUDY, None)


def forget_maker(segment) -> None:
    """Nothing is left of what was made by these points and this model."""
    for name in (PROMPTS, MODEL, GRID, CLICKS):
        set_tag(segment, name, "")


def name_key(name: str) -> str:
    """What makes two names the same structure, as `aiassist.groundtruth.names`, which Slicer alone cannot import."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).strip().casefold())


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
