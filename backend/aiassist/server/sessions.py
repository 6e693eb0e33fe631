"""Sessions of AIAA and MONAI Label clients: an image that was sent once, by an id that expires."""

from __future__ import annotations

import secrets
import threading
import time
from collections import Counter, OrderedDict
from dataclasses import dataclass, replace

from aiassist.errors import AIAssistError
from aiassist.server.tokens import Person

#: Seconds that a session lives when the client does not say, and at most.
USUAL, LONGEST = 3600, 86_400
#: Sessions of all people together; beyond it, of who has most, the one that was used longest ago goes.
MOST = 1000


class SessionExpired(AIAssistError):
    """The session is over, or never was."""


@dataclass(frozen=True)
class Session:
    """An open study under another name."""

    id: str
    study: str
    person: str
    lives: int
    expires: float


class Sessions:
    """All sessions; each belongs to the person who made it."""

    def __init__(self, clock=time.time):
        self._clock = clock
        self._open: OrderedDict[str, Session] = OrderedDict()  # the one that was used last is the last
        self._lock = threading.Lock()

    def make(self, study: str, person: Person, seconds: int) -> Session:
        """A new session that lives for some seconds since its last use."""
        now = self._clock()
        lives = min(seconds, LONGEST) if seconds > 0 else USUAL
        session = Session(secrets.token_urlsafe(16), study, person.name, lives, now + lives)
        with self._lock:
            self._open = OrderedDict((k, s) for k, s in self._open.items() if s.expires > now)
            if len(self._open) >= MOST:
                self._close_one()
            self._open[session.id] = session
        return session

    def _close_one(self) -> None:
        has = Counter(session.person for session in self._open.values())
        del self._open[max(self._open, key=lambda name: has[self._open[name].person])]

    def get(self, name: str, person: Person) -> Session:
        """A session of this person, used now; `SessionExpired` when there is none, or no longer."""
        now = self._clock()
        with self._lock:
            session = self._open.get(name)
            if session is None or session.expires <= now or session.person != person.name:
                raise SessionExpired(f"The session {name[:40]} is over; send the image again.")
            self._open[name] = session = replace(session, expires=now + session.lives)
            self._open.move_to_end(name)
        return session

    def end(self, name: str, person: Person) -> None:
        """Close a session."""
        session = self.get(name, person)
        with self._lock:
            self._open.pop(session.id, None)
