"""What several commands share."""

from __future__ import annotations

import getpass
import sys
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

from aiassist.errors import AIAssistError, PromptError, StoreError
from aiassist.files import INDEX, check_writable


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


def add_model(parser: ArgumentParser, required: bool = False) -> None:
    """Add ``--model`` and ``--device``."""
    usual = "" if required else " (default: network)"
    parser.add_argument(
        "--model", metavar="M", required=required, help=f"which model{usual}; see: aiassist models list"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it runs (default: cpu)")


def add_studies(parser: ArgumentParser) -> None:
    """Add ``--studies``, a folder whose trained models are offered, too."""
    parser.add_argument(
        "--studies", metavar="DIR", type=Path, help="a studies folder, whose trained models are offered, too"
    )


def models_folder(options) -> Path | None:
    """Where the trained models of ``--studies`` lie, or None; `StoreError` when the folder is none of studies."""
    from aiassist.segmenters.model_store import MODELS

    if options.studies is None:
        return None
    check_studies(options.studies)
    return options.studies / MODELS


def check_studies(folder: Path) -> None:
    """Raise `StoreError` unless a folder is one of studies."""
    if not (folder / INDEX).exists():
        raise StoreError(f"{folder} is not a studies folder; make one with: aiassist truth add.")


def add_author(parser: ArgumentParser, text: str = "who answers for the label") -> None:
    """Add ``--author``, by default the name of the login."""
    parser.add_argument("--author", default=login(), help=f"{text} (default: %(default)s)")


def login() -> str:
    """The name of the login, or "unknown" where the system has none."""
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "unknown"


def check_output(output: str | Path, *inputs: str | Path | None) -> None:
    """Raise `PromptError` when writing `output` would destroy a file that a command reads, or may read in a folder.

    So would all that is written into a studies folder, whose versions never change.
    """
    output = Path(output)
    for folder in output.resolve().parents:
        if (folder / INDEX).is_file():
            raise PromptError(
                f"{output} lies in the studies folder {folder}, whose files must not change; write it somewhere else."
            )
    for path in map(Path, filter(None, inputs)):
        if not output.exists() or not path.exists():
            continue
        if output.samefile(path):
            raise PromptError(f"{output} is an input of this command and would be lost; give it another name.")
        if path.resolve() in (output.parent.resolve() / output.name).parents:
            raise PromptError(
                f"{output} is there already, in the input {path}, and would be lost; give it another name."
            )


def check_mask_name(path: str | Path) -> Path:
    """The path, when a plain mask can be written to a file of its name; else `AIAssistError`."""
    from aiassist.imaging.image_files import check_output_name

    path = check_output_name(path)
    if path.name.lower().endswith(".seg.nrrd"):
        raise PromptError(
            f"{path}: this command writes plain masks; use .nrrd here, or save it and: aiassist truth export."
        )
    return path


def one_structure(labels, path: str, value: int | None, option: str = "--value"):
    """Bool mask (k, j, i) of a labelmap's structure, or of one of several by its value, which `option` gives.

    `PromptError` when there is none, or several and no value.
    """
    import numpy as np

    if value is not None and value < 1:
        raise PromptError(f"{option} is {value}, which is no structure; use 1 or more.")
    mask = labels != 0 if value is None else labels == value
    if not mask.any():
        what = "any structure" if value is None else f"the value {value}"
        raise PromptError(f"{path} does not hold {what}; its values go up to {labels.max()}.")
    held = np.unique(labels[mask])
    if len(held) > 1:
        raise PromptError(f"{path} holds {len(held)} values from {held[0]} to {held[-1]}; say which by {option}.")
    return mask


def check_picture(path: Path, *inputs: str | None) -> None:
    """Raise `AIAssistError`, or `OSError`, when no picture can be written there, or only over an input."""
    if path.suffix.lower() != ".png":
        raise AIAssistError(f"{path} is no name for a picture; end it in .png.")
    check_output(path, *inputs)
    check_writable(path)


def millilitres_a_voxel(geometry) -> float:
    """Volume of a voxel of a `Geometry`."""
    import numpy as np

    return abs(float(np.linalg.det(geometry.affine[:3, :3]))) / 1000


def console():
    """A rich console on stdout."""
    from rich.console import Console

    return Console()


def progress_bar():
    """A rich progress bar on stderr, shown only on a terminal."""
    from rich.console import Console
    from rich.progress import Progress

    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
