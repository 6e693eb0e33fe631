"""The panel's section on ground truth and its history."""

from __future__ import annotations

import qt
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError
from AIAssistLib.ground_truth import GroundTruth
from AIAssistLib.section_qt import Section, fill_table
from AIAssistLib.settings_qt import SERVER
from AIAssistLib.tags import stamps_of
from AIAssistLib.talks import sentence


class SaveSection(Section):
    """Saves, and brings back."""

    def __init__(self, panel):
        super().__init__(panel, "saveLabel")
        self._truth = GroundTruth(self.assistant)
        self._versions: list[dict] = []
        ui = self.ui
        ui.authorEdit.connect("editingFinished()", self._name_author)
        ui.saveButton.connect("clicked()", self.save)
        ui.saveNextButton.connect("clicked()", self.save_and_next)
        ui.refreshButton.connect("clicked()", self.refresh)
        ui.restoreButton.connect("clicked()", self.bring_back)
        ui.historyTable.connect("itemSelectionChanged()", self._chosen)
        ui.historyTable.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.tell("")
        self.show_author()

    def show_author(self) -> None:
        """Show whose labels are saved; a server knows that by the token."""
        by_token, edit = self.logic.settings.where == SERVER, self.ui.authorEdit
        edit.setText("" if by_token else self.logic.settings.author)
        edit.setPlaceholderText(_("the owner of the token") if by_token else "")
        here = _("Who answers for the labels that are saved on this computer; remembered")
        there = _("The server knows you by your token, and saves your labels under its name")
        edit.setToolTip(there if by_token else here)
        edit.setEnabled(not by_token)

    def _name_author(self) -> None:
        """Save under another name from now on."""
        settings = self.logic.settings
        if settings.where != SERVER and self.ui.authorEdit.text.strip() != settings.author:
            settings.author = self.ui.authorEdit.text
            self.show_author()

    def save(self) -> None:
        """Save all segments as ground truth."""
        self.attempt(self._save, False)

    def save_and_next(self) -> None:
        """Save, then load the next image."""
        self.attempt(self._save, True)

    def _save(self, and_next: bool) -> None:
        self.panel.accept_if_any()
        volume, segmentation = self.panel.structures.nodes()
        author = self.logic.settings.author if self.assistant.home.near else None
        comment = self.ui.commentEdit.text.strip()
        talk = self._truth.save(volume, segmentation, comment, author=author, progress=self._sending)
        stamps = stamps_of(segmentation)
        self.tell(_("Saving"))
        self._allow(False)

        def done(outcome) -> None:
            self._allow(True)
            numbers = ", ".join(f"{name} (version {number})" for name, number in outcome.numbers.items())
            self.panel.recovery.autosave.saved(outcome.study, outcome.masks)
            same = self.panel.editor.sourceVolumeNode() is volume and stamps_of(segmentation) == stamps
            if same:
                self.ui.commentEdit.setText("")
                self.refresh()
            self.tell(" ".join((_("Saved: {versions}").format(versions=numbers), self._without(outcome))).strip())
            if and_next and same:
                self.panel.images.next()
            elif and_next:
                self.tell(_("Saved; but you went on drawing meanwhile, so this image stays."))

        def failed(error: Exception) -> None:
            self._allow(True)
            self.tell(sentence(error), failed=True)

        self.assistant.start(talk, done, failed)

    @staticmethod
    def _without(outcome) -> str:
        """What to add when the labels were saved without the image's DICOM headers."""
        return _("(without DICOM headers: {why})").format(why=outcome.without) if outcome.without else ""

    def _allow(self, allowed: bool) -> None:
        """One save at a time: what it is about must not change under it."""
        for button in (self.ui.saveButton, self.ui.saveNextButton, self.ui.nextButton):
            button.setEnabled(allowed)
        self._chosen()

    def _sending(self, share: float) -> None:
        self.tell(_("Sending the image: {share}").format(share=f"{share:.0%}"))

    # History

    def refresh(self) -> None:
        """Show all versions of this image's labels."""
        self._fill([])

        def look() -> None:
            volume = self.panel.structures.volume()

            def seen(versions: list[dict]) -> None:
                if self.panel.editor.sourceVolumeNode() is volume:  # else another image was chosen meanwhile
                    self._fill(versions)

            self.talk(self._truth.history(volume), seen)

        self.attempt(look)

    def _fill(self, versions: list[dict]) -> None:
        self._versions = versions
        titles = [_("Structure"), _("Version"), _("Made"), _("By"), _("State"), _("Comment")]
        fill_table(self.ui.historyTable, titles, [_row(version) for version in versions])
        self._chosen()

    def _chosen(self) -> None:
        chosen = 0 <= self.ui.historyTable.currentRow() < len(self._versions)
        self.ui.restoreButton.setEnabled(chosen and self.ui.saveButton.enabled)

    def bring_back(self) -> None:
        """Put the chosen version into the segment of its name."""
        self.attempt(self._bring_back)

    def _bring_back(self) -> None:
        row = self.ui.historyTable.currentRow()
        if not 0 <= row < len(self._versions):
            raise AIAssistError("No version is chosen; choose one in the table.")
        version = self._versions[row]
        volume, segmentation = self.panel.structures.nodes()

        def done(_nothing) -> None:
            self.tell(
                _("{name} is version {number} again here; save to make it the newest.").format(
                    name=version["structure"], number=version["number"]
                )
            )

        self.talk(self._truth.bring_back(version, volume, segmentation, self.panel.save_state), done)

    # Going on

    def unsaved(self, volume, segmentation) -> list[str]:
        """Names of the segments that are not saved as ground truth as they are."""
        return self._truth.unsaved(volume, segmentation)

    def begin_anew(self) -> None:
        """Another image is shown."""
        self._fill([])
        self._truth.restart_clock()


def _row(version: dict) -> list[str]:
    made = version["made"][:16].replace("T", " ")
    return [version["structure"], str(version["number"]), made, version["author"], version["state"], version["comment"]]
