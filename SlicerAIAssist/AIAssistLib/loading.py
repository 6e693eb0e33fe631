"""Images of a folder become volume nodes."""

from __future__ import annotations

from collections.abc import Callable

import slicer

from aiassist.errors import ImageError
from aiassist.imaging import Volume
from AIAssistLib.dicom_headers import keep_files
from AIAssistLib.talks import Conversation
from AIAssistLib.worklist import Found


def loaded(found: Found, progress: Callable[[float], None]) -> Conversation[object]:
    """Load an image; its volume node. `ImageError` when it is damaged or of a kind that cannot be loaded here.

    A DICOM series is read with Slicer's turns in between. A file is read by Slicer itself, in one go.
    """
    try:
        if not found.is_series:
            return slicer.util.loadVolume(str(found.files[0]))
        return (yield from _loaded_series(found, progress))
    except (RuntimeError, ImageError, OSError) as error:
        why = f" ({str(error).removesuffix('.')})" if isinstance(error, ImageError) else ""
        raise ImageError(
            f"{found.name} cannot be loaded as an image{why}; press Next image again to go past it, and put a whole "
            "copy in its place for later."
        ) from error


def _loaded_series(found: Found, progress: Callable[[float], None]) -> Conversation[object]:
    from aiassist.imaging.dicom_folder import reading_dicom

    reading = reading_dicom(found.files, found.files[0].parent)
    while True:
        try:
            progress(next(reading))
        except StopIteration as end:
            return _node_of(end.value, found)
        yield


def _node_of(volume: Volume, found: Found):
    node = slicer.util.addVolumeFromArray(volume.voxels, ijkToRAS=volume.geometry.affine_ras, name=found.name)
    node.CreateDefaultDisplayNodes()
    keep_files(node, volume.dicom, found.files)
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(slicer.mrmlScene)
    item = hierarchy.GetItemByDataNode(node) or hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)
    hierarchy.SetItemAttribute(item, "DICOM.Modality", volume.dicom.modality)
    return node
