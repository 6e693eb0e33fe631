"""A study on its way to the server's disk."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np

from aiassist.errors import UnknownStudyError, UploadError

#: Hash what arrives while another thread writes it.
_HASHING = ThreadPoolExecutor(2, thread_name_prefix="aiassist-hash")
#: Places to which an upload can be taken back: far more than there are in one body.
PLACES = 256


class OffsetError(UploadError):
    """A piece does not begin where the last one ended."""

    def __init__(self, received: int):
        self.received = received
        super().__init__(f"{received} bytes have arrived; send on from there.")


class Upload:
    """A study that arrives piece by piece in a file, hashed on the way.

    What is written and hashed has arrived, and nothing else: a piece that fails leaves the upload as it was.

    Parameters
    ----------
    study : str
        Its id, which the hash of everything must be.
    part : Path
        The file; what it holds already has arrived.
    due : int
        Bytes of the whole.
    digest : blake2b
        The hash before the first voxel.
    lock : lock
        Held while the study's files change.
    make_room : callable
        Given how many of its bytes there will be, before they are written.
    """

    def __init__(
        self,
        study: str,
        part: Path,
        due: int,
        digest: hashlib.blake2b,
        lock: threading.RLock,
        make_room: Callable[[int], None],
    ):
        self.study, self.due = study, due
        self._part, self._lock, self._make_room = part, lock, make_room
        #: Set when the study is whole, removed or begun anew; then nothing more can be added.
        self.over = False
        if size := part.stat().st_size:
            digest.update(np.memmap(part, np.uint8, mode="r")[:size])  # another process may have added to it
        #: How many bytes have arrived and the hash of all of them, at the ends of what was added, the latest last.
        self._arrived = deque([(size, digest)], PLACES)
        self.hear()

    def hear(self) -> None:
        """Somebody speaks of the upload."""
        self._heard = time.monotonic()

    @property
    def silence(self) -> float:
        """Seconds since somebody spoke of it."""
        return time.monotonic() - self._heard

    @property
    def received(self) -> int:
        """Bytes that have arrived."""
        return self._arrived[-1][0]

    @property
    def found(self) -> str:
        """The id of what has arrived."""
        return self._arrived[-1][1].hexdigest()

    def append(self, offset: int, pieces: Sequence[bytes]) -> int:
        """Add bytes, in one piece or several; returns the bytes that have arrived.

        Raises
        ------
        UnknownStudyError
            When the upload is over.
        OffsetError
            When they do not begin where the last ones ended.
        UploadError
            When they go beyond the end.
        """
        with self._lock:
            self.hear()
            received, digest = self._arrived[-1]
            if self.over:
                raise UnknownStudyError(f"No upload of the study {self.study} is under way; announce it first.")
            if offset != received:
                raise OffsetError(received)
            end = received + sum(map(len, pieces))
            if end > self.due:
                raise UploadError(f"The study has {self.due} bytes; this piece would make it {end}.")
            if end == received:
                return end
            self._make_room(end)
            digest = digest.copy()
            hashing = _HASHING.submit(_update, digest, pieces)
            try:
                self._write(received, pieces)
            except FileNotFoundError:
                raise UnknownStudyError(f"What arrived of the study {self.study} is gone; announce it first.") from None
            finally:
                hashing.result()
            self._arrived.append((end, digest))
            return end

    def _write(self, offset: int, pieces: Sequence[bytes]) -> None:
        try:
            with self._part.open("r+b", buffering=0) as file:
                file.seek(offset)
                for piece in pieces:
                    left = memoryview(piece)
                    while len(left):
                        left = left[file.write(left) :]
        except OSError:
            os.truncate(self._part, offset)  # a full disk: keep what was whole
            raise

    def rewind(self, size: int) -> None:
        """Forget what was added when more than so many bytes had arrived, unless the upload is over."""
        with self._lock:
            if self.over:
                return
            while self.received > size and len(self._arrived) > 1:
                self._arrived.pop()
            with suppress(FileNotFoundError):
                os.truncate(self._part, self.received)


def _update(digest: hashlib.blake2b, pieces: Sequence[bytes]) -> None:
    for piece in pieces:
        digest.update(piece)
