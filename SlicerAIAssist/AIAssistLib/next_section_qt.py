"""The panel's part on the next image, of a folder or of the backend's studies."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError, ImageError
from AIAssistLib.nodes import remove_with_display
from AIAssistLib.section_qt import Section, fill_table
from AIAssistLib.server_worklist import Study, fetched, show, studies, to_do_after
from AIAssistLib.talks import Talk, sentence
from AIAssistLib.worklist import after


class NextSection(Section):
    """Goes on to the next image."""

    def __init__(self, panel):
        super().__init__(panel, "saveLabel")
        self._studies: list[Study] = []
        self._fetching: Talk | None = None
        #: Which study the volume node is that was fetched last.
        self._fetched: tuple[str, str] = ("", "")
        #: A file that could not be loaded, after the one of the image that was shown then: the next is that after it.
        self._damaged: tuple[Path | None, Path | None] = (None, None)
        ui = self.ui
        ui.imagesCombo.addItems([_("of a folder"), _("of the server, or kept on this computer")])
        ui.imagesCombo.connect("currentIndexChanged(int)", self._source_chosen)
        ui.nextButton.connect("clicked()", self.next)
        ui.lookButton.connect("clicked()", self.look)
        ui.cancelNextButton.connect("clicked()", self.cancel)
        ui.studiesTable.connect("cellDoubleClicked(int,int)", self._open_row)
        ui.studiesTable.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self._source_chosen()
        self._show_progress(None)

    @property
    def _is_fetching(self) -> bool:
        return self._fetching is not None and self._fetching.active

    @property
    def _is_of_backend(self) -> bool:
        return self.ui.imagesCombo.currentIndex == 1

    def _source_chosen(self) -> None:
        self.ui.folderEdit.setVisible(not self._is_of_backend)
        self.ui.studiesWidget.setVisible(self._is_of_backend)
        if self._is_of_backend:
            self.look()

    def next(self) -> None:
        """Load the next image."""
        self.attempt(self._next_study if self._is_of_backend else self._next_file)

    def _next_file(self) -> None:
        folder = self.ui.folderEdit.currentPath
        if not folder:
            raise AIAssistError("No folder of images is chosen; choose one above.")
        here = self._file()
        shown, damaged = self._damaged
        following = after(Path(folder), damaged if damaged is not None and shown == here else here)
        if following is None:
            self.tell(_("That was the last image of the folder."))
        elif self.panel.may_leave():
            self._damaged = (here, following)
            self._go_on(_loaded(following))
            self._damaged = (None, None)

    def _file(self) -> Path | None:
        volume = self.panel.editor.sourceVolumeNode()
        storage = volume.GetStorageNode() if volume is not None else None
        return Path(storage.GetFileName()) if storage is not None and storage.GetFileName() else None

    def _go_on(self, volume) -> None:
        self.panel.open(volume)
        self.panel.saving.begin_anew()

    # The backend's studies

    def look(self) -> None:
        """Show which studies the backend keeps, and which are done."""
        self.attempt(lambda: self.talk(studies(self.assistant.conversations), self._seen))

    def _seen(self, listed: list[Study]) -> None:
        self._studies = listed
        rows = [[study.name, _state(study), str(study.structures)] for study in listed]
        fill_table(self.ui.studiesTable, [_("Image"), _("State"), _("Structures")], rows)

    def scene_closes(self) -> None:
        """All images go; the next one may get the ID of the last."""
        self.cancel()
        self._fetched = ("", "")

    def home_changed(self) -> None:
        """The models run elsewhere: what was listed is not there."""
        self._seen([])

    def _next_study(self) -> None:
        def seen(listed: list[Study]) -> None:
            self._seen(listed)
            following = to_do_after(listed, self._study())
            if following is not None:
                self.attempt(self._fetch, following)
            else:
                others = sum(bool(study.colleague) and not study.is_done for study in listed)
                nothing = _("No other image is to do here; {count} are kept.")
                with_others = _("No other image is to do here; {count} are kept, and colleagues work on {others}.")
                self.tell((with_others if others else nothing).format(count=len(listed), others=others))

        self.talk(studies(self.assistant.conversations), seen)

    def _study(self) -> str | None:
        """Id of the study that is shown, as far as it is known."""
        volume = self.panel.editor.sourceVolumeNode()
        if volume is None:
            return None
        node, study = self._fetched
        return study if node == volume.GetID() else vars(self.assistant.studies.of(volume)).get("study_id")

    def _open_row(self, row: int) -> None:
        self.attempt(self._fetch, self._studies[row])

    def _fetch(self, study: Study) -> None:
        if self._is_fetching:
            raise AIAssistError("An image is on its way already; wait for it, or cancel it.")
        if not self.panel.may_leave():
            return
        agreed = self.panel.work()
        talk = fetched(self.assistant.conversations, study, self._show_progress)
        self.tell(_("Getting {name}").format(name=study.name))
        self._show_progress(0.0)

        def done(volume) -> None:
            self._show_progress(None)
            self._fetched = (volume.GetID(), study.id)
            if self.panel.work() != agreed and not self.panel.may_leave():
                remove_with_display(volume)
                return
            show(volume)
            self._go_on(volume)
            self.panel.saving.refresh()
            labels = _("{name} has labels already; see History to bring them back.") if study.structures else ""
            self.tell(labels.format(name=study.name))

        def failed(error: Exception) -> None:
            self._show_progress(None)
            self.tell(sentence(error), failed=True)

        self._fetching = self.assistant.start(talk, done, failed)

    def cancel(self) -> None:
        """Stop getting an image; the one that is shown stays."""
        if self._is_fetching:
            self._fetching.cancel()
            self._show_progress(None)
            self.tell(_("Cancelled; this image stays."))

    def _show_progress(self, share: float | None) -> None:
        running = share is not None
        self.ui.nextProgress.setVisible(running)
        self.ui.nextProgress.setValue(round(100 * share) if running else 0)
        self.ui.cancelNextButton.setVisible(running)
        for button in (self.ui.nextButton, self.ui.saveNextButton):
            button.setEnabled(not running and self.ui.saveButton.enabled)  # as long as nothing is being saved


def _loaded(file: Path):
    """The volume node of a file; `ImageError` when Slicer cannot load it."""
    try:
        return slicer.util.loadVolume(str(file))
    except RuntimeError as error:
        raise ImageError(
            f"{file.name} cannot be loaded as an image; press Next image again to go past it, and put a whole copy "
            "in its place for later."
        ) from error


def _state(study: Study) -> str:
    """What the table says of a study."""
    if study.is_done:
        return _("done")
    return _("with {name}").format(name=study.colleague) if study.colleague else _("to do")
