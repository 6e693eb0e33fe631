"""One structure annotated by points: from the first click to the accepted segment."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from aiassist.engine.backend import AnnotateRequest, Annotation
from aiassist.errors import AIAssistError, Cancelled, PromptError
from aiassist.imaging import MaskPatch, Volume
from aiassist.prompts import Prompts
from AIAssistLib.answers import Answer, Answers, change
from AIAssistLib.geometry import transform, world_to_ijk
from AIAssistLib.marks import BOX, EXTREME, LINE, NEGATIVE, POSITIVE, Marks
from AIAssistLib.preview import Preview
from AIAssistLib.segments import SegmentWriter, read_mask, segment_of
from AIAssistLib.studies import opened
from AIAssistLib.tags import MODEL, draft_of, keep_draft, keep_prompts, prompts_of, stamp_of
from AIAssistLib.talks import Talk, sentence

#: How many points of a kind say how large the structure is.
ENOUGH = {EXTREME: 6, LINE: 2, BOX: 2}


@dataclass(frozen=True)
class Target:
    """Which segment is being annotated on which volume."""

    volume_node: object
    segmentation_node: object
    segment_id: str

    @property
    def segment(self):
        """The segment; `StudyError` when it was deleted."""
        return segment_of(self.segmentation_node, self.segment_id)

    def mask(self) -> MaskPatch:
        """The mask that the segment holds, on the volume's grid."""
        return read_mask(self.segmentation_node, self.segment_id, self.volume_node)


@dataclass(frozen=True)
class _Outcome:
    """An answer, and what it is the answer to."""

    volume: Volume
    annotation: Annotation
    answer: Answer
    seconds: float


class PointsSession:
    """Turns marks into a preview and the preview into a segment.

    Asks again whenever a mark changes: a new click at once, dropping what is being computed; a drag when
    the answer before it has come. Nothing of the segmentation changes before `accept`.

    Parameters
    ----------
    scene : vtkMRMLScene
    assistant : AIAssistLib.assistant.Assistant
    changed : callable
        Called whenever `text`, `busy` or the preview changed.
    """

    def __init__(self, scene, assistant, changed: Callable[[], None]):
        self.marks = Marks(scene)
        self.preview = Preview(scene)
        self.target: Target | None = None
        #: What to tell the person, and whether it is an error.
        self.text, self.failed = "", False
        self._scene, self._assistant, self._changed = scene, assistant, changed
        self._answers = Answers()
        self._stamp = 0
        self._talk: Talk | None = None
        self._preparing: Talk | None = None
        self._again = False
        self._observed: list[tuple[object, int]] = []
        self._ours = False
        self._shown: Answer | None = None
        self._conversations = None

    # Beginning and ending

    def begin(self, target: Target) -> None:
        """Annotate a segment from now on; clicks correct the mask that it holds.

        Marks that were not accepted come back and are asked again; else those that made the mask come back, to be
        adjusted. Raises when the volume is unusable.
        """
        self.end()
        volume = self._assistant.studies.of(target.volume_node)
        draft = draft_of(target.segmentation_node, target.segment_id, volume)
        self._start(target, draft or prompts_of(target.segment, volume), asked=draft is None)
        if draft is not None and self._can_ask():
            self.ask()

    def _start(self, target: Target, prompts: Prompts | None, asked: bool = True) -> None:
        mask = target.mask()
        self.target, self._stamp = target, stamp_of(target.segment)
        self.marks.follow(target.volume_node)
        with _Ours(self):
            self.marks.show(prompts if prompts is not None and not (asked and mask.region.is_empty) else Prompts())
        held = None if mask.region.is_empty else Answer(self._clicks() if asked else 0, mask)
        self._answers.begin_with(held)
        self._observe()
        self._say("")
        self._preparing = self._assistant.prepare(target.volume_node)  # while the person looks for the organ

    def end(self) -> None:
        """Stop: marks and preview go, and come back with `begin`; the segment stays as it is."""
        self.cancel()
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        self._observed = []
        if self.target is not None:
            self.marks.clear()
        self.preview.clear()
        self._answers.begin_with(None)
        self.target = None

    def reset(self) -> None:
        """Remove marks and preview and begin anew; the segment stays as it is."""
        target = self.target
        if target is not None:
            self._keep_draft(None)
            self.end()
            self._start(target, None)

    def _keep_draft(self, prompts: Prompts | None) -> None:
        """Marks that are not accepted yet are saved with the scene."""
        target = self._require()
        volume = self._assistant.studies.of(target.volume_node)
        keep_draft(target.segmentation_node, target.segment_id, prompts, volume)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._talk is not None and self._talk.active

    @property
    def can_correct(self) -> bool:
        """Whether there is a mask that clicks would correct."""
        return bool(self._answers)

    # Marks

    def add(self, role: str, world) -> None:
        """Put a mark at a place in the world; asks when the marks are enough. `PromptError` beyond the volume."""
        self._check_inside(world)
        outline = role in ENOUGH
        with _Ours(self):
            if outline and role != EXTREME and self.marks.count(role) >= ENOUGH[role]:
                self.marks.clear()
            self.marks.add(role, world)
        if outline and not self._has_outline():
            self._say("")
        elif outline or self._can_ask():
            if outline:
                self._answers.begin_with(None)
            self.ask()
        else:
            self._say("")

    def _check_inside(self, world) -> None:
        volume = self._assistant.studies.of(self._require().volume_node)
        ijk = transform(world_to_ijk(self.target.volume_node), world)
        if not volume.geometry.contains(ijk).all():
            raise PromptError("That place lies beyond the image; click on the image.")

    def take_back(self) -> None:
        """Remove the latest mark, and what it did to the preview."""
        roles = self.marks.roles()
        if not roles:
            return
        with _Ours(self):
            self.marks.remove(len(roles) - 1)
        self._forget(len(roles) - 1, roles)
        last = self._answers.last
        if last is not None and last.clicks == self._clicks() and roles[-1] not in ENOUGH:
            self.cancel()
            self._show(last)
            self._say(self._describe(last))
        elif self._can_ask():
            self.ask()
        else:
            self._show_nothing()

    def _show_nothing(self) -> None:
        self.cancel()
        self.preview.clear()
        self._keep_draft(None)
        self._say("")

    def _observe(self) -> None:
        node, markups = self.marks.node, slicer.vtkMRMLMarkupsNode
        self._observed = [
            (node, node.AddObserver(markups.PointModifiedEvent, self._mark_moves)),
            (node, node.AddObserver(markups.PointRemovedEvent, self._mark_gone)),
            (node, node.AddObserver(markups.PointEndInteractionEvent, self._mark_dropped)),
            (self._scene, self._scene.AddObserver(slicer.vtkMRMLScene.StartSaveEvent, self.preview.undim)),
        ]

    @vtk.calldata_type(vtk.VTK_INT)
    def _mark_moves(self, _node, _event, number: int) -> None:
        if not self._ours:
            self._forget(number, self.marks.roles())
            if self._can_ask():
                self.ask(dragging=True)

    def _mark_dropped(self, *_) -> None:
        if not self._ours and self._can_ask() and not self.busy:
            self.ask()

    def _mark_gone(self, *_) -> None:
        if self._ours:
            return
        self._answers.begin_with(None)
        if self._can_ask():
            self.ask()
        else:
            self._show_nothing()

    def _forget(self, number: int, roles: list[str]) -> None:
        """Forget the answers that the mark of this number had a part in."""
        if 0 <= number < len(roles) and roles[number] in ENOUGH:
            self._answers.begin_with(None)
        else:
            self._answers.keep(sum(role in (POSITIVE, NEGATIVE) for role in roles[:number]))

    def _clicks(self) -> int:
        return self.marks.count(POSITIVE, NEGATIVE)

    def _has_outline(self) -> bool:
        return any(self.marks.count(role) >= enough for role, enough in ENOUGH.items())

    def _can_ask(self) -> bool:
        return self._has_outline() or self.marks.count(POSITIVE) > 0 or bool(self._answers and self._clicks())

    # Asking

    def ask(self, dragging: bool = False) -> None:
        """Ask the backend for the mask of the marks as they are; with fewer than six points too."""
        self._require()
        if self.busy and dragging:
            self._again = True
            return
        self.cancel()
        try:
            self._look_again()
            talk = self._conversation(time.perf_counter())
        except AIAssistError as error:
            self._fail(error)
            return
        self._say(_("Asking the model"))
        self._talk = self._assistant.start(talk, self._answered, self._fail)

    def cancel(self) -> None:
        """Drop what is being computed."""
        self._again = False
        if self._talk is not None:
            self._talk.cancel()
            self._talk = None
        if self._preparing is not None:  # whoever asks goes on where it stopped
            self._preparing.cancel()
            self._preparing = None

    def _look_again(self) -> None:
        """When somebody changed the segment, as undo does, clicks correct what it holds now."""
        stamp = stamp_of(self.target.segment)
        if stamp != self._stamp:
            mask, self._stamp = self.target.mask(), stamp
            self._answers.begin_with(None if mask.region.is_empty else Answer(0, mask))

    def _conversation(self, began: float):
        target, clicks = self._require(), self._clicks()
        volume = self._assistant.studies.of(target.volume_node)
        conversations = self._assistant.conversations
        if conversations is not self._conversations:
            self._answers.unknown()
            self._conversations = conversations
        asked, base = self.marks.prompts(), self._answers.base(clicks)
        prompts = asked
        if base is not None and base.version is None:
            prompts = replace(prompts, prior=base.mask)
        prompts.check(volume.geometry)

        def talk():
            study = yield from opened(conversations, volume, self._sending)
            request = AnnotateRequest(
                study=study,
                prompts=prompts,
                base=base.version if base is not None else None,
                structure=target.segment_id,
                model=self._assistant.model,
            )
            annotation = yield from conversations.annotate(request, uuid.uuid4().hex)
            whole = annotation.patch.over(base.mask if base is not None else None)
            model = f"{annotation.model} {annotation.model_version}"
            changed = change(annotation.patch, base.mask) if base is not None else None
            answer = Answer(clicks, whole, annotation.version, asked, model, changed)
            return _Outcome(volume, annotation, answer, time.perf_counter() - began)

        return talk()

    def _sending(self, share: float) -> None:
        self._say(_("Sending the image: {share}").format(share=f"{share:.0%}"))

    def _answered(self, outcome: _Outcome) -> None:
        again, self._again = self._again, False
        if self._assistant.studies.of(self._require().volume_node) is not outcome.volume:
            self._answers.begin_with(None)  # the image changed meanwhile
            self.ask()
            return
        self._answers.add(outcome.answer)
        self._show(outcome.answer)
        self._assistant.answered(outcome.annotation, outcome.seconds)
        self._say(self._describe(outcome.answer))
        if again:
            self.ask()

    def _show(self, answer: Answer) -> None:
        target = self._require()
        self.preview.show(answer.mask, target.volume_node, target.segmentation_node, target.segment_id, answer.change)
        self._shown = answer
        self._keep_draft(answer.prompts)

    def _describe(self, answer: Answer) -> str:
        """The volume of a mask; of a correction also what came and what went."""
        affine = self._assistant.studies.of(self.target.volume_node).geometry.affine
        voxel = abs(np.linalg.det(affine[:3, :3])) / 1000
        text = f"{_round(np.count_nonzero(answer.mask.mask) * voxel)} ml"
        if answer.change is None:
            return text
        differs, now = answer.change.mask, answer.mask.within(answer.change.region)
        came, went = np.count_nonzero(differs & now), np.count_nonzero(differs & ~now)
        return f"{text} (+{_round(came * voxel)}, -{_round(went * voxel)})"

    def _fail(self, error: Exception) -> None:
        self._again = False
        if not isinstance(error, Cancelled):
            self._say(sentence(error), failed=True)

    def _say(self, text: str, failed: bool = False) -> None:
        self.text, self.failed = text, failed
        self._changed()

    # Accepting

    def accept(self, writer: SegmentWriter, save_state: Callable[[], None]) -> None:
        """Write the preview into the segment, and begin anew.

        Parameters
        ----------
        writer : SegmentWriter
        save_state : callable
            Called before the change, so that the editor can undo it.

        Raises
        ------
        PromptError
            When there is no preview, or it is not of the marks and the segment as they are now.
        AIAssistError
            When nothing of it could be written. Marks and preview stay then.
        """
        target = self._require()
        segment = target.segment
        if self.busy:
            raise PromptError("The model is still answering; accept its answer when it is there.")
        if self.preview.mask is None:
            raise PromptError("There is no preview to accept; mark the structure first.")
        if stamp_of(segment) != self._stamp:
            self.ask()
            raise PromptError("The segment was changed meanwhile, so the model is asked again; accept its new answer.")
        save_state()
        try:
            before = target.mask()
            writer.write(target.volume_node, target.segmentation_node, target.segment_id, before, self.preview.mask)
        finally:
            self._stamp = stamp_of(segment)
        if self._shown.prompts is not None:
            keep_prompts(segment, self._shown.prompts, self._assistant.studies.of(target.volume_node))
            segment.SetTag(MODEL, self._shown.model)
        self.reset()

    def _require(self) -> Target:
        if self.target is None:
            raise PromptError("No segment is chosen; choose or add one first.")
        if self.target.volume_node.GetScene() is None or self.target.segmentation_node.GetScene() is None:
            self.cancel()
            raise PromptError("The volume or the segmentation was deleted; choose others.")
        return self.target


def _round(millilitres: float) -> str:
    return f"{millilitres:.0f}" if millilitres >= 100 else f"{millilitres:.2g}"


class _Ours:
    """While it lasts, changes of the marks are our own."""

    def __init__(self, session: PointsSession):
        self._session = session

    def __enter__(self):
        self._session._ours = True

    def __exit__(self, *_):
        self._session._ours = False
