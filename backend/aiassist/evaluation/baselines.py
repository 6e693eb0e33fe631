"""What people use today instead, as segmenters, to be measured beside ours: seeds in, a mask out.

Both get the seeds that a person would paint for them after the same prompts: the core of the
ellipsoid in the prompts' box and a blob at each positive click inside; everything beyond the box and
a blob at each negative click outside. Every click solves the whole anew, as these tools do.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy import ndimage

from aiassist.errors import MissingExtraError
from aiassist.imaging import MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.model_store import ModelStore
from aiassist.segmenters.registry import Registry, bundled
from aiassist.segmenters.strokes import force_clicks, region_with_clicks, stroke_points
from aiassist.segmenters.working_grid import WorkingGrid

INSIDE, OUTSIDE = 1, 2
#: Radius of the core that is painted inside, in radii of the ellipsoid.
CORE = 0.5
#: Radius of a click's blob, in cells.
BLOB = 2


class Seeded:
    """A segmenter that grows seeds on a working grid.

    Parameters
    ----------
    card : ModelCard
    cells : int
        Along the longest side of the prompts' box.
    grow : callable
        Takes grey levels (k, j, i) float32, seeds of the same shape (`INSIDE`, `OUTSIDE`, 0) and the
        cells' spacing; returns the share of inside, above one half is the answer.
    """

    def __init__(self, card: ModelCard, cells: int, grow):
        self.card = card
        self._cells = cells
        self._grow = grow

    def annotate(self, volume: Volume, prompts: Prompts) -> Work:
        """See `aiassist.segmenters.base.Promptable.annotate`."""
        yield Step("crop", 0.0)
        low, high = prompts.box_ijk(volume.geometry)
        grid = WorkingGrid.around(low, high, volume.geometry, self._cells, margin=0.2)
        seeds = _seeds(grid, low, high, prompts)
        yield Step("pass", 0.2)
        if all((seeds == label).any() for label in (INSIDE, OUTSIDE, 0)):
            share = self._grow(grid.sample(volume), seeds, grid.spacing)
        else:  # nothing to decide between
            share = seeds != OUTSIDE if (seeds == INSIDE).any() else seeds == INSIDE
        yield Step("paste", 0.8)
        found = MaskPatch(grid.region, grid.to_voxels(share) > 0.5)
        region = region_with_clicks(found.region, prompts)
        mask = found.within(region)
        force_clicks(mask, region, prompts)
        return MaskPatch(region, mask)


def _seeds(grid: WorkingGrid, low: np.ndarray, high: np.ndarray, prompts: Prompts) -> np.ndarray:
    """What a person would paint; in a box of few slices no cell lies in the very middle, but the nearest ones do."""
    radius, allowed = grid.ellipsoid(low, high)
    core = radius**2 <= CORE**2 + radius.min() ** 2
    seeds = np.where(core, INSIDE, np.where(allowed, 0, OUTSIDE)).astype(np.uint8)
    for points, label in _strokes(prompts):
        seeds[_blob(grid, points)] = label
    return seeds


def _strokes(prompts: Prompts):
    yield prompts.positive, INSIDE
    yield prompts.negative, OUTSIDE
    for scribble in prompts.scribbles:
        yield stroke_points(scribble.points), INSIDE if scribble.positive else OUTSIDE


def _blob(grid: WorkingGrid, points: np.ndarray) -> np.ndarray:
    mask = np.zeros(grid.shape, bool)
    mask[tuple(grid.nearest_cells(points).T)] = True
    return ndimage.binary_dilation(mask, iterations=BLOB) if len(points) else mask


def random_walker(grey: np.ndarray, seeds: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Probability of inside by scikit-image's random walker (Grady 2006, doi:10.1109/TPAMI.2006.233)."""
    from skimage.segmentation import random_walker as solve

    low, high = np.percentile(grey, [1, 99])
    levels = np.clip((grey - low) / max(high - low, 1e-6), 0, 1)
    how = {"beta": 300, "mode": "cg_j", "tol": 1e-3, "prob_tol": 1.0, "spacing": spacing}
    share = solve(levels, seeds.astype(int), return_full_prob=True, **how)
    return share[0].astype(np.float32)


def grow_from_seeds(grey: np.ndarray, seeds: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Inside or not by Slicer's "Grow from seeds" (Zhu et al. 2014, doi:10.1117/12.2043587), from slicer-core.

    It takes three cells along each axis at least, and nothing grows in the outermost; thin grids are continued.
    """
    try:
        from slicer import vtkImageGrowCutSegment
        from vtkmodules.util.numpy_support import vtk_to_numpy
    except ImportError as error:
        raise MissingExtraError("slicer-core", "peers", "Slicer's grow from seeds") from error

    low, high = np.percentile(grey, [1, 99])
    levels = np.clip((grey - low) / max(high - low, 1e-6) * 1000, -1000, 2000)
    more = [(1, 1) if n < 3 else (0, 0) for n in grey.shape]
    levels, seeds = (np.pad(cells, more, mode="edge").astype(np.int16) for cells in (levels, seeds))
    filter = vtkImageGrowCutSegment()
    filter.SetIntensityVolume(_vtk_image(levels, spacing))
    filter.SetSeedLabelVolume(_vtk_image(seeds, spacing))
    filter.Update()
    labels = vtk_to_numpy(filter.GetOutput().GetPointData().GetScalars()).reshape(levels.shape)
    held = tuple(slice(before, before + n) for (before, _), n in zip(more, grey.shape, strict=True))
    return (labels[held] == INSIDE).astype(np.float32)


def _vtk_image(array: np.ndarray, spacing: np.ndarray):
    from vtkmodules.util.numpy_support import numpy_to_vtk
    from vtkmodules.vtkCommonDataModel import vtkImageData

    image = vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.SetSpacing(*spacing[::-1])
    image.GetPointData().SetScalars(numpy_to_vtk(array.ravel(), deep=True))
    return image


def comparable(threads: int = 0, trained: str | Path | None = None) -> Registry:
    """The bundled segmenters, and what `aiassist evaluate` may compare them with and nothing else offers.

    With a folder of `trained` models, those that are published there, too.
    """
    registry = bundled(threads=threads, models=ModelStore(Path(trained)) if trained is not None else None)
    for name, cells, grow, text in (
        ("random-walker", 32, random_walker, "scikit-image's random walker, from painted seeds."),
        ("grow-from-seeds", 64, grow_from_seeds, "Slicer's grow from seeds, from painted seeds."),
    ):
        card = ModelCard(name=name, version="1", kind="promptable", description=text)
        registry.add(name, lambda card=card, cells=cells, grow=grow: Seeded(card, cells, grow))
    return registry
