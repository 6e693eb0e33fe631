"""The jobs of a server's clients, by the ids that they chose."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from aiassist.engine import Job, JobState, LocalBackend
from aiassist.engine.backend import Answer, Request
from aiassist.engine.job import Result
from aiassist.errors import Cancelled
from aiassist.server.tokens import Person

#: Jobs that are remembered when nobody waits for them any more; their answers can be asked for once more.
KEPT = 64
#: Slots of which the newest turn is remembered.
SLOTS = 4096


@dataclass
class _Asked:
    job: Job
    waiting: int = 0


class Jobs:
    """Who waits for which job: from its first asking until its answer is forgotten.

    The job itself knows how it stands, the backend's worker when its turn comes. Here a repeated request finds its job
    again, and a job that nobody waits for any more is cancelled. The lock is held for moments only, so that `leave` may
    be called from an event loop.

    Parameters
    ----------
    backend : LocalBackend
    named : bool
        Whether people have names, so that they share the backend evenly; else clients do.
    """

    def __init__(self, backend: LocalBackend, named: bool = False):
        self._backend, self._named = backend, named
        self._asked: OrderedDict[tuple[str, str], _Asked] = OrderedDict()
        self._turns: OrderedDict[tuple[str, ...], int] = OrderedDict()
        self._lock = threading.Lock()

    def ask(
        self,
        person: Person,
        name: str,
        request: Request,
        then: Callable[[Answer], Result] | None = None,
        turn: int | None = None,
    ) -> Job[Answer | Result]:
        """The job of a request, which `leave` must follow; the same name again is the same job, unless that failed.

        Parameters
        ----------
        person : Person
            Who asks; jobs of others are not seen.
        name : str
            The job's id, chosen by the client.
        request : Request
            Overtakes older ones of this person only.
        then : callable, optional
            See `LocalBackend.submit`.
        turn : int, optional
            In which order the requests came. One that was held up until a newer one of its slot was asked is
            overtaken by that: `Cancelled`. None for elder protocols, which name no client.
        """
        key = person.name, name
        with self._lock:
            found = self._wait_for(key)
        if found is not None:
            return found
        request = replace(request, client=f"{person.name}/{request.client}")
        sharer = person.name if self._named or turn is None else request.client
        job = self._backend.prepare(request, then=then, sharer=sharer)  # reads the disk, so without the lock
        with self._lock:
            found = self._wait_for(key)
            if found is not None:  # asked twice at once
                return found
            self._take_turn(request.slot, turn)
            self._backend.worker.add(job)
            before = self._asked.get(key)
            self._asked[key] = _Asked(job, 1 if before is None else before.waiting + 1)
        return job

    def _wait_for(self, key: tuple[str, str]) -> Job | None:
        """The job that is known by a key, for which one more waits now; None when there is none, or it failed."""
        asked = self._asked.get(key)
        if asked is None or asked.job.state in (JobState.FAILED, JobState.CANCELLED):
            return None
        asked.waiting += 1
        return asked.job

    def _take_turn(self, slot: tuple[str, ...], turn: int | None) -> None:
        if turn is None:
            return
        if turn < self._turns.get(slot, 0):
            raise Cancelled("A newer request of the same client and structure overtook this one.")
        self._turns[slot] = turn
        self._turns.move_to_end(slot)
        while len(self._turns) > SLOTS:
            self._turns.popitem(last=False)

    def leave(self, person: Person, name: str, forget: bool = False) -> None:
        """Wait for a job no longer; when nobody else does, one that is not done is cancelled, and forgotten at once.

        A job that is done is remembered for a while, unless it is to be forgotten.
        """
        key = person.name, name
        with self._lock:
            asked = self._asked[key]
            asked.waiting -= 1
            if asked.waiting == 0 and (forget or not asked.job.finished):
                del self._asked[key]
                self.cancel(asked.job)
            elif asked.waiting == 0:
                self._asked.move_to_end(key)  # remembered from now on, however long ago it was asked for
            idle = [key for key, one in self._asked.items() if one.waiting == 0]
            for key in idle[: max(0, len(idle) - KEPT)]:
                del self._asked[key]

    def get(self, person: Person, name: str) -> Job | None:
        """A job of this person; None when it is not known, or no longer."""
        asked = self._asked.get((person.name, name))
        return asked.job if asked is not None else None

    def cancel(self, job: Job) -> None:
        """Stop a job; one that waits leaves the queue at once."""
        self._backend.worker.cancel(job)

    def position(self, job: Job) -> int:
        """How many jobs come before this one."""
        return self._backend.worker.position(job)
