"""Where a server's files lie is nobody's business but its administrator's, who reads the log."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

Said = TypeVar("Said")


def without_paths(said: Said, studies: Path) -> Said:
    """Text, or JSON, that calls the studies folder so wherever it named its place, which is absolute."""
    if isinstance(said, str):
        return said.replace(str(studies), "the studies folder")
    if isinstance(said, dict):
        return {key: without_paths(one, studies) for key, one in said.items()}
    if isinstance(said, list):
        return [without_paths(one, studies) for one in said]
    return said
