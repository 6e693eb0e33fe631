"""Goes through the tutorial's stories inside a running Slicer; anyone can start it by the module's Reload and Test."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import slicer

from aiassist.errors import AIAssistError
from AIAssistLib.autosave import Autosave
from AIAssistLib.child_qt import wait_for_ends
from AIAssistLib.settings_qt import COMPUTER, SERVER, SLICER
from AIAssistLib.stories import ELSEWHERE, EVERYWHERE, IN_SLICER, SAVING, Stage

#: The stories of each home. Nobody may stop a server for a test, nor leave labels there.
STORIES = {
    COMPUTER: (*EVERYWHERE, *SAVING, *ELSEWHERE),
    SERVER: EVERYWHERE,
    SLICER: (*EVERYWHERE, *SAVING, *IN_SLICER),
}


def run(test) -> None:
    """Run the stories on the home in use, then on the others that need no address.

    As Slicer's own tests do, this closes the scene. What it saves as ground truth goes into a temporary folder.

    Parameters
    ----------
    test : ScriptedLoadableModuleTest
        Shows the messages. `AssertionError` with a sentence when a story goes wrong.
    """
    slicer.mrmlScene.Clear(0)  # while the person's unsaved work is still kept for the person
    if slicer.app.layoutManager() is None:
        raise AIAssistError("There are no slice views to click in; start Slicer with its main window.")
    slicer.util.selectModule("AIAssist")
    panel = slicer.util.getModuleWidget("AIAssist").panel
    if panel.logic.packages.missing():
        raise AIAssistError("The self test needs the packages of this computer; press Install in AI Assist first.")
    used = panel.logic.settings.where
    with _elsewhere(panel) as studies:
        for where in dict.fromkeys((used, COMPUTER, SLICER)):
            panel.logic.assistant.move(panel.logic.settings.home(where, studies=studies))
            for story in STORIES[where]:
                _tell(test, panel, story)
    test.delayDisplay("All stories went well")


def _tell(test, panel, story: Callable[[Stage], None]) -> None:
    """Run one story in an empty scene."""
    home = panel.logic.assistant.home.name
    test.delayDisplay(f"{home}: {story.__name__.replace('_', ' ')}")
    slicer.mrmlScene.Clear(0)
    try:
        story(Stage(panel))
    except AssertionError as error:
        raise AssertionError(f"{home}, {story.__name__.replace('_', ' ')}: {error}") from error


@contextmanager
def _elsewhere(panel) -> Iterator[Path]:
    """A temporary folder for studies; unsaved work is kept there too, and the person's home comes back afterwards."""
    recovery, kept = panel.recovery, panel.recovery.autosave
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        recovery.autosave = Autosave(Path(folder) / "unsaved")
        try:
            yield Path(folder) / "studies"
        finally:
            slicer.mrmlScene.Clear(0)  # while what is unsaved goes into the folder
            recovery.autosave = kept
            panel.backend.restart()
            wait_for_ends()  # they have files of the folder open
