"""A headless Slicer with the extension loaded; see ``shell``."""
# ruff: noqa: E402 - the shell comes before what imports Slicer

from __future__ import annotations

import gc
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "SlicerAIAssist")]
sys.path.append(str(ROOT / "Testing" / "backend"))  # how tests write a DICOM series

import pytest

from shell.start import start  # isort: skip - before what imports Slicer

import slicer

from shell import dicom, pythonqt, views
from slicer_home import cmake, install_extension


@pytest.fixture(scope="module", autouse=True)
def collected():
    """What the tests of a file leave goes in this thread: Qt's objects may not be destroyed in another."""
    yield
    gc.collect()


@pytest.fixture(scope="session")
def application(tmp_path_factory):
    """A started Slicer with the module loaded and its window open."""
    application = start(tmp_path_factory.mktemp("slicer"), ROOT / "SlicerAIAssist")
    yield application
    application.stop()


@pytest.fixture(scope="session")
def installed(tmp_path_factory) -> Path:
    """The folder of scripted modules of the extension, installed by CMake."""
    if cmake() is None:
        pytest.skip("there is no program cmake: apt-get install cmake, or pip install cmake")
    return install_extension(tmp_path_factory.mktemp("extension"))


@pytest.fixture
def scene(application):
    """An empty scene; nothing may have gone wrong in a slot when the test ends."""
    pythonqt.slot_errors.clear()
    slicer.app._layout = None
    application.scene.Clear(0)
    dicom.install()
    yield application.scene
    slicer.app._layout = None
    application.scene.Clear(0)
    assert pythonqt.slot_errors == []


@pytest.fixture
def slice_views(application, scene):
    """The three slice views."""
    opened = views.open_views(application)
    yield opened
    application.logic.GetSliceLogics().RemoveAllItems()
    for view in opened.values():
        view.close()


@pytest.fixture(scope="session")
def homes(application):
    """The three homes, each started once: a process on this computer, a server, and this Slicer."""
    from homes import Homes

    homes = Homes(application.folder / "homes")
    yield homes
    homes.close()


@pytest.fixture
def case(scene):
    """The bundled CT in the scene."""
    from helpers import Case

    return Case()


@pytest.fixture
def module(application, scene, homes):
    """The module's widget, shown, with its backend on this computer."""
    from AIAssistLib.autosave import Autosave

    widget = application.modules["AIAssist"].widgetRepresentation().self()
    homes.use(widget.logic.assistant, "computer")
    shutil.rmtree(widget.logic.settings.folder / "unsaved", ignore_errors=True)  # of the tests before
    widget.panel.recovery.autosave = Autosave(widget.logic.settings.folder / "unsaved")
    widget.panel.saving.home_changed()  # what others saved is not known to a test
    widget.enter()
    yield widget
    for talk in widget.logic.assistant._talks:  # its answer, or that there is none, is not said in another test
        talk.cancel()
    widget.exit()


@pytest.fixture
def panel(module, slice_views, case):
    """The panel over the bundled CT in three views, with an empty segment "liver" and AI Points active."""
    from helpers import add_segment

    panel = module.panel
    panel.ui.imagesCombo.setCurrentIndex(0)
    panel.editor.setSegmentationNode(case.segmentation)
    panel.editor.setSourceVolumeNode(case.node)
    case.liver = add_segment(case, "liver")
    panel.editor.setCurrentSegmentID(case.liver)
    for view in slice_views.values():
        view.show(case.node)
        view.enter()
    panel.points()
    return panel


@pytest.fixture
def points(panel):
    """AI Points, active."""
    effect = panel.editor.activeEffect().self()
    effect.ui.extremeButton.click()
    return effect
