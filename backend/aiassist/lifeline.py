"""A process that ends with the one that started it, as soon as its standard input closes."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable


def when_stdin_closes(then: Callable[[], None]) -> None:
    """Call `then`, on a thread of its own, once whoever started this process closes its standard input or is gone."""
    threading.Thread(target=_watch, args=(then,), daemon=True).start()


def _watch(then: Callable[[], None]) -> None:
    while os.read(sys.stdin.fileno(), 4096):  # a thread in sys.stdin.read() breaks Python's end
        pass
    then()
