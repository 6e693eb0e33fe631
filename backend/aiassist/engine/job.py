"""One piece of work that can be watched, waited for and cancelled."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Generator
from copy import copy
from enum import Enum, IntEnum
from typing import Generic, TypeVar

from aiassist.errors import AIAssistError, Cancelled
from aiassist.segmenters.base import Step

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class JobState(Enum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Turn(IntEnum):
    """Whose jobs come first, and between the steps of the others: who waits for a mask, who has one that gets better,
    and who knows that it takes long."""

    FIRST = 0
    CLOSER = 1
    LONG = 2


class Job(Generic[Result]):
    """A generator of `Step` that somebody advances, and its outcome.

    It is queued, then running, then done, failed or cancelled for good. Whoever owns the device calls `step` until it
    returns False; others call `cancel` and `result` from any thread.

    Parameters
    ----------
    work : generator
        Yields a `Step` before each piece of work and returns the result.
    progress : callable, optional
        Called with each `Step`, on the thread that advances the job.
    slot : tuple, optional
        A newer job in the same slot takes its place; see `Worker.add`.
    seconds : dict, optional
        Where the seconds of each phase are written.
    sharer : str
        Whose turn it takes; see `Worker`.
    turn : Turn
        Those of an earlier turn come before it, and between its steps.
    """

    def __init__(
        self,
        work: Generator[Step, None, Result],
        progress: Callable[[Step], None] | None = None,
        slot: tuple[str, ...] | None = None,
        seconds: dict[str, float] | None = None,
        sharer: str = "",
        turn: Turn = Turn.FIRST,
    ):
        self.slot, self.sharer, self.turn = slot, sharer, turn
        self._work = work
        self._progress = progress
        self._finished = threading.Event()
        self._cancelled = threading.Event()
        self._result: Result | None = None
        self._error: BaseException | None = None
        self._phase: str | None = None
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] = []
        self.state = JobState.QUEUED
        self.last_step = Step("queued", 0.0)
        #: Seconds spent in each phase so far.
        self.seconds = {} if seconds is None else seconds

    def step(self) -> bool:
        """Do one piece of the work; False when there is nothing left to do."""
        if self._finished.is_set():
            return False
        if self._cancelled.is_set():
            try:
                self._work.close()
            except Exception:  # nobody waits for it, and whoever steps must not end
                log.exception("A job failed while it was cancelled.")
            self._end(JobState.CANCELLED, error=Cancelled("The work was cancelled."))
            return False
        self.state = JobState.RUNNING
        began = time.perf_counter()
        try:
            announced = next(self._work)
            self._count(began, announced.phase)
            self.last_step = announced
            if self._progress is not None:
                self._progress(announced)
        except StopIteration as end:
            self._count(began, None)
            self._end(JobState.DONE, result=end.value)
        except Cancelled as error:
            self._end(JobState.CANCELLED, error=error)
        except Exception as error:  # handed to whoever waits for the result
            if not isinstance(error, AIAssistError):
                log.exception("A job failed.")
            self._end(JobState.FAILED, error=error)
        return not self._finished.is_set()

    def _count(self, began: float, next_phase: str | None) -> None:
        """Note what a step took, and which phase comes next; time between steps is not its own."""
        if self._phase is not None:
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + time.perf_counter() - began
        self._phase = next_phase

    def _end(self, state: JobState, result: Result | None = None, error: BaseException | None = None) -> None:
        self._result, self._error, self.state = result, None if error is None else _bare(error), state
        with self._lock:
            self._finished.set()
        for callback in self._callbacks:
            callback()

    def cancel(self) -> None:
        """Ask the job to stop before its next step; a finished job is left alone."""
        self._cancelled.set()

    def when_finished(self, callback: Callable[[], None]) -> None:
        """Call `callback` once there is an outcome, on the thread that brings it; at once when there is one already."""
        with self._lock:
            if not self._finished.is_set():
                self._callbacks.append(callback)
                return
        callback()

    @property
    def is_cancelled(self) -> bool:
        """Whether somebody asked for it to stop."""
        return self._cancelled.is_set()

    @property
    def finished(self) -> bool:
        """Whether there is an outcome."""
        return self._finished.is_set()

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the outcome.

        Raises
        ------
        Cancelled
            When the job was cancelled or overtaken.
        TimeoutError
            When `timeout` seconds pass first.
        Exception
            What the work raised, without the frames that it came through; the log has those of unforeseen ones.
        """
        if not self._finished.wait(timeout):
            raise TimeoutError(f"The job was not done after {timeout} seconds.")
        if self._error is not None:
            raise _copy_of(self._error)
        return self._result


def _bare(error: BaseException) -> BaseException:
    """The error without its frames, whose variables hold images and arrays, and without those that led to it."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def _copy_of(error: BaseException) -> BaseException:
    """An error for one of those who wait: once raised it holds their frames, which the job is not to keep.

    The error itself, bare, where its class cannot be made anew.
    """
    try:
        mine = copy(error)
    except Exception:  # noqa: BLE001 - whatever a foreign class raises
        mine = None
    return mine if type(mine) is type(error) and str(mine) == str(error) else _bare(error)
