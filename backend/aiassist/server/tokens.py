"""Who may ask: tokens, kept as hashes."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import re
import secrets
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from aiassist.errors import AccessError
from aiassist.files import whole_file

log = logging.getLogger("aiassist.server")

Role = Literal["annotator", "admin"]
ROLES = ("annotator", "admin")
_NAME = re.compile(r"[\w.@-]{1,64}")


@dataclass(frozen=True)
class Person:
    """Who asks, and what they may do: an annotator works on studies, an admin also removes them and sees logs.

    ``is_alone`` is who started a process that nobody else may use: they say themselves whose labels are.
    """

    name: str
    role: Role
    is_alone: bool = False

    @property
    def is_admin(self) -> bool:
        """Whether they may do all."""
        return self.role == "admin"

    def author(self, named: str | None) -> str:
        """Whose labels are that this person saves. `AccessError` when they name somebody and may not."""
        if named is None or named == self.name:
            return self.name
        if not self.is_alone:
            raise AccessError(f"Labels are saved under the name of your token, {self.name}; leave the author out.")
        return named


class Tokens:
    """The tokens that open a server.

    The file has a line ``name role sha256`` for each. Tokens are 256 random bits, so a plain hash keeps
    them safe. The file is read again when it changes: removing a line shuts its token out at once.

    Parameters
    ----------
    file : Path, optional
        The token file.
    own : tuple of Person and str, optional
        A token that lives only as long as this process.

    Raises
    ------
    AccessError
        When the file is missing, empty, or a line of it is none.
    """

    def __init__(self, file: Path | None = None, own: tuple[Person, str] | None = None):
        self._file = Path(file) if file is not None else None
        self._own = [(own[0], _digest(own[1]))] if own is not None else []
        self._read_at = None
        self._lock = threading.Lock()
        self._known = read_tokens(self._file) if self._file is not None and self._file.exists() else []
        if self._file is not None and not self._known:
            raise AccessError(f"{self._file} holds no token; make one: aiassist tokens add NAME --file {self._file}")

    def person(self, token: str) -> Person | None:
        """Whose token this is; takes the same time whichever it is."""
        digest, found = _digest(token), None
        for person, known in [*self._own, *self._refresh()]:
            if hmac.compare_digest(digest, known):
                found = person
        return found

    def _refresh(self) -> list[tuple[Person, str]]:
        if self._file is None:
            return []
        with self._lock:
            try:
                stat = self._file.stat()
            except OSError:
                self._read_at, self._known = None, []  # no file, no entry
                return []
            if (stat.st_mtime_ns, stat.st_size) != self._read_at:
                try:
                    self._known = read_tokens(self._file)
                except AccessError as error:
                    log.error("the token file cannot be read, so the tokens stay as they were: %s", error)
                self._read_at = (stat.st_mtime_ns, stat.st_size)
            return self._known


def new_token() -> str:
    """About 256 random bits as text, which does not look like an option of a command."""
    token = secrets.token_urlsafe(32)
    return new_token() if token.startswith("-") else token


def read_tokens(file: Path) -> list[tuple[Person, str]]:
    """The people of a token file and the hashes of their tokens; `AccessError` when it is none, or not to be read."""
    found = []
    try:
        lines = file.read_text(encoding="utf8").splitlines()
    except OSError as error:
        raise AccessError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise AccessError(f"{file} is no token file: it is not text.") from error
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        parts = line.split()
        if len(parts) != 3 or parts[1] not in ROLES or not re.fullmatch(r"[0-9a-f]{64}", parts[2]):
            raise AccessError(f"Line {number} of {file} is no token; it should read: name role sha256.")
        found.append((Person(parts[0], parts[1]), parts[2]))
    return found


def add_token(file: Path, name: str, role: Role) -> str:
    """Make a token, enter its hash in the file, and return it; nobody can read it later."""
    if not _NAME.fullmatch(name):
        raise AccessError(f"{name!r} is no name for a token; use letters, digits, dots and dashes, up to 64.")
    known = read_tokens(file) if file.exists() else []
    if any(person.name == name for person, _ in known):
        raise AccessError(f"{file} has a token of {name!r} already; revoke it first.")
    token = new_token()
    lines = _lines(file)
    if lines and not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    _write(file, [*lines, f"{name} {role} {_digest(token)}\n"])
    return token


def revoke_token(file: Path, name: str) -> None:
    """Remove a token; `AccessError` when there is none of that name."""
    known = read_tokens(file) if file.exists() else []
    if all(person.name != name for person, _ in known):
        raise AccessError(f"{file} has no token of {name!r}; it has {', '.join(p.name for p, _ in known) or 'none'}.")
    _write(file, [line for line in _lines(file) if line.startswith("#") or line.split()[:1] != [name]])


def _lines(file: Path) -> list[str]:
    """The lines of the file as they are, with their ends."""
    return file.read_bytes().decode("utf8").splitlines(keepends=True) if file.exists() else []


def _write(file: Path, lines: list[str]) -> None:
    """Replace the file; who may read it stays, and nobody else may read a new one."""
    before = file.stat() if file.exists() else None
    with whole_file(file) as temporary:
        temporary.touch(mode=0o600)
        temporary.write_bytes("".join(lines).encode("utf8"))
        if before is not None and os.name != "nt":
            if (before.st_uid, before.st_gid) != (os.getuid(), os.getgid()):
                os.chown(temporary, before.st_uid, before.st_gid)
            temporary.chmod(before.st_mode & 0o777)


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf8", "surrogatepass")).hexdigest()
