"""The Segment Editor over Slicer's real logic: effects, undo, masking; and the events that reach an effect."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import qt
import slicer
import vtk

from shell.stand_ins import stand_in, stored

#: The events of a view that Slicer's editor hands to the active effect.
EVENTS = (
    *(f"{button}Button{what}Event" for button in ("Left", "Right", "Middle") for what in ("Press", "Release")),
    *("LeftButtonDoubleClickEvent", "MouseMoveEvent", "MouseWheelForwardEvent", "MouseWheelBackwardEvent"),
    *("KeyPressEvent", "KeyReleaseEvent", "EnterEvent", "LeaveEvent"),
)
#: Slicer's own effects, of which there is only a button here.
BUILT_IN = ("Threshold", "Paint", "Draw", "Erase", "Level tracing", "Grow from seeds", "Scissors", "Islands", "Margin")


def install() -> None:
    """Make the modules importable that Slicer's effects are written with."""
    effects: list = []
    factory = types.SimpleNamespace(registerEffect=effects.append, registeredEffects=lambda: list(effects))
    slicer.qSlicerSegmentEditorEffectFactory = types.SimpleNamespace(instance=lambda: factory)
    bridge = types.ModuleType("qSlicerSegmentationsEditorEffectsPythonQt")
    bridge.qSlicerSegmentEditorScriptedEffect = slicer.qSlicerSegmentEditorScriptedEffect
    sys.modules[bridge.__name__] = bridge
    sys.modules.setdefault("SegmentEditorEffects", _effect_classes())


def _effect_classes() -> types.ModuleType:
    module = types.ModuleType("SegmentEditorEffects")

    class AbstractScriptedSegmentEditorEffect:
        """As Slicer's, without what nobody here uses."""

        def __init__(self, scriptedEffect):
            self.scriptedEffect = scriptedEffect

        def register(self):
            slicer.qSlicerSegmentEditorEffectFactory.instance().registerEffect(self.scriptedEffect)

        def cleanup(self):
            pass

    module.AbstractScriptedSegmentEditorEffect = AbstractScriptedSegmentEditorEffect
    return module


@stand_in(slicer)
class qSlicerSegmentEditorScriptedEffect(qt.QObject):
    """What an effect written in Python calls ``scriptedEffect``."""

    name = stored("QString", "name", "")
    title = stored("QString", "title", "")
    perSegment = stored(bool, "perSegment", True)
    requireSegments = stored(bool, "requireSegments", True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._python = None
        self._editor = None
        self._frame = qt.QFrame()
        self._layout = qt.QFormLayout(self._frame)
        self._source = ""
        self._is_active = False

    def setPythonSource(self, path):
        """As Slicer: the class is named after the file, and looked for in the module named after the folder."""
        self._source, name = path, Path(path).stem
        module = sys.modules.get(Path(path).parent.name)
        if not hasattr(module, name):
            spec = importlib.util.spec_from_file_location(Path(path).parent.name, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        self._python = getattr(module, name)(self)
        return True

    def self(self):
        return self._python

    def active(self):
        return self._is_active

    def parameterSetNode(self):
        return self._editor.mrmlSegmentEditorNode() if self._editor is not None else None

    def optionsFrame(self):
        return self._frame

    def addOptionsWidget(self, widget):
        self._layout.addRow(widget)

    def addLabeledOptionsWidget(self, label, widget):
        self._layout.addRow(label, widget)

    def saveStateForUndo(self):
        self._editor.saveStateForUndo()

    def selectEffect(self, name):
        self._editor.setActiveEffectByName(name)

    def renderer(self, widget):
        return widget._view.renderer

    def addActor2D(self, widget, actor):
        widget._view.renderer.AddViewProp(actor)

    def removeActor2D(self, widget, actor):
        widget._view.renderer.RemoveViewProp(actor)

    def confirmCurrentSegmentVisible(self):
        return 0

    def scheduleRender(self, widget):
        widget._view.render_needed = True


@stand_in(slicer)
class qMRMLSegmentEditorWidget(slicer.qMRMLWidget):
    """Slicer's editor widget over `vtkSlicerSegmentEditorLogic`."""

    unorderedEffectsVisible = stored(bool, "unorderedEffectsVisible", True)
    maximumNumberOfUndoStates = stored(int, "maximumNumberOfUndoStates", 10, "_limit_history")
    segmentationNodeSelectorVisible = stored(bool, "segmentationNodeSelectorVisible", True, "_update_look")
    sourceVolumeNodeSelectorVisible = stored(bool, "sourceVolumeNodeSelectorVisible", True, "_update_look")
    switchToSegmentationsButtonVisible = stored(bool, "switchToSegmentationsButtonVisible", True)
    undoEnabled = stored(bool, "undoEnabled", True)
    readOnly = stored(bool, "readOnly", False)
    effectColumnCount = stored(int, "effectColumnCount", 5, "_update_look")

    def __init__(self, parent=None):
        super().__init__(parent)
        self._history = slicer.vtkSegmentationHistory()
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetSegmentationHistory(self._history)
        self._history.SetMaximumNumberOfStates(10)
        self._node = self._tag = self._active = None
        self._effects, self._order, self._observations = {}, [], []
        self._keys_installed = False
        self._build()
        self.updateEffectList()  # as Slicer: the effects' widgets are there before those of the panel are looked up

    def _limit_history(self, states):
        self._history.SetMaximumNumberOfStates(states)

    # Nodes

    def setMRMLScene(self, scene):
        super().setMRMLScene(scene)
        self._logic.SetMRMLScene(scene)
        self.updateEffectList()
        interaction = scene.GetNodeByID("vtkMRMLInteractionNodeSingleton") if scene is not None else None
        if interaction is not None:
            interaction.AddObserver(vtk.vtkCommand.ModifiedEvent, self._interaction_modified)

    def setMRMLSegmentEditorNode(self, node):
        if self._node is not None and self._tag is not None:
            self._node.RemoveObserver(self._tag)
        self._node = node
        self._logic.SetSegmentEditorNode(node)
        self._tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, self._update) if node is not None else None
        self._update()

    def mrmlSegmentEditorNode(self):
        return self._node

    def updateWidgetFromMRML(self):
        self._update()
        self._update_look()

    def setSegmentationNode(self, node):
        self._logic.SetSegmentationNode(node)
        segmentation = node.GetSegmentation() if node is not None else None
        self._history.SetSegmentation(segmentation)
        if segmentation is not None and segmentation.GetNumberOfSegments() and not self.currentSegmentID():
            self.setCurrentSegmentID(segmentation.GetNthSegmentID(0))
        self._update_look()

    def segmentationNode(self):
        return self._node.GetSegmentationNode() if self._node is not None else None

    def setSourceVolumeNode(self, node):
        self._logic.SetSourceVolumeNode(node)
        self._update_look()

    def sourceVolumeNode(self):
        return self._node.GetSourceVolumeNode() if self._node is not None else None

    def setCurrentSegmentID(self, segment_id):
        self._node.SetSelectedSegmentID(segment_id)
        self._update_look()

    def currentSegmentID(self):
        return self._node.GetSelectedSegmentID() or "" if self._node is not None else ""

    # Effects

    def setEffectNameOrder(self, names):
        self._order = list(names)
        self._update_look()

    def effectNameOrder(self):
        return self._order

    def updateEffectList(self):
        for registered in slicer.qSlicerSegmentEditorEffectFactory.instance().registeredEffects():
            if registered.name not in self._effects:
                effect = registered.self().clone()
                effect._editor = self
                self._effects[registered.name] = effect
                effect.self().setupOptionsFrame()
                effect.optionsFrame().hide()
                self._options.layout().addWidget(effect.optionsFrame())
        self._update_look()

    def availableEffectNames(self):
        return list(self._effects)

    def effectByName(self, name):
        return self._effects.get(name)

    def activeEffect(self):
        return self._active

    def setActiveEffect(self, effect):
        self.setActiveEffectByName(effect.name if effect is not None else "")

    def setActiveEffectByName(self, name):
        if self._node is not None:
            self._node.SetActiveEffectName(name)

    def _update(self, *_):
        name = self._node.GetActiveEffectName() if self._node is not None else ""
        wanted = self._effects.get(name)
        if wanted is self._active:
            return
        previous, self._active = self._active, wanted
        if previous is not None:
            previous._is_active = False
            previous.self().deactivate()
            previous.optionsFrame().hide()
            self.removeViewObservations()
        if wanted is not None:
            self.setupViewObservations()
            wanted._is_active = True
            wanted.self().activate()
            wanted.optionsFrame().show()
        self._update_look()

    def _interaction_modified(self, node, event):
        if self._active is None:
            return
        python = self._active.self()
        if hasattr(python, "interactionNodeModified"):
            python.interactionNodeModified(node)
        elif node.GetCurrentInteractionMode() != slicer.vtkMRMLInteractionNode.ViewTransform:
            self.setActiveEffectByName("")

    # Undo

    def saveStateForUndo(self):
        if self.undoEnabled:
            self._logic.SaveStateForUndo()

    def undo(self):
        self._logic.Undo()

    def redo(self):
        self._logic.Redo()

    # Events of the views

    def setupViewObservations(self):
        manager = slicer.app.layoutManager()
        if manager is None or self._observations:
            return
        for name in manager.sliceViewNames():
            widget = manager.sliceWidget(name)
            for event in EVENTS:
                self._observe(widget, widget._view.interactor, event)
            self._observe_node(widget, widget._view.node)

    def _observe(self, widget, interactor, event):
        number = getattr(vtk.vtkCommand, event)

        def handle(caller, name):
            handler = getattr(self._active.self(), "processInteractionEvents", None) if self._active else None
            if handler is None:
                return
            result = handler(caller, number, widget)
            if not isinstance(result, bool):
                raise TypeError("processInteractionEvents is expected to return a boolean")
            if result:
                interactor.GetCommand(tag).SetAbortFlag(1)

        tag = interactor.AddObserver(event, handle, 1.0)
        self._observations.append((interactor, tag))

    def _observe_node(self, widget, node):
        def handle(caller, name):
            handler = getattr(self._active.self(), "processViewNodeEvents", None) if self._active else None
            if handler is not None:
                handler(caller, vtk.vtkCommand.ModifiedEvent, widget)

        self._observations.append((node, node.AddObserver(vtk.vtkCommand.ModifiedEvent, handle, 1.0)))

    def removeViewObservations(self):
        for observed, tag in self._observations:
            observed.RemoveObserver(tag)
        self._observations = []

    def installKeyboardShortcuts(self, *parent):
        self._keys_installed = True

    def uninstallKeyboardShortcuts(self):
        self._keys_installed = False

    # What the person sees

    def _build(self):
        layout = qt.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        self._table = qt.QTableWidget()
        self._table.setColumnCount(2)
        self._table.horizontalHeader().hide()
        self._table.verticalHeader().hide()
        self._table.setMaximumHeight(110)
        self._table.horizontalHeader().setStretchLastSection(True)
        layout.addWidget(self._table)
        self._buttons = qt.QGroupBox("Effects")
        self._grid = qt.QGridLayout(self._buttons)
        layout.addWidget(self._buttons)
        self._options = qt.QGroupBox("Options")
        qt.QVBoxLayout(self._options)
        layout.addWidget(self._options)

    def _update_look(self, *_):
        while self._grid.count():
            self._grid.takeAt(0).widget().deleteLater()
        names = ["None", *self._order, *(n for n in BUILT_IN if self.unorderedEffectsVisible and n not in self._order)]
        for number, name in enumerate(names):
            button = qt.QToolButton()
            button.setText(name)
            button.setCheckable(True)
            button.setChecked(self._active is not None and self._active.name == name)
            effect = self._effects.get(name)
            if effect is not None:
                button.setIcon(effect.self().icon())
            button.setToolButtonStyle(qt.Qt.ToolButtonTextUnderIcon)
            button.setSizePolicy(qt.QSizePolicy.Expanding, qt.QSizePolicy.Fixed)
            self._grid.addWidget(button, number // self.effectColumnCount, number % self.effectColumnCount)
        self._options.setTitle(self._active.title if self._active is not None else "Options")
        self._options.setVisible(self._active is not None)
        self._fill_table()

    def _fill_table(self):
        node = self.segmentationNode()
        segmentation = node.GetSegmentation() if node is not None else None
        count = segmentation.GetNumberOfSegments() if segmentation is not None else 0
        self._table.setRowCount(count)
        for number in range(count):
            segment = segmentation.GetNthSegment(number)
            colour = qt.QTableWidgetItem("")
            colour.setBackground(qt.QBrush(qt.QColor.fromRgbF(*segment.GetColor())))
            self._table.setItem(number, 0, colour)
            self._table.setItem(number, 1, qt.QTableWidgetItem(segment.GetName()))
            if segmentation.GetNthSegmentID(number) == self.currentSegmentID():
                self._table.selectRow(number)
        self._table.setColumnWidth(0, 24)
