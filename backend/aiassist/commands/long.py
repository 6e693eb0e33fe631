"""What long commands share: how far they are, and how they stop."""

from __future__ import annotations

import _thread
import json
import signal
import sys
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from aiassist.commands.shared import progress_bar
from aiassist.lifeline import hear_interrupts, when_stdin_closes

#: Of training, a line where there is no terminal to draw a bar on: one every so many steps.
EVERY = 50
#: Seconds between two lines for a program.
PAUSE = 0.5


def add_for_programs(parser: ArgumentParser) -> None:
    """Add ``--json`` and ``--until-stdin-closes``, by which another program runs the command."""
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object, and on stderr, one a line, how far it is"
    )
    parser.add_argument("--until-stdin-closes", action="store_true", help="stop with the program that started it")


class Progress:
    """Shows how far the phases of a command are: by a bar on a terminal, by lines of JSON on stderr for a program."""

    def __init__(self, as_json: bool = False):
        self._bar, self._task = None if as_json else progress_bar(), None
        self._phase, self._told = "", 0.0

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def tell(self, phase: str, done: int, total: int | None = None, text: str = "") -> None:
        """Say that `done` of `total` are done of a phase, and how it goes."""
        begins, self._phase = phase != self._phase, phase
        if self._bar is None:
            if begins or done == total or time.monotonic() - self._told > PAUSE:
                self._told = time.monotonic()
                line = {"phase": phase, "done": done, "total": total, "text": text}
                with suppress(OSError):  # who listened is gone
                    print(json.dumps(line), file=sys.stderr, flush=True)
            return
        if begins:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(phase)
        self._bar.update(self._task, completed=done, total=total, description=text or phase)

    def phase(self, name: str) -> Callable[[int, int], None]:
        """What tells of one phase."""
        return lambda done, total: self.tell(name, done, total)

    def steps(self, phase: str, total: int) -> Callable[[int, dict], None]:
        """What tells of a training's steps; see `Trainer.run`."""

        def show(step: int, numbers: dict) -> None:
            text = f"{phase}: loss {numbers['loss']:.3f}, Dice {numbers['dice']:.3f}"
            self.tell(phase, step, total, text)
            if step % EVERY == 0 and self._bar is not None and not sys.stderr.isatty():
                print(f"step {step} of {total}: {text}", file=sys.stderr)

        return show


class Enough:
    """Whether a training that can go on later stops now: its minutes are over, or somebody wants it to.

    Called after each step. While `held`, an interrupt (Ctrl+C, the system's SIGTERM, or with `with_stdin` the end of
    standard input) waits for it, and a second Ctrl+C breaks the work off; so does any at other times.
    """

    def __init__(self, minutes: float, with_stdin: bool = False):
        self._end = time.monotonic() + 60 * minutes
        self._holds = self.interrupted = False
        if with_stdin:
            hear_interrupts()
            when_stdin_closes(self._stop)

    def __call__(self) -> bool:
        return self.interrupted or time.monotonic() >= self._end

    def check(self) -> None:
        """Raise `KeyboardInterrupt` when somebody wanted it to stop; what was trained is saved."""
        if self.interrupted:
            raise KeyboardInterrupt("Stopped, and saved; the same command goes on.")

    def _stop(self) -> None:
        self.interrupted = True
        if not self._holds:
            _thread.interrupt_main()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let interrupts wait for the end of a step."""
        if threading.current_thread() is not threading.main_thread():  # nobody interrupts another
            yield
            return
        before = {sign: signal.getsignal(sign) for sign in (signal.SIGINT, signal.SIGTERM)}

        def note(sign: int, _frame) -> None:
            self.interrupted = True
            signal.signal(sign, before[sign])

        self._holds = True
        for sign in before:
            signal.signal(sign, note)
        try:
            yield
        finally:
            for sign, handler in before.items():
                signal.signal(sign, handler)
            self._holds = False
