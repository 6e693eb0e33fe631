"""What a network sees of a box of a volume, and what its answer is at the voxels."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import ndimage

from aiassist.imaging import MaskPatch, Region, Volume, finite
from aiassist.prompts import Prompts
from aiassist.segmenters.base import Step, run
from aiassist.segmenters.cube import Cube
from aiassist.segmenters.geodesic import solve
from aiassist.segmenters.grey_channels import window
from aiassist.segmenters.marks import Marks
from aiassist.segmenters.network_input import FORMER, GUESS_CELLS, INSIDE, WIDE, channels, sample_guess
from aiassist.segmenters.settle import Borders
from aiassist.segmenters.working_grid import WorkingGrid

#: Pieces smaller than this share of the largest are dropped, unless a prompt marks them.
SMALL = 0.05


class Runner(Protocol):
    """Runs a network: channels (inputs, c, c, c) of float32 to logits (c, c, c).

    ``cells`` is the c that it was trained on; with `takes_any` it runs on any that it can halve as often.
    """

    cells: int
    inputs: int
    takes_any: bool

    def __call__(self, channels: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class Sight:
    """What a network sees: its input ``seen``, the prompts' ``marks``, the ``cube`` in a volume's ``region``.

    ``guess`` is what the classical segmenter answers, see `solve`; None in corrections.
    """

    seen: np.ndarray
    marks: Marks
    cube: Cube
    region: Region
    guess: tuple[WorkingGrid, np.ndarray] | None = None

    @cached_property
    def inside(self) -> np.ndarray:
        """Bool (k, j, i): the cells that lie in the volume."""
        return self.seen[INSIDE] > 0

    @cached_property
    def borders(self) -> Borders:
        """Where its grey levels change."""
        return Borders(self.seen[WIDE], self.inside)

    def answer(self, runner: Runner, start: float) -> Generator[Step, None, np.ndarray]:
        """The network's logits, settled on the borders of the grey levels. The steps begin at `start`."""
        yield Step("pass", start)
        logits = runner(self.seen)
        yield Step("settle", start)
        return self.borders.settle(logits)

    def without_stray(self, logits: np.ndarray) -> np.ndarray:
        """The logits with small pieces, which no click marks, turned to outside."""
        found = (logits > 0) & self.inside
        box = Region.of_mask(found)
        parts, count = ndimage.label(found[box.slices])
        if count < 2:
            return logits
        sizes = np.bincount(parts.ravel())
        keep = sizes >= SMALL * sizes[1:].max()
        clicked = np.rint(self.marks.positive).astype(int) - box.start
        clicked = clicked[((clicked >= 0) & (clicked < parts.shape)).all(axis=1)]
        keep[parts[tuple(clicked.T)]] = True
        keep[0] = True
        logits = logits.copy()
        logits[box.slices] = np.where(keep[parts], logits[box.slices], -np.abs(logits[box.slices]))
        return logits

    def extent(self, logits: np.ndarray) -> Region:
        """The box of the voxels of an answer."""
        return self.cube.extent(logits).shift(self.region.start)

    def mask(self, logits: np.ndarray) -> MaskPatch:
        """The voxels of an answer (k, j, i), above zero inside."""
        return MaskPatch(self.region, self.cube.positive(logits))


def see(
    volume: Volume, prompts: Prompts, low_ijk, high_ijk, runner: Runner, guesses: bool = True, start: float = 0.0
) -> Generator[Step, None, Sight]:
    """What a network sees of a box; if it `guesses`, the classical segmenter's answer too. Steps begin at `start`."""
    yield Step("crop", start)
    cube = Cube.around(low_ijk[::-1], high_ijk[::-1], volume.shape, volume.geometry.spacing_kji, runner.cells)
    region = Region(tuple(np.floor(cube.low).astype(int)), tuple(np.ceil(cube.high).astype(int) + 1))
    region = region.clip(volume.shape)
    marks = Marks.of(prompts, cube)
    local = replace(cube.shift(-np.array(region.start)), shape=region.shape)
    thin, grey, valid, prior = _sample(volume, prompts.prior, local, region)
    limits, guess = window(grey, valid, marks, prior), None
    if guesses:
        yield Step("guess", start + 0.1)
        guess = run(solve(volume, prompts, GUESS_CELLS, limits))
    guessed = sample_guess(cube, *guess) if guess is not None else None
    seen = channels(np.clip(grey, *limits), valid, thin, marks, prior, guessed, runner.inputs)
    return Sight(seen, marks, local, region, guess)


def see_closer(volume: Volume, sight: Sight, found: MaskPatch, cells: int) -> Sight:
    """What was seen, on finer cells and with a mask as the prior.

    The guess is that of before, and how near the cells are to the prompts is not computed anew.
    """
    local, marks = replace(sight.cube, cells=cells), sight.marks.on(cells / sight.cube.cells)
    thin, grey, valid, prior = _sample(volume, found, local, sight.region)
    grey = np.clip(grey, *window(grey, valid, marks, prior))
    guess = sample_guess(local.shift(sight.region.start), *sight.guess)
    near = [_finer(channel, cells) for channel in sight.seen[FORMER:]]
    seen = channels(grey, valid, thin, marks, prior, guess, len(sight.seen), near)
    return Sight(seen, marks, local, sight.region, sight.guess)


def _sample(volume: Volume, prior: MaskPatch | None, cube: Cube, region: Region):
    """The cube over as few voxels of a region as are enough; grey values, which lie inside, and the prior's share."""
    thin, few = cube.thinned()
    share = None if prior is None else thin.sample(prior.within(region)[few].astype(np.float32))[0]
    return thin, *thin.sample(finite(volume.voxels[region.slices][few])), share


def _finer(field: np.ndarray, cells: int) -> np.ndarray:
    """A field of cells (c, c, c), interpolated linearly on finer ones over the same cube."""
    return ndimage.zoom(field, cells / len(field), order=1, mode="nearest", grid_mode=True)
