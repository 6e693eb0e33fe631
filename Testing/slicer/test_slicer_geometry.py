"""Masks and points land where they belong: oblique, anisotropic, under transforms."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from scipy.spatial.distance import pdist
from vtk.util import numpy_support

from aiassist.errors import ImageError, PromptError, StudyError
from aiassist.imaging import MaskPatch, Region, describe_structure
from AIAssistLib.console import new_segmentation
from AIAssistLib.export import export
from AIAssistLib.geometry import ijk_to_world, slice_axis, slice_index, study_of, world_to_ijk
from AIAssistLib.lesions import longest_diameter
from AIAssistLib.marks import EXTREME, Marks
from AIAssistLib.segments import SegmentWriter, read_mask, write_plainly
from AIAssistLib.structures import new_segment, segment_named
from helpers import dice

SHAPE = (12, 20, 30)
SURFACE = slicer.vtkSegmentationConverter.GetSegmentationClosedSurfaceRepresentationName()
VOXELS = slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()


def oblique(degrees: float = 25.0) -> np.ndarray:
    """IJK to RAS of an oblique, anisotropic, left-handed grid."""
    turn = vtk.vtkTransform()
    turn.RotateWXYZ(degrees, 1, 2, 3)
    matrix = slicer.util.arrayFromVTKMatrix(turn.GetMatrix()) @ np.diag([0.8, -1.1, 3.0, 1.0])
    matrix[:3, 3] = (-20, 15, 40)
    return matrix


@pytest.fixture
def volume(scene):
    """An oblique volume of noise."""
    voxels = np.random.default_rng(0).integers(0, 100, SHAPE).astype(np.int16)
    return slicer.util.addVolumeFromArray(voxels, ijkToRAS=oblique(), name="oblique")


def linear(name: str, degrees: float, shift) -> object:
    """A linear transform node."""
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    turn = vtk.vtkTransform()
    turn.Translate(*shift)
    turn.RotateY(degrees)
    node.SetMatrixTransformToParent(turn.GetMatrix())
    return node


def some_mask() -> np.ndarray:
    """An asymmetric mask."""
    mask = np.zeros(SHAPE, bool)
    mask[3:9, 4:15, 6:20] = True
    mask[5, 6, 7] = False
    return mask


@pytest.mark.parametrize("moved", [(), ("volume",), ("segmentation",), ("volume", "segmentation")])
def test_masks_survive_writing_and_reading_under_transforms(volume, moved):
    segmentation = new_segmentation(volume)
    segment = segmentation.GetSegmentation().AddEmptySegment("a")
    if "volume" in moved:
        volume.SetAndObserveTransformNodeID(linear("v", 30, (5, -7, 11)).GetID())
    if "segmentation" in moved:
        segmentation.SetAndObserveTransformNodeID(linear("s", -12, (1, 2, 3)).GetID())
    write_plainly(MaskPatch.of_mask(some_mask()), volume, segmentation, segment)
    assert (read_mask(segmentation, segment, volume).to_mask(SHAPE) == some_mask()).all()
    voxel = np.array([7, 8, 4, 1.0])  # i, j, k of a voxel inside
    world = (ijk_to_world(volume) @ voxel)[:3]
    assert _segment_holds(segmentation, segment, world)


def _segment_holds(segmentation, segment: str, world) -> bool:
    """Whether a segment covers a place in the world, by Slicer's own transforms."""
    to_local = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(None, segmentation.GetParentTransformNode(), to_local)
    local = to_local.TransformPoint(*world)
    labelmap = slicer.vtkOrientedImageData()
    segmentation.GetBinaryLabelmapRepresentation(segment, labelmap)
    to_image = vtk.vtkMatrix4x4()
    labelmap.GetWorldToImageMatrix(to_image)
    i, j, k = np.rint(to_image.MultiplyPoint((*local, 1.0))[:3]).astype(int)
    e = labelmap.GetExtent()
    if not (e[0] <= i <= e[1] and e[2] <= j <= e[3] and e[4] <= k <= e[5]):
        return False
    return labelmap.GetScalarComponentAsDouble(int(i), int(j), int(k), 0) > 0


def test_the_study_is_the_same_wherever_the_volume_was_moved(volume):
    before = study_of(volume).study_id
    volume.SetAndObserveTransformNodeID(linear("v", 30, (5, -7, 11)).GetID())
    assert study_of(volume).study_id == before


def test_points_of_a_moved_volume_are_its_voxel_indices(volume):
    volume.SetAndObserveTransformNodeID(linear("v", 30, (5, -7, 11)).GetID())
    wanted = np.array([[3, 4, 5], [20, 10, 6.5]])
    marks = Marks(slicer.mrmlScene)
    marks.follow(volume)
    for ijk in wanted:
        marks.add(EXTREME, (ijk_to_world(volume) @ [*ijk, 1.0])[:3])
    np.testing.assert_allclose(marks.prompts().extreme_points, wanted, atol=1e-9)
    volume.GetParentTransformNode().SetMatrixTransformToParent(vtk.vtkMatrix4x4())
    np.testing.assert_allclose(marks.prompts().extreme_points, wanted, atol=1e-9)  # they move with it


def test_a_segment_on_another_grid_is_seen_on_the_volumes(volume):
    fine = slicer.util.addVolumeFromArray(
        np.zeros((24, 40, 60), np.int16), ijkToRAS=oblique() @ np.diag([0.5, 0.5, 0.5, 1]), name="fine"
    )
    segmentation = new_segmentation(fine)
    segment = segmentation.GetSegmentation().AddEmptySegment("a")
    fine_mask = np.zeros((24, 40, 60), bool)
    fine_mask[6:18, 8:30, 12:40] = True
    write_plainly(MaskPatch.of_mask(fine_mask), fine, segmentation, segment)
    seen = read_mask(segmentation, segment, volume).to_mask(SHAPE)
    assert (seen == fine_mask[::2, ::2, ::2]).all()


def test_the_writer_changes_nothing_but_the_difference(volume):
    segmentation = new_segmentation(volume)
    segmentation.SetAndObserveTransformNodeID(linear("s", -12, (1, 2, 3)).GetID())
    segment = segmentation.GetSegmentation().AddEmptySegment("a")
    editor = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    old, new = some_mask(), np.roll(some_mask(), 2, axis=2)
    write_plainly(MaskPatch.of_mask(old), volume, segmentation, segment)
    writer = SegmentWriter(editor)
    writer.write(volume, segmentation, segment, MaskPatch.of_mask(old), MaskPatch.of_mask(new))
    assert (read_mask(segmentation, segment, volume).to_mask(SHAPE) == new).all()
    nothing = MaskPatch(Region((0, 0, 0), (0, 0, 0)), np.zeros((0, 0, 0), bool))
    writer.write(volume, segmentation, segment, MaskPatch.of_mask(new), nothing)
    assert read_mask(segmentation, segment, volume).region.is_empty


def test_a_deformed_volume_is_refused_with_a_sentence(volume):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLBSplineTransformNode", "bend")
    grid = vtk.vtkImageData()
    grid.SetDimensions(4, 4, 4)
    grid.AllocateScalars(vtk.VTK_DOUBLE, 3)
    numpy_support.vtk_to_numpy(grid.GetPointData().GetScalars())[:] = 2.0
    bend = slicer.vtkOrientedBSplineTransform()
    bend.SetCoefficientData(grid)
    node.SetAndObserveTransformFromParent(bend)
    volume.SetAndObserveTransformNodeID(node.GetID())
    with pytest.raises(ImageError, match="'oblique' is under the deformation 'bend'; harden the transform first"):
        ijk_to_world(volume)


def test_the_views_axes_are_recognised_for_oblique_volumes_and_refused_for_oblique_views(volume):
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetLayoutName("Test")
    for orientation, axis in (("Axial", 0), ("Coronal", 1), ("Sagittal", 2)):
        view.SetOrientation(orientation)
        assert slice_axis(view, volume) is None
        view.RotateToVolumePlane(volume)
        assert slice_axis(view, volume) == axis
        middle = (ijk_to_world(volume) @ [15, 10, 6, 1.0])[:3]
        view.JumpSliceByOffsetting(*middle)
        assert slice_index(view, volume, axis) == (6, 10, 15)[axis]


@pytest.mark.parametrize("away", [-1e-3, -1e-9, 0.0, 1e-9, 1e-3])
def test_half_way_between_two_slices_a_view_shows_the_latter(volume, away):
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.RotateToVolumePlane(volume)
    for k in (-1, 4, 5, SHAPE[0] - 1):
        centre = (ijk_to_world(volume) @ [14.2, 9.8, k + 0.5 + away, 1.0])[:3]
        view.JumpSliceByOffsetting(*centre)
        shown = k if away == -1e-3 else k + 1
        if 0 <= shown < SHAPE[0]:
            assert slice_index(view, volume, slice_axis(view, volume)) == shown
        else:
            with pytest.raises(PromptError, match="shows no slice"):
                slice_index(view, volume, slice_axis(view, volume))


def test_world_and_voxels_are_each_others_inverse(volume):
    volume.SetAndObserveTransformNodeID(linear("v", 30, (5, -7, 11)).GetID())
    np.testing.assert_allclose(world_to_ijk(volume) @ ijk_to_world(volume), np.eye(4), atol=1e-12)


@pytest.mark.parametrize("name", ["no image", "colour"])
def test_volumes_that_are_no_images_are_refused_with_a_sentence(scene, name):
    if name == "colour":
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "colour")
        image = vtk.vtkImageData()
        image.SetDimensions(4, 4, 4)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
        node.SetAndObserveImageData(image)
    else:
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "no image")
    with pytest.raises(ImageError, match=name):
        study_of(node)


def fine_over(volume):
    """A volume of half the voxels' size over the oblique one, and a segmentation made for it with two segments."""
    fine = slicer.util.addVolumeFromArray(
        np.zeros((24, 40, 60), np.int16), ijkToRAS=oblique() @ np.diag([0.5, 0.5, 0.5, 1]), name="fine"
    )
    segmentation = new_segmentation(fine)
    lesion, liver = (segmentation.GetSegmentation().AddEmptySegment(name) for name in ("lesion", "liver"))
    masks = np.zeros((2, 24, 40, 60), bool)
    masks[0, 7:10, 9:14, 11:16] = True
    masks[1, 6:18, 20:37, 12:41] = True
    editor = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    writer = SegmentWriter(editor)
    for segment, mask in zip((lesion, liver), masks, strict=True):
        writer.write(fine, segmentation, segment, MaskPatch.empty(), MaskPatch.of_mask(mask))
    return fine, segmentation, (lesion, liver), masks, writer


def test_a_change_by_another_grid_leaves_all_else_as_it_is(volume):
    """A click accepted on the thick series of a patient must not coarsen what was drawn on the thin one."""
    fine, segmentation, (lesion, liver), masks, writer = fine_over(volume)
    before = read_mask(segmentation, liver, volume)
    after = before.to_mask(SHAPE)
    after[5, 4, 25] = True  # one voxel, apart from the rest
    writer.write(volume, segmentation, liver, before, MaskPatch.of_mask(after))
    assert (read_mask(segmentation, lesion, fine).to_mask(masks[0].shape) == masks[0]).all()
    now = read_mask(segmentation, liver, fine).to_mask(masks[1].shape)
    assert not (masks[1] & ~now).any() and 1 <= (now & ~masks[1]).sum() <= 27
    assert (read_mask(segmentation, liver, volume).to_mask(SHAPE) == after).all()


def test_the_editable_area_holds_by_another_grid_too(volume):
    _fine, segmentation, (lesion, liver), _masks, writer = fine_over(volume)
    area = read_mask(segmentation, liver, volume).to_mask(SHAPE)
    editor = writer.editor_node
    editor.SetOverwriteMode(editor.OverwriteNone)
    editor.SetSelectedSegmentID(lesion)
    editor.SetMaskMode(slicer.vtkMRMLSegmentationNode.EditAllowedInsideSingleSegment)
    editor.SetMaskSegmentID(liver)
    before = read_mask(segmentation, lesion, volume)
    wanted = before.to_mask(SHAPE)
    wanted[4:8, 6:19, 8:20] = True
    writer.write(volume, segmentation, lesion, before, MaskPatch.of_mask(wanted))
    added = read_mask(segmentation, lesion, volume).to_mask(SHAPE) & ~before.to_mask(SHAPE)
    assert added.sum() > 100 and not (added & ~area).any()


def test_a_segment_is_found_by_its_very_name(volume):
    segmentation = new_segmentation(volume)
    first, second = (segmentation.GetSegmentation().AddEmptySegment(name, name) for name in ("Lesion", "lesion"))
    assert segment_named(segmentation, "lesion") == second and segment_named(segmentation, "Lesion") == first
    assert segment_named(segmentation, "LESION") == ""


@pytest.mark.parametrize("turned", [False, True])
def test_the_longest_diameter_is_that_of_all_pairs_also_on_one_slice(turned):
    rows, columns = np.mgrid[-20:21, -20:21]
    inside = ((rows + columns) / 27) ** 2 + ((rows - columns) / 17) ** 2 <= 1
    points = np.column_stack([columns[inside], rows[inside], np.full(inside.sum(), 7)]).astype(float)
    if turned:
        points = points @ oblique()[:3, :3].T
    assert longest_diameter(points) == pytest.approx(pdist(points).max())
    assert longest_diameter(np.array([[0.0, 0, 0], [1, 2, 2], [2, 4, 4]])) == pytest.approx(6)
    assert longest_diameter(points[:1]) == 0


@pytest.mark.parametrize("save", ["export", "scene"])
def test_an_empty_first_segment_does_not_resample_the_others_when_they_are_saved(volume, tmp_path, save):
    segmentation = new_segmentation(volume)
    new_segment(segmentation, describe_structure("liver"))
    drawn = new_segment(segmentation, describe_structure("spleen"))
    write_plainly(MaskPatch.of_mask(some_mask()), volume, segmentation, drawn)
    if save == "export":
        export(segmentation, volume, tmp_path / "labels.seg.nrrd")
    else:
        assert slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(tmp_path), None)
    assert np.array_equal(read_mask(segmentation, drawn, volume).to_mask(SHAPE), some_mask())


def test_a_new_segmentation_under_a_transform_has_the_volumes_grid(volume):
    volume.SetAndObserveTransformNodeID(linear("registration", 30, (5, -7, 11)).GetID())
    segmentation = new_segmentation(volume)
    segment = new_segment(segmentation, describe_structure("spleen"))
    editor = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode")
    editor.SetSourceVolumeIntensityMask(True)
    editor.SetSourceVolumeIntensityMaskRange(50, 1000)
    wanted = some_mask() & (slicer.util.arrayFromVolume(volume) >= 50)
    SegmentWriter(editor).write(volume, segmentation, segment, MaskPatch.empty(), MaskPatch.of_mask(some_mask()))
    assert np.array_equal(read_mask(segmentation, segment, volume).to_mask(SHAPE), wanted)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_masking_by_grey_values_cuts_nothing_off_beyond_the_grid_of_the_segments(volume, shift):
    start = oblique() @ [shift, 0, 6, 1]
    crop = oblique()
    crop[:3, 3] = start[:3]
    cropped = slicer.util.addVolumeFromArray(slicer.util.arrayFromVolume(volume)[6:].copy(), ijkToRAS=crop, name="crop")
    segmentation = new_segmentation(cropped)
    other = new_segment(segmentation, describe_structure("bone"))
    write_plainly(MaskPatch.of_mask(some_mask()[6:]), cropped, segmentation, other)
    writer = SegmentWriter(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    seen = []
    for lowest in (None, -5000, 50):
        segment = new_segment(segmentation, describe_structure("spleen"))
        writer.editor_node.SetSourceVolumeIntensityMask(lowest is not None)
        writer.editor_node.SetSourceVolumeIntensityMaskRange(lowest or 0, 5000)
        wanted, kept = writer.write(volume, segmentation, segment, MaskPatch.empty(), MaskPatch.of_mask(some_mask()))
        seen.append(read_mask(segmentation, segment, volume).to_mask(SHAPE))
        assert (kept > 0) == (lowest == 50) and (wanted > 0) == (lowest is not None)
    assert seen[0][:6].any() and np.array_equal(seen[0], seen[1])
    inside = slicer.util.arrayFromVolume(volume) >= 50
    assert dice(seen[2], some_mask() & inside) > (0.99 if shift == 0 else 0.5) and seen[2][:6].any()


def test_a_change_between_the_voxels_of_a_coarser_grid_is_said_to_be_that(volume):
    coarse = slicer.util.addVolumeFromArray(
        np.zeros((4, 7, 10), np.int16), ijkToRAS=oblique() @ np.diag([3, 3, 3, 1]), name="coarse"
    )
    segmentation = new_segmentation(coarse)
    segment = new_segment(segmentation, describe_structure("spleen"))
    drawn = np.zeros((4, 7, 10), bool)
    drawn[1:3, 2:5, 2:6] = True
    write_plainly(MaskPatch.of_mask(drawn), coarse, segmentation, segment)
    before = read_mask(segmentation, segment, volume)
    wanted = before.to_mask(SHAPE)
    wanted[4, 1:5, 1:5] = True  # a slice amid two of the segments'
    writer = SegmentWriter(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentEditorNode"))
    with pytest.raises(StudyError, match=r"voxels are larger than the image's, .* under Specify geometry"):
        writer.write(volume, segmentation, segment, before, MaskPatch.of_mask(wanted))


def test_a_marks_node_made_anew_moves_with_the_volume(volume):
    marks = Marks(slicer.mrmlScene)
    volume.SetAndObserveTransformNodeID(linear("registration", 30, (5, -7, 11)).GetID())
    marks.follow(volume)
    slicer.mrmlScene.RemoveNode(marks.node)
    place = ijk_to_world(volume) @ [7, 6, 5, 1]
    marks.add(EXTREME, place[:3])
    assert marks.places()[0][1] == pytest.approx([7, 6, 5])


def ball_of_surface(volume, radius: float = 9.0) -> tuple[object, np.ndarray]:
    """A segmentation that holds a ball in the middle of the volume as a surface only, and the ball's centre."""
    centre = ijk_to_world(volume) @ [*(np.array(SHAPE)[::-1] - 1) / 2, 1]
    ball = vtk.vtkSphereSource()
    ball.SetRadius(radius)
    ball.SetCenter(centre[:3])
    ball.SetPhiResolution(40)
    ball.SetThetaResolution(40)
    ball.Update()
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "imported")
    node.GetSegmentation().SetSourceRepresentationName(SURFACE)
    segment = slicer.vtkSegment()
    segment.SetName("ball")
    segment.AddRepresentation(SURFACE, ball.GetOutput())
    node.GetSegmentation().AddSegment(segment, "ball")
    return node, centre[:3]


def test_a_segment_that_is_a_surface_only_is_seen_as_voxels(volume):
    node, centre = ball_of_surface(volume)
    k, j, i = np.indices(SHAPE)
    places = np.stack([i, j, k, np.ones(SHAPE)], axis=-1) @ ijk_to_world(volume).T
    ball = np.linalg.norm(places[..., :3] - centre, axis=-1) <= 9
    seen = read_mask(node, "ball", volume).to_mask(SHAPE)
    assert dice(seen, ball) > 0.95
    assert node.GetSegmentation().GetSourceRepresentationName() == SURFACE


@pytest.mark.parametrize("moved", [False, True])
def test_a_segmentation_of_surfaces_is_exported_as_voxels_on_the_volumes_grid(volume, tmp_path, moved):
    node, _centre = ball_of_surface(volume)
    seen = read_mask(node, "ball", volume)
    segmentation, nodes = node.GetSegmentation(), slicer.mrmlScene.GetNumberOfNodes()
    if moved:
        node.SetAndObserveTransformNodeID(linear("moved", 0, (8, 0, 3)).GetID())
        volume.SetAndObserveTransformNodeID(node.GetTransformNodeID())
        nodes += 1
    segmentation.RemoveRepresentation(VOXELS)
    converter = slicer.vtkSegmentationConverter
    coarse = converter.SerializeImageGeometry(vtk.vtkMatrix4x4(), coarse_image())
    segmentation.SetConversionParameter(converter.GetReferenceImageGeometryParameterName(), coarse)
    assert segmentation.CreateRepresentation(VOXELS)  # by another grid, for 3D views
    export(node, volume, tmp_path / "labels.seg.nrrd")
    assert (tmp_path / "labels.seg.nrrd").read_bytes()[:4] == b"NRRD"
    assert slicer.mrmlScene.GetNumberOfNodes() == nodes and segmentation.GetSourceRepresentationName() == SURFACE
    loaded = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationStorageNode")
    storage.SetFileName(str(tmp_path / "labels.seg.nrrd"))
    assert storage.ReadData(loaded)
    assert loaded.GetSegmentation().GetSourceRepresentationName() == VOXELS
    assert loaded.GetSegmentation().GetNthSegment(0).GetName() == "ball"
    volume.SetAndObserveTransformNodeID(None)
    assert read_mask(loaded, loaded.GetSegmentation().GetNthSegmentID(0), volume).version == seen.version


def coarse_image() -> vtk.vtkImageData:
    """The extent of a grid of 5 x 5 x 5 voxels."""
    image = vtk.vtkImageData()
    image.SetDimensions(5, 5, 5)
    return image


def test_segments_that_slicer_cannot_turn_to_voxels_are_not_empty_ones(volume, tmp_path):
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", "imported")
    node.GetSegmentation().SetSourceRepresentationName("Unheard of")
    segment = slicer.vtkSegment()
    segment.AddRepresentation("Unheard of", vtk.vtkPolyData())
    node.GetSegmentation().AddSegment(segment, "odd")
    with pytest.raises(StudyError, match="cannot turn the segments of 'imported' to voxels; create their binary"):
        read_mask(node, "odd", volume)
    with pytest.raises(StudyError, match="cannot turn the segments of 'imported' to voxels; create their binary"):
        export(node, volume, tmp_path / "labels.seg.nrrd")
