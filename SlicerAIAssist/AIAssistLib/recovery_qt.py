"""Keeps unsaved work on the disk every now and then, and offers it after a crash."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError, StudyError
from aiassist.imaging import describe_structure
from AIAssistLib.autosave import Autosave, Found
from AIAssistLib.section_qt import Section
from AIAssistLib.segments import read_mask, write_plainly
from AIAssistLib.structures import new_segment, segment_named
from AIAssistLib.talks import Talk

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
        self._found: tuple[str, list[Found]] = ("", [])
        self._looking: Talk | None = None
        self.ui.recoverButton.connect("clicked()", self.bring_back)
        self.ui.discardButton.connect("clicked()", self.discard)
        self._offer("", [])

    def start(self) -> None:
        """Something is being annotated."""
        self._timer.start()
        self.look()

    def stop(self) -> None:
        """It is left: what changed is kept first."""
        self._timer.stop()
        while self.keep():
            pass

    def keep(self) -> bool:
        """Write one segment that changed; whether there was one."""
        editor = self.panel.editor
        volume, segmentation = editor.sourceVolumeNode(), editor.segmentationNode()
        if volume is None or segmentation is None:
            return False
        try:
            study = self.assistant.studies.of(volume)
            if "study_id" not in vars(study):  # nothing was asked of a model yet
                self.look()
                return False
            name = self.autosave.keep_one(study.study_id, segmentation, volume, editor.currentSegmentID())
        except (AIAssistError, OSError) as error:
            why = error.strerror if isinstance(error, OSError) else str(error)
            self.tell(_("Unsaved work cannot be kept: {why}").format(why=why), failed=True)
            return False
        return name is not None

    def look(self) -> None:
        """Offer what an earlier Slicer did not save of this image."""
        self._offer("", [])
        if self._looking is not None:
            self._looking.cancel()
        volume = self.panel.editor.sourceVolumeNode()
        try:
            study = self.assistant.studies.of(volume) if volume is not None else None
        except AIAssistError:  # said when somebody wants to annotate it
            return
        if study is not None:
            self._looking = self.assistant.start(study.hashing(), self._hashed, lambda _error: None)

    def _hashed(self, study: str) -> None:
        volume, segmentation = self.panel.editor.sourceVolumeNode(), self.panel.editor.segmentationNode()

        def is_here(found: Found) -> bool:
            here = segment_named(segmentation, found.name) if segmentation is not None else ""
            return bool(here) and read_mask(segmentation, here, volume).version == found.mask.version

        self._offer(study, [found for found in self.autosave.found(study) if not is_here(found)])

    def _offer(self, study: str, found: list[Found]) -> None:
        self._found = (study, found)
        names = ", ".join(one.name for one in found)
        self.ui.recoverButton.setText(_("Recover unsaved work: {names}").format(names=names))
        self.ui.recoverButton.setVisible(bool(found))
        self.ui.discardButton.setVisible(bool(found))

    def bring_back(self) -> None:
        """Add what was not saved as segments."""
        self.attempt(self._bring_back)

    def _bring_back(self) -> None:
        study, found = self._found
        volume, segmentation = self.panel.structures.nodes()
        if self.assistant.studies.of(volume).study_id != study:
            self.look()
            raise StudyError("The unsaved work is another image's; load that one to recover it.")
        self.panel.editor.saveStateForUndo()
        for one in found:
            segment_id = new_segment(segmentation, describe_structure(one.name))
            write_plainly(one.mask, volume, segmentation, segment_id)
        while self.keep():  # before the old files go
            pass
        self.discard()

    def discard(self) -> None:
        """What earlier runs kept of this image is not wanted any more."""
        self.autosave.forget_earlier(self._found[0])
        self._offer("", [])
