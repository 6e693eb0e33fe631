"""Whose labels are saved: the name in the field Author on this computer, the token's on a server."""

from __future__ import annotations

import qt
import slicer

from aiassist.imaging import MaskPatch
from AIAssistLib.geometry import study_of
from AIAssistLib.segments import write_plainly
from helpers import add_segment, wait


def enter(edit, text: str) -> None:
    """Type something else into a field and press Return."""
    edit.setText(text)
    qt.QApplication.sendEvent(edit, qt.QKeyEvent(qt.QEvent.KeyPress, qt.Qt.Key_Return, qt.Qt.NoModifier))


def process_of(assistant) -> int:
    """The number of the process that answers."""
    return assistant.home.process._process.processId()


def test_labels_are_saved_under_the_name_that_was_entered_and_nothing_starts_again(panel, case, monkeypatch):
    settings, edit, assistant = panel.logic.settings, panel.ui.authorEdit, panel.logic.assistant
    monkeypatch.setattr("AIAssistLib.settings_qt.login", lambda: "bo")
    panel.saving.show_author()
    assert settings.author == edit.text == "bo"  # the login
    slicer.util.arrayFromVolume(case.node)[0, 0, 0] = -2000  # a study that nobody saved labels of
    slicer.util.arrayFromVolumeModified(case.node)
    segment = add_segment(case, "spleen", case.mask("spleen"))
    home = assistant.home
    assert save(panel)[0] == "bo"
    process, studies = process_of(assistant), set(home.conversations._volumes)
    assert study_of(case.node).study_id in studies
    enter(edit, " Dr. Bo ")
    assert settings.author == edit.text == "Dr. Bo"
    assert assistant.home is home and process_of(assistant) == process
    write_plainly(MaskPatch.of_mask(case.mask("liver")), case.node, case.segmentation, segment)
    panel.ui.saveButton.click()
    assert edit.enabled
    enter(edit, "somebody later")
    saved(panel)
    assert panel.ui.historyTable.item(0, 3).text() == "Dr. Bo"
    assert set(home.conversations._volumes) == studies  # nothing is sent again
    enter(edit, "")
    assert settings.author == edit.text == "bo"
    case.segmentation.GetSegmentation().RemoveSegment(segment)
    panel.ui.imagesCombo.setCurrentIndex(1)
    wait(lambda: panel.ui.studiesTable.rowCount)
    rows = [panel.ui.studiesTable.item(row, 1).text() for row in range(panel.ui.studiesTable.rowCount)]
    assert not any("with" in row for row in rows)  # no colleague of one's own


def save(panel) -> list[str]:
    """Save; the authors of all versions, the newest first."""
    panel.ui.saveLabel.setText("")
    panel.ui.saveButton.click()
    return saved(panel)


def saved(panel) -> list[str]:
    """Wait until labels are saved; the authors of all versions, the newest first."""
    before = panel.ui.historyTable.rowCount
    wait(lambda: "Saved" in panel.ui.saveLabel.text and panel.ui.historyTable.rowCount > before)
    return [panel.ui.historyTable.item(row, 3).text() for row in range(panel.ui.historyTable.rowCount)]


def test_a_server_knows_the_author_by_the_token(panel, monkeypatch):
    edit = panel.ui.authorEdit
    monkeypatch.setattr(type(panel.logic.settings), "where", property(lambda _settings: "server"))
    panel.backend._show_home()
    assert not edit.enabled and edit.text == ""
    assert edit.toolTip == "The server knows you by your token, and saves your labels under its name"
    monkeypatch.undo()
    panel.backend._show_home()
    assert edit.enabled and edit.text == panel.logic.settings.author
