"""Real slice views, rendered off the screen, that real mouse events go to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import qt
import slicer
import vtk
from vtk.util import numpy_support

from shell.stand_ins import stand_in

#: What draws in a slice view.
MANAGERS = (
    "vtkMRMLCrosshairDisplayableManager",
    "vtkMRMLVolumeGlyphSliceDisplayableManager",
    "vtkMRMLModelSliceDisplayableManager",
    "vtkMRMLMarkupsDisplayableManager",
    "vtkMRMLSegmentationsDisplayableManager2D",
)
ORIENTATIONS = {"Red": "Axial", "Yellow": "Sagittal", "Green": "Coronal"}


class SliceView:
    """One slice view.

    Parameters
    ----------
    application : shell.application.Application
    name : str
        "Red", "Yellow" or "Green".
    size : int
        Pixels on each side.
    """

    def __init__(self, application, name: str, size: int = 400):
        self.name, self.size = name, size
        scene = application.scene
        node = scene.CreateNodeByClass("vtkMRMLSliceNode")
        node.UnRegister(None)
        node.SetSingletonTag(name)  # as Slicer's layouts give it: the view outlives the scene's content
        node.SetLayoutName(name)
        node.SetName(name)
        self.node = scene.AddNode(node)
        self.node.SetOrientation(ORIENTATIONS[name])
        self.node.SetDimensions(size, size, 1)
        self.node.SetMappedInLayout(1)
        self.logic = slicer.vtkMRMLSliceLogic()
        self.logic.SetMRMLApplicationLogic(application.logic)
        self.logic.SetMRMLScene(scene)
        self.logic.SetSliceNode(self.node)
        application.logic.GetSliceLogics().AddItem(self.logic)
        self._make_window()
        self._make_managers(application)
        self._show_image()

    def _make_window(self) -> None:
        self.renderer = vtk.vtkRenderer()
        self.window = vtk.vtkEGLRenderWindow()
        self.window.SetOffScreenRendering(1)
        self.window.SetMultiSamples(0)
        self.window.SetSize(self.size, self.size)
        self.window.AddRenderer(self.renderer)
        self.interactor = vtk.vtkRenderWindowInteractor()
        self.interactor.SetRenderWindow(self.window)
        self.interactor.SetSize(self.size, self.size)
        self.interactor.Initialize()

    def _make_managers(self, application) -> None:
        factory = slicer.vtkMRMLSliceViewDisplayableManagerFactory.GetInstance()
        factory.SetMRMLApplicationLogic(application.logic)
        for manager in MANAGERS:
            if not factory.IsDisplayableManagerRegistered(manager):
                factory.RegisterDisplayableManager(manager)
        self.style = slicer.vtkMRMLSliceViewInteractorStyle()
        self.interactor.SetInteractorStyle(vtk.vtkInteractorStyleUser())
        self.style.SetInteractor(self.interactor)
        self.style.SetSliceLogic(self.logic)
        self.managers = factory.InstantiateDisplayableManagers(self.renderer)
        self.managers.SetMRMLDisplayableNode(self.node)
        self.style.SetDisplayableManagers(self.managers)

    def _show_image(self) -> None:
        self._mapper = vtk.vtkImageMapper()
        self._mapper.SetColorWindow(255)
        self._mapper.SetColorLevel(127.5)
        self._image = vtk.vtkActor2D()
        self._image.SetMapper(self._mapper)
        self._image.GetProperty().SetDisplayLocationToBackground()
        self.renderer.AddViewProp(self._image)

    def show(self, volume_node) -> None:
        """Show a volume, whole, in the view's plane nearest to the volume's own."""
        self.logic.GetSliceCompositeNode().SetBackgroundVolumeID(volume_node.GetID())
        self.node.RotateToVolumePlane(volume_node)
        self.logic.FitSliceToBackground()
        self.render()

    def close(self) -> None:
        """Take the view out of the application, so that it no longer follows the scene."""
        self.style.SetDisplayableManagers(None)
        for number in range(self.managers.GetDisplayableManagerCount()):
            self.managers.GetNthDisplayableManager(number).SetMRMLScene(None)
        self.managers.SetMRMLDisplayableNode(None)
        scene = self.node.GetScene()
        for node in (self.logic.GetSliceCompositeNode(), self.node):
            scene.RemoveNode(node)
        self.logic.SetMRMLScene(None)
        self.window.Finalize()

    def render(self) -> None:
        """Draw."""
        if self.logic.GetImageDataConnection() is not None:
            self._mapper.SetInputConnection(self.logic.GetImageDataConnection())
        self.window.Render()

    def picture(self) -> np.ndarray:
        """What is drawn: uint8 (rows, columns, 3), the first row on top."""
        self.render()
        grab = vtk.vtkWindowToImageFilter()
        grab.SetInput(self.window)
        grab.ReadFrontBufferOff()
        grab.Update()
        image = grab.GetOutput()
        columns, rows, _ = image.GetDimensions()
        pixels = numpy_support.vtk_to_numpy(image.GetPointData().GetScalars())
        return pixels.reshape(rows, columns, -1)[::-1, :, :3].copy()

    def save(self, path: Path) -> None:
        """Save what is drawn as PNG."""
        from PIL import Image

        Image.fromarray(self.picture()).save(path)

    # The person

    def xy(self, world) -> tuple[int, int]:
        """Scroll to a place in the world (RAS) and return its pixel."""
        self.node.JumpSliceByOffsetting(*[float(x) for x in world])
        matrix = vtk.vtkMatrix4x4()
        vtk.vtkMatrix4x4.Invert(self.node.GetXYToRAS(), matrix)
        x, y, _, _ = matrix.MultiplyPoint((*[float(v) for v in world], 1.0))
        return round(x), round(y)

    def event(self, name: str, xy=None, control=False, shift=False, key: str | None = None) -> None:
        """Send one event of VTK's to the view."""
        x, y = xy if xy is not None else self.interactor.GetEventPosition()
        self.interactor.SetEventInformation(int(x), int(y), int(control), int(shift), chr(0), 0, key)
        self.interactor.InvokeEvent(name)

    def enter(self, xy=(1, 1)) -> None:
        """Move the mouse into the view."""
        self.event("EnterEvent", xy)
        self.event("MouseMoveEvent", xy)

    def click(self, xy, **keys) -> None:
        """Move to a pixel and click."""
        self.event("MouseMoveEvent", xy, **keys)
        self.event("LeftButtonPressEvent", xy, **keys)
        self.event("LeftButtonReleaseEvent", xy, **keys)

    def drag(self, start, end, steps: int = 8, **keys) -> None:
        """Press at a pixel, move to another and release."""
        self.event("MouseMoveEvent", start, **keys)
        self.event("LeftButtonPressEvent", start, **keys)
        for step in range(1, steps + 1):
            share = step / steps
            self.event("MouseMoveEvent", [a + share * (b - a) for a, b in zip(start, end, strict=True)], **keys)
        self.event("LeftButtonReleaseEvent", end, **keys)

    def press_key(self, key: str) -> None:
        """Press and release a key over the view, by its VTK name, such as "Return"."""
        self.event("KeyPressEvent", key=key)
        self.event("KeyReleaseEvent", key=key)


@stand_in(slicer)
class qMRMLSliceView(qt.QWidget):
    def scheduleRender(self):
        self._view.render()

    def forceRender(self):
        self._view.render()

    def interactor(self):
        return self._view.interactor

    def renderWindow(self):
        return self._view.window


@stand_in(slicer)
class qMRMLSliceWidget(slicer.qMRMLWidget):
    def sliceLogic(self):
        return self._view.logic

    def mrmlSliceNode(self):
        return self._view.node

    def sliceView(self):
        return self._inner


@stand_in(slicer)
class qSlicerLayoutManager(qt.QObject):
    """Holds the views of a four-up layout without 3D."""

    def sliceViewNames(self):
        return list(self._views)

    def sliceWidget(self, name):
        return self._widgets.get(name)

    def setLayout(self, layout):
        self._layout_number = layout


def open_views(application, size: int = 400) -> dict[str, SliceView]:
    """Open the three slice views and make them those of ``slicer.app.layoutManager()``."""
    manager = slicer.qSlicerLayoutManager()
    manager._views = {name: SliceView(application, name, size) for name in ORIENTATIONS}
    manager._widgets = {}
    for name, view in manager._views.items():
        widget, inner = slicer.qMRMLSliceWidget(), slicer.qMRMLSliceView()
        widget._view = inner._view = view
        widget._inner = inner
        manager._widgets[name] = widget
    slicer.app._layout = manager
    return manager._views
