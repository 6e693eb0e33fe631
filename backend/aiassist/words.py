"""Words for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 package", "2 packages"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def some_of(names: list[str], most: int = 8) -> str:
    """The first of some names: "liver, spleen and 3 more"."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
