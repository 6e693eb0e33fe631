"""Work that calls back, such as a library's loop over windows, as work that can be paused between its calls."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from typing import TypeVar

from aiassist.errors import Cancelled

Result = TypeVar("Result")


def in_pieces(function: Callable[[Callable[[], None]], Result]) -> Generator[None, None, Result]:
    """Run a function that is given `pause`; the generator yields at each call of it, and goes on when it is advanced.

    The function runs in a thread of its own, but never at the same time as whoever advances the generator. When the
    generator is closed, `pause` raises `Cancelled` in the function.
    """
    call = _Call(function)
    call.thread.start()
    try:
        while call.has_paused():
            yield
            call.go_on.release()
    finally:
        call.is_cancelled = True
        call.go_on.release()
        call.thread.join()
    if call.error is not None:
        raise call.error
    return call.result


class _Call:
    """A function in its thread: it waits for `go_on`, and whoever advances it for `stopped`."""

    def __init__(self, function: Callable):
        self.go_on, self._stopped = threading.Semaphore(0), threading.Semaphore(0)
        self.is_cancelled = self._is_over = False
        self.result, self.error = None, None
        self._function = function
        self.thread = threading.Thread(target=self._run, daemon=True)

    def has_paused(self) -> bool:
        """Wait until the function pauses or is over; whether it paused."""
        self._stopped.acquire()
        return not self._is_over

    def _pause(self) -> None:
        if not self.is_cancelled:
            self._wait()
        if self.is_cancelled:
            raise Cancelled("The work was cancelled.")

    def _wait(self) -> None:
        self._stopped.release()
        self.go_on.acquire()

    def _run(self) -> None:
        try:
            self.result = self._function(self._pause)
        except BaseException as error:  # noqa: BLE001 - raised again where the generator is advanced
            self.error = error
        self._is_over = True
        self._stopped.release()
