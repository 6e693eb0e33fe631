"""A folder of studies and its index."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from sqlalchemy import URL
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from aiassist.errors import AIAssistError, BrokenStoreError, BusyError, RoomError
from aiassist.files import INDEX, UNFINISHED
from aiassist.groundtruth.index import open_index

#: Unfinished files older than this, in seconds, were left by a crash and are removed.
STALE = 24 * 3600


class StudiesFolder:
    """A folder whose index tells what is in it; see `GroundTruthStore` for its parameters and errors."""

    def __init__(self, folder: str | Path, url: str | None = None):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._engine = open_index(url or URL.create("sqlite", database=str(self.folder / INDEX)))
        except DatabaseError as error:
            raise self._index_error(error) from error
        self._sweep()

    def close(self) -> None:
        """Let go of the index."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_) -> None:
        self.close()

    def _sweep(self) -> None:
        for folder, _, files in os.walk(self.folder):  # which goes on where others remove folders meanwhile
            for path in (Path(folder, name) for name in files if name.startswith(UNFINISHED)):
                with suppress(OSError):  # another process may finish its file; another user's may not be removed
                    if time.time() - path.stat().st_mtime > STALE:
                        path.unlink()

    @contextmanager
    def _session(self) -> Iterator[Session]:
        """A transaction on the index; `StoreError` when the index is damaged, locked or cannot grow."""
        try:
            with Session(self._engine, expire_on_commit=False) as session, session.begin():
                yield session
        except DatabaseError as error:
            raise self._index_error(error) from error

    def _index_error(self, error: DatabaseError) -> AIAssistError:
        said = str(error.orig)
        if "locked" in said or "busy" in said:
            return BusyError("The index of the ground truth is in use by others; try again in a moment.")
        if "full" in said or "disk I/O" in said:
            return RoomError("The disk of the ground truth is full, or fails; nothing was changed. Make room there.")
        if "unable to open" in said:
            return BrokenStoreError(
                f"The index of {self.folder} cannot be opened; check who may read and write that folder."
            )
        if "readonly" in said:
            return BrokenStoreError(
                f"The folder {self.folder} may not be written, which its index needs; use a copy of it."
            )
        return BrokenStoreError(
            f"The index of {self.folder} cannot be used ({error.orig}); "
            f"check its disk, or restore {INDEX} from a backup."
        )

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()
