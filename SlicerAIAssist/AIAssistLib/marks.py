"""The points that a person puts into the views: one working markups node."""

from __future__ import annotations

import numpy as np
import slicer

from aiassist.prompts import Prompts
from AIAssistLib.geometry import ijk_to_ras, ijk_to_world, transform

#: Which part of `Prompts` a control point belongs to; kept as its description.
EXTREME, LINE, BOX, POSITIVE, NEGATIVE = "extreme", "line", "box", "positive", "negative"
_LABELS = {POSITIVE: "+", NEGATIVE: "−"}
#: Colours of what belongs to the structure and of what does not.
INSIDE, OUTSIDE = (0.2, 0.9, 0.2), (0.95, 0.25, 0.2)
#: Marks the node, so that it is found again in a scene that was saved.
ATTRIBUTE = "AIAssist.Points"


class Marks:
    """Control points with roles, in the coordinates of a volume; they move with its transforms.

    Control points that are still being placed do not count.

    Parameters
    ----------
    scene : vtkMRMLScene
    """

    def __init__(self, scene):
        self._scene = scene
        self._volume_node = None

    @property
    def node(self):
        """The markups node; made when missing, as after closing a scene, and follows the volume."""
        for number in range(self._scene.GetNumberOfNodesByClass("vtkMRMLMarkupsFiducialNode")):
            node = self._scene.GetNthNodeByClass(number, "vtkMRMLMarkupsFiducialNode")
            if node.GetAttribute(ATTRIBUTE):
                return node
        return self._made()

    def _made(self):
        selection = self._scene.GetNodeByID("vtkMRMLSelectionNodeSingleton")
        chosen = selection and (selection.GetActivePlaceNodeClassName(), selection.GetActivePlaceNodeID())
        node = self._scene.CreateNodeByClass("vtkMRMLMarkupsFiducialNode")
        node.UnRegister(None)
        node.SetName("AI Points")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)  # segments keep their marks
        node.SetAttribute(ATTRIBUTE, "1")
        node = self._scene.AddNode(node)
        if chosen:  # the person's next point goes where it would have gone
            selection.SetReferenceActivePlaceNodeClassName(chosen[0])
            selection.SetReferenceActivePlaceNodeID(chosen[1])
        node.SetControlPointLabelFormat("")
        node.CreateDefaultDisplayNodes()
        display = node.GetDisplayNode()
        display.SetSelectedColor(*INSIDE)
        display.SetColor(*OUTSIDE)
        display.SetGlyphScale(1.6)
        display.SetTextScale(3.2)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(True)
        display.SetVisibility3D(False)
        display.SetSaveWithScene(False)
        display.SetSliceProjection(True)  # an extreme point shows faintly on the other slices too
        display.SetSliceProjectionOpacity(0.35)
        return node

    def follow(self, volume_node) -> None:
        """Use the coordinates of this volume from now on."""
        self._volume_node = volume_node
        self.node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())

    def add(self, role: str, world) -> int:
        """Add a point at a place in the world (RAS, mm); its number."""
        node = self.node
        number = node.AddControlPointWorld(*[float(x) for x in world])
        node.SetNthControlPointDescription(number, role)
        node.SetNthControlPointLabel(number, _LABELS.get(role, ""))
        node.SetNthControlPointSelected(number, role != NEGATIVE)
        return number

    def remove(self, number: int) -> None:
        """Remove a point."""
        self.node.RemoveNthControlPoint(number)

    def clear(self) -> None:
        """Remove all points."""
        self.node.RemoveAllControlPoints()

    def roles(self) -> list[str]:
        """The role of each point that is in place, in the order of their numbers."""
        node = self.node
        placed = [n for n in range(node.GetNumberOfControlPoints()) if self._placed(node, n)]
        return [node.GetNthControlPointDescription(number) for number in placed]

    def count(self, *roles: str) -> int:
        """How many points have one of these roles."""
        return sum(role in roles for role in self.roles())

    def prompts(self) -> Prompts:
        """What the points say, in voxel indices of the volume."""
        node = self.node
        to_ijk = np.linalg.inv(ijk_to_ras(self._volume_node))
        points: dict[str, list] = {role: [] for role in (EXTREME, LINE, BOX, POSITIVE, NEGATIVE)}
        for number in range(node.GetNumberOfControlPoints()):
            role = node.GetNthControlPointDescription(number)
            if self._placed(node, number) and role in points:
                points[role].append(transform(to_ijk, node.GetNthControlPointPosition(number))[0])
        return Prompts(
            extreme_points=points[EXTREME],
            line=points[LINE] if len(points[LINE]) == 2 else None,
            box=points[BOX] if len(points[BOX]) == 2 else None,
            positive=points[POSITIVE],
            negative=points[NEGATIVE],
        )

    def show(self, prompts: Prompts) -> None:
        """Replace all points by those of some prompts."""
        self.clear()
        to_world = ijk_to_world(self._volume_node)
        parts = {
            EXTREME: prompts.extreme_points,
            LINE: prompts.line,
            BOX: prompts.box,
            POSITIVE: prompts.positive,
            NEGATIVE: prompts.negative,
        }
        for role, points in parts.items():
            for world in transform(to_world, points) if points is not None and len(points) else ():
                self.add(role, world)

    @staticmethod
    def _placed(node, number: int) -> bool:
        return node.GetNthControlPointPositionStatus(number) == slicer.vtkMRMLMarkupsNode.PositionDefined
