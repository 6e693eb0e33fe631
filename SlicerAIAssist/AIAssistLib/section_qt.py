"""What the sections of the panel share."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError
from AIAssistLib.talks import Conversation, sentence
from AIAssistLib.texts import breakable


class Section:
    """A part of the panel.

    Parameters
    ----------
    panel : AIAssistLib.panel_qt.Panel
    label : str
        Name of the label that says how things stand.
    """

    def __init__(self, panel, label: str):
        self.panel, self.ui, self.logic = panel, panel.ui, panel.logic
        self._label = getattr(panel.ui, label)

    @property
    def assistant(self):
        """The backend in use."""
        return self.logic.assistant

    def tell(self, text: str, failed: bool = False) -> None:
        """Say something below the section's buttons."""
        self._label.setText(breakable(text))
        self._label.setStyleSheet(error_style(self._label) if failed else "")
        self._label.setVisible(bool(text))

    def tell_now(self, text: str) -> None:
        """As `tell`, and shown before what comes next, which takes long and lets Slicer do nothing else."""
        self.tell(text)
        self._label.repaint()

    def attempt(self, function, *arguments) -> None:
        """Call something for the person; what goes wrong is said in one sentence."""
        try:
            function(*arguments)
        except Exception as error:
            if not isinstance(error, AIAssistError):
                logging.exception("AIAssist: the panel")
            self.tell(sentence(error), failed=True)

    def talk(self, conversation: Conversation, done) -> None:
        """Have a conversation with the backend; what goes wrong is said."""
        self.assistant.start(conversation, done, lambda error: self.tell(sentence(error), failed=True))


def error_style(label) -> str:
    """The style of what went wrong, red: dark on a light window and light on a dark one, to be read on either."""
    is_dark = label.palette.color(qt.QPalette.Window).lightness() < 128
    return f"color: {'#ff8a80' if is_dark else '#c0392b'};"


def fill_table(table, titles: list[str], rows: list[list[str]]) -> None:
    """Show rows of text in a table."""
    table.setColumnCount(len(titles))
    table.setHorizontalHeaderLabels(titles)
    table.setRowCount(len(rows))
    for number, row in enumerate(rows):
        for column, text in enumerate(row):
            item = qt.QTableWidgetItem(text)
            item.setFlags(qt.Qt.ItemIsSelectable | qt.Qt.ItemIsEnabled)
            table.setItem(number, column, item)
    table.resizeColumnsToContents()


def ask(question: str) -> bool:
    """Ask the person; yes in testing mode."""
    return slicer.util.confirmYesNoDisplay(question, windowTitle="AI Assist")


def may_write(path: Path) -> bool:
    """Whether there is no such file yet, or the person lets it go."""
    return not path.exists() or ask(_("{path} is there already. Replace it?").format(path=path))


def path_to_write(chosen: str, ending: str) -> Path | None:
    """The path that was chosen in a file dialog, with its ending; None when there is none that may be written.

    The dialog has asked about a file of the name that was chosen, but not about one that has the ending besides.
    """
    if not chosen or chosen.lower().endswith(ending):
        return Path(chosen) if chosen else None
    path = Path(chosen + ending)
    return path if may_write(path) else None


@contextmanager
def busy() -> Iterator[None]:
    """While something goes on that cannot be interrupted, the cursor says so."""
    qt.QApplication.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
    try:
        yield
    finally:
        qt.QApplication.restoreOverrideCursor()
