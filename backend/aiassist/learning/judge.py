"""How good a model is on labels that it never learned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace

import numpy as np

from aiassist.errors import StoreError
from aiassist.evaluation.annotator import jitter, oracle_click
from aiassist.evaluation.metrics import dice
from aiassist.groundtruth import GroundTruthStore
from aiassist.groundtruth.names import key_of
from aiassist.imaging import MaskPatch, Region, Volume
from aiassist.learning.samples import Sample, targets
from aiassist.prompts import Prompts, extreme_points
from aiassist.segmenters.base import Automatic, Promptable, Segmenter, run

#: Corrective clicks after the points.
CLICKS = 3
#: Courses that a model is judged by: six points as exact as can be, six that a hand misses a little (see
#: `aiassist.evaluation.annotator.jitter`), clicks after the exact ones; and for an automatic model, nothing at all.
POINTS, MOVED, AFTER, ALONE = "six points", "points moved", f"after {CLICKS} clicks", "on its own"
#: A model is better when its score is higher by more than this, and by more than the labels leave in doubt.
CLEARLY = 0.002
#: A structure that falls by more than this keeps a version back, whatever the others gain.
FAR = 0.05
_TOO_SMALL = "The labels that judge hold no structure of 30 voxels or more; label some larger ones."


@dataclass
class Scores:
    """Dice of one model by course and structure, each a list over the labels that judge.

    ``known`` are the keys of the structures that it can find; None for any.
    """

    dice: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    known: frozenset[str] | None = field(default=None, compare=False)

    def note(self, course: str, structure: str, found: float) -> None:
        """Add what was measured on a label."""
        self.dice.setdefault(course, {}).setdefault(structure, []).append(found)

    def mean(self, course: str) -> float:
        """The mean of a course over structures, each the mean over its labels; 0 where nothing was measured."""
        return float(np.mean([np.mean(found) for found in self.dice.get(course, {"": [0.0]}).values()]))

    def means(self) -> dict[str, float]:
        """The mean of each course."""
        return {course: self.mean(course) for course in self.dice}

    @property
    def score(self) -> float:
        """What decides: the mean of all courses."""
        return float(np.mean([self.mean(course) for course in self.dice] or [0.0]))

    def is_better(self, other: Scores) -> bool:
        """Whether these are clearly better than others by the same labels, and not at the cost of what those find."""
        return self.score > other.score + max(CLEARLY, self.doubt(other)) and not self.fallen(other)

    def doubt(self, other: Scores) -> float:
        """The standard error of the difference to others by the same labels; 0 where one label a structure judges."""
        gains: dict[str, list[np.ndarray]] = {}
        for course, found in self.dice.items():
            for structure, ours in found.items():
                theirs = other.dice.get(course, {}).get(structure, [0.0] * len(ours))
                gains.setdefault(structure, []).append(np.subtract(ours, theirs))
        by_label = [np.mean(courses, axis=0) for courses in gains.values()]
        free = sum(len(gain) - 1 for gain in by_label)
        if free == 0:
            return 0.0
        variance = sum(np.square(gain - gain.mean()).sum() for gain in by_label) / free
        return float(np.sqrt(sum(variance / len(gain) for gain in by_label)) / len(by_label))

    def fallen(self, other: Scores) -> list[str]:
        """What became far worse than by the other model, in words; clearly worse, if the mean of what it finds did."""
        known = set().union(*other.dice.values()) if other.known is None else other.known
        bearable = CLEARLY if self._falls(other, known, CLEARLY) else FAR
        worse = sorted(structure for structure in known if self._falls(other, {structure}, bearable))
        return [f"{one} ({self._only({one}).score:.3f} against {other._only({one}).score:.3f})" for one in worse]

    def _falls(self, other: Scores, structures: Set[str], bearable: float) -> bool:
        return self._only(structures).score < other._only(structures).score - bearable

    def _only(self, structures: Set[str]) -> Scores:
        parts = {course: {s: d for s, d in found.items() if s in structures} for course, found in self.dice.items()}
        return Scores({course: part for course, part in parts.items() if part})

    def metrics(self) -> dict[str, float]:
        """The numbers for a model card."""
        return {f"dice, {course}": round(mean, 4) for course, mean in self.means().items()}


def judge(
    store: GroundTruthStore,
    samples: Iterable[Sample],
    models: Sequence[Segmenter | None],
    progress: Callable[[], None] = lambda: None,
) -> list[Scores]:
    """The scores of each of some models, by the same labels and the same prompts.

    A label counts once, however many pieces it has. What none of the models knows judges nothing, unless nothing else
    is there.

    Parameters
    ----------
    store : GroundTruthStore
    samples : iterable of Sample
        Labels that judge.
    models : sequence of Promptable or Automatic
        None stands for having no automatic model: nothing is found.
    progress : callable
        Called after each label.

    Raises
    ------
    StoreError
        When the labels hold nothing that a model can be judged by.
    """
    all_scores = [Scores(known=_known(model)) for model in models]
    exams = [_exam(model) for model in models]
    some_know = _known_to(all_scores, samples := list(samples)) or samples
    for _ in range(len(samples) - len(some_know)):
        progress()
    for volume, sample, label in load(store, some_know):
        for exam, scores in zip(exams, all_scores, strict=True):
            for course, found in _by_course(exam(volume, sample, label)).items():
                scores.note(course, sample.structure, float(np.mean(found)))
        progress()
    if not all(scores.dice for scores in all_scores):
        raise StoreError(_TOO_SMALL)
    return all_scores


def _known_to(models: Sequence[Scores], samples: Iterable[Sample]) -> list[Sample]:
    """The labels of structures that one of the models can find."""
    return [x for x in samples if any(one.known is None or x.structure in one.known for one in models)]


def _by_course(measured: Iterable[tuple[str, float]]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for course, dice_of_piece in measured:
        found.setdefault(course, []).append(dice_of_piece)
    return found


def check_can_judge(store: GroundTruthStore, samples: Iterable[Sample]) -> None:
    """Raise `StoreError` unless one of the labels can judge a model that needs prompts."""
    if not any(True for _volume, _sample, label in load(store, samples) for _target in targets(label)):
        raise StoreError(_TOO_SMALL)


def load(store: GroundTruthStore, samples: Iterable[Sample]) -> Iterator[tuple[Volume, Sample, np.ndarray]]:
    """The image and the bool mask ``(k, j, i)`` of each sample, study by study."""
    volume, held = None, None
    for sample in sorted(samples, key=lambda sample: sample.study):
        if sample.study != held:
            volume, held = store.image(sample.study), sample.study
        version = store.version(sample.study, sample.structure, sample.number)
        yield volume, sample, store.mask(version).to_mask(volume.shape)


def _known(model: Segmenter | None) -> frozenset[str] | None:
    if model is None:
        return frozenset()
    return frozenset(key_of(label.name) for label in model.card.labels) if model.card.kind == "automatic" else None


#: Given an image, a sample and its label, the courses that it is judged by and the Dice of each.
_Exam = Callable[[Volume, Sample, np.ndarray], Iterator[tuple[str, float]]]


def _exam(model: Segmenter | None) -> _Exam:
    if model is None:
        return lambda _volume, _lesson, label: iter([(ALONE, _dice(label, MaskPatch.empty()))])
    return _on_its_own(model) if model.card.kind == "automatic" else _from_prompts(model)


def _on_its_own(model: Automatic) -> _Exam:
    values = {key_of(label.name): label.value for label in model.card.labels}
    held = {}  # what it found in the study that was looked at last

    def exam(volume: Volume, sample: Sample, label: np.ndarray) -> Iterator[tuple[str, float]]:
        if sample.study not in held:
            held.clear()
            held[sample.study] = run(model.segment(volume)).to_labelmap(volume.shape)
        yield ALONE, _dice(label, MaskPatch.of_mask(held[sample.study] == values.get(sample.structure, -1)))

    return exam


def _from_prompts(model: Promptable) -> _Exam:
    def exam(volume: Volume, sample: Sample, label: np.ndarray) -> Iterator[tuple[str, float]]:
        for mask in targets(label):
            yield from _courses(volume, mask, model, int(sample.mask[:8], 16))

    return exam


def _courses(volume: Volume, mask: np.ndarray, model: Promptable, seed: int) -> Iterator[tuple[str, float]]:
    rng = np.random.default_rng(seed)
    points = extreme_points(mask, rng)
    prompts, moved = (Prompts(extreme_points=p) for p in (points, jitter(points, volume.geometry, rng)))
    found = run(model.annotate(volume, prompts))
    yield POINTS, _dice(mask, found)
    yield MOVED, _dice(mask, run(model.annotate(volume, moved)))
    for _ in range(CLICKS):
        region = Region.of_mask(mask).union(found.region)
        click = oracle_click(mask[region.slices], found.within(region), volume.geometry.spacing_kji)
        if click is None:
            break
        side, point = "positive" if click.positive else "negative", click.point + region.start[::-1]
        prompts = replace(prompts, prior=found, **{side: [*getattr(prompts, side), point]})
        found = run(model.annotate(volume, prompts)).over(found)
    yield AFTER, _dice(mask, found)


def _dice(truth: np.ndarray, found: MaskPatch) -> float:
    """Dice over the voxels of both; 1 where both are empty."""
    region = Region.of_mask(truth).union(found.region)
    return dice(truth[region.slices], found.within(region))
