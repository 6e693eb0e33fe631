"""Slicer's choice of a node."""

from __future__ import annotations

import weakref

import shiboken6
import slicer
import vtk
from PySide6 import QtWidgets
from PySide6.QtCore import Property, Signal, Slot

from shell.stand_ins import row, stand_in, stored


@stand_in(slicer)
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """A choice of one of the scene's nodes. Its menu offers no actions: call `addNode` and `removeCurrentNode`."""

    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAddedByUserAction = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)

    nodeTypes = stored("QStringList", "nodeTypes", [], "_refresh")
    showHidden = stored(bool, "showHidden", False, "_refresh")
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True, "_refresh")
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [], "_refresh")
    noneEnabled = stored(bool, "noneEnabled", False, "_refresh")
    noneDisplay = stored(str, "noneDisplay", "None", "_refresh")
    addEnabled = stored(bool, "addEnabled", True)
    removeEnabled = stored(bool, "removeEnabled", True)
    editEnabled = stored(bool, "editEnabled", False)
    renameEnabled = stored(bool, "renameEnabled", False)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    baseName = stored(str, "baseName", "")
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "")
    sizeAdjustPolicy = stored(int, "sizeAdjustPolicy", 0)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._scene: slicer.vtkMRMLScene | None = None
        self._nodes: list[slicer.vtkMRMLNode] = []
        self._required: list[tuple[str, str, str | None]] = []
        self._labels: dict[str, str] = {}
        self._reported = ""
        self._observed: list[tuple[vtk.vtkObject, int]] = []
        self._combo_box = QtWidgets.QComboBox()
        self._combo_box.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        row(self, self._combo_box)
        self._combo_box.connect("currentIndexChanged(int)", self._report)
        self._combo_box.connect("activated(int)", self._on_activated)
        self._refresh()

    # -- The scene

    @Slot(object)
    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Offer the nodes of a scene."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed.clear()
        self._scene = scene
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
                self._observe(scene, event, "_refresh")
            self._observe(scene, scene.NodeAboutToBeRemovedEvent, "_on_removal")
        self._refresh()

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene."""
        return self._scene

    def _observe(self, observed: vtk.vtkObject, event: int, method: str) -> None:
        """Call a method on an event, as long as the widget lives."""
        reference = weakref.ref(self)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def call(caller, event_name, node=None):
            widget = reference()
            if widget is not None and shiboken6.isValid(widget):
                getattr(widget, method)(node)

        self._observed.append((observed, observed.AddObserver(event, call)))

    def _on_removal(self, node: slicer.vtkMRMLNode) -> None:
        if node in self._nodes:
            self.nodeAboutToBeRemoved.emit(node)

    def _on_rename(self, _=None) -> None:
        names = [node.GetName() for node in self._nodes]
        if names != [self._combo_box.itemText(index) for index in self._node_rows()]:
            self._refresh()
            if self.currentNode() is not None:
                self.currentNodeRenamed.emit(self.currentNode().GetName())

    # -- Which nodes are offered

    def _offered(self) -> list[slicer.vtkMRMLNode]:
        if self._scene is None:
            return []
        nodes = (self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes()))
        return [node for node in nodes if self._offers(node)]

    def _offers(self, node: slicer.vtkMRMLNode) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        name = node.GetClassName()
        kinds = [kind for kind in self.nodeTypes if name == kind or (self.showChildNodeTypes and node.IsA(kind))]
        if not kinds or (name not in kinds and any(node.IsA(hidden) for hidden in self.hideChildNodeTypes)):
            return False
        required = [(attribute, value) for kind, attribute, value in self._required if node.IsA(kind)]
        return all(
            node.GetAttribute(attribute) is not None if value is None else node.GetAttribute(attribute) == value
            for attribute, value in required
        )

    def addAttribute(self, node_type: str, attribute: str, value: object = None) -> None:
        """Offer nodes of a class only if they have an attribute, of this value if one is given."""
        self.removeAttribute(node_type, attribute)
        self._required.append((node_type, attribute, None if value is None else str(value)))
        self._refresh()

    def removeAttribute(self, node_type: str, attribute: str) -> None:
        """Undo `addAttribute`."""
        self._required = [entry for entry in self._required if entry[:2] != (node_type, attribute)]
        self._refresh()

    def setNodeTypeLabel(self, label: str, node_type: str) -> None:
        """Name a node class for the user."""
        self._labels[node_type] = label

    def nodeTypeLabel(self, node_type: str) -> str:
        """A node class's name for the user."""
        return self._labels.get(node_type, "")

    # -- What is shown

    def _node_rows(self) -> range:
        first = int(self.noneEnabled)
        return range(first, first + len(self._nodes))

    def _refresh(self, *_) -> None:
        """Show the nodes as they are now, and keep the current one if it is still there."""
        current, known, offered = self.currentNode(), self._nodes, self._offered()
        added = [node for node in offered if node not in known]
        blocked = self._combo_box.blockSignals(True)
        self._nodes = offered
        self._combo_box.clear()
        self._combo_box.addItems([self.noneDisplay] * self.noneEnabled + [node.GetName() for node in offered])
        self._combo_box.setCurrentIndex(self._row_of(current) if current in offered else 0)
        self._combo_box.blockSignals(blocked)
        self._observe_names()
        for node in added:
            self.nodeAdded.emit(node)
        self._report()

    def _observe_names(self) -> None:
        """Notice when a node that is offered is renamed."""
        watched = [observed for observed, _ in self._observed]
        for observed, tag in list(self._observed):
            if observed is not self._scene and observed not in self._nodes:
                observed.RemoveObserver(tag)
                self._observed.remove((observed, tag))
        for node in self._nodes:
            if node not in watched:
                self._observe(node, vtk.vtkCommand.ModifiedEvent, "_on_rename")

    def _row_of(self, node: slicer.vtkMRMLNode | None) -> int:
        if node in self._nodes:
            return self._node_rows()[self._nodes.index(node)]
        return 0 if self.noneEnabled else -1

    def _report(self, *_) -> None:
        """Tell of the current node if it is another than before."""
        node = self.currentNode()
        node_id = "" if node is None else node.GetID()
        if node_id != self._reported:
            self._reported = node_id
            self.currentNodeChanged[object].emit(node)
            self.currentNodeChanged[bool].emit(node is not None)
            self.currentNodeIDChanged.emit(node_id)

    def _on_activated(self) -> None:
        self.nodeActivated.emit(self.currentNode())

    # -- The current node

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        """The chosen node."""
        return self.nodeFromIndex(self._combo_box.currentIndex - int(self.noneEnabled))

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        """The n-th node that is offered."""
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def nodeCount(self) -> int:
        """How many nodes are offered."""
        return len(self._nodes)

    @Slot(object)
    def setCurrentNode(self, node: slicer.vtkMRMLNode | str | None) -> None:
        """Choose a node, given itself or its ID."""
        node = self._scene.GetNodeByID(node) if isinstance(node, str) and self._scene is not None else node
        self._combo_box.setCurrentIndex(self._row_of(node))

    @Slot(str)
    def setCurrentNodeID(self, node_id: str) -> None:
        """Choose a node by its ID."""
        self.setCurrentNode(node_id or None)

    @Slot(int)
    def setCurrentNodeIndex(self, index: int) -> None:
        """Choose the n-th node."""
        self.setCurrentNode(self.nodeFromIndex(index))

    def _current_id(self) -> str:
        node = self.currentNode()
        return "" if node is None else node.GetID()

    currentNodeID = Property(str, _current_id, setCurrentNodeID)
    currentNodeId = Property(str, _current_id, setCurrentNodeID)

    # -- What the real widget's menu does

    @Slot()
    def addNode(self, node_type: str | None = None) -> slicer.vtkMRMLNode:
        """Make a node, of the first class offered unless named, and choose it."""
        node_type = node_type or self.nodeTypes[0]
        name = self._scene.GenerateUniqueName(
            self.baseName or self._labels.get(node_type) or node_type[len("vtkMRML") :]
        )
        node = self._scene.AddNewNodeByClass(node_type, name)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        self.nodeAddedByUserAction.emit(node)
        return node

    @Slot()
    def removeCurrentNode(self) -> None:
        """Remove the chosen node from the scene."""
        self._scene.RemoveNode(self.currentNode())
