"""A process of our own, whatever it runs."""

from __future__ import annotations

import qt


class Child:
    """Starts one process at a time and hears of its end.

    A subclass defines `read` (there is output), `over` (it ended, with this exit status) and `unstarted` (it could
    not be started, and why).
    """

    def __init__(self):
        self._process = self._gone = None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None

    def launch(self, program: str, arguments: list[str], mode: int) -> None:
        """Start a process; `mode` says whether its messages come with its output."""
        process = self._process = qt.QProcess()
        process.setProcessChannelMode(mode)
        process.connect("readyReadStandardOutput()", self._read)
        process.connect("readyReadStandardError()", self._read)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        process.start(program, arguments)

    def take(self):
        """The process, which tells us nothing any more; None when there is none."""
        process, self._process = self._process, None
        if process is not None:
            self._disconnect(process)
        return process

    def _read(self) -> None:
        if self._process is not None:
            self.read()

    def _finished(self, code: int) -> None:
        if self._process is not None:
            self.read()
            self._let_go()
            self.over(code)

    def _failed(self, error) -> None:
        if self._process is not None and error == qt.QProcess.FailedToStart:  # what crashed has finished, too
            why = self._process.errorString()
            self._let_go()
            self.unstarted(why)

    def _let_go(self) -> None:
        """Use the process no more; it lives on, since it must not die while it calls us."""
        self._gone = self.take()

    def _disconnect(self, process) -> None:
        process.disconnect("finished(int,QProcess::ExitStatus)", self._finished)
        process.disconnect("errorOccurred(QProcess::ProcessError)", self._failed)

    # What subclasses define

    def read(self) -> None:
        """There is output."""

    def over(self, code: int) -> None:
        """The process ended."""

    def unstarted(self, why: str) -> None:
        """The process could not be started."""
