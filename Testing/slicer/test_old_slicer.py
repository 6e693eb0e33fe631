"""A Slicer that is too old for AI Assist says so in one sentence."""

from __future__ import annotations

import sys

import pytest
import qt
import slicer

SENTENCE = "AI Assist needs Slicer 5.12 or later."


@pytest.fixture(params=["without the editor's logic", "with Python 3.9"])
def old(request, application, scene, monkeypatch):
    """The module of a Slicer that is too old."""
    if request.param == "with Python 3.9":
        monkeypatch.setattr(sys, "version_info", (3, 9, 10))
    else:
        monkeypatch.delattr(slicer, "vtkSlicerSegmentEditorLogic")
    return sys.modules["AIAssist"]


def test_the_panel_says_which_slicer_is_needed_and_nothing_else_happens(old):
    parent = qt.QWidget()
    parent.setLayout(qt.QVBoxLayout())
    widget = old.AIAssistWidget(parent)
    widget.setup()
    widget.enter()
    widget.exit()
    assert [label.text for label in parent.findChildren(qt.QLabel)] == [SENTENCE]
    assert widget.panel is None
    widget.cleanup()


def test_effects_are_not_registered_and_the_console_says_why(old, monkeypatch):
    registered = []
    monkeypatch.setattr("AIAssistEffects.register", lambda: registered.append(1))
    instance = slicer.modules.AIAssistInstance
    instance.startup_completed()
    assert registered == []
    with pytest.raises(RuntimeError) as raised:
        instance.logic  # noqa: B018
    assert str(raised.value) == SENTENCE
