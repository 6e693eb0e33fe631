"""AIAssist: click, correct, save, next. The module, its panel and its logic; wiring only."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

TOO_OLD = _("AI Assist needs Slicer 5.12 or later.")


def is_too_old() -> bool:
    """Whether this Slicer lacks what the code stands on; modules that AI Assist depends on must be loaded."""
    return sys.version_info < (3, 11) or not hasattr(slicer, "vtkSlicerSegmentEditorLogic")


class AIAssist(ScriptedLoadableModule):
    """What Slicer shows of the module in its lists."""

    def __init__(self, parent):
        super().__init__(parent)
        parent.title = _("AI Assist")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["SegmentEditor"]
        parent.contributors = ["the SlicerAIAssist developers"]
        parent.helpText = _(
            "Mark an organ by a few clicks and get its contour on every slice; correct it by pulling one vertex; save "
            "it as ground truth. See the <a href='https://github.com/SlicerAIAssist/SlicerAIAssist'>documentation</a>."
        )
        parent.acknowledgementText = _("The modern heir of NVIDIA Clara's AI-Assisted Annotation.")
        slicer.app.connect("startupCompleted()", self.startup_completed)

        self._logic = None

    def startup_completed(self):
        """Make the effects known to the Segment Editor."""
        if is_too_old():
            logging.warning(TOO_OLD)
            return
        import AIAssistEffects

        AIAssistEffects.register()

    @property
    def logic(self):
        """What panel, effects and console share; the panel need not exist. `RuntimeError` in a Slicer too old."""
        if is_too_old():
            raise RuntimeError(TOO_OLD)
        if self._logic is None:
            self._logic = AIAssistLogic()
            slicer.app.connect("aboutToQuit()", self._logic.close)
        return self._logic

    def forget_logic(self):
        """Close the logic; whoever asks for one next gets another."""
        if self._logic is not None:
            slicer.app.disconnect("aboutToQuit()", self._logic.close)
            self._logic.close()
            self._logic = None


class AIAssistWidget(ScriptedLoadableModuleWidget):
    """The panel."""

    def __init__(self, parent=None):
        super().__init__(parent)
        self.logic = None
        self.panel = None

    def setup(self):
        """Build the panel; also without a main window, as for the console."""
        super().setup()
        if is_too_old():
            self.layout.addWidget(qt.QLabel(TOO_OLD))
            return
        import AIAssistEffects
        from AIAssistLib.panel_qt import Panel

        AIAssistEffects.register()  # as home module we come before the start is complete
        self.logic = slicer.modules.AIAssistInstance.logic
        resources = Path(self.resourcePath("UI/AIAssist.ui")).parents[1]
        self.panel = Panel(self.logic, slicer.util.loadUI(str(resources / "UI" / "AIAssist.ui")), resources)
        self.layout.addWidget(self.panel.widget)

    def enter(self):
        """The module is shown."""
        if self.panel is not None:
            self.panel.enter()

    def exit(self):
        """Another module is shown."""
        if self.panel is not None:
            self.panel.exit()

    def cleanup(self):
        """The module is unloaded."""
        if self.panel is not None:
            self.panel.cleanup()
            slicer.modules.AIAssistInstance.forget_logic()  # a module that is loaded again begins with one of its own


class AIAssistLogic(ScriptedLoadableModuleLogic):
    """What the panel, the effects and the Python console use.

    Attributes
    ----------
    assistant : AIAssistLib.assistant.Assistant
        The backend in use.
    """

    def __init__(self):
        super().__init__()
        from AIAssistLib.assistant import Assistant
        from AIAssistLib.launch import slicer_python
        from AIAssistLib.network_qt import EventLoop
        from AIAssistLib.packages import BUNDLES, LEARNING, Packages
        from AIAssistLib.settings_qt import Settings

        self.settings = Settings()
        self.loop = EventLoop()
        self.python = slicer_python(slicer.app.slicerHome)
        resources, folder = Path(__file__).parent / "Resources", self.settings.packages
        self.packages = Packages(folder, resources / "requirements.txt")
        self.packages.use()
        more, others = folder.with_name(folder.name + LEARNING), folder.with_name(folder.name + BUNDLES)
        self.learning_packages = Packages(more, resources / "requirements-learning.txt")
        self.learning_packages.use()
        self.bundle_packages = Packages(others, resources / "requirements-bundles.txt")
        self.bundle_packages.use()
        self.assistant = Assistant(self.settings.remembered_home())
        removed = slicer.vtkMRMLScene.NodeRemovedEvent
        self._observed = slicer.mrmlScene.AddObserver(removed, self._node_removed)

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_removed(self, _scene, _event, node):
        """Let the voxels of a volume go, whether the panel was ever opened or not."""
        if node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
            self.assistant.forget(node.GetID())

    def move(self, where, url=None):
        """Use another home: "computer", "server" or "slicer". `AIAssistError` when it cannot be used; the old stays.

        Where this computer stands in for the one that is remembered, that is tried again first.
        """
        if self.settings.stands_in and where == self.settings.where:
            self.assistant.move(self.settings.remembered_home())
            return
        self.assistant.move(self.settings.home(where, url))
        self.settings.where = where
        if url is not None:
            self.settings.url = url

    def check_packages(self):
        """`AIAssistError` when something is not installed yet that this home needs."""
        from aiassist.errors import AIAssistError
        from aiassist.words import counted
        from AIAssistLib.settings_qt import SERVER

        missing = self.packages.missing() if self.settings.where != SERVER else []
        if missing:
            needed = counted(len(missing), "package")
            raise AIAssistError(f"AI Assist still needs {needed}; open the module AI Assist and press Install.")

    def annotate(
        self,
        volumeNode,
        points=(),
        segmentationNode=None,
        name="structure",
        positive=(),
        negative=(),
        box=None,
        line=None,
    ):
        """Segment a structure and wait for it.

        Parameters
        ----------
        volumeNode : vtkMRMLScalarVolumeNode
        points : array_like or vtkMRMLMarkupsNode
            Extreme points in the world (RAS, mm), shape (n, 3); six are best.
        segmentationNode : vtkMRMLSegmentationNode, optional
            Takes the segment; a new one when absent.
        name : str
            Of the new segment.
        positive, negative, box, line : array_like
            More prompts, in the world.

        Returns
        -------
        str
            The segment's ID.

        Raises
        ------
        aiassist.errors.AIAssistError
            One sentence that says what is wrong and what to do.
        """
        from AIAssistLib.console import annotate

        self.check_packages()
        return annotate(
            self.assistant,
            volumeNode,
            segmentationNode,
            name,
            extreme_points=points,
            positive=positive,
            negative=negative,
            box=box,
            line=line,
        )

    def close(self):
        """Stop the backend, if this Slicer started it, and wait until it has ended."""
        from AIAssistLib.child_qt import wait_for_ends

        slicer.mrmlScene.RemoveObserver(self._observed)
        self.assistant.close()
        wait_for_ends()


class AIAssistTest(ScriptedLoadableModuleTest):
    """Goes through the stories of the tutorial inside this Slicer."""

    def runTest(self):
        """Run all of them."""
        from AIAssistLib.self_test import run

        run(self)
