"""What Slicer's Python gives to scripted modules: its own code when SLICER_SOURCE is set, else the least."""

from __future__ import annotations

import logging
import os
import sys
import types
from pathlib import Path

import qt
import slicer


def install() -> None:
    """Make ``slicer.ScriptedLoadableModule`` and ``slicer.i18n`` importable."""
    source = os.environ.get("SLICER_SOURCE")
    if source:
        slicer.__path__.append(str(Path(source) / "Base" / "Python" / "slicer"))
        sys.path.append(str(Path(source) / "Modules" / "Loadable" / "Segmentations" / "EditorEffects" / "Python"))
        return
    i18n = types.ModuleType("slicer.i18n")
    i18n.tr = lambda text: text
    i18n.translate = lambda context, text: text
    module = types.ModuleType("slicer.ScriptedLoadableModule")
    for kind in (ScriptedLoadableModule, ScriptedLoadableModuleWidget, ScriptedLoadableModuleLogic):
        setattr(module, kind.__name__, kind)
    module.ScriptedLoadableModuleTest = ScriptedLoadableModuleTest
    for made in (i18n, module):
        sys.modules[made.__name__] = made
        setattr(slicer, made.__name__.partition(".")[2], made)


class ScriptedLoadableModule:
    """As Slicer's."""

    def __init__(self, parent):
        self.parent = parent
        self.moduleName = self.__class__.__name__
        parent.title = ""
        parent.categories = []
        parent.dependencies = []
        parent.contributors = []

    def getDefaultModuleDocumentationLink(self):
        """See Slicer."""
        return ""


class ScriptedLoadableModuleWidget:
    """As Slicer's, without its developer section."""

    def __init__(self, parent=None):
        self.moduleName = self.__class__.__name__.removesuffix("Widget")
        self.parent = parent
        self.layout = parent.layout()

    def resourcePath(self, filename):
        """See Slicer."""
        folder = Path(slicer.app.moduleManager().module(self.moduleName).path).parent
        return str(folder / "Resources" / filename)

    def setup(self):
        """See Slicer."""

    def cleanup(self):
        """See Slicer."""


class ScriptedLoadableModuleLogic:
    """As Slicer's, without parameter nodes."""

    def __init__(self, parent=None):
        self.moduleName = self.__class__.__name__.removesuffix("Logic")


class ScriptedLoadableModuleTest:
    """As Slicer's; shows messages in the log."""

    def delayDisplay(self, message, *_):
        """See Slicer."""
        logging.info(message)
        qt.QApplication.processEvents()
