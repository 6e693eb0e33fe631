"""Conversations with the backend that go on while Slicer's event loop runs.

Python threads starve inside Slicer, so nothing here waits: a `Talk` advances when a reply comes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Generic, Protocol

from aiassist.client.conversations import Conversation, Outcome
from aiassist.errors import AIAssistError, Cancelled
from aiassist.protocol import Reply, Request


class Carrier(Protocol):
    """Brings requests to where they are answered."""

    def carry(self, request: Request, replied: Callable[[Reply | Exception], None]) -> Callable[[], None]:
        """Send a request; `replied` is called later with the reply or what went wrong. Returns what aborts it."""
        ...

    def later(self, function: Callable[[], None]) -> Callable[[], None]:
        """Call a function when the event loop comes round. Returns what prevents it."""
        ...


class Talk(Generic[Outcome]):
    """A conversation under way; begins at once.

    Parameters
    ----------
    conversation : generator
        Its pauses give Slicer's event loop a turn.
    carrier : Carrier
    done : callable
        Called with the outcome.
    failed : callable
        Called with the error instead. Neither is called after `cancel`.
    """

    def __init__(
        self,
        conversation: Conversation[Outcome],
        carrier: Carrier,
        done: Callable[[Outcome], None],
        failed: Callable[[Exception], None],
    ):
        self._conversation = conversation
        self._carrier = carrier
        self._done, self._failed = done, failed
        self._abort: Callable[[], None] = ignore
        self.active = True
        self._advance(lambda: next(conversation))

    def cancel(self) -> None:
        """Listen no longer; what is on its way is dropped."""
        if self.active:
            self.active = False
            self._abort()
            self._conversation.close()

    def abandon(self, error: Exception) -> None:
        """As `cancel`, but whoever asked is told why."""
        if self.active:
            self.cancel()
            self._failed(error)

    def _advance(self, step: Callable[[], Request | None]) -> None:
        try:
            asked = step()
        except StopIteration as end:
            self.active = False
            self._finish(end.value)
        except Exception as error:
            self.active = False
            if not isinstance(error, AIAssistError | Cancelled):
                logging.exception("AIAssist: a conversation with the backend failed")
            self._failed(error)
        else:
            self._ask(asked)

    def _finish(self, outcome: Outcome) -> None:
        try:
            self._done(outcome)
        except Exception as error:
            if not isinstance(error, AIAssistError):
                logging.exception("AIAssist: an answer of the backend could not be used")
            self._failed(error)

    def _ask(self, asked: Request | None) -> None:
        if asked is None:
            self._abort = self._carrier.later(lambda: self._advance(lambda: self._conversation.send(None)))
            return
        try:
            self._abort = self._carrier.carry(asked, self._heard)
        except AIAssistError as error:
            refused = error
            self._abort = self._carrier.later(lambda: self._heard(refused))

    def _heard(self, reply: Reply | Exception) -> None:
        if not self.active:
            return
        if isinstance(reply, Exception):
            self._advance(lambda: self._conversation.throw(reply))
        else:
            self._advance(lambda: self._conversation.send(reply))


def sentence(error: Exception) -> str:
    """What to tell a person of an error."""
    return str(error) if isinstance(error, AIAssistError) else f"{type(error).__name__}: {error}"


def ignore(*_said) -> None:
    """Nobody waits for it, or there is nothing to prevent."""
