"""Who works on which study, so that two people are not given the same one."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable

#: Seconds without a sign of a person after which the study is anybody's again.
PATIENCE = 4 * 3600


class Assignments:
    """The study that each person works on: the one they were given, fetched or saved labels of last.

    Kept in memory only: after a restart nobody has anything.
    """

    def __init__(self):
        self._last: dict[str, tuple[str, float]] = {}
        self._lock = threading.Lock()

    def take(self, person: str, study: str) -> None:
        """A person works on a study, and no more on the one before."""
        with self._lock:
            self._last[person] = study, time.monotonic()

    def take_first(self, person: str, studies: Iterable[str]) -> str | None:
        """Take the first of some studies that nobody else works on; None when there is none.

        Nobody else can be given it meanwhile.
        """
        with self._lock:
            others = self._others(person)
            study = next((study for study in studies if study not in others), None)
            if study is not None:
                self._last[person] = study, time.monotonic()
            return study

    def by_others(self, person: str) -> dict[str, str]:
        """By study, the name of the person other than this one who works on it."""
        with self._lock:
            return self._others(person)

    def _others(self, person: str) -> dict[str, str]:
        since = time.monotonic() - PATIENCE
        return {study: name for name, (study, at) in self._last.items() if at > since and name != person}
