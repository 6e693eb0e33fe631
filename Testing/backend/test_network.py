"""The bundled network as it ships: how good it is on a real CT, and what must not matter to it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage

from aiassist import cli
from aiassist.errors import ModelError
from aiassist.evaluation.annotator import jitter, oracle_click
from aiassist.evaluation.metrics import dice
from aiassist.imaging import Geometry, MaskPatch, Region, Volume, read_labelmap, read_volume
from aiassist.prompts import Prompts, Scribble, extreme_points
from aiassist.resources import resource
from aiassist.segmenters.base import run
from aiassist.segmenters.network_input import PRIOR
from aiassist.segmenters.onnx_runner import OnnxRunner
from aiassist.segmenters.registry import DEFAULT, FINE, bundled, load_network_folder
from aiassist.segmenters.torch_runner import TorchRunner

FOLDER = resource("Models", "network")
#: Value in the bundled labelmap, and the least mean Dice over two draws of six points: .03 below what was measured.
FLOORS = {
    "spleen": (1, 0.91),
    "kidney_right": (2, 0.88),
    "kidney_left": (3, 0.89),
    "liver": (5, 0.73),
    "urinary_bladder": (21, 0.92),
}


@cache
def network():
    return bundled(threads=1).get("network")


@cache
def torso() -> tuple[Volume, np.ndarray]:
    """The bundled CT and its labelmap."""
    volume = read_volume(resource("SampleData", "ts_ct_torso", "image.nii.gz"))
    return volume, read_labelmap(resource("SampleData", "ts_ct_torso", "label.nii.gz"), like=volume).voxels


def truth(name: str) -> np.ndarray:
    return torso()[1] == FLOORS[name][0]


def segment(prompts: Prompts, volume: Volume | None = None) -> np.ndarray:
    """The whole mask after the prompts, prior included."""
    volume = volume or torso()[0]
    prompts.check(volume.geometry)
    return run(network().annotate(volume, prompts)).over(prompts.prior).to_mask(volume.shape)


def six_points(name: str, seed: int = 0) -> Prompts:
    return Prompts(extreme_points=extreme_points(truth(name), np.random.default_rng(seed)))


def test_it_is_the_default_and_small_and_says_what_it_learned_from():
    card = network().card
    assert card.name == DEFAULT
    assert sum((FOLDER / file).stat().st_size for file in ("weights.onnx", "corrections.onnx")) <= 16 * 2**20
    assert card.licence == "Apache-2.0" and "synthetic" in card.provenance
    assert {"dice, mean over strata", "steps", "hours"} <= set(card.metrics)


def test_no_extreme_point_is_left_far_from_the_answer():
    duodenum = torso()[1] == 19
    points = extreme_points(duodenum, np.random.default_rng([0, 0, 19]))
    away = ndimage.distance_transform_edt(~segment(Prompts(extreme_points=points)))
    assert away[tuple(points[:, ::-1].astype(int).T)].max() <= 4  # 8 where the answer ends without a click there


@pytest.mark.parametrize("name", FLOORS)
def test_six_points_reach_a_floor_on_a_real_ct(name):
    found = [dice(segment(six_points(name, seed)), truth(name)) for seed in (0, 1)]
    assert np.mean(found) >= FLOORS[name][1]


@pytest.mark.parametrize("name", ["spleen", "kidney_right"])
def test_orientation_matters_little(name):
    volume, prompts = torso()[0], six_points(name)
    upright = segment(prompts)
    turned = Volume(np.ascontiguousarray(volume.voxels[::-1].transpose(0, 2, 1)), _turned(volume.geometry))
    last = volume.shape[0] - 1
    points = prompts.extreme_points[:, [1, 0, 2]] * [1, 1, -1] + [0, 0, last]
    found = segment(Prompts(extreme_points=points), turned)
    assert dice(found.transpose(0, 2, 1)[::-1], upright) > 0.95


def _turned(geometry: Geometry) -> Geometry:
    k, j, i = geometry.shape
    sizes = geometry.spacing
    return Geometry.from_spacing((k, i, j), (sizes[1], sizes[0], sizes[2]))


@pytest.mark.parametrize(("scale", "offset"), [(0.01, 0.0), (37.0, -5000.0), (1.0, 1e5)])
def test_the_scale_of_grey_levels_does_not_matter(scale, offset):
    volume, prompts = torso()[0], six_points("spleen")
    other = Volume((volume.voxels * scale + offset).astype(np.float64), volume.geometry)
    assert dice(segment(prompts, other), segment(prompts)) > 0.97


def test_clicks_are_honoured_one_sided_and_local():
    volume, prompts = torso()[0], six_points("spleen")
    start = segment(prompts)
    prior = MaskPatch.of_mask(start)
    k, j, i = np.argwhere(start & truth("spleen"))[1000]
    for side, place in (("negative", (i, j, k)), ("positive", tuple(prompts.extreme_points[4] - [0, 0, 3]))):
        after = segment(Prompts(extreme_points=prompts.extreme_points, prior=prior, **{side: [place]}))
        clicked = tuple(round(c) for c in place[::-1])
        assert after[clicked] == (side == "positive")
        assert not ((after & ~start) if side == "negative" else (start & ~after)).any()
        changed = np.argwhere(after != start)
        away = np.linalg.norm((changed - clicked) * np.array(volume.geometry.spacing_kji), axis=1)
        assert away.max() <= 30.0


@pytest.mark.parametrize(
    "prompts",
    [
        Prompts(positive=[[30, 35, 100]]),
        Prompts(box=[[8, 20, 84], [46, 60, 111]]),
        Prompts(line=[[12, 40, 100], [40, 40, 100]]),
        Prompts(extreme_points=[[10, 46, 102], [43, 44, 110], [26, 21, 103]]),
    ],
)
def test_fewer_prompts_give_a_mask_around_them(prompts):
    mask = segment(prompts)
    assert 50 < mask.sum() < 60_000


@pytest.mark.parametrize("name", ["spleen", "kidney_left", "urinary_bladder"])
def test_points_moved_as_a_hand_moves_them_lose_little(name):
    rng, geometry = np.random.default_rng(4), torso()[0].geometry
    exact = six_points(name)
    found = [segment(Prompts(extreme_points=jitter(exact.extreme_points, geometry, rng))) for _ in range(3)]
    assert np.mean([dice(mask, truth(name)) for mask in found]) > dice(segment(exact), truth(name)) - 0.06


@pytest.mark.parametrize("name", ["liver", "kidney_right"])
def test_clicks_into_the_largest_errors_raise_dice(name):
    prompts, mask = six_points(name), segment(six_points(name))
    scores = [dice(mask, truth(name))]
    for _ in range(3):
        click = oracle_click(truth(name), mask, torso()[0].geometry.spacing_kji)
        side = "positive" if click.positive else "negative"
        prompts = replace(prompts, prior=MaskPatch.of_mask(mask), **{side: [*getattr(prompts, side), click.point]})
        mask = segment(prompts)
        scores.append(dice(mask, truth(name)))
    assert scores[-1] > scores[0] + 0.01 and min(np.diff(scores)) > -0.02


@pytest.mark.parametrize("file", ["weights.onnx", "corrections.onnx"])
def test_torch_and_onnx_runtime_agree_on_the_weights_that_ship(file):
    ours, theirs = TorchRunner.from_weights(FOLDER / file), OnnxRunner(FOLDER / file)
    assert (ours.inputs, ours.cells) == (theirs.inputs, theirs.cells)
    for cells in (48, 64) if theirs.takes_any else (48,):
        seen = np.random.default_rng(0).normal(0, 0.5, (ours.inputs, *(cells,) * 3)).astype(np.float32)
        assert np.abs(ours(seen) - theirs(seen)).max() < 0.01


def test_the_fine_one_looks_at_finer_cells_at_last_with_its_answer_as_the_prior():
    plain, sacrum = load_network_folder(FOLDER), torso()[1] == 26  # its first vertebra
    fine, seen = plain.finer(FINE), []
    runner = fine.runner

    def noting(channels):
        seen.append((len(channels[0]), float(channels[PRIOR + 1].max())))
        return runner(channels)

    noting.cells, noting.inputs, noting.takes_any = runner.cells, runner.inputs, True
    fine.runner = plain.runner = noting
    points = Prompts(extreme_points=extreme_points(sacrum, np.random.default_rng(0)))
    found = run(fine.annotate(torso()[0], points)).to_mask(sacrum.shape)
    assert [cells for cells, _ in seen] == [48] * (len(seen) - 1) + [64]
    assert [prior for _, prior in seen] == [0.0] + [1.0] * (len(seen) - 1)
    seen.clear()
    coarse = run(plain.annotate(torso()[0], points)).to_mask(sacrum.shape)
    assert {cells for cells, _ in seen} == {48}
    assert dice(found, sacrum) > dice(coarse, sacrum) + 0.01
    noting.takes_any = False  # as weights of before
    assert (run(fine.annotate(torso()[0], points)).to_mask(sacrum.shape) == coarse).all()


def test_both_have_the_same_weights_in_memory():
    registry = bundled(threads=1)
    plain, fine = registry.get(DEFAULT), registry.get(FINE)
    assert fine.runner is plain.runner and fine.corrector is plain.corrector


def test_the_fine_one_is_offered_beside_the_default():
    cards = {card.name: card for card in bundled().cards()}
    assert list(cards)[:2] == [DEFAULT, FINE] and cards[FINE].kind == "promptable"
    assert cards[FINE].version == cards[DEFAULT].version and "with one more pass" in cards[FINE].description
    assert cards[FINE].quick == DEFAULT and cards[DEFAULT].quick == ""


def test_missing_damaged_and_foreign_weights_are_named(tmp_path):
    shutil.copy(FOLDER / "card.json", tmp_path)
    model = load_network_folder(tmp_path)
    with pytest.raises(ModelError, match=r"weights\.onnx"):
        run(model.annotate(torso()[0], six_points("spleen")))
    (tmp_path / "weights.onnx").write_bytes((FOLDER / "weights.onnx").read_bytes()[:100_000])
    with pytest.raises(ModelError, match=r"weights\.onnx"):
        run(load_network_folder(tmp_path).annotate(torso()[0], six_points("spleen")))
    shutil.copy(FOLDER / "weights.onnx", tmp_path)
    (tmp_path / "corrections.onnx").write_bytes(b"no network")
    model = load_network_folder(tmp_path)
    start = run(model.annotate(torso()[0], six_points("spleen")))
    with pytest.raises(ModelError, match=r"corrections\.onnx"):
        click = {"negative": [np.argwhere(start.mask)[0][::-1] + start.region.start[::-1]]}
        run(model.annotate(torso()[0], Prompts(prior=start, **click)))
    (tmp_path / "card.json").write_text("{", encoding="utf8")
    with pytest.raises(ModelError, match=r"card\.json"):
        load_network_folder(tmp_path)
    (tmp_path / "card.json").unlink()
    with pytest.raises(ModelError, match=r"card\.json"):
        load_network_folder(tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_without_a_gpu_asking_for_one_is_answered_clearly(tmp_path, capsys):
    image = resource("SampleData", "ts_ct_torso", "image.nii.gz")
    points = ["10,46,102", "43,44,110", "26,21,103", "15,57,90", "16,39,82", "35,27,111"]
    out = tmp_path / "mask.nii.gz"
    assert cli.main(["annotate", str(image), "-o", str(out), "--device", "cuda", "--point", *points]) == 2
    assert "no cuda device" in capsys.readouterr().err and not out.exists()


def disc_in_noise(shape, radius, centre) -> tuple[Volume, np.ndarray]:
    """A bright ball (k, j, i), a disc in a picture, in noise; and which voxels it holds."""
    k, j, i = np.ogrid[tuple(slice(0, n) for n in shape)]
    inside = (k - centre[0]) ** 2 + (j - centre[1]) ** 2 + (i - centre[2]) ** 2 <= radius**2
    voxels = np.random.default_rng(0).normal(0, 10, shape) + 60 * inside
    return Volume(voxels.astype(np.float32), Geometry.from_spacing(shape)), inside


@pytest.mark.parametrize("shape", [(1, 400, 400), (2, 400, 400)])
@pytest.mark.parametrize("radius", [15, 80, 150])
def test_a_picture_and_two_slices_work(shape, radius):
    volume, inside = disc_in_noise(shape, radius, (0, 200, 200))
    prompts = Prompts(extreme_points=extreme_points(inside, np.random.default_rng(0)))
    assert dice(segment(prompts, volume), inside) > 0.93


def test_a_long_stroke_is_looked_at_from_end_to_end():
    voxels = np.random.default_rng(0).normal(0, 5, (30, 30, 220)).astype(np.float32)
    inside = np.zeros(voxels.shape, bool)
    inside[10:20, 10:20, 20:200] = True
    volume = Volume(voxels + 60 * inside, Geometry.from_spacing(voxels.shape))
    prior = inside.copy()
    prior[:, :, 70:] = False
    stroke = Scribble([[72, 15, 15], [195, 15, 15]])
    found = segment(Prompts(prior=MaskPatch.of_mask(prior), scribbles=(stroke,)), volume)
    far = found[:, :, 160:]
    assert (far & inside[:, :, 160:]).sum() > 3 * far.shape[2]  # more than the stroke's own voxels


def test_a_prior_counts_by_its_voxels_not_by_the_region_it_comes_in():
    before = segment(six_points("spleen"))
    click = np.argwhere(before)[500][::-1]
    tight, loose = MaskPatch.of_mask(before), MaskPatch(Region((0, 0, 0), before.shape), before)
    found = [segment(Prompts(prior=prior, negative=[click])) for prior in (tight, loose)]
    assert np.array_equal(*found) and found[0].sum() < before.sum()
