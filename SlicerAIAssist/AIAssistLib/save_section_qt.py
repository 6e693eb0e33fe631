"""The panel's section on ground truth, export and the next image."""

from __future__ import annotations

from pathlib import Path

import qt
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError
from aiassist.imaging import describe_structure
from AIAssistLib.export import export
from AIAssistLib.ground_truth import GroundTruth
from AIAssistLib.section_qt import Section, fill_table
from AIAssistLib.structures import new_segment, segment_named
from AIAssistLib.worklist import after

#: What can be written, and the ending of its files.
FORMATS = {"Slicer segmentation": ".seg.nrrd", "NIfTI labelmap": ".nii.gz", "NRRD labelmap": ".nrrd"}


class SaveSection(Section):
    """Saves, brings back, exports, and goes on."""

    def __init__(self, panel):
        super().__init__(panel, "saveLabel")
        self._truth = GroundTruth(self.assistant)
        self._versions: list[dict] = []
        ui = self.ui
        ui.exportCombo.addItems(list(FORMATS))
        ui.saveButton.connect("clicked()", self.save)
        ui.saveNextButton.connect("clicked()", self.save_and_next)
        ui.nextButton.connect("clicked()", self.next)
        ui.refreshButton.connect("clicked()", self.refresh)
        ui.restoreButton.connect("clicked()", self.bring_back)
        ui.exportButton.connect("clicked()", self._export)
        ui.historyTable.connect("itemSelectionChanged()", self._chosen)
        ui.historyTable.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.tell("")

    def save(self) -> None:
        """Save all segments as ground truth."""
        self.attempt(self._save, self._saved)

    def save_and_next(self) -> None:
        """Save, then load the next image."""

        def saved(outcome) -> None:
            self._saved(outcome)
            self.attempt(self._next, True)

        self.attempt(self._save, saved)

    def _save(self, done) -> None:
        self.panel.accept_if_any()
        volume, segmentation = self.panel.structures.nodes()
        comment = self.ui.commentEdit.text.strip()
        talk = self._truth.save(volume, segmentation, comment, progress=self._sending)
        self.tell(_("Saving"))
        self.talk(talk, done)

    def _sending(self, share: float) -> None:
        self.tell(_("Sending the image: {share}").format(share=f"{share:.0%}"))

    def _saved(self, outcome) -> None:
        versions = ", ".join(f"{name} (version {number})" for name, number in outcome.versions.items())
        self.ui.commentEdit.setText("")
        self.panel.recovery.saved(outcome.study)
        self.tell(_("Saved: {versions}").format(versions=versions))
        self.refresh()

    # History

    def refresh(self) -> None:
        """Show all versions of this image's labels."""

        def seen(versions: list[dict]) -> None:
            self._versions = versions
            titles = [_("Structure"), _("Version"), _("Made"), _("By"), _("State"), _("Comment")]
            fill_table(self.ui.historyTable, titles, [_row(version) for version in versions])

        def look() -> None:
            self.talk(self._truth.history(self.panel.structures.volume()), seen)

        self.attempt(look)

    def _chosen(self) -> None:
        self.ui.restoreButton.setEnabled(self.ui.historyTable.currentRow() >= 0)

    def bring_back(self) -> None:
        """Put the chosen version into the segment of its name."""
        self.attempt(self._bring_back)

    def _bring_back(self) -> None:
        row = self.ui.historyTable.currentRow()
        if not 0 <= row < len(self._versions):
            raise AIAssistError("No version is chosen; choose one in the table.")
        version = self._versions[row]
        volume, segmentation = self.panel.structures.nodes()
        self.panel.editor.saveStateForUndo()
        segment_id = segment_named(segmentation, version["structure"])
        segment_id = segment_id or new_segment(segmentation, describe_structure(version["structure"]))

        def done(_nothing) -> None:
            self.tell(
                _("{name} is version {number} again here; save to make it the newest.").format(
                    name=version["structure"], number=version["number"]
                )
            )

        self.talk(self._truth.bring_back(version, volume, segmentation, segment_id), done)

    # Files

    def _export(self) -> None:
        ending = FORMATS[self.ui.exportCombo.currentText]
        path = qt.QFileDialog.getSaveFileName(self.panel.widget, _("Export"), f"labels{ending}", f"*{ending}")
        if path:
            self.attempt(self.export_to, Path(path if path.lower().endswith(ending) else path + ending))

    def export_to(self, path: Path) -> None:
        """Write all segments to a file."""
        volume, segmentation = self.panel.structures.nodes()
        export(segmentation, volume, path)
        self.tell(_("Written: {path}").format(path=path))

    def next(self) -> None:
        """Load the next image of the folder."""
        self.attempt(self._next)

    def _next(self, saved: bool = False) -> None:
        folder = self.ui.folderEdit.currentPath
        if not folder:
            raise AIAssistError("No folder of images is chosen; choose one above.")
        following = after(Path(folder), self._current())
        if following is None:
            self.tell(_("That was the last image of the folder."))
            return
        self.panel.load(following, saved)
        self._truth.restart_clock()

    def _current(self) -> Path | None:
        volume = self.panel.editor.sourceVolumeNode()
        storage = volume.GetStorageNode() if volume is not None else None
        return Path(storage.GetFileName()) if storage is not None and storage.GetFileName() else None


def _row(version: dict) -> list[str]:
    made = version["made"][:16].replace("T", " ")
    return [version["structure"], str(version["number"]), made, version["author"], version["state"], version["comment"]]
