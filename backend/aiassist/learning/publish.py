"""Publish a version of a model only if it is better than what it replaces, by labels that taught neither."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from aiassist.errors import ModelError, StoreError
from aiassist.groundtruth import GroundTruthStore
from aiassist.learning.judge import Verdict, judge
from aiassist.learning.lessons import Lesson, find_lessons
from aiassist.learning.networks import check_own_name, rival_of
from aiassist.learning.splits import Splits
from aiassist.resources import resource
from aiassist.segmenters.model_store import ModelStore
from aiassist.segmenters.registry import DEFAULT, load_network_folder

#: Beside a version's weights: what was asked of its training, and by which labels it was taught and judged.
LEARNED_FROM = "learned-from.json"


def publish_if_better(
    store: GroundTruthStore,
    models: ModelStore,
    name: str,
    version: int,
    by: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Verdict, Verdict]:
    """Judge a version and the one that is published by today's labels, and publish it if it is better.

    Where none is published, it has to be better than the network that ships.

    Parameters
    ----------
    store : GroundTruthStore
    models : ModelStore
    name : str
    version : int
    by : str
        Who answers for it.
    progress : callable
        Called with how many labels judged, and of how many.

    Returns
    -------
    Verdict, Verdict
        On the version, and on what it replaces.

    Raises
    ------
    ModelError
        When it is published already, or is not better; nothing is changed.
    StoreError
        When there are no labels to judge by.
    """
    if models.published(check_own_name(name)) == version:
        raise ModelError(f"Version {version} of {name!r} is published already.")
    candidate = models.folder_of(name, version)
    rival = rival_of(models, name, resource("Models", DEFAULT))
    lessons = _judging(store, models, candidate, rival)
    judged = iter(range(1, len(lessons) + 1))
    pair = [load_network_folder(folder) for folder in (candidate, rival)]
    now, before = judge(store, lessons, pair, lambda: progress(next(judged), len(lessons)))
    if not now.is_better(before):
        other = pair[1].card
        raise ModelError(
            f"Version {version} of {name!r} is not better than {other.name!r} version {other.version} (mean Dice "
            f"{now.score:.3f} against {before.score:.3f} by {len(lessons)} labels), so it is not published."
        )
    models.publish(name, version, by)
    return now, before


def _judging(store: GroundTruthStore, models: ModelStore, *folders: Path) -> list[Lesson]:
    """Today's labels of the first version's structures, of patients that taught none of the versions."""
    plans = [json.loads(path.read_text(encoding="utf8")) for f in folders if (path := f / LEARNED_FROM).exists()]
    if not plans:
        raise ModelError(f"{folders[0]} does not say what it learned from, so it cannot be judged; train it anew.")
    wish, taught = plans[0]["wish"], {lesson["study"] for plan in plans for lesson in plan["teaching"]}
    lessons = find_lessons(store, wish["structures"], wish["drafts"])
    judges = Splits(models.folder).judging(store, dict.fromkeys(lesson.study for lesson in lessons))
    found = [lesson for lesson in lessons if lesson.study in judges - taught]
    if not found:
        raise StoreError(f"No label in {store.folder} taught neither version, so nothing can judge them; label more.")
    return found
