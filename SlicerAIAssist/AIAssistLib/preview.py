"""What the model answered, shown in the views before it is accepted."""

from __future__ import annotations

import numpy as np
import slicer

from aiassist.imaging import MaskPatch
from AIAssistLib.nodes import remove_with_display
from AIAssistLib.segments import ijk_to_segmentation, oriented_image, segment_of

_SEGMENT, _CHANGE = "preview", "change"
#: Colour of what a correction changed.
_YELLOW = (1.0, 0.85, 0.1)
_LABELMAP = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
#: How a preview is drawn: opacity of its fill and of its outline.
LOOKS = {"fill": (0.35, 1.0), "outline": (0.0, 1.0), "hidden": (0.0, 0.0)}


class Preview:
    """One mask in a hidden segmentation node of its own, so that no segment and no undo history is touched.

    Parameters
    ----------
    scene : vtkMRMLScene
    """

    def __init__(self, scene):
        self._scene = scene
        self._id: str | None = None
        self.look = "fill"
        self.mask: MaskPatch | None = None
        self._dimmed: tuple[str, str, float] | None = None

    @property
    def node(self):
        """The segmentation node while something is shown, else None."""
        return self._scene.GetNodeByID(self._id) if self._id else None

    def show(
        self, mask: MaskPatch, volume_node, segmentation_node, segment_id: str, change: MaskPatch | None = None
    ) -> None:
        """Show a mask over a volume in the colour of a segment, of which only the outline is drawn meanwhile.

        What has just changed of the mask is drawn over it, so that nobody has to look for it.

        `StudyError` when the segment was deleted.
        """
        colour = segment_of(segmentation_node, segment_id).GetColor()
        node = self.node or self._made()
        self._dim(segmentation_node, segment_id)
        node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
        node.GetSegmentation().GetSegment(_SEGMENT).SetColor(*colour)
        to_segmentation = ijk_to_segmentation(volume_node, node)
        _fill(node, _SEGMENT, mask, to_segmentation)
        if node.GetSegmentation().GetSegment(_CHANGE) is not None:
            node.GetSegmentation().RemoveSegment(_CHANGE)
        if change is not None and change.mask.any():
            node.GetSegmentation().AddEmptySegment(_CHANGE, _CHANGE, _YELLOW)
            _fill(node, _CHANGE, change, to_segmentation)
        self.mask = mask

    def _made(self):
        node = self._scene.CreateNodeByClass("vtkMRMLSegmentationNode")
        node.UnRegister(None)
        node.SetName("AI Points preview")
        node.SetHideFromEditors(True)
        node.SetSaveWithScene(False)
        node = self._scene.AddNode(node)
        node.GetSegmentation().SetSourceRepresentationName(_LABELMAP)
        node.CreateDefaultDisplayNodes()
        node.GetDisplayNode().SetSaveWithScene(False)
        node.GetSegmentation().AddEmptySegment(_SEGMENT, _SEGMENT)
        self._id = node.GetID()
        self.set_look(self.look)
        return node

    def _dim(self, segmentation_node, segment_id: str) -> None:
        display = segmentation_node.GetDisplayNode()
        if self._dimmed is None and display is not None:
            self._dimmed = (display.GetID(), segment_id, display.GetSegmentOpacity2DFill(segment_id))
            display.SetSegmentOpacity2DFill(segment_id, 0.0)

    def undim(self, *_) -> None:
        """Draw the segment as before, as for saving the scene."""
        if self._dimmed is not None:
            display_id, segment_id, opacity = self._dimmed
            display = self._scene.GetNodeByID(display_id)
            if display is not None:
                display.SetSegmentOpacity2DFill(segment_id, opacity)
            self._dimmed = None

    def set_look(self, look: str) -> None:
        """Draw it as "fill", "outline" or "hidden"."""
        self.look = look
        if self.node is not None:
            fill, outline = LOOKS[look]
            display = self.node.GetDisplayNode()
            display.SetOpacity2DFill(fill)
            display.SetOpacity2DOutline(outline)

    def next_look(self) -> str:
        """Go from fill to outline to hidden and round again."""
        looks = list(LOOKS)
        self.set_look(looks[(looks.index(self.look) + 1) % len(looks)])
        return self.look

    def clear(self) -> None:
        """Show nothing."""
        self.mask = None
        self.undim()
        if self.node is not None:
            remove_with_display(self.node)
        self._id = None


def _fill(node, segment_id: str, patch: MaskPatch, to_segmentation: np.ndarray) -> None:
    """Give a segment a labelmap of its own.

    Slicer's way of writing one merges, resamples and shrinks: three times as long, and nothing here needs it.
    """
    segment = node.GetSegmentation().GetSegment(segment_id)
    segment.SetLabelValue(1)
    segment.AddRepresentation(_LABELMAP, oriented_image(patch, to_segmentation))
