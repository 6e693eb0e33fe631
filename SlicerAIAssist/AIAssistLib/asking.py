"""Asking the backend for the mask of a segment's marks: one question at a time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from aiassist.engine.backend import AnnotateRequest, Annotation
from aiassist.errors import Cancelled, UnknownMaskError
from aiassist.imaging import Volume
from aiassist.prompts import Prompts
from AIAssistLib.answers import Answer, change
from AIAssistLib.studies import opened
from AIAssistLib.talks import Conversation, Talk


@dataclass(frozen=True)
class Question:
    """All marks of a segment, and of them what is asked.

    ``base`` is the answer that the clicks correct, and ``news`` what was marked since, with the base's mask where the
    backend does not know it; None and all marks where the outline is to be answered afresh. ``clicks`` is how many
    clicks there are.
    """

    volume: Volume
    segment_id: str
    marks: Prompts
    news: Prompts
    base: Answer | None
    clicks: int
    began: float = field(default_factory=time.perf_counter)

    def put(self, conversations, model: str | None, sending: Callable[[float], None]) -> Conversation[Outcome]:
        """Have it answered; `sending` is told how far the image is on its way."""
        base, news = self.base, self.news
        study = yield from opened(conversations, self.volume, sending)
        version = base.version if base is not None else None
        request = AnnotateRequest(study=study, prompts=news, base=version, structure=self.segment_id, model=model)
        try:
            annotation = yield from conversations.annotate(request, uuid.uuid4().hex)
        except UnknownMaskError:
            if base is None:
                raise
            again = replace(request, base=None, prompts=replace(news, prior=base.mask))
            annotation = yield from conversations.annotate(again, uuid.uuid4().hex)
        return Outcome(self, annotation, self._answer(annotation), time.perf_counter() - self.began)

    def _answer(self, annotation: Annotation) -> Answer:
        patch, base = annotation.patch, self.base
        whole = patch.over(base.mask if base is not None else None)
        changed = change(patch, base.mask) if base is not None else None
        model = f"{annotation.model} {annotation.model_version}"
        return Answer(self.clicks, whole, annotation.version, self.marks, model, changed)


@dataclass(frozen=True)
class Outcome:
    """An answer, what it is the answer to, and how many seconds it took."""

    question: Question
    annotation: Annotation
    answer: Answer
    seconds: float


class Asking:
    """Asks, and drops what is being answered when there is something newer to ask.

    Where the chosen model has a quick one, an outline is asked of that first, and then of the chosen one.

    Parameters
    ----------
    assistant : AIAssistLib.assistant.Assistant
    sending : callable
        Called with the share of the image that is there, while it travels.
    answered : callable
        Called with an `Outcome`.
    failed : callable
        Called with the error instead.
    """

    def __init__(self, assistant, sending, answered, failed):
        self._assistant = assistant
        self._sending, self._answered, self._failed = sending, answered, failed
        self._talk: Talk | None = None
        self._preparing: Talk | None = None
        self._is_stale = self._is_closer = False
        self._asked_of: tuple = (None, None)

    @property
    def busy(self) -> bool:
        """Whether an answer is awaited, and none is there to be accepted."""
        return self._is_asking and not self._is_closer

    @property
    def looks_closer(self) -> bool:
        """Whether there is an answer, and a better one is awaited."""
        return self._is_asking and self._is_closer

    @property
    def _is_asking(self) -> bool:
        return self._talk is not None and self._talk.active

    def prepare(self, volume_node) -> None:
        """Have the image opened before the first question."""
        self._preparing = self._assistant.prepare(volume_node)
        self._assistant.know_models()

    def is_new_to(self, volume: Volume) -> bool:
        """Whether the next question about a volume is the first one, or the first after another's or elsewhere."""
        conversations = self._assistant.conversations
        is_new = conversations is not self._asked_of[0] or volume is not self._asked_of[1]
        self._asked_of = (conversations, volume)
        return is_new

    def start(self, question: Question) -> None:
        """Ask."""
        quick = self._assistant.quick if question.base is None else ""
        self._put(question, quick or self._assistant.model)

    def look_closer(self, question: Question, model: str) -> None:
        """Ask the chosen model what another answered; nothing unless that is its quick one."""
        if model == self._assistant.quick and question.base is None:
            self._put(replace(question, began=time.perf_counter()), self._assistant.model, is_closer=True)

    def _put(self, question: Question, model: str | None, is_closer: bool = False) -> None:
        self._is_closer = is_closer
        talk = question.put(self._assistant.conversations, model, self._sending)
        self._talk = self._assistant.start(talk, self._done, self._fail)

    def outdate(self) -> None:
        """A mark is being dragged on: the awaited answer is of use all the same, and then it is asked again."""
        self._is_stale = True

    def cancel(self) -> None:
        """Drop what is being answered."""
        self._is_stale = False
        for talk in (self._talk, self._preparing):  # whoever asks goes on where the preparing stopped
            if talk is not None:
                talk.cancel()
        self._talk = self._preparing = None

    def leave(self) -> None:
        """As `cancel`, and nothing is known of what was asked."""
        self.cancel()
        self._asked_of = (None, None)

    def _done(self, outcome: Outcome) -> None:
        if self._is_closer and outcome.annotation.model != self._assistant.model:
            self._failed(Cancelled("Another model was chosen meanwhile."))
            return
        is_stale, self._is_stale = self._is_stale, False
        self._answered(outcome, is_stale)

    def _fail(self, error: Exception) -> None:
        self._is_stale = False
        self._failed(error)
