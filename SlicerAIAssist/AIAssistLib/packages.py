"""The private folder with what Slicer's Python lacks; Slicer's own packages are never touched."""

from __future__ import annotations

import importlib
import importlib.util
import re
import shutil
import sys
from pathlib import Path

from aiassist.errors import AIAssistError

#: Names of packages whose modules are called otherwise.
_MODULES = {
    "scikit-image": "skimage",
    "pynrrd": "nrrd",
    "python-multipart": "python_multipart",
    "lazy-loader": "lazy_loader",
    "protobuf": "google.protobuf",
    "opentelemetry-api": "opentelemetry.trace",
}

#: Runs pip until it is done or standard input closes: `PythonSlicer` is a launcher, and killing it leaves pip running.
_PIP = """
import os, runpy, sys, threading
def leave():
    while os.read(0, 4096):
        pass
    os._exit(1)
threading.Thread(target=leave, daemon=True).start()
sys.argv[0] = "pip"
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


class Packages:
    """What is listed in a requirements file, in a folder of its own.

    Parameters
    ----------
    folder : Path
        Made by an install, gone after `remove`.
    requirements : Path
        ``name==version`` lines, complete: installed without their dependencies.
    """

    def __init__(self, folder: Path, requirements: Path):
        self.folder, self.requirements = Path(folder), Path(requirements)

    @property
    def names(self) -> list[str]:
        """The packages that are needed."""
        lines = self.requirements.read_text(encoding="utf8").splitlines()
        found = (re.match(r"[A-Za-z0-9_.-]+(?=\s*==)", line) for line in lines)
        return list(dict.fromkeys(match.group() for match in found if match))

    def missing(self) -> list[str]:
        """The packages that neither Slicer nor the folder has."""
        self.use()
        return [name for name in self.names if not _importable(_MODULES.get(name, name.replace("-", "_").lower()))]

    def use(self) -> None:
        """Let this Slicer import what lies in the folder; what Slicer has itself goes first."""
        if self.folder.is_dir() and str(self.folder) not in sys.path:
            sys.path.append(str(self.folder))
            importlib.invalidate_caches()

    def arguments(self, wheels: Path | None = None) -> list[str]:
        """Arguments for Slicer's interpreter that install into `unfinished`; from a folder of wheels, if given."""
        source = ["--no-index", "--find-links", str(wheels)] if wheels is not None else []
        return [
            *("-P", "-c", _PIP, "install", "--no-deps", "--only-binary", ":all:", "--no-compile"),
            "--no-cache-dir",  # it would stay when the folder is removed
            *("--disable-pip-version-check", "--target", str(self.unfinished), "-r", str(self.requirements), *source),
        ]

    @property
    def unfinished(self) -> Path:
        """Where an install goes before it is complete."""
        return self.folder.with_name(self.folder.name + ".part")

    def begin(self) -> None:
        """Clear away what an install that broke off left."""
        shutil.rmtree(self.unfinished, ignore_errors=True)
        self.folder.parent.mkdir(parents=True, exist_ok=True)

    def complete(self) -> None:
        """Put a finished install in its place and use it; the packages' own tests, a tenth of it, are left out."""
        for tests in [path for path in self.unfinished.rglob("tests") if path.is_dir()]:
            shutil.rmtree(tests, ignore_errors=True)
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.unfinished.rename(self.folder)
        self.use()

    def remove(self) -> int:
        """Delete the folder and those of older versions; how many bytes that freed.

        `AIAssistError` when a file is in use, as on Windows while this Slicer has it open.
        """
        freed = 0
        for folder in self.folder.parent.glob("packages-*"):
            freed += sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            try:
                shutil.rmtree(folder)
            except OSError as error:
                raise AIAssistError(
                    f"{folder} cannot be deleted yet ({error.strerror}); restart Slicer and try again."
                ) from error
        if str(self.folder) in sys.path:
            sys.path.remove(str(self.folder))
        return freed


def _importable(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # of the package it lies in
        return False
