"""The panel's section on where the models run."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _

from AIAssistLib.child_qt import are_ending
from AIAssistLib.installer_qt import Installer
from AIAssistLib.section_qt import Section, ask
from AIAssistLib.settings_qt import COMPUTER, SERVER, SLICER
from AIAssistLib.texts import breakable


class BackendSection(Section):
    """Chooses the home, installs what it needs, shows its status."""

    def __init__(self, panel):
        super().__init__(panel, "backendStatusLabel")
        ui = self.ui
        self._homes = [COMPUTER, SERVER, SLICER]
        ui.whereCombo.addItems([_("This computer"), _("A server"), _("This Slicer (for a GPU that Slicer can use)")])
        ui.whereCombo.setCurrentIndex(self._homes.index(self.logic.settings.where))
        ui.urlEdit.setText(self.logic.settings.url)
        self._show_token(self.logic.settings.url)
        ui.whereCombo.connect("currentIndexChanged(int)", self._where_chosen)
        ui.connectButton.connect("clicked()", self.connect_server)
        ui.urlEdit.connect("returnPressed()", self.connect_server)
        ui.urlEdit.connect("textEdited(QString)", self._show_token)
        ui.tokenEdit.connect("returnPressed()", self.connect_server)
        ui.modelCombo.connect("currentIndexChanged(int)", self._model_chosen)
        ui.installButton.connect("clicked()", self.install)
        ui.wheelsButton.connect("clicked()", self._install_from_folder)
        ui.cancelInstallButton.connect("clicked()", self.cancel_install)
        ui.restartButton.connect("clicked()", self.restart)
        ui.removeButton.connect("clicked()", self.remove)
        self._installer: Installer | None = None
        self._prevent_removal = lambda: None
        self._asked = False
        self._names: list[str] = []
        self._show()

    # Homes

    def enter(self) -> None:
        """The module is shown: ask once for what is missing, then look which models there are."""
        if self._needs_packages():
            if not self._asked and not slicer.app.testingEnabled():
                self._asked = True
                self.logic.loop.later(self.ask_to_install)  # the panel is shown first
        elif self._needs_token():
            self.tell(_("Enter your token for {url}, then press Connect.").format(url=self.logic.settings.url))
        elif not self.assistant.cards or not self._names:
            self.look()
        self._show_home()

    def _needs_token(self) -> bool:
        settings = self.logic.settings
        return settings.where == SERVER and not settings.token(settings.url)

    def ask_to_install(self) -> None:
        """Ask whether what is missing may be downloaded."""
        if ask(
            _(
                "AI Assist needs about 45 MB of packages that Slicer does not have. They go into a folder of their "
                "own; Slicer is not changed, and a button removes them.\n\nDownload them now?"
            )
        ):
            self.install()

    def _where_chosen(self, index: int) -> None:
        if not self._may_leave():
            self._show_home()
            return
        self._show()
        if self._homes[index] == SERVER:
            self.tell(_("Enter the server's address and your token, then press Connect."))
        else:
            self.attempt(self._move, self._homes[index])

    def _show_token(self, url: str) -> None:
        """Show the token of a server: that of another one must not go there."""
        self.ui.tokenEdit.setText(self.logic.settings.token(url))
        self.ui.rememberCheck.setChecked(self.logic.settings.remembers(url))

    def connect_server(self) -> None:
        """Use the server that was entered; asks once before images go there."""
        settings, url = self.logic.settings, self.ui.urlEdit.text.strip()
        if not url:
            self.tell(_("Enter the server's address and your token, then press Connect."))
            return
        question = _(
            "Images that you annotate, with the patient's data in their headers, will be sent to {url}. "
            "Is that allowed for your images?"
        ).format(url=url)
        if not settings.allowed(url):
            if not ask(question):
                self.tell(_("Nothing was sent; the models stay where they were."))
                return
            settings.allow(url)
        settings.set_token(url, self.ui.tokenEdit.text, self.ui.rememberCheck.checked)
        self.attempt(self._move, SERVER, url)

    def _move(self, where: str, url: str | None = None) -> None:
        try:
            self.logic.move(where, url)
        finally:  # what is shown is where images go
            self._show_home()
        self._show()
        if not self._needs_packages():
            self.look()

    def _show_home(self) -> None:
        blocked = self.ui.whereCombo.blockSignals(True)
        self.ui.whereCombo.setCurrentIndex(self._homes.index(self.logic.settings.where))
        self.ui.whereCombo.blockSignals(blocked)
        self.panel.saving.show_author()
        self._show()

    def look(self) -> None:
        """Ask the home for its models; starts it where it must be started."""
        self.tell(_("Starting {home}").format(home=self.assistant.home.name))
        self.assistant.look(self._seen, lambda error: self.tell(str(error), failed=True))

    def _seen(self) -> None:
        self._names = list(self.assistant.promptable)
        combo = self.ui.modelCombo
        blocked = combo.blockSignals(True)
        combo.clear()
        combo.addItems(self._names)
        combo.setCurrentIndex(self._names.index(self.assistant.model) if self._names else -1)
        combo.blockSignals(blocked)
        self._show_model()
        self.show_status()
        self.panel.models_seen()

    def _model_chosen(self, index: int) -> None:
        self.assistant.chosen = self._names[index] if 0 <= index < len(self._names) else None
        self._show_model()

    def _show_model(self) -> None:
        card = self.assistant.promptable.get(self.assistant.model)
        if card is not None:
            self.ui.modelCombo.setToolTip(f"{card.description} {card.licence}")

    def restart(self) -> None:
        """Stop the backend and start it again."""
        if self._may_leave():
            self.attempt(self._move, self.logic.settings.where)

    def _may_leave(self) -> bool:
        """Whether this computer's process may be stopped: no model learns or comes there, or the person says so."""
        learn = self.panel.learn
        question = _("A model learns on this computer. Its training is saved, and goes on when you want. Stop it?")
        if learn.is_learning_here and learn.learning.task["what"] == "pull":
            question = _("A model is being fetched to this computer, and would have to be fetched again. Stop it?")
        return not learn.is_learning_here or ask(question)

    def show_status(self) -> None:
        """One line on the backend; its models, too, where they are known only now, as after a server came back."""
        if self.assistant.cards and self._names != list(self.assistant.promptable):
            self._seen()  # which shows the status
        elif self.assistant.cards:
            self.tell(self.assistant.status)

    # Packages

    def _needs_packages(self) -> bool:
        """Whether nothing works before what is missing is installed; with a server only Smart Contour does not."""
        return self.logic.settings.where != SERVER and bool(self.logic.packages.missing())

    def install(self, wheels: Path | None = None) -> None:
        """Install what is missing."""
        self._allow_install(False)
        self._installer = Installer(self.logic.python, self.logic.packages, self._installing, self._installed)
        self._installer.start(wheels)

    def _allow_install(self, allowed: bool) -> None:
        """One install at a time: two would write into the same folder."""
        for button in (self.ui.installButton, self.ui.wheelsButton):
            button.setEnabled(allowed)
        self.ui.cancelInstallButton.setEnabled(not allowed)

    def _install_from_folder(self) -> None:
        folder = qt.QFileDialog.getExistingDirectory(self.panel.widget, _("Folder with the wheels"))
        if folder:
            self.install(Path(folder))

    def cancel_install(self) -> None:
        """Stop installing."""
        if self._installer is not None:
            self._installer.cancel()
            self._installed(None)

    def _installing(self, line: str) -> None:
        self.ui.packagesLabel.setText(breakable(line[:120]))

    def _installed(self, error) -> None:
        self._installer = None
        self._allow_install(True)
        self._show()
        if error is not None:
            self.tell(str(error), failed=True)
            return
        self.panel.begin_again()
        if self.logic.settings.where != SERVER and not self._needs_packages():
            self.attempt(self._move, self.logic.settings.where)

    def remove(self) -> None:
        """Delete everything that was downloaded."""
        if not ask(_("Delete the downloaded packages? Your annotations stay.")) or not self._may_leave():
            return
        self.assistant.home.close()
        self.tell(_("Stopping the backend"))
        self._remove_when_stopped()

    def _remove_when_stopped(self) -> None:
        """On Windows, files that a process has open cannot be deleted."""
        if are_ending():
            self._prevent_removal = self.logic.loop.after(50, self._remove_when_stopped)
            return
        self.attempt(self._remove)
        self._show()

    def _remove(self) -> None:
        freed = self.logic.packages.remove()
        self.tell(_("{size} MB were deleted.").format(size=freed // 10**6))

    def _show(self) -> None:
        ui = self.ui
        server = self._homes[ui.whereCombo.currentIndex] == SERVER
        for widget in (ui.urlEdit, ui.tokenEdit, ui.rememberCheck, ui.connectButton, ui.backendFormLabel1):
            widget.setVisible(server)
        missing = self.logic.packages.missing()
        ui.packagesWidget.setVisible(bool(missing) or self._installer is not None)
        text = _("Smart Contour needs packages on this computer: {names}") if server else _("Missing packages: {names}")
        ui.packagesLabel.setText(text.format(names=", ".join(missing)))
        ui.restartButton.setVisible(not server)
        ui.removeButton.setVisible(self.logic.packages.folder.exists())

    def cleanup(self) -> None:
        """The module is unloaded."""
        self._prevent_removal()
        if self._installer is not None:
            self._installer.cancel()
