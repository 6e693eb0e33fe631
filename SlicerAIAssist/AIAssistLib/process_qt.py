"""The backend's process on this computer: started when first needed, stopped with Slicer."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

import qt

from aiassist.errors import ConnectionLostError

#: Lines of the process's messages that are kept to explain why it ended.
TAIL = 20


class BackendProcess:
    """Runs ``aiassist serve`` and says where it listens.

    Parameters
    ----------
    program : str
    arguments : list of str
    started : callable
        Called with the address and the token once the process is ready.
    ended : callable
        Called with a sentence when it ends without having been stopped, or cannot be started.
    """

    def __init__(
        self,
        program: str,
        arguments: list[str],
        started: Callable[[str, str], None],
        ended: Callable[[str], None],
    ):
        self._program, self._arguments = program, arguments
        self._started, self._ended = started, ended
        self._process = None
        self._gone = None
        self._tail: list[str] = []
        #: Whether it has said where it listens.
        self.ready = False

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        return self._process is not None

    def start(self) -> None:
        """Start the process; `started` or `ended` is called later."""
        process = qt.QProcess()
        process.connect("readyReadStandardOutput()", self._read_ready)
        process.connect("readyReadStandardError()", self._read_messages)
        process.connect("finished(int,QProcess::ExitStatus)", self._finished)
        process.connect("errorOccurred(QProcess::ProcessError)", self._failed)
        self._process, self._tail, self.ready = process, [], False
        process.start(self._program, self._arguments)

    def wait(self, seconds: float) -> None:
        """Wait until it is ready, for callers that block; `ConnectionLostError` when it is not by then."""
        end = time.monotonic() + seconds
        while self._process is not None and not self.ready:
            left = int(1000 * (end - time.monotonic()))
            if left <= 0:
                raise ConnectionLostError(f"The backend did not start within {seconds:.0f} s; look at Slicer's log.")
            if self._process.waitForReadyRead(left) or self._process.state() != qt.QProcess.NotRunning:
                self._read_ready()
            elif self._process is not None:
                self._finished(self._process.exitCode())

    def stop(self) -> None:
        """Stop it; it ends by itself when its standard input closes, and is killed when it does not."""
        process, self._process = self._process, None
        if process is None:
            return
        self._disconnect(process)
        process.closeWriteChannel()
        if not process.waitForFinished(3000):
            process.kill()
            process.waitForFinished(1000)

    def _read_ready(self) -> None:
        while self._process is not None and self._process.canReadLine():
            line = bytes(self._process.readLine().data()).decode("utf8", "replace")
            try:
                said = json.loads(line)
                url, token = said["url"], said["token"]
            except (ValueError, KeyError, TypeError):
                logging.debug("AIAssist backend: %s", line.rstrip())
                continue
            self.ready = True
            self._started(url, token)

    def _read_messages(self) -> None:
        if self._process is None:
            return
        text = bytes(self._process.readAllStandardError().data()).decode("utf8", "replace")
        for line in text.splitlines():
            logging.debug("AIAssist backend: %s", line)
        self._tail = (self._tail + text.splitlines())[-TAIL:]

    def _finished(self, code: int) -> None:
        if self._process is None:
            return
        self._read_messages()
        self._let_go()
        why = next((line for line in reversed(self._tail) if line.strip()), f"exit status {code}")
        self._ended(f"The backend on this computer stopped: {why}")

    def _failed(self, error) -> None:
        if self._process is not None and error == qt.QProcess.FailedToStart:  # what crashed has finished, too
            why = self._process.errorString()
            self._let_go()
            self._ended(f"The backend on this computer could not be started: {why}")

    def _let_go(self) -> None:
        """Use the process no more; it lives on, since it must not die while it calls us."""
        self._disconnect(self._process)
        self._gone, self._process = self._process, None

    def _disconnect(self, process) -> None:
        process.disconnect("finished(int,QProcess::ExitStatus)", self._finished)
        process.disconnect("errorOccurred(QProcess::ProcessError)", self._failed)
