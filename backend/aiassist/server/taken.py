"""Who works on which study, so that two people are not given the same one."""

from __future__ import annotations

import threading
import time

#: Seconds without a sign of a person after which the study is anybody's again.
PATIENCE = 4 * 3600


class Taken:
    """The study that each person works on: the one they fetched or saved labels of last.

    Kept in memory only: after a restart nobody has anything.
    """

    def __init__(self):
        self._last: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def take(self, person: str, study: str) -> None:
        """A person works on a study, and no more on the one before."""
        with self._lock:
            self._last[person] = study, time.monotonic()

    def by_others(self, person: str) -> dict[str, str]:
        """By study, the name of the person other than this one who works on it."""
        with self._lock:
            since = time.monotonic() - PATIENCE
            return {study: name for name, (study, at) in self._last.items() if at > since and name != person}
