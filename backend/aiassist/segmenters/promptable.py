"""The promptable network, for any structure in any modality: a first look takes two passes or more, a click one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import ndimage

from aiassist.imaging import MaskPatch, Region, Volume, finite
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step, Work, run
from aiassist.segmenters.correction import Look, correct, part
from aiassist.segmenters.cube import Cube, together
from aiassist.segmenters.geodesic import solve
from aiassist.segmenters.grey_channels import window
from aiassist.segmenters.marks import Marks
from aiassist.segmenters.network_input import GUESS_CELLS, INSIDE, WIDE, channels, sample_guess, show_click, show_prior
from aiassist.segmenters.second_thoughts import better_points, unreached
from aiassist.segmenters.settle import Borders
from aiassist.segmenters.strokes import force_clicks, region_with_clicks
from aiassist.segmenters.working_grid import WorkingGrid

#: A correction looks at this share of the structure's box around the click.
ZOOM = 0.75
#: A correction reaches this share of the structure's size, the cube root of its box's volume.
REACH = 0.5
#: A first look takes two passes, and up to this many while the Dice of an answer and the one before is below `STEADY`.
PASSES = 4
STEADY = 0.9
#: The pass on finer cells has so many for each one on which the network was trained.
FINER = 4 / 3
#: Logits count up to this much when answers are put together.
SURE = 8.0
#: Pieces smaller than this share of the largest are dropped, unless a prompt marks them.
SMALL = 0.05


class Runner(Protocol):
    """Runs the network: channels (inputs, c, c, c) of float32 to logits (c, c, c).

    ``cells`` is the c that it was trained on; with `takes_any` it runs on any that it can halve as often.
    """

    cells: int
    inputs: int
    takes_any: bool

    def __call__(self, channels: np.ndarray) -> np.ndarray: ...


@dataclass(frozen=True, eq=False)
class _Sight:
    """What the network sees: its input ``seen``, the prompts' ``marks``, the ``cube`` in a volume's ``region``.

    ``guess`` is what the classical segmenter answers, see `solve`; None in corrections.
    """

    seen: np.ndarray
    marks: Marks
    cube: Cube
    region: Region
    guess: tuple[WorkingGrid, np.ndarray] | None

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

    def extent(self, logits: np.ndarray) -> Region:
        """The box of the voxels of an answer."""
        return self.cube.extent(logits).shift(self.region.start)

    def mask(self, logits: np.ndarray) -> MaskPatch:
        """The voxels of an answer (k, j, i), above zero inside."""
        return MaskPatch(self.region, self.cube.positive(logits))


class PromptableNetwork:
    """Annotates by the network behind `runner`.

    Parameters
    ----------
    runner : callable
        Makes the `Runner` (ONNX Runtime on the CPU, or torch) when it is first needed.
    card : ModelCard
    corrector : callable, optional
        Makes the `Runner` of another network that corrections run by.
    is_fine : bool
        Whether a first look ends with a pass on finer cells, where the network takes any number of them.
    """

    def __init__(
        self,
        runner: Callable[[], Runner],
        card: ModelCard,
        corrector: Callable[[], Runner] | None = None,
        is_fine: bool = False,
    ):
        self._make_runner, self._make_corrector = runner, corrector
        self.card, self._is_fine = card, is_fine

    def finer(self, name: str) -> PromptableNetwork:
        """The same network under another name, which looks once more on finer cells."""
        what = f"As {self.card.name}, with one more pass on finer cells: better on fine structures, in twice the time."
        card = replace(self.card, name=name, description=what, metrics={}, quick=self.card.name)
        return PromptableNetwork(self._make_runner, card, self._make_corrector, is_fine=True)

    @cached_property
    def runner(self) -> Runner:
        """What runs the network."""
        return self._make_runner()

    @cached_property
    def corrector(self) -> Runner:
        """What runs the network that corrects."""
        return self.runner if self._make_corrector is None else self._make_corrector()

    def annotate(self, volume: Volume, prompts: Prompts) -> Work:
        """See `aiassist.segmenters.base.Promptable.annotate`."""
        prompts = prompts.without_empty_prior()
        if _is_correction(prompts):
            return (yield from self._correction(volume, prompts))
        found = yield from self._first_look(volume, prompts)
        region = region_with_clicks(found.region, prompts)
        mask = found.mask if region == found.region else found.within(region)
        force_clicks(mask, region, prompts)
        return MaskPatch(region, mask)

    def _first_look(self, volume: Volume, prompts: Prompts):
        """The mask of the prompts' box. Points that seem missed a little are moved, those out of reach clicked."""
        sight = yield from self._sight(volume, prompts, *prompts.box_ijk(volume.geometry), self.runner)
        logits = yield from sight.answer(self.runner, 0.3)
        points = better_points(prompts.extreme_points, sight.extent(_without_stray(logits, sight)))
        if points is not None:
            prompts = replace(prompts, extreme_points=points)
            sight = yield from self._sight(volume, prompts, *prompts.box_ijk(volume.geometry), self.runner, 0.35)
            logits = yield from sight.answer(self.runner, 0.5)
        logits = _without_stray((yield from self._look_again(sight, logits)), sight)
        yield Step("paste", 0.78)
        found = sight.mask(logits)
        if self._is_fine and found.mask.any() and self.runner.takes_any and self.runner.cells % 3 == 0:
            found = yield from self._closer_look(volume, prompts, sight, logits, found)
        missed = unreached(sight.marks.extreme, (logits > 0) & sight.inside, sight.cube.cell)
        if missed.any() and found.mask.any():  # as if the person had clicked there
            outline = prompts.extreme_points
            clicked = Prompts(extreme_points=outline, box=prompts.box, positive=outline[missed], prior=found)
            found = (yield from part(self._correction(volume, clicked), 0.85, 0.15)).over(found)
        return found

    def _closer_look(self, volume: Volume, prompts: Prompts, sight: _Sight, logits: np.ndarray, found: MaskPatch):
        """The mask where the mean of an answer, and of another that sees it on finer cells, is above zero.

        The finer cells show fine structures better, the coarse ones more of what surrounds long and thin ones.
        """
        known, box = replace(prompts, prior=found), prompts.box_ijk(volume.geometry)
        closer = yield from self._sight(volume, known, *box, self.runner, 0.79, sight)
        again = _without_stray((yield from closer.answer(self.runner, 0.8)), closer)
        yield Step("paste", 0.84)
        fields = [(one.cube, np.clip(field, -SURE, SURE)) for one, field in ((sight, logits), (closer, again))]
        return MaskPatch(sight.region, together(fields))

    def _correction(self, volume: Volume, prompts: Prompts):
        """What the clicks change of the prior mask."""
        low, high = prompts.box_ijk(volume.geometry)
        reach = REACH * float(np.cbrt(np.prod((high - low) * volume.geometry.spacing)))
        return (yield from correct(volume, prompts, self._zoom(volume, prompts), reach, apart=True))

    def _sight(
        self,
        volume: Volume,
        prompts: Prompts,
        low_ijk,
        high_ijk,
        runner: Runner,
        start: float = 0.0,
        before: _Sight | None = None,
    ):
        """What a network sees of a box; a first look makes a guess. The steps begin at `start`.

        With what it saw of the box `before` it sees it on finer cells, with the guess of then.
        """
        yield Step("crop", start)
        geometry, cells = volume.geometry, runner.cells if before is None else round(FINER * runner.cells)
        cube = Cube.around(low_ijk[::-1], high_ijk[::-1], volume.shape, geometry.spacing_kji, cells)
        region = Region(tuple(np.floor(cube.low).astype(int)), tuple(np.ceil(cube.high).astype(int) + 1))
        region = region.clip(volume.shape)
        local = replace(cube, low=cube.low - region.start, high=cube.high - region.start, shape=region.shape)
        thin, few = local.thinned()
        prior = None
        if prompts.prior is not None:
            prior = thin.sample(prompts.prior.within(region)[few].astype(np.float32))[0]
        marks = Marks.of(prompts, cube)
        grey, valid = thin.sample(finite(volume.voxels[region.slices][few]))
        limits = window(grey, valid, marks, prior)
        guess = before.guess if before is not None else None
        if guess is None and not _is_correction(prompts):
            yield Step("guess", start + 0.1)
            guess = run(solve(volume, prompts, GUESS_CELLS, limits))
        guessed = sample_guess(cube, *guess) if guess is not None else None
        seen = channels(np.clip(grey, *limits), valid, thin, marks, prior, guessed, runner.inputs)
        return _Sight(seen, marks, local, region, guess)

    def _look_again(self, sight: _Sight, logits: np.ndarray):
        """Show the network its own answer until it stays: in long structures each pass follows them farther."""
        answer = (logits > 0) & sight.inside
        for number in range(1, PASSES):
            yield Step("prior", 0.5 + 0.09 * number)
            show_prior(sight.seen, answer.astype(np.float32))
            logits = yield from sight.answer(self.runner, 0.5 + 0.09 * number)
            before, answer = answer, (logits > 0) & sight.inside
            if 2 * (before & answer).sum() >= STEADY * (before.sum() + answer.sum()):
                break
        return logits

    def _zoom(self, volume: Volume, prompts: Prompts) -> Look:
        """Corrections by a pass over a smaller box around the click."""
        low, high = prompts.box_ijk(volume.geometry)
        half = ZOOM * (high - low) / 2

        def look(voxels, inside, mask):
            first, last = voxels.min(axis=0)[::-1], voxels.max(axis=0)[::-1]
            centre, sides = (first + last) / 2, np.maximum(half, (last - first) / 2)  # all of a long stroke
            now = replace(prompts, prior=mask)
            sight = yield from self._sight(volume, now, centre - sides, centre + sides, self.corrector)
            show_click(sight.seen, sight.cube.to_cells(voxels - sight.region.start), inside)
            logits = yield from sight.answer(self.corrector, 0.4)
            yield Step("paste", 0.8)
            found = sight.mask(logits)
            answer = MaskPatch(found.region, found.mask == inside)  # what was not looked at stays

            def propose(where, _right, _movable, _nearness):
                return answer.within(where)

            return propose

        return look


def _is_correction(prompts: Prompts) -> bool:
    return prompts.prior is not None and prompts.has_clicks


def _without_stray(logits: np.ndarray, sight: _Sight) -> np.ndarray:
    """The logits with small pieces, which no click marks, turned to outside."""
    parts, count = ndimage.label((logits > 0) & sight.inside)
    if count < 2:
        return logits
    sizes = np.bincount(parts.ravel())
    keep = sizes >= SMALL * sizes[1:].max()
    clicked = np.rint(sight.marks.positive).astype(int)
    clicked = clicked[((clicked >= 0) & (clicked < logits.shape)).all(axis=1)]
    keep[parts[tuple(clicked.T)]] = True
    keep[0] = True
    return np.where(keep[parts], logits, -np.abs(logits))
