"""A slice view of Slicer's layout, and the mouse over it."""

from __future__ import annotations

import numpy as np

from AIAssistLib.geometry import array_of, slice_axis, transform


class View:
    """One slice view; events go to it as those of a real mouse do.

    Parameters
    ----------
    widget : qMRMLSliceWidget

    Attributes
    ----------
    node : vtkMRMLSliceNode
    """

    def __init__(self, widget):
        self.node, self._logic = widget.mrmlSliceNode(), widget.sliceLogic()
        self._interactor = widget.sliceView().interactor()

    def show(self, volume_node) -> None:
        """Show a volume, whole, in the plane of its own that is nearest."""
        self._logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume_node.GetID())
        self.node.RotateToVolumePlane(volume_node)
        self._logic.FitSliceToBackground()
        self._event("EnterEvent", (1, 1))

    def cuts(self, volume_node) -> int | None:
        """The array axis across which the view cuts a volume; see `slice_axis`."""
        return slice_axis(self.node, volume_node)

    def pixel(self, world) -> np.ndarray:
        """Scroll to a place in the world (RAS, mm); its pixel, which is whole, as a mouse's is."""
        self.node.JumpSliceByOffsetting(*[float(x) for x in world])
        return np.rint(transform(np.linalg.inv(array_of(self.node.GetXYToRAS())), world)[0, :2])

    def move(self, pixel) -> None:
        """Move the mouse to a pixel."""
        self._event("MouseMoveEvent", pixel)

    def click(self, world, control: bool = False) -> None:
        """Scroll to a place in the world and click there."""
        pixel = self.pixel(world)
        for event in ("MouseMoveEvent", "LeftButtonPressEvent", "LeftButtonReleaseEvent"):
            self._event(event, pixel, control)

    def drag(self, start, end) -> None:
        """Press at a pixel, move to another one and let go."""
        self.hold(start, end)
        self.let_go(end)

    def hold(self, start, end, steps: int = 8) -> None:
        """Press at a pixel and move to another one."""
        self.move(start)
        self._event("LeftButtonPressEvent", start)
        for share in np.linspace(0, 1, steps + 1)[1:]:
            self.move(start + share * (np.asarray(end) - start))

    def let_go(self, pixel) -> None:
        """Release the button."""
        self._event("LeftButtonReleaseEvent", pixel)

    def _event(self, name: str, pixel, control: bool = False) -> None:
        x, y = np.rint(pixel).astype(int).tolist()
        self._interactor.SetEventInformation(x, y, int(control), 0, chr(0), 0, None)
        self._interactor.InvokeEvent(name)
