"""A process that ends with the one that started it, as soon as its standard input closes."""

from __future__ import annotations

import _thread
import os
import signal
import sys
import threading
from collections.abc import Callable


def when_stdin_closes(then: Callable[[], None]) -> None:
    """Call `then`, on a thread of its own, once whoever started this process closes its standard input or is gone."""
    threading.Thread(target=_watch, args=(then,), daemon=True).start()


def interrupt_when_stdin_closes() -> None:
    """As `when_stdin_closes`, with a `KeyboardInterrupt` of the main thread, from which it is to be called."""
    hear_interrupts()
    when_stdin_closes(_thread.interrupt_main)


def hear_interrupts() -> None:
    """Let the main thread, which calls this, be interrupted; what was started in a shell's background is not else."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _watch(then: Callable[[], None]) -> None:
    while os.read(sys.stdin.fileno(), 4096):  # a thread in sys.stdin.read() breaks Python's end
        pass
    then()
