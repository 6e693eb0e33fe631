"""Saving segments as ground truth, their history, and saved versions brought back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from aiassist.errors import StoreError
from aiassist.imaging import MaskPatch, Volume, describe_structure
from AIAssistLib.dicom_headers import give_series
from AIAssistLib.segments import read_mask, write_plainly
from AIAssistLib.structures import new_segment, segment_of_structure
from AIAssistLib.studies import opened
from AIAssistLib.tags import (
    MODEL,
    held,
    held_of,
    name_key,
    note_held,
    prompts_of,
    replace_tags,
    tag_of,
    tags_of_version,
)
from AIAssistLib.talks import Conversation


@dataclass(frozen=True)
class Drawn:
    """A segment as it was when somebody pressed Save: what it is called, its mask, and what it held; see `held_of`."""

    segment: object
    segment_id: str
    name: str
    mask: MaskPatch
    held: str

    @property
    def is_empty(self) -> bool:
        """Whether nothing is drawn in it."""
        return self.mask.region.is_empty


@dataclass(frozen=True)
class Saved:
    """What was saved: the study, the number of each structure's new version, and the versions of the masks.

    ``unchanged`` are the numbers of the versions that were there already, as they are in the segments. ``emptied`` are
    those of ``numbers`` that are empty now. ``without`` says why the DICOM headers of the image were not saved with
    it, when they should have been.
    """

    study: str
    numbers: dict[str, int]
    masks: frozenset[str]
    without: str = ""
    unchanged: dict[str, int] = field(default_factory=dict)
    emptied: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loaded:
    """The numbers of the versions that are in segments now, and the names of the segments that were left alone."""

    numbers: dict[str, int]
    left: tuple[str, ...]


class GroundTruth:
    """Speaks with the backend's store of labels.

    Parameters
    ----------
    assistant : AIAssistLib.assistant.Assistant
    """

    def __init__(self, assistant):
        self._assistant = assistant
        self._began = time.monotonic()
        #: Versions of masks that the home is known to keep, each after its study and the key of its structure.
        self._kept: set[tuple[str, str, str]] = set()

    def is_kept(self, study: str, version: str) -> bool:
        """Whether a mask of this version is known to be saved of a study."""
        return any(study == of and version == kept for of, _name, kept in self._kept)

    def home_changed(self) -> None:
        """Nothing is known of what another home keeps."""
        self._kept.clear()

    def unsaved(self, volume_node, segmentation_node) -> list[str]:
        """Names of the segments whose masks are no version of that name that was saved or listed in this home."""
        segmentation, found = segmentation_node.GetSegmentation(), []
        study = vars(self._assistant.studies.of(volume_node)).get("study_id", "")  # unknown where nothing was saved
        for number in range(segmentation.GetNumberOfSegments()):
            name, segment_id = segmentation.GetNthSegment(number).GetName(), segmentation.GetNthSegmentID(number)
            mask = read_mask(segmentation_node, segment_id, volume_node)
            is_kept = (study, name_key(name), mask.version) in self._kept
            if held_of(segmentation_node, segment_id) if mask.region.is_empty else not is_kept:
                found.append(name)
        return found

    def restart_clock(self) -> None:
        """The time that a label took counts from now."""
        self._began = time.monotonic()

    # Saving

    def save(
        self, volume_node, segmentation_node, comment: str = "", state: str = "submitted", author=None, progress=None
    ) -> Conversation[Saved]:
        """Save what changed since it was saved, each segment under its name, also if the image goes meanwhile.

        A segment is unchanged when its mask is that of the structure's newest version, which is of this state or
        approved. An empty one is saved when it held a version of its structure, whose newest is not empty yet.

        `author` is whose labels they are, for a home on this computer; a server knows that by the token.

        `StoreError` when all are empty, or two have the same name. What was saved before an error stays saved.
        """
        drawn = _drawn_in(segmentation_node, volume_node)
        volume, keeper = self._assistant.studies.of(volume_node), self._assistant.conversations.keeper
        seconds, name = time.monotonic() - self._began, volume_node.GetName()

        def talk():
            study = yield from opened(keeper, volume, progress)
            without = yield from give_series(keeper, volume, volume_node)
            newest = _newest((yield from keeper.truth(study)))
            wanted = [one for one in drawn if not one.is_empty or _was_emptied(one, study, newest)]
            for one in drawn:
                if one not in wanted:  # what it held is empty, or of another image or name
                    note_held(segmentation_node, one.segment_id, "")
            if not wanted:
                raise StoreError("All segments are empty; annotate something before you save.")
            unchanged = [one for one in wanted if _is_saved(one, newest, state)]
            changed, numbers = [one for one in wanted if one not in unchanged], {}
            for one in changed:
                version = yield from keeper.save(
                    study,
                    one.name,
                    one.mask,
                    volume,
                    name=name,
                    comment=comment,
                    state=state,
                    author=author,
                    seconds=seconds / len(changed),
                    parent=_number(one, newest),
                    **_made_by(one, volume),
                )
                numbers[one.name] = version["number"]
                self._note(one, study, segmentation_node)
            for one in unchanged:
                self._note(one, study, segmentation_node)
            self.restart_clock()
            return Saved(
                study,
                numbers,
                frozenset(one.mask.version for one in wanted),
                without,
                {one.name: _number(one, newest) for one in unchanged},
                tuple(one.name for one in changed if one.is_empty),
            )

        return talk()

    def _note(self, one: Drawn, study: str, segmentation_node) -> None:
        """A segment's mask is the newest version of its structure."""
        self._kept.add((study, name_key(one.name), one.mask.version))
        note_held(segmentation_node, one.segment_id, "" if one.is_empty else held(study, one.name))

    # Versions

    def history(self, volume_node) -> Conversation[list[dict]]:
        """All versions of a volume's labels, the newest first."""
        volume, conversations = self._assistant.studies.of(volume_node), self._assistant.conversations

        def talk():
            yield from volume.hashing()
            versions = yield from conversations.truth(volume.study_id)
            self._kept |= {(volume.study_id, name_key(one["structure"]), one["mask"]) for one in versions}
            return sorted(versions, key=lambda v: v["made"], reverse=True)

        return talk()

    def bring_back(self, version: dict, volume_node, segmentation_node, save_state) -> Conversation[None]:
        """Put an old version's mask into the segment of its name, made if there is none; save to make it the newest.

        The segment has the version's prompts and model then. `save_state` is called with the segmentation before
        anything changes, once the mask is there. `StoreError` when the version is another image's, or the image or
        its segments are gone.
        """
        conversations, volume = self._assistant.conversations, self._assistant.studies.of(volume_node)

        def talk():
            yield from volume.hashing()
            if volume.study_id != version["study"]:
                raise StoreError("That version is another image's; look at this image's history.")
            mask = yield from _saved(conversations, version)
            self._check_still_there(volume, volume_node, segmentation_node)
            save_state(segmentation_node)
            self._kept.add((volume.study_id, name_key(version["structure"]), mask.version))
            _put(version, mask, volume, volume_node, segmentation_node)

        return talk()

    def load_newest(self, volume_node, segmentation_node, save_state: Callable[[object], None]) -> Conversation[Loaded]:
        """Put the newest version of each structure into the segment of its name, made if there is none.

        Segments with work that is not saved are left alone, and structures whose newest version is empty are left out.
        `StoreError` when no labels are saved of this image, or it is gone when they arrive.
        """
        conversations, volume = self._assistant.conversations, self._assistant.studies.of(volume_node)

        def talk():
            versions = _newest((yield from self.history(volume_node))).values()
            wanted = [version for version in versions if version["voxels"]]
            if not wanted:
                raise StoreError("No labels are saved of this image yet.")
            masks = []
            for one in wanted:
                masks.append((yield from _saved(conversations, one)))
            self._check_still_there(volume, volume_node, segmentation_node)
            unsaved = {name_key(name) for name in self.unsaved(volume_node, segmentation_node)}
            save_state(segmentation_node)
            numbers, left = {}, []
            for one, mask in zip(wanted, masks, strict=True):
                if name_key(one["structure"]) in unsaved:
                    left.append(one["structure"])
                    continue
                _put(one, mask, volume, volume_node, segmentation_node)
                numbers[one["structure"]] = one["number"]
            return Loaded(numbers, tuple(left))

        return talk()

    def _check_still_there(self, volume: Volume, volume_node, segmentation_node) -> None:
        gone = volume_node.GetScene() is None or segmentation_node.GetScene() is None
        if gone or self._assistant.studies.of(volume_node) is not volume:
            raise StoreError("The image was changed or removed meanwhile; choose the version again.")


def _drawn_in(segmentation_node, volume_node) -> list[Drawn]:
    """The segments that hold something or held a version; `StoreError` when there is none, or two of a name."""
    segmentation, full, empty = segmentation_node.GetSegmentation(), {}, {}
    for number in range(segmentation.GetNumberOfSegments()):
        segment, segment_id = segmentation.GetNthSegment(number), segmentation.GetNthSegmentID(number)
        mask = read_mask(segmentation_node, segment_id, volume_node)
        one = Drawn(segment, segment_id, segment.GetName(), mask, held_of(segmentation_node, segment_id))
        key = name_key(one.name)
        if one.is_empty:
            if one.held:
                empty[key] = one
        elif key in full:
            raise StoreError(f"Two segments are called {one.name!r}; rename one of them, then save.")
        else:
            full[key] = one
    if not full and not empty:
        raise StoreError("All segments are empty; annotate something before you save.")
    return list({**empty, **full}.values())


def _newest(versions: Iterable[dict]) -> dict[str, dict]:
    """The newest version of each structure, by the key of its name."""
    return {name_key(version["structure"]): version for version in sorted(versions, key=lambda v: v["number"])}


def _number(one: Drawn, newest: dict[str, dict]) -> int:
    """The number of the newest version of a segment's structure; 0 when there is none."""
    version = newest.get(name_key(one.name))
    return version["number"] if version is not None else 0


def _is_saved(one: Drawn, newest: dict[str, dict], state: str) -> bool:
    """Whether a segment's mask is that of the newest version, by the hash of its voxels and their place."""
    version = newest.get(name_key(one.name))
    return version is not None and version["mask"] == one.mask.version and version["state"] in (state, "approved")


def _was_emptied(one: Drawn, study: str, newest: dict[str, dict]) -> bool:
    """Whether an empty segment says that its structure is not there, rather than that nobody drew it yet."""
    version = newest.get(name_key(one.name))
    return one.held == held(study, one.name) and version is not None and version["voxels"] > 0


def _made_by(one: Drawn, volume: Volume) -> dict[str, object]:
    """Prompts and model of a segment's mask; an empty one has none."""
    if one.is_empty:
        return {}
    prompts = prompts_of(one.segment, volume)
    model, _space, model_version = tag_of(one.segment, MODEL).partition(" ")
    return {
        "prompts": prompts.to_json() if prompts is not None else None,
        "model": model or None,
        "model_version": model_version or None,
    }


def _saved(conversations, version: dict) -> Conversation[MaskPatch]:
    """The mask of a version; `StoreError` when this home keeps another one under its number."""
    structure, number = version["structure"], version["number"]
    mask = yield from conversations.saved(version["study"], structure, number)
    if mask.version != version["mask"]:
        raise StoreError(f"Version {number} of {structure!r} is another one here; look at the history again.")
    return mask


def _put(version: dict, mask: MaskPatch, volume: Volume, volume_node, segmentation_node) -> None:
    """Let the segment of a version's structure be that version."""
    structure = version["structure"]
    segment_id = segment_of_structure(segmentation_node, structure)
    segment_id = segment_id or new_segment(segmentation_node, describe_structure(structure))
    write_plainly(mask, volume_node, segmentation_node, segment_id)
    replace_tags(segmentation_node.GetSegmentation().GetSegment(segment_id), tags_of_version(version, volume))
