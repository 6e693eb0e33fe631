"""The module's panel: its sections, its keys, and what they share."""

from __future__ import annotations

from pathlib import Path

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from AIAssistLib.auto_section_qt import AutoSection
from AIAssistLib.backend_section_qt import BackendSection
from AIAssistLib.console import drawn_on, new_segmentation
from AIAssistLib.drafts import names_with_drafts
from AIAssistLib.export_section_qt import ExportSection
from AIAssistLib.icons_qt import show_icons
from AIAssistLib.learn_section_qt import LearnSection
from AIAssistLib.next_section_qt import NextSection
from AIAssistLib.nodes import remove_with_display
from AIAssistLib.recovery_qt import Recovery
from AIAssistLib.save_section_qt import SaveSection
from AIAssistLib.section_qt import ask
from AIAssistLib.shortcuts import SHORTCUTS
from AIAssistLib.structures_section_qt import StructuresSection
from AIAssistLib.tags import stamps_of
from AIAssistLib.talks import ignore

#: The effects that the panel shows, ours first.
EFFECTS = (
    *("AI Points", "Smart Contour", "Paint", "Draw", "Erase", "Scissors", "Islands"),
    *("Smoothing", "Fill between slices", "Margin", "Threshold"),
)
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
        show_icons(self.ui, resources / "Icons")
        widget.setMRMLScene(slicer.mrmlScene)
        self.editor = self.ui.editorWidget
        self.editor.setMRMLScene(slicer.mrmlScene)
        self.editor.maximumNumberOfUndoStates = UNDO
        self.editor.setEffectNameOrder(list(EFFECTS))
        self.editor.unorderedEffectsVisible = False
        self.editor.effectColumnCount = 4  # their names are long, and the panel is narrow
        self.editor.setMRMLSegmentEditorNode(self._editor_node())
        self._followed: tuple = ()
        #: IDs of the image and the segmentation that the sections know of.
        self._known: tuple[str, str] = ("", "")
        self._keys: list = []
        self._opened: tuple = ()
        self.structures = StructuresSection(self)
        self.auto = AutoSection(self)
        self.saving = SaveSection(self)
        self.exporting = ExportSection(self)
        self.images = NextSection(self)
        self.recovery = Recovery(self)
        self.learn = LearnSection(self)
        self.backend = BackendSection(self)
        logic.assistant.changed = self.backend.show_status
        logic.assistant.moved = self._home_changed
        scene = slicer.vtkMRMLScene
        self._observed = [
            slicer.mrmlScene.AddObserver(event, function)
            for event, function in (
                (scene.StartCloseEvent, self._scene_closes),
                (scene.EndCloseEvent, self._scene_closed),
                (scene.EndImportEvent, self._scene_loaded),
            )
        ]
        self._entered = False
        self._use_editor_node()

    def _use_editor_node(self) -> None:
        """Edit with our own node, and follow which image and segmentation it names."""
        node = self._editor_node()
        self.editor.setMRMLSegmentEditorNode(node)
        if self._followed[:1] != (node,):
            self._unfollow()
            events = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLNode.ReferenceAddedEvent)
            late = -1.0  # once the editor has followed
            self._followed = (node, [node.AddObserver(event, self._follow, late) for event in events])
        self._follow()

    def _unfollow(self) -> None:
        node, tags = self._followed or (None, [])
        for tag in tags:
            node.RemoveObserver(tag)
        self._followed = ()

    def _follow(self, *_event) -> None:
        """Tell the sections when there is another image or segmentation."""
        nodes = self.editor.sourceVolumeNode(), self.editor.segmentationNode()
        ids = tuple(node.GetID() if node is not None else "" for node in nodes)
        if ids == self._known:
            return
        before = [slicer.mrmlScene.GetNodeByID(known) if known else None for known in self._known]
        other_image, self._known = ids[0] != self._known[0], ids
        if None not in before:
            self.recovery.keep_all(*before)
        self.structures.image_changed()
        if other_image:
            self.auto.image_changed()
            self.recovery.image_changed()
            self.saving.begin_anew()

    @staticmethod
    def _editor_node():
        node = slicer.mrmlScene.GetSingletonNode("AIAssist", "vtkMRMLSegmentEditorNode")
        if node is None:
            node = slicer.mrmlScene.CreateNodeByClass("vtkMRMLSegmentEditorNode")
            node.UnRegister(None)
            node.SetSingletonTag("AIAssist")
            node.SetSaveWithScene(False)  # it would bring back the active effect, whatever module is shown then
            node.SetOverwriteMode(node.OverwriteNone)  # finished segments stay as they are
            node = slicer.mrmlScene.AddNode(node)
        return node

    def _home_changed(self) -> None:
        self.images.home_changed()
        self.saving.home_changed()
        self.learn.home_changed()

    # Coming and going

    def enter(self) -> None:
        """The module is shown."""
        self._entered = True
        self._use_editor_node()
        self.editor.updateEffectList()
        self.editor.updateWidgetFromMRML()
        self.editor.installKeyboardShortcuts()
        window = slicer.util.mainWindow()
        for shortcut in SHORTCUTS if window is not None and not self._keys else ():
            key = qt.QShortcut(window)
            key.setKey(qt.QKeySequence(shortcut.key))
            key.setAutoRepeat(False)  # else N, held a little long, would add several structures
            key.connect("activated()", getattr(self, shortcut.action))
            self._keys.append(key)
        self.backend.enter()
        self.learn.look_if_shown()
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
        self._unfollow()
        for tag in self._observed:
            slicer.mrmlScene.RemoveObserver(tag)
        self.auto.cancel()
        self.images.cancel()
        self.learn.cleanup()
        self.backend.cleanup()
        self.logic.assistant.changed = self.logic.assistant.moved = ignore

    def _scene_closes(self, *_event) -> None:
        self._leave()
        self._opened = ()
        self.auto.cancel()
        self.images.scene_closes()
        self.structures.scene_closes()
        self.editor.setActiveEffectByName("")
        self.editor.setSegmentationNode(None)

    def _leave(self) -> None:
        """The image and its segmentation go; what is not saved was kept then, and is nobody's in the next image."""
        self.recovery.leave()
        self._known = ("", "")

    def _scene_closed(self, *_event) -> None:
        self._editor_node().SetOverwriteMode(slicer.vtkMRMLSegmentEditorNode.OverwriteNone)  # closing resets it
        self._use_editor_node()
        if self._entered:
            self.recovery.start()

    def _scene_loaded(self, *_event) -> None:
        if not self._entered:  # an effect that was active when the scene was saved must not take clicks now
            self.editor.setActiveEffectByName("")

    def models_seen(self) -> None:
        """The backend's models are known."""
        self.auto.models_seen()
        self.learn.models_seen()

    def save_state(self, segmentation) -> None:
        """Let the editor remember a segmentation for undo, if it is still the one in the panel."""
        if self.editor.segmentationNode() is segmentation:
            self.editor.saveStateForUndo()

    # The image that Next opened

    def open(self, volume) -> None:
        """Annotate an image from now on, in a segmentation of its own.

        What was opened like this before goes, see `may_leave`: a folder of scans would fill the memory.
        """
        self.editor.setActiveEffectByName("")
        self._leave()
        self.auto.cancel()
        before = self._still_there() if self._is_image_there() else []  # segments whose image is gone stay
        self._opened = (volume, new_segmentation(volume))
        self.editor.setSegmentationNode(self._opened[1])
        self.editor.setSourceVolumeNode(volume)
        for node in before:
            remove_with_display(node)
        self.recovery.start()

    def may_leave(self) -> bool:
        """Whether what Next opened may go: all segments on it are saved as ground truth, or the person says so."""
        drawn_in = self._drawn_in()
        if not drawn_in:
            return True
        volume, marks = self._opened[0], _("{name}: marks that are not accepted")
        names = [name for segmentation in drawn_in for name in self.saving.unsaved(volume, segmentation)]
        names += [marks.format(name=name) for node in drawn_in for name in names_with_drafts(node)]
        question = _("{image} has work that is not saved as ground truth ({names}); remove it and go on?")
        return not names or ask(question.format(names=", ".join(names), image=volume.GetName()))

    def work(self) -> list:
        """Changes when somebody draws or marks in what Next opened, or on its image in another segmentation."""
        return [(stamps_of(node), names_with_drafts(node)) for node in self._drawn_in()]

    def _drawn_in(self) -> list:
        """The segmentations on the image that Next opened: its own, those drawn on it, and the one shown with it."""
        if not self._is_image_there():
            return []
        volume, own = self._opened
        shown = self.editor.segmentationNode() if self.editor.sourceVolumeNode() is volume else None
        nodes = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")
        return [
            node
            for node in nodes
            if node in (own, shown) or (drawn_on(node) is volume and not node.GetHideFromEditors())
        ]

    def _is_image_there(self) -> bool:
        return bool(self._opened) and self._opened[0].GetScene() is not None

    def _still_there(self) -> list:
        return [node for node in self._opened if node.GetScene() is not None]

    # The keys

    def points(self) -> None:
        """Begin to mark."""
        self.editor.setActiveEffectByName("AI Points")

    def contour(self) -> None:
        """Begin to pull vertices."""
        self.editor.setActiveEffectByName("Smart Contour")

    def begin_again(self) -> None:
        """Activate the effect anew: what kept it from beginning may be gone."""
        effect = self.editor.activeEffect()
        name = effect.name if effect is not None else ""
        self.editor.setActiveEffectByName("")
        self.editor.setActiveEffectByName(name)

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

    def save_and_next(self) -> None:
        """As the button does, unless it is disabled; what comes of it is to be read."""
        self.ui.saveSection.collapsed = False
        self.ui.saveNextButton.click()

    def _marking(self):
        """AI Points, while it is active."""
        effect = self.editor.activeEffect()
        return effect.self() if effect is not None and effect.name == "AI Points" else None
