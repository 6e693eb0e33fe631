"""The stories that anyone can run in a Slicer, on each of the three homes."""

from __future__ import annotations

import shutil
import sys

import pytest
import slicer

from AIAssistLib.self_test import STORIES
from AIAssistLib.settings_qt import COMPUTER, SERVER, SLICER
from AIAssistLib.stories import ELSEWHERE, EVERYWHERE, IN_SLICER, SAVING, Stage
from AIAssistLib.stories.stage import expect
from homes import NAMES

#: The engine of this Slicer cannot be lost without Slicer: what is lost there is the process that keeps the labels.
TOLD = [
    *((story, home) for story in (*EVERYWHERE, *SAVING) for home in NAMES),
    *((story, home) for story in ELSEWHERE for home in ("computer", "server")),
    *((story, "slicer") for story in IN_SLICER),
]


@pytest.mark.parametrize(("story", "home"), TOLD, ids=[f"{story.__name__}-{home}" for story, home in TOLD])
def test_story(story, home, module, homes, slice_views):
    """What is lost is the process on this computer or the server's; in this Slicer, the one that keeps the labels."""
    homes.use(module.logic.assistant, home)
    story(Stage(module.panel, lose=lambda: homes.lose(home)))


@pytest.fixture
def self_test(module, slice_views, monkeypatch):
    """Runs the self test with these stories on this computer, and those in this Slicer."""
    monkeypatch.setattr(slicer.util, "selectModule", lambda name: None)
    monkeypatch.setattr(module.panel.backend, "look", lambda: None)  # it would only start one more process

    def run(on_computer: tuple, in_slicer: tuple = ()) -> None:
        monkeypatch.setattr("AIAssistLib.self_test.STORIES", {COMPUTER: on_computer, SLICER: in_slicer})
        sys.modules["AIAssist"].AIAssistTest().runTest()

    yield run
    module.logic.assistant.home.close()


def test_the_self_test_goes_through_both_homes_of_this_computer_and_leaves_nothing_behind(self_test, module, scene):
    settings, kept, told = module.logic.settings, module.panel.recovery.autosave, []
    shutil.rmtree(settings.studies, ignore_errors=True)  # of the tests before

    def note(stage) -> None:
        told.append(stage.panel.logic.assistant.home.name)

    self_test((note, *SAVING), (note,))
    assert told == ["This computer", "This Slicer"]
    assert scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 0
    assert not settings.studies.exists() and not list((settings.folder / "unsaved").rglob("*.patch"))
    assert module.panel.recovery.autosave is kept
    assert module.logic.assistant.home.name == "This computer" and not module.logic.assistant.home.process.running


def test_the_self_test_fails_with_a_sentence(self_test):
    def a_pig_flies(stage) -> None:
        expect(not stage.truth("spleen").any(), "pigs fly")

    with pytest.raises(AssertionError, match=r"^This computer, a pig flies: It is not so that pigs fly\.$"):
        self_test((a_pig_flies,))


def test_the_self_test_runs_all_stories_and_stops_no_server():
    everything = {*EVERYWHERE, *SAVING, *ELSEWHERE, *IN_SLICER}
    assert everything == {*STORIES[COMPUTER], *STORIES[SLICER]}
    assert not {*STORIES[SERVER]} & {*SAVING, *ELSEWHERE, *IN_SLICER}
