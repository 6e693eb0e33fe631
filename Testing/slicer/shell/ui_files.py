"""`.ui` files, with the stand-ins."""

from __future__ import annotations

import re
from pathlib import Path

from PySide6 import QtCore, QtUiTools, QtWidgets

from shell import pythonqt
from shell.stand_ins import ui_classes


class UiLoader(QtUiTools.QUiLoader):
    """Qt's loader of `.ui` files, knowing the stand-ins; connections of signals with MRML objects work."""

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        for cls in ui_classes:
            self.registerCustomWidget(cls)

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """The widget that an open file describes."""
        text = device.readAll().data().decode()
        text = re.sub(r"\bvtk\w+\s*\*", pythonqt.PYTHON_OBJECT, text)
        text = re.sub(r"<(enum|set)>([^<]*)</\1>", _number, text)
        buffer = QtCore.QBuffer()
        buffer.setData(text.encode())
        buffer.open(QtCore.QIODevice.ReadOnly)
        with pythonqt.without_child_attributes():
            return super().load(buffer, parent)


def _number(match: re.Match) -> str:
    """An enumeration's value in a `.ui` file; a stand-in's, such as ``ctkPathLineEdit::Dirs``, as a number."""
    known = {cls.__name__: cls for cls in ui_classes}
    keys = [key.split("::") for key in match[2].split("|")]
    if any(parts[0] not in known for parts in keys):
        return match[0]
    return f"<number>{sum(getattr(known[parts[0]], parts[-1]) for parts in keys)}</number>"


def load_ui(path: str | Path) -> QtWidgets.QWidget:
    """The widget that a `.ui` file describes, as `slicer.util.loadUI` gives it; `RuntimeError` when there is none."""
    file = QtCore.QFile(str(path))
    if not file.open(QtCore.QIODevice.ReadOnly):
        raise RuntimeError(f"Could not load UI file: file not found {path}")
    widget = UiLoader().load(file)
    if widget is None:
        raise RuntimeError(f"Could not load UI file: {path}")
    return widget
