"""One structure annotated by points: from the first click to the accepted segment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError, Cancelled, PromptError
from aiassist.imaging import MaskPatch
from AIAssistLib.answers import Answer, Answers, rounded, same, told
from AIAssistLib.asking import Asking, Outcome, Question
from AIAssistLib.drafts import Draft, draft_of, keep_draft, own
from AIAssistLib.geometry import transform, world_to_ijk
from AIAssistLib.marks import ENOUGH, NEGATIVE, POSITIVE, Marks
from AIAssistLib.preview import Preview
from AIAssistLib.segments import SegmentWriter, Target
from AIAssistLib.tags import (
    CLICKS,
    MODEL,
    PROMPTS,
    forget_maker,
    keep_prompts,
    note_study,
    prompts_of,
    set_tag,
    tag_of,
)
from AIAssistLib.talks import sentence


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
        self.marks = Marks(scene, self._observe_marks)
        self.preview = Preview(scene)
        self.target: Target | None = None
        #: What to tell the person, and whether it is an error.
        self.text, self.failed = "", False
        self.assistant = assistant
        self._scene, self._changed = scene, changed
        self._answers = Answers()
        self._state = (0, np.eye(4))
        self._asking = Asking(assistant, self._sending, self._answered, self._fail)
        self._observed: list[tuple[object, int]] = []
        self._ours = self._moved = self._is_held = False
        self._shown: Answer | None = None
        self._shown_of = None
        self._held: Answer | None = None
        #: IDs of segmentation and segment of which the text says what masking kept back; none when it says otherwise.
        self._warned: tuple[str, ...] = ()
        self._drafted = False
        self._adding = False

    # Beginning and ending

    def begin(self, target: Target) -> None:
        """Annotate a segment from now on; clicks correct the mask that it holds.

        Marks that were not accepted come back and are asked again; else those that made the mask come back, to be
        adjusted. Raises when the volume is unusable.
        """
        warning = self.text if self._warned not in ((), target.ids) else ""  # who goes on has to see it, too
        self.end()
        if self.preview.look == "hidden":  # another answer that nobody sees is accepted by mistake
            self.preview.set_look("fill")
        volume, mask = self.assistant.studies.of(target.volume_node), target.mask()
        draft = draft_of(target.segmentation_node, target.segment_id, volume)
        if mask.region.is_empty:
            forget_maker(target.segment)
        accepted = prompts_of(target.segment, volume)
        order = tag_of(target.segment, CLICKS)
        self._start(target, mask, draft or (Draft.of(accepted, order) if accepted is not None else Draft()))
        self._drafted = draft is not None
        if self._drafted and self._can_ask():
            self.ask()
        elif warning:
            self._say(warning, failed=True)

    def _start(self, target: Target, mask: MaskPatch, draft: Draft) -> None:
        self.target, self._state = target, target.state()
        own(target.segment)
        self.marks.follow(target.volume_node)
        with _Ours(self):
            self.marks.show(draft.marks, draft.ends)
        self._held = None if mask.region.is_empty else Answer(draft.held or 0, mask)
        anew = draft.held is None and self.marks.outlined
        self._answers.begin_with(None if anew else self._held)
        self._observe()
        self._say("")
        self._asking.prepare(target.volume_node)  # while the person looks for the organ

    def end(self) -> None:
        """Stop: marks and preview go, and come back with `begin`; the segment stays as it is."""
        self._asking.leave()
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        self._observed = []
        self._moved = self._is_held = False
        if self.target is not None:
            self.marks.clear()
        self.preview.clear()
        self._answers.begin_with(None)
        self._shown = self._shown_of = self._held = None  # they would keep the image in memory
        self.target = None

    def reset(self) -> None:
        """Remove marks and preview and begin anew; the segment stays as it is."""
        target = self.target
        if target is not None:
            with _Ours(self):
                self.marks.clear()
            self._keep_draft()
            self.end()
            self._start(target, target.mask(), Draft())

    def _keep_draft(self) -> None:
        """Marks that are not accepted yet are saved with the scene."""
        target, marks = self._require(), tuple(self.marks.places())
        if not marks:
            self._forget_draft()
            return
        draft = Draft(marks, self.marks.ends, self._answers.held)
        volume = self.assistant.studies.of(target.volume_node)
        keep_draft(target.segmentation_node, target.segment_id, draft, volume)
        self._drafted = True

    def _forget_draft(self) -> None:
        """There are no marks that are not accepted."""
        target = self._require()
        volume = self.assistant.studies.of(target.volume_node)
        keep_draft(target.segmentation_node, target.segment_id, None, volume)
        self._drafted = False

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited; not while one is there and a closer look is taken."""
        return self._asking.busy

    @property
    def looks_closer(self) -> bool:
        """Whether the preview is a quick model's, and the chosen one is still looking."""
        return self._asking.looks_closer

    @property
    def can_correct(self) -> bool:
        """Whether there is a mask that clicks would correct."""
        return bool(self._answers)

    def set_adding(self, adding: bool) -> None:
        """Whether a new outline is added to what the segment holds when it is accepted, or replaces it."""
        self._adding = adding
        if self.target is not None and self.preview.mask is not None:
            self._say(self._told())

    def next_look(self) -> None:
        """Draw the preview, if there is one, filled, as an outline, or not at all."""
        if self.preview.mask is not None:
            self.preview.next_look()
            self._say(self._told())

    def _adds(self) -> bool:
        """Whether the preview is a new outline that is to be added."""
        return self._adding and self._held is not None and self._answers.held is None

    # Marks

    def catch_up(self, keeps_outline: bool = False) -> None:
        """When a segment without new marks was changed meanwhile, as by undo: begin with what it holds now.

        With `keeps_outline` an outline that gave what is gone by now stays, to be asked for again.
        """
        target = self._require()
        if self._drafted or self.busy or target.is_as(self._state):
            return
        if not (keeps_outline and self.marks.outlined and target.mask().region.is_empty):
            self.begin(target)

    def add(self, role: str, world) -> None:
        """Put a mark at a place in the world; asks when the marks are enough. `PromptError` beyond the volume.

        The first mark of an outline takes the place of an outline of another kind, and of the clicks that correct it.
        """
        self._check_inside(world)
        outline = role in ENOUGH
        if outline and self.marks.count(*ENOUGH.keys() - {role}):
            with _Ours(self):
                self.marks.clear()
            self._begin_anew()
            self._show_nothing()
        with _Ours(self):
            self.marks.add(role, world)
        asks = self.marks.outlined if outline else self._can_ask()
        if asks and outline:
            self._answers.begin_with(None)
        self._keep_draft()
        if asks:
            self.ask()
        else:
            self._say("")

    def _check_inside(self, world) -> None:
        volume = self.assistant.studies.of(self._require().volume_node)
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
        self._mark_left()

    def _mark_left(self) -> None:
        """Show what the marks that are left gave, or ask for it."""
        last = self._answers.last
        if last is not None and last.clicks == self._clicks():
            self.cancel()
            self._show(last)
            if last.prompts is not None:
                self._look_closer(self._question(), last.model.rpartition(" ")[0])
        elif self._can_ask():
            self.ask()
        else:
            self._show_nothing()
        if self.busy or self.preview.mask is not None or not self._are_accepted():
            self._keep_draft()
        elif self._drafted:
            self._forget_draft()

    def _are_accepted(self) -> bool:
        """Whether all marks are among those that made what the segment holds."""
        volume = self.assistant.studies.of(self.target.volume_node)
        accepted = prompts_of(self.target.segment, volume)
        places = Draft.of(accepted).marks if accepted is not None else ()
        return all(any(role == r and np.allclose(ijk, p) for r, p in places) for role, ijk in self.marks.places())

    def _show_nothing(self) -> None:
        self.cancel()
        self.preview.clear()
        if not self._answers:
            self._begin_anew()
        self._say("")

    def _observe(self) -> None:
        volume = self.target.volume_node
        observed = (
            (volume, slicer.vtkMRMLTransformableNode.TransformModifiedEvent, self._volume_moves),
            (volume, vtk.vtkCommand.ModifiedEvent, self._volume_changes),
            (self._scene, slicer.vtkMRMLScene.StartSaveEvent, self._scene_is_saved),
        )
        self._observed = [(one, one.AddObserver(event, function)) for one, event, function in observed]
        self._observe_marks()

    def _observe_marks(self) -> None:
        """Observe the node of the marks, also when it was removed and another one made."""
        if not self._observed:  # the session has not begun
            return
        node, markups = self.marks.node, slicer.vtkMRMLMarkupsNode
        observed = (
            (markups.PointModifiedEvent, self._mark_moves),
            (markups.PointRemovedEvent, self._mark_gone),
            (markups.PointStartInteractionEvent, self._mark_held),
            (markups.PointEndInteractionEvent, self._mark_dropped),
        )
        self._observed += [(node, node.AddObserver(event, function)) for event, function in observed]

    def _scene_is_saved(self, *_) -> None:
        self.preview.undim()

    def _volume_changes(self, *_) -> None:
        """It may be given another place in itself, as by Center volume."""
        if not self.marks.lie_on(self.target.volume_node):
            self._volume_moves()

    def _volume_moves(self, *_) -> None:
        """Its transform is another one, was changed or hardened: marks and preview stay in their voxels."""
        with _Ours(self):
            self.marks.follow(self.target.volume_node)
        try:
            if self.preview.mask is not None:
                self._show(self._shown)
            elif self._drafted:
                self._keep_draft()
        except AIAssistError as error:
            self._fail(error)

    @vtk.calldata_type(vtk.VTK_INT)
    def _mark_moves(self, _node, _event, number: int = 0) -> None:  # without a number all moved
        if not self._ours:
            self._moved = True
            self._forget(number, self.marks.roles())
            if self._can_ask():
                self.ask(dragging=True)

    def _mark_held(self, *_) -> None:
        self._is_held = True

    def _mark_dropped(self, *_) -> None:
        moved, self._moved, self._is_held = self._moved, False, False
        if self._ours:
            return
        if not moved:
            self._mark_touched()
            return
        self._keep_draft()
        if self._can_ask() and not self.busy:
            self.ask()

    def _mark_touched(self) -> None:
        """A mark that was held and not moved says nothing new; what waited for it to be let go is asked."""
        if self.preview.mask is None and self.marks.outlined and not self.target.is_as(self._state):
            self.ask()  # what they gave was undone
        elif self.preview.mask is None:
            if not self.busy:
                self._say(_("That mark was there already; zoom in to mark a place so near to it."))
        elif not self.busy and not self.looks_closer and self._shown.prompts is not None:
            self._look_closer(self._question(), self._shown.model.rpartition(" ")[0])

    def _mark_gone(self, *_) -> None:
        if not self._ours:
            self.marks.unsettle()
            self._begin_anew()
            self._mark_left()

    def _forget(self, number: int, roles: list[str]) -> None:
        """Forget the answers that the mark of this number had a part in; clicks go on correcting what was accepted."""
        if 0 <= number < len(roles) and roles[number] in ENOUGH:
            self._begin_anew()
            return
        corrects = self._answers.held is not None
        self._answers.keep(sum(role in (POSITIVE, NEGATIVE) for role in roles[:number]))
        if corrects and not self._answers:
            self._answers.begin_with(replace(self._held, clicks=0))

    def _begin_anew(self) -> None:
        """Forget all answers; without an outline clicks correct what the segment holds."""
        held = self._held
        if held is not None and held.clicks > self._clicks():
            held = replace(held, clicks=0)
        self._answers.begin_with(None if self.marks.outlined else held)

    def _clicks(self) -> int:
        return self.marks.count(POSITIVE, NEGATIVE)

    def _can_ask(self) -> bool:
        return self.marks.outlined or self.marks.count(POSITIVE) > 0 or bool(self._answers and self._clicks())

    # Asking

    def run(self) -> None:
        """Ask with the marks as they are: fewer than six extreme points are an outline from now on."""
        self._require()
        if self.marks.settle():
            self._answers.begin_with(None)
            self._keep_draft()
        self.ask()

    def ask(self, dragging: bool = False) -> None:
        """Ask the backend for the mask of the marks as they are."""
        self._require()
        if self.busy and dragging:
            self._asking.outdate()
            return
        self.cancel()
        try:
            self._look_again()
            question = self._question()
        except AIAssistError as error:
            self._fail(error)
            return
        self._say(_("Asking the model"))
        self._asking.start(question)

    def cancel(self) -> None:
        """Drop what is being computed."""
        self._asking.cancel()

    def _look_again(self) -> None:
        """When somebody changed the segment, as undo does, or moved it, clicks correct what it holds now."""
        if not self.target.is_as(self._state):
            mask, self._state = self.target.mask(), self.target.state()
            obeyed = self._answers.held
            if obeyed is None:
                obeyed = self._held.clicks if self._held is not None else 0
            self._held = None if mask.region.is_empty else Answer(obeyed, mask)
            self._answers.begin_with(self._held)

    def _question(self) -> Question:
        """What the marks ask as they are; `PromptError` when they cannot."""
        target, clicks = self._require(), self._clicks()
        volume = self.assistant.studies.of(target.volume_node)
        if self._asking.is_new_to(volume):
            self._answers.unknown()
        marks, base = self.marks.prompts(), self._answers.base(clicks)
        # What the segment holds obeys the clicks before it, or was changed by hand since: they are not asked again.
        news = marks if base is None else self.marks.prompts(self._answers.held or 0)
        if base is not None and base.version is None:
            news = replace(news, prior=base.mask)
        news.check(volume.geometry)
        return Question(volume, target.segment_id, marks, news, base, clicks)

    def _sending(self, share: float) -> None:
        self._say(_("Sending the image: {share}").format(share=f"{share:.0%}"))

    def _answered(self, outcome: Outcome, is_stale: bool) -> None:
        if self.assistant.studies.of(self._require().volume_node) is not outcome.question.volume:
            self._begin_anew()  # the image changed meanwhile
            self.ask()
            return
        self._answers.add(outcome.answer)
        self._show(outcome.answer)
        self.assistant.answered(outcome.annotation, outcome.seconds)
        if is_stale:
            self.ask()
        elif not self._is_held:
            self._look_closer(outcome.question, outcome.annotation.model)

    def _look_closer(self, question: Question, model: str) -> None:
        """Ask the chosen model what its quick one answered."""
        self._asking.look_closer(question, model)
        if self.looks_closer:
            self._say(self._told())

    def _show(self, answer: Answer) -> None:
        target = self._require()
        self._shown, self._shown_of = answer, self.assistant.studies.of(target.volume_node)
        if answer.prompts is None:  # what the segment holds: nothing to accept
            self._show_nothing()
            return
        self.preview.show(answer.mask, target.volume_node, target.segmentation_node, target.segment_id, answer.change)
        self._keep_draft()
        self._say(self._told())

    def _told(self) -> str:
        held = self._held.mask if self._held is not None else None
        text = told(self._shown, self._shown_of.geometry, held, self._adds())
        text = _("{text}; hidden (H shows it)").format(text=text) if self.preview.look == "hidden" else text
        return _("{text}; looking closer").format(text=text) if self.looks_closer else text

    def _fail(self, error: Exception) -> None:
        if not isinstance(error, Cancelled):
            self._say(sentence(error), failed=True)
        elif self.preview.mask is not None:  # what was awaited is not any more
            self._say(self._told())

    def _say(self, text: str, failed: bool = False) -> None:
        self.text, self.failed, self._warned = text, failed, ()
        self._changed()

    # Accepting

    def accept(self, writer: SegmentWriter, save_state: Callable[[], None]) -> None:
        """Write the preview into the segment. The marks stay, and from then on clicks correct what it holds.

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
        volume = self.assistant.studies.of(target.volume_node)
        if not target.is_as(self._state) or volume is not self._shown_of:
            what = "segment" if volume is self._shown_of else "image"
            self.ask()
            raise PromptError(f"The {what} was changed meanwhile, so the model is asked again; accept its new answer.")
        if not self._shows_the_marks():
            raise PromptError("The preview is not of the marks as they are; press Return to ask with them.")
        save_state()
        before, after, adds = target.mask(), self.preview.mask, self._adds()
        if adds:
            region = before.region.union(after.region)
            after = MaskPatch(region, before.within(region) | after.within(region))
        try:
            all_of_it, kept = writer.write(
                target.volume_node, target.segmentation_node, target.segment_id, before, after
            )
        finally:
            self._state = target.state()
        if adds:  # no points made all of it
            segment.RemoveTag(PROMPTS)
            set_tag(segment, CLICKS, "")
        else:
            keep_prompts(segment, self._shown.prompts, volume, self.marks.click_order())
        segment.SetTag(MODEL, self._shown.model)
        note_study(target.segmentation_node, volume)
        keep_draft(target.segmentation_node, target.segment_id, None, volume)
        self.begin(target)
        done = rounded(all_of_it - kept)
        if done != rounded(all_of_it):
            text = _(
                "Slicer's masking settings let only {done} of {all} ml change in {name}; look at Masking in the editor."
            )
            self._say(text.format(done=done, all=rounded(all_of_it), name=segment.GetName()), failed=True)
            self._warned = target.ids

    def _shows_the_marks(self) -> bool:
        try:
            return same(self.marks.prompts(), self._shown.prompts)
        except PromptError:  # of a single extreme point
            return False

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
