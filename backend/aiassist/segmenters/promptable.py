"""The promptable network: one pass a click, for any structure in any modality."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from scipy import ndimage

from aiassist.imaging import MaskPatch, Region, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.correction import Look, correct
from aiassist.segmenters.network_input import Cube, Marks, as_channels
from aiassist.segmenters.strokes import force_clicks, region_with_clicks, stroke_points
from aiassist.segmenters.working_grid import finite

#: A correction looks at this share of the structure's box around the click.
ZOOM = 0.5
#: Pieces smaller than this share of the largest are dropped, unless a prompt marks them.
SMALL = 0.05


class Runner(Protocol):
    """Runs the network: channels (n, c, c, c) of float32 to logits (c, c, c)."""

    cells: int

    def __call__(self, channels: np.ndarray) -> np.ndarray: ...


class PromptableNetwork:
    """Annotates by the network behind `runner`.

    Parameters
    ----------
    runner : Runner
        ONNX Runtime on the CPU, or torch.
    card : ModelCard
    """

    def __init__(self, runner: Runner, card: ModelCard):
        self.runner = runner
        self.card = card

    def annotate(self, volume: Volume, prompts: Prompts) -> Work:
        """See `aiassist.segmenters.base.Promptable.annotate`."""
        if prompts.prior is not None and prompts.has_clicks:
            return (yield from correct(volume, prompts, self._zoom(volume, prompts)))
        yield Step("crop", 0.0)
        low, high = prompts.box_ijk(volume.geometry)
        probability, region = yield from self._look(volume, prompts, low, high, prompts.prior)
        yield Step("settle", 0.8)
        reached = region_with_clicks(region, prompts)
        mask = MaskPatch(region, probability > 0.5).within(reached)
        force_clicks(mask, reached, prompts)
        return MaskPatch(reached, _whole(mask, reached, prompts))

    def _look(self, volume: Volume, prompts: Prompts, low_ijk, high_ijk, prior):
        """One pass over a box; probabilities of the voxels of a region."""
        geometry = volume.geometry
        cube = Cube.around(low_ijk[::-1], high_ijk[::-1], volume.shape, geometry.spacing_kji, self.runner.cells)
        inside = Region(tuple(np.floor(cube.low).astype(int)), tuple(np.ceil(cube.high).astype(int) + 1))
        inside = inside.clip(volume.shape)
        local = Cube(cube.low - inside.start, cube.high - inside.start, inside.shape, cube.spacing, cube.cells)
        grey = finite(volume.voxels[inside.slices])
        mask = None if prior is None else prior.within(inside).astype(np.float32)
        channels = as_channels(np, grey, local, _marks(prompts, cube), mask).astype(np.float32)
        yield Step("pass", 0.3)
        logits = self.runner(channels)
        yield Step("paste", 0.6)
        return 1 / (1 + np.exp(-np.clip(_to_voxels(logits, local), -30, 30))), inside

    def _zoom(self, volume: Volume, prompts: Prompts) -> Look:
        """Corrections by a pass over a smaller box around the click."""
        low, high = prompts.box_ijk(volume.geometry)
        half = ZOOM * (high - low) / 2

        def look(voxels, inside, mask):
            centre = voxels.mean(axis=0)[::-1]
            side = "positive" if inside else "negative"
            clicks = Prompts(extreme_points=prompts.extreme_points, box=prompts.box, **{side: voxels[:, ::-1]})
            probability, region = yield from self._look(volume, clicks, centre - half, centre + half, mask)
            answer = MaskPatch(region, (probability > 0.5) == inside)  # what was not looked at stays

            def propose(where, _right, _movable, _nearness):
                return answer.within(where)

            return propose

        return look


def _marks(prompts: Prompts, cube: Cube) -> Marks:
    """The prompts in the cube's cells, as in training: strokes are chains of points."""
    positive = [prompts.positive, *([stroke_points(prompts.line)] if prompts.line is not None else [])]
    positive += [stroke_points(s.points) for s in prompts.scribbles if s.positive]
    negative = [prompts.negative, *(stroke_points(s.points) for s in prompts.scribbles if not s.positive)]
    box = None
    outline = prompts.extreme_points if prompts.box is None else prompts.box
    if len(outline):
        box = tuple(cube.to_cells(np.stack([outline.min(axis=0) - 0.5, outline.max(axis=0) + 0.5])[:, ::-1]))
    return Marks(
        extreme=cube.to_cells(prompts.extreme_points[:, ::-1]),
        positive=cube.to_cells(np.concatenate(positive)[:, ::-1]),
        negative=cube.to_cells(np.concatenate(negative)[:, ::-1]),
        box=box,
    )


def _to_voxels(cells: np.ndarray, cube: Cube) -> np.ndarray:
    """A field of the cells, interpolated linearly at the voxels of the cube's volume."""
    out = cells
    for axis in range(3):
        places = np.clip((np.arange(cube.shape[axis]) - cube.low[axis]) / cube.cell[axis] - 0.5, 0, cube.cells - 1)
        weights = np.maximum(1 - np.abs(places[:, np.newaxis] - np.arange(cube.cells)), 0).astype(np.float32)
        out = np.moveaxis(np.tensordot(weights, out, axes=(1, axis)), 0, axis)
    return out


def _whole(mask: np.ndarray, region: Region, prompts: Prompts) -> np.ndarray:
    """The mask without small stray pieces that no prompt marks."""
    parts, count = ndimage.label(mask)
    if count < 2:
        return mask
    sizes = np.bincount(parts.ravel())
    keep = sizes >= SMALL * sizes[1:].max()
    marked = np.zeros_like(mask)
    force_clicks(marked, region, prompts)
    keep[np.unique(parts[marked])] = True
    keep[0] = False
    return keep[parts]
