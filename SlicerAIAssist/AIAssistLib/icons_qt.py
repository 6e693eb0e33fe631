"""The icons of buttons, which their ``.ui`` files name."""

from __future__ import annotations

from pathlib import Path

import qt

#: Property of a button in a ``.ui`` file: its picture's name in ``Resources/Icons``.
NAME = "iconName"


def show_icons(ui, folder: Path) -> None:
    """Give each button its icon; a ``.ui`` file cannot, for it knows no paths beside its own.

    Parameters
    ----------
    ui : object
        The widgets by name, as `slicer.util.childWidgetVariables` gives them.
    folder : Path
        Where the pictures are.
    """
    for widget in vars(ui).values():
        if isinstance(widget, qt.QAbstractButton) and widget.property(NAME):
            widget.setIcon(qt.QIcon(str(folder / f"{widget.property(NAME)}.png")))
