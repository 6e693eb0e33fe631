"""Publish a version of a model only if it is better than what it replaces, by labels that taught neither."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from aiassist.errors import ModelError, StoreError
from aiassist.groundtruth import GroundTruthStore
from aiassist.groundtruth.names import key_of
from aiassist.learning.judge import Scores, judge
from aiassist.learning.networks import check_own_name, rival_of
from aiassist.learning.samples import Sample, find_samples
from aiassist.learning.splits import LEARNED_FROM, Splits
from aiassist.segmenters.base import ModelCard, Segmenter
from aiassist.segmenters.model_store import ModelStore, read_plan
from aiassist.segmenters.registry import load_network_folder


def publish_if_better(
    store: GroundTruthStore,
    models: ModelStore,
    name: str,
    version: int,
    by: str,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Scores, Scores]:
    """Judge a version and the one that is published by today's labels, and publish it if it is better.

    Where none is published, it has to be better than the network that ships, and an automatic one than none. What it
    gains by new structures does not make up for a loss at those that an automatic one finds already.

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
    Scores, Scores
        On the version, and on what it replaces.

    Raises
    ------
    ModelError
        When it is published already, or is not better; nothing is changed.
    StoreError
        When there are no labels to judge by.
    """
    with models.held(name, "publishing"):
        return _publish(store, models, name, version, by, progress)


def _publish(store, models, name, version, by, progress) -> tuple[Scores, Scores]:
    folder = models.folder_of(name, version)
    candidate = load_network_folder(folder)
    check_own_name(models, name, candidate.card.kind)
    if models.published(name) == version:
        raise ModelError(f"Version {version} of {name!r} is published already.")
    place = rival_of(models, name, candidate.card.kind)
    rival = None if place is None else load_network_folder(place)
    _check_nothing_lost(candidate.card, rival)
    samples = _judging(store, models, folder, place)
    judged = iter(range(1, len(samples) + 1))
    now, before = judge(store, samples, [candidate, rival], lambda: progress(next(judged), len(samples)))
    if not now.is_better(before):
        other = "no model" if rival is None else f"{rival.card.name!r} version {rival.card.version}"
        raise ModelError(
            f"Version {version} of {name!r} is {_verdict(now, before)} {other} (mean Dice {now.score:.3f} against "
            f"{before.score:.3f} by {len(samples)} labels{_doubt(now, before)}), so it is not published."
        )
    models.publish(name, version, by)
    return now, before


def _verdict(now: Scores, before: Scores) -> str:
    fallen = now.fallen(before) if now.score > before.score else []
    return f"worse at {', '.join(fallen)} than" if fallen else "not clearly better than"


def _doubt(now: Scores, before: Scores) -> str:
    doubt = now.doubt(before) if now.score > before.score and not now.fallen(before) else 0
    return f", which leave {doubt:.3f} in doubt" if doubt > 0 else ""


def _check_nothing_lost(card: ModelCard, rival: Segmenter | None) -> None:
    """Refuse an automatic model that does not know a structure which the one that it would replace finds."""
    known = {key_of(label.name) for label in card.labels}
    lost = [label.name for label in rival.card.labels if key_of(label.name) not in known] if rival is not None else []
    if lost:
        raise ModelError(
            f"Version {card.version} of {card.name!r} does not know {', '.join(lost)}, which version "
            f"{rival.card.version} finds; train it with them, or give it another name."
        )


def _judging(store: GroundTruthStore, models: ModelStore, folder: Path, rival: Path | None) -> list[Sample]:
    """Today's labels of a version's structures, of patients that taught neither it nor its rival.

    Whoever owns a study that taught one of them is left out with all of their studies, as patients are told today.
    """
    plan = _learned_from(folder)
    if plan is None:
        raise ModelError(f"{folder} does not say what it learned from, so it cannot be judged; train it anew.")
    plans = [plan, (rival and _learned_from(rival)) or {"teaching": []}]
    config, taught = plan["config"], {sample["study"] for plan in plans for sample in plan["teaching"]}
    samples = find_samples(store, config["structures"], config["drafts"], absent=config["kind"] == "automatic")
    judges = Splits(models.folder).judging(store, dict.fromkeys(sample.study for sample in samples), taught)
    found = [sample for sample in samples if sample.study in judges]
    if not found:
        raise StoreError(f"All labels in {store.folder} taught one of the versions, so none can judge; label more.")
    return found


def _learned_from(folder: Path) -> dict | None:
    path = folder / LEARNED_FROM
    return read_plan(path) if path.exists() else None
