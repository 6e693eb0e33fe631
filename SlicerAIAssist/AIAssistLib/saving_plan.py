"""What a save does with each segment: a new version of its structure, or none, and why."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from aiassist.errors import StoreError
from aiassist.imaging import MaskPatch, Volume
from AIAssistLib.segments import read_mask
from AIAssistLib.tags import MODEL, Held, held_of, name_key, prompts_of, tag_of


@dataclass(frozen=True)
class Drawn:
    """A segment as it was when somebody pressed Save.

    What it is called, its mask, the saved versions that it held, and ``made_by``: the prompts and model of its mask.
    Slicer gives the ID of a deleted segment to another one; ``segment`` is the one that was saved.
    """

    segment_id: str
    segment: object
    name: str
    mask: MaskPatch
    held: tuple[Held, ...]
    made_by: Mapping[str, object]

    @property
    def is_empty(self) -> bool:
        """Whether nothing is drawn in it."""
        return self.mask.region.is_empty


class What(enum.Enum):
    """What becomes of a segment."""

    NEW = "a new version is made of it"
    UNCHANGED = "it is the newest version"
    OLDER = "nobody touched it since it held a version, and somebody saved a newer one"
    REJECTED = "it is the newest version, which a reviewer rejected"
    EMPTY = "it is empty, and says nothing of its structure"


@dataclass(frozen=True)
class Plan:
    """What a save does with a segment.

    ``newest`` is the newest version of its structure, as the backend lists it, None without one; ``parent`` the number
    of the one that the segment was made from; ``is_unseen`` whether the newest came after that.
    """

    one: Drawn
    what: What
    newest: Mapping | None = None
    parent: int = 0
    is_unseen: bool = False


def drawn_in(segmentation_node, volume_node, volume: Volume, absent: bool = False) -> list[Drawn]:
    """The segments that hold something or held a version, and with ``absent`` all others too.

    `StoreError` when there is none, or two of a name.
    """
    segmentation, full, empty = segmentation_node.GetSegmentation(), {}, {}
    for number in range(segmentation.GetNumberOfSegments()):
        segment, segment_id = segmentation.GetNthSegment(number), segmentation.GetNthSegmentID(number)
        mask, held = read_mask(segmentation_node, segment_id, volume_node), held_of(segmentation_node, segment_id)
        made_by = {} if mask.region.is_empty else _made_by(segment, volume)
        one = Drawn(segment_id, segment, segment.GetName(), mask, held, made_by)
        key = name_key(one.name)
        if one.is_empty:
            if one.held or absent:
                empty[key] = one
        elif key in full:
            raise StoreError(f"Two segments are called {one.name!r}; rename one of them, then save.")
        else:
            full[key] = one
    if not full and not empty:
        raise StoreError("All segments are empty; annotate something before you save.")
    return list({**empty, **full}.values())


def without_findings(segmentation_node, volume_node) -> list[str]:
    """Names of all segments when nothing is drawn in any of them, nor was; none as soon as something is."""
    segmentation, names = segmentation_node.GetSegmentation(), []
    for number in range(segmentation.GetNumberOfSegments()):
        segment_id = segmentation.GetNthSegmentID(number)
        held, mask = held_of(segmentation_node, segment_id), read_mask(segmentation_node, segment_id, volume_node)
        if held or not mask.region.is_empty:
            return []
        names.append(segmentation.GetNthSegment(number).GetName())
    return names


def _made_by(segment, volume: Volume) -> dict[str, object]:
    prompts = prompts_of(segment, volume)
    model, _space, model_version = tag_of(segment, MODEL).partition(" ")
    return {
        "prompts": prompts.to_json() if prompts is not None else None,
        "model": model or None,
        "model_version": model_version or None,
    }


def plan(one: Drawn, study: str, versions: Iterable[Mapping], state: str, absent: bool = False) -> Plan:
    """What to do with a segment, given all versions of a study's labels, to save it in a state.

    With ``absent`` an empty segment says that its structure is not in the image, unless somebody drew it there.
    """
    key = name_key(one.name)
    mine = sorted((v for v in versions if name_key(v["structure"]) == key), key=lambda v: v["number"])
    held = [h for h in one.held if (h.study, h.key) == (study, key)]
    newest = mine[-1] if mine else None
    is_drawn = newest is not None and bool(newest["voxels"])
    if one.is_empty and not (held and is_drawn):
        if not absent:
            return Plan(one, What.EMPTY, newest)
        if is_drawn:
            return Plan(one, What.OLDER, newest)
    if newest is None:
        return Plan(one, What.NEW)
    same = {(h.number, h.mask) for h in held}
    base = next((v for v in reversed(mine) if (v["number"], v["mask"]) in same), newest)
    is_unseen = newest["number"] > base["number"]
    what = What.NEW
    if one.mask.version == newest["mask"]:
        stays = {"rejected": What.REJECTED, "approved": What.UNCHANGED, state: What.UNCHANGED}
        what = stays.get(newest["state"], What.NEW)
    elif is_unseen and one.mask.version == base["mask"]:
        what = What.OLDER
    return Plan(one, what, newest, base["number"], is_unseen)
