"""The keys of the module; they live only while it is shown. A test holds that Slicer uses none of them."""

from __future__ import annotations

from typing import NamedTuple


class Shortcut(NamedTuple):
    """A key, the name of the panel's method that it calls, and what that does."""

    key: str
    action: str
    text: str


SHORTCUTS = (
    Shortcut("P", "points", "AI Points"),
    Shortcut("C", "contour", "Smart Contour"),
    Shortcut("D", "accept", "Accept the preview"),
    Shortcut("L", "take_back", "Take the latest point back"),
    Shortcut("H", "look", "Preview as fill, as outline, or hidden"),
    Shortcut("N", "next_structure", "Accept and go on with the next structure"),
    Shortcut("Ctrl+N", "save_and_next", "Save and next image"),
)
