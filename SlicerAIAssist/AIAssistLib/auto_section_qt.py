"""The panel's section on automatic segmentation."""

from __future__ import annotations

from slicer.i18n import tr as _

from aiassist.errors import ModelError
from aiassist.segmenters.base import ModelCard
from aiassist.words import some_of
from AIAssistLib.auto_segment import AutoSegment, fitting
from AIAssistLib.section_qt import Section
from AIAssistLib.texts import in_lines


class AutoSection(Section):
    """Runs automatic models."""

    def __init__(self, panel):
        super().__init__(panel, "autoLabel")
        self._auto = AutoSegment(self.assistant, self._changed)
        self._cards = []
        self.ui.autoRunButton.connect("clicked()", self.run)
        self.ui.autoCancelButton.connect("clicked()", self._auto.cancel)
        self.ui.autoCombo.connect("currentIndexChanged(int)", self._show_structures)
        self.models_seen()

    def models_seen(self) -> None:
        """Offer the models that fit the image."""
        chosen = self._chosen()
        self._cards = fitting(self.assistant.cards, self.panel.editor.sourceVolumeNode())
        self.ui.autoCombo.clear()
        self.ui.autoCombo.addItems([f"{card.name}: {some_of(_names(card), 3)}" for card in self._cards])
        if chosen in self._cards:
            self.ui.autoCombo.setCurrentIndex(self._cards.index(chosen))
        if self._auto.running:
            return
        self.ui.autoRunButton.setEnabled(bool(self._cards))
        nothing = _("No automatic model here fits this image. The section Models gets others from MONAI's model zoo.")
        self.tell(nothing if self.assistant.cards and not self._cards else "")

    def _show_structures(self) -> None:
        """Let the tooltip say all that the chosen model finds."""
        card, models = self._chosen(), _("Models that fit the image")
        found = _("{name} finds: {structures}")
        text = found.format(name=card.name, structures=", ".join(_names(card))) if card is not None else models
        self.ui.autoCombo.setToolTip(in_lines(text))

    def image_changed(self) -> None:
        """Another image is in the panel; other models may fit it."""
        self.models_seen()

    def _chosen(self) -> ModelCard | None:
        index = self.ui.autoCombo.currentIndex
        return self._cards[index] if 0 <= index < len(self._cards) else None

    def run(self) -> None:
        """Run the chosen model on the image."""
        self.attempt(self._run)

    def _run(self) -> None:
        card = self._chosen()
        volume, segmentation = self.panel.structures.nodes_to_draw()  # the image may come from the views only now
        if card is None or card not in self._cards:
            raise ModelError("The chosen model is not made for this image; choose another one.")
        self._auto.run(card, volume, segmentation, self.panel.save_state)
        self._changed()

    def _changed(self) -> None:
        running = self._auto.running
        self.ui.autoRunButton.setEnabled(bool(self._cards) and not running)
        self.ui.autoCancelButton.setEnabled(running)
        self.ui.autoProgress.setVisible(running)
        self.ui.autoProgress.setValue(round(100 * self._auto.fraction))
        self.tell(self._auto.text, self._auto.failed)

    def cancel(self) -> None:
        """Stop the model that runs."""
        self._auto.cancel()


def _names(card: ModelCard) -> list[str]:
    """The structures that a model finds."""
    return [label.name for label in card.labels]
