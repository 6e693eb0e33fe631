"""The shell alone, without the extension."""

from __future__ import annotations

import os
from types import ModuleType, SimpleNamespace

import pytest


@pytest.fixture(scope="module")
def shell() -> SimpleNamespace:
    """The installed shell."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from shell import interpreter_lock, pythonqt, stand_ins, widgets

    qt = pythonqt.install()
    widgets.install()
    import ctk
    import slicer

    app = pythonqt.application()
    return SimpleNamespace(
        interpreter_lock=interpreter_lock,
        pythonqt=pythonqt,
        stand_ins=stand_ins,
        widgets=widgets,
        qt=qt,
        ctk=ctk,
        slicer=slicer,
        app=app,
    )


@pytest.fixture
def qt(shell) -> ModuleType:
    """The module `qt`; a slot that raised fails the test."""
    shell.pythonqt.slot_errors.clear()
    yield shell.qt
    assert shell.pythonqt.slot_errors == []


@pytest.fixture
def ctk(shell, qt) -> ModuleType:
    """The module `ctk`."""
    return shell.ctk


@pytest.fixture
def slicer(shell, qt) -> ModuleType:
    """The module `slicer` with the stand-ins."""
    return shell.slicer


@pytest.fixture
def scene(slicer):
    """A scene with one volume, CT."""
    scene = slicer.vtkMRMLScene()
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    return scene


@pytest.fixture
def selector(slicer, scene):
    """A node selector for volumes, with None."""
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.noneEnabled = True
    selector.setMRMLScene(scene)
    return selector


@pytest.fixture
def api(shell):
    """The table of Slicer's Qt API."""
    return shell.stand_ins.API
