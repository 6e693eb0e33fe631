"""Texts that fit into the panel, however long."""

from __future__ import annotations

import re
import textwrap

#: Where a line of a label may break, seen by nobody.
BREAK = "\u200b"
_LONG_WORD = re.compile(r"\S{41,}")
_PIECE = re.compile(rf"([/\\_.-]|[^/\\_.{BREAK}-]{{40}})(?=[^\s{BREAK}])")


def breakable(text: str) -> str:
    """A text for a label: words that are too long for the panel, such as paths, may go on in the next line."""
    return _LONG_WORD.sub(lambda word: _PIECE.sub(rf"\1{BREAK}", word[0]), text)


def shortened(text: str, most: int = 46) -> str:
    """A text for a button, which shows it in one line."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def in_lines(text: str) -> str:
    """A text for a tooltip, which would show it in one line."""
    return textwrap.fill(text, 80)
