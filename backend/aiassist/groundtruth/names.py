"""Names of structures: which are the same, and the folders that keep them; and texts that can be kept."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping

from aiassist.errors import StoreError

_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[\d¹²³])$")


def key_of(structure: str) -> str:
    """What makes two names the same structure; characters that cannot be seen, and kinds of spaces, do not."""
    if any(unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") for character in structure):
        raise StoreError(f"The name {structure!r} holds characters that are no text; give one such as spleen.")
    seen = "".join(c for c in unicodedata.normalize("NFC", structure) if unicodedata.category(c) != "Cf")
    key = unicodedata.normalize("NFC", " ".join(seen.split()).casefold())
    if not key:
        raise StoreError("A label needs the name of its structure; give one such as spleen.")
    return key


def check_text(said: Mapping[str, str | None]) -> None:
    """Raise `StoreError` when a text, by what it is, holds halves of characters, which no file can keep."""
    for what, text in said.items():
        if any(unicodedata.category(character) == "Cs" for character in text or ""):
            raise StoreError(f"The {what} {text!r} holds characters that are no text; give another.")


def check_said(author: str, **said: str | None) -> None:
    """Raise `StoreError` when a label has no author, or what is said of it cannot be kept."""
    if not author.strip():
        raise StoreError("A label needs an author; say who answers for it.")
    check_text({"author": author} | {name.replace("_", " "): text for name, text in said.items()})


def folder_name(key: str) -> str:
    """A folder name that every file system takes and that no other key shares.

    Dots are left out, for the image lies beside these folders and Windows reserves con.anything.
    Only names that had to be altered hold a tilde.
    """
    safe = re.sub(r"[^\w-]+", "-", key)[:40].strip("-")
    if safe == key and not _RESERVED.match(safe):
        return safe
    return f"{safe}~{hashlib.blake2b(key.encode(), digest_size=8).hexdigest()}"
