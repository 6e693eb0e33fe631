"""Uploaded studies on the server's disk: whole ones, and those still arriving."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np

from aiassist.errors import UnknownStudyError, UploadError
from aiassist.files import whole_file
from aiassist.imaging import DicomSeries, Volume
from aiassist.imaging.volume import study_digest
from aiassist.protocol.messages import geometry_from, study_bytes, study_to_json, volume_from, voxels_as_bytes

#: What an id may look like; nothing else ever becomes part of a path.
STUDY_ID = re.compile(r"[0-9a-f]{32}")
#: Seconds after which the DICOM headers of a study that is not here any more are removed.
STALE = 24 * 3600


class OffsetError(UploadError):
    """A piece does not begin where the last one ended."""

    def __init__(self, received: int):
        self.received = received
        super().__init__(f"{received} bytes have arrived; send on from there.")


class Spool:
    """A folder of studies as raw voxels, by id.

    A study arrives piece by piece in ``ID.part``, is hashed on the way, and is named ``ID.raw`` when the
    hash is right, so it is there whole or not at all, whenever the process is killed; ``ID.json`` says its
    shape, ``ID.dicom`` holds its DICOM headers, if it has any. After a power cut a file may hold less than it says:
    what this process did not see arrive is hashed again when it is first read.

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
        self._digests: dict[str, hashlib.blake2b] = {}
        self._due: dict[str, int] = {}
        self._trusted: set[str] = set()
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

        `UploadError` when the study cannot be one, or is too large for the spool.
        """
        due, digest = study_bytes(data), study_digest(geometry_from(data), np.dtype(data["dtype"]))
        if due > self.limit:
            raise UploadError(f"The study has {due:,} bytes; this server keeps {self.limit:,} at most.")
        part = self._path(study, "part")
        if part.exists() and self._begun_as(study, data):
            if study not in self._digests:  # begun before this process
                digest.update(np.memmap(part, np.uint8, mode="r") if part.stat().st_size else b"")
                self._digests[study] = digest
            return part.stat().st_size
        self._make_room(study, due)
        self._path(study, "json").write_text(json.dumps(data), encoding="utf8")
        part.write_bytes(b"")
        self._digests[study] = digest
        return 0

    def _begun_as(self, study: str, data: Mapping) -> bool:
        try:
            return self._said(study) == data
        except UnknownStudyError:  # its header was lost with the power
            return False

    def append(self, study: str, offset: int, piece: bytes | memoryview) -> int:
        """Add a piece; returns the bytes that arrived so far. Call with the lock held.

        Raises
        ------
        UnknownStudyError
            When the upload was not announced to this process.
        OffsetError
            When the piece does not begin where the last one ended.
        UploadError
            When it goes beyond the end.
        """
        part = self._path(study, "part")
        if study not in self._digests or not part.exists():
            raise UnknownStudyError(f"No upload of the study {study} has begun; announce it first.")
        received, due = part.stat().st_size, self._due.get(study) or study_bytes(self._said(study))
        if offset != received:
            raise OffsetError(received)
        if received + len(piece) > due:
            raise UploadError(f"The study has {due} bytes; this piece would make it {received + len(piece)}.")
        try:
            with part.open("ab", buffering=0) as file:
                left = memoryview(piece)
                while len(left):
                    left = left[file.write(left) :]
        except OSError:
            os.truncate(part, received)  # a full disk: keep what was whole
            raise
        self._digests[study].update(piece)
        return received + len(piece)

    def mark(self, study: str):
        """Where an upload stands, for `rewind`. Call with the lock held."""
        digest = self._digests.get(study)
        return (digest, digest.copy(), self.received(study)) if digest is not None else None

    def rewind(self, study: str, mark) -> None:
        """Forget what came after a mark, unless the upload was begun anew since. Call with the lock held."""
        if mark is not None and self._digests.get(study) is mark[0]:
            os.truncate(self._path(study, "part"), mark[2])
            self._digests[study] = mark[1]

    def finish(self, study: str) -> Volume | None:
        """The volume, when all of it has arrived; None before. Call with the lock held.

        `UploadError` when the voxels are not those of the id; they are removed then.
        """
        part, data = self._path(study, "part"), self._said(study)
        if part.stat().st_size < study_bytes(data):
            return None
        found = self._digests.pop(study).hexdigest()
        if found != study:
            self.remove(study)
            raise UploadError(f"What arrived is the study {found}, not {study}; send it again.")
        part.replace(self._path(study, "raw"))
        self._trusted.add(study)
        return self.load(study)

    def put(self, volume: Volume) -> None:
        """Keep a volume that came some other way. Call with the lock held."""
        study, data = volume.study_id, study_to_json(volume)
        self.remove(study)
        self._make_room(study, study_bytes(data))
        self._path(study, "json").write_text(json.dumps(data), encoding="utf8")
        part = self._path(study, "part")
        with part.open("wb") as file:
            file.write(voxels_as_bytes(volume))
        part.replace(self._path(study, "raw"))
        self._trusted.add(study)
        if volume.dicom is not None:
            self.keep_series(study, volume.dicom)

    def series(self, study: str) -> DicomSeries | None:
        """The DICOM headers of a study; None when it came without."""
        try:
            return DicomSeries.from_bytes(self._path(study, "dicom").read_bytes())
        except FileNotFoundError:
            return None

    def keep_series(self, study: str, series: DicomSeries) -> None:
        """Keep the DICOM headers of a study. Call with the lock held."""
        with whole_file(self._path(study, "dicom")) as temporary:
            temporary.write_bytes(series.to_bytes())

    def drop_series(self, study: str) -> None:
        """Forget the DICOM headers of a study. Call with the lock held."""
        self._path(study, "dicom").unlink(missing_ok=True)

    def received(self, study: str) -> int | None:
        """Bytes that have arrived of an upload; None when none is under way."""
        part = self._path(study, "part")
        return part.stat().st_size if part.exists() else None

    def load(self, study: str) -> Volume:
        """The volume of a whole study, mapped from its file; `UnknownStudyError` when it is not here, or damaged."""
        path = self._path(study, "raw")
        try:
            os.utime(path)  # it was used
            volume = volume_from(self._said(study), np.memmap(path, np.uint8, mode="r"))
        except FileNotFoundError:
            raise UnknownStudyError(f"The study {study} is not open here; open it first.") from None
        except ValueError:  # cut short
            volume = None
        if volume is None or (study not in self._trusted and volume.study_id != study):
            self.remove(study)
            raise UnknownStudyError(f"The study {study} was damaged on the server's disk; open it again.")
        self._trusted.add(study)
        vars(volume)["study_id"] = study  # known, so not hashed again
        return volume

    def remove(self, study: str) -> None:
        """Forget a study, whole or not, with its DICOM headers."""
        self._remove_voxels(study)
        self.drop_series(study)

    def _remove_voxels(self, study: str) -> None:
        self._digests.pop(study, None)
        self._trusted.discard(study)
        for kind in ("raw", "part", "json"):
            with suppress(FileNotFoundError, PermissionError):  # Windows keeps a file that is still mapped
                self._path(study, kind).unlink()

    def _make_room(self, study: str, need: int) -> None:
        """Remove what was used longest ago, but nothing that is arriving, until there is room for `need` bytes."""
        with self._lock:
            self._due = {s: due for s, due in self._due.items() if s in self._digests}
            self._due[study] = need
            files = [(entry.stat(), Path(entry.path)) for entry in self._entries()]
            held = sum(self._due.values())
            held += sum(stat.st_size for stat, path in files if path.stem not in self._due)
            for _, path in sorted(files, key=lambda one: one[0].st_mtime):
                if held <= self.limit:
                    break
                if path.suffix in (".raw", ".part") and path.stem not in self._due:
                    held -= path.stat().st_size
                    self._remove_voxels(path.stem)
            self._sweep(files)

    def _sweep(self, files: list[tuple[os.stat_result, Path]]) -> None:
        """Remove DICOM headers of what went a while ago; a study may be open in memory for longer than its file is."""
        for stat, path in files:
            is_old = time.time() - stat.st_mtime > STALE
            if path.suffix == ".dicom" and is_old and not path.with_suffix(".raw").exists():
                path.unlink(missing_ok=True)

    def _entries(self) -> Iterator[os.DirEntry]:
        """The files of the spool that are still there when they are looked at."""
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):
                entry.stat()
                yield entry

    def _said(self, study: str) -> dict:
        try:
            return json.loads(self._path(study, "json").read_text(encoding="utf8"))
        except (FileNotFoundError, ValueError):
            raise UnknownStudyError(f"The study {study} is not open here; open it first.") from None

    def _path(self, study: str, kind: str) -> Path:
        if not STUDY_ID.fullmatch(study):
            raise UnknownStudyError(f"{study[:40]!r} is no study's id; ids have 32 hexadecimal digits.")
        return self.folder / f"{study}.{kind}"
