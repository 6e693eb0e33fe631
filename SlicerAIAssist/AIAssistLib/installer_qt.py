"""Installs the private packages while Slicer goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import qt

from aiassist.errors import AIAssistError
from AIAssistLib.packages import Packages


class Installer:
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
        self._python, self._packages = python, packages
        self._said, self._ended = said, ended
        self._process = self._gone = None
        self._last = ""

    def start(self, wheels: Path | None = None) -> None:
        """Begin; from a folder of wheels when one is given."""
        self._packages.begin()
        process = self._process = qt.QProcess()
        process.setProcessChannelMode(qt.QProcess.MergedChannels)
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        process.start(self._python, self._packages.arguments(wheels))

    def cancel(self) -> None:
        """Stop; what was installed before stays."""
        process, self._process = self._process, None
        if process is not None:
            self._disconnect(process)
            process.kill()
            process.waitForFinished(3000)

    def _read(self) -> None:
        if self._process is None:
            return
        for line in bytes(self._process.readAllStandardOutput().data()).decode("utf8", "replace").splitlines():
            if line.strip():
                self._last = line.strip()
                self._said(self._last)

    def _finished(self, code: int) -> None:
        if self._process is None:
            return
        self._read()
        self._let_go()
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

    def _failed(self, error) -> None:
        if self._process is not None and error == qt.QProcess.FailedToStart:  # what crashed has finished, too
            why = self._process.errorString()
            self._let_go()
            self._ended(AIAssistError(f"Slicer's Python {self._python} could not be started: {why}"))

    def _let_go(self) -> None:
        """Use the process no more; it lives on, since it must not die while it calls us."""
        self._disconnect(self._process)
        self._gone, self._process = self._process, None

    def _disconnect(self, process) -> None:
        process.disconnect("finished(int,QProcess::ExitStatus)", self._finished)
        process.disconnect("errorOccurred(QProcess::ProcessError)", self._failed)
