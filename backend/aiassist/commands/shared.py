"""What several commands share."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, ArgumentTypeError


def point(text: str) -> list[float]:
    """The type of an option that is a point ``I,J,K``."""
    parts = text.strip().split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != 3:
        raise ArgumentTypeError(f"{text.strip()!r} is not a point; write it as I,J,K, for example 120,88.5,40")
    return values


def add_model(parser: ArgumentParser) -> None:
    """Add ``--model`` and ``--device``."""
    parser.add_argument("--model", metavar="M", help="which model; see: aiassist models list")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it runs (default: cpu)")


def add_author(parser: ArgumentParser) -> None:
    """Add ``--author``, by default the name of the login."""
    parser.add_argument("--author", default=login(), help="who answers for the label (default: %(default)s)")


def login() -> str:
    """The name of the login, or "unknown" where the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def console():
    """A rich console on stdout."""
    from rich.console import Console

    return Console()


def progress_bar():
    """A rich progress bar on stderr, shown only on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
