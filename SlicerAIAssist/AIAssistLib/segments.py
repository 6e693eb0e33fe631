"""Masks in and out of segmentation nodes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
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

    @property
    def ids(self) -> tuple[str, str]:
        """The IDs of segmentation and segment."""
        return self.segmentation_node.GetID(), self.segment_id

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


def _voxels_of(image: slicer.vtkOrientedImageData) -> np.ndarray:
    """The voxels of an image ``(k, j, i)``, not copied."""
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    shape = (k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
    return numpy_support.vtk_to_numpy(image.GetPointData().GetScalars()).reshape(shape)


def _cropped(labelmap, value: int, offset_kji: np.ndarray, volume_node) -> MaskPatch:
    voxels = _voxels_of(labelmap)
    i0, _i1, j0, _j1, k0, _k1 = labelmap.GetExtent()
    place = Region((0, 0, 0), voxels.shape).shift(offset_kji + np.array([k0, j0, i0]))
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

    def write(
        self, volume_node, segmentation_node, segment_id: str, before: MaskPatch, after: MaskPatch
    ) -> tuple[float, float]:
        """Change a segment where the mask `after` differs from `before`: nothing else is touched.

        Returns how many ml were to change where masking is on, and how many of these it kept as they were; else zeros.
        `StudyError` when masking, or a coarser grid of the segments, lets nothing of it happen.
        """
        segment_of(segmentation_node, segment_id)
        region = before.region.union(after.region)
        if region.is_empty:
            return 0.0, 0.0
        old, new = before.within(region), after.within(region)
        was = read_mask(segmentation_node, segment_id, volume_node).within(region)
        wanted = kept = 0.0
        logic = slicer.vtkSlicerSegmentEditorLogic
        self._logic.SetSegmentationNode(segmentation_node)
        self._logic.SetSourceVolumeNode(volume_node)
        slicer.app.pauseRender()  # taking away and adding are one change to the person
        try:
            for mask, mode in ((new & ~old, logic.ModificationModeAdd), (old & ~new, logic.ModificationModeRemove)):
                if mask.any():
                    more = self._modify(MaskPatch(region, mask), mode, volume_node, segmentation_node, segment_id)
                    wanted, kept = wanted + more[0], kept + more[1]
        finally:
            slicer.app.resumeRender()
        now = read_mask(segmentation_node, segment_id, volume_node).within(region)
        if (old != new).any() and (now == was).all() and (was != new)[old != new].any():
            if kept:
                raise StudyError("Slicer's masking settings allow none of this change; look at Masking in the editor.")
            raise StudyError(
                "The segments' voxels are larger than the image's, and this change falls between their centres; choose "
                "the image under Specify geometry in the editor, and try again."
            )
        return wanted, kept

    def _modify(
        self, patch: MaskPatch, mode: int, volume_node, segmentation_node, segment_id: str
    ) -> tuple[float, float]:
        """Add or take away the voxels of a patch; returns as `write`."""
        tight, local = Region.of_mask(patch.mask), ijk_to_segmentation(volume_node, segmentation_node)
        patch = MaskPatch(tight.shift(patch.region.start), patch.mask[tight.slices])
        image = on_segments_grid(oriented_image(patch, local), segmentation_node)
        if not self._masks:
            self._logic.ModifySegmentByLabelmap(segmentation_node, segment_id, image, mode, True, False)
            return 0.0, 0.0
        adds = mode == slicer.vtkSlicerSegmentEditorLogic.ModificationModeAdd
        changes = _voxels_of(image).astype(bool) & (_held_on(image, segmentation_node, segment_id) != adds)
        inside = MaskPatch(patch.region, patch.mask & self._in_range(volume_node, patch.region))
        if inside.mask.any():
            allowed = on_segments_grid(oriented_image(inside, local), segmentation_node)
            with self._range_off():
                self._logic.ModifySegmentByLabelmap(segmentation_node, segment_id, allowed, mode, True, False)
        kept = changes & (_held_on(image, segmentation_node, segment_id) != adds)
        millilitres = np.prod(image.GetSpacing()) / 1000
        return np.count_nonzero(changes) * millilitres, np.count_nonzero(kept) * millilitres

    @property
    def _masks(self) -> bool:
        """Whether masking forbids to edit anything anywhere."""
        everywhere = self.editor_node.GetMaskMode() == slicer.vtkMRMLSegmentationNode.EditAllowedEverywhere
        return not everywhere or bool(self.editor_node.GetSourceVolumeIntensityMask())

    def _in_range(self, volume_node, region: Region) -> np.ndarray | bool:
        """Where the image's grey values are those that masking allows."""
        if not self.editor_node.GetSourceVolumeIntensityMask():
            return True
        low, high = self.editor_node.GetSourceVolumeIntensityMaskRange()
        values = slicer.util.arrayFromVolume(volume_node)[region.slices]
        return (low <= values) & (values <= high)

    @contextmanager
    def _range_off(self) -> Iterator[None]:
        """While it lasts, Slicer does not mask by grey values: it would cut off what lies beyond the segments' grid."""
        editor, is_on = self.editor_node, self.editor_node.GetSourceVolumeIntensityMask()
        is_quiet = editor.GetDisableModifiedEvent()
        editor.DisableModifiedEventOn()  # nothing changes for the person
        editor.SetSourceVolumeIntensityMask(False)
        try:
            yield
        finally:
            editor.SetSourceVolumeIntensityMask(is_on)
            editor.SetDisableModifiedEvent(is_quiet)


def _held_on(image: slicer.vtkOrientedImageData, segmentation_node, segment_id: str) -> np.ndarray:
    """A segment's mask on the grid of an image."""
    segment = segment_of(segmentation_node, segment_id)
    labelmap, value = _labelmap_of(segmentation_node, segment, segment_id)
    if labelmap is None or labelmap.IsEmpty():
        return np.zeros(_voxels_of(image).shape, bool)
    out = slicer.vtkOrientedImageData()
    slicer.vtkOrientedImageDataResample.ResampleOrientedImageToReferenceOrientedImage(labelmap, image, out)
    return _voxels_of(out) == value


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


def check_keeps_voxels(segmentation_node) -> None:
    """Raise `StudyError` when segments are kept as surfaces or contours: Slicer would not keep what is drawn."""
    source = segmentation_node.GetSegmentation().GetSourceRepresentationName()
    if source != slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName():
        raise StudyError(
            f"The segments of {segmentation_node.GetName()!r} are kept as {source}, not as voxels; make Binary "
            "labelmap their source in the module Segmentations, then try again."
        )


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
