"""The private folder with what Slicer's Python lacks; Slicer's own packages are never touched."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from aiassist.errors import AIAssistError

#: Names of packages whose modules are called otherwise.
_MODULES = {
    "scikit-image": "skimage",
    "pynrrd": "nrrd",
    "python-multipart": "python_multipart",
    "lazy-loader": "lazy_loader",
    "protobuf": "google.protobuf",
    "PyYAML": "yaml",
    "opentelemetry-api": "opentelemetry.trace",
}

#: File in a folder of packages with the Slicers that use it, one a line, by where their Python is installed.
USERS = "used-by.txt"

#: What the names of the folders end in that hold what learning needs besides, and what models of MONAI's zoo do.
LEARNING, BUNDLES = "-learning", "-bundles"

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
        return [one.name for one in self._needed()]

    def _needed(self) -> list[Requirement]:
        """What the requirements file says for this computer."""
        lines = (line.partition("#")[0].strip() for line in self.requirements.read_text(encoding="utf8").splitlines())
        listed = [Requirement(line) for line in lines if line]
        return [one for one in listed if one.marker is None or one.marker.evaluate()]

    def missing(self) -> list[str]:
        """The packages that neither Slicer nor the folder has, and those that the folder has in another version."""
        self.use()
        versions = _versions(self.folder)
        return [one.name for one in self._needed() if not self._has(one, versions)]

    def _has(self, needed: Requirement, versions: dict[str, str]) -> bool:
        place = _place_of(_MODULES.get(needed.name, needed.name.replace("-", "_").lower()))
        if place is None or not place.is_relative_to(self.folder):
            return place is not None  # Slicer's own go first, whatever their version
        version = versions.get(canonicalize_name(needed.name))
        return version is not None and needed.specifier.contains(version, prereleases=True)

    def use(self) -> None:
        """Let this Slicer import what lies in the folder; what Slicer has itself goes first."""
        if self.folder.is_dir() and str(self.folder) not in sys.path:
            sys.path.append(str(self.folder))
            importlib.invalidate_caches()
            users = _users(self.folder)
            if sys.prefix not in users:
                self._note_users({*users, sys.prefix})

    def _note_users(self, users: Iterable[str]) -> None:
        with suppress(OSError):  # of a folder that others may write
            (self.folder / USERS).write_text("\n".join(sorted(users)), encoding="utf8")

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
        """Put a finished install in its place and use it; the packages' own tests, a tenth of it, are left out.

        The folders of other versions that no Slicer but this one used are deleted.
        """
        for tests in [path for path in self.unfinished.rglob("tests") if path.is_dir()]:
            shutil.rmtree(tests, ignore_errors=True)
        users = {*_users(self.folder), sys.prefix}
        if self.folder.exists():
            shutil.rmtree(self.folder)
        self.unfinished.rename(self.folder)
        self.use()
        self._note_users(users)
        self._tidy()

    def _tidy(self) -> None:
        """Delete the folders that only this Slicer used, or Slicers that are gone; those in use on Windows stay."""
        stem = self.folder.name.removesuffix(LEARNING).removesuffix(BUNDLES)
        ours = {stem, stem + LEARNING, stem + BUNDLES, self.unfinished.name}
        for folder in self.folder.parent.glob("packages-*"):
            others = {one for one in _users(folder) - {sys.prefix} if Path(one).exists()}
            if folder.name in ours or others or not _users(folder):
                continue
            with suppress(OSError):  # renamed first, for half a folder would be worse than a whole one
                shutil.rmtree(folder.rename(folder.with_name(folder.name + ".old")))

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


def _users(folder: Path) -> set[str]:
    """The Slicers that noted that they use a folder; none where nobody noted anything."""
    try:
        return set((folder / USERS).read_text(encoding="utf8").split("\n")) - {""}
    except (OSError, ValueError):
        return set()


def _versions(folder: Path) -> dict[str, str]:
    """The versions of the packages in a folder, by their names, as pip's own folders are called."""
    parts = (path.name.removesuffix(".dist-info").partition("-") for path in folder.glob("*.dist-info"))
    return {canonicalize_name(name): version for name, _dash, version in parts}


def _place_of(module: str) -> Path | None:
    """Where a module would be imported from; None when nowhere."""
    try:
        spec = importlib.util.find_spec(module)
    except ModuleNotFoundError:  # of the package it lies in
        return None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    return next((Path(place) for place in places if place not in (None, "built-in", "frozen")), None)
