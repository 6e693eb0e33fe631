"""The row of the panel that fetches models of MONAI's model zoo."""

from __future__ import annotations

from slicer.i18n import tr as _

from aiassist.errors import ModelError
from AIAssistLib.installer_qt import Installer
from AIAssistLib.learning import Learning
from AIAssistLib.section_qt import Section, ask

#: Bundles that were tried, by their configurations; any other may be typed.
TRIED = (
    "spleen_ct_segmentation",
    "swin_unetr_btcv_segmentation",
    "wholeBody_ct_segmentation",
    "pediatric_abdominal_ct_segmentation",
    "prostate_mri_anatomy",
    "ventricular_short_axis_3label",
)


class ZooRow(Section):
    """Fetches a model to where models run, after what it needs.

    Parameters
    ----------
    panel : AIAssistLib.panel_qt.Panel
    learning : AIAssistLib.learning.Learning
        What asks for it and says how far it is.
    """

    def __init__(self, panel, learning: Learning):
        super().__init__(panel, "learnLabel")
        self._learning = learning
        self._installer: Installer | None = None
        self.ui.zooCombo.addItems(list(TRIED))
        self.ui.zooButton.connect("clicked()", self.get)

    def show(self, allowed: bool) -> None:
        """Offer it, when nothing else goes on."""
        self.ui.zooButton.setEnabled(allowed and self._installer is None)

    def get(self) -> None:
        """Fetch the model that is named."""
        self.attempt(self._get)

    def _get(self) -> None:
        bundle = self.ui.zooCombo.currentText.strip()
        if not bundle:
            raise ModelError("Name a model of MONAI's model zoo first, such as spleen_ct_segmentation.")
        missing = ", ".join(self._learning.missing_for_bundles)
        if not missing:
            self._learning.pull(bundle)
        elif not self.assistant.home.near:
            raise ModelError(f"This server lacks {missing}, which such models need; ask its administrator.")
        elif "torch" in self._learning.missing_for_bundles:
            raise ModelError(
                "Models of MONAI's zoo need PyTorch: get the extension PyTorch from the Extensions manager, let it "
                "install PyTorch, then press Look again."
            )
        elif ask(_question().format(names=missing)):
            self._install()

    def _install(self) -> None:
        def ended(error) -> None:
            self._installer = None
            self._learning.look(self.get if error is None else lambda: self.tell(str(error), failed=True))

        self._installer = Installer(self.logic.python, self.logic.bundle_packages, self.tell, ended)
        self.show(False)
        self._installer.start(None)

    def cleanup(self) -> None:
        """The module is unloaded."""
        if self._installer is not None:
            self._installer.cancel()


def _question() -> str:
    return _(
        "Models of MONAI's zoo need {names}: about 10 MB, in the folder of AI Assist's own packages. Slicer is not "
        "changed. Download them?"
    )
