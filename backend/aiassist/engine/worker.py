"""One worker owns one device."""

from __future__ import annotations

import threading
from collections import Counter
from functools import cache

from threadpoolctl import ThreadpoolController

from aiassist.engine.job import Job, JobState, Turn
from aiassist.errors import AIAssistError, BusyError


class Worker:
    """Runs jobs one after the other; of one slot only the latest.

    The jobs of one sharer run in the order in which they came. Sharers take turns: who asks for one thing waits for at
    most one job of each other sharer, however many those asked for before. A job waits for all of an earlier `Turn`,
    also when it has begun.

    Parameters
    ----------
    name : str
        The device, "cpu" or "cuda:0".
    threaded : bool
        True: a thread of its own advances the jobs. False: whoever holds the worker calls `step`,
        as Slicer does from a timer, because Python threads starve inside Slicer.
    limit : int, optional
        Most jobs that may wait.
    share : int, optional
        Most jobs of one sharer that may wait.
    """

    def __init__(self, name: str, threaded: bool = True, limit: int | None = None, share: int | None = None):
        self.name = name
        self._limit, self._share = limit, share
        self._queue: list[Job] = []  # the first one is the next to take a step
        self._stepping: Job | None = None
        self._wake = threading.Condition()
        self._stopping = False
        self._thread = None
        if threaded:
            self._thread = threading.Thread(target=self._run, name=f"aiassist-{name}", daemon=True)
            self._thread.start()

    def add(self, job: Job) -> None:
        """Queue a job; the one before it in its slot gives way when it still waits, and is cancelled when it runs.

        `BusyError` when too many wait, of all or of this sharer, `AIAssistError` after `stop`, when nobody would run
        it; then the other job goes on.
        """
        with self._wake:
            if self._stopping:
                raise AIAssistError(f"The backend on {self.name} is closed; make a new one.")
            same = [other for other in self._queue if job.slot is not None and other.slot == job.slot]
            waiting = [other for other in same if other is not self._stepping and other.state is JobState.QUEUED]
            left = [other for other in self._queue if other not in waiting]
            count = sum(not other.is_cancelled for other in left)
            own = sum(other.sharer == job.sharer and not other.is_cancelled for other in left)
            if self._share is not None and own >= self._share:
                raise BusyError(f"{own} requests of yours wait for the {self.name} already; try again in a moment.")
            if self._limit is not None and count >= self._limit:
                raise BusyError(f"{count} requests wait for the {self.name} already; try again in a moment.")
            for other in same:
                other.cancel()
            self._queue = _in_turns([*left, job])
            self._wake.notify()
        for other in waiting:
            other.step()  # which ends it

    def cancel(self, job: Job) -> None:
        """Cancel a job; when it waits, it leaves the queue and ends now."""
        job.cancel()
        with self._wake:
            waits = job in self._queue and job is not self._stepping and job.state is JobState.QUEUED
            if waits:
                self._leave(job)
            else:
                self._queue = _in_turns(self._queue)
        if waits:
            job.step()  # which ends it

    def position(self, job: Job) -> int:
        """How many jobs come before this one; 0 when it is running or done."""
        with self._wake:
            return self._queue.index(job) if job in self._queue else 0

    def step(self) -> bool:
        """Do one piece of the first job; False when the queue is empty."""
        with self._wake:
            if not self._queue:
                return False
            job = self._stepping = self._queue[0]
        with _blas().limit(limits=1):
            goes_on = job.step()
        with self._wake:
            self._stepping = None
            if not goes_on:
                self._leave(job)
            return bool(self._queue)

    def _leave(self, job: Job) -> None:
        self._queue.remove(job)
        self._queue = _in_turns(self._queue)

    @property
    def threaded(self) -> bool:
        """Whether a thread of the worker's own advances the jobs."""
        return self._thread is not None

    def _run(self) -> None:
        while True:
            with self._wake:
                self._wake.wait_for(lambda: self._queue or self._stopping)
                if self._stopping and not self._queue:
                    return
            self.step()

    def stop(self) -> None:
        """Cancel all jobs and, when the running step has ended, stop."""
        with self._wake:
            self._stopping = True
            for job in self._queue:
                job.cancel()
            self._wake.notify_all()
        if self._thread is not None:
            self._thread.join()
        else:
            while self.step():
                pass


@cache
def _blas() -> ThreadpoolController:
    """What multiplies numpy's matrices, in all threads of the process.

    Those of a click are small: more threads gain nothing and, while they wait for each other, take the processor's
    cores from the network; on two cores a click took 1.6 times as long. Programs with several workers set
    ``OPENBLAS_NUM_THREADS`` instead, as the command line does: of two at a time the first that ends gives threads back.
    """
    return ThreadpoolController().select(user_api="blas")


def _in_turns(queue: list[Job]) -> list[Job]:
    """The jobs in the order in which they run, turn by turn: the next one of each sharer, then those after it.

    What was cancelled comes first, since it only ends; of the jobs of a later turn that which has begun, so that one is
    open.
    """
    before: Counter[tuple[str, Turn]] = Counter()
    keys: dict[Job, tuple] = {}
    for job in queue:
        taker = job.sharer, job.turn
        waits = job.turn is not Turn.FIRST and job.state is JobState.QUEUED
        keys[job] = (not job.is_cancelled, job.turn, waits, before[taker])
        before[taker] += 1
    return sorted(queue, key=keys.__getitem__)
