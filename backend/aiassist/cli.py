"""The command line: ``aiassist``."""

from __future__ import annotations

import argparse
import errno
import io
import itertools
import os
import re
import select
import sys

# Matrix products are small here: more threads gain nothing and take the processor's cores from the network. numpy
# reads these once, when it is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("VECLIB_MAXIMUM_THREADS", "1")

import aiassist
from aiassist.errors import AIAssistError

#: A point with a negative first index, which argparse would take for an option.
_NEGATIVE_POINT = re.compile(r"-[\d.][^,]*,")


def main(argv: list[str] | None = None) -> int:
    """Run a command; returns the exit status.

    0, 2 with one sentence on stderr, 130 when interrupted, 141 when nobody reads what is printed.
    """
    _print_anything()
    arguments = [f" {a}" if _NEGATIVE_POINT.match(a) else a for a in (sys.argv[1:] if argv is None else argv)]
    try:
        _check_no_empty(arguments)
        options = _parser().parse_args(arguments)
        status = options.run(options) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return status
    except AIAssistError as error:
        print(f"aiassist: {error}", file=sys.stderr)
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            return 128 + 13
        print(f"aiassist: {_said(error)}", file=sys.stderr)
    except KeyboardInterrupt as error:
        print(f"aiassist: {str(error) or 'Stopped.'}", file=sys.stderr)
        return 130
    except MemoryError:
        print("aiassist: There is not enough memory for this; use a smaller volume.", file=sys.stderr)
    return 2


def _check_no_empty(arguments: list[str]) -> None:
    """Refuse empty arguments, which would silently be nothing, or the present folder; a comment may be empty."""
    for before, argument in itertools.pairwise(("", *arguments)):
        name, equals, text = argument.partition("=") if argument.startswith("--") else (before, "=", argument)
        if equals and not text and name != "--comment":
            what = f"{name} is" if name.startswith("--") else "An argument is"
            raise AIAssistError(
                f"{what} empty, as of a variable of the shell that is not set; give it, or leave it out."
            )


#: What to say of errors of the system that name a file.
_SENTENCES = {
    errno.ENOENT: "There is no file or folder {file}; check the spelling.",
    errno.EACCES: "{file} may not be read or written by this user, or is in use; change that, or take another.",
    errno.EROFS: "{file} lies on a disk that cannot be written; take another place.",
    errno.ENOSPC: "There is no room for {file}; free some, or take another disk.",
    errno.EISDIR: "{file} is a folder, where a file is needed.",
    errno.EEXIST: "{file} is a file, where a folder is needed.",
    errno.ENOTDIR: "{file} is a file, where a folder is needed.",
}


def _nobody_reads() -> bool:
    """Whether who read what is printed has seen enough, as head has; nothing is printed any more then."""
    if sys.stdout is None or not hasattr(select, "poll"):
        return False
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # of errors it tells in any case
    if not poll.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _said(error: OSError) -> str:
    """A sentence for an error of the system; those that were raised here have one of their own."""
    if not error.filename:
        return str(error)
    return _SENTENCES.get(error.errno, "{file}: {reason}.").format(file=error.filename, reason=error.strerror)


def _print_anything() -> None:
    """Print what the terminal's character set lacks as escapes, not as a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the arguments in one sentence, as all that is wrong is said; takes whole options only."""

    def __init__(self, *args, **more):
        super().__init__(*args, **{"allow_abbrev": False} | more)

    def error(self, message: str):
        raise AIAssistError(f"{message}; see {self.prog} --help.")


def _parser() -> _Parser:
    from aiassist.commands import annotate, contour, demo, evaluate, models, segment, serve, synth, tokens, train, truth

    parser = _Parser(prog="aiassist", description="AI-assisted annotation of medical images.")
    parser.add_argument("--version", action="version", version=f"aiassist {aiassist.__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    for command in (demo, annotate, segment, contour, evaluate, models, train, truth, serve, tokens, synth):
        command.add_to(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
