"""Installs the private packages while Slicer goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt

from aiassist.errors import AIAssistError
from AIAssistLib.child_qt import Child, let_end
from AIAssistLib.packages import Packages


class Installer(Child):
    """Runs pip once.

    Parameters
    ----------
    python : str
        Slicer's interpreter.
    packages : Packages
    said : callable
        Called with each line that pip says.
    ended : callable
        Called with None when all is in place, or with the error.
    """

    def __init__(
        self,
        python: str,
        packages: Packages,
        said: Callable[[str], None],
        ended: Callable[[AIAssistError | None], None],
    ):
        super().__init__()
        self._python, self._packages = python, packages
        self._said, self._ended = said, ended
        self._last = ""

    def start(self, wheels: Path | None = None) -> None:
        """Begin; from a folder of wheels when one is given."""
        self._packages.begin()
        self.launch(self._python, self._packages.arguments(wheels), qt.QProcess.MergedChannels)

    def cancel(self) -> None:
        """Stop; what was installed before stays."""
        process = self.take()
        if process is not None:
            let_end(process)
            process.waitForFinished(3000)  # which takes milliseconds; the folder is free then

    def read(self) -> None:
        """See `Child.read`."""
        for line in bytes(self._process.readAllStandardOutput().data()).decode("utf8", "replace").splitlines():
            if line.strip():
                self._last = line.strip()
                self._said(self._last)

    def over(self, code: int) -> None:
        """See `Child.over`."""
        if code:
            self._ended(AIAssistError(f"The packages could not be installed: {self._last}"))
            return
        try:
            self._packages.complete()
        except OSError as error:
            self._ended(
                AIAssistError(f"{self._packages.folder} cannot be replaced ({error.strerror}); restart Slicer.")
            )
            return
        self._ended(None)

    def unstarted(self, why: str) -> None:
        """See `Child.unstarted`."""
        self._ended(AIAssistError(f"Slicer's Python {self._python} could not be started: {why}"))
