"""One structure annotated by points: from the first click to the accepted segment."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import slicer
import vtk

from aiassist.engine.backend import AnnotateRequest, Annotation
from aiassist.errors import AIAssistError, Cancelled, PromptError
from aiassist.imaging import MaskPatch
from aiassist.prompts import Prompts
from AIAssistLib.geometry import transform, world_to_ijk
from AIAssistLib.marks import BOX, EXTREME, LINE, NEGATIVE, POSITIVE, Marks
from AIAssistLib.preview import Preview
from AIAssistLib.segments import SegmentWriter, read_mask, segment_of
from AIAssistLib.studies import opened
from AIAssistLib.talks import Talk

#: Segment tags: the prompts that made the mask, which model answered them, and prompts not accepted yet.
PROMPTS_TAG, MODEL_TAG, DRAFT_TAG = "AIAssist.Prompts", "AIAssist.Model", "AIAssist.Draft"
#: How many points of a kind say how large the structure is.
ENOUGH = {EXTREME: 6, LINE: 2, BOX: 2}


@dataclass(frozen=True)
class Target:
    """Which segment is being annotated on which volume."""

    volume_node: object
    segmentation_node: object
    segment_id: str


@dataclass(frozen=True)
class _Answer:
    """The mask after so many clicks; its version is None while the backend does not know it."""

    clicks: int
    mask: MaskPatch
    version: str | None


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
        self._assistant = assistant
        self._changed = changed
        self._answers: list[_Answer] = []
        self._talk: Talk | None = None
        self._again = False
        self._observed: tuple[object, list[int]] | None = None
        self._ours = False
        self._moved = 0
        self._last: Annotation | None = None

    # Beginning and ending

    def begin(self, target: Target, with_marks: bool = True) -> None:
        """Annotate a segment from now on; clicks correct the mask that it holds.

        With `with_marks`, marks that were not accepted come back and are asked again; else those that made the mask
        come back, to be adjusted. Raises when the volume is unusable.
        """
        self.end()
        segment = segment_of(target.segmentation_node, target.segment_id)
        self._assistant.studies.of(target.volume_node)
        self.target = target
        self.marks.follow(target.volume_node)
        mask = read_mask(target.segmentation_node, target.segment_id, target.volume_node)
        draft = stored_prompts(segment, DRAFT_TAG) if with_marks else None
        prompts = draft or (stored_prompts(segment) if with_marks and not mask.region.is_empty else None)
        with _Ours(self):
            self.marks.show(prompts or Prompts())
        if not mask.region.is_empty:
            self._answers = [_Answer(0 if draft else self._clicks(), mask, None)]
        self._observe()
        self._say("")
        if draft is not None and self._can_ask():
            self.ask()

    def end(self) -> None:
        """Stop: marks and preview go, the segment stays as it is."""
        self.cancel()
        self._unobserve()
        if self.target is not None:
            self.marks.clear()
        self.preview.clear()
        self._answers = []
        self.target = None

    def reset(self) -> None:
        """Remove marks and preview and begin anew; the segment stays as it is."""
        if self.target is not None:
            self._keep_draft(None)
            self.begin(self.target, with_marks=False)

    def _keep_draft(self, prompts: Prompts | None) -> None:
        """Remember marks that are not accepted yet in the segment, so that they are saved with the scene."""
        segment = segment_of(self.target.segmentation_node, self.target.segment_id)
        if prompts is None:
            segment.RemoveTag(DRAFT_TAG)
        else:
            segment.SetTag(DRAFT_TAG, json.dumps(prompts.to_json()))

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited."""
        return self._talk is not None and self._talk.active

    # Marks

    def add(self, role: str, world) -> None:
        """Put a mark at a place in the world; asks when the marks are enough. `PromptError` beyond the volume."""
        self._check_inside(world)
        with _Ours(self):
            if role in ENOUGH and self.marks.count(role) >= ENOUGH[role] and role != EXTREME:
                self.marks.clear()
                self._answers.clear()
            self.marks.add(role, world)
        self._after_change(outline=role in ENOUGH)

    def take_back(self) -> None:
        """Remove the latest mark, and what it did to the preview."""
        roles = self.marks.roles()
        if not roles:
            return
        with _Ours(self):
            self.marks.remove(len(roles) - 1)
        self._forget_from(len(roles) - 1, roles)
        if self._answers and self._clicks() == self._answers[-1].clicks and roles[-1] not in ENOUGH:
            self.cancel()
            self._show(self._answers[-1].mask)
            self._say("")
        elif self._can_ask():
            self.ask()
        else:
            self.cancel()
            self.preview.clear()
            self._say("")

    def _check_inside(self, world) -> None:
        volume = self._assistant.studies.of(self._require().volume_node)
        ijk = transform(world_to_ijk(self.target.volume_node), world)
        if not volume.geometry.contains(ijk).all():
            raise PromptError("That place lies beyond the image; click on the image.")

    def _observe(self) -> None:
        node, Markups = self.marks.node, slicer.vtkMRMLMarkupsNode
        events = (Markups.PointModifiedEvent, Markups.PointRemovedEvent, Markups.PointEndInteractionEvent)
        self._observed = (node, [node.AddObserver(event, self._marks_moved) for event in events])

    def _unobserve(self) -> None:
        if self._observed is not None:
            node, tags = self._observed
            for tag in tags:
                node.RemoveObserver(tag)
            self._observed = None

    @vtk.calldata_type(vtk.VTK_INT)
    def _marks_moved(self, node, event: str, number: int = 0) -> None:
        if self._ours or self.target is None:
            return
        roles = self.marks.roles()
        if event == "PointModifiedEvent":
            self._moved = number
        self._forget_from(0 if event == "PointRemovedEvent" else self._moved, roles)
        if self._can_ask():
            self.ask(dragging=event == "PointModifiedEvent")
        elif not roles:
            self.reset()

    def _forget_from(self, number: int, roles: list[str]) -> None:
        """Forget the answers that the mark of this number had a part in."""
        earlier = sum(role in (POSITIVE, NEGATIVE) for role in roles[:number])
        outline = 0 <= number < len(roles) and roles[number] in ENOUGH
        self._answers = [] if outline else [a for a in self._answers if a.clicks <= earlier]

    def _clicks(self) -> int:
        return self.marks.count(POSITIVE, NEGATIVE)

    def _after_change(self, outline: bool) -> None:
        if outline:
            self._answers = [a for a in self._answers if a.clicks == 0 and a.version is None]
            complete = any(self.marks.count(role) >= enough for role, enough in ENOUGH.items())
        else:
            complete = self._can_ask()
        if complete:
            self._answers = [] if outline else self._answers
            self.ask()
        else:
            self._say("")

    @property
    def can_correct(self) -> bool:
        """Whether there is a mask that clicks would correct."""
        return bool(self._answers)

    def _can_ask(self) -> bool:
        if any(self.marks.count(role) >= enough for role, enough in ENOUGH.items()):
            return True
        return bool(self.marks.count(POSITIVE) or (self._answers and self._clicks()))

    # Asking

    def ask(self, dragging: bool = False) -> None:
        """Ask the backend for the mask of the marks as they are; with fewer than six points too."""
        self._require()
        if self.busy and dragging:
            self._again = True
            return
        self.cancel()
        try:
            talk = self._conversation(time.perf_counter())
        except AIAssistError as error:
            self._fail(error)
            return
        self._say("Asking the model")
        self._talk = self._assistant.start(talk, self._answered, self._fail)

    def cancel(self) -> None:
        """Drop what is being computed."""
        self._again = False
        if self._talk is not None:
            self._talk.cancel()
            self._talk = None

    def _conversation(self, began: float):
        target, clicks = self._require(), self._clicks()
        volume = self._assistant.studies.of(target.volume_node)
        prompts, base = self.marks.prompts(), self._base(clicks)
        if base is not None and base.version is None:
            prompts = replace(prompts, prior=base.mask)
        prompts.check(volume.geometry)
        conversations = self._assistant.conversations

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
            return annotation, _Answer(clicks, whole, annotation.version), time.perf_counter() - began

        return talk()

    def _base(self, clicks: int) -> _Answer | None:
        """The mask that the newest click corrects; None when the outline marks are to be answered afresh."""
        if not clicks:
            return None
        earlier = [answer for answer in self._answers if answer.clicks < clicks]
        return earlier[-1] if earlier else None

    def _sending(self, share: float) -> None:
        self._say(f"Sending the image: {share:.0%}")

    def _answered(self, outcome) -> None:
        self._last, answer, seconds = outcome
        self._answers = [a for a in self._answers if a.clicks < answer.clicks] + [answer]
        try:
            self._show(answer.mask)
            self._keep_draft(self.marks.prompts())
        except AIAssistError as error:
            self._fail(error)
            return
        self._assistant.answered(self._last, seconds)
        again, self._again = self._again, False
        self._say(self._describe(answer.mask))
        if again:
            self.ask()

    def _show(self, mask: MaskPatch) -> None:
        target = self._require()
        colour = segment_of(target.segmentation_node, target.segment_id).GetColor()
        self.preview.show(mask, target.volume_node, colour)

    def _describe(self, mask: MaskPatch) -> str:
        affine = self._assistant.studies.of(self.target.volume_node).geometry.affine
        millilitres = np.count_nonzero(mask.mask) * abs(np.linalg.det(affine[:3, :3])) / 1000
        return f"{millilitres:.0f} ml" if millilitres >= 100 else f"{millilitres:.2g} ml"

    def _fail(self, error: Exception) -> None:
        self._again = False
        if not isinstance(error, Cancelled):
            self._say(str(error), failed=True)

    def _say(self, text: str, failed: bool = False) -> None:
        self.text, self.failed = text, failed
        self._changed()

    # Accepting

    def accept(self, writer: SegmentWriter, save_state: Callable[[], None]) -> None:
        """Write the preview into the segment. `PromptError` when there is none.

        Parameters
        ----------
        writer : SegmentWriter
        save_state : callable
            Called before the change, so that the editor can undo it.
        """
        target = self._require()
        segment = segment_of(target.segmentation_node, target.segment_id)
        if self.preview.mask is None:
            raise PromptError("There is no preview to accept; mark the structure first.")
        before = read_mask(target.segmentation_node, target.segment_id, target.volume_node)
        save_state()
        writer.write(target.volume_node, target.segmentation_node, target.segment_id, before, self.preview.mask)
        segment.SetTag(PROMPTS_TAG, json.dumps(self.marks.prompts().to_json()))
        if self._last is not None:
            segment.SetTag(MODEL_TAG, f"{self._last.model} {self._last.model_version}")
        self.reset()

    def _require(self) -> Target:
        if self.target is None:
            raise PromptError("No segment is chosen; choose or add one first.")
        if self.target.volume_node.GetScene() is None or self.target.segmentation_node.GetScene() is None:
            self.cancel()
            raise PromptError("The volume or the segmentation was deleted; choose others.")
        return self.target


class _Ours:
    """While it lasts, changes of the marks are our own."""

    def __init__(self, session: PointsSession):
        self._session = session

    def __enter__(self):
        self._session._ours = True

    def __exit__(self, *_):
        self._session._ours = False


def tag_of(segment, name: str) -> str:
    """A tag of a segment; empty when it has none."""
    text = vtk.mutable("")
    return str(text) if segment.GetTag(name, text) else ""


def stored_prompts(segment, tag: str = PROMPTS_TAG) -> Prompts | None:
    """The prompts in a segment's tag; None when there are none or they are damaged."""
    try:
        return Prompts.from_json(json.loads(tag_of(segment, tag)))
    except ValueError:
        return None
