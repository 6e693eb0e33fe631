"""Saving segments as ground truth, their history, and old versions brought back."""

from __future__ import annotations

import time
from dataclasses import dataclass

from aiassist.errors import StoreError
from aiassist.imaging import describe_structure
from AIAssistLib.dicom_headers import give_series
from AIAssistLib.segments import read_mask, write_plainly
from AIAssistLib.structures import new_segment, segment_named
from AIAssistLib.studies import opened
from AIAssistLib.tags import MODEL, prompts_of, tag_of
from AIAssistLib.talks import Conversation


@dataclass(frozen=True)
class Saved:
    """What was saved: the study, the number of each structure's new version, and the versions of the masks.

    ``without`` says why the DICOM headers of the image were not saved with it, when they should have been.
    """

    study: str
    numbers: dict[str, int]
    masks: frozenset[str]
    without: str = ""


class GroundTruth:
    """Speaks with the backend's store of labels.

    Parameters
    ----------
    assistant : AIAssistLib.assistant.Assistant
    """

    def __init__(self, assistant):
        self._assistant = assistant
        self._began = time.monotonic()
        #: Versions of masks that are known to be saved.
        self._kept: set[str] = set()

    def unsaved(self, volume_node, segmentation_node) -> list[str]:
        """Names of the segments whose masks are no version that was saved or listed since Slicer started."""
        segmentation, found = segmentation_node.GetSegmentation(), []
        for number in range(segmentation.GetNumberOfSegments()):
            mask = read_mask(segmentation_node, segmentation.GetNthSegmentID(number), volume_node)
            if not mask.region.is_empty and mask.version not in self._kept:
                found.append(segmentation.GetNthSegment(number).GetName())
        return found

    def restart_clock(self) -> None:
        """The time that a label took counts from now."""
        self._began = time.monotonic()

    def save(
        self, volume_node, segmentation_node, comment: str = "", state: str = "submitted", author=None, progress=None
    ) -> Conversation[Saved]:
        """Save all segments that are not empty, each under its name, as new versions, also if the image goes meanwhile.

        `author` is whose labels they are, for a home on this computer; a server knows that by the token.

        `StoreError` when there is none, or two have the same name. What was saved before an error stays saved.
        """
        segments = self._segments(segmentation_node, volume_node)
        volume, keeper = self._assistant.studies.of(volume_node), self._assistant.conversations.keeper
        seconds, name, numbers = time.monotonic() - self._began, volume_node.GetName(), {}

        def talk():
            study = yield from opened(keeper, volume, progress)
            without = yield from give_series(keeper, volume, volume_node)
            history = yield from _numbers(keeper, study)
            for structure, (segment, mask) in segments.items():
                prompts = prompts_of(segment, volume)
                model, _, model_version = tag_of(segment, MODEL).partition(" ")
                version = yield from keeper.save(
                    study,
                    structure,
                    mask,
                    volume,
                    name=name,
                    comment=comment,
                    state=state,
                    author=author,
                    seconds=seconds / len(segments),
                    prompts=prompts.to_json() if prompts is not None else None,
                    model=model or None,
                    model_version=model_version or None,
                    parent=history.get(structure, 0),
                )
                numbers[structure] = version["number"]
                self._kept.add(mask.version)
            self.restart_clock()
            return Saved(study, numbers, frozenset(mask.version for _segment, mask in segments.values()), without)

        return talk()

    def _segments(self, segmentation_node, volume_node) -> dict:
        segmentation, found = segmentation_node.GetSegmentation(), {}
        for number in range(segmentation.GetNumberOfSegments()):
            segment = segmentation.GetNthSegment(number)
            mask = read_mask(segmentation_node, segmentation.GetNthSegmentID(number), volume_node)
            if mask.region.is_empty:
                continue
            if segment.GetName() in found:
                raise StoreError(f"Two segments are called {segment.GetName()!r}; rename one of them, then save.")
            found[segment.GetName()] = (segment, mask)
        if not found:
            raise StoreError("All segments are empty; annotate something before you save.")
        return found

    def history(self, volume_node) -> Conversation[list[dict]]:
        """All versions of a volume's labels, the newest first."""
        volume, conversations = self._assistant.studies.of(volume_node), self._assistant.conversations

        def talk():
            yield from volume.hashing()
            versions = yield from conversations.truth(volume.study_id)
            self._kept |= {version["mask"] for version in versions}
            return sorted(versions, key=lambda v: v["made"], reverse=True)

        return talk()

    def bring_back(self, version: dict, volume_node, segmentation_node, save_state) -> Conversation[None]:
        """Put an old version's mask into the segment of its name, made if there is none; save to make it the newest.

        `save_state` is called with the segmentation before anything changes, once the mask is there. `StoreError`
        when the version is another image's, or the image or its segments are gone.
        """
        conversations, volume = self._assistant.conversations, self._assistant.studies.of(volume_node)

        def talk():
            yield from volume.hashing()
            if volume.study_id != version["study"]:
                raise StoreError("That version is another image's; look at this image's history.")
            mask = yield from conversations.saved(version["study"], version["structure"], version["number"])
            gone = volume_node.GetScene() is None or segmentation_node.GetScene() is None
            if gone or self._assistant.studies.of(volume_node) is not volume:
                raise StoreError("The image was changed or removed meanwhile; choose the version again.")
            save_state(segmentation_node)
            segment_id = segment_named(segmentation_node, version["structure"])
            segment_id = segment_id or new_segment(segmentation_node, describe_structure(version["structure"]))
            write_plainly(mask, volume_node, segmentation_node, segment_id)

        return talk()


def _numbers(keeper, study: str) -> Conversation[dict[str, int]]:
    """The newest version's number of each structure; 0 is understood where there is none."""
    versions = yield from keeper.truth(study)
    newest: dict[str, int] = {}
    for version in versions:
        newest[version["structure"]] = max(newest.get(version["structure"], 0), version["number"])
    return newest
