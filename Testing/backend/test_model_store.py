"""Versions of trained models: kept, published, taken back, and offered by the backend from then on."""

from __future__ import annotations

import errno
import json
import os
import shutil

import numpy as np
import pytest
from learning_helpers import add_tiny_version, ellipsoid_scan

from aiassist.engine import AnnotateRequest, LocalBackend
from aiassist.errors import AIAssistError, BusyError, ModelError, UnknownModelError
from aiassist.files import sync
from aiassist.prompts import Prompts, extreme_points
from aiassist.segmenters.model_store import ModelStore


@pytest.fixture
def models(tmp_path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def names_of(backend: LocalBackend) -> list[str]:
    return [card.name for card in backend.models()]


def add_version(models: ModelStore, name: str, text: str = "") -> int:
    with models.new_version(name) as (folder, number):
        (folder / "note.txt").write_text(text)
    return number


def files_of(models: ModelStore) -> list[str]:
    """What lies in the folder of the model liver, but for the note of the highest number that was given."""
    return sorted({path.name for path in (models.folder / "liver").iterdir()} - {"last-version.txt"})


def test_versions_are_numbered_and_stay(models):
    assert models.names() == []
    assert [add_version(models, "liver", text) for text in "abc"] == [1, 2, 3]
    assert models.versions("liver") == [1, 2, 3]
    assert [(models.folder_of("liver", n) / "note.txt").read_text() for n in (1, 2, 3)] == ["a", "b", "c"]
    assert models.names() == ["liver"]
    assert models.published("liver") is None


def test_a_version_that_fails_leaves_nothing(models):
    add_version(models, "liver")
    with pytest.raises(OSError, match="disk"), models.new_version("liver") as (folder, number):
        assert number == 2
        (folder / "weights.onnx").write_bytes(b"half")
        raise OSError("the disk is full")
    assert models.versions("liver") == [1]
    assert files_of(models) == ["1"]


def test_a_version_counts_only_when_all_of_its_files_are_on_the_disk(models, monkeypatch):
    flushed = []

    def note(path):
        flushed.append((path.name, models.versions("liver")))
        sync(path)

    monkeypatch.setattr("aiassist.segmenters.model_store.sync", note)
    with models.new_version("liver") as (folder, _):
        (folder / "bundle" / "models").mkdir(parents=True)
        (folder / "bundle" / "models" / "model.pt").write_bytes(b"weights")
        (folder / "card.json").write_text("{}")
    assert {"model.pt", "models", "bundle", "card.json", folder.name} == {name for name, seen in flushed if seen == []}
    assert flushed[-1] == ("liver", [1])


def test_publishing_and_taking_back_in_any_order(models):
    for _ in range(3):
        add_version(models, "liver")
    models.publish("liver", 1, "Ada")
    models.publish("liver", 3, "Ada")
    models.publish("liver", 2, "Bo")
    assert models.published("liver") == 2
    assert models.rollback("liver", "Ada") == 3
    assert models.published("liver") == 3
    assert models.rollback("liver", "Ada") == 1
    models.publish("liver", 2, "Ada")
    assert models.rollback("liver", "Ada") == 1
    assert models.rollback("liver", "Ada") is None
    assert models.published("liver") is None
    with pytest.raises(ModelError, match=r"No version of 'liver' is published .* nothing to take back"):
        models.rollback("liver", "Ada")
    said = [(entry["action"], entry["version"], entry["by"]) for entry in models.history("liver")]
    assert said[:4] == [("publish", 1, "Ada"), ("publish", 3, "Ada"), ("publish", 2, "Bo"), ("rollback", 2, "Ada")]
    assert models.versions("liver") == [1, 2, 3]


def test_a_version_that_somebody_removed_is_passed_over(models):
    for version in (1, 2, 3):
        add_version(models, "liver")
        models.publish("liver", version, "Ada")
    shutil.rmtree(models.folder_of("liver", 2))
    assert models.rollback("liver", "Ada") == 1
    assert models.published("liver") == 1


def test_no_number_is_given_twice_and_rollback_says_what_is_used(models):
    for version in (1, 2, 3):
        add_version(models, "liver")
        models.publish("liver", version, "Ada")
    shutil.rmtree(models.folder_of("liver", 3))
    assert models.published("liver") == 2
    assert add_version(models, "liver") == 4
    assert models.published("liver") == 2
    assert models.rollback("liver", "Ada") == 1 == models.published("liver")
    models.publish("liver", 4, "Ada")
    assert models.rollback("liver", "Ada") == 1 == models.published("liver")


@pytest.mark.parametrize(("noted", "number"), [(None, 3), ("x", 2), ("", 2)])
def test_the_number_of_a_removed_version_is_not_given_again_though_nobody_published_it(models, noted, number):
    assert [add_version(models, "liver") for _ in range(2)] == [1, 2]
    shutil.rmtree(models.folder_of("liver", 2))
    if noted is not None:  # a damaged note keeps nobody from a version
        (models.folder / "liver" / "last-version.txt").write_text(noted)
    assert add_version(models, "liver") == number


def test_what_a_killed_process_left_goes_with_the_next_version(models):
    (models.folder / "liver" / ".unfinished-1").mkdir(parents=True)
    assert add_version(models, "liver") == 1
    assert files_of(models) == ["1"]


def test_only_versions_that_are_there_can_be_published(models):
    with pytest.raises(UnknownModelError, match=r"No model 'liver' was trained in .*; train it first"):
        models.publish("liver", 1, "Ada")
    add_version(models, "liver")
    with pytest.raises(UnknownModelError, match=r"no version 2 of the model 'liver'; its versions are 1"):
        models.publish("liver", 2, "Ada")
    assert models.published("liver") is None


@pytest.mark.skipif(os.name == "nt", reason="Windows locks files by another call")
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOTSUP])
def test_a_folder_in_which_nothing_can_be_locked_is_named_and_nobody_is_said_to_be_at_work(models, monkeypatch, number):
    said = "training of the model 'liver' is under way"
    with models.held("liver", "training"), pytest.raises(BusyError, match=said), models.held("liver", "training"):
        pass

    def refuse(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("fcntl.flock", refuse)  # as of a share without locks
    with pytest.raises(AIAssistError, match="No file can be locked") as caught, models.held("liver", "training"):
        pass
    assert type(caught.value) is AIAssistError
    assert str(models.folder) in str(caught.value) and os.strerror(number) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "../liver", ".liver", "a/b", "a b", "x" * 65, "leber\n", "splits.json", "NUL", "com1", "a."]
)
def test_names_that_are_no_names_are_refused(models, name):
    with pytest.raises(ModelError, match="is no name for a model"), models.new_version(name):
        pass
    assert not models.folder.exists()


def test_a_published_model_is_offered_without_a_new_start_and_gone_when_taken_back(models, tmp_path):
    volume, mask = ellipsoid_scan(0)
    prompts = Prompts(extreme_points=extreme_points(mask, np.random.default_rng(0)))
    with LocalBackend(threaded=False, models=models.folder) as backend:
        study, bundled = backend.open_study(volume), names_of(backend)
        assert bundled[0] == "network"
        add_tiny_version(models, "liver")
        assert names_of(backend) == bundled
        models.publish("liver", 1, "Ada")
        assert names_of(backend) == [*bundled, "liver"]
        answer = backend.annotate(AnnotateRequest(study, prompts, model="liver"))
        assert (answer.model, answer.model_version) == ("liver", "1")
        add_tiny_version(models, "liver", seed=1)
        models.publish("liver", 2, "Ada")
        assert backend.annotate(AnnotateRequest(study, prompts, model="liver")).model_version == "2"
        models.rollback("liver", "Ada")
        assert backend.annotate(AnnotateRequest(study, prompts, model="liver")).model_version == "1"
        models.rollback("liver", "Ada")
        assert names_of(backend) == bundled
        with pytest.raises(UnknownModelError, match="no model 'liver'"):
            backend.annotate(AnnotateRequest(study, prompts, model="liver"))


def test_one_damaged_model_keeps_nobody_from_the_others(models, tmp_path, caplog):
    for name in ("good", "spoiled", "lost"):
        add_tiny_version(models, name)
        models.publish(name, 1, "Ada")
    (models.folder_of("spoiled", 1) / "card.json").write_text("{")
    (models.folder / "lost" / "published.json").write_text(json.dumps([{"version": "1"}]))
    (models.folder / "odd" / "1").mkdir(parents=True)
    (models.folder / "odd" / "published.json").mkdir()
    with LocalBackend(threaded=False, models=models.folder) as backend:
        offered = names_of(backend)
        assert "good" in offered
        assert "network" in offered
        assert not {"spoiled", "lost", "odd"} & set(offered)
        assert "The model spoiled is left out" in caplog.text
        assert "The model lost is left out" in caplog.text
    with pytest.raises(ModelError, match=r"published\.json is damaged; restore it"):
        models.published("lost")


def test_a_trained_model_cannot_take_the_place_of_a_bundled_one(models, tmp_path):
    add_tiny_version(models, "network")
    models.publish("network", 1, "Ada")
    with LocalBackend(threaded=False, models=models.folder) as backend:
        (card,) = (card for card in backend.models() if card.name == "network")
        assert card.licence == "Apache-2.0"
