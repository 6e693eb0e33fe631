"""Files that are either whole or absent."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aiassist.errors import AIAssistError

#: The index of a studies folder, by which it is known.
INDEX = "index.sqlite"
#: Names of unfinished files begin so; a sweep may remove them.
UNFINISHED = ".unfinished-"
#: What systems say of a lock that another process holds.
HELD = (errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Write `path` so that it appears whole or not at all.

    Yields a temporary path in the same folder, with the same name endings; when the block ends
    well, the file there is flushed to the disk and renamed to `path`, replacing what stood there, whose rights it
    takes; where `path` is a link it is what that leads to. When the block fails, the temporary file is removed and
    `path` is as it was.

    Raises
    ------
    OSError
        When the folder is missing, not writable, or full, or a file there may not be written; names `path`.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    _check_folder(path)
    _check_replaceable(path)
    temporary = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:8]}-{path.name[-40:]}")  # names have at most 255 bytes
    try:
        yield temporary
        sync(temporary)
        if path.exists():
            shutil.copymode(path, temporary)
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        if isinstance(error, OSError):
            raise _naming(error, path, temporary) from error
        raise
    sync(path.parent)


def _check_folder(path: Path) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into; make it first.")


def _check_replaceable(path: Path) -> None:
    """Raise `OSError` where there is something that is no file, as a pipe or device, or that may not be written."""
    if path.exists() and not path.is_dir() and not path.is_file():
        raise OSError(errno.EINVAL, "It is no file, and would be replaced by one; name another", str(path))
    if path.is_file() and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))


def _naming(error: OSError, path: Path, temporary: Path) -> OSError:
    """The error as one of `path`, when it names no file, or the temporary one that nobody knows."""
    if error.errno is None or error.filename not in (None, temporary, str(temporary)):
        return error
    return OSError(error.errno, error.strerror, str(path))


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk."""
    if path.is_dir() and os.name == "nt":  # Windows cannot open folders for this and does not need it
        return
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def locked(path: str | Path, busy: AIAssistError) -> Iterator[None]:
    """Hold a lock file, which other processes respect that use this; raise `busy` when another holds it.

    The system lets go of it when the process ends, however it ends; the empty file stays. `AIAssistError` where files
    cannot be locked, as on some network shares.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in HELD:
                raise busy from error
            raise AIAssistError(
                f"No file can be locked in the folder {path.parent} ({error.strerror}); move it to a disk of this "
                "computer, or to a share that knows locks."
            ) from error
        yield


def check_writable(path: str | Path) -> None:
    """Raise `OSError` now if a file at `path` could not be written later."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder; name a file in it.")
    _check_folder(path)
    _check_replaceable(path)
    probe = path.with_name(f"{UNFINISHED}{uuid.uuid4().hex[:8]}")
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise _naming(error, path, probe) from error
