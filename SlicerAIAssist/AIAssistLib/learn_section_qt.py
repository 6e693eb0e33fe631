"""The panel's section on models: those that learn from the saved labels, their versions, and those of MONAI's zoo."""

from __future__ import annotations

from slicer.i18n import tr as _

from aiassist.errors import ModelError
from aiassist.words import counted
from AIAssistLib.installer_qt import Installer
from AIAssistLib.learning import Learning, Version
from AIAssistLib.section_qt import Section, ask, fill_table
from AIAssistLib.texts import breakable
from AIAssistLib.zoo_row_qt import ZooRow

#: Name of the model that is offered first.
FIRST = "mine"


class LearnSection(Section):
    """Trains models, lists their versions, and says which ones are used."""

    def __init__(self, panel):
        super().__init__(panel, "learnLabel")
        self.learning = Learning(self.assistant, self._changed, self._used)
        self.zoo = ZooRow(panel, self.learning)
        self._installer: Installer | None = None
        ui = self.ui
        ui.learnKindCombo.addItems([_("Needs points, as the one that ships"), _("Automatic")])
        ui.learnModelCombo.addItems([FIRST])
        ui.learnStructureCombo.addItems([_("All structures")])
        ui.learnSection.connect("contentsCollapsed(bool)", self._opened)
        ui.learnModelCombo.connect("currentTextChanged(QString)", self._model_chosen)
        ui.learnButton.connect("clicked()", self.train)
        ui.learnStopButton.connect("clicked()", self.learning.stop)
        ui.learnTable.connect("itemSelectionChanged()", self._row_chosen)
        ui.learnDiscardButton.connect("clicked()", self.discard)
        ui.publishButton.connect("clicked()", self.publish)
        ui.learnTakeBackButton.connect("clicked()", self.take_back)
        ui.learnLookButton.connect("clicked()", self.look)
        ui.learnInstallButton.connect("clicked()", self.install)
        self._listed: list[Version] = []
        self._selected: tuple[str, int] | None = None
        self._changed()

    @property
    def is_learning_here(self) -> bool:
        """Whether something goes on that ends with this computer's process."""
        return self.assistant.home.near and self.learning.running

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
        if not collapsed:
            self.look_if_shown()

    def look_if_shown(self) -> None:
        """Labels were saved, or the module is shown again: there may be more to learn from."""
        if not self.ui.learnSection.collapsed and self.assistant.cards and not self.learning.running:
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
        if self.learning.unfinished(name) is not None:
            self.learning.go_on(name)
            return
        chosen = self.ui.learnStructureCombo.currentIndex
        structures = [list(self.learning.structures)[chosen - 1]] if chosen > 0 else []
        is_automatic, rounds = self.ui.learnKindCombo.currentIndex == 1, self.ui.learnEpochsSpinBox.value
        self.learning.train(name, automatic=is_automatic, epochs=rounds, structures=structures)

    def discard(self) -> None:
        """Remove the unfinished training of the model that is named."""
        name = self.ui.learnModelCombo.currentText.strip()
        if ask(_("Delete the unfinished training of {model} and all that it did?").format(model=name)):
            self.learning.discard(name)

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
        return next((one for one in self._listed if (one.model, one.number) == self._selected), None)

    def _row_chosen(self) -> None:
        row = self.ui.learnTable.currentRow()
        chosen = self._listed[row] if 0 <= row < len(self._listed) else None
        self._selected = (chosen.model, chosen.number) if chosen is not None else None
        self._show_buttons()

    def _used(self) -> None:
        """Another version of a model is offered from now on."""
        self.panel.backend.look()

    # What is shown

    def _model_chosen(self, _name: str) -> None:
        """Show what kind the model is, and what its unfinished training was asked: both stay."""
        ui, name = self.ui, self.ui.learnModelCombo.currentText.strip()
        kind, unfinished = self.learning.models.get(name, {}).get("kind"), self.learning.unfinished(name)
        if kind is not None:
            ui.learnKindCombo.setCurrentIndex(int(kind == "automatic"))
        if unfinished is not None:
            ui.learnEpochsSpinBox.setValue(unfinished["epochs"])
            asked = [key.casefold() for key in unfinished["structures"]]
            names = [name.casefold() for name in self.learning.structures]
            ui.learnStructureCombo.setCurrentIndex(1 + names.index(asked[0]) if asked[:1] and asked[0] in names else 0)
        ui.learnKindCombo.setEnabled(kind is None)
        ui.learnEpochsSpinBox.setEnabled(unfinished is None)
        ui.learnStructureCombo.setEnabled(unfinished is None)
        self._show_buttons()

    def _changed(self) -> None:
        learning, ui = self.learning, self.ui
        self._show_names()
        self._show_versions()
        ui.learnProgress.setVisible(learning.running)
        ui.learnProgress.setValue(round(100 * learning.fraction))
        text = "\n".join(filter(None, [self._labels(), *learning.damaged, self._advice()]))
        ui.learnLabelsLabel.setText(breakable(text))
        ui.learnInstallButton.setVisible(self._can_install() and self._installer is None)
        self._model_chosen(ui.learnModelCombo.currentText)
        self.tell(learning.text, learning.failed)

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
            [
                v.model,
                str(v.number),
                str(v.labels or ""),
                _dice(v.before),
                _dice(v.now),
                _("in use") if v.is_used else "",
            ]
            for v in self._listed
        ]
        table, selected = self.ui.learnTable, self._selected
        blocked = table.blockSignals(True)
        fill_table(table, titles, rows)
        table.clearSelection()
        row = next((n for n, one in enumerate(self._listed) if (one.model, one.number) == selected), -1)
        table.setCurrentCell(row, 0)
        table.blockSignals(blocked)

    def _show_buttons(self) -> None:
        running, known, chosen, ui = self.learning.running, self.learning.known, self._chosen(), self.ui
        may = self.learning.allowed
        unfinished = self.learning.unfinished(ui.learnModelCombo.currentText.strip())
        ui.learnDiscardButton.setVisible(may and unfinished is not None and not running)
        ui.learnButton.setText(_("Go on learning") if unfinished else _("Learn"))
        can_learn = known is not None and not known["missing"] and bool(known["labels"])
        ui.learnButton.setEnabled(may and can_learn and not running)
        ui.learnStopButton.setEnabled(may and running)
        ui.publishButton.setEnabled(may and chosen is not None and not chosen.is_used and not running)
        ui.learnTakeBackButton.setEnabled(may and chosen is not None and chosen.is_used and not running)
        self.zoo.show(may and known is not None and not running)
        ui.learnTable.setVisible(bool(self._listed))
        ui.publishButton.setVisible(bool(self._listed))
        ui.learnTakeBackButton.setVisible(bool(self._listed))

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
        if not self.learning.allowed:
            return _("You are an annotator on this server: its administrators train models and publish them.")
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
        return _("Learning needs {names}, about 10 MB, in the folder of AI Assist's own packages.").format(
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
        self.zoo.cleanup()
        if self._installer is not None:
            self._installer.cancel()


def _dice(mean: float | None) -> str:
    return f"{mean:.3f}" if mean is not None else ""
