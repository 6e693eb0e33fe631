"""Keeps unsaved work on the disk every now and then, and offers it after a crash."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from aiassist.errors import ImageError
from aiassist.imaging import describe_structure
from AIAssistLib.autosave import Autosave
from AIAssistLib.section_qt import Section
from AIAssistLib.segments import write_plainly
from AIAssistLib.structures import new_segment

#: Milliseconds between two looks for changes.
EVERY = 15000


class Recovery(Section):
    """Autosave of the segmentation in the panel."""

    def __init__(self, panel):
        super().__init__(panel, "saveLabel")
        self.autosave = Autosave(panel.logic.settings.folder / "unsaved")
        self._timer = qt.QTimer()
        self._timer.setInterval(EVERY)
        self._timer.connect("timeout()", self.keep)
        self._found: list = []
        self.ui.recoverButton.connect("clicked()", self.bring_back)
        self.ui.recoverButton.setVisible(False)

    def start(self) -> None:
        """The module is shown."""
        self._timer.start()
        self.look()

    def stop(self) -> None:
        """Another module is shown: what is there is kept first."""
        self._timer.stop()
        while self.keep():
            pass

    def keep(self) -> bool:
        """Write one segment that changed; whether there was one."""
        volume, segmentation = self.panel.editor.sourceVolumeNode(), self.panel.editor.segmentationNode()
        if volume is None or segmentation is None:
            return False
        try:
            study = self.assistant.studies.of(volume)
        except ImageError:
            return False
        if "study_id" not in study.__dict__:  # not hashed yet, so nothing was asked of a model either
            self.look()
            return False
        try:
            return self.autosave.keep_one(study.study_id, segmentation, volume) is not None
        except OSError as error:
            self.tell(_("Unsaved work cannot be kept: {why}").format(why=error.strerror), failed=True)
            return False

    def look(self) -> None:
        """Offer what an earlier Slicer did not save of this image."""
        volume = self.panel.editor.sourceVolumeNode()
        if volume is not None:
            study = self.assistant.studies.of(volume)
            self.talk(study.hashing(), self._hashed)

    def _hashed(self, study: str) -> None:
        segmentation = self.panel.editor.segmentationNode()
        segments = segmentation.GetSegmentation() if segmentation is not None else None
        count = segments.GetNumberOfSegments() if segments is not None else 0
        here = {segments.GetNthSegment(n).GetName() for n in range(count)}
        self._found = [(name, mask) for name, mask in self.autosave.found(study) if name not in here]
        self.ui.recoverButton.setVisible(bool(self._found))
        names = ", ".join(name for name, _mask in self._found)
        self.ui.recoverButton.setText(_("Recover unsaved work: {names}").format(names=names))

    def bring_back(self) -> None:
        """Add what was not saved as segments."""
        self.attempt(self._bring_back)

    def _bring_back(self) -> None:
        volume, segmentation = self.panel.structures.nodes()
        self.panel.editor.saveStateForUndo()
        for name, mask in self._found:
            segment_id = new_segment(segmentation, describe_structure(name))
            write_plainly(mask, volume, segmentation, segment_id)
        self._found = []
        self.ui.recoverButton.setVisible(False)

    def saved(self, study: str) -> None:
        """The study's masks are ground truth now."""
        self.autosave.forget(study)
        segmentation = self.panel.editor.segmentationNode()
        if segmentation is not None:
            self.autosave.begin(study, segmentation)
