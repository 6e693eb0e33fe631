"""What the backend's process on this computer is started with."""

from __future__ import annotations

import sys
from pathlib import Path

import aiassist
from AIAssistLib.packages import BUNDLES, LEARNING

#: Runs the command line from the extension's own copy of the package. What Slicer ships goes before what was
#: downloaded, so that nothing of Slicer's is ever replaced.
_PROGRAM = """
import sys
sys.path.insert(0, {package!r})
sys.path += {packages!r}
from aiassist.cli import main
sys.exit(main())
"""


def backend_command(
    python: str,
    packages: Path,
    studies: Path,
    device: str = "cpu",
    author: str = "me",
    has_models: bool = True,
) -> tuple[str, list[str]]:
    """Program and arguments that serve `studies` to this Slicer only, until it goes.

    Parameters
    ----------
    python : str
        Slicer's interpreter.
    packages : Path
        The private folder of what Slicer lacks; those of what learning and bundles need lie beside it.
    studies : Path
        The studies folder.
    device : str
        "cpu" or "cuda".
    author : str
        Whose labels are saved.
    has_models : bool
        Whether it will be asked for masks, and not only keep what is saved.
    """
    package = str(Path(aiassist.__file__).parents[1])
    folders = [str(packages), f"{packages}{LEARNING}", f"{packages}{BUNDLES}"]
    program = _PROGRAM.format(package=package, packages=folders)
    serve = ["serve", "--studies", str(studies), "--port", "0", "--until-stdin-closes"]
    serve += ["--device", device, f"--author={author}", *(["--warm-up"] if has_models else [])]
    return python, ["-P", "-c", program, *serve]


def slicer_python(slicer_home: str) -> str:
    """Slicer's interpreter for other processes; the running one outside of Slicer."""
    for name in ("PythonSlicer", "PythonSlicer.exe"):
        found = Path(slicer_home) / "bin" / name
        if found.exists():
            return str(found)
    return sys.executable
