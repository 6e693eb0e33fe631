"""Weights: as training leaves them, as ONNX, and as a model folder."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from synth_helpers import TINY

from aiassist import cli
from aiassist.errors import ModelError
from aiassist.resources import resource
from aiassist.segmenters.network import Residual, Rising
from aiassist.segmenters.network_input import CHANNELS, FORMER
from aiassist.segmenters.onnx_runner import OnnxRunner
from aiassist.segmenters.torch_runner import TorchRunner, load_network
from aiassist.synthesis.example import example
from aiassist.synthesis.export import export_folder, export_onnx
from aiassist.synthesis.training import Trainer


@pytest.mark.parametrize("share", [0.5, 0.6])
def test_an_export_may_be_the_mean_with_other_weights_of_which_a_share_is_theirs(weights, tmp_path, share):
    Trainer(tmp_path / "other", replace(TINY, steps=2, seed=5), workers=0).run()
    others = tmp_path / "other" / "weights.safetensors"
    export_onnx(weights, tmp_path / "mean.onnx", mean_with=others, mean_share=share)
    mean, one, two = (load_network(path)[0].state_dict() for path in (tmp_path / "mean.onnx", weights, others))
    name = "down.0.0.first.weight"
    assert not torch.equal(one[name], two[name])
    assert torch.allclose(mean[name], (1 - share) * one[name] + share * two[name], atol=1e-3)


def test_torch_and_onnx_agree(weights, tmp_path):
    export_onnx(weights, tmp_path / "net.onnx")
    channels = example(1, 24).channels[:, ::2, ::2, ::2].numpy()
    channels = np.pad(channels, ((0, 0), (0, 4), (0, 4), (0, 4)))
    ours, theirs = TorchRunner.from_weights(weights), OnnxRunner(tmp_path / "net.onnx", threads=1)
    assert ours.cells == theirs.cells == 16
    assert np.abs(ours(channels) - theirs(channels)).max() < 1e-3
    again = TorchRunner.from_weights(tmp_path / "net.onnx")
    assert np.abs(again(channels) - ours(channels)).max() < 1e-5
    larger = np.random.default_rng(0).normal(0, 0.5, (ours.inputs, 24, 24, 24)).astype(np.float32)
    assert theirs.takes_any and np.abs(ours(larger) - theirs(larger)).max() < 1e-3


def test_a_network_that_sees_more_begins_with_the_answers_of_one_that_saw_less(tmp_path):
    former = Trainer(tmp_path / "former", replace(TINY, inputs=FORMER), workers=0)
    former.run(until=1)
    weights = tmp_path / "former" / "weights.safetensors"
    seen = np.random.default_rng(0).normal(0, 0.5, (len(CHANNELS), 16, 16, 16)).astype(np.float32)
    wider = Trainer(tmp_path / "wider", TINY, start=weights)
    assert wider.net.shape.inputs == len(CHANNELS)
    answers = TorchRunner(wider.net, 16)(seen), TorchRunner.from_weights(weights)(seen[:FORMER])
    assert np.abs(answers[0] - answers[1]).max() < 1e-4
    wider.write_weights(tmp_path / "wider.safetensors")
    with pytest.raises(ModelError, match="are those of a network of"):
        load_network(tmp_path / "wider.safetensors", former.net.shape)


def test_weights_in_eight_bits_take_half_the_room_and_change_little(weights, tmp_path):
    export_onnx(weights, tmp_path / "half.onnx")
    export_onnx(weights, tmp_path / "byte.onnx", eight_bits=True)
    wide, narrow = (load_network(tmp_path / name)[0].state_dict() for name in ("half.onnx", "byte.onnx"))
    for name, value in wide.items():
        if value.dim() == 5 and not name.startswith("half_head"):
            assert (narrow[name] - value).abs().max() <= value.abs().max() / 200
    seen = np.random.default_rng(0).normal(0, 0.5, (len(CHANNELS), 16, 16, 16)).astype(np.float32)
    ours, theirs = TorchRunner.from_weights(tmp_path / "byte.onnx"), OnnxRunner(tmp_path / "byte.onnx", threads=1)
    assert np.abs(ours(seen) - theirs(seen)).max() < 1e-3
    assert np.abs(ours(seen) - TorchRunner.from_weights(weights)(seen)).max() < 0.1


def test_weights_say_how_they_were_made(weights):
    from safetensors import safe_open

    with safe_open(weights, "pt") as file:
        meta = file.metadata()
    assert json.loads(meta["settings"])["cells"] == 16
    assert meta["step"] == "2"


def test_damaged_missing_and_foreign_weights_are_refused(weights, tmp_path):
    from safetensors.torch import save_file

    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(weights.read_bytes()[:500])
    foreign = tmp_path / "foreign.safetensors"
    save_file({"x": torch.zeros(2)}, foreign)
    for path in (broken, foreign, tmp_path / "nowhere.safetensors"):
        with pytest.raises(ModelError, match=path.name):
            load_network(path)
    with pytest.raises(ModelError, match="broken"):
        OnnxRunner(broken)


def test_an_export_of_damaged_missing_or_foreign_weights_is_refused_and_makes_nothing(weights, tmp_path, capsys):
    from safetensors.torch import save_file

    run_folder, model = tmp_path / "run", tmp_path / "model"
    run_folder.mkdir()
    export = ["synth", "export", str(run_folder), "-o", str(model), "--model-version", "9", "--machine", "a test"]
    path = run_folder / "weights.safetensors"

    def refused() -> str:
        assert cli.main(export) == 2 and not model.exists()
        return capsys.readouterr().err

    assert f"{path} cannot be read" in refused()
    path.write_bytes(weights.read_bytes()[:500])
    assert f"{path} cannot be read" in refused()
    for meta in (None, {"step": "2"}, {"settings": "[]", "step": "2", "hours": "0"}):
        save_file({"x": torch.zeros(2)}, path, meta)
        assert f"{path} were not written by aiassist synth train" in refused()


def test_a_model_exported_again_without_corrections_has_none(weights, tmp_path):
    made = {"name": "network", "machine": "a test"}
    export_folder(weights, tmp_path, version="1", corrections=weights, **made)
    assert (tmp_path / "corrections.onnx").exists()
    export_folder(weights, tmp_path, version="2", **made)
    assert {path.name for path in tmp_path.iterdir()} == {"weights.onnx", "card.json"}
    assert json.loads((tmp_path / "card.json").read_text(encoding="utf8"))["version"] == "2"


def test_export_takes_the_results_of_its_model_and_weights_of_its_shape(weights, tmp_path, capsys):
    run_folder = tmp_path / "run"
    run_folder.mkdir()
    shutil.copy(weights, run_folder / "weights.safetensors")
    results = tmp_path / "results.json"
    export = ["synth", "export", str(run_folder), "-o", str(tmp_path / "model"), "--model-version", "9"]
    export += ["--machine", "a test", "--results", str(results)]
    summary = {"oracle": {"dice": {"0": 0.71234, "5": 0.8}, "dice_median": {"0": 0.75, "5": 0.85}}}
    results.write_text(json.dumps({"models": {"network": {"all": summary}}}), encoding="utf8")
    assert cli.main(export) == 0
    card = json.loads((tmp_path / "model" / "card.json").read_text(encoding="utf8"))
    assert card["metrics"]["dice, mean over strata"] == 0.7123
    assert card["metrics"]["dice after 5 clicks, mean over strata"] == 0.8
    for wrong, said in (
        (["--name", "other"], "are of network, not of 'other'"),
        (["--results", "none.json"], "No such"),
        (["--mean-with", str(run_folder / "weights.safetensors"), "--mean-share", "1.5"], "--mean-share is 1.5; use"),
        (["--mean-share", "0.6"], "give --mean-with, too"),
    ):
        assert cli.main([*export, *wrong]) == 2
        assert said in capsys.readouterr().err
    results.write_text("[1, 2]", encoding="utf8")
    assert cli.main(export) == 2
    assert "is not what aiassist evaluate --json writes" in capsys.readouterr().err
    bundled = resource("Models", "network") / "weights.onnx"
    assert cli.main([*export[:-2], "--mean-with", str(bundled)]) == 2
    assert "are those of a network of" in capsys.readouterr().err


def test_convolving_cells_before_they_are_repeated_is_convolving_them_afterwards():
    torch.manual_seed(0)
    stage, below, skip = Rising(12, 8), torch.randn(2, 8, 3, 4, 5), torch.randn(2, 4, 6, 8, 10)
    repeated = F.interpolate(below, scale_factor=2.0, mode="nearest")
    wanted = Residual.forward(stage, torch.cat([repeated, skip], 1))
    assert wanted.abs().max() > 1
    assert (stage(below, skip) - wanted).abs().max() < 1e-4
