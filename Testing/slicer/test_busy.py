"""What cannot be interrupted is announced: a sentence and a busy cursor before it, and none after."""

from __future__ import annotations

import pytest
import qt
import slicer

from AIAssistLib.segments import SegmentWriter
from helpers import CASE, add_segment, answered, click_ends, mask_of, wait


def is_busy() -> bool:
    """Whether the cursor says that Slicer is busy."""
    cursor = qt.QApplication.overrideCursor()
    return cursor is not None and cursor.shape() == qt.Qt.WaitCursor


class Painted:
    """What a label showed when it was last painted."""

    def __init__(self, label, monkeypatch):
        self.text = ""
        repaint = type(label).repaint
        monkeypatch.setattr(type(label), "repaint", lambda one: (self._note(one), repaint(one)))

    def _note(self, label) -> None:
        self.text = label.text


@pytest.mark.parametrize("surface", [False, True])
def test_accept_says_that_slicer_makes_the_surface(surface, points, panel, slice_views, case, monkeypatch):
    if surface:
        case.segmentation.CreateClosedSurfaceRepresentation()
    painted, seen, write = Painted(points.ui.statusLabel, monkeypatch), [], SegmentWriter.write
    monkeypatch.setattr(SegmentWriter, "write", lambda *given: seen.append((painted.text, is_busy())) or write(*given))
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    said = "Writing the segment; Slicer makes its 3D surface anew, which cannot be interrupted" if surface else ""
    assert seen == [(said, True)]
    assert mask_of(case, case.liver).any()
    assert not is_busy() and points.ui.statusLabel.text == ""


def test_what_cannot_be_accepted_leaves_no_busy_cursor(points, slice_views, case):
    case.segmentation.CreateClosedSurfaceRepresentation()
    click_ends(slice_views, case.ends("spleen"))
    points.accept()
    assert "still answering" in points.ui.statusLabel.text and not is_busy()
    answered(points)


def test_propagate_is_announced(panel, case, monkeypatch):
    panel.editor.setCurrentSegmentID(add_segment(case, "spleen", case.mask("spleen")))
    panel.contour()
    effect = panel.editor.activeEffect().self()
    painted, seen = Painted(effect.ui.statusLabel, monkeypatch), []
    monkeypatch.setattr(effect.contour, "propagate", lambda count: seen.append((painted.text, is_busy())) or count)
    effect.ui.slicesSpinBox.setValue(1)
    effect.ui.propagateButton.click()
    assert seen == [("Carrying the pull on to the neighbouring slices", True)]
    assert effect.ui.statusLabel.text == "One neighbouring slice changed." and not is_busy()


def test_a_file_that_slicer_loads_is_announced(panel, tmp_path, monkeypatch):
    (tmp_path / "a.nii.gz").write_bytes((CASE / "image.nii.gz").read_bytes())
    painted, seen = Painted(panel.ui.saveLabel, monkeypatch), []

    def load(_path):  # as Slicer's own, which no test has
        seen.append((painted.text, is_busy()))
        raise RuntimeError("damaged")

    monkeypatch.setattr(slicer.util, "loadVolume", load)
    panel.ui.folderEdit.currentPath = str(tmp_path)
    panel.ui.nextButton.click()
    wait(lambda: seen)
    assert seen == [("Loading a.nii.gz", True)]
    assert not is_busy() and panel.ui.nextButton.enabled
