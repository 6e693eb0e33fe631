"""Runs that learn from labels, and the judging of what came of them."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from groundtruth_helpers import random_volume
from learning_helpers import add_tiny_version, ellipsoid_scan, noise, patch, store_of_ellipsoids
from synth_helpers import TINY

from aiassist import cli
from aiassist.engine import LocalBackend, SegmentRequest
from aiassist.errors import ModelError, StoreError
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import DicomSeries, MaskPatch, Region, Volume, describe_structure, read_volume, write_volume
from aiassist.learning import finder, finetune
from aiassist.learning.finder import MapTrainer, write_map
from aiassist.learning.finetune import FineTuning
from aiassist.learning.judge import ALONE, MOVED, POINTS, Scores, judge
from aiassist.learning.publish import publish_if_better
from aiassist.learning.run import TrainingConfig
from aiassist.learning.samples import find_samples
from aiassist.learning.splits import LEARNED_FROM, Splits
from aiassist.resources import resource
from aiassist.segmenters.automatic import AutomaticNetwork
from aiassist.segmenters.base import ModelCard, Step
from aiassist.segmenters.model_store import ASKED, MODELS, RUN, ModelStore
from aiassist.segmenters.registry import load_network_folder
from aiassist.segmenters.torch_runner import load_network


@pytest.fixture
def studies(tmp_path):
    """A studies folder with six labelled scans, and a published network that has learned next to nothing."""
    folder = tmp_path / "studies"
    store_of_ellipsoids(folder, 6).close()
    models = ModelStore(folder / MODELS)
    add_tiny_version(models, "tiny")
    models.publish("tiny", 1, "Ada")
    return folder


def run(*arguments) -> int:
    return cli.main([str(argument) for argument in arguments])


def test_a_run_makes_a_better_version_that_is_published_and_taken_back(studies, capsys, monkeypatch):
    monkeypatch.setattr(finetune, "LEAST", 30)
    models = ModelStore(studies / MODELS)
    weights = (models.folder_of("tiny", 1) / "weights.onnx").read_bytes()
    options = ("train", "tiny", "--studies", studies, "--epochs", 20, "--workers", 0)
    assert run(*options) == 0
    said = capsys.readouterr().out
    assert "tiny version 2 learned from 4 labels of 4 studies; Dice by 2 other labels, before and now:" in said
    assert f"To use it: aiassist models publish tiny --studies {studies}" in said
    assert models.published("tiny") == 1  # training is not publishing
    assert (models.folder_of("tiny", 1) / "weights.onnx").read_bytes() == weights
    assert not (models.folder / "tiny" / RUN).exists()

    card = load_network_folder(models.folder_of("tiny", 2)).card
    for file in ("weights.onnx", "corrections.onnx"):
        one, two = (load_network(models.folder_of("tiny", version) / file)[0].state_dict() for version in (1, 2))
        assert any(not torch.equal(one[name], two[name]) for name in one), file
    assert card.version == "2"
    assert "with tiny 1, on" in card.provenance
    assert card.metrics["dice, six points"] > card.metrics["before, dice, six points"] + 0.05
    plan = json.loads((models.folder_of("tiny", 2) / LEARNED_FROM).read_text())
    taught, judged = ({sample["study"] for sample in plan[part]} for part in ("teaching", "judging"))
    assert (len(taught), len(judged), len(taught & judged)) == (4, 2, 0)

    assert run("models", "publish", "tiny", "--studies", studies, "--author", "Bo") == 0
    assert "tiny version 2 is used from now on" in capsys.readouterr().out
    assert run("models", "publish", "tiny", "--studies", studies) == 2
    assert "Version 2 of 'tiny' is published already." in capsys.readouterr().err
    assert models.published("tiny") == 2
    assert run("models", "list", "--studies", studies) == 0
    listed = capsys.readouterr().out
    assert "tiny: versions 1, 2 (published)" in listed
    assert run("models", "info", "tiny", "--version", 1, "--studies", studies) == 0
    assert "A network for tests." in capsys.readouterr().out
    check_commands(studies)
    assert run("models", "rollback", "tiny", "--studies", studies) == 0
    assert "tiny: version 1 is used again." in capsys.readouterr().out
    assert models.published("tiny") == 1


def check_commands(studies) -> None:
    """Annotate and evaluate by the published model, on a scan that nobody has labelled."""
    image, mask = ellipsoid_scan(99)
    case = studies.parent / "cases" / "scan"
    case.mkdir(parents=True)
    write_volume(case / "image.nii.gz", image)
    write_volume(case / "label.nii.gz", Volume(mask.astype(np.uint8), image.geometry))
    options = ("--model", "tiny", "--studies", studies)
    source = ("--from-label", case / "label.nii.gz")
    assert run("annotate", case / "image.nii.gz", "-o", case / "mask.nii.gz", *source, *options) == 0
    found = read_volume(case / "mask.nii.gz").voxels != 0
    assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.7
    measured = studies.parent / "measured.json"
    quick = ("--clicks", 0, "--draws", 1, "--points-only", "--workers", 1, "--json", measured)
    assert run("evaluate", case, *options, *quick) == 0
    assert json.loads(measured.read_text())["models"]["tiny"]["all"]["oracle"]["dice"]["0"] > 0.7


def test_a_run_that_was_stopped_goes_on_with_what_it_was_asked_only(studies, capsys, monkeypatch):
    monkeypatch.setattr(finetune, "LEAST", 4)
    folder = studies / MODELS / "tiny" / RUN
    options = ("train", "tiny", "--studies", studies, "--epochs", 2, "--workers", 0)
    assert run(*options, "--minutes", 1e-6) == 0
    assert "the same command goes on" in capsys.readouterr().out
    with GroundTruthStore(studies) as store:  # what is labelled meanwhile waits for the next run
        image, mask = ellipsoid_scan(99)
        later = store.add_study(image, "later").id
        store.add(later, "cyst", MaskPatch.of_mask(mask), author="Ada", state=State.APPROVED)
    models = ModelStore(studies / MODELS)
    models.publish("tiny", add_tiny_version(models, "tiny"), "Ada")  # and so does another base
    assert run("train", "tiny", "--studies", studies, "--epochs", 3, "--workers", 0) == 2
    error = capsys.readouterr().err
    assert "An unfinished run of 'tiny' was begun otherwise (promptable, from tiny 1, 2 epochs of " in error
    assert str(folder) in error
    assert torch.load(folder / "state.pt")["step"] == 1
    assert run(*options, "--minutes", 1e-6) == 0  # however little time there is, it gets on
    assert torch.load(folder / "state.pt")["step"] == 2
    assert run(*options) == 0
    assert "tiny version 3 learned from 4 labels of 4 studies" in capsys.readouterr().out
    assert "with tiny 1, on" in load_network_folder(models.folder_of("tiny", 3)).card.provenance
    assert not folder.exists()


def test_a_model_is_trained_and_published_by_one_at_a_time(studies, capsys):
    models = ModelStore(studies / MODELS)
    with models.held("mine", "training"), models.held("tiny", "publishing"):
        assert run("train", "mine", "--studies", studies) == 2
        assert "Somebody else's training of the model 'mine' is under way" in capsys.readouterr().err
        assert run("models", "rollback", "tiny", "--studies", studies) == 2
        assert "Somebody else's publishing of the model 'tiny' is under way" in capsys.readouterr().err
    assert models.published("tiny") == 1
    assert run("models", "rollback", "tiny", "--studies", studies) == 0


def test_what_cannot_be_trained_is_refused_before_anything_is_made(studies, capsys, tmp_path):
    for arguments, sentence in (
        (("network",), "'network' is a model that ships with aiassist; give yours another name."),
        (("../x",), "'../x' is no name for a model"),
        (("mine", "--from", "geodesic"), "'geodesic' has no weights to begin from; begin from 'network'."),
        (("mine", "--from", "yours"), "No model 'yours' is published"),
        (("mine", "--epochs", 0), "--epochs is 0; use 1 or more."),
        (("mine", "--structure", "liver"), "holds no submitted or approved label of liver to learn from"),
        (("mine", "--minutes", 0), "--minutes is 0; use more than 0."),
    ):
        assert run("train", *arguments, "--studies", studies) == 2
        assert sentence in capsys.readouterr().err
    assert run("train", "mine", "--studies", tmp_path) == 2
    assert "is not a studies folder" in capsys.readouterr().err
    assert ModelStore(studies / MODELS).names() == ["tiny"]


# An automatic model


@pytest.fixture
def small(monkeypatch):
    """A small finder that is trained for a short while."""
    for name, value in {"CELLS": 16, "WIDTHS": (8, 16), "LEAST": 150}.items():
        monkeypatch.setattr(finder, name, value)


def test_an_automatic_model_learns_to_find_what_is_labelled(studies, capsys, small):
    with GroundTruthStore(studies) as store:
        for seed in range(4):  # empty labels say that nothing is there
            study = store.add_study(noise(seed), f"noise {seed}").id
            store.add(study, "cyst", MaskPatch.empty(), author="Ada", state=State.SUBMITTED)
    options = ("train", "auto", "--studies", studies, "--automatic", "--epochs", 1)
    assert run(*options) == 0
    said = capsys.readouterr().out
    assert "auto version 1 learned from 8 labels of 8 studies; Dice by 2 other labels, before and now:" in said
    assert "on its own" in said
    assert "It is better." in said
    assert run("models", "publish", "auto", "--studies", studies) == 0
    image, mask = ellipsoid_scan(99)
    models_folder = studies / MODELS / "auto" / "1"
    with LocalBackend(threaded=False, models=studies / MODELS) as backend:
        (card,) = (card for card in backend.models() if card.name == "auto")
        assert (card.kind, [(label.name, label.value) for label in card.labels]) == ("automatic", [("cyst", 1)])
        answer = backend.segment(SegmentRequest(backend.open_study(image), "auto"))
        found = answer.patch.to_labelmap(image.shape) == 1
        assert 2 * (found & mask).sum() / (found.sum() + mask.sum()) > 0.8
        nothing = backend.segment(SegmentRequest(backend.open_study(noise(99)), "auto"))
        assert nothing.patch.region.is_empty
    outside = studies.parent
    write_volume(outside / "image.nii.gz", image)
    command = ("segment", outside / "image.nii.gz", "-o", outside / "labels.nii.gz", "--model", "auto")
    assert run(*command) == 2
    assert "no model 'auto'" in capsys.readouterr().err
    assert run(*command, "--studies", studies) == 0
    assert np.array_equal(read_volume(outside / "labels.nii.gz").voxels == 1, found)
    for file in ("weights.onnx", "corrections.onnx"):  # it looks closer by its base
        assert (models_folder / file).read_bytes() == resource("Models", "network", file).read_bytes()
    capsys.readouterr()
    assert run("train", "auto", "--studies", studies) == 2
    assert "'auto' has versions that are automatic; give the one that is promptable" in capsys.readouterr().err
    assert run("train", "other", "--studies", studies, "--automatic", "--from", "auto") == 2
    assert "'auto' is automatic; begin from one that needs prompts" in capsys.readouterr().err


def test_of_what_nobody_labelled_in_a_scan_nothing_is_learned(tmp_path):
    volume, mask = ellipsoid_scan(0)
    write_map(tmp_path / "map.npz", [(volume, 1, mask)], structures=3)
    trainer = MapTrainer(tmp_path / "run", replace(TINY, inputs=6, outputs=3, cells=64), [tmp_path / "map.npz"])
    seen, truth, known = next(trainer._batches(1))
    assert known.tolist() == [[False, True, False]] * TINY.batch
    assert truth[:, [0, 2]].sum() == 0
    loss, _ = trainer._loss(seen, truth, known)
    loss.backward()
    slopes = trainer.net.head.weight.grad.flatten(1).abs().sum(1)
    assert (slopes > 0).tolist() == [False, True, False]


def test_a_name_keeps_its_value_in_all_versions_and_none_may_be_lost(studies, capsys, small, monkeypatch):
    monkeypatch.setattr(finder, "LEAST", 2)
    models = ModelStore(studies / MODELS)
    assert run("train", "auto", "--studies", studies, "--automatic", "--epochs", 1) == 0
    with GroundTruthStore(studies) as store:
        for study in store.studies():
            mask = store.mask(store.version(study.id, "cyst"))
            store.add(study.id, "Aorta", mask, author="Ada", state=State.SUBMITTED)
    assert run("train", "auto", "--studies", studies, "--automatic", "--epochs", 1) == 0
    assert run("train", "auto", "--studies", studies, "--automatic", "--epochs", 1, "--structure", "AORTA") == 0
    cards = [load_network_folder(models.folder_of("auto", version)).card for version in (1, 2, 3)]
    values = [{label.name: label.value for label in card.labels} for card in cards]
    assert values == [{"cyst": 1}, {"Aorta": 2, "cyst": 1}, {"Aorta": 2}]
    models.publish("auto", 2, "Ada")
    capsys.readouterr()
    assert run("models", "publish", "auto", "--studies", studies) == 2
    assert "Version 3 of 'auto' does not know cyst, which version 2 finds" in capsys.readouterr().err


# Judging


class Asked:
    """A model that gives one mask to everybody and keeps what it was asked."""

    card = ModelCard("asked", "1", "promptable", "For tests.")

    def __init__(self, mask: np.ndarray):
        self.mask, self.prompts = MaskPatch.of_mask(mask), []

    def annotate(self, volume, prompts):
        self.prompts.append(prompts)
        yield Step("pass", 0.0)
        return self.mask


def test_a_model_is_asked_from_points_moved_points_and_clicks(studies):
    with GroundTruthStore(studies) as store:
        (sample, *_) = find_samples(store)
        truth = store.mask(store.version(sample.study, "cyst")).to_mask((18, 30, 30))
        shifted = Asked(np.roll(truth, 3, axis=2))
        (scores,) = judge(store, [sample], [shifted])
    exact, moved, *clicked = shifted.prompts
    inside = np.argwhere(truth)[:, ::-1]
    ends = np.ravel(np.column_stack([inside.min(axis=0), inside.max(axis=0)]))
    np.testing.assert_array_equal([exact.extreme_points[n, n // 2] for n in range(6)], ends)
    assert 0.3 < np.abs(moved.extreme_points - exact.extreme_points).mean() < 3
    assert [len(prompts.positive) + len(prompts.negative) for prompts in clicked] == [1, 2, 3]
    for prompts in clicked:
        assert prompts.prior.version == shifted.mask.version
        for side, points in ((True, prompts.positive), (False, prompts.negative)):
            for i, j, k in points.astype(int):
                assert truth[k, j, i] == side != shifted.mask.to_mask(truth.shape)[k, j, i]
    assert set(scores.dice) == {"six points", "points moved", "after 3 clicks"}


def test_to_find_nothing_is_no_better_than_no_model(studies):
    class Blind:
        card = ModelCard("blind", "1", "automatic", "For tests.", labels=(describe_structure("cyst"),))

        def segment(self, volume):
            yield Step("pass", 0.0)
            return MaskPatch(Region((0, 0, 0), (0, 0, 0)), np.zeros((0, 0, 0), np.uint8), "labels")

    with GroundTruthStore(studies) as store:
        store.add(store.add_study(noise(0), "noise").id, "cyst", MaskPatch.empty(), author="A", state=State.SUBMITTED)
        blind, none = judge(store, find_samples(store, absent=True), [Blind(), None])
    assert blind == none
    assert blind.score == pytest.approx(1 / 7)
    assert not blind.is_better(none)


def test_labels_that_hold_too_little_judge_nobody(tmp_path):
    with GroundTruthStore(tmp_path) as store:
        study = store.add_study(random_volume(), "scan").id
        store.add(study, "cyst", patch(slice(2), slice(2), slice(2)), author="Ada", state=State.APPROVED)
        network = load_network_folder(resource("Models", "network"), threads=1)
        with pytest.raises(StoreError, match="hold no structure of 30 voxels or more"):
            judge(store, find_samples(store), [network])


def test_a_verdict_is_the_same_twice_and_counts_structures_alike(studies):
    network = load_network_folder(resource("Models", "network"), threads=1)
    with GroundTruthStore(studies) as store:
        samples = find_samples(store)[:2]
        once, again = judge(store, samples, [network, network])
    assert once == again
    assert {name: len(dices) for name, dices in once.dice[POINTS].items()} == {"cyst": 2}
    assert once.mean(POINTS) > 0.85
    uneven = Scores({POINTS: {"a": [1.0, 1.0, 1.0], "b": [0.0]}, MOVED: {"a": [0.9] * 3, "b": [0.7]}})
    assert (uneven.mean(POINTS), uneven.score) == (0.5, pytest.approx(0.65))
    assert not uneven.is_better(uneven)
    assert uneven.is_better(Scores())


def test_a_structure_that_is_new_does_not_make_up_for_one_that_became_worse():
    known = frozenset({"cyst", "aorta", "node"})
    before = Scores({ALONE: {"cyst": [0.9, 0.7], "aorta": [0.6], "liver": [0.0], "node": [0.5]}}, known)
    now = Scores({ALONE: {"cyst": [0.5, 0.3], "aorta": [0.65], "liver": [0.95], "node": [0.501]}})
    assert now.score > before.score + 0.1
    assert not now.is_better(before)
    assert now.fallen(before) == ["cyst (0.400 against 0.800)"]
    made_up = Scores({ALONE: {"cyst": [0.79], "aorta": [0.65], "liver": [0.95], "node": [0.5]}})
    assert made_up.is_better(before) and made_up.fallen(before) == []  # the mean of the three rose
    assert now.is_better(Scores(before.dice, frozenset()))


@pytest.mark.parametrize(("fall", "is_better"), [(0.04, True), (0.06, False)])
def test_a_version_that_is_far_worse_at_one_structure_is_kept_back_whatever_it_gains(fall, is_better):
    before = Scores({POINTS: {"cyst": [0.8], "aorta": [0.6], "liver": [0.7]}})
    now = Scores({POINTS: {"cyst": [0.8 - fall], "aorta": [0.9], "liver": [0.9]}})
    assert now.is_better(before) is is_better
    assert now.fallen(before) == ([] if is_better else ["cyst (0.740 against 0.800)"])


def test_an_automatic_model_that_lost_much_of_what_the_published_one_finds_is_kept_back(studies, monkeypatch):
    def segment(self, volume):  # the second version finds the aorta, too, and hardly half of the cyst
        yield Step("pass", 0.0)
        bright, i = volume.voxels > 30, np.arange(volume.shape[2])
        parts = [i < 15, i >= 15] if self.card.version == "1" else [i < 12, i >= 15]
        labels = sum(label.value * (bright & part) for label, part in zip(self.card.labels, parts, strict=False))
        return MaskPatch(Region.of_mask(bright | True), labels.astype(np.uint8), "labels")

    monkeypatch.setattr(AutomaticNetwork, "segment", segment)
    models = ModelStore(studies / MODELS)
    with GroundTruthStore(studies) as store:
        for study in store.studies():
            whole = store.mask(store.version(study.id, "cyst")).to_mask((18, 30, 30))
            for name, part in (("cyst", np.s_[:, :, 15:]), ("aorta", np.s_[:, :, :15])):
                mask = whole.copy()
                mask[part] = False
                store.add(study.id, name, MaskPatch.of_mask(mask), author="Ada", state=State.APPROVED)
        for known in (["cyst"], ["cyst", "aorta"]):
            with models.new_version("auto") as (folder, number):
                labels = tuple(describe_structure(name, value) for value, name in enumerate(known, 1))
                card = ModelCard("auto", str(number), "automatic", "For tests.", labels=labels)
                config = dict.fromkeys(ASKED) | {"kind": "automatic", "structures": [], "drafts": False}
                plan = {"config": config, "teaching": [], "judging": []}
                (folder / "card.json").write_text(json.dumps(card.to_json()))
                (folder / LEARNED_FROM).write_text(json.dumps(plan))
        models.publish("auto", 1, "Ada")
        sentence = (
            r"^Version 2 of 'auto' is worse at cyst \(0\.3\d+ against 0\.9\d+\) than 'auto' version 1 "
            r"\(mean Dice 0\.6\d+ against 0\.4\d+ by 4 labels\), so it is not published\.$"
        )
        with pytest.raises(ModelError, match=sentence):
            publish_if_better(store, models, "auto", 2, "Ada")
        assert models.published("auto") == 1


def test_a_training_that_nothing_could_judge_is_refused_before_it_begins(tmp_path):
    with store_of_ellipsoids(tmp_path, 3) as store:
        first, *_ = (study.id for study in store.studies())  # judges
        crumb = np.zeros((18, 30, 30), bool)
        crumb[0, 0, :20] = True
        store.add(first, "cyst", MaskPatch.of_mask(crumb), author="Ada", state=State.APPROVED)
        models = ModelStore(tmp_path / MODELS)
        base = resource("Models", "network")
        learning = FineTuning(store, models, "mine", TrainingConfig("network", "1", epochs=1), base)
        with pytest.raises(StoreError, match="labels that judge hold no structure of 30 voxels or more; label some l"):
            learning.prepare()
        assert not learning.is_begun and models.names() == []


def test_the_model_whose_mistakes_are_corrected_is_whole_or_made_again(studies, monkeypatch):
    base = ModelStore(studies / MODELS).folder_of("tiny", 1)
    with GroundTruthStore(studies) as store:
        learning = FineTuning(store, ModelStore(studies / MODELS), "mine", TrainingConfig("tiny", "1", 1), base)
        learning.prepare()
        trainers = learning.trainers(workers=0)
        next(trainers).run(until=1)

        def broken_off(source, target):
            target.write_text(source.read_text()[:10])
            raise KeyboardInterrupt

        with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
            patched.setattr(shutil, "copyfile", broken_off)
            next(trainers)
        _, second = learning.trainers(workers=0)
        assert load_network_folder(second.corrects).card.name == "tiny"


def test_a_worse_version_is_not_published(studies):
    models = ModelStore(studies / MODELS)
    with GroundTruthStore(studies) as store:
        samples = find_samples(store)
        Splits(models.folder).judging(store, [sample.study for sample in samples])
        with models.new_version("cysts") as (folder, _):  # what taught it lies on both sides, to be left out
            shutil.copytree(models.folder_of("tiny", 1), folder, dirs_exist_ok=True)
            plan = {
                "config": dict.fromkeys(ASKED) | {"kind": "promptable", "structures": [], "drafts": False},
                "teaching": [{"study": samples[0].study}],
                "judging": [],
            }
            (folder / LEARNED_FROM).write_text(json.dumps(plan))
        with pytest.raises(
            ModelError, match=r"Version 1 of 'cysts' is not clearly better than 'network' version .* by 1 labels"
        ):
            publish_if_better(store, models, "cysts", 1, "Ada")
        assert models.published("cysts") is None
        with pytest.raises(ModelError, match="does not say what it learned from"):
            publish_if_better(store, models, "tiny2", add_tiny_version(models, "tiny2"), "Ada")


def test_another_image_of_a_patient_who_taught_a_version_does_not_judge_it(tmp_path):
    models = ModelStore(tmp_path / MODELS)
    with store_of_ellipsoids(tmp_path, 0) as store:
        studies = []
        for seed, patient in enumerate(("P-1", "P-2", "P-1")):
            (image, mask), header = ellipsoid_scan(seed), {"00100020": {"vr": "LO", "Value": [patient]}}
            dicom = DicomSeries((header,) * image.shape[0])
            studies.append(store.add_study(image.with_dicom(dicom), f"scan {seed}").id)
            if seed < 2:  # what taught it is not labelled any more
                store.add(studies[-1], "cyst", MaskPatch.of_mask(mask), author="Ada", state=State.APPROVED)
        Splits(models.folder).judging(store, studies[:2])
        add_tiny_version(models, "tiny")
        config = dict.fromkeys(ASKED) | {"kind": "promptable", "structures": [], "drafts": False}
        plan = {"config": config, "teaching": [{"study": studies[2]}], "judging": []}
        (models.folder_of("tiny", 1) / LEARNED_FROM).write_text(json.dumps(plan))
        with pytest.raises(StoreError, match="taught one of the versions, so none can judge; label more"):
            publish_if_better(store, models, "tiny", 1, "Ada")


def test_training_needs_its_packages(studies, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert run("train", "mine", "--studies", studies) == 2
    assert (
        "Training needs the package torch: pip install '/path/to/SlicerAIAssist[learning]'." in capsys.readouterr().err
    )
