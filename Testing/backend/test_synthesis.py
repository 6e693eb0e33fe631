"""The synthetic world, the training on it, and the network's segmenter."""

import io
import json
import shutil
from collections import Counter
from dataclasses import asdict, replace
from functools import cache

import numpy as np
import pytest
import torch

from aiassist import cli
from aiassist.errors import AIAssistError, ModelError
from aiassist.imaging import Geometry, MaskPatch, Volume, write_volume
from aiassist.prompts import Prompts
from aiassist.resources import resource
from aiassist.segmenters.base import ModelCard, Promptable, run
from aiassist.segmenters.cube import Cube
from aiassist.segmenters.geodesic import solve
from aiassist.segmenters.grey_channels import window
from aiassist.segmenters.marks import Marks, blobs
from aiassist.segmenters.network_input import (
    CHANNELS,
    CLICKS,
    EVIDENCE,
    FORMER,
    GREY,
    GUESS,
    GUESS_CELLS,
    INSIDE,
    SIZES,
    WIDE,
    channels,
    sample_guess,
    show_prior,
)
from aiassist.segmenters.onnx_runner import OnnxRunner
from aiassist.segmenters.promptable import PromptableNetwork
from aiassist.segmenters.settle import Borders
from aiassist.segmenters.torch_runner import TorchRunner, load_network
from aiassist.synthesis import training
from aiassist.synthesis.corrections import CLICKS as CLICKS_A_SCAN
from aiassist.synthesis.corrections import corrections
from aiassist.synthesis.example import STARTS, example
from aiassist.synthesis.export import export_folder, export_onnx
from aiassist.synthesis.fields import Draw, grid_points
from aiassist.synthesis.scene import Scene
from aiassist.synthesis.shapes import FAMILIES, mottled, repeated, severed, tube
from aiassist.synthesis.training import Settings, Trainer, orient

TINY = Settings(steps=6, batch=3, fresh=2, cells=16, widths=(8, 8), warmup=1, second=0.7)


@cache
def examples():
    """Forty examples, once for all tests: every family and kind is among them."""
    return [example(seed, 24) for seed in range(40)]


# The world


def test_same_seed_gives_the_same_example_and_another_seed_another():
    again = example(3, 24)
    assert torch.equal(again.channels, examples()[3].channels)
    assert torch.equal(again.truth, examples()[3].truth)
    assert not torch.equal(again.channels, examples()[4].channels)


def test_every_family_and_every_kind_of_prompt_occurs():
    families, kinds = (Counter(getattr(e, name) for e in examples()) for name in ("family", "kind"))
    assert set(families) == {maker.__name__ for maker in FAMILIES}
    assert set(kinds) >= {"points", "few points", "box"}
    assert set(kinds) <= set(STARTS)


def test_targets_are_in_sight_and_all_values_are_finite():
    shares = [float((e.truth > 0.5).float().mean()) for e in examples() if e.kind == "points"]
    assert min(shares) > 0 and np.mean(shares) < 0.5
    for made in examples():
        assert made.channels.shape == (len(CHANNELS), 24, 24, 24)
        assert torch.isfinite(made.channels).all()
        assert not (made.truth[~made.valid] > 0).any()


def test_some_targets_are_cut_by_the_volume_and_the_outside_is_marked():
    outside = [not bool(made.valid.all()) for made in examples()]
    assert 0.2 < np.mean(outside) < 0.95
    made = next(m for m, o in zip(examples(), outside, strict=True) if o)
    assert (made.channels[0][~made.valid] == 0).all()
    assert (made.channels[CHANNELS.index("inside the volume")] == made.valid).all()


def parts_of(shape):
    """The part at each of forty points an axis, and which of them are the target."""
    parts = shape.parts(grid_points(torch.full((3,), -1.0), torch.full((3,), 1.0), (40,) * 3))
    return parts, torch.isin(parts, torch.tensor(shape.target))


@pytest.mark.parametrize("maker", FAMILIES)
def test_shapes_have_the_parts_that_they_say(maker):
    for seed in range(12):
        shape = maker(Draw(seed))
        parts, target = parts_of(shape)
        assert shape.family == maker.__name__ and int(parts.max()) <= shape.count
        assert target.any() and not target.all()
        assert set(shape.target) <= set(range(1, shape.count + 1))
        assert all(1 <= part <= shape.count for pair in shape.alike for part in pair)


def test_a_severed_shape_goes_on_beyond_its_end_in_the_same_tissue():
    for seed in range(12):
        whole = repeated(Draw(seed))
        end = severed(Draw(100 + seed), whole)
        _, before = parts_of(whole)
        parts, target = parts_of(end)
        assert 0.2 < target.sum() / before.sum() < 0.95 and not (target & ~before).any()
        twins = dict(end.alike)
        beyond = set(parts[before & ~target].tolist())
        assert beyond and all(twins[part] == part - whole.count for part in beyond)


def test_a_mottled_shape_keeps_its_outline_and_has_more_tissues():
    for seed in range(12):
        plain = tube(Draw(seed))
        mixed = mottled(Draw(100 + seed), plain)
        _, before = parts_of(plain)
        _, target = parts_of(mixed)
        assert torch.equal(before, target) and len(mixed.target) > len(plain.target)


def test_tissues_that_are_alike_are_the_scenes_own_and_often_lie_beyond_the_target():
    scenes = [Scene(Draw(seed)) for seed in range(60)]
    for made in scenes:
        assert all(made.tissues <= label < made.air for pair in made.alike for label in pair)
    beyond = [any(a not in s.target_labels and b in s.target_labels for a, b in s.alike) for s in scenes]
    assert 0.2 < np.mean(beyond) < 0.6


@cache
def courses():
    """Corrections of the classical segmenter's and other faulty masks, and of a model that answers with its guess."""
    watched = PromptableNetwork(Watcher, ModelCard("watcher", "0", "promptable", "A test."))
    return [corrections(seed, 24, watched) for seed in range(8)]


def test_a_scan_gets_several_clicks_each_in_an_error_of_the_mask_it_shows():
    assert {len(course) for course in courses()} <= set(range(1, CLICKS_A_SCAN + 1))
    assert max(len(course) for course in courses()) == CLICKS_A_SCAN
    for course in courses():
        for made in course:
            assert made.kind == "correction" and made.channels[CHANNELS.index("has a prior mask")].min() == 1
            near = made.channels[GUESS]
            assert near.abs().max() > 0.5  # what hangs together with the click
            place = np.unravel_index(int(near.abs().argmax()), near.shape)
            assert float(made.channels[CLICKS[0 if near[place] > 0 else 1]][place]) > 0.5


def test_corrections_of_a_seed_are_the_same_every_time():
    watched = PromptableNetwork(Watcher, ModelCard("watcher", "0", "promptable", "A test."))
    again = corrections(2, 24, watched)
    assert all(torch.equal(a.channels, b.channels) for a, b in zip(again, courses()[2], strict=True))


# What the network sees


class Watcher:
    """A runner that keeps what it is shown and answers from one channel."""

    cells, inputs = 32, len(CHANNELS)

    def __init__(self):
        self.shown = []

    def __call__(self, seen):
        self.shown.append(seen.copy())
        return 8 * seen[CHANNELS.index("guess of the classical segmenter")]


def test_a_click_shows_the_network_what_training_would():
    """Training crops from a whole scan, a click from a region of the study; the cells must be the same."""
    volume, _, points = scene()
    watcher = Watcher()
    run(
        PromptableNetwork(lambda: watcher, ModelCard("watcher", "0", "promptable", "A test.")).annotate(
            volume, Prompts(extreme_points=points)
        )
    )
    prompts = Prompts(extreme_points=points)
    low, high = (corner[::-1] for corner in prompts.box_ijk(volume.geometry))
    cube = Cube.around(low, high, volume.shape, volume.geometry.spacing_kji, watcher.cells)
    (cells, valid), marks = cube.sample(volume.voxels), Marks.of(prompts, cube)
    limits = window(cells, valid, marks)
    guess = sample_guess(cube, *run(solve(volume, prompts, GUESS_CELLS, limits)))
    expected = channels(np.clip(cells, *limits), valid, cube, marks, None, guess)
    first, second = watcher.shown
    assert np.abs(first - expected).max() < 1e-4
    guess = expected[CHANNELS.index("guess of the classical segmenter")]
    answer = Borders(expected[WIDE], expected[INSIDE] > 0).settle(8 * guess)
    show_prior(expected, (answer > 0).astype(np.float32))
    assert np.abs(second - expected).max() < 1e-3


def test_the_guess_lies_where_the_structure_lies():
    volume, truth, points = scene()
    watcher = Watcher()
    network = PromptableNetwork(lambda: watcher, ModelCard("watcher", "0", "promptable", "A test."))
    mask = run(network.annotate(volume, Prompts(extreme_points=points))).to_mask(volume.shape)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.93


def test_cells_beyond_the_volume_are_not_valid():
    cube = Cube.around([-5, 2, 2], [5, 12, 12], (20, 20, 20), (1, 1, 1), 20)
    cells, valid = cube.sample(np.ones((20, 20, 20), np.float32))
    assert not valid[:8].any() and valid[10:].all()
    assert np.allclose(cells[valid], 1) and not cells[~valid].any()


def test_averaging_fewer_voxels_of_large_structures_changes_little():
    k, j, i = np.meshgrid(*[np.linspace(0, 6, 200)] * 3, indexing="ij")
    voxels = (np.sin(k) + np.cos(j + i)).astype(np.float32)
    cube = Cube.around([10, 20, 30], [190, 180, 170], voxels.shape, (1, 1, 1), 32)
    thin, few = cube.thinned()
    assert voxels[few].size < voxels.size / 6
    (whole, valid), (part, still_valid) = cube.sample(voxels), thin.sample(voxels[few])
    assert np.mean(valid != still_valid) < 0.02
    assert np.abs(whole - part)[valid & still_valid].max() < 0.06


def test_marks_are_gaussians_at_their_places_and_may_lie_beyond_the_cube():
    marks = blobs(np.array([[10.0, 12.5, 3.0], [-2.0, 5.0, 5.0], [90.0, 5.0, 5.0]]), 32)
    k, j, i = np.indices(marks.shape)
    near = np.exp(-0.5 * ((k - 10) ** 2 + (j - 12.5) ** 2 + (i - 3) ** 2) / 1.5**2)
    beyond = np.exp(-0.5 * ((k + 2) ** 2 + (j - 5) ** 2 + (i - 5) ** 2) / 1.5**2)
    assert np.abs(marks - np.maximum(near, beyond)).max() < 1e-3


def block():
    """A bright block in noise, the cube over it, and its ends in cells."""
    voxels = np.random.default_rng(0).normal(0, 1, (40, 40, 40)).astype(np.float32)
    voxels[10:30, 10:30, 10:30] += 10
    cube = Cube.around([9.5] * 3, [29.5] * 3, voxels.shape, (1, 1, 1), 32)
    ends = [[10, 20, 20], [29, 20, 20], [20, 10, 20], [20, 29, 20], [20, 20, 10], [20, 20, 29]]
    return voxels, cube, Marks(extreme=cube.to_cells(ends))


def test_local_grey_is_near_zero_inside_and_evidence_is_high():
    voxels, cube, marks = block()
    seen = channels(*cube.sample(voxels), cube, marks)
    inside = (slice(8, 24),) * 3
    assert abs(seen[0][inside]).mean() < 0.55 < 0.9 < abs(seen[0][:2]).mean()
    assert seen[2][inside].mean() > 0.6 > -0.1 > seen[2][:2].mean()


def test_with_a_prior_its_grey_levels_are_the_evidence_but_not_around_clicks_that_contradict_it():
    voxels, cube, _ = block()
    prior = np.zeros_like(voxels)
    prior[10:30, 10:30, 10:20] = 1  # half the block
    marks = Marks(positive=cube.to_cells([[20, 20, 25]]))
    seen = channels(*cube.sample(voxels), cube, marks, cube.sample(prior)[0])
    assert seen[2][8:24, 8:24, 8:24].mean() > 0.3 > -0.5 > seen[2][:2].mean()


def test_the_window_holds_the_organ_and_its_neighbours_but_not_the_air():
    voxels, cube, marks = block()
    voxels[:, :5], voxels[:, 35:] = -1000, 3000  # air and metal
    low, high = window(*cube.sample(voxels), marks)
    assert -100 < low < -3 and 13 < high < 120
    prior = np.zeros_like(voxels)
    prior[10:30, 10:30, 10:30] = 1
    low, high = window(*cube.sample(voxels), Marks(), cube.sample(prior)[0])
    assert -100 < low < -3 and 13 < high < 120


def test_air_in_the_crop_does_not_use_up_the_scale():
    voxels, cube, marks = block()
    cells, valid = cube.sample(voxels)
    plain = channels(np.clip(cells, *window(cells, valid, marks)), valid, cube, marks)
    voxels[:, :8] = -1000
    cells, valid = cube.sample(voxels)
    airy = channels(np.clip(cells, *window(cells, valid, marks)), valid, cube, marks)
    inside, beside = (slice(8, 24),) * 3, (slice(8, 24), slice(8, 24), slice(0, 3))
    for seen in (plain, airy):
        assert abs(abs(seen[GREY][inside]).mean() - abs(seen[GREY][beside]).mean()) > 0.4
        assert seen[EVIDENCE][inside].mean() - seen[EVIDENCE][beside].mean() > 0.7


def test_a_volume_of_one_grey_level_stays_as_it_is():
    _, cube, marks = block()
    cells, valid = cube.sample(np.full((40, 40, 40), 7, np.float32))
    assert np.array_equal(np.clip(cells, *window(cells, valid, marks))[valid], cells[valid])


# Training


def batch_of(seed=0):
    trainer_batch = [example(seed + n, TINY.cells) for n in range(3)]
    stack = [torch.stack([getattr(e, name) for e in trainer_batch]) for name in ("channels", "truth", "valid")]
    return stack[0], stack[1].unsqueeze(1), stack[2].unsqueeze(1)


def test_training_steps_lower_the_loss(tmp_path):
    trainer = Trainer(tmp_path, replace(TINY, steps=60), workers=0)
    batch = batch_of()
    losses = []
    for _ in range(40):
        losses.append(trainer.train_step(*[b.clone() for b in batch])["loss"])
        trainer.step += 1
    assert np.mean(losses[-5:]) < 0.85 * np.mean(losses[:5])


def test_a_resumed_run_ends_as_an_uninterrupted_one(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "BUFFER", 4)  # of twelve: some are forgotten, and not all made again
    whole = Trainer(tmp_path / "whole", TINY, workers=0)
    whole.run(save_every=100)
    first = Trainer(tmp_path / "parts", TINY, workers=0)
    first.run(until=3)
    second = Trainer(tmp_path / "parts", TINY, workers=0)
    assert second.step == 3
    second.run()
    assert second.step == whole.step == TINY.steps
    for name, value in whole.ema.items():
        assert torch.equal(value, second.ema[name]), name


def test_a_run_goes_on_with_its_own_settings_only(tmp_path):
    Trainer(tmp_path, TINY, workers=0).run(until=1)
    with pytest.raises(AIAssistError, match="begun with seed 0, not 9"):
        Trainer(tmp_path, replace(TINY, seed=9), workers=0)
    assert Trainer(tmp_path, replace(TINY, steps=2), workers=0).step == 1  # a schedule may be cut


def test_a_run_goes_on_from_a_state_that_lacks_a_newer_setting_as_with_its_default(tmp_path):
    Trainer(tmp_path, TINY, workers=0).run(until=1)
    state = torch.load(tmp_path / "state.pt")
    del state["settings"]["corrections"], state["settings"]["ema"]
    torch.save(state, tmp_path / "state.pt")
    assert Trainer(tmp_path, TINY, workers=0).step == 1
    with pytest.raises(AIAssistError, match=r"begun with ema 0\.999, not 0\.5; give the same settings"):
        Trainer(tmp_path, replace(TINY, ema=0.5), workers=0)


def spoiled_states(whole: bytes):
    """What may stand in a state's place: nothing, text, part of one, one with a wrong byte, something else."""
    yield from (b"", b"junk", bytes(2000), whole[:100], whole[:-40], b"\x80\x02K\x01.")
    yield whole.replace(b"optimiser", b"optimizer")
    for content in ([1, 2], {"settings": 3}, {"settings": asdict(TINY), "net": {}, "optimiser": {}}):
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
    with pytest.raises(AIAssistError, match=r"loss of step 2 is .*; begin another with a lower rate than 0\.002\.$"):
        trainer.run()
    assert all(torch.equal(value, before[name]) for name, value in trainer.net.state_dict().items())
    assert all(torch.isfinite(value).all() for value in trainer.ema.values())
    assert (tmp_path / "state.pt").read_bytes() == state
    assert (tmp_path / "weights.safetensors").read_bytes() == weights


@pytest.mark.parametrize(("processor", "is_half"), [("AVX2", False), ("DEFAULT", False), ("AVX512", True)])
def test_a_cpu_trains_in_half_precision_only_where_that_is_fast(tmp_path, monkeypatch, processor, is_half):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: processor)
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


# Weights, ONNX, and the segmenter


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights of a few steps, as training leaves them."""
    folder = tmp_path_factory.mktemp("run")
    Trainer(folder, replace(TINY, steps=2), workers=0).run()
    return folder / "weights.safetensors"


def test_an_export_may_be_the_mean_with_other_weights(weights, tmp_path):
    Trainer(tmp_path / "other", replace(TINY, steps=2, seed=5), workers=0).run()
    export_onnx(weights, tmp_path / "mean.onnx", mean_with=tmp_path / "other" / "weights.safetensors")
    mean, one, two = (
        load_network(path)[0].state_dict()
        for path in (tmp_path / "mean.onnx", weights, tmp_path / "other" / "weights.safetensors")
    )
    name = "down.0.0.first.weight"
    assert not torch.equal(one[name], two[name])
    assert torch.allclose(mean[name], (one[name] + two[name]) / 2, atol=1e-3)


def test_torch_and_onnx_agree(weights, tmp_path):
    export_onnx(weights, tmp_path / "net.onnx")
    channels = examples()[1].channels[:, ::2, ::2, ::2][:, :, :, :].numpy()
    channels = np.pad(channels, ((0, 0), (0, 4), (0, 4), (0, 4)))
    ours, theirs = TorchRunner.from_weights(weights), OnnxRunner(tmp_path / "net.onnx", threads=1)
    assert ours.cells == theirs.cells == 16
    assert np.abs(ours(channels) - theirs(channels)).max() < 1e-3
    again = TorchRunner.from_weights(tmp_path / "net.onnx")
    assert np.abs(again(channels) - ours(channels)).max() < 1e-5


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


def scene():
    """A bright ball in noise, anisotropic voxels, and its six points."""
    geometry = Geometry.from_spacing((20, 40, 40), (1.0, 1.0, 3.0))
    k, j, i = np.indices(geometry.shape)
    mask = ((k - 10) * 3) ** 2 + (j - 20) ** 2 + (i - 20) ** 2 <= 15**2
    grey = np.where(mask, 50, 0) + np.random.default_rng(0).normal(0, 5, geometry.shape)
    points = [[5, 20, 10], [35, 20, 10], [20, 5, 10], [20, 35, 10], [20, 20, 5], [20, 20, 15]]
    return Volume(grey.astype(np.float32), geometry), mask, points


def segmenter(weights):
    return PromptableNetwork(
        lambda: TorchRunner.from_weights(weights), ModelCard("network", "0", "promptable", "A test.")
    )


def test_network_segmenter_follows_the_protocol_and_honours_clicks(weights):
    volume, _, points = scene()
    network = segmenter(weights)
    assert isinstance(network, Promptable)
    prompts = Prompts(extreme_points=points, positive=[[20, 20, 10], [2, 2, 1]], negative=[[20, 12, 9]])
    mask = run(network.annotate(volume, prompts)).to_mask(volume.shape)
    assert mask[10, 20, 20] and mask[1, 2, 2] and not mask[9, 12, 20]


def test_a_click_that_an_earlier_one_satisfied_takes_no_pass_and_the_corrector_sees_its_own_cells():
    volume, truth, _ = scene()
    corrector = Watcher()
    corrector.cells = 24
    network = PromptableNetwork(Watcher, ModelCard("watcher", "0", "promptable", "A test."), lambda: corrector)
    prompts = Prompts(prior=MaskPatch.of_mask(truth), negative=[[20, 20, 10], [21, 20, 10]])
    after = run(network.annotate(volume, prompts)).over(prompts.prior).to_mask(volume.shape)
    assert not after[10, 20, 20] and not after[10, 20, 21]
    assert [seen.shape for seen in corrector.shown] == [(len(CHANNELS), 24, 24, 24)]


@pytest.mark.parametrize("positive", [True, False])
def test_network_corrections_are_one_sided_and_local(weights, positive):
    volume, truth, points = scene()
    before = truth.copy()
    before[:, :, 20:] = not positive
    click = [[28, 20, 10]] if positive else [[38, 4, 3]]
    side = {"positive": click} if positive else {"negative": click}
    prior = MaskPatch.of_mask(before)
    prompts = Prompts(extreme_points=points, prior=prior, **side)
    patch = run(segmenter(weights).annotate(volume, prompts))
    after = patch.over(prior).to_mask(volume.shape)
    place = tuple(int(c) for c in click[0][::-1])
    assert after[place] == positive
    assert not ((before & ~after) if positive else (after & ~before)).any()
    changed = np.argwhere(after != before)
    distance = np.linalg.norm((changed - place) * np.array(volume.geometry.spacing_kji), axis=1)
    assert distance.max() <= 30.0


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
    model = tmp_path / "no weights"
    model.mkdir()
    shutil.copy(resource("Models", "network") / "card.json", model)
    assert cli.main([*train, "--corrects", str(model)]) == 2
    assert "weights.onnx cannot be read" in capsys.readouterr().err


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
    ):
        assert cli.main([*export, *wrong]) == 2
        assert said in capsys.readouterr().err
    results.write_text("[1, 2]", encoding="utf8")
    assert cli.main(export) == 2
    assert "is not what aiassist evaluate --json writes" in capsys.readouterr().err
    bundled = resource("Models", "network") / "weights.onnx"
    assert cli.main([*export[:-2], "--mean-with", str(bundled)]) == 2
    assert "are those of a network of" in capsys.readouterr().err
