"""The backend's process on this computer: started when first needed, stopped with Slicer."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable

import qt

from aiassist.errors import ConnectionLostError
from AIAssistLib.child_qt import Child, let_end

#: Lines of the process's messages that are kept to explain why it ended.
TAIL = 20


class BackendProcess(Child):
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
        super().__init__()
        self._program, self._arguments = program, arguments
        self._started, self._ended = started, ended
        self._tail: list[str] = []
        #: Whether it has said where it listens.
        self.ready = False

    def start(self) -> None:
        """Start the process; `started` or `ended` is called later."""
        self._tail, self.ready = [], False
        self.launch(self._program, self._arguments, qt.QProcess.SeparateChannels)

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
        """Tell it to end; see `AIAssistLib.child_qt.let_end`."""
        process = self.take()
        if process is not None:
            let_end(process)

    def kill(self) -> None:
        """End it as a crash does; `ended` is called."""
        if self._process is not None:
            self._process.kill()

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
        text = bytes(self._process.readAllStandardError().data()).decode("utf8", "replace")
        for line in text.splitlines():
            logging.debug("AIAssist backend: %s", line)
        self._tail = (self._tail + text.splitlines())[-TAIL:]

    def read(self) -> None:
        """See `Child.read`."""
        self._read_messages()
        self._read_ready()

    def over(self, code: int) -> None:
        """See `Child.over`."""
        said = (line for line in reversed(self._tail) if line.strip() and " WARNING " not in line)
        why = next(said, f"exit status {code}")
        self._ended(f"The backend on this computer stopped: {why}")

    def unstarted(self, why: str) -> None:
        """See `Child.unstarted`."""
        self._ended(f"The backend on this computer could not be started: {why}")
