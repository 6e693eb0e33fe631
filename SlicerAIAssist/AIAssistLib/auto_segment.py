"""Automatic segmentation of a volume, as segments."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import numpy as np
import slicer
from slicer.i18n import tr as _

from aiassist.engine.backend import SegmentRequest
from aiassist.errors import Cancelled, StudyError
from aiassist.imaging import MaskPatch, Region, Volume
from aiassist.prompts import Prompts, extreme_points
from aiassist.segmenters.base import ModelCard
from AIAssistLib.segments import check_keeps_voxels, write_plainly
from AIAssistLib.structures import segment_to_fill
from AIAssistLib.studies import opened
from AIAssistLib.tags import MODEL, keep_prompts, note_study
from AIAssistLib.talks import Conversation, Talk, ignore, sentence

#: Milliseconds between two looks at the progress.
LOOK = 400
#: Slices between two turns for Slicer while the labels are looked through.
SLAB = 32


class AutoSegment:
    """Runs one automatic model at a time.

    Parameters
    ----------
    assistant : AIAssistLib.assistant.Assistant
    changed : callable
        Called whenever `text` or `fraction` changed.
    """

    def __init__(self, assistant, changed: Callable[[], None]):
        self._assistant = assistant
        self._changed = changed
        self._talk: Talk | None = None
        self._look: Talk | None = None
        self._job = self._running = ""
        self._is_sending = False
        self._prevent: Callable[[], None] = ignore
        #: What to tell the person, whether it is an error, and the share of the work that is done.
        self.text, self.failed, self.fraction = "", False, 0.0

    @property
    def running(self) -> bool:
        """Whether a model runs."""
        return self._talk is not None and self._talk.active

    def run(self, card: ModelCard, volume_node, segmentation_node, save_state: Callable[[object], None]) -> None:
        """Start a model; what it finds becomes segments: the empty one of a structure's name, or else a new one.

        `save_state` is called with the segmentation before that.
        """
        self.cancel()
        check_keeps_voxels(segmentation_node)
        volume, conversations = self._assistant.studies.of(volume_node), self._assistant.conversations
        self._job = uuid.uuid4().hex

        def check() -> None:
            gone = volume_node.GetScene() is None or segmentation_node.GetScene() is None
            if gone or self._assistant.studies.of(volume_node) is not volume:
                raise StudyError(f"The image was changed or removed while {card.name} ran; run it again.")

        def talk():
            study = yield from opened(conversations, volume, self._sending)
            found = yield from conversations.segment(SegmentRequest(study, card.name), self._job)
            self._unwatch()
            check()
            save_state(segmentation_node)
            adding = adding_segments(found, card, volume_node, segmentation_node, volume, self._show_adding)
            return (yield from self._adding(adding, check))

        def done(added: list[str]) -> None:
            found = _("Found {names}").format(names=", ".join(added))
            nothing = _("{model} found nothing in this image.").format(model=card.name)
            self._say(found if added else nothing, 1.0)

        self._running, self._is_sending = _("Running {model}").format(model=card.name), False
        self._say(self._running, 0.0)
        self._talk = self._assistant.start(talk(), done, self._fail)
        self._watch()

    def _adding(self, adding: Conversation[list[str]], check: Callable[[], None]) -> Conversation[list[str]]:
        """Add segments with Slicer's turns in between; `check` raises when they cannot be added any more."""
        while True:
            try:
                next(adding)
            except StopIteration as end:
                return end.value
            yield
            check()

    def _show_adding(self, share: float) -> None:
        self._say(_("Adding the segments"), share)

    def cancel(self) -> None:
        """Stop the model that runs; segments that are added already stay, and go by Undo."""
        if self.running:
            self._talk.cancel()
            stop = self._assistant.conversations.cancel(self._job)
            self._assistant.start(stop, ignore, ignore)  # it may be done already
            self._say(_("Cancelled"), 0.0)
        self._unwatch()

    def _unwatch(self) -> None:
        """Look at the progress no more."""
        self._prevent()
        if self._look is not None:
            self._look.cancel()

    def _watch(self) -> None:
        if not self.running:
            return

        def seen(where: dict) -> None:
            if self.running:
                place = where.get("position")
                text = _("Number {place} in the queue").format(place=place) if place else self._running
                if not self._is_sending:
                    self._say(text, float(where.get("fraction") or 0))
                self._prevent = self._assistant.home.carrier.after(LOOK, self._watch)

        def unseen(_error) -> None:  # not known yet, or just finished
            self._prevent = self._assistant.home.carrier.after(LOOK, self._watch)

        self._look = self._assistant.start(self._assistant.conversations.progress(self._job), seen, unseen)

    def _sending(self, share: float) -> None:
        self._is_sending = share < 1
        self._say(_("Sending the image: {share}").format(share=f"{share:.0%}"), 0.0)

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, Cancelled):
            self._say(sentence(error), 0.0, failed=True)

    def _say(self, text: str, fraction: float, failed: bool = False) -> None:
        self.text, self.fraction, self.failed = text, fraction, failed
        self._changed()


def adding_segments(
    segmentation,
    card: ModelCard,
    volume_node,
    segmentation_node,
    volume: Volume,
    progress: Callable[[float], None] = ignore,
) -> Conversation[list[str]]:
    """Add what an automatic model found, one segment a label, with the points to adjust it by; their names.

    Gives Slicer a turn after each: of a whole body there are many.
    """
    patch, names = segmentation.patch, []
    boxes = yield from _boxes(patch.voxels)
    there = [label for label in card.labels if label.value in boxes]
    for number, label in enumerate(there, start=1):
        box = boxes[label.value]
        found = MaskPatch(box.shift(patch.region.start), patch.voxels[box.slices] == label.value)
        names.append(_add_segment(found, label, volume_node, segmentation_node, volume, segmentation))
        progress(number / len(there))
        yield
    return names


def _boxes(voxels: np.ndarray) -> Conversation[dict[int, Region]]:
    """The tightest box of each label that there is; gives Slicer a turn after each few slices."""
    from scipy import ndimage  # takes most of a second to import

    boxes: dict[int, Region] = {}
    for start in range(0, len(voxels), SLAB):
        slab = voxels[start : start + SLAB]
        slab = slab.view(np.uint8) if slab.dtype == bool else slab
        for value, slices in enumerate(ndimage.find_objects(slab), start=1):
            if slices is not None:
                box = Region(tuple(s.start for s in slices), tuple(s.stop for s in slices)).shift((start, 0, 0))
                boxes[value] = boxes[value].union(box) if value in boxes else box
        yield
    return boxes


def _add_segment(found: MaskPatch, label, volume_node, segmentation_node, volume: Volume, segmentation) -> str:
    """Add one structure that a model found; the segment's name."""
    segment_id = segment_to_fill(segmentation_node, volume_node, label)
    write_plainly(found, volume_node, segmentation_node, segment_id)
    points = extreme_points(found.mask, np.random.default_rng(0)) + found.region.start[::-1]
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
    keep_prompts(segment, Prompts(extreme_points=points), volume)
    segment.SetTag(MODEL, f"{segmentation.model} {segmentation.model_version}")
    note_study(segmentation_node, volume)
    return segment.GetName()


def fitting(cards: list[ModelCard], volume_node) -> list[ModelCard]:
    """The automatic models made for a volume's modality, where it is known."""
    modality = modality_of(volume_node) if volume_node is not None else ""
    return [
        c for c in cards if c.kind == "automatic" and (not c.modalities or not modality or modality in c.modalities)
    ]


def modality_of(volume_node) -> str:
    """The DICOM modality of a volume, such as "CT"; empty when it is not known."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(volume_node.GetScene())
    item = hierarchy.GetItemByDataNode(volume_node) if hierarchy is not None else 0
    return (hierarchy.GetItemAttribute(item, "DICOM.Modality") or "") if item else ""
