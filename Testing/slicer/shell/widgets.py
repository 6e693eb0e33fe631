"""Puts the stand-ins for the widgets of CTK and Slicer in their places."""

from __future__ import annotations

import sys

import slicer.util

from shell import ctk_choices, ctk_numbers, ctk_sections, mrml_widgets, node_combo_box, pythonqt
from shell.stand_ins import ctk
from shell.ui_files import UiLoader, load_ui

#: The modules that define widgets.
MODULES = (ctk_sections, ctk_numbers, ctk_choices, mrml_widgets, node_combo_box)


def install() -> None:
    """Make ``ctk`` importable and let `slicer.util.loadUI` and ``qt.QUiLoader`` know the stand-ins."""
    sys.modules["ctk"] = ctk
    pythonqt.install().QUiLoader = UiLoader
    slicer.util.loadUI = load_ui
