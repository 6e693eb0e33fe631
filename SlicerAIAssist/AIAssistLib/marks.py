"""The points that a person puts into the views: one working markups node."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import slicer

from aiassist.prompts import Prompts
from AIAssistLib.geometry import ijk_to_ras, ijk_to_world, transform

#: Which part of `Prompts` a control point belongs to; kept as its description.
EXTREME, LINE, BOX, POSITIVE, NEGATIVE = "extreme", "line", "box", "positive", "negative"
#: How many points of a kind say how large the structure is; see `Marks.complete` for extreme points.
SIX = 6
ENOUGH = {EXTREME: SIX, LINE: 2, BOX: 2}
_LABELS = {POSITIVE: "+", NEGATIVE: "−"}
#: Colours of what belongs to the structure and of what does not.
INSIDE, OUTSIDE = (0.2, 0.9, 0.2), (0.95, 0.25, 0.2)
#: Colour of marks on other slices.
ELSEWHERE = (0.9, 0.9, 0.6)
#: Marks the node, so that it is found again in a scene that was saved.
ATTRIBUTE = "AIAssist.Points"
#: A role, and voxel indices of a volume.
Place = tuple[str, list[float]]


class Marks:
    """Control points with roles, in the coordinates of a volume; they move with its transforms.

    Control points that are still being placed do not count.

    Parameters
    ----------
    scene : vtkMRMLScene
    made : callable
        Called whenever the node was made.
    """

    def __init__(self, scene, made: Callable[[], None] = lambda: None):
        self._scene, self._told = scene, made
        self._volume_node = self._grid = None
        #: How many extreme points say how large the structure is: six, or as many as the person asked with.
        self.ends = SIX

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
        display.SetSliceProjectionUseFiducialColor(False)  # it would draw all marks of other slices red for one red one
        display.SetSliceProjectionColor(*ELSEWHERE)
        display.SetGlyphScale(1.6)
        display.SetTextScale(3.2)
        display.SetPropertiesLabelVisibility(False)
        display.SetPointLabelsVisibility(True)
        display.SetVisibility3D(False)
        display.SetSaveWithScene(False)
        display.SetSliceProjection(True)  # an extreme point shows faintly on the other slices too
        display.SetSliceProjectionOpacity(0.35)
        if self._volume_node is not None and self._volume_node.GetScene() is not None:
            node.SetAndObserveTransformNodeID(self._volume_node.GetTransformNodeID())
        self._told()
        return node

    def follow(self, volume_node) -> None:
        """Use the coordinates of this volume from now on; points stay in their voxels when it was given others."""
        node, grid = self.node, ijk_to_ras(volume_node)
        node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
        if volume_node is self._volume_node and not np.array_equal(grid, self._grid):  # its transform was hardened
            moved = grid @ np.linalg.inv(self._grid)
            for number in range(node.GetNumberOfControlPoints()):
                place = transform(moved, node.GetNthControlPointPosition(number))[0]
                node.SetNthControlPointPosition(number, *place)
        self._volume_node, self._grid = volume_node, grid

    def lie_on(self, volume_node) -> bool:
        """Whether the points are where `follow` would put them."""
        return volume_node is self._volume_node and np.array_equal(ijk_to_ras(volume_node), self._grid)

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
        self.unsettle()

    def clear(self) -> None:
        """Remove all points."""
        self.node.RemoveAllControlPoints()
        self.ends = SIX

    def settle(self) -> bool:
        """Take the extreme points for an outline though they are fewer than six; whether they were none before."""
        if self.complete(EXTREME) or self.count(EXTREME) < 2:
            return False
        self.ends = self.count(EXTREME)
        return True

    def unsettle(self) -> None:
        """An outline of fewer than six points that lost one has to be asked for again."""
        if not self.complete(EXTREME):
            self.ends = SIX

    def complete(self, role: str) -> bool:
        """Whether there are enough points of a role to say how large the structure is."""
        return role in ENOUGH and self.count(role) >= (self.ends if role == EXTREME else ENOUGH[role])

    @property
    def outlined(self) -> bool:
        """Whether the points say how large the structure is."""
        return any(self.complete(role) for role in ENOUGH)

    def roles(self) -> list[str]:
        """The role of each point that is in place, in the order of their numbers."""
        node = self.node
        placed = [n for n in range(node.GetNumberOfControlPoints()) if self._placed(node, n)]
        return [node.GetNthControlPointDescription(number) for number in placed]

    def count(self, *roles: str) -> int:
        """How many points have one of these roles."""
        return sum(role in roles for role in self.roles())

    def places(self) -> list[Place]:
        """Role and voxel indices of each point that is in place, in the order of their numbers."""
        node, to_ijk = self.node, np.linalg.inv(ijk_to_ras(self._volume_node))
        placed = [n for n in range(node.GetNumberOfControlPoints()) if self._placed(node, n)]
        return [
            (node.GetNthControlPointDescription(n), transform(to_ijk, node.GetNthControlPointPosition(n))[0].tolist())
            for n in placed
        ]

    def click_order(self) -> str:
        """In which order the clicks came, a "+" or "-" each."""
        signs = {POSITIVE: "+", NEGATIVE: "-"}
        return "".join(signs.get(role, "") for role in self.roles())

    def prompts(self, obeyed: int = 0) -> Prompts:
        """What the points say, in voxel indices of the volume, but for the first so many clicks.

        `PromptError` for a single extreme point.
        """
        points: dict[str, list] = {role: [] for role in (EXTREME, LINE, BOX, POSITIVE, NEGATIVE)}
        clicks = 0
        for role, ijk in self.places():
            clicks += role in (POSITIVE, NEGATIVE)
            if role in points and not (role in (POSITIVE, NEGATIVE) and clicks <= obeyed):
                points[role].append(ijk)
        return Prompts(
            extreme_points=points[EXTREME],
            line=points[LINE] if len(points[LINE]) == 2 else None,
            box=points[BOX] if len(points[BOX]) == 2 else None,
            positive=points[POSITIVE],
            negative=points[NEGATIVE],
        )

    def show(self, places: Iterable[Place], ends: int = SIX) -> None:
        """Replace all points; so many extreme points are an outline."""
        self.clear()
        to_world = ijk_to_world(self._volume_node)
        for role, ijk in places:
            self.add(role, transform(to_world, ijk)[0])
        self.ends = ends

    @staticmethod
    def _placed(node, number: int) -> bool:
        return node.GetNthControlPointPositionStatus(number) == slicer.vtkMRMLMarkupsNode.PositionDefined


def places_of(prompts: Prompts, click_order: str = "") -> list[Place]:
    """The points of some prompts, the clicks last: in an order of "+" and "-", or else the positive ones first."""
    parts = {EXTREME: prompts.extreme_points, LINE: prompts.line, BOX: prompts.box}
    outline = [(role, ijk) for role, points in parts.items() if points is not None for ijk in points.tolist()]
    clicks = {"+": prompts.positive.tolist(), "-": prompts.negative.tolist()}
    plain = "".join(sign * len(points) for sign, points in clicks.items())
    order = click_order if sorted(click_order) == sorted(plain) else plain
    return outline + [(POSITIVE if sign == "+" else NEGATIVE, clicks[sign].pop(0)) for sign in order]
