"""Uploaded studies on the server's disk: whole ones, and those still arriving."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from aiassist.errors import AIAssistError, UnknownStudyError, UploadError
from aiassist.files import sync, whole_file
from aiassist.imaging import Volume
from aiassist.protocol.messages import study_bytes, volume_from

#: What an id may look like; nothing else ever becomes part of a path.
STUDY_ID = re.compile(r"[0-9a-f]{32}")


class OffsetError(UploadError):
    """A piece does not begin where the last one ended."""

    def __init__(self, received: int):
        self.received = received
        super().__init__(f"{received} bytes have arrived; send on from there.")


class Spool:
    """A folder of studies as raw voxels, by id.

    A study arrives piece by piece in ``ID.part`` and is named ``ID.raw`` when its hash is right, so it
    is there whole or not at all, whenever the process is killed; ``ID.json`` says its shape.

    Parameters
    ----------
    folder : Path
        Made when missing.
    limit : int
        Bytes to keep; beyond it the studies used least recently go.
    """

    def __init__(self, folder: Path, limit: int):
        self.folder, self.limit = Path(folder), limit
        self.folder.mkdir(parents=True, exist_ok=True)
        self._locks: dict[str, threading.Lock] = {}
        self._lock = threading.Lock()

    def __contains__(self, study: str) -> bool:
        return self._path(study, "raw").exists()

    def lock(self, study: str) -> threading.Lock:
        """Held while a study's files change."""
        with self._lock:
            return self._locks.setdefault(study, threading.Lock())

    def announce(self, study: str, data: Mapping) -> int:
        """Begin an upload, or find the one that broke off; returns the bytes that arrived. Call with the lock held.

        `UploadError` when the study is too large for the spool.
        """
        due = study_bytes(data)
        if due > self.limit:
            raise UploadError(f"The study has {due:,} bytes; this server keeps {self.limit:,} at most.")
        part = self._path(study, "part")
        if part.exists() and self._said(study) == data:
            return part.stat().st_size
        self._make_room(due)
        with whole_file(self._path(study, "json")) as temporary:
            temporary.write_text(json.dumps(data), encoding="utf8")
        part.write_bytes(b"")
        return 0

    def append(self, study: str, offset: int, piece: bytes) -> int:
        """Add a piece; returns the bytes that arrived so far. Call with the lock held.

        Raises
        ------
        UnknownStudyError
            When the upload was never announced.
        OffsetError
            When the piece does not begin where the last one ended.
        UploadError
            When it goes beyond the end.
        """
        part = self._path(study, "part")
        if not part.exists():
            raise UnknownStudyError(f"No upload of the study {study} has begun; announce it first.")
        received, due = part.stat().st_size, study_bytes(self._said(study))
        if offset != received:
            raise OffsetError(received)
        if received + len(piece) > due:
            raise UploadError(f"The study has {due} bytes; this piece would make it {received + len(piece)}.")
        with part.open("ab") as file:
            try:
                file.write(piece)
            except OSError:
                file.truncate(received)  # a full disk: keep what was whole
                raise
        return received + len(piece)

    def finish(self, study: str) -> Volume | None:
        """The volume, when all of it has arrived; None before. Call with the lock held.

        `UploadError` when the voxels are not those of the id; they are removed then.
        """
        part, data = self._path(study, "part"), self._said(study)
        if part.stat().st_size < study_bytes(data):
            return None
        try:
            volume = volume_from(data, np.fromfile(part, np.uint8))
            right = volume.study_id == study
        except (AIAssistError, ValueError, TypeError) as error:
            self.remove(study)
            raise UploadError(f"The study {study} cannot be used: {error}") from error
        if not right:
            self.remove(study)
            raise UploadError(f"What arrived is the study {volume.study_id}, not {study}; send it again.")
        sync(part)
        part.replace(self._path(study, "raw"))
        sync(self.folder)
        return volume

    def received(self, study: str) -> int | None:
        """Bytes that have arrived of an upload; None when none is under way."""
        part = self._path(study, "part")
        return part.stat().st_size if part.exists() else None

    def load(self, study: str) -> Volume:
        """The volume of a whole study; `UnknownStudyError` when it is not here."""
        path = self._path(study, "raw")
        try:
            os.utime(path)  # it was used
            return volume_from(self._said(study), np.fromfile(path, np.uint8))
        except FileNotFoundError:
            raise UnknownStudyError(f"The study {study} is not open here; open it first.") from None

    def remove(self, study: str) -> None:
        """Forget a study, whole or not."""
        for kind in ("raw", "part", "json"):
            with suppress(FileNotFoundError):
                self._path(study, kind).unlink()

    def _make_room(self, need: int) -> None:
        files = [path for path in self.folder.iterdir() if path.suffix in (".raw", ".part")]
        files.sort(key=lambda path: path.stat().st_mtime)
        held = sum(path.stat().st_size for path in files)
        for path in files:
            if held + need <= self.limit:
                break
            held -= path.stat().st_size
            self.remove(path.stem)

    def _said(self, study: str) -> dict:
        try:
            return json.loads(self._path(study, "json").read_text(encoding="utf8"))
        except (FileNotFoundError, ValueError):
            raise UnknownStudyError(f"The study {study} is not open here; open it first.") from None

    def _path(self, study: str, kind: str) -> Path:
        if not STUDY_ID.fullmatch(study):
            raise UnknownStudyError(f"{study[:40]!r} is no study's id; ids have 32 hexadecimal digits.")
        return self.folder / f"{study}.{kind}"
