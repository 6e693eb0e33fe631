"""Words for people."""

from __future__ import annotations


def counted(number: int, noun: str) -> str:
    """A number and its noun: "1 package", "2 packages"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
