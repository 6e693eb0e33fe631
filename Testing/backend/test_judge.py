"""What counts when models are judged."""

from __future__ import annotations

import numpy as np
import pytest

from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import Geometry, MaskPatch, Region, Volume, describe_structure
from aiassist.learning.judge import ALONE, MOVED, POINTS, Scores, judge
from aiassist.learning.samples import find_samples
from aiassist.segmenters.base import ModelCard, Step

SHAPE = (12, 24, 24)


class Boxes:
    """A model that finds the one structure that it knows: a box."""

    def __init__(self, structure: str, stop: int):
        self.card = ModelCard("boxes", "1", "automatic", "For tests.", labels=(describe_structure(structure),))
        self.region = Region((2, 2, 2), (8, 8, stop))

    def segment(self, volume):
        yield Step("pass", 0.0)
        value = self.card.labels[0].value
        return MaskPatch(self.region, np.full(self.region.shape, value, np.uint8), "labels")


class Nothing:
    """A model that finds nothing where it is asked, but a cube at the right end of the image."""

    card = ModelCard("nothing", "1", "promptable", "For tests.")

    def annotate(self, volume, prompts):
        yield Step("pass", 0.0)
        is_right = prompts.extreme_points[:, 0].min() > 12
        mask = np.zeros(SHAPE, bool)
        mask[2:6, 2:6, 18:22] = is_right
        return MaskPatch.of_mask(mask)


def _volume(seed: int) -> Volume:
    grey = np.random.default_rng(seed).normal(0, 10, SHAPE).astype(np.int16)
    return Volume(grey, Geometry.from_spacing(SHAPE, (1.0, 1.0, 1.0)))


def _add(store, study: str, structure: str, mask: np.ndarray) -> None:
    store.add(study, structure, MaskPatch.of_mask(mask), author="Ada", state=State.APPROVED)


def test_structures_that_no_model_knows_do_not_water_down_what_one_is_better_by(tmp_path):
    box = np.zeros(SHAPE, bool)
    box[2:8, 2:8, 2:8] = True
    with GroundTruthStore(tmp_path) as store:
        study = store.add_study(_volume(0), "scan").id
        for structure in ("cyst", *(f"unknown {n}" for n in range(20))):
            _add(store, study, structure, box)
        told = []
        pair = [Boxes("cyst", 8), Boxes("cyst", 7)]
        now, before = judge(store, find_samples(store), pair, lambda: told.append(1))
        only_unknown = [sample for sample in find_samples(store) if sample.structure != "cyst"]
        nobody, _ = judge(store, only_unknown, pair)
    assert now.dice == {ALONE: {"cyst": [1.0]}}
    assert before.score == pytest.approx(2 * 180 / (180 + 216))
    assert len(told) == 21
    assert nobody.score == 0.0 and len(nobody.dice[ALONE]) == 20


def test_a_label_counts_once_however_many_pieces_it_has(tmp_path):
    many, one = np.zeros(SHAPE, bool), np.zeros(SHAPE, bool)
    many[2:6, 2:6, 2:6] = many[2:6, 12:16, 2:6] = many[7:11, 2:6, 2:6] = many[2:6, 2:6, 18:22] = True
    one[2:6, 2:6, 18:22] = True
    with GroundTruthStore(tmp_path) as store:
        for seed, mask in enumerate((many, one)):
            _add(store, store.add_study(_volume(seed), f"scan {seed}").id, "lesion", mask)
        (scores,) = judge(store, find_samples(store), [Nothing()])
    assert sorted(scores.dice[POINTS]["lesion"]) == [0.25, 1.0]
    assert scores.mean(POINTS) == 0.625  # of five pieces it found two


def test_what_few_labels_leave_in_doubt_is_no_gain():
    before = Scores({POINTS: {"spleen": [0.9, 0.8, 0.7, 0.6], "cyst": [0.5]}})
    steady = Scores({POINTS: {"spleen": [0.91, 0.82, 0.71, 0.62], "cyst": [0.515]}})
    lucky = Scores({POINTS: {"spleen": [0.99, 0.7, 0.8, 0.57], "cyst": [0.515]}})
    assert lucky.score == steady.score == pytest.approx(before.score + 0.015)
    assert steady.is_better(before) and not lucky.is_better(before)
    gains = np.array([0.01, 0.02, 0.01, 0.02])
    spread = gains.std(ddof=1)
    assert steady.doubt(before) == pytest.approx(np.hypot(spread / 2, spread) / 2)
    assert Scores({POINTS: {"cyst": [0.9]}}).doubt(Scores({POINTS: {"cyst": [0.5]}})) == 0


def test_the_courses_of_a_label_are_no_labels_of_their_own():
    before = Scores({POINTS: {"cyst": [0.5, 0.6]}, MOVED: {"cyst": [0.5, 0.6]}})
    now = Scores({POINTS: {"cyst": [0.6, 0.6]}, MOVED: {"cyst": [0.4, 0.6]}})
    assert now.doubt(before) == pytest.approx(0)  # what one course gains of the label the other loses
