"""Trainings that are broken off, and studies that are removed meanwhile: nobody's voxels are forgotten anywhere."""

from __future__ import annotations

import json

import numpy as np
import pytest
from learning_helpers import add_tiny_version, store_of_ellipsoids

from aiassist import cli
from aiassist.errors import ModelError
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import MaskPatch
from aiassist.learning import finder, finetune
from aiassist.learning.finder import FinderTraining
from aiassist.learning.finetune import FineTuning
from aiassist.learning.judge import POINTS, Scores
from aiassist.learning.run import TrainingConfig
from aiassist.learning.splits import taught_by
from aiassist.resources import resource
from aiassist.segmenters.model_store import LEARNED_FROM, MODELS, PLAN, RUN, ModelStore

BASE = resource("Models", "network")
CONFIG = TrainingConfig("network", "1", epochs=1)


@pytest.fixture
def studies(tmp_path):
    """A studies folder with six labelled scans, of which the first and the last judge."""
    store_of_ellipsoids(tmp_path / "studies", 6).close()
    return tmp_path / "studies"


@pytest.fixture
def store(studies):
    with GroundTruthStore(studies) as opened:
        yield opened


@pytest.fixture
def models(studies) -> ModelStore:
    return ModelStore(studies / MODELS)


@pytest.fixture
def small(monkeypatch):
    """Runs of two steps of small networks."""
    for name, value in {"CELLS": 16, "WIDTHS": (8, 16), "LEAST": 2}.items():
        monkeypatch.setattr(finder, name, value)
    monkeypatch.setattr(finetune, "LEAST", 2)


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def ids(store: GroundTruthStore) -> list[str]:
    return [study.id for study in store.studies()]


def add_label(store: GroundTruthStore, study: str, structure: str, voxels: int) -> None:
    mask = np.zeros(store.image(study).shape, bool)
    mask[2:4, 2, : voxels // 2] = True
    store.add(study, structure, MaskPatch.of_mask(mask), author="Ada", state=State.APPROVED)


def add_taught(models: ModelStore, name: str, taught: str, base: str = "network", base_version: str = "8") -> None:
    """Add a version without weights that says what taught it and what it began from."""
    config = {"kind": "promptable", "epochs": 1, "structures": [], "drafts": False}
    plan = {"config": {**config, "base": base, "base_version": base_version}, "teaching": [{"study": taught}]}
    with models.new_version(name) as (folder, _):
        (folder / LEARNED_FROM).write_text(json.dumps({**plan, "judging": []}))


# Studies that are removed meanwhile


@pytest.mark.parametrize(
    ("removed", "said"),
    [
        pytest.param(
            [0], "auto version 1 learned from 4 labels of 4 studies; Dice by 1 other label, before and now:", id="one"
        ),
        pytest.param([0, 5], "4 studies; all labels that were to judge it were removed meanwhile.", id="all"),
    ],
)
def test_a_training_ends_though_studies_that_were_to_judge_it_were_removed(studies, small, capsys, removed, said):
    options = ("train", "auto", "--studies", studies, "--automatic", "--epochs", 1)
    assert run(*options, "--minutes", 1e-6) == 0
    with GroundTruthStore(studies) as store:
        gone = [study for n, study in enumerate(ids(store)) if n in removed]
        for study in gone:
            store.remove_study(study)
    capsys.readouterr()
    assert run(*options) == 0
    assert said in capsys.readouterr().out
    learned_from = (studies / MODELS / "auto" / "1" / LEARNED_FROM).read_text()
    assert not any(study in learned_from for study in gone)


def test_an_automatic_model_keeps_a_structure_whose_labels_were_all_removed_meanwhile(store, models):
    add_label(store, ids(store)[3], "Rare", voxels=40)
    learning = FinderTraining(store, models, "auto", CONFIG, BASE)
    learning.prepare()
    store.remove_study(ids(store)[3])
    assert [(label.name, label.value) for label in learning.labels()] == [("cyst", 1), ("rare", 2)]


def test_the_damaged_card_of_an_old_version_is_said_before_the_training(store, models):
    with models.new_version("auto") as (folder, _):
        (folder / "card.json").write_text("{")
    with pytest.raises(ModelError, match=r"1.card\.json is missing or no model card"):
        FinderTraining(store, models, "auto", CONFIG, BASE).prepare()
    assert models.unfinished("auto") is None


# What a training is broken off in


@pytest.mark.parametrize("kind", [FineTuning, FinderTraining])
def test_of_a_preparation_that_is_broken_off_nothing_is_left(store, models, kind):
    def stopped(done: int, total: int) -> None:
        assert list((models.folder / "mine" / RUN / "data").iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kind(store, models, "mine", CONFIG, BASE).prepare(stopped)
    assert models.names() == [] and taught_by(models, ids(store)[1]) == ([], [])


def test_a_training_that_is_killed_when_its_version_is_there_is_over(store, models, monkeypatch):
    learning = FineTuning(store, models, "mine", CONFIG, BASE)
    learning.prepare()
    monkeypatch.setattr(learning, "export", lambda folder: (folder / "weights.onnx").write_bytes(b"weights"))
    scores = Scores({POINTS: {"cyst": [0.5]}})

    def kill(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as killed, pytest.raises(KeyboardInterrupt):
        killed.setattr(ModelStore, "remove_run", kill)
        learning.finish(lambda folder: (scores, scores), "a computer")
    assert models.versions("mine") == [1] and (models.folder / "mine" / RUN / PLAN).exists()
    assert models.unfinished("mine") is None
    FineTuning(store, models, "mine", TrainingConfig("network", "1", epochs=2), BASE).prepare()  # a training anew
    assert models.unfinished("mine")["epochs"] == 2


def test_a_run_that_an_older_release_began_goes_on(store, models):
    FineTuning(store, models, "mine", CONFIG, BASE).prepare()
    path = models.folder / "mine" / RUN / PLAN
    plan = json.loads(path.read_text())
    plan["config"]["seed"] = 0
    path.write_text(json.dumps(plan))
    assert FineTuning(store, models, "mine", CONFIG, BASE).is_begun


@pytest.mark.parametrize("more", [(), ("--from", "network")])
def test_a_run_whose_network_no_longer_ships_says_so(studies, capsys, more):
    with GroundTruthStore(studies) as store:
        config = TrainingConfig("network", "1", epochs=30)
        FineTuning(store, ModelStore(studies / MODELS), "mine", config, BASE).prepare()
    assert run("train", "mine", "--studies", studies, *more) == 2
    run_folder = studies / MODELS / "mine" / RUN
    said = f"'mine' began from network 1, which is not here any more; remove {run_folder} to begin anew."
    assert said in capsys.readouterr().err


# Which models a study taught


def test_who_began_from_what_a_study_taught_was_taught_by_it(models):
    add_taught(models, "cysts", "A")
    add_taught(models, "cysts", "B", base="cysts", base_version="1")
    add_taught(models, "cysts", "B")
    add_taught(models, "auto", "B", base="cysts", base_version="2")
    taught, unsure = taught_by(models, "A")
    assert [str(path.relative_to(models.folder)) for path in taught] == ["auto/1", "cysts/1", "cysts/2"]
    assert unsure == []


def test_what_does_not_say_what_it_learned_from_may_know_a_study(models):
    add_taught(models, "good", "A")
    for name, content in {"half": "{", "empty": "{}", "list": "[]"}.items():
        add_taught(models, name, "A")
        (models.folder_of(name, 1) / LEARNED_FROM).write_text(content)
    add_taught(models, "child", "B", base="half", base_version="1")
    add_taught(models, "orphan", "B", base="gone", base_version="1")
    (models.folder / "killed" / RUN / "data").mkdir(parents=True)
    (models.folder / "killed" / ".unfinished-1").mkdir()
    (models.folder / "bundle" / "1" / "bundle").mkdir(parents=True)
    taught, unsure = taught_by(models, "A")
    assert [path.parent.name for path in taught] == ["good"]
    assert {str(path.relative_to(models.folder)) for path in unsure} == {
        *(f"{name}/1" for name in ("half", "empty", "list", "child", "orphan")),
        *(f"killed/{name}" for name in (RUN, ".unfinished-1")),
    }


# What was learned, and of what


def test_what_is_too_small_to_learn_from_and_to_judge_by_is_not_said_to_have_been(studies, small, capsys):
    models = ModelStore(studies / MODELS)
    add_tiny_version(models, "tiny")
    (models.folder_of("tiny", 1) / "corrections.onnx").unlink()  # it would only take longer
    models.publish("tiny", 1, "Ada")
    with GroundTruthStore(studies) as store:
        judge, teacher, *_ = ids(store)
        for structure, study, voxels in (("node", teacher, 8), ("duct", teacher, 40), ("duct", judge, 8)):
            add_label(store, study, structure, voxels)
    assert run("train", "tiny", "--studies", studies, "--epochs", 1, "--workers", 0, "--json") == 0
    outcome = json.loads(capsys.readouterr().out)
    assert (outcome["labels"], outcome["unjudged"]) == (5, ["duct"])  # of four cysts and a duct
    card = json.loads((models.folder_of("tiny", 2) / "card.json").read_text())
    assert "has learned cyst, duct from the labels" in card["description"]


def test_a_structure_without_a_label_is_named_though_another_has_some(studies, capsys):
    wanted = ("--structure", "cyst", "--structure", "Cist")
    assert run("train", "mine", "--studies", studies, *wanted) == 2
    assert "holds no label of cist to learn from; check the spelling." in capsys.readouterr().err
    assert ModelStore(studies / MODELS).names() == []


@pytest.mark.parametrize(
    ("states", "taken", "with_drafts"),
    [
        ("submitted draft rejected", 1, 1),
        ("submitted draft", 1, 2),
        ("submitted rejected", None, None),
        ("submitted rejected draft", None, 3),
        ("submitted draft rejected draft", 1, 4),
        ("draft rejected", None, None),
        ("draft draft rejected approved", 4, 4),
    ],
)
def test_a_draft_that_was_rejected_changes_nothing_with_drafts_either(tmp_path, states, taken, with_drafts):
    with store_of_ellipsoids(tmp_path, 1, State.DRAFT) as store:
        (study,) = ids(store)
        store.review(study, "cyst", State.REJECTED, "Bo")
        voxels = store.mask(store.version(study, "cyst"))
        for number, state in enumerate(states.split(), 1):
            if state == "rejected":
                store.review(study, "node", State.REJECTED, "Bo")
            else:
                store.add(study, "node", voxels, author="Ada", state=State(state), parent=number - 1 or None)
        found = [[version.number for version in store.accepted(drafts).get(study, ())] for drafts in (False, True)]
        assert found == [[number] if number else [] for number in (taken, with_drafts)]
