"""What the extension adds to the model's own time inside Slicer, on a volume of 512x512x300 voxels.

    python Testing/benchmarks/bench_slicer.py

The extension is installed with CMake into a temporary folder and runs from there, its process by a stand-in for
``PythonSlicer``; ``inside_slicer.py`` does the measuring. "Cold" is the first start after the installation: no compiled
Python files of extension and packages, and no earlier process. The operating system's own cache of files is as it is.
"""

# ruff: noqa: E402 - the tests' folder comes before what lies there

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "slicer"))

from slicer_home import SlicerHome, install_extension, wheels


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        modules = install_extension(folder)
        home = SlicerHome(folder / "Slicer")
        home.ship()
        packed = wheels(modules / "Resources" / "requirements.txt", folder / "wheels")
        for what in ("cold", "warm", "patient", "all"):
            told = home.run_desktop(HERE / "inside_slicer.py", what, modules, home.folder, packed, timeout=1200)
            print(told, end="", flush=True)


if __name__ == "__main__":
    main()
