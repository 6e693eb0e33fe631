"""Training on the synthetic world."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from synth_helpers import TINY, scene

from aiassist import cli
from aiassist.errors import AIAssistError, ModelError
from aiassist.imaging import Volume, write_volume
from aiassist.resources import resource
from aiassist.segmenters.network_input import CHANNELS, SIZES
from aiassist.segmenters.torch_runner import load_network
from aiassist.synthesis import training
from aiassist.synthesis.example import example
from aiassist.synthesis.export import export_onnx
from aiassist.synthesis.fields import Draw
from aiassist.synthesis.muon import orthogonal
from aiassist.synthesis.training import Buffer, Examples, Trainer, orient


def batch_of(seed=0):
    trainer_batch = [example(seed + n, TINY.cells) for n in range(3)]
    stack = [torch.stack([getattr(e, name) for e in trainer_batch]) for name in ("channels", "truth", "valid")]
    return stack[0], stack[1].unsqueeze(1), stack[2].unsqueeze(1)


OPTIMISERS = pytest.mark.parametrize("optimiser", ["adamw", "muon"])


@OPTIMISERS
def test_training_steps_lower_the_loss(tmp_path, optimiser):
    trainer = Trainer(tmp_path, replace(TINY, steps=60, optimiser=optimiser), workers=0)
    batch = batch_of()
    losses = []
    for _ in range(40):
        losses.append(trainer.train_step(*[b.clone() for b in batch])["loss"])
        trainer.step += 1
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


@OPTIMISERS
def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch, optimiser):
    monkeypatch.setattr(training, "BUFFER", 4)  # of twelve: some are forgotten, and not all made again
    settings = replace(TINY, optimiser=optimiser)
    whole = Trainer(tmp_path / "whole", settings, workers=0)
    whole.run(save_every=100)
    first = Trainer(tmp_path / "parts", settings, workers=0)
    first.run(until=3)
    second = Trainer(tmp_path / "parts", settings, workers=0)
    assert second.step == 3
    second.run()
    assert second.step == whole.step == TINY.steps
    for name, value in whole.ema.items():
        assert torch.equal(value, second.ema[name]), name


def test_corrections_of_fewer_scans_are_kept_for_they_are_several_a_scan(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "BUFFER", 12)
    held = []
    monkeypatch.setattr(training, "Buffer", lambda seeds: held.append(seeds) or Buffer(seeds))
    Trainer(tmp_path / "first", replace(TINY, steps=1), workers=0).run()
    corrects, scans = resource("Models", "network"), Examples(TINY.cells)
    more = {"corrects": corrects, "examples": scans}
    Trainer(tmp_path / "more", replace(TINY, steps=1, corrections=True, second=0.0), workers=0, **more).run()
    assert held == [12, 3]
    buffer = Buffer(3)
    for seed in range(7):
        buffer.add(seed, [("example", seed)])
    assert [seed for seed in range(7) if seed in buffer._held] == [4, 5, 6]


FULL_DISK = """
import sys
from dataclasses import replace
from pathlib import Path
from synth_helpers import TINY
from aiassist.synthesis.training import Trainer
trainer = Trainer(Path(sys.argv[1]), replace(TINY, steps=2), workers=0)
for write in (trainer.save, lambda: trainer.write_weights(Path(sys.argv[1]) / "weights.safetensors")):
    try:
        write()
    except OSError as error:
        print(error)
"""


def test_a_full_disk_is_said_as_such_and_leaves_no_half_of_a_state(tmp_path, run_python):
    outcome = run_python("-c", FULL_DISK, tmp_path / "run", largest_file=2000, cwd=Path(__file__).parent)
    assert (outcome.stdout.count("File too large"), outcome.stderr) == (2, "")
    assert [path.name for path in (tmp_path / "run").iterdir() if not path.is_dir()] == []


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (12, 12)])
def test_a_step_of_muon_is_the_same_in_all_directions(shape):
    made = orthogonal(torch.randn(shape, generator=torch.Generator().manual_seed(0)) * torch.logspace(0, 2, shape[1]))
    sizes = torch.linalg.svdvals(made)
    assert made.shape == shape and sizes.min() > 0.5 and sizes.max() < 1.3


def test_a_run_goes_on_with_its_own_settings_only(tmp_path):
    Trainer(tmp_path, TINY, workers=0).run(until=1)
    with pytest.raises(AIAssistError, match="begun with seed 0, not 9"):
        Trainer(tmp_path, replace(TINY, seed=9), workers=0)
    assert Trainer(tmp_path, replace(TINY, steps=2), workers=0).step == 1  # a schedule may be cut


def test_a_run_goes_on_from_a_state_that_lacks_a_newer_setting_as_with_its_default(tmp_path):
    Trainer(tmp_path, TINY, workers=0).run(until=1)
    state = torch.load(tmp_path / "state.pt")
    del state["settings"]["corrections"], state["settings"]["ema"], state["settings"]["optimiser"]
    state["optimiser"] = state.pop("optimisers")[0]
    torch.save(state, tmp_path / "state.pt")
    assert Trainer(tmp_path, TINY, workers=0).step == 1
    with pytest.raises(AIAssistError, match=r"begun with ema 0\.999, not 0\.5; give the same settings"):
        Trainer(tmp_path, replace(TINY, ema=0.5), workers=0)


def spoiled_states(whole: bytes):
    """What may stand in a state's place: nothing, text, part of one, one with a wrong byte, something else."""
    yield from (b"", b"junk", bytes(2000), whole[:100], whole[:-40], b"\x80\x02K\x01.")
    yield whole.replace(b"optimisers", b"optimizers")
    for content in ([1, 2], {"settings": 3}, {"settings": asdict(TINY), "net": {}, "optimisers": []}):
        stream = io.BytesIO()
        torch.save(content, stream)
        yield stream.getvalue()


def test_a_damaged_state_is_named_and_stays(tmp_path):
    Trainer(tmp_path, TINY, workers=0).run(until=1)
    path = tmp_path / "state.pt"
    for spoiled in spoiled_states(path.read_bytes()):
        path.write_bytes(spoiled)
        with pytest.raises(AIAssistError, match=r"state\.pt is damaged .*; restore it, or delete it to begin the run"):
            Trainer(tmp_path, TINY, workers=0)
        assert path.read_bytes() == spoiled


def test_a_run_goes_on_without_the_weights_that_it_began_from(weights, tmp_path):
    start = tmp_path / "start.safetensors"
    shutil.copy(weights, start)
    Trainer(tmp_path / "run", TINY, workers=0, start=start).run(until=1)
    start.unlink()
    assert Trainer(tmp_path / "run", TINY, workers=0, start=start).step == 1
    with pytest.raises(ModelError, match=r"start\.safetensors cannot be read"):
        Trainer(tmp_path / "new", TINY, workers=0, start=start)


@pytest.mark.parametrize("spoil", ["the loss", "its gradient"])
def test_a_step_that_is_not_finite_stops_the_run_before_it_spoils_the_weights(tmp_path, monkeypatch, spoil):
    trainer = Trainer(tmp_path, TINY, workers=0)
    trainer.run(until=1)
    state, weights = (tmp_path / "state.pt").read_bytes(), (tmp_path / "weights.safetensors").read_bytes()
    before = {name: value.clone() for name, value in trainer.net.state_dict().items()}
    if spoil == "the loss":
        monkeypatch.setattr(training, "loss_of", lambda logits, truth, weight: logits.mean() * float("nan"))
    else:
        next(trainer.net.parameters()).register_hook(lambda slope: slope * float("inf"))
    advice = r"going on would repeat the step, so begin another, from other weights or, .*lower rate than 0\.002\.$"
    with pytest.raises(AIAssistError, match=rf"loss of step 2 is .*; {advice}"):
        trainer.run()
    assert all(torch.equal(value, before[name]) for name, value in trainer.net.state_dict().items())
    assert all(torch.isfinite(value).all() for value in trainer.ema.values())
    assert (tmp_path / "state.pt").read_bytes() == state
    assert (tmp_path / "weights.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("processor", "is_half"),
    [({}, False), ({"avx512_bf16": True, "amx_bf16": False}, False), ({"avx512_bf16": True, "amx_bf16": True}, True)],
)
def test_a_cpu_trains_in_half_precision_only_where_that_is_fast(tmp_path, monkeypatch, processor, is_half):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: processor, raising=False)
    trainer = Trainer(tmp_path, replace(TINY, warmup=0, second=1.0), workers=0)
    seen = []
    trainer.net.register_forward_hook(lambda net, inputs, outputs: seen.append(torch.is_autocast_enabled("cpu")))
    trainer.train_step(*batch_of())
    assert seen == [is_half, is_half]  # its own answer for a prior, then the step


def test_a_run_may_start_from_the_weights_of_another(weights, tmp_path):
    export_onnx(weights, tmp_path / "net.onnx")
    for number, start in enumerate((weights, tmp_path / "net.onnx")):
        trainer = Trainer(tmp_path / str(number), replace(TINY, steps=2), workers=0, start=start)
        wanted = load_network(start)[0].state_dict()
        for name, value in trainer.net.state_dict().items():
            assert name.startswith("half_head") or torch.equal(value, wanted[name])  # for training only, not exported


def test_a_run_on_corrections_goes_through_its_steps_and_needs_the_model_that_it_corrects(tmp_path):
    settings = replace(TINY, steps=2, fresh=1, corrections=True, second=0.0)
    with pytest.raises(ValueError, match="model whose answers it corrects"):
        Trainer(tmp_path / "none", settings, workers=0)
    trainer = Trainer(tmp_path / "run", settings, workers=0, corrects=resource("Models", "network"))
    trainer.run()
    assert trainer.step == 2 and (tmp_path / "run" / "weights.safetensors").exists()


def test_turning_an_example_turns_all_of_it_and_comes_to_every_orientation():
    places = torch.stack(torch.meshgrid(*[torch.arange(n) for n in (3, 4, 5)], indexing="ij")).float()
    channels = torch.arange(len(CHANNELS)).reshape(-1, 1, 1, 1) + 100 * (places[0] + 10 * places[1] + 100 * places[2])
    channels[:3] = places  # where each cell was
    channels[SIZES] = torch.tensor([0.5, 0.7, 3.0]).reshape(3, 1, 1, 1)
    held = channels, channels[3], channels[4] % 700 > 300
    orientations = Counter()
    for seed in range(400):
        turned, truth, valid = orient(held, Draw(seed))
        k, j, i = turned[:3].long()
        order = [next(n for n in range(3) if turned[n].diff(dim=axis).any()) for axis in range(3)]
        assert turned.shape[1:] == tuple((3, 4, 5)[axis] for axis in order)
        for part in (slice(0, SIZES.start), slice(SIZES.stop, None)):
            assert torch.equal(turned[part], channels[part][:, k, j, i])
        assert torch.equal(truth, held[1][k, j, i]) and torch.equal(valid, held[2][k, j, i])
        assert torch.equal(turned[SIZES], channels[SIZES][order, :1, :1, :1].expand(3, *truth.shape))
        orientations[(*order, *turned[:3, 0, 0, 0].tolist())] += 1
    assert len(orientations) == 48


def test_commands_preview_and_train(tmp_path, capsys):
    sheet = tmp_path / "sheet.png"
    assert cli.main(["synth", "preview", "-o", str(sheet), "--count", "4"]) == 0
    assert sheet.stat().st_size > 10_000
    train = ["synth", "train", str(tmp_path / "run"), "--steps", "2", "--batch", "2", "--fresh", "1", "--cells", "16"]
    _, truth, _ = scene()
    case = tmp_path / "cases" / "one"
    case.mkdir(parents=True)
    write_volume(case / "image.nii.gz", scene()[0])
    write_volume(case / "label.nii.gz", Volume(truth, scene()[0].geometry))
    probe = ["--probe", str(tmp_path / "cases"), "--probe-every", "2"]
    assert cli.main([*train, "--widths", "8", "8", "--workers", "0", *probe]) == 0
    assert (tmp_path / "run" / "weights.safetensors").exists()
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text(encoding="utf8").splitlines()]
    assert [entry["step"] for entry in log] == [1, 2, 2]
    assert 0 <= log[2]["probe/dice"] <= 1
    capsys.readouterr()
    assert cli.main([*train[:3], "--steps", "0"]) == 2
    assert "--steps is 0" in capsys.readouterr().err
    assert cli.main([*train, "--widths", "8"]) == 2
    assert "--widths [8]" in capsys.readouterr().err
    assert cli.main([*train, "--probe-every", "0"]) == 2
    assert "--probe-every is 0" in capsys.readouterr().err
    for wrong in (["--rate", "-1"], ["--rate", "nan"], ["--rate", "inf"], ["--workers", "-1"], ["--minutes", "nan"]):
        assert cli.main([*train[:3], *wrong]) == 2
        assert capsys.readouterr().err.startswith(f"aiassist: {wrong[0]} is {wrong[1]}")
    model = tmp_path / "no weights"
    model.mkdir()
    shutil.copy(resource("Models", "network") / "card.json", model)
    assert cli.main([*train, "--corrects", str(model)]) == 2
    assert "weights.onnx cannot be read" in capsys.readouterr().err
