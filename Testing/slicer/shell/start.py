"""Starts the headless Slicer with the extension. Import this before anything that imports `qt`, `ctk` or `slicer`."""
# ruff: noqa: E402 - the stand-ins come before what is written with them

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from shell import pythonqt, widgets

pythonqt.install()
widgets.install()

from shell import editor, network, scripted
from shell.application import Application


def start(folder: Path, modules: Path, home: Path | None = None) -> Application:
    """A started Slicer with its window open and the module AI Assist loaded, not yet shown.

    Parameters
    ----------
    folder : Path
        Where settings and temporary files go.
    modules : Path
        The folder that holds ``AIAssist.py``.
    home : Path, optional
        Where Slicer is installed, with ``bin/PythonSlicer``; nowhere when absent.
    """
    pythonqt.application()
    scripted.install()
    editor.install()
    network.install()
    application = Application(folder, home)
    application.load_module(Path(modules) / "AIAssist.py")
    application.open_window()
    application.start()
    return application
