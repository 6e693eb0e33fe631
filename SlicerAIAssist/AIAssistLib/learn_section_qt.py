"""The panel's section on models that learn from the saved labels."""

from __future__ import annotations

from slicer.i18n import tr as _

from aiassist.errors import ModelError
from aiassist.words import counted
from AIAssistLib.installer_qt import Installer
from AIAssistLib.learning import Learning, Version
from AIAssistLib.section_qt import Section, ask, fill_table

#: Name of the model that is offered first.
FIRST = "mine"


class LearnSection(Section):
    """Trains models, lists their versions, and says which ones are used."""

    def __init__(self, panel):
        super().__init__(panel, "learnLabel")
        self.learning = Learning(self.assistant, self._changed, self._used)
        self._installer: Installer | None = None
        ui = self.ui
        ui.learnKindCombo.addItems([_("Needs points, as the one that ships"), _("Automatic")])
        ui.learnModelCombo.addItems([FIRST])
        ui.learnStructureCombo.addItems([_("All structures")])
        ui.learnSection.connect("contentsCollapsed(bool)", self._opened)
        ui.learnModelCombo.connect("currentTextChanged(QString)", self._model_chosen)
        ui.learnButton.connect("clicked()", self.train)
        ui.learnStopButton.connect("clicked()", self.learning.stop)
        ui.learnTable.connect("itemSelectionChanged()", self._changed)
        ui.publishButton.connect("clicked()", self.publish)
        ui.takeBackButton.connect("clicked()", self.take_back)
        ui.learnLookButton.connect("clicked()", self.look)
        ui.learnInstallButton.connect("clicked()", self.install)
        self._listed: list[Version] = []
        self._changed()

    def home_changed(self) -> None:
        """The labels are elsewhere now."""
        self.learning.leave()
        self._listed = []
        if not self.ui.learnSection.collapsed and self.assistant.cards:
            self.look()

    def models_seen(self) -> None:
        """The backend answers now."""
        if not self.ui.learnSection.collapsed and self.learning.known is None:
            self.look()

    def _opened(self, collapsed: bool) -> None:
        if not collapsed and self.assistant.cards:
            self.look()

    def look(self) -> None:
        """Ask what there is to learn from and what was learned."""
        self.learning.look()

    # Learning

    def train(self) -> None:
        """Train a version of the model that is named."""
        self.attempt(self._train)

    def _train(self) -> None:
        name = self.ui.learnModelCombo.currentText.strip()
        if not name:
            raise ModelError("Give the model a name first, such as the structure's.")
        unfinished = self.learning.models.get(name, {}).get("unfinished")
        if unfinished is not None:
            self.learning.train(name, **_again(unfinished))
            return
        chosen = self.ui.learnStructureCombo.currentIndex
        structures = [list(self.learning.structures)[chosen - 1]] if chosen > 0 else []
        is_automatic, rounds = self.ui.learnKindCombo.currentIndex == 1, self.ui.learnEpochsSpinBox.value
        self.learning.train(name, automatic=is_automatic, epochs=rounds, structures=structures)

    def publish(self) -> None:
        """Use the chosen version, if it is better."""
        version = self._chosen()
        if version is not None:
            self.learning.publish(version)

    def take_back(self) -> None:
        """Use what was used before the chosen model's latest publishing."""
        version = self._chosen()
        question = _("Use what was used before version {number} of {model} was published? Everybody here will.")
        if version is not None and ask(question.format(number=version.number, model=version.model)):
            self.learning.take_back(version.model)

    def _chosen(self) -> Version | None:
        row = self.ui.learnTable.currentRow()
        return self._listed[row] if 0 <= row < len(self._listed) else None

    def _used(self) -> None:
        """Another version of a model is offered from now on."""
        self.panel.backend.look()

    # What is shown

    def _model_chosen(self, name: str) -> None:
        """Show what kind the model is; that of one that was begun stays."""
        kind = self.learning.models.get(name.strip(), {}).get("kind")
        self.ui.learnKindCombo.setEnabled(kind is None)
        if kind is not None:
            self.ui.learnKindCombo.setCurrentIndex(int(kind == "automatic"))
        self._show_buttons()

    def _changed(self) -> None:
        learning, ui = self.learning, self.ui
        self._show_names()
        self._show_versions()
        ui.learnProgress.setVisible(learning.running)
        ui.learnProgress.setValue(round(100 * learning.fraction))
        ui.learnLabelsLabel.setText(self._labels())
        ui.learnInstallButton.setVisible(self._can_install() and self._installer is None)
        self._show_buttons()
        advice = self._advice()
        self.tell(advice or learning.text, learning.failed and not advice)

    def _show_names(self) -> None:
        """Offer the models and structures that are known; what was entered stays."""
        combo, name = self.ui.learnModelCombo, self.ui.learnModelCombo.currentText
        models = list(self.learning.models) or [FIRST]
        if [combo.itemText(n) for n in range(combo.count)] != models:
            blocked = combo.blockSignals(True)
            combo.clear()
            combo.addItems(models)
            combo.setEditText(name if name != FIRST or FIRST in models else models[0])
            combo.blockSignals(blocked)
            self._model_chosen(combo.currentText)
        combo, chosen = self.ui.learnStructureCombo, self.ui.learnStructureCombo.currentText
        structures = [_("All structures"), *self.learning.structures]
        if [combo.itemText(n) for n in range(combo.count)] != structures:
            combo.clear()
            combo.addItems(structures)
            combo.setCurrentIndex(max(0, combo.findText(chosen)))

    def _show_versions(self) -> None:
        if self.learning.versions == self._listed:
            return
        self._listed = self.learning.versions
        titles = [_("Model"), _("Version"), _("Labels"), _("Dice before"), _("Dice now"), ""]
        rows = [
            [v.model, str(v.number), str(v.labels), f"{v.before:.3f}", f"{v.now:.3f}", _("in use") if v.is_used else ""]
            for v in self._listed
        ]
        fill_table(self.ui.learnTable, titles, rows)

    def _show_buttons(self) -> None:
        running, known, chosen, ui = self.learning.running, self.learning.known, self._chosen(), self.ui
        unfinished = self.learning.models.get(ui.learnModelCombo.currentText.strip(), {}).get("unfinished")
        ui.learnButton.setText(_("Go on learning") if unfinished else _("Learn"))
        ui.learnButton.setEnabled(known is not None and not known["missing"] and bool(known["labels"]) and not running)
        ui.learnStopButton.setEnabled(running)
        ui.publishButton.setEnabled(chosen is not None and not chosen.is_used and not running)
        ui.takeBackButton.setEnabled(chosen is not None and chosen.is_used and not running)
        ui.learnTable.setVisible(bool(self._listed))
        ui.publishButton.setVisible(bool(self._listed))
        ui.takeBackButton.setVisible(bool(self._listed))

    def _labels(self) -> str:
        """What there is to learn from, in words."""
        known = self.learning.known
        if known is None:
            return _("Models learn from the labels that are saved where they run.")
        if not known["labels"]:
            return _("There is no label to learn from yet: save some as ground truth first.")
        what = ", ".join(f"{name} {count}" for name, count in known["structures"].items())
        total = _("{labels} of {images} to learn from").format(
            labels=counted(known["labels"], "label"), images=counted(known["studies"], "image")
        )
        return f"{total}: {what}"

    def _advice(self) -> str:
        """What keeps models from learning here."""
        missing = self.learning.known["missing"] if self.learning.known is not None else []
        if not missing:
            return ""
        if not self.assistant.home.near:
            return _("This server lacks {names}, so models cannot learn there; ask its administrator.").format(
                names=", ".join(missing)
            )
        if "torch" in missing:
            return _(
                "Learning needs PyTorch: get the extension PyTorch from the Extensions manager, let it install "
                "PyTorch, then look again."
            )
        return _("Learning needs {names}, about 25 MB, in the folder of AI Assist's own packages.").format(
            names=", ".join(missing)
        )

    # What it needs

    def _can_install(self) -> bool:
        missing = self.learning.known["missing"] if self.learning.known is not None else []
        return bool(missing) and "torch" not in missing and self.assistant.home.near

    def install(self) -> None:
        """Install what learning needs beside PyTorch."""
        self._installer = Installer(self.logic.python, self.logic.learning_packages, self.tell, self._installed)
        self._installer.start(None)
        self.ui.learnInstallButton.setVisible(False)

    def _installed(self, error) -> None:
        self._installer = None
        if error is not None:
            self.tell(str(error), failed=True)
        else:
            self.look()

    def cleanup(self) -> None:
        """The module is unloaded."""
        self.learning.leave()
        if self._installer is not None:
            self._installer.cancel()


def _again(unfinished: dict) -> dict:
    """The options of a training that was begun."""
    asked = {name: unfinished[name] for name in ("epochs", "structures", "drafts")}
    return {**asked, "automatic": unfinished["kind"] == "automatic"}
