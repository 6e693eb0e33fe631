"""A process of our own, whatever it runs."""

from __future__ import annotations

import time

import qt

#: Milliseconds that a process has to end by itself when it is told to.
PATIENCE = 3000
#: Processes that were told to end, each with the timer that kills it: a `QProcess` that goes waits for what it runs.
_ending: list[tuple] = []


def let_end(process) -> None:
    """Close a process's standard input, which ends it; it is killed when it goes on. Nobody waits."""
    _ending[:] = [(known, timer) for known, timer in _ending if _runs(known)]
    timer = qt.QTimer()
    timer.setSingleShot(True)
    timer.connect("timeout()", lambda: process.kill())
    timer.start(PATIENCE)
    _ending.append((process, timer))
    process.closeWriteChannel()


def are_ending() -> bool:
    """Whether a process that was told to end still runs."""
    return any(_runs(process) for process, _timer in _ending)


def wait_for_ends() -> None:
    """Wait until they have ended, as Slicer's own end must."""
    end = time.monotonic() + PATIENCE / 1000
    for process, _timer in _ending:
        if _runs(process) and not process.waitForFinished(max(1, int(1000 * (end - time.monotonic())))):
            process.kill()
            process.waitForFinished(1000)
    _ending.clear()


def _runs(process) -> bool:
    return process.state() != qt.QProcess.NotRunning


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
