"""The module's panel: its sections, its keys, and what they share."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
import vtk

from AIAssistLib.auto_section_qt import AutoSection
from AIAssistLib.backend_section_qt import BackendSection
from AIAssistLib.console import new_segmentation
from AIAssistLib.export_section_qt import ExportSection
from AIAssistLib.recovery_qt import Recovery
from AIAssistLib.save_section_qt import SaveSection
from AIAssistLib.shortcuts import SHORTCUTS
from AIAssistLib.structures_section_qt import StructuresSection

#: The effects that the panel shows, ours first.
EFFECTS = ("AI Points", "Smart Contour", "Paint", "Erase", "Scissors", "Islands", "Smoothing", "Threshold")
#: Steps that can be undone; each holds a copy of the labelmap that it changed.
UNDO = 20


class Panel:
    """The panel.

    Parameters
    ----------
    logic : AIAssistLogic
    widget : qt.QWidget
        The loaded ``AIAssist.ui``.
    resources : Path
        The module's ``Resources``.
    """

    def __init__(self, logic, widget, resources: Path):
        self.logic, self.widget, self.resources = logic, widget, resources
        self.ui = slicer.util.childWidgetVariables(widget)
        widget.setMRMLScene(slicer.mrmlScene)
        self.editor = self.ui.editorWidget
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.editor.maximumNumberOfUndoStates = UNDO
        self.editor.setEffectNameOrder(list(EFFECTS))
        self.editor.unorderedEffectsVisible = False
        self.editor.setMRMLSegmentEditorNode(self._editor_node())
        self._keys: list = []
        self._loaded: tuple = ()
        self.structures = StructuresSection(self)
        self.auto = AutoSection(self)
        self.saving = SaveSection(self)
        self.exporting = ExportSection(self)
        self.recovery = Recovery(self)
        self.backend = BackendSection(self)
        logic.assistant.changed = self.backend.show_status
        scene = slicer.vtkMRMLScene
        self._observed = [
            slicer.mrmlScene.AddObserver(event, function)
            for event, function in (
                (scene.StartCloseEvent, self._scene_closes),
                (scene.EndCloseEvent, self._scene_closed),
                (scene.EndImportEvent, self._scene_loaded),
                (scene.NodeRemovedEvent, self._node_removed),
            )
        ]
        self._entered = False

    @staticmethod
    def _editor_node():
        node = slicer.mrmlScene.GetSingletonNode("AIAssist", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag("AIAssist")
            node.SetSaveWithScene(False)  # it would bring back the active effect, whatever module is shown then
            node = slicer.mrmlScene.AddNode(node)
        return node

    # Coming and going

    def enter(self) -> None:
        """The module is shown."""
        self._entered = True
        self.editor.setMRMLSegmentEditorNode(self._editor_node())
        self.editor.updateEffectList()
        self.editor.updateWidgetFromMRML()
        self.editor.installKeyboardShortcuts()
        window = slicer.util.mainWindow()
        for shortcut in SHORTCUTS if window is not None and not self._keys else ():
            key = qt.QShortcut(window)
            key.setKey(qt.QKeySequence(shortcut.key))
            key.connect("activated()", getattr(self, shortcut.action))
            self._keys.append(key)
        self.backend.enter()
        self.recovery.start()

    def exit(self) -> None:
        """Another module is shown."""
        self._entered = False
        self.recovery.stop()
        self.editor.setActiveEffectByName("")
        self.editor.uninstallKeyboardShortcuts()
        for key in self._keys:
            key.disconnect("activated()")
            key.setParent(None)
            key.deleteLater()
        self._keys = []

    def cleanup(self) -> None:
        """The module is unloaded."""
        self.exit()
        for tag in self._observed:
            slicer.mrmlScene.RemoveObserver(tag)
        self.auto.cancel()
        self.backend.cleanup()
        self.logic.assistant.changed = _nothing

    def _scene_closes(self, *_) -> None:
        self.recovery.stop()
        self._loaded = ()
        self.auto.cancel()
        self.editor.setActiveEffectByName("")
        self.editor.setSegmentationNode(None)

    def _scene_closed(self, *_) -> None:
        self.editor.setMRMLSegmentEditorNode(self._editor_node())
        if self._entered:
            self.recovery.start()

    def _scene_loaded(self, *_) -> None:
        if not self._entered:  # an effect that was active when the scene was saved must not take clicks now
            self.editor.setActiveEffectByName("")

    @vtk.calldata_type(vtk.VTK_OBJECT)
    def _node_removed(self, _scene, _event, node) -> None:
        if node is not None and node.IsA("vtkMRMLScalarVolumeNode"):
            self.logic.assistant.forget(node.GetID())

    def models_seen(self) -> None:
        """The backend's models are known."""
        self.auto.models_seen()

    def load(self, path: Path, saved: bool = False) -> None:
        """Load an image and annotate it from now on, in a segmentation of its own.

        When what was loaded like this before is `saved`, it goes: a folder of scans would fill the memory.
        """
        self.editor.setActiveEffectByName("")
        volume = slicer.util.loadVolume(str(path))
        self.recovery.stop()
        self.auto.cancel()
        before, self._loaded = self._loaded, (volume, new_segmentation(volume))
        self.editor.setSegmentationNode(self._loaded[1])
        self.editor.setSourceVolumeNode(volume)
        for node in before if saved else ():
            slicer.mrmlScene.RemoveNode(node)
        self.recovery.start()

    # The keys

    def points(self) -> None:
        """Begin to mark."""
        self.editor.setActiveEffectByName("AI Points")

    def contour(self) -> None:
        """Begin to pull vertices."""
        self.editor.setActiveEffectByName("Smart Contour")

    def accept(self) -> None:
        """Accept the preview."""
        if self._marking() is not None:
            self._marking().accept()

    def accept_if_any(self) -> None:
        """Accept the preview, if there is one. `AIAssistError` when it cannot be: then nobody may go on without it."""
        marking = self._marking()
        if marking is not None and marking.is_wanted:
            marking.accept_or_raise()

    def take_back(self) -> None:
        """Take the latest mark back."""
        if self._marking() is not None:
            self._marking().take_back()

    def look(self) -> None:
        """Show the preview in another way."""
        if self._marking() is not None:
            self._marking().next_look()

    def next_structure(self) -> None:
        """Accept and go on with the next structure."""
        self.structures.next()

    def _marking(self):
        """AI Points, while it is active."""
        effect = self.editor.activeEffect()
        return effect.self() if effect is not None and effect.name == "AI Points" else None


def _nothing() -> None:
    pass
