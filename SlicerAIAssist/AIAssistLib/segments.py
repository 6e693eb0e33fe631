"""Masks in and out of segmentation nodes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import slicer
import vtk
from vtk.util import numpy_support

from aiassist.errors import ImageError, StudyError
from aiassist.imaging import MaskPatch, Region
from AIAssistLib.geometry import array_of, ijk_to_world, matrix_of, to_world
from AIAssistLib.tags import stamp_of


def segment_of(segmentation_node, segment_id: str):
    """The segment; `StudyError` when it was deleted."""
    segment = segmentation_node.GetSegmentation().GetSegment(segment_id) if segmentation_node is not None else None
    if segment is None:
        raise StudyError("The segment was deleted; choose another one or add a new one.")
    return segment


def has_surface(segmentation_node) -> bool:
    """Whether Slicer makes the 3D surface of a segment anew whenever its voxels change."""
    name = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
    return segmentation_node.GetSegmentation().ContainsRepresentation(name)


@dataclass(frozen=True)
class Target:
    """Which segment is being annotated on which volume."""

    volume_node: object
    segmentation_node: object
    segment_id: str

    @property
    def segment(self):
        """The segment; `StudyError` when it was deleted."""
        return segment_of(self.segmentation_node, self.segment_id)

    def state(self) -> tuple[int, np.ndarray]:
        """When its voxels changed, and where they lie: 4x4, from the volume's voxels to the segmentation's place."""
        return stamp_of(self.segment), ijk_to_segmentation(self.volume_node, self.segmentation_node)

    def is_as(self, state: tuple[int, np.ndarray]) -> bool:
        """Whether the mask is that of an earlier `state`: nobody drew since, and neither image nor segments moved."""
        stamp, place = self.state()
        return stamp == state[0] and np.allclose(place, state[1], atol=1e-4)

    def mask(self) -> MaskPatch:
        """The mask that the segment holds, on the volume's grid."""
        return read_mask(self.segmentation_node, self.segment_id, self.volume_node)


def oriented_image(patch: MaskPatch, ijk_to_local: np.ndarray) -> slicer.vtkOrientedImageData:
    """A labelmap of 0 and 1 of the patch's region, at its place in the volume's grid; one voxel when it is empty."""
    if patch.region.is_empty:
        patch = MaskPatch(Region((0, 0, 0), (1, 1, 1)), np.zeros((1, 1, 1), bool))
    image = slicer.vtkOrientedImageData()
    (k0, j0, i0), (k1, j1, i1) = patch.region.start, patch.region.stop
    image.SetExtent(i0, i1 - 1, j0, j1 - 1, k0, k1 - 1)
    voxels = np.ascontiguousarray(patch.mask, dtype=np.uint8)
    image.GetPointData().SetScalars(numpy_support.numpy_to_vtk(voxels.ravel(), deep=True))
    image.SetImageToWorldMatrix(matrix_of(ijk_to_local))
    return image


def ijk_to_segmentation(volume_node, segmentation_node) -> np.ndarray:
    """4x4: from the volume's voxel indices to a segmentation's own coordinates."""
    return np.linalg.inv(to_world(segmentation_node)) @ ijk_to_world(volume_node)


def read_mask(segmentation_node, segment_id: str, volume_node) -> MaskPatch:
    """A segment's mask on the volume's grid, cropped; empty when the segment is.

    A segment drawn on another grid is resampled, nearest neighbour, as Slicer does when it edits. `StudyError` when the
    segmentation holds no voxels and Slicer cannot make them.
    """
    segment = segment_of(segmentation_node, segment_id)
    _fill_labelmaps(segmentation_node, volume_node)
    labelmap, value = _labelmap_of(segmentation_node, segment, segment_id)
    if labelmap is None or labelmap.IsEmpty():
        return MaskPatch.empty()
    wanted = ijk_to_segmentation(volume_node, segmentation_node)
    own = vtk.vtkMatrix4x4()
    labelmap.GetImageToWorldMatrix(own)
    offset = np.linalg.inv(wanted) @ array_of(own)
    shift = np.rint(offset[:3, 3])
    if not np.allclose(offset[:3, :3], np.eye(3), atol=1e-4) or not np.allclose(offset[:3, 3], shift, atol=1e-2):
        labelmap, shift = _resampled(labelmap, wanted, volume_node), np.zeros(3)
    return _cropped(labelmap, value, shift.astype(int)[::-1], volume_node)


def _fill_labelmaps(segmentation_node, volume_node) -> None:
    """Have Slicer turn segments that are surfaces or contours only, as of an STL file, to voxels."""
    converter, segmentation = slicer.vtkSegmentationConverter, segmentation_node.GetSegmentation()
    name = converter.GetSegmentationBinaryLabelmapRepresentationName()
    if segmentation.GetSourceRepresentationName() == name or segmentation.ContainsRepresentation(name):
        return
    if not segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName()):
        segmentation_node.SetReferenceImageGeometryParameterFromVolumeNode(volume_node)
    _make_labelmaps(segmentation, segmentation_node.GetName())


def _make_labelmaps(segmentation, name: str) -> None:
    """Have Slicer make voxels of all segments, anew; `StudyError` when it cannot."""
    wanted = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if not segmentation.CreateRepresentation(wanted, True):
        raise StudyError(
            f"Slicer cannot turn the segments of {name!r} to voxels; "
            "create their binary labelmaps in the module Segmentations."
        )


def with_voxels(segmentation_node, volume_node):
    """A segmentation whose segments are voxels first of all: itself, or else a copy on the volume's grid in no scene.

    `StudyError` when Slicer cannot make voxels of them.
    """
    converter = slicer.vtkSegmentationConverter
    name = converter.GetSegmentationBinaryLabelmapRepresentationName()
    if segmentation_node.GetSegmentation().GetSourceRepresentationName() == name:
        return segmentation_node
    copy = slicer.vtkMRMLSegmentationNode()
    segmentation = copy.GetSegmentation()
    segmentation.DeepCopy(segmentation_node.GetSegmentation())
    grid = converter.SerializeImageGeometry(_grid_of(volume_node, ijk_to_segmentation(volume_node, segmentation_node)))
    segmentation.SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), grid)
    _make_labelmaps(segmentation, segmentation_node.GetName())
    segmentation.SetSourceRepresentationName(name)
    return copy


def _labelmap_of(segmentation_node, segment, segment_id: str):
    """A segment's labelmap, which other segments may share, and its value there; not copied where it need not be."""
    name = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
    if segmentation_node.GetSegmentation().GetSourceRepresentationName() == name:
        return segment.GetRepresentation(name), segment.GetLabelValue()
    labelmap = slicer.vtkOrientedImageData()
    done = segmentation_node.GetBinaryLabelmapRepresentation(segment_id, labelmap)
    return (labelmap if done else None), 1


def _resampled(labelmap, ijk_to_local: np.ndarray, volume_node):
    reference, out = _grid_of(volume_node, ijk_to_local), slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(labelmap, reference, out)
    return out


def _grid_of(volume_node, ijk_to_local: np.ndarray) -> slicer.vtkOrientedImageData:
    """The volume's grid, without voxels."""
    grid = slicer.vtkOrientedImageData()
    i, j, k = volume_node.GetImageData().GetDimensions()
    grid.SetExtent(0, i - 1, 0, j - 1, 0, k - 1)
    grid.SetImageToWorldMatrix(matrix_of(ijk_to_local))
    return grid


def _cropped(labelmap, value: int, offset_kji: np.ndarray, volume_node) -> MaskPatch:
    i0, i1, j0, j1, k0, k1 = labelmap.GetExtent()
    shape = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    voxels = numpy_support.vtk_to_numpy(labelmap.GetPointData().GetScalars()).reshape(shape)
    place = Region((0, 0, 0), shape).shift(offset_kji + np.array([k0, j0, i0]))
    inside = place.clip(volume_node.GetImageData().GetDimensions()[::-1])
    if inside.is_empty:
        return MaskPatch.empty()
    mask = voxels[inside.within(place)] == value
    tight = Region.of_mask(mask)
    return MaskPatch(tight.shift(inside.start), mask[tight.slices]) if not tight.is_empty else MaskPatch.empty()


class SegmentWriter:
    """Changes segments as Slicer's own effects do: masking, editable area and overwrite mode are honoured.

    Parameters
    ----------
    editor_node : vtkMRMLSegmentEditorNode
        Holds these settings.
    """

    def __init__(self, editor_node):
        self._logic = slicer.vtkSlicerSegmentEditorLogic()
        self._logic.SetMRMLScene(editor_node.GetScene())
        self._logic.SetSegmentEditorNode(editor_node)
        self.editor_node = editor_node

    def write(self, volume_node, segmentation_node, segment_id: str, before: MaskPatch, after: MaskPatch) -> None:
        """Change a segment where the mask `after` differs from `before`: nothing else is touched.

        `StudyError` when masking lets nothing of it happen.
        """
        segment_of(segmentation_node, segment_id)
        region = before.region.union(after.region)
        if region.is_empty:
            return
        old, new = before.within(region), after.within(region)
        was = read_mask(segmentation_node, segment_id, volume_node).within(region)
        local = ijk_to_segmentation(volume_node, segmentation_node)
        logic = slicer.vtkSlicerSegmentEditorLogic
        self._logic.SetSegmentationNode(segmentation_node)
        self._logic.SetSourceVolumeNode(volume_node)
        slicer.app.pauseRender()  # taking away and adding are one change to the person
        try:
            for mask, mode in ((new & ~old, logic.ModificationModeAdd), (old & ~new, logic.ModificationModeRemove)):
                if mask.any():
                    image = self._modifier(MaskPatch(region, mask), local, segmentation_node)
                    self._logic.ModifySegmentByLabelmap(segmentation_node, segment_id, image, mode, True, False)
        finally:
            slicer.app.resumeRender()
        now = read_mask(segmentation_node, segment_id, volume_node).within(region)
        if (old != new).any() and (now == was).all() and (was != new)[old != new].any():
            raise StudyError("Slicer's masking settings allow none of this change; look at Masking in the editor.")

    def _modifier(self, patch: MaskPatch, ijk_to_local: np.ndarray, segmentation_node) -> slicer.vtkOrientedImageData:
        """The patch, cropped, on the segments' grid; all of it where masking by grey values needs that."""
        tight = Region.of_mask(patch.mask)
        image = oriented_image(MaskPatch(tight.shift(patch.region.start), patch.mask[tight.slices]), ijk_to_local)
        if not self.editor_node.GetSourceVolumeIntensityMask() or not self._logic.UpdateAlignedSourceVolume():
            return on_segments_grid(image, segmentation_node)
        out = slicer.vtkOrientedImageData()
        source = self._logic.GetAlignedSourceVolume()
        slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(image, source, out)
        return out


def on_segments_grid(labelmap: slicer.vtkOrientedImageData, segmentation_node) -> slicer.vtkOrientedImageData:
    """A labelmap on a segmentation's own grid, nearest neighbour; itself where all segments are on the labelmap's.

    Slicer would resample to the labelmap's grid whatever segments it changes, and those that share a layer with them.
    """
    converter, resample = slicer.vtkSegmentationConverter, slicer.vtkOrientedImageDataResample
    segmentation = segmentation_node.GetSegmentation()
    name = converter.GetSegmentationBinaryLabelmapRepresentationName()
    segments = [segmentation.GetNthSegment(number) for number in range(segmentation.GetNumberOfSegments())]
    layers = [layer for layer in (one.GetRepresentation(name) for one in segments) if layer and not layer.IsEmpty()]
    if all(resample.DoGeometriesMatch(labelmap, layer) for layer in layers):
        return labelmap
    reference = slicer.vtkOrientedImageData()
    text = segmentation.GetConversionParameter(converter.GetReferenceImageGeometryParameterName())
    if not text or not converter.DeserializeImageGeometry(text, reference, False):
        return labelmap
    out = slicer.vtkOrientedImageData()
    resample.ResampleOrientedImageToReferenceOrientedImage(labelmap, reference, out, False, True)
    return out


def write_plainly(patch: MaskPatch, volume_node, segmentation_node, segment_id: str) -> None:
    """Replace a segment's mask, past all masking; for segments that nobody else draws in."""
    image = oriented_image(patch, ijk_to_segmentation(volume_node, segmentation_node))
    sharers: list[str] = []
    segmentation_node.GetSegmentation().GetSegmentIDsSharingBinaryLabelmapRepresentation(segment_id, sharers, False)
    if sharers:
        image = on_segments_grid(image, segmentation_node)
    done = slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(
        image, segmentation_node, segment_id, slicer.vtkSlicerSegmentationsModuleLogic.MODE_REPLACE
    )
    if not done:
        raise ImageError(f"Slicer refused the mask for {segmentation_node.GetName()!r}; check its transforms.")
