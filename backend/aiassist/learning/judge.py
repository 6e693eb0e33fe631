"""How good a model is on labels that it never learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from aiassist.evaluation.annotator import jitter, oracle_click
from aiassist.evaluation.metrics import dice
from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import MaskPatch, Region, Volume
from aiassist.learning.lessons import Lesson, targets
from aiassist.prompts import Prompts, extreme_points
from aiassist.segmenters.base import Promptable, run

#: Corrective clicks after the points.
CLICKS = 3
#: A model is better when its verdict is higher by more than this.
CLEARLY = 0.002


@dataclass
class Verdict:
    """Dice of one model by structure; each list over the labels that judge.

    ``points`` from six points as exact as can be, ``moved`` from points that a hand misses a little (see
    `aiassist.evaluation.annotator.jitter`), ``clicks`` after `CLICKS` corrective clicks from the exact ones.
    """

    points: dict[str, list[float]] = field(default_factory=dict)
    moved: dict[str, list[float]] = field(default_factory=dict)
    clicks: dict[str, list[float]] = field(default_factory=dict)

    def mean(self, course: str) -> float:
        """The mean of a course over structures, each the mean over its labels."""
        return float(np.mean([np.mean(found) for found in getattr(self, course).values()]))

    @property
    def score(self) -> float:
        """What decides: the mean of all three courses."""
        return float(np.mean([self.mean(course) for course in COURSES]))

    def is_better(self, other: Verdict) -> bool:
        """Whether it is clearly better than another verdict by the same labels."""
        return self.score > other.score + CLEARLY

    def metrics(self) -> dict[str, float]:
        """The numbers for a model card."""
        return {f"dice, {words}": round(self.mean(course), 4) for course, words in COURSES.items()}


#: The courses of a verdict, in words.
COURSES = {"points": "six points", "moved": "points moved", "clicks": f"after {CLICKS} clicks"}


def judge(
    store: GroundTruthStore,
    lessons: Iterable[Lesson],
    models: Sequence[Promptable],
    progress: Callable[[], None] = lambda: None,
) -> list[Verdict]:
    """The verdict on each of some models, by the same labels and the same prompts.

    Parameters
    ----------
    store : GroundTruthStore
    lessons : iterable of Lesson
        Labels that judge.
    models : sequence of Promptable
    progress : callable
        Called after each label.
    """
    verdicts = [Verdict() for _ in models]
    for volume, lesson, label in load(store, lessons):
        for mask in targets(label):
            for model, verdict in zip(models, verdicts, strict=True):
                for course, found in _course(volume, mask, model, int(lesson.mask[:8], 16)).items():
                    getattr(verdict, course).setdefault(lesson.structure, []).append(found)
        progress()
    return verdicts


def load(store: GroundTruthStore, lessons: Iterable[Lesson]) -> Iterator[tuple[Volume, Lesson, np.ndarray]]:
    """The image and the bool mask ``(k, j, i)`` of each lesson, study by study."""
    volume, held = None, None
    for lesson in sorted(lessons, key=lambda lesson: lesson.study):
        if lesson.study != held:
            volume, held = store.image(lesson.study), lesson.study
        version = store.version(lesson.study, lesson.structure, lesson.number)
        yield volume, lesson, store.mask(version).to_mask(volume.shape)


def _course(volume: Volume, mask: np.ndarray, model: Promptable, seed: int) -> dict[str, float]:
    rng = np.random.default_rng(seed)
    points = extreme_points(mask, rng)
    moved = run(model.annotate(volume, Prompts(extreme_points=jitter(points, volume.geometry, rng))))
    prompts = Prompts(extreme_points=points)
    found = run(model.annotate(volume, prompts))
    dices = {"points": _dice(mask, found), "moved": _dice(mask, moved)}
    for _ in range(CLICKS):
        click = oracle_click(mask, found.to_mask(mask.shape), volume.geometry.spacing_kji)
        if click is None:
            break
        side = "positive" if click.positive else "negative"
        prompts = replace(prompts, prior=found, **{side: [*getattr(prompts, side), click.point]})
        found = run(model.annotate(volume, prompts)).over(found)
    return {**dices, "clicks": _dice(mask, found)}


def _dice(truth: np.ndarray, found: MaskPatch) -> float:
    region = Region.of_mask(truth).union(found.region)
    return dice(truth[region.slices], found.within(region))
