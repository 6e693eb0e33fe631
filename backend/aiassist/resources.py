"""Where the files that ship with the product lie."""

from __future__ import annotations

from pathlib import Path

from aiassist.errors import AIAssistError

_PACKAGE = Path(__file__).parent
#: A wheel carries a copy inside the package; a checkout has them at its top level.
HOMES = (_PACKAGE / "_resources", _PACKAGE.parent.parent / "Resources")


def resource(*parts: str) -> Path:
    """Path of a file or folder of ``Resources``; `AIAssistError` when this install lacks it."""
    for home in HOMES:
        path = home.joinpath(*parts)
        if path.exists():
            return path
    raise AIAssistError(f"This install lacks Resources/{'/'.join(parts)}; reinstall aiassist.")
