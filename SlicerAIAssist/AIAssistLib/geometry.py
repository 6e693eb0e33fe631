"""Where the voxels of a volume node lie, in Slicer's terms and in ours.

Slicer's world is RAS in mm. A volume's parent transforms move it in the world; the study that a backend
knows is the volume without them.
"""

from __future__ import annotations

import numpy as np
import slicer
import vtk

from aiassist.errors import ImageError, PromptError
from aiassist.imaging import Geometry, Volume
from aiassist.imaging.geometry import LPS_RAS

#: A slice view is a volume's own slice when its axes agree with the volume's to this (sine of the angle).
ALIGNED = 1e-3
#: A view this little, in slices, before the middle between two slices shows the latter of them: VTK's own tolerance.
MIDDLE = 2.0**-17


def array_of(matrix: vtk.vtkMatrix4x4) -> np.ndarray:
    """A 4x4 array of a VTK matrix."""
    return slicer.util.arrayFromVTKMatrix(matrix)


def matrix_of(array) -> vtk.vtkMatrix4x4:
    """A VTK matrix of a 4x4 array."""
    return slicer.util.vtkMatrixFromArray(np.asarray(array, dtype=float))


def to_world(node) -> np.ndarray:
    """4x4: from a transformable node's own coordinates to the world.

    `ImageError` when one of its parent transforms is not linear.
    """
    transform = node.GetParentTransformNode()
    if transform is None:
        return np.eye(4)
    if not transform.IsTransformToWorldLinear():
        raise ImageError(
            f"{node.GetName()!r} is under the deformation {transform.GetName()!r}; harden the transform first."
        )
    matrix = vtk.vtkMatrix4x4()
    transform.GetMatrixTransformToWorld(matrix)
    return array_of(matrix)


def ijk_to_ras(volume_node) -> np.ndarray:
    """4x4: from voxel indices ``(i, j, k, 1)`` to the volume's own RAS coordinates."""
    matrix = vtk.vtkMatrix4x4()
    volume_node.GetIJKToRASMatrix(matrix)
    return array_of(matrix)


def ijk_to_world(volume_node) -> np.ndarray:
    """4x4: from voxel indices ``(i, j, k, 1)`` to the world; see `to_world` for errors."""
    return to_world(volume_node) @ ijk_to_ras(volume_node)


def world_to_ijk(volume_node) -> np.ndarray:
    """4x4: from the world to voxel indices ``(i, j, k, 1)``; see `to_world` for errors."""
    return np.linalg.inv(ijk_to_world(volume_node))


def transform(matrix: np.ndarray, points) -> np.ndarray:
    """Points (n, 3) after a 4x4 matrix."""
    points = np.asarray(points, dtype=float).reshape(-1, 3)
    return points @ matrix[:3, :3].T + matrix[:3, 3]


def study_of(volume_node) -> Volume:
    """The study of a volume node: its voxels, not copied, and its geometry without parent transforms.

    `ImageError` for volumes without voxels, in colour or over time.
    """
    image = volume_node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0:
        raise ImageError(f"The volume {volume_node.GetName()!r} holds no image; load or choose another.")
    if image.GetNumberOfScalarComponents() != 1:
        raise ImageError(
            f"The volume {volume_node.GetName()!r} has {image.GetNumberOfScalarComponents()} values per voxel; "
            "convert it to a scalar volume first."
        )
    voxels = slicer.util.arrayFromVolume(volume_node)
    return Volume(voxels, Geometry(voxels.shape, LPS_RAS @ ijk_to_ras(volume_node)))


def slice_axis(slice_node, volume_node) -> int | None:
    """Across which array axis (0, 1, 2 for k, j, i) of the volume a view cuts; None when obliquely."""
    normal = array_of(slice_node.GetSliceToRAS())[:3, 2]
    axes = ijk_to_world(volume_node)[:3, :3]
    axes = axes / np.linalg.norm(axes, axis=0)
    across = np.abs(normal / np.linalg.norm(normal) @ axes)  # of i, j, k
    along = [axis for axis in range(3) if across[axis] < ALIGNED]
    if len(along) != 2:
        return None
    return 2 - next(axis for axis in range(3) if axis not in along)


def slice_index(slice_node, volume_node, axis: int) -> int:
    """Number of the volume's slice that a view shows, half way between two the latter of them.

    `PromptError` when the view is beyond the volume.
    """
    centre = array_of(slice_node.GetSliceToRAS())[:3, 3]
    ijk = transform(world_to_ijk(volume_node), centre)[0]
    index = int(np.floor(ijk[2 - axis] + 0.5 + MIDDLE))
    slices = volume_node.GetImageData().GetDimensions()[2 - axis]
    if not 0 <= index < slices:
        raise PromptError(f"The view shows no slice of {volume_node.GetName()!r}; scroll back to the image.")
    return index


def view_to_ijk(slice_node, volume_node) -> np.ndarray:
    """4x4: from pixels ``(x, y, 0, 1)`` of a slice view to the volume's voxel indices."""
    return world_to_ijk(volume_node) @ array_of(slice_node.GetXYToRAS())
