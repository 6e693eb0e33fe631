"""Slicer's widgets that know a scene."""

from __future__ import annotations

import slicer
from PySide6 import QtWidgets
from PySide6.QtCore import Signal, Slot

from shell.stand_ins import stand_in


class _WithScene(QtWidgets.QWidget):
    """A widget that is given a scene."""

    mrmlSceneChanged = Signal(object)

    @Slot(object)
    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene, and say so to what is connected."""
        if scene is not self.__dict__.get("_scene"):
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@stand_in(slicer)
class qMRMLWidget(_WithScene):
    """A widget with a scene."""

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene."""
        return self.__dict__.get("_scene")


@stand_in(slicer)
class qSlicerWidget(_WithScene):
    """A widget with a scene that Python cannot ask for."""
