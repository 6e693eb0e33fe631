"""The panel's section on ground truth and its history."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import qt
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError
from aiassist.words import some_of
from AIAssistLib.drafts import names_with_drafts
from AIAssistLib.ground_truth import GroundTruth, Loaded, Saved
from AIAssistLib.saving_plan import What, without_findings
from AIAssistLib.section_qt import Section, ask, fill_table
from AIAssistLib.settings_qt import SERVER
from AIAssistLib.tags import stamps_of
from AIAssistLib.talks import ignore, sentence


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
        ui.approveButton.connect("clicked()", lambda: self.review("approved"))
        ui.rejectButton.connect("clicked()", lambda: self.review("rejected"))
        ui.latestButton.connect("clicked()", self.load_latest)
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

    def _author(self) -> str | None:
        """Who answers for what is saved on this computer; a server knows."""
        self._name_author()  # not every system takes a name that is typed for finished when a button is pressed
        return self.logic.settings.author if self.assistant.home.near else None

    def save(self) -> None:
        """Save as ground truth what changed since it was saved."""
        self.attempt(self._save, False)

    def save_and_next(self) -> None:
        """Save, then load the next image."""
        self.attempt(self._save, True)

    def _save(self, and_next: bool) -> None:
        self.panel.accept_if_any()
        volume, segmentation = self.panel.structures.nodes_to_save()
        author, comment = self._author(), self.ui.commentEdit.text.strip()
        about = {"author": author, "absent": _is_absent(volume, segmentation)}
        talk = self._truth.save(volume, segmentation, comment, progress=self._sending, **about)
        stamps = stamps_of(segmentation)
        self.tell(_("Saving"))
        self._allow(False)

        def done(outcome: Saved) -> None:
            self._allow(True)
            self.panel.recovery.autosave.saved(outcome.study, outcome.masks)
            self.panel.images.note_saved(volume)
            self.panel.learn.look_if_shown()
            same = self.panel.editor.sourceVolumeNode() is volume and stamps_of(segmentation) == stamps
            if same:
                if outcome.numbers:  # else nothing has the comment yet
                    self.ui.commentEdit.setText("")
                self._list_again(volume)
            said = " ".join([_told(outcome), _marked(names_with_drafts(segmentation))]).strip()
            self.tell(said)
            if and_next and same:
                self.panel.images.next(" ".join([_of_others(outcome), _without(outcome)]).strip())
            elif and_next:
                self.tell(_then(said, self._why_it_stays(volume)))

        def failed(error: Exception) -> None:
            self._allow(True)
            self.tell(sentence(error), failed=True)

        self.assistant.start(talk, done, failed)

    def _why_it_stays(self, volume) -> str:
        """Why the image in the panel stays after its labels, or those of another one, were saved."""
        if self.panel.editor.sourceVolumeNode() is volume:
            return _("The segments were changed meanwhile, so this image stays.")
        return _("Another image is in the panel now, so it stays.")

    def _allow(self, allowed: bool) -> None:
        """One save at a time: what it is about must not change under it."""
        self.ui.saveButton.setEnabled(allowed)
        self.panel.images.show_buttons()
        self._chosen()

    def _sending(self, share: float) -> None:
        self.tell(_("Sending the image: {share}").format(share=f"{share:.0%}"))

    # History

    def refresh(self) -> None:
        """Show all versions of this image's labels."""
        self._fill([])

        def look() -> None:
            self._list_versions(self.panel.structures.volume(), lambda error: self.tell(sentence(error), failed=True))

        self.attempt(look)

    def _list_again(self, volume) -> None:
        """As `refresh`, if an image is still in the panel; an error would take the place of what was just said."""
        if volume is not None and self.panel.editor.sourceVolumeNode() is volume:
            self._fill([])
            self._list_versions(volume, ignore)

    def _list_versions(self, volume, failed) -> None:
        """Show all versions of an image's labels if it is still in the panel then; `failed` gets what went wrong."""

        def seen(versions: list[dict]) -> None:
            if self.panel.editor.sourceVolumeNode() is volume:  # else another image was chosen meanwhile
                self._fill(versions)

        self.assistant.start(self._truth.history(volume), seen, failed)

    def _fill(self, versions: list[dict]) -> None:
        self._versions = versions
        titles = [_("Structure"), _("Version"), _("Made"), _("By"), _("State"), _("Comment")]
        fill_table(self.ui.historyTable, titles, [_row(version) for version in versions])
        self._chosen()

    def _chosen(self) -> None:
        chosen = 0 <= self.ui.historyTable.currentRow() < len(self._versions)
        for button in (self.ui.restoreButton, self.ui.approveButton, self.ui.rejectButton):
            button.setEnabled(chosen and self.ui.saveButton.enabled)
        self.ui.latestButton.setEnabled(self.ui.saveButton.enabled)

    def bring_back(self) -> None:
        """Put the chosen version into the segment of its name."""
        self.attempt(self._bring_back)

    def _version(self) -> dict:
        """The version that is chosen in the table."""
        row = self.ui.historyTable.currentRow()
        if not 0 <= row < len(self._versions):
            raise AIAssistError("No version is chosen; choose one in the table.")
        return self._versions[row]

    def review(self, state: str) -> None:
        """Approve or reject the chosen version, which must be the newest of its structure."""
        self.attempt(self._review, state)

    def _review(self, state: str) -> None:
        version, comment = self._version(), self.ui.commentEdit.text.strip()
        volume = self.panel.editor.sourceVolumeNode()

        def done(made: dict) -> None:
            self.ui.commentEdit.setText("")
            self._list_again(volume)
            words = {
                "approved": _("{name} is approved (version {number})."),
                "rejected": _("{name} is rejected (version {number})."),
            }
            self.tell(words[state].format(name=made["structure"], number=made["number"]))
            self.panel.learn.look_if_shown()

        self.talk(self._truth.review(version, state, comment, self._author()), done)

    def _bring_back(self) -> None:
        version = self._version()
        volume, segmentation = self.panel.structures.nodes_to_draw()

        def done(_nothing) -> None:
            self.tell(
                _("{name} is version {number} again here; save to make it the newest.").format(
                    name=version["structure"], number=version["number"]
                )
            )

        self.talk(self._truth.bring_back(version, volume, segmentation, self.panel.save_state), done)

    def load_latest(self) -> None:
        """Put the newest version of each structure into the segment of its name."""
        self.attempt(self._load_latest)

    def _load_latest(self) -> None:
        volume, segmentation = self.panel.structures.nodes_to_draw()

        def done(outcome: Loaded) -> None:
            loaded, left = _listed(outcome.numbers, {}), ", ".join(outcome.left)
            parts = [_("Loaded: {versions}.").format(versions=loaded)] if loaded else []
            if left:
                parts.append(_("Left alone, since their work is not saved: {names}.").format(names=left))
            if not parts:
                parts = [_("Saved as absent in this image: {names}.").format(names=", ".join(outcome.absent))]
            self.tell(" ".join(parts))

        self.tell(_("Getting the latest labels"))
        self.talk(self._truth.load_newest(volume, segmentation, self.panel.save_state), done)

    def look_for_labels(self) -> None:
        """Show the history of an image that was just opened, and say when it has labels; quiet when nobody answers."""
        volume, said = self.panel.editor.sourceVolumeNode(), self.ui.saveLabel.text

        def seen(versions: list[dict]) -> None:
            if self.panel.editor.sourceVolumeNode() is volume and versions:
                self._fill(versions)
                if self.ui.saveLabel.text == said:  # else there is something newer to read
                    self.tell_labels(volume.GetName(), said)

        try:
            self.logic.check_packages()
            self.assistant.start(self._truth.history(volume), seen, lambda _error: None)
        except AIAssistError:  # said when somebody wants to annotate it
            return

    def tell_labels(self, name: str, said: str = "") -> None:
        """Say that an image has labels already, after what was said."""
        text = _("{name} has labels already; press Load latest labels to see them.").format(name=name)
        self.tell(f"{said} {text}".strip())

    # Going on

    def is_kept(self, study: str, version: str) -> bool:
        """Whether a mask of this version is known to be saved of a study."""
        return self._truth.is_kept(study, version)

    def unsaved(self, volume, segmentation) -> list[str]:
        """Names of the segments that are not saved as ground truth as they are."""
        return self._truth.unsaved(volume, segmentation)

    def home_changed(self) -> None:
        """The models run elsewhere: versions that were listed or saved are not there."""
        self._fill([])
        self._truth.home_changed()

    def begin_anew(self) -> None:
        """Another image is shown: what was said of the last is none of its business."""
        self._fill([])
        self.ui.commentEdit.setText("")
        self._truth.restart_clock()


def _row(version: dict) -> list[str]:
    made = datetime.fromisoformat(version["made"])
    made = made if made.tzinfo is not None else made.replace(tzinfo=UTC)
    local, said = made.astimezone().strftime("%Y-%m-%d %H:%M"), (version[n] for n in ("author", "state", "comment"))
    return [version["structure"], str(version["number"]), local, *said]


def _is_absent(volume, segmentation) -> bool:
    """Whether nothing is drawn or marked, and the person says that these structures are not in the image."""
    names = without_findings(segmentation, volume) if not names_with_drafts(segmentation) else []
    question = _("Nothing is drawn. Save {names} as absent in {image}?")
    return bool(names) and ask(question.format(names=some_of(names), image=volume.GetName()))


def _told(outcome: Saved) -> str:
    """What to say of a save: what is a new version, what was one already, and what others saved meanwhile."""
    new, same = outcome.of(What.NEW), outcome.of(What.UNCHANGED)
    empty = {name: _("now empty") if each.newest else _("absent") for name, each in new.items() if each.one.is_empty}
    unchanged = {name: each.newest["number"] for name, each in same.items()}
    versions = _listed(outcome.numbers, empty) or _listed(unchanged, dict.fromkeys(unchanged, _("unchanged")))
    parts = [_("Saved: {versions}").format(versions=versions)] if versions else []
    if new and same:
        parts.append(_("({count} unchanged)").format(count=len(same)))
    return _then(" ".join([*parts, _without(outcome)]).strip(), _of_others(outcome))


def _then(said: str, more: str) -> str:
    """A sentence after what was said, which may lack its full stop."""
    stop = "" if said.endswith(".") else "."
    return f"{said}{stop} {more}" if said and more else said or more


def _marked(names: list[str]) -> str:
    """What to say of segments with marks that nobody accepted: nothing of those is saved."""
    text = _("Not saved, since their marks are not accepted: {names}.")
    return text.format(names=", ".join(names)) if names else ""


def _of_others(outcome: Saved) -> str:
    """What others have done with these structures that the person may not know of yet."""
    replaced = _("{version} came before it, unseen here; it stays in the history.")
    older = _("{version} is newer than what is here, which nobody changed: Load latest labels shows it.")
    rejected = _("{version} was rejected; change it, and it is submitted again. {comment}")
    found = [(replaced, each) for each in outcome.of(What.NEW).values() if each.is_unseen]
    found += [(older, each) for each in outcome.of(What.OLDER).values()]
    found += [(rejected, each) for each in outcome.of(What.REJECTED).values()]
    said = [text.format(version=_whose(each.newest), comment=each.newest["comment"]).strip() for text, each in found]
    return " ".join(said)


def _whose(version: Mapping) -> str:
    name = _("{name} (version {number} by {author})")
    return name.format(name=version["structure"], number=version["number"], author=version["author"])


def _without(outcome: Saved) -> str:
    """Why the image's DICOM headers were not saved, if they should have been."""
    return _("(without DICOM headers: {why})").format(why=outcome.without) if outcome.without else ""


def _listed(numbers: dict[str, int], remarks: dict[str, str]) -> str:
    """Structures with the numbers of their versions, and a remark on some."""
    plain, more = _("{name} (version {number})"), _("{name} (version {number}, {remark})")
    return ", ".join(
        (more if name in remarks else plain).format(name=name, number=number, remark=remarks.get(name))
        for name, number in numbers.items()
    )
