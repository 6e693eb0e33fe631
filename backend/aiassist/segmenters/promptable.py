"""The promptable network, for any structure in any modality: a first look takes two passes or more, a click one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import ndimage

from aiassist.imaging import MaskPatch, Region, Volume, finite
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step, Work, run
from aiassist.segmenters.correction import Look, correct
from aiassist.segmenters.cube import Cube
from aiassist.segmenters.geodesic import solve
from aiassist.segmenters.grey_channels import window
from aiassist.segmenters.marks import Marks
from aiassist.segmenters.network_input import GUESS_CELLS, INSIDE, WIDE, channels, sample_guess, show_prior
from aiassist.segmenters.settle import Borders
from aiassist.segmenters.strokes import force_clicks, region_with_clicks

#: A correction looks at this share of the structure's box around the click.
ZOOM = 0.5
#: A first look takes two passes, and up to this many while the Dice of an answer and the one before is below `STEADY`.
PASSES = 4
STEADY = 0.9
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
    runner : callable
        Makes the `Runner` (ONNX Runtime on the CPU, or torch) when it is first needed.
    card : ModelCard
    """

    def __init__(self, runner: Callable[[], Runner], card: ModelCard):
        self._make_runner = runner
        self.card = card

    @cached_property
    def runner(self) -> Runner:
        """What runs the network."""
        return self._make_runner()

    def annotate(self, volume: Volume, prompts: Prompts) -> Work:
        """See `aiassist.segmenters.base.Promptable.annotate`."""
        if prompts.prior is not None and prompts.has_clicks:
            return (yield from correct(volume, prompts, self._zoom(volume, prompts)))
        low, high = prompts.box_ijk(volume.geometry)
        found = yield from self._look(volume, prompts, low, high, first=True)
        region = region_with_clicks(found.region, prompts)
        mask = found.mask if region == found.region else found.within(region)
        force_clicks(mask, region, prompts)
        return MaskPatch(region, mask)

    def _look(self, volume: Volume, prompts: Prompts, low_ijk, high_ijk, first: bool = False):
        """Look at a box: the mask of its region. A first look makes a guess, and drops stray pieces in the end."""
        yield Step("crop", 0.0)
        geometry = volume.geometry
        cube = Cube.around(low_ijk[::-1], high_ijk[::-1], volume.shape, geometry.spacing_kji, self.runner.cells)
        region = Region(tuple(np.floor(cube.low).astype(int)), tuple(np.ceil(cube.high).astype(int) + 1))
        region = region.clip(volume.shape)
        local = replace(cube, low=cube.low - region.start, high=cube.high - region.start, shape=region.shape)
        thin, few = local.thinned()
        prior = None
        if prompts.prior is not None:
            prior = thin.sample(prompts.prior.within(region)[few].astype(np.float32))[0]
        marks = Marks.of(prompts, cube)
        cells, valid = thin.sample(finite(volume.voxels[region.slices][few]))
        limits = window(cells, valid, marks, prior)
        guess = None
        if first:
            yield Step("guess", 0.1)
            guess = sample_guess(cube, *run(solve(volume, prompts, GUESS_CELLS, limits)))
        seen = channels(np.clip(cells, *limits), valid, thin, marks, prior, guess)
        yield Step("pass", 0.4)
        borders = Borders(seen[WIDE], seen[INSIDE] > 0)
        logits = borders.settle(self.runner(seen))
        if first:
            logits = _without_stray((yield from self._look_again(seen, logits, borders)), marks)
        yield Step("paste", 0.8)
        return MaskPatch(region, local.positive(logits))

    def _look_again(self, seen: np.ndarray, logits: np.ndarray, borders: Borders):
        """Show the network its own answer until it stays: in long structures each pass follows them farther."""
        inside = seen[INSIDE] > 0
        answer = (logits > 0) & inside
        for number in range(1, PASSES):
            yield Step("prior", 0.4 + 0.1 * number)
            show_prior(seen, answer.astype(np.float32))
            yield Step("pass", 0.4 + 0.1 * number)
            logits = borders.settle(self.runner(seen))
            before, answer = answer, (logits > 0) & inside
            if 2 * (before & answer).sum() >= STEADY * (before.sum() + answer.sum()):
                break
        return logits

    def _zoom(self, volume: Volume, prompts: Prompts) -> Look:
        """Corrections by a pass over a smaller box around the click."""
        low, high = prompts.box_ijk(volume.geometry)
        half = ZOOM * (high - low) / 2

        def look(voxels, inside, mask):
            centre = voxels.mean(axis=0)[::-1]
            now = replace(prompts, prior=mask)
            found = yield from self._look(volume, now, centre - half, centre + half)
            answer = MaskPatch(found.region, found.mask == inside)  # what was not looked at stays

            def propose(where, _right, _movable, _nearness):
                return answer.within(where)

            return propose

        return look


def _without_stray(logits: np.ndarray, marks: Marks) -> np.ndarray:
    """The logits with small pieces, which no click marks, turned to outside."""
    parts, count = ndimage.label(logits > 0)
    if count < 2:
        return logits
    sizes = np.bincount(parts.ravel())
    keep = sizes >= SMALL * sizes[1:].max()
    clicked = np.rint(marks.positive).astype(int)
    clicked = clicked[((clicked >= 0) & (clicked < logits.shape)).all(axis=1)]
    keep[parts[tuple(clicked.T)]] = True
    keep[0] = True
    return np.where(keep[parts], logits, -np.abs(logits))
