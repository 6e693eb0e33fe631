"""Slicer's DICOM database, and what its plugin for scalar volumes makes of a series."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pydicom
import qt
import slicer
import vtk

from aiassist.imaging import Volume, read_volume
from shell.stand_ins import ctk, stand_in, stored


def install() -> None:
    """Open an empty database, as the module DICOM does when Slicer has started."""
    slicer.dicomDatabase = ctk.ctkDICOMDatabase()


@stand_in(ctk)
class ctkDICOMDatabase(qt.QObject):
    """As far as finding files goes: what it does not know is an empty text."""

    isOpen = stored(bool, "isOpen", True)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._files: dict[str, str] = {}

    def insert(self, path):
        _check_text(path)
        self._files[str(pydicom.dcmread(path, stop_before_pixels=True).SOPInstanceUID)] = path

    def fileForInstance(self, uid):
        _check_text(uid)
        return self._files.get(uid, "") if self.isOpen else ""

    def instanceForFile(self, path):
        _check_text(path)
        return next((uid for uid, known in self._files.items() if known == path), "")

    def removeSeries(self, uid):
        _check_text(uid)
        of = {i: str(pydicom.dcmread(f, stop_before_pixels=True).SeriesInstanceUID) for i, f in self._files.items()}
        self._files = {i: f for i, f in self._files.items() if of[i] != uid}
        return True


def _check_text(value: object) -> None:
    if type(value) is not str:
        raise ValueError(f"Called ctkDICOMDatabase with a {type(value).__name__} where PythonQt takes str only.")


@cache
def series_in(folder: Path) -> Volume:
    """The volume of a folder's series, which is read once."""
    return read_volume(folder)


def load_series(folder: Path, name: str):
    """Import a folder's series and load it as ``DICOMScalarVolumePlugin`` does; the volume node."""
    files = sorted(str(path) for path in folder.iterdir())
    for path in files:
        slicer.dicomDatabase.insert(path)
    files.sort(key=_place)
    volume = series_in(folder)
    node = slicer.util.addVolumeFromArray(volume.voxels.copy(), ijkToRAS=volume.geometry.affine_ras, name=name)
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    if not slicer.vtkMRMLVolumeNode.IsIJKCoordinateSystemRightHanded(matrix):
        slicer.vtkMRMLVolumeNode.ReverseSliceOrder(node.GetImageData(), matrix)
        node.SetIJKToRASMatrix(matrix)
        files.reverse()
    node.SetAttribute("DICOM.instanceUIDs", " ".join(slicer.dicomDatabase.instanceForFile(path) for path in files))
    return node


def _place(path: str) -> float:
    header = pydicom.dcmread(path, stop_before_pixels=True)
    row, column = (vtk.vtkVector3d(*header.ImageOrientationPatient[n : n + 3]) for n in (0, 3))
    return vtk.vtkVector3d(*header.ImagePositionPatient).Dot(row.Cross(column))
