"""What both effects share."""

from __future__ import annotations

import logging
from pathlib import Path

import qt
import slicer
import vtk
from SegmentEditorEffects import AbstractScriptedSegmentEditorEffect
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError, ImageError
from AIAssistLib.icons_qt import show_icons
from AIAssistLib.section_qt import error_style
from AIAssistLib.segments import SegmentWriter, Target
from AIAssistLib.talks import sentence

#: Slicer's scale factor of an ordinary screen.
ORDINARY = 0.2

_HERE = Path(__file__).resolve().parent.parent / "Resources"


class AIAssistEffect(AbstractScriptedSegmentEditorEffect):
    """An effect that follows the segment, the volume and the segmentation chosen in the editor.

    A subclass sets `NAME` and `SOURCE` and defines `begin`, `end`, `mouse`, `key` and `show`.
    """

    NAME = TITLE = SOURCE = ""

    def __init__(self, scriptedEffect):
        scriptedEffect.name = self.NAME
        scriptedEffect.title = self.TITLE
        scriptedEffect.perSegment = True
        scriptedEffect.requireSegments = True
        super().__init__(scriptedEffect)
        self.ui = None
        self._connected: list[tuple[object, str, object]] = []
        self._observed: list[tuple[object, int]] = []
        self._target: Target | None = None
        self._writer: SegmentWriter | None = None

    # What Slicer calls

    def clone(self):
        """See Slicer's documentation of scripted effects."""
        import qSlicerSegmentationsEditorEffectsPythonQt as effects

        cloned = effects.qSlicerSegmentEditorScriptedEffect(None)
        cloned.setPythonSource(self.SOURCE.replace("\\", "/"))
        return cloned

    def icon(self):
        """The picture on the effect's button."""
        return qt.QIcon(str(_HERE / "Icons" / f"{Path(self.SOURCE).stem.removesuffix('Effect')}.png"))

    def createCursor(self, widget):
        """A cross: the anatomy under the mouse is what matters."""
        return qt.QCursor(qt.Qt.CrossCursor)

    def setupOptionsFrame(self):
        """Put the widgets of the effect's ``.ui`` file into the editor."""
        widget = slicer.util.loadUI(str(_HERE / "UI" / f"{Path(self.SOURCE).stem.removesuffix('Effect')}.ui"))
        self.scriptedEffect.addOptionsWidget(widget)
        self.ui = slicer.util.childWidgetVariables(widget)
        show_icons(self.ui, _HERE / "Icons")
        self.connect_widgets()

    def activate(self):
        """Begin with what is chosen."""
        editor = self.scriptedEffect.parameterSetNode()
        scene = slicer.mrmlScene
        self._writer = SegmentWriter(editor)
        self._observe(editor, vtk.vtkCommand.ModifiedEvent, self._follow)
        self._observe(editor, slicer.vtkMRMLNode.ReferenceAddedEvent, self._follow)
        self._observe(scene, slicer.vtkMRMLScene.StartCloseEvent, self._scene_closes)
        self._observe(scene, slicer.vtkMRMLScene.EndImportEvent, self._follow)
        self._follow()

    def deactivate(self):
        """Let go of everything."""
        for node, tag in self._observed:
            node.RemoveObserver(tag)
        self._observed = []
        if self._target is not None:
            self._target = None
            self.end()

    def cleanup(self):
        """The editor goes away; what stays connected would keep effect and widgets alive."""
        self.deactivate()
        for widget, signal, function in self._connected:
            widget.disconnect(signal, function)
        self._connected = []

    def connect(self, widget, signal: str, function) -> None:
        """Connect a widget of the options until `cleanup`."""
        widget.connect(signal, function)
        self._connected.append((widget, signal, function))

    def interactionNodeModified(self, interactionNode):
        """Stay active while window and level are adjusted or markups are placed."""

    def processInteractionEvents(self, callerInteractor, eventId, viewWidget):
        """Mouse and keys in a slice view; True keeps the event from everybody else."""
        if viewWidget.className() != "qMRMLSliceWidget" or self._other_mouse_mode():
            return False
        if self._target is None and eventId == vtk.vtkCommand.LeftButtonPressEvent:
            self._follow()  # what kept it from beginning may be gone
        if self._target is None:
            return False
        try:
            if eventId == vtk.vtkCommand.KeyPressEvent:
                return bool(self.key(callerInteractor.GetKeySym()))
            return bool(self.mouse(callerInteractor, eventId, viewWidget))
        except Exception as error:  # noqa: BLE001 - PythonQt would print it where nobody looks
            self.tell_error(error)
            return eventId == vtk.vtkCommand.LeftButtonPressEvent  # zooming and scrolling go on

    def _other_mouse_mode(self) -> bool:
        interaction = slicer.mrmlScene.GetNodeByID("vtkMRMLInteractionNodeSingleton")
        return (
            interaction is not None
            and interaction.GetCurrentInteractionMode() != slicer.vtkMRMLInteractionNode.ViewTransform
        )

    # Following the editor

    def _observe(self, node, event, function) -> None:
        self._observed.append((node, node.AddObserver(event, function)))

    def _scene_closes(self, *_) -> None:
        if self._target is not None:
            self._target = None
            self.end()

    def _follow(self, *_event) -> None:
        editor = self.scriptedEffect.parameterSetNode()
        target = None
        if editor is not None:
            chosen = (editor.GetSourceVolumeNode(), editor.GetSegmentationNode(), editor.GetSelectedSegmentID())
            target = Target(*chosen) if all(chosen) else None
        if target is None:
            self.tell(_("Choose an image and a structure first, or press Add."))
        if target == self._target:
            return
        if self._target is not None:
            self._target = None
            self.end()
        if target is not None:
            self.attempt(self._begin, target)

    def _begin(self, target: Target) -> None:
        self.logic.check_packages()
        self.scriptedEffect.confirmCurrentSegmentVisible()
        self.begin(target)
        self._target = target

    def attempt(self, function, *arguments) -> None:
        """Call something for the person; what goes wrong is shown in one sentence."""
        try:
            function(*arguments)
        except Exception as error:  # noqa: BLE001 - PythonQt would print it where nobody looks
            self.tell_error(error)

    def tell_error(self, error: Exception) -> None:
        """Show what went wrong; what nobody foresaw goes to the log as well."""
        if not isinstance(error, AIAssistError):
            logging.error("AIAssist: %s", self.NAME, exc_info=error)
        self.tell(sentence(error), failed=True)

    def tell(self, text: str, failed: bool = False) -> None:
        """Show a sentence in the effect's options."""
        label = self.ui.statusLabel
        label.setText(text)
        label.setStyleSheet(error_style(label) if failed else "")

    def tell_now(self, text: str) -> None:
        """As `tell`, and shown before what comes next, which takes long and lets Slicer do nothing else."""
        self.tell(text)
        self.ui.statusLabel.repaint()

    @property
    def logic(self):
        """The logic of the module, which knows the backend."""
        return slicer.modules.AIAssistInstance.logic

    def save_state(self) -> None:
        """Let the editor remember the segmentation as it is, for undo."""
        self.scriptedEffect.saveStateForUndo()

    def check_shown(self, view_widget) -> None:
        """`ImageError` when a view shows other images than the one that is annotated, so that nobody sees it."""
        composite, own = view_widget.sliceLogic().GetSliceCompositeNode(), self._target.volume_node
        shown = [composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()]
        others = [node for node in map(slicer.mrmlScene.GetNodeByID, filter(None, shown)) if node is not None]
        if others and own not in others:
            raise ImageError(
                f"This view shows {others[0].GetName()!r}, but {own.GetName()!r} is being annotated; choose "
                f"{others[0].GetName()!r} as the source volume, or show {own.GetName()!r}."
            )

    @staticmethod
    def slice_node(view_widget):
        """The slice node of a view."""
        return view_widget.sliceLogic().GetSliceNode()

    @staticmethod
    def pixels(view_widget) -> float:
        """How many pixels of a view look like one on an ordinary screen."""
        return max(1.0, view_widget.sliceLogic().GetSliceNode().GetScreenScaleFactor() / ORDINARY)

    # What subclasses define

    def connect_widgets(self) -> None:
        """Connect the widgets in `ui`."""

    def begin(self, target: Target) -> None:
        """A segment was chosen."""

    def end(self) -> None:
        """The segment is no longer chosen, or the effect no longer active."""

    def mouse(self, interactor, event_id, view_widget) -> bool:
        """The mouse did something in a slice view; whether nobody else should know."""
        return False

    def key(self, key: str) -> bool:
        """A key was pressed over a slice view; whether nobody else should know."""
        return False
