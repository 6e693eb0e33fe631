"""The panel's part on the next image, of a folder or of the backend's studies."""

from __future__ import annotations

from pathlib import Path

import qt
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError, ImageError
from AIAssistLib.dicom_headers import files_of
from AIAssistLib.loading import loaded
from AIAssistLib.nodes import remove_with_display
from AIAssistLib.section_qt import Section, busy, fill_table
from AIAssistLib.server_worklist import Study, fetched, show, studies, to_do_after
from AIAssistLib.talks import Conversation, Talk, sentence
from AIAssistLib.worklist import Found, Series, after

#: The choice that is remembered: where the images come from, and what it is unless they are a folder's.
SOURCE, BACKEND = "images", "backend"


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
        self._series = Series()
        ui = self.ui
        ui.imagesCombo.addItems([_("of a folder"), _("of the server, or kept on this computer")])
        ui.imagesCombo.setCurrentIndex(int(self.logic.settings.choice(SOURCE) == BACKEND))
        ui.imagesCombo.connect("currentIndexChanged(int)", self._source_chosen)
        ui.nextButton.connect("clicked()", self.next)
        ui.firstButton.connect("clicked()", self.first)
        ui.studiesLookButton.connect("clicked()", self.look)
        ui.cancelNextButton.connect("clicked()", self.cancel)
        ui.studiesTable.connect("cellDoubleClicked(int,int)", self._open_row)
        ui.studiesTable.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        ui.saveSection.connect("contentsCollapsed(bool)", self._opened)
        self._show_source()
        self._show_progress(None)

    @property
    def _is_fetching(self) -> bool:
        return self._fetching is not None and self._fetching.active

    @property
    def _is_of_backend(self) -> bool:
        return self.ui.imagesCombo.currentIndex == 1

    def _source_chosen(self) -> None:
        self.logic.settings.set_choice(SOURCE, BACKEND if self._is_of_backend else "")
        self._show_source()
        if self._is_of_backend:
            self.look()

    def _opened(self, collapsed: bool) -> None:
        """The section is opened: list the studies, where they are the source since another day, and not listed yet."""
        if not collapsed and self._is_of_backend and not self._studies:
            self.look()

    def _show_source(self) -> None:
        for widget in (self.ui.folderEdit, self.ui.firstButton):
            widget.setVisible(not self._is_of_backend)
        self.ui.studiesWidget.setVisible(self._is_of_backend)

    def next(self, said: str = "") -> None:
        """Load the next image; what was `said` of the one before stays to be read."""
        self.attempt(self._next_study if self._is_of_backend else self._next_file, said)

    # The images of a folder

    def first(self) -> None:
        """Load the first image of the folder, which is looked through anew."""
        self._series.forget()
        self.attempt(lambda: self._look_for(None, self._file()))

    def _next_file(self, said: str = "") -> None:
        """Go on after the image that is shown, or where the folder was left; past one that is damaged."""
        here, (shown, damaged), folder = self._file(), self._damaged, self._folder()
        if damaged is not None and shown == here and damaged.is_relative_to(folder):
            self._look_for(damaged, here, said=said)
        elif here is not None and here.is_relative_to(folder):
            self._look_for(here, here, said=said)
        else:
            left, is_saved = self.logic.settings.place(folder)
            if left is not None:
                said = f"{said} {_('You go on where you left this folder; First image begins anew.')}".strip()
            self._look_for(left, here, not is_saved, said)

    def _folder(self) -> Path:
        folder = self.ui.folderEdit.currentPath
        if not folder:
            raise AIAssistError("No folder of images is chosen; choose one above.")
        return Path(folder)

    def _remember(self, folder: Path) -> None:
        """Let the folder be the chosen one again when Slicer starts next."""
        if Path(self.ui.folderEdit.currentPath) == folder:
            self.ui.folderEdit.addCurrentPathToHistory()

    def _look_for(self, since: Path | None, here: Path | None, again: bool = False, said: str = "") -> None:
        """Load the image after a file's, or that one again, and say something then; `here` is that of the one shown."""
        folder = self._folder()

        def found(following: Found | None) -> None:
            if following is None:
                self.tell(f"{_('That was the last image of the folder.')} {said}".strip())
            elif self._may_leave():
                self._load(following, here, folder, said)

        self.tell(_("Looking for the next image"))
        self._begin(after(folder, since, again, self._series), found)

    def _may_leave(self) -> bool:
        if self.panel.may_leave():
            return True
        self.tell(_("This image stays."))
        return False

    def note_saved(self, volume) -> None:
        """The labels of an image are saved: it is not the one to go on with next time."""
        file = self._file(volume)
        for folder in file.parents if file is not None else ():
            if self.logic.settings.place(folder)[0] == file:
                self.logic.settings.set_place(folder, file, True)

    def _load(self, following: Found, here: Path | None, folder: Path, said: str) -> None:
        def done(volume) -> None:
            self._damaged = (None, None)
            self.tell(said)
            if self._arrived(volume, agreed):
                self.logic.settings.set_place(folder, following.files[0], False)
                self._remember(folder)
                self.panel.saving.look_for_labels()

        def failed(error: Exception) -> None:
            self._series.forget()
            if isinstance(error, ImageError):
                self._damaged = (here, following.files[0])

        agreed = self.panel.work()
        self.tell_now(_("Loading {name}").format(name=following.name))
        with busy():  # over at once for a series, which is read bit by bit
            self._begin(loaded(following, self._show_progress), done, failed)

    def _file(self, volume=None) -> Path | None:
        """The file of an image, or one of its series; of the one that is shown when none is given."""
        volume = volume or self.panel.editor.sourceVolumeNode()
        if volume is None:
            return None
        storage = volume.GetStorageNode()
        known = files_of(volume) or ([storage.GetFileName()] if storage is not None else [])
        return Path(known[0]) if known and known[0] else None

    # What is on its way

    def _begin(self, conversation: Conversation, done, failed=lambda _error: None) -> None:
        """Have a conversation that brings an image or says which is next; it can be cancelled."""
        if self._is_fetching:
            raise AIAssistError("An image is on its way already; wait for it, or cancel it.")

        def over(outcome) -> None:
            self._show_progress(None)
            done(outcome)

        def broken(error: Exception) -> None:
            self._show_progress(None)
            failed(error)
            self.tell(sentence(error), failed=True)

        self._show_progress(0.0)
        talk = self.assistant.start(conversation, over, broken)
        if talk.active:  # else another one may be under way by now
            self._fetching = talk

    def _arrived(self, volume, agreed: list) -> bool:
        """Show an image that came, unless somebody drew meanwhile and wants to keep that; whether it is shown."""
        if self.panel.work() != agreed and not self._may_leave():
            remove_with_display(volume)
            return False
        show(volume)
        self.panel.open(volume)
        self.panel.saving.begin_anew()
        return True

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

    def _next_study(self, said: str = "") -> None:
        current, conversations = self._study(), self.assistant.conversations

        def seen(listed: list[Study]) -> None:
            self._seen(listed)
            if to_do_after(listed, current) is None:
                self._say_nothing_to_do(said)
            elif self._may_leave():
                agreed = self.panel.work()
                self._begin(conversations.next_study(current), lambda study: given(study, agreed))

        def given(study: str | None, agreed: list) -> None:
            following = next((one for one in self._studies if one.id == study), None)
            if following is not None:
                self.attempt(self._fetch, following, agreed, said)
            else:  # a colleague was faster
                self._say_nothing_to_do(said)

        self._begin(studies(conversations), seen)

    def _say_nothing_to_do(self, said: str) -> None:
        listed = self._studies
        others = sum(bool(study.colleague) and not study.is_done for study in listed)
        text = _("No other image is to do here; kept: {count}.")
        if others:
            text = _("No other image is to do here; kept: {count}, with colleagues: {others}.")
        self.tell(f"{text.format(count=len(listed), others=others)} {said}".strip())

    def _study(self) -> str | None:
        """Id of the study that is shown, as far as it is known."""
        volume = self.panel.editor.sourceVolumeNode()
        if volume is None:
            return None
        node, study = self._fetched
        if node == volume.GetID():
            return study
        try:
            return vars(self.assistant.studies.of(volume)).get("study_id")
        except ImageError:  # in colour, say: nothing that is annotated
            return None

    def _open_row(self, row: int) -> None:
        if self._is_fetching or self._may_leave():
            self.attempt(self._fetch, self._studies[row], self.panel.work())

    def _fetch(self, study: Study, agreed: list, said: str = "") -> None:
        def done(volume) -> None:
            if not self._arrived(volume, agreed):
                return
            self._fetched = (volume.GetID(), study.id)
            self.panel.saving.refresh()
            self.tell(said)
            if study.structures:
                self.panel.saving.tell_labels(study.name, said)

        self._begin(fetched(self.assistant.conversations, study, self._show_progress), done)
        if self._is_fetching:
            self.tell(_("Getting {name}").format(name=study.name))

    def cancel(self) -> None:
        """Stop getting an image; the one that is shown stays."""
        if self._is_fetching:
            self._fetching.cancel()
            self._show_progress(None)
            self.tell(_("Cancelled; this image stays."))

    def _show_progress(self, share: float | None) -> None:
        self._is_waiting = running = share is not None
        self.ui.nextProgress.setVisible(running)
        self.ui.nextProgress.setValue(round(100 * share) if running else 0)
        self.ui.cancelNextButton.setVisible(running)
        self.show_buttons()

    def show_buttons(self) -> None:
        """Nobody goes on while an image is on its way, or while one is being saved."""
        for button in (self.ui.nextButton, self.ui.firstButton, self.ui.saveNextButton):
            button.setEnabled(self.ui.saveButton.enabled and not self._is_waiting)


def _state(study: Study) -> str:
    """What the table says of a study."""
    if study.is_done:
        return _("done")
    return _("with {name}").format(name=study.colleague) if study.colleague else _("to do")
