"""The promptable network, for any structure in any modality: a first look takes two passes or more, a click one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from aiassist.imaging import MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.correction import Look, correct, part, without_older_clicks
from aiassist.segmenters.cube import together
from aiassist.segmenters.network_input import show_click, show_prior
from aiassist.segmenters.second_thoughts import better_points, unreached
from aiassist.segmenters.sight import Runner, Sight, see, see_closer
from aiassist.segmenters.strokes import force_clicks, region_with_clicks

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
        """The same network, its weights in memory once, under another name, which looks once more on finer cells."""
        what = f"As {self.card.name}, with one more pass on finer cells: better on fine structures, in twice the time."
        card = replace(self.card, name=name, description=what, metrics={}, quick=self.card.name)
        return PromptableNetwork(lambda: self.runner, card, lambda: self.corrector, is_fine=True)

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
        prompts = without_older_clicks(prompts.without_empty_prior())
        if _is_correction(prompts):
            return (yield from self._correction(volume, prompts))
        found = yield from self._first_look(volume, prompts)
        region = region_with_clicks(found.region, prompts)
        mask = found.mask if region == found.region else found.within(region)
        force_clicks(mask, region, prompts)
        return MaskPatch(region, mask)

    def _first_look(self, volume: Volume, prompts: Prompts):
        """The mask of the prompts' box. Points that seem missed a little are moved, those out of reach clicked."""
        sight = yield from see(volume, prompts, *prompts.box_ijk(volume.geometry), self.runner)
        logits = yield from sight.answer(self.runner, 0.3)
        points = better_points(prompts.extreme_points, sight.extent(sight.without_stray(logits)))
        if points is not None:
            prompts = replace(prompts, extreme_points=points)
            sight = yield from see(volume, prompts, *prompts.box_ijk(volume.geometry), self.runner, start=0.35)
            logits = yield from sight.answer(self.runner, 0.5)
        logits = sight.without_stray((yield from self._look_again(sight, logits)))
        yield Step("paste", 0.78)
        found = sight.mask(logits)
        if self._is_fine and found.mask.any() and self.runner.takes_any and self.runner.cells % 3 == 0:
            found = yield from self._closer_look(volume, sight, logits, found)
        missed = unreached(sight.marks.extreme, (logits > 0) & sight.inside, sight.cube.cell)
        if missed.any() and found.mask.any():  # as if the person had clicked there
            outline = prompts.extreme_points
            clicked = Prompts(extreme_points=outline, box=prompts.box, positive=outline[missed], prior=found)
            found = (yield from part(self._correction(volume, clicked), 0.85, 0.15)).over(found)
        return found

    def _closer_look(self, volume: Volume, sight: Sight, logits: np.ndarray, found: MaskPatch):
        """The mask where the mean of an answer, and of another that sees it on finer cells, is above zero.

        The finer cells show fine structures better, the coarse ones more of what surrounds long and thin ones.
        """
        yield Step("crop", 0.79)
        closer = see_closer(volume, sight, found, round(FINER * self.runner.cells))
        again = closer.without_stray((yield from closer.answer(self.runner, 0.8)))
        yield Step("paste", 0.84)
        fields = [(one.cube, np.clip(field, -SURE, SURE)) for one, field in ((sight, logits), (closer, again))]
        return MaskPatch(sight.region, together(fields))

    def _correction(self, volume: Volume, prompts: Prompts):
        """What the clicks change of the prior mask."""
        low, high = prompts.box_ijk(volume.geometry)
        reach = REACH * float(np.cbrt(np.prod((high - low) * volume.geometry.spacing)))
        return (yield from correct(volume, prompts, self._zoom(volume, prompts), reach, apart=True))

    def _look_again(self, sight: Sight, logits: np.ndarray):
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
            sight = yield from see(volume, now, centre - sides, centre + sides, self.corrector, guesses=False)
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
