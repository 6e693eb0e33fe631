"""Saving segments as ground truth, their history, and saved versions brought back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from aiassist.errors import ImageError, StoreError, StudyError
from aiassist.imaging import MaskPatch, Volume, describe_structure
from AIAssistLib.dicom_headers import give_series
from AIAssistLib.saving_plan import Plan, What, drawn_in, plan
from AIAssistLib.segments import check_keeps_voxels, read_mask, write_plainly
from AIAssistLib.structures import new_segment, segment_of_structure
from AIAssistLib.studies import opened
from AIAssistLib.tags import Held, held_of, name_key, note_held, note_study, replace_tags, tags_of_version
from AIAssistLib.talks import Conversation


@dataclass(frozen=True)
class Saved:
    """What came of a save: the study, what was done with each segment, and the numbers of the new versions by name.

    ``without`` says why the DICOM headers of the image were not saved with it, when they should have been.
    """

    study: str
    plans: tuple[Plan, ...]
    numbers: dict[str, int]
    without: str = ""

    def of(self, what: What) -> dict[str, Plan]:
        """The segments of which this became, by their names."""
        return {plan.one.name: plan for plan in self.plans if plan.what is what}

    @property
    def masks(self) -> frozenset[str]:
        """The versions of all masks that the ground truth holds now."""
        return frozenset(plan.one.mask.version for plan in self.plans if plan.what is not What.EMPTY)


@dataclass(frozen=True)
class Loaded:
    """The numbers of the versions that are in segments now, and the names of the segments that were left alone.

    ``absent`` are the structures whose newest version is empty.
    """

    numbers: dict[str, int]
    left: tuple[str, ...]
    absent: tuple[str, ...]


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
        segmentation, found, study = segmentation_node.GetSegmentation(), [], self._known_study(volume_node)
        for number in range(segmentation.GetNumberOfSegments()):
            name, segment_id = segmentation.GetNthSegment(number).GetName(), segmentation.GetNthSegmentID(number)
            try:
                mask = read_mask(segmentation_node, segment_id, volume_node)
            except StudyError:  # Slicer cannot make voxels of it, so nothing of it can be saved
                continue
            except ImageError:  # under a deformation: nobody knows whether it was saved like this
                found.append(name)
                continue
            is_kept = (study, name_key(name), mask.version) in self._kept
            if held_of(segmentation_node, segment_id) if mask.region.is_empty else not is_kept:
                found.append(name)
        return found

    def _known_study(self, volume_node) -> str:
        """Id of an image's study; empty where nothing of it was ever saved, as of images in colour."""
        try:
            return vars(self._assistant.studies.of(volume_node)).get("study_id", "")
        except ImageError:
            return ""

    def restart_clock(self) -> None:
        """The time that a label took counts from now."""
        self._began = time.monotonic()

    # Saving

    def save(
        self,
        volume_node,
        segmentation_node,
        comment: str = "",
        state: str = "submitted",
        author=None,
        progress=None,
        absent: bool = False,
    ) -> Conversation[Saved]:
        """Save what changed since it was saved, each segment under its name, also if the image goes meanwhile.

        See `What` for what is not saved. An empty segment is saved when it held a version of its structure, whose
        newest is not empty yet; with ``absent`` also when there is no version of its structure.

        `author` is whose labels they are, for a home on this computer; a server knows that by the token.

        `StoreError` when all are empty, or two have the same name. What was saved before an error stays saved.
        """
        volume, keeper = self._assistant.studies.of(volume_node), self._assistant.conversations.keeper
        drawn = drawn_in(segmentation_node, volume_node, volume, absent)
        details = {"name": volume_node.GetName(), "comment": comment, "state": state, "author": author}
        seconds = time.monotonic() - self._began

        def talk():
            study = yield from opened(keeper, volume, progress)
            without = yield from give_series(keeper, volume, volume_node)
            versions = yield from keeper.truth(study)
            plans, numbers = tuple(plan(one, study, versions, state, absent) for one in drawn), {}
            if all(each.what is What.EMPTY for each in plans):
                self._note_all(plans, study, numbers, segmentation_node)
                raise StoreError("All segments are empty; annotate something before you save.")
            changed = [each for each in plans if each.what is What.NEW]
            for each in changed:
                one = each.one
                cost = {"seconds": seconds / len(changed), "parent": each.parent}
                saving = keeper.save(study, one.name, one.mask, volume, **details, **cost, **one.made_by)
                numbers[one.name] = (yield from saving)["number"]
                self._note(each, study, numbers[one.name], segmentation_node)
            self._note_all(plans, study, numbers, segmentation_node)
            self.restart_clock()
            return Saved(study, plans, numbers, without)

        return talk()

    def _note_all(self, plans, study: str, numbers: dict[str, int], segmentation_node) -> None:
        for each in plans:
            number = each.parent if each.what is What.OLDER else (each.newest or {}).get("number", 0)
            self._note(each, study, numbers.get(each.one.name, number), segmentation_node)

    def _note(self, each: Plan, study: str, number: int, segmentation_node) -> None:
        """A segment's mask is the version of this number; one that says nothing, or was deleted, holds none."""
        one, key = each.one, name_key(each.one.name)
        if each.what is not What.EMPTY:
            self._kept.add((study, key, one.mask.version))
        held = None if one.is_empty else Held(study, key, number, one.mask.version)
        if segmentation_node.GetSegmentation().GetSegment(one.segment_id) is one.segment:
            note_held(segmentation_node, one.segment_id, held)

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
            segment_id = _put(version, mask, volume, volume_node, segmentation_node)
            note_held(segmentation_node, segment_id, Held(volume.study_id, name_key(version["structure"])))

        return talk()

    def review(self, version: dict, state: str, comment: str, author: str | None = None) -> Conversation[dict]:
        """Have the newest version of a structure approved or rejected, which is this one as somebody saw it.

        `author` is as in `save`.
        """
        keeper = self._assistant.conversations.keeper
        return keeper.review(version["study"], version["structure"], version["number"], state, comment, author)

    def load_newest(self, volume_node, segmentation_node, save_state: Callable[[object], None]) -> Conversation[Loaded]:
        """Put the newest version of each structure into the segment of its name, made if there is none.

        Segments with work that is not saved are left alone, and structures whose newest version is empty are left out.
        `StoreError` when no labels are saved of this image, or it is gone when they arrive.
        """
        conversations, volume = self._assistant.conversations, self._assistant.studies.of(volume_node)

        def talk():
            versions = _newest((yield from self.history(volume_node))).values()
            wanted = [version for version in versions if version["voxels"]]
            if not versions:
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
            absent = tuple(version["structure"] for version in versions if not version["voxels"])
            return Loaded(numbers, tuple(left), absent)

        return talk()

    def _check_still_there(self, volume: Volume, volume_node, segmentation_node) -> None:
        gone = volume_node.GetScene() is None or segmentation_node.GetScene() is None
        if gone or self._assistant.studies.of(volume_node) is not volume:
            raise StoreError("The image was changed or removed meanwhile; choose the version again.")


def _newest(versions: Iterable[dict]) -> dict[str, dict]:
    """The newest version of each structure, by the key of its name."""
    return {name_key(version["structure"]): version for version in sorted(versions, key=lambda v: v["number"])}


def _saved(conversations, version: dict) -> Conversation[MaskPatch]:
    """The mask of a version; `StoreError` when this home keeps another one under its number."""
    structure, number = version["structure"], version["number"]
    mask = yield from conversations.saved(version["study"], structure, number)
    if mask.version != version["mask"]:
        raise StoreError(f"Version {number} of {structure!r} is another one here; look at the history again.")
    return mask


def _put(version: dict, mask: MaskPatch, volume: Volume, volume_node, segmentation_node) -> str:
    """Let the segment of a version's structure be that version; its ID."""
    structure = version["structure"]
    check_keeps_voxels(segmentation_node)
    segment_id = segment_of_structure(segmentation_node, structure)
    segment_id = segment_id or new_segment(segmentation_node, describe_structure(structure))
    write_plainly(mask, volume_node, segmentation_node, segment_id)
    replace_tags(segmentation_node.GetSegmentation().GetSegment(segment_id), tags_of_version(version, volume))
    note_study(segmentation_node, volume)
    return segment_id
