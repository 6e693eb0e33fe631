"""Files that are either whole or absent."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

#: Names of unfinished files begin so; a sweep may remove them.
UNFINISHED = ".unfinished-"


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Write `path` so that it appears whole or not at all.

    Yields a temporary path in the same folder, with the same name endings; when the block ends
    well, the file there is flushed to the disk and renamed to `path`, replacing what stood there.
    When the block fails, the temporary file is removed and `path` is as it was.

    Raises
    ------
    OSError
        When the folder is missing, not writable, or full.
    """
    path = Path(path)
    temporary = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        yield temporary
        sync(temporary)
        temporary.replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            temporary.unlink()
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders for this and does not need it
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def check_writable(path: str | Path) -> None:
    """Raise `OSError` now if a file at `path` could not be written later."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it.")
    probe = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:8]}")
    probe.touch()
    probe.unlink()
