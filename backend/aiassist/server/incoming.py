"""The bodies of requests, which are held until they are answered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from starlette.exceptions import HTTPException

from aiassist.server.bodies import MASK_BYTES

#: Routes that write what comes to its place at once, and hold nothing of it.
PASSING = re.compile(r"/api/studies/[^/]+/voxels$")
#: Beginnings of routes to which images come in forms as files, which lie on the disk until the request is answered.
FORMS = "/session/|/datastore/|/infer/|/v1/"


class Incoming:
    """The bodies that came and are not answered yet.

    Parameters
    ----------
    memory : int
        Most bytes of one person in memory. A compressed body counts as what the largest may become.
    files : int
        The same of images that come as files, on the disk.
    """

    def __init__(self, memory: int, files: int):
        self._memory, self._files = memory, files
        self._held: Counter[tuple[str, bool]] = Counter()

    @contextmanager
    def counted(self, who: str, scope) -> Iterator[Callable[[int], None]]:
        """What is to be told the size of each piece of one person's body; when the block ends, it is held no longer.

        What it is told raises `HTTPException` 429 when that person has too much here.
        """
        path, headers, own, came = scope["path"], dict(scope["headers"]), 0, 0
        is_file = bool(re.match(FORMS, path)) and b"multipart/form-data" in headers.get(b"content-type", b"").lower()
        key, most = (who, is_file), self._files if is_file else self._memory
        least = MASK_BYTES if b"content-encoding" in headers else 0

        def count(size: int) -> None:
            nonlocal own, came
            if not size or PASSING.match(path):
                return
            came += size
            more = max(came, least) - own
            if self._held[key] + more > most:
                raise HTTPException(429, _too_much(self._held[key], most), {"retry-after": "1"})
            self._held[key] += more
            own += more

        try:
            yield count
        finally:
            self._held[key] -= own
            if not self._held[key]:
                del self._held[key]


def _too_much(held: int, most: int) -> str:
    return f"{held:,} bytes of requests of yours are not answered yet, of {most:,} at most; send this one again later."
