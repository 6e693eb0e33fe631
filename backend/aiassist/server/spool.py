"""Uploaded studies on the server's disk: whole ones, and those still arriving."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np

from aiassist.errors import RoomError, StoreError, UnknownStudyError, UploadError
from aiassist.files import whole_file
from aiassist.imaging import DicomSeries, Volume
from aiassist.imaging.volume import study_digest
from aiassist.protocol.messages import geometry_from, study_bytes, study_to_json, volume_from, voxels_as_bytes
from aiassist.server.arriving import Upload

#: Of a studies folder, where its spool lies.
UPLOADS = "uploads"
#: What an id may look like; nothing else ever becomes part of a path.
STUDY_ID = re.compile(r"[0-9a-f]{32}")
#: Seconds after which the DICOM headers of a study that is not here any more are removed.
STALE = 24 * 3600
#: Seconds of silence after which no room is kept for an upload any more; who goes on then announces it again.
ABANDONED = 3600
#: The same of uploads of which nothing has come.
HESITATES = 60
#: Seconds for which a study that is used counts as used just now, so that a click need not write to the disk.
TOUCHED = 60
#: Bytes beyond those that have come for which room is made at once; each time the folder is looked through.
AHEAD = 2**26


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
        self._uploads: dict[str, Upload] = {}
        self._due: dict[str, int] = {}  # bytes of what arrives, of which there is never more than the limit
        self._free: dict[str, int] = {}  # bytes of it for which room was made
        self._trusted: set[str] = set()
        self._locks: dict[str, threading.RLock] = {}
        self._lock = threading.Lock()

    def __contains__(self, study: str) -> bool:
        return self._path(study, "raw").exists()

    def lock(self, study: str) -> threading.RLock:
        """Held while a study's files change."""
        with self._lock:
            return self._locks.setdefault(study, threading.RLock())

    def begin(self, study: str, data: Mapping) -> Upload:
        """Begin an upload, or find the one that broke off. Call with the lock held.

        `UploadError` when the study cannot be one, or is too large for the spool.
        """
        due, digest = study_bytes(data), study_digest(geometry_from(data), np.dtype(data["dtype"]))
        part = self._path(study, "part")
        if study in self._uploads:
            self._uploads[study].hear()
        try:
            self._reserve(study, due)  # from here on no other study's need evicts it
            if not part.exists() or not self._begun_as(study, data):
                self._stop(study)
                self._path(study, "json").write_text(json.dumps(data), encoding="utf8")
                part.write_bytes(b"")
            if study not in self._uploads:
                self._uploads[study] = Upload(
                    study, part, due, digest, self.lock(study), partial(self._make_room, study)
                )
        except BaseException:
            self._end(study)
            raise
        return self._uploads[study]

    def _begun_as(self, study: str, data: Mapping) -> bool:
        """Whether what arrived belongs to these voxels: the id forgives digits of an affine that JSON holds."""
        try:
            return _identity(self._said(study)) == _identity(data)
        except (UnknownStudyError, UploadError, KeyError, ValueError):  # its header was lost with the power
            return False

    def upload(self, study: str) -> Upload:
        """The upload of a study that is under way; `UnknownStudyError` when it was not announced to this process."""
        upload = self._uploads.get(study)
        if upload is None:
            raise UnknownStudyError(f"No upload of the study {study} is under way; announce it first.")
        return upload

    def _stop(self, study: str) -> None:
        """Let nothing be added to an upload any more."""
        upload = self._uploads.pop(study, None)
        if upload is not None:
            upload.over = True

    def _end(self, study: str) -> None:
        """Stop an upload and give back the room that is kept for it."""
        self._stop(study)
        self._due.pop(study, None)
        self._free.pop(study, None)

    def finish(self, study: str) -> Volume | None:
        """The volume, when all of it has arrived; None before. Call with the lock held.

        `UploadError` when the voxels are not those of the id; they are removed then.
        """
        upload = self.upload(study)
        if upload.received < upload.due:
            return None
        if upload.found != study:
            self._remove_voxels(study)
            raise UploadError(f"What arrived is the study {upload.found}, not {study}; send it again.")
        self._path(study, "part").replace(self._path(study, "raw"))
        self._trusted.add(study)
        volume = self.load(study)
        self._end(study)
        return volume

    def put(self, volume: Volume) -> None:
        """Keep a volume that came some other way. Call with the lock held.

        `UploadError` when it is too large for the spool.
        """
        study, data = volume.study_id, study_to_json(volume)
        self._remove_voxels(study)
        try:
            self._reserve(study, study_bytes(data))
            self._make_room(study, study_bytes(data))
            self._path(study, "json").write_text(json.dumps(data), encoding="utf8")
            part = self._path(study, "part")
            with part.open("wb") as file:
                file.write(voxels_as_bytes(volume))
            part.replace(self._path(study, "raw"))
            self._trusted.add(study)
        finally:
            self._end(study)
        if volume.dicom is not None:
            self.keep_series(study, volume.dicom)

    def series_file(self, study: str) -> Path:
        """Where the DICOM headers of a study lie, if it has any."""
        return self._path(study, "dicom")

    def series(self, study: str) -> DicomSeries | None:
        """The DICOM headers of a study; None when it came without, or they are damaged: whoever has them sends them."""
        try:
            return DicomSeries.from_bytes(self.series_file(study).read_bytes())
        except (FileNotFoundError, StoreError):
            return None

    def keep_series(self, study: str, series: DicomSeries) -> None:
        """Keep the DICOM headers of a study. Call with the lock held."""
        with whole_file(self.series_file(study)) as temporary:
            temporary.write_bytes(series.to_bytes())

    def drop_series(self, study: str) -> None:
        """Forget the DICOM headers of a study. Call with the lock held."""
        self.series_file(study).unlink(missing_ok=True)

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
            with self.lock(study):
                self._remove_voxels(study)
            raise UnknownStudyError(f"The study {study} was damaged on the server's disk; open it again.")
        self._trusted.add(study)
        vars(volume)["study_id"] = study  # known, so not hashed again
        return volume

    def touch(self, study: str) -> None:
        """A study that was loaded, and maybe removed since, is used; it goes after those that are not."""
        path = self._path(study, "raw")
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > TOUCHED:
                os.utime(path)

    def remove(self, study: str) -> None:
        """Forget a study, whole or not, with its DICOM headers."""
        self._remove_voxels(study)
        self.drop_series(study)

    def _remove_voxels(self, study: str) -> None:
        self._end(study)
        self._trusted.discard(study)
        for kind in ("raw", "part", "json"):
            with suppress(FileNotFoundError, PermissionError):  # Windows keeps a file that is still mapped
                self._path(study, kind).unlink()

    def _reserve(self, study: str, due: int) -> None:
        """See that `due` bytes of a study that is announced could be kept beside all that is arriving."""
        if due > self.limit:
            raise UploadError(f"The study has {due:,} bytes; this server keeps {self.limit:,} at most.")
        with self._lock:
            for other, upload in list(self._uploads.items()):
                if upload.silence > (ABANDONED if upload.received else HESITATES):
                    self._end(other)
            if due + sum(size for other, size in self._due.items() if other != study) > self.limit:
                raise RoomError("The server's room for images is taken by others on their way; try again later.")
            self._due[study] = due
            self._free.setdefault(study, self.received(study) or 0)

    def _make_room(self, study: str, size: int) -> None:
        """Make room for so many bytes of a study that arrives, and some more: what was used longest ago goes.

        Nothing goes that is arriving itself; nor does anything for a study that was only announced.
        """
        if size <= self._free.get(study, 0):
            return
        with self._lock:
            if study not in self._due:  # given up meanwhile
                return
            self._free[study] = min(self._due[study], size + AHEAD)
            files = [(entry.stat(), Path(entry.path)) for entry in self._entries()]
            held = sum(self._free.values())
            held += sum(stat.st_size for stat, path in files if path.stem not in self._due)
            for stat, path in sorted(files, key=lambda one: one[0].st_mtime):
                if held <= self.limit:
                    break
                if path.suffix in (".raw", ".part") and path.stem not in self._due:
                    held -= stat.st_size
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


def _identity(data: Mapping) -> tuple:
    """What a study's id is made of, but for the voxels."""
    dtype = np.dtype(data["dtype"])
    return dtype, study_digest(geometry_from(data), dtype).digest()
