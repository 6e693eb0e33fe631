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
from AIAssistLib.segments import write_plainly
from AIAssistLib.structures import new_segment
from AIAssistLib.studies import opened
from AIAssistLib.tags import MODEL, keep_prompts
from AIAssistLib.talks import Talk, ignore, sentence

#: Milliseconds between two looks at the progress.
LOOK = 400


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
        self._unwatch: Callable[[], None] = ignore
        #: What to tell the person, whether it is an error, and the share of the work that is done.
        self.text, self.failed, self.fraction = "", False, 0.0

    @property
    def running(self) -> bool:
        """Whether a model runs."""
        return self._talk is not None and self._talk.active

    def run(self, card: ModelCard, volume_node, segmentation_node, save_state: Callable[[object], None]) -> None:
        """Start a model; what it finds becomes new segments. Existing segments stay as they are.

        `save_state` is called with the segmentation before that.
        """
        self.cancel()
        volume, conversations = self._assistant.studies.of(volume_node), self._assistant.conversations
        self._job = uuid.uuid4().hex

        def talk():
            study = yield from opened(conversations, volume, self._sending)
            return (yield from conversations.segment(SegmentRequest(study, card.name), self._job))

        def done(segmentation) -> None:
            gone = volume_node.GetScene() is None or segmentation_node.GetScene() is None
            if gone or self._assistant.studies.of(volume_node) is not volume:
                raise StudyError(f"The image was changed or removed while {card.name} ran; run it again.")
            save_state(segmentation_node)
            added = add_segments(segmentation, card, volume_node, segmentation_node, volume)
            found = _("Found {names}").format(names=", ".join(added))
            nothing = _("{model} found nothing in this image.").format(model=card.name)
            self._say(found if added else nothing, 1.0)

        self._running, self._is_sending = _("Running {model}").format(model=card.name), False
        self._say(self._running, 0.0)
        self._talk = self._assistant.start(talk(), done, self._fail)
        self._watch()

    def cancel(self) -> None:
        """Stop the model that runs."""
        if self.running:
            self._talk.cancel()
            stop = self._assistant.conversations.cancel(self._job)
            self._assistant.start(stop, ignore, ignore)  # it may be done already
            self._say(_("Cancelled"), 0.0)
        self._unwatch()
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
                self._unwatch = self._assistant.home.carrier.after(LOOK, self._watch)

        def unseen(_error) -> None:  # not known yet, or just finished
            self._unwatch = self._assistant.home.carrier.after(LOOK, self._watch)

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


def add_segments(segmentation, card: ModelCard, volume_node, segmentation_node, volume: Volume) -> list[str]:
    """Add what an automatic model found, one segment a label, with the points to adjust it by; their names."""
    patch, names = segmentation.patch, []
    for label in card.labels:
        mask = patch.voxels == label.value
        tight = Region.of_mask(mask)
        if tight.is_empty:
            continue
        found = MaskPatch(tight.shift(patch.region.start), mask[tight.slices])
        segment_id = new_segment(segmentation_node, label)
        write_plainly(found, volume_node, segmentation_node, segment_id)
        points = extreme_points(found.mask, np.random.default_rng(0)) + found.region.start[::-1]
        segment = segmentation_node.GetSegmentation().GetSegment(segment_id)
        keep_prompts(segment, Prompts(extreme_points=points), volume)
        segment.SetTag(MODEL, f"{segmentation.model} {segmentation.model_version}")
        names.append(segment.GetName())
    return names


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
