"""Six clicks in Slicer's views give what the engine gives for the same points, on real cases of other shapes.

The cases are those of ``../shared/data/cases``, which users do not have; without them the tests say so.
"""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from aiassist.engine import AnnotateRequest, LocalBackend
from aiassist.evaluation.cases import find_structures
from aiassist.imaging import describe_structure
from aiassist.prompts import Prompts, extreme_points
from AIAssistLib.console import new_segmentation
from AIAssistLib.structures import new_segment
from helpers import CASE, answered, dice

CASES = CASE.parents[3] / "shared" / "data" / "cases"
#: An expert's spleen, an oblique MR of a heart, an MR with thick slices.
NAMES = ("msd_spleen_2_crop", "scd_hfi09_ed", "sts_012_mr")


def click(views, world) -> None:
    """Click a place in whichever view shows it without rounding it off the image."""
    view = views["Green"]
    view.click(view.xy(world))


@pytest.mark.skipif(not CASES.is_dir(), reason="../shared/data/cases is not here")
@pytest.mark.parametrize("name", NAMES)
def test_slicer_gives_what_evaluate_gives(name, module, slice_views):
    structure = max(
        (s for s in find_structures(CASES) if s.case == name), key=lambda s: int(s.load()[1].sum()), default=None
    )
    volume, truth = structure.load()
    node = slicer.util.addVolumeFromArray(volume.voxels.copy(), ijkToRAS=volume.geometry.affine_ras, name=name)
    node.CreateDefaultDisplayNodes()
    segmentation = new_segmentation(node)
    panel = module.panel
    panel.editor.setSegmentationNode(segmentation)
    panel.editor.setSourceVolumeNode(node)
    segment = new_segment(segmentation, describe_structure(structure.name))
    panel.editor.setCurrentSegmentID(segment)
    for view in slice_views.values():
        view.show(node)
        view.enter()
    panel.points()
    points = panel.editor.activeEffect().self()
    points.ui.extremeButton.click()
    jitter = np.random.default_rng(0)
    ijk = extreme_points(truth, jitter) + jitter.uniform(-0.7, 0.7, (6, 3))
    ijk = np.clip(ijk, 0, np.subtract(volume.geometry.size, 1))
    world = np.column_stack([ijk, np.ones(6)]) @ volume.geometry.affine_ras[:3].T
    for place in world:
        click(slice_views, place)
    answered(points)
    asked = points.session.marks.prompts().extreme_points
    assert np.abs((asked - ijk) * volume.geometry.spacing).max() < 2.5  # a click is worth a pixel of the view
    with LocalBackend(threaded=False) as backend:
        study = backend.open_study(volume)
        engine = backend.annotate(AnnotateRequest(study, Prompts(extreme_points=asked))).patch.to_mask(truth.shape)
    points.ui.acceptButton.click()
    written = slicer.util.arrayFromSegmentBinaryLabelmap(segmentation, segment, node) > 0
    assert (written == engine).all()
    assert dice(written, truth) >= dice(engine, truth)
