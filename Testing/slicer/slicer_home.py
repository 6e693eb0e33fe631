"""An installed Slicer without its desktop: ``PythonSlicer``, what Slicer ships, and our extension put in by CMake.

Everything is made of the packages of the environment that runs this, so no network is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import sysconfig
import zipfile
from importlib.metadata import Distribution, distribution
from pathlib import Path
from shlex import quote

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
#: Where an installed extension keeps its modules.
MODULES = Path("lib", "Slicer-5.12", "qt-scripted-modules")
#: What Slicer 5.12 ships (its SuperBuild/External_python-*.cmake), and in which versions, of what the extension and its
#: process use; and pip.
SHIPPED = {
    **{"numpy": "==2.4.*", "scipy": "==1.17.*", "SimpleITK": "==2.5.*", "pydicom": "==3.0.*", "highdicom": "==0.27.*"},
    **{"requests": "==2.32.*", "typing-extensions": "==4.15.*", "packaging": "", "pillow": "", "pyjpegls": ""},
    **{"charset-normalizer": "", "idna": "", "urllib3": "", "certifi": "", "pip": ""},
}
#: What stands in for the compiled part of Slicer: its MRML, and Qt.
DESKTOP = ("slicer-core", "vtk", "PySide6_Essentials", "shiboken6")

LAUNCHER = """#!/bin/sh
# Stands in for Slicer's launcher: sets what Slicer's Python needs, starts it, and waits for it as its parent.
unset PYTHONHOME PYTHONPATH PYTHONDONTWRITEBYTECODE
export PYTHONNOUSERSITE=1 AIASSIST_WITNESS={witness}
{python} "$@"
exit $?
"""
#: Imported by Slicer's Python when it starts. A process that is killed says nothing.
WITNESS = """
import atexit, json, os, sys
from pathlib import Path

def say():
    files = {name: module.__file__ for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)}
    told = Path(os.environ["AIASSIST_WITNESS"], f"{os.getpid()}.json")
    told.with_suffix(".part").write_text(json.dumps({"arguments": sys.orig_argv, "files": files}), encoding="utf8")
    told.with_suffix(".part").rename(told)

atexit.register(say)
"""


def cmake() -> str | None:
    """The program cmake, or None."""
    return shutil.which("cmake", path=os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]]))


def install_extension(folder: Path) -> Path:
    """Build and install the extension below a folder with CMake; the installed folder of its modules."""
    build, prefix = folder / "build", folder / "installed"
    for command in (
        ["-S", ROOT, "-B", build, f"-DSlicer_DIR={HERE / 'cmake'}", f"-DPYTHON_EXECUTABLE={sys.executable}"],
        ["--build", build, "--parallel", "2"],
        ["--install", build, "--prefix", prefix],
    ):
        done = subprocess.run([cmake(), *map(str, command)], capture_output=True, encoding="utf8", timeout=300)
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
    return prefix / MODULES


class SlicerHome:
    """Lays out ``bin/PythonSlicer`` and its packages.

    Parameters
    ----------
    folder : Path
        Made here.
    python : str
        The interpreter that becomes Slicer's; it sees the shipped packages and nothing else.

    Attributes
    ----------
    witness : Path
        Each process of PythonSlicer that ends in good order leaves ``NUMBER.json`` here: what it was started with,
        and the file of every module that it imported.
    """

    def __init__(self, folder: Path, python: str = sys.executable):
        self.folder, self.witness, self.desktop = folder, folder / "witness", folder / "desktop"
        self.witness.mkdir(parents=True)
        subprocess.run([python, "-m", "venv", "--without-pip", str(folder / "lib" / "Python")], check=True)
        (self.packages,) = (folder / "lib" / "Python" / "lib").glob("python3*/site-packages")
        (self.packages / "sitecustomize.py").write_text(WITNESS, encoding="utf8")
        self.python = folder / "bin" / "PythonSlicer"
        self.python.parent.mkdir()
        real = folder / "lib" / "Python" / "bin" / "python"
        self.python.write_text(
            LAUNCHER.format(witness=quote(str(self.witness)), python=quote(str(real))), encoding="utf8"
        )
        self.python.chmod(self.python.stat().st_mode | stat.S_IXUSR)
        link((*SHIPPED, *DESKTOP), self.desktop)

    def ship(self) -> None:
        """Give PythonSlicer what Slicer ships, from this environment."""
        link(tuple(SHIPPED), self.packages)

    def ship_from_the_internet(self) -> None:
        """Give PythonSlicer what Slicer ships, in Slicer's versions."""
        for command in (["-m", "ensurepip"], ["-m", "pip", "install", "--quiet", *map("".join, SHIPPED.items())]):
            subprocess.run([str(self.python), *command], check=True, stdout=subprocess.DEVNULL)

    def run_desktop(self, script: Path, *arguments: object, timeout: float = 300) -> str:
        """What a script prints that is run by the Python of Slicer's desktop, with the shell of these tests.

        It sees neither the checkout nor what Slicer lacks. `RuntimeError` with its messages when it fails.
        """
        paths = [self.desktop, HERE, HERE.parent / "benchmarks"]
        kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        done = subprocess.run(
            [sys.executable, "-S", "-P", str(script), *map(str, arguments)],
            env=kept | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
            capture_output=True,
            encoding="utf8",
            cwd=self.folder,
            timeout=timeout,
        )
        if done.returncode:
            raise RuntimeError(done.stdout + done.stderr)
        return done.stdout


def link(names: tuple[str, ...], folder: Path) -> None:
    """Let packages of this environment be found in a folder."""
    folder.mkdir(exist_ok=True)
    for name in names:
        installed = distribution(name)
        for top in {file.parts[0] for file in installed.files} - {"..", "__pycache__"}:
            if not (folder / top).exists():
                (folder / top).symlink_to(installed.locate_file(top))


def wheels(requirements: Path, folder: Path) -> Path:
    """Pack packages that are installed here into wheels again, all that a list names; the folder.

    Its ``requirements.txt`` names the versions at hand, which differ for the few that are held back for Slicer.
    """
    folder.mkdir()
    names = re.findall(r"^([\w.-]+)==", requirements.read_text(encoding="utf8"), re.MULTILINE)
    found = [distribution(name) for name in dict.fromkeys(names)]
    for installed in found:
        _wheel(installed, folder)
    lines = [f"{installed.metadata['Name']}=={installed.version}\n" for installed in found]
    (folder / "requirements.txt").write_text("".join(lines), encoding="utf8")
    return folder


def _wheel(installed: Distribution, folder: Path) -> None:
    tag = re.search(r"^Tag: (\S+)", installed.read_text("WHEEL"), re.MULTILINE)[1]
    name = re.sub(r"[-_.]+", "_", installed.metadata["Name"])
    with zipfile.ZipFile(folder / f"{name}-{installed.version}-{tag}.whl", "w") as wheel:
        for file in installed.files:
            if file.parts[0] != ".." and file.suffix != ".pyc":
                wheel.write(installed.locate_file(file), file.as_posix())


def size(folder: Path) -> int:
    """Bytes of all files but Python's caches, which it writes when it runs."""
    return sum(
        path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__"
    )
