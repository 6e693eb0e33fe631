"""Measure one model on one structure, through the product's own path."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field, replace

import numpy as np

from aiassist.engine import AnnotateRequest, LocalBackend
from aiassist.evaluation.annotator import (
    BESIDE,
    Click,
    jitter,
    oracle_click,
    sloppy_click,
    starting_prompts,
)
from aiassist.evaluation.cases import Structure
from aiassist.evaluation.metrics import dice, normalised_surface_distance
from aiassist.imaging import Geometry, MaskPatch, Region
from aiassist.prompts import Prompts, extreme_points

BASELINE = "ellipsoid"
#: Dice and NSD are reported after these numbers of clicks.
MILESTONES = (0, 1, 3, 5, 10)
#: A change this far from the click, in mm, counts as distant.
FAR = 30.0
#: A click hurts when it lowers Dice by more than this.
HURT = 0.02


@dataclass(frozen=True)
class Plan:
    """What to measure: models, clicks, draws of the points, jitter, seed, and other ways to begin.

    ``trained`` is the folder of trained models, whose published ones may be named, too.
    """

    models: tuple[str, ...]
    clicks: int = 5
    draws: int = 3
    jitter: bool = False
    seed: int = 0
    other_starts: bool = True
    trained: str | None = None


@dataclass
class Trail:
    """One course of prompts and clicks: Dice and NSD after each, and what each click did."""

    dice: list[float] = field(default_factory=list)
    nsd: list[float | None] = field(default_factory=list)
    removed: list[float] = field(default_factory=list)
    far_voxels: list[int] = field(default_factory=list)


@dataclass
class Result:
    """What one model did on one structure, `value` in the label of its case; lists are over draws."""

    case: str
    name: str
    component: int
    stratum: str
    split: str
    truth: str
    voxels: int
    model: str
    oracle: list[Trail] = field(default_factory=list)
    sloppy: list[Trail] = field(default_factory=list)
    baseline: list[float] = field(default_factory=list)
    starts: dict[str, list[float]] = field(default_factory=dict)
    milliseconds: list[float] = field(default_factory=list)
    pass_milliseconds: list[float] = field(default_factory=list)
    value: int = 0

    @property
    def title(self) -> str:
        """Case, name and component."""
        return f"{self.case}: {self.name}" + (f" #{self.component}" if self.component else "")

    def mean_dice(self, clicks: int = 0, course: str = "oracle") -> float:
        """Mean Dice over the draws after a number of clicks."""
        return float(np.mean([trail.dice[min(clicks, len(trail.dice) - 1)] for trail in getattr(self, course)]))


class Bench:
    """One structure under measurement by one model."""

    def __init__(self, backend: LocalBackend, structure: Structure, model: str, plan: Plan):
        self.backend = backend
        self.structure = structure
        self.plan = plan
        self.volume, self.truth = structure.load()
        self.study = backend.open_study(self.volume)
        self.truth_region = Region.of_mask(self.truth)
        self.result = Result(
            structure.case,
            structure.name,
            structure.component,
            structure.stratum,
            structure.split,
            structure.truth,
            int(self.truth.sum()),
            model,
            value=structure.value,
        )

    def run(self) -> Result:
        """All draws, both kinds of clicks, and the other ways to begin."""
        try:
            for draw in range(self.plan.draws):
                rng = np.random.default_rng([self.plan.seed, draw, self.structure.value])
                self._draw(rng)
            return self.result
        finally:
            self.backend.close_study(self.study)

    def _draw(self, rng: np.random.Generator) -> None:
        (of_starts,) = rng.spawn(1)  # models make for more or fewer sloppy clicks, and are to begin alike
        points = extreme_points(self.truth, rng)
        if self.plan.jitter:
            points = jitter(points, self.volume.geometry, rng)
        prompts = Prompts(extreme_points=points)
        first = self._ask(self.result.model, prompts)
        self.result.baseline.append(self._dice(self._ask(BASELINE, prompts, timed=False)))
        self.result.oracle.append(self._course(prompts, first, oracle=True, rng=rng))
        if not self.plan.other_starts:
            return
        self.result.sloppy.append(self._course(prompts, first, oracle=False, rng=rng))
        for name, start in starting_prompts(self.truth, self.volume.geometry, of_starts).items():
            self.result.starts.setdefault(name, []).append(self._dice(self._ask(self.result.model, start)))

    def _course(self, prompts: Prompts, mask: MaskPatch, oracle: bool, rng: np.random.Generator) -> Trail:
        trail = Trail()
        self._note(trail, mask, 0)
        for number in range(1, self.plan.clicks + 1):
            click = self._next_click(mask, oracle, rng)
            if click is not None:
                side = "positive" if click.positive else "negative"
                prompts = replace(prompts, **{side: [*getattr(prompts, side), click.point]})
                before, mask = mask, self._ask(self.result.model, prompts, base=mask)
                self._note_click(trail, before, mask, click)
            self._note(trail, mask, number)
        return trail

    def _next_click(self, mask: MaskPatch, oracle: bool, rng: np.random.Generator) -> Click | None:
        region = self.truth_region.union(mask.region).grow(BESIDE, (1, 1, 1)).clip(self.truth.shape)
        truth, found = self.truth[region.slices], mask.within(region)
        if oracle:
            click = oracle_click(truth, found, self.volume.geometry.spacing_kji)
        else:
            click = sloppy_click(truth, found, rng)
        return replace(click, point=click.point + region.start[::-1]) if click is not None else None

    def _ask(self, model: str, prompts: Prompts, base: MaskPatch | None = None, timed: bool = True) -> MaskPatch:
        """The whole structure after one request, over the same path as a remote client's."""
        version = self.backend.put_mask(self.study, base) if base is not None else None
        body = json.dumps(prompts.to_json())
        began = time.perf_counter()
        sent = Prompts.from_json(json.loads(body))
        answer = self.backend.annotate(AnnotateRequest(self.study, sent, base=version, model=model))
        patch = MaskPatch.from_bytes(answer.patch.to_bytes())
        seconds = time.perf_counter() - began
        if timed:
            self.result.milliseconds.append(1000 * seconds)
            self.result.pass_milliseconds.append(1000 * answer.seconds.get("pass", 0.0))
        return patch.over(prompts.prior if base is None else base)

    def _dice(self, mask: MaskPatch) -> float:
        region = self.truth_region.union(mask.region)
        return dice(self.truth[region.slices], mask.within(region))

    def _note(self, trail: Trail, mask: MaskPatch, clicks: int) -> None:
        trail.dice.append(self._dice(mask))
        trail.nsd.append(self._nsd(mask) if clicks in MILESTONES else None)

    def _nsd(self, mask: MaskPatch) -> float:
        geometry = self.volume.geometry
        region = self.truth_region.union(mask.region).grow(1, (1, 1, 1)).clip(geometry.shape)
        return normalised_surface_distance(
            self.truth[region.slices], mask.within(region), geometry.spacing_kji, self.structure.nsd_mm
        )

    def _note_click(self, trail: Trail, before: MaskPatch, after: MaskPatch, click: Click) -> None:
        region = self.truth_region.union(before.region).union(after.region)
        truth, old, new = self.truth[region.slices], before.within(region), after.within(region)
        wrong = int((truth != old).sum())
        trail.removed.append((wrong - int((truth != new).sum())) / wrong)
        trail.far_voxels.append(_far(old != new, region, click.point, self.volume.geometry))


def _far(changed: np.ndarray, region: Region, point: np.ndarray, geometry: Geometry) -> int:
    """How many changed voxels lie farther than `FAR` mm from a point."""
    voxels = np.argwhere(changed) + region.start
    if not len(voxels):
        return 0
    distances = np.linalg.norm(geometry.to_lps(voxels[:, ::-1]) - geometry.to_lps(point), axis=1)
    return int((distances > FAR).sum())


def measure(structure: Structure, plan: Plan, backend: LocalBackend) -> list[Result]:
    """Measure all models of a plan on one structure."""
    return [Bench(backend, structure, model, plan).run() for model in plan.models]
