"""The ruler measures what it says: simulated prompts, measures, means, and the command."""

import json
import pickle
import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from scipy import ndimage

from aiassist import cli
from aiassist.engine import LocalBackend
from aiassist.errors import MissingExtraError
from aiassist.evaluation import annotator, metrics, pictures, report, run
from aiassist.evaluation.baselines import comparable
from aiassist.evaluation.cases import default_tolerance, find_structures
from aiassist.evaluation.measure import Plan, Result, Trail, measure
from aiassist.evaluation.report import groups
from aiassist.evaluation.run import evaluate
from aiassist.evaluation.summary import by_stratum, macro, summarise
from aiassist.imaging import Geometry, MaskPatch, Volume, write_volume
from aiassist.prompts import extreme_points
from aiassist.segmenters.base import ModelCard, Step
from aiassist.segmenters.registry import bundled

SAMPLE = Path(__file__).parents[2] / "Resources" / "SampleData"


@pytest.fixture(scope="module")
def organs():
    """Spleen and gallbladder of the bundled CT."""
    found = {s.name: s for s in find_structures(SAMPLE)}
    return [found["spleen"], found["gallbladder"]]


def box_mask(shape, start, stop):
    mask = np.zeros(shape, bool)
    mask[tuple(slice(a, b) for a, b in zip(start, stop, strict=True))] = True
    return mask


def test_extreme_points_lie_on_the_mask_where_it_ends(organs):
    _, truth = organs[0].load()
    points = extreme_points(truth, np.random.default_rng(3))
    inside = np.argwhere(truth)[:, ::-1]
    assert points.shape == (6, 3)
    for axis in range(3):
        assert points[2 * axis, axis] == inside[:, axis].min()
        assert points[2 * axis + 1, axis] == inside[:, axis].max()
    assert all(truth[tuple(p[::-1].astype(int))] for p in points)


def test_extreme_points_of_a_large_mask_need_no_list_of_its_voxels():
    mask = np.ones((120, 200, 200), bool)  # 4.8 million voxels, of which a list takes 115 MB
    tracemalloc.start()
    points = extreme_points(mask, np.random.default_rng(0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**21
    assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([0, 0, 0], [199, 199, 119])


def test_ties_of_extreme_points_follow_the_seed():
    mask = box_mask((9, 9, 9), (2, 2, 2), (7, 7, 7))
    draws = {extreme_points(mask, np.random.default_rng(seed)).tobytes() for seed in range(8)}
    again = extreme_points(mask, np.random.default_rng(0))
    assert len(draws) > 1
    assert again.tobytes() == extreme_points(mask, np.random.default_rng(0)).tobytes()


def test_jitter_moves_by_a_voxel_or_three_percent_and_stays_inside():
    geometry = Geometry.from_spacing((200, 200, 200))
    points = np.repeat([[0.0, 0, 0], [150, 150, 30]], 3000, axis=0)
    moved = annotator.jitter(points, geometry, np.random.default_rng(0))
    spread = (moved - points)[3000:].std(axis=0)
    assert np.allclose(spread, [4.5, 4.5, 1.0], rtol=0.06)
    assert moved.min() >= 0 and moved.max() <= 199


def test_oracle_click_hits_the_deepest_voxel_of_the_largest_error():
    truth = box_mask((20, 20, 20), (2, 2, 2), (13, 13, 13))
    found = truth.copy()
    found[2:13, 2:13, 8:13] = False  # a missing slab, 5 thick
    found[16:18, 16:18, 16:18] = True  # a small surplus elsewhere
    click = annotator.oracle_click(truth, found, (1, 1, 1))
    assert click.positive
    assert click.point[0] == 10 and 4 <= click.point[1] <= 10 and 4 <= click.point[2] <= 10


def test_deepest_voxel_respects_the_spacing():
    mask = box_mask((5, 21, 21), (0, 2, 2), (5, 19, 9))
    assert annotator.deepest(mask, (10.0, 1.0, 1.0))[0] == 5  # thick slices: only in-plane depth counts
    assert annotator.deepest(mask, (0.1, 1.0, 1.0))[2] == 2  # thin slices: the middle slice is deepest


def test_no_error_needs_no_click():
    mask = box_mask((6, 6, 6), (1, 1, 1), (4, 4, 4))
    assert annotator.oracle_click(mask, mask, (1, 1, 1)) is None
    assert annotator.sloppy_click(mask, mask, np.random.default_rng(0)) is None


def test_sloppy_clicks_mostly_fall_into_the_error():
    truth = box_mask((20, 20, 20), (5, 5, 5), (15, 15, 15))
    found = truth & ~box_mask((20, 20, 20), (5, 5, 5), (15, 15, 8))
    rng = np.random.default_rng(0)
    clicks = [annotator.sloppy_click(truth, found, rng) for _ in range(400)]
    hits = np.mean([(truth & ~found)[tuple(c.point[::-1].astype(int))] for c in clicks])
    assert all(c.positive for c in clicks)
    assert 0.9 <= hits < 1.0


@pytest.mark.parametrize("side", [4, 12, 30])
def test_one_sloppy_click_in_ten_misses_an_error_of_whatever_size(side):
    truth = box_mask((50, 50, 50), (5, 5, 5), (5 + side,) * 3)
    rng, found = np.random.default_rng(0), box_mask((50, 50, 50), (5, 5, 5), (6, 5 + side, 5 + side))
    clicks = [annotator.sloppy_click(truth, found, rng) for _ in range(500)]
    inside = np.array([(truth & ~found)[tuple(c.point[::-1].astype(int))] for c in clicks])
    assert 0.07 < np.mean(~inside) < 0.13
    gaps = ndimage.distance_transform_cdt(~(truth & ~found), metric="taxicab")
    assert all(gaps[tuple(c.point[::-1].astype(int))] <= 3 and c.positive for c in clicks)


def test_a_sloppy_click_that_cannot_miss_hits():
    truth = np.ones((5, 5, 5), bool)
    clicks = [annotator.sloppy_click(truth, ~truth, np.random.default_rng(seed)) for seed in range(40)]
    assert all(truth[tuple(c.point.astype(int))] for c in clicks)


def test_a_sloppy_click_never_lands_in_another_error():
    truth = box_mask((20, 20, 20), (5, 5, 5), (15, 15, 10))
    found = box_mask((20, 20, 20), (5, 5, 11), (15, 15, 15))
    rng = np.random.default_rng(0)
    places = [tuple(annotator.sloppy_click(truth, found, rng).point[::-1].astype(int)) for _ in range(500)]
    assert not any(found[place] for place in places) and not all(truth[place] for place in places)


def test_spoiled_prior_lacks_and_adds_something(organs):
    volume, truth = organs[0].load()
    patch = annotator.spoil(truth, volume.geometry.spacing_kji, np.random.default_rng(0))
    mask = patch.to_mask(truth.shape)
    assert (truth & ~mask).sum() > 100
    assert (mask & ~truth).sum() > 100
    assert 0.5 < metrics.dice(truth, mask) < 0.98


def test_dice_of_known_overlap():
    a, b = box_mask((4, 4, 4), (0, 0, 0), (2, 4, 4)), box_mask((4, 4, 4), (1, 0, 0), (3, 4, 4))
    assert metrics.dice(a, b) == 0.5
    assert metrics.dice(a & ~a, b & ~b) == 1.0


def test_nsd_of_a_shifted_box():
    a = box_mask((30, 30, 30), (5, 5, 5), (20, 20, 20))
    b = np.roll(a, 2, axis=0)
    assert metrics.normalised_surface_distance(a, a, (1, 1, 1), 0.5) == 1.0
    assert metrics.normalised_surface_distance(a, b, (1, 1, 1), 2.5) == 1.0
    shifted = metrics.normalised_surface_distance(a, b, (1, 1, 1), 0.5)
    assert 0.5 < shifted < 0.75  # the four sides still agree, top and bottom do not
    assert metrics.normalised_surface_distance(a, b & ~b, (1, 1, 1), 1.0) == 0.0


def test_nsd_of_a_picture_is_that_of_its_outlines():
    a, b = box_mask((1, 120, 120), (0, 10, 10), (1, 110, 110)), box_mask((1, 120, 120), (0, 20, 20), (1, 100, 100))
    assert metrics.normalised_surface_distance(a, b, (5, 1, 1), 2.0) == 0.0
    assert metrics.normalised_surface_distance(a, a, (5, 1, 1), 0.5) == 1.0


def fake(stratum, case, dice, baseline=0.5, voxels=2000):
    result = Result(case, "x", 0, stratum, "dev", "expert", voxels, "m")
    result.oracle = [Trail(dice=list(dice), nsd=[0.9] * len(dice), removed=[0.1], far_voxels=[0])]
    result.baseline, result.milliseconds, result.pass_milliseconds = [baseline], [10.0], [8.0]
    return result


def test_means_are_over_labels_then_cases_then_strata():
    results = [fake("a", "1", [1.0]), fake("a", "1", [0.0]), fake("a", "2", [0.9]), fake("b", "3", [0.1])]
    assert by_stratum(results, lambda r: r.mean_dice()) == pytest.approx({"a": 0.7, "b": 0.1})
    assert macro(results, lambda r: r.mean_dice()) == pytest.approx(0.4)


def test_clicks_that_were_not_needed_do_no_good_either():
    exact = fake("a", "1", [0.6, 0.5, 0.5, 0.5])  # one click was given
    assert summarise([exact], clicks=3)["oracle"]["clicks_that_hurt"] == 1.0


def test_cases_beside_the_manifests_are_a_group_of_their_own_and_all_are_all():
    results = [fake("a", str(n), [0.9]) for n in range(3)] + [replace(fake("a", "x", [0.1]), split="all")]
    found = groups(results)
    assert len(found["all"]) == 4 and len(found["dev"]) == 3


def test_an_error_of_a_package_comes_back_from_another_process():
    error = pickle.loads(pickle.dumps(MissingExtraError("torch", "learning", "The world")))
    assert isinstance(error, MissingExtraError) and str(error).startswith("The world needs the package torch")


def test_summary_counts_harm_and_structures_below_the_baseline():
    results = [fake("a", "1", [0.6, 0.5]), fake("a", "2", [0.4, 0.95]), fake("a", "3", [0.8, 0.79], voxels=200)]
    numbers = summarise(results, clicks=1)
    assert numbers["worse_than_baseline"] == pytest.approx(1 / 3)
    assert numbers["oracle"]["clicks_that_hurt"] == pytest.approx(1 / 3)
    assert numbers["oracle"]["clicks_that_hurt_large"] == pytest.approx(1 / 2)
    assert numbers["oracle"]["reach_dice_90"] == pytest.approx(1 / 3)
    assert numbers["oracle"]["clicks_to_dice_90"] == 1
    assert numbers["milliseconds"]["around"]["p50"] == pytest.approx(2.0)


def test_measuring_an_organ_tells_the_whole_story(organs):
    with LocalBackend(threaded=False) as backend:
        (result,) = measure(organs[0], Plan(("geodesic",), clicks=3, draws=1), backend)
    assert len(result.oracle[0].dice) == 4
    assert result.oracle[0].dice[3] > result.oracle[0].dice[0] > 0.8 > result.baseline[0]
    assert max(result.oracle[0].far_voxels) == 0
    assert result.oracle[0].nsd[1] is not None and result.oracle[0].nsd[2] is None
    assert set(result.starts) == {"one click", "box", "line", "scribble", "spoiled prior"}
    assert all(p <= t for p, t in zip(result.pass_milliseconds, result.milliseconds, strict=True))


def test_models_begin_from_the_same_other_starts_however_many_clicks_they_need(organs):
    class Exact:
        """A model that needs no click."""

        card = ModelCard("exact", "1", "promptable", "For tests.")

        def annotate(self, volume, prompts):
            yield Step("pass", 0.0)
            return MaskPatch.of_mask(organs[1].load()[1])

    class Watched(LocalBackend):
        def annotate(self, request, progress=None):
            if request.prompts.prior is not None:
                starts.append(request.prompts)
            return super().annotate(request, progress)

    starts, registry = [], bundled()
    registry.add("exact", Exact)
    with Watched(registry, threaded=False) as backend:
        measure(organs[1], Plan(("ellipsoid", "exact"), clicks=3, draws=1), backend)
    one, other = starts
    assert np.array_equal(one.extreme_points, other.extreme_points)
    assert one.prior.version == other.prior.version


def test_same_seed_measures_the_same_in_one_process_and_in_several(organs):
    plan = Plan(("ellipsoid",), clicks=1, draws=2, other_starts=False)
    alone, spread = evaluate(organs, plan, workers=1), evaluate(organs, plan, workers=2)
    assert [r.title for r in alone] == [r.title for r in spread] == [s.title for s in organs]
    assert [[t.dice for t in r.oracle] for r in alone] == [[t.dice for t in r.oracle] for r in spread]


def test_one_process_measures_with_one_thread_as_several_do_and_leaves_threads_as_they_were(organs, monkeypatch):
    seen = []

    def noted(structure, plan, backend):
        seen.append(sitk.ProcessObject.GetGlobalDefaultNumberOfThreads())
        return measure(structure, plan, backend)

    monkeypatch.setattr(run, "measure", noted)
    monkeypatch.setattr(run, "comparable", lambda threads, **more: seen.append(threads) or comparable(threads, **more))
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(2)
    try:
        evaluate(organs[:1], Plan(("ellipsoid",), clicks=0, draws=1, other_starts=False))
        assert seen == [1, 1] and sitk.ProcessObject.GetGlobalDefaultNumberOfThreads() == 2
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def test_jitter_changes_the_points_and_little_else(organs):
    plan = Plan(("geodesic",), clicks=0, draws=2, other_starts=False)
    exact, shaken = evaluate(organs[:1], plan, 1), evaluate(organs[:1], replace(plan, jitter=True), 1)
    assert exact[0].mean_dice() != shaken[0].mean_dice()
    assert abs(exact[0].mean_dice() - shaken[0].mean_dice()) < 0.15


def make_case(folder, blocks, manifest=None):
    """A case with a noisy image and a labelmap of boxes, one per value."""
    folder.mkdir(parents=True)
    geometry = Geometry.from_spacing((24, 24, 24))
    labelmap = np.zeros(geometry.shape, np.uint8)
    for value, start, stop in blocks:
        labelmap[box_mask(geometry.shape, start, stop)] = value
    grey = labelmap * 50.0 + np.random.default_rng(0).normal(0, 5, geometry.shape)
    write_volume(folder / "image.nii.gz", Volume(grey.astype(np.float32), geometry))
    write_volume(folder / "label.nii.gz", Volume(labelmap, geometry))
    if manifest is not None:
        (folder.parent / "manifest.json").write_text(json.dumps(manifest), encoding="utf8")


def test_without_a_manifest_whole_structures_of_100_voxels_count(tmp_path):
    big, small, torn = ((2, 2, 2), (8, 8, 8)), ((10, 10, 10), (13, 13, 13)), ((15, 2, 2), (20, 6, 9))
    blocks = [(1, *big), (2, *small), (3, *torn), (3, (15, 12, 12), (20, 16, 19))]
    make_case(tmp_path / "cases" / "one", blocks)
    assert [(s.value, s.name) for s in find_structures(tmp_path / "cases")] == [(1, "label 1")]


def test_manifest_decides_and_lesions_count_one_by_one(tmp_path):
    entry = {"case": "one", "name": "lesion", "stratum": "lesions", "nsd_mm": 2.0, "split": "dev", "truth": "expert"}
    manifest = [{**entry, "value": 1, "single": False, "per_component": True}]
    blocks = [(1, (2, 2, 2), (6, 6, 6)), (1, (12, 12, 12), (16, 16, 16)), (1, (20, 20, 20), (22, 22, 22))]
    make_case(tmp_path / "one", blocks, manifest)
    found = find_structures(tmp_path / "one")
    assert [s.component for s in found] == [1, 2]
    assert [int(s.load()[1].sum()) for s in found] == [64, 64]


def test_tolerance_without_a_manifest_follows_the_spacing():
    assert default_tolerance((0.8, 0.8, 5.0)) == 5.0
    assert default_tolerance((1.0, 1.0, 1.0)) == 2.0
    assert default_tolerance((0.15, 0.15, 0.15)) == 0.15


def test_command_prints_tables_and_writes_json_and_pictures(tmp_path, capsys):
    make_case(tmp_path / "cases" / "one", [(1, (5, 5, 5), (15, 16, 17))])
    out, pictures = tmp_path / "numbers.json", tmp_path / "pictures"
    arguments = ["evaluate", str(tmp_path / "cases"), "--clicks", "1", "--draws", "1", "--workers", "1"]
    assert cli.main([*arguments, "--json", str(out), "--pictures", str(pictures)]) == 0
    text = capsys.readouterr().out
    assert "mean over strata" in text and "network" in text and "worse than the ellipsoid" in text
    numbers = json.loads(out.read_text(encoding="utf8"))
    assert numbers["models"]["network"]["all"]["oracle"]["dice"]["0"] > 0.8
    assert numbers["structures"][0]["voxels"] == 10 * 11 * 12
    assert len(list(pictures.glob("network-*.png"))) == 2


#: Arguments that measure little.
QUICK = ["--model", "ellipsoid", "--clicks", "0", "--draws", "1", "--workers", "1", "--points-only"]


def test_labels_of_one_name_get_pictures_of_their_own(tmp_path, monkeypatch, capsys):
    make_case(tmp_path / "cases" / "one", [(1, (2, 2, 2), (10, 10, 10)), (2, (12, 12, 12), (22, 20, 18))])
    names = json.dumps({"labels": {"1": "kidney", "2": "kidney"}})
    (tmp_path / "cases" / "one" / "meta.json").write_text(names, encoding="utf8")
    drawn = {}
    monkeypatch.setattr(pictures, "picture_of_structure", lambda path, s, *_: drawn.update({path.stem: s.value}))
    out = tmp_path / "numbers.json"
    arguments = ["evaluate", str(tmp_path / "cases"), *QUICK, "--pictures", str(tmp_path / "p"), "--json", str(out)]
    assert cli.main(arguments) == 0
    capsys.readouterr()
    dice = {s["value"]: s["oracle"][0]["dice"][0] for s in json.loads(out.read_text(encoding="utf8"))["structures"]}
    assert set(dice) == {1, 2}
    worst = min(dice, key=dice.get)
    assert drawn["ellipsoid-worst-1"] == drawn["ellipsoid-best-2"] == worst
    assert drawn["ellipsoid-best-1"] == drawn["ellipsoid-worst-2"] == 3 - worst


def test_a_model_named_twice_is_measured_once(tmp_path, capsys):
    make_case(tmp_path / "one", [(1, (5, 5, 5), (15, 16, 17))])
    out = tmp_path / "numbers.json"
    assert cli.main(["evaluate", str(tmp_path / "one"), *QUICK, "--model", "ellipsoid", "--json", str(out)]) == 0
    capsys.readouterr()
    numbers = json.loads(out.read_text(encoding="utf8"))
    assert numbers["plan"]["models"] == ["ellipsoid"] and len(numbers["structures"]) == 1


def test_what_was_measured_is_written_before_it_is_shown(tmp_path, monkeypatch):
    make_case(tmp_path / "one", [(1, (5, 5, 5), (15, 16, 17))])
    out = tmp_path / "numbers.json"
    monkeypatch.setattr(report, "print_report", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        cli.main(["evaluate", str(tmp_path / "one"), *QUICK, "--json", str(out)])
    assert len(json.loads(out.read_text(encoding="utf8"))["structures"]) == 1


def test_a_file_in_place_of_the_folder_of_pictures_is_refused_before_anything_is_measured(
    tmp_path, monkeypatch, capsys
):
    make_case(tmp_path / "one", [(1, (5, 5, 5), (15, 16, 17))])
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(run, "evaluate", lambda *_: pytest.fail("something was measured"))
    assert cli.main(["evaluate", str(tmp_path / "one"), *QUICK, "--pictures", str(tmp_path / "file")]) == 2
    assert f"{tmp_path / 'file'} is a file; give --pictures a folder." in capsys.readouterr().err


def test_a_random_walker_can_be_measured_beside_ours(tmp_path, capsys):
    make_case(tmp_path / "cases" / "one", [(1, (5, 5, 5), (15, 16, 17))])
    out = tmp_path / "numbers.json"
    arguments = [
        "evaluate",
        str(tmp_path / "cases"),
        "--clicks",
        "1",
        "--draws",
        "1",
        "--workers",
        "1",
        "--points-only",
    ]
    pictures = ["--pictures", str(tmp_path / "pictures")]
    assert cli.main([*arguments, "--model", "random-walker", "--json", str(out), *pictures]) == 0
    assert list((tmp_path / "pictures").glob("*.png"))
    found = json.loads(out.read_text(encoding="utf8"))["models"]["random-walker"]["all"]["oracle"]["dice"]
    assert found["0"] > 0.8
    capsys.readouterr()


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--draws", "0"], "--draws is 0"),
        (["--model", "nnunet"], "'nnunet'"),
        (["--stratum", "fruit"], "No structure"),
        (["--json", "nowhere/out.json"], "nowhere"),
    ],
)
def test_bad_requests_give_one_sentence(tmp_path, capsys, extra, said):
    make_case(tmp_path / "one", [(1, (5, 5, 5), (15, 16, 17))])
    assert cli.main(["evaluate", str(tmp_path / "one"), *extra]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert said in captured.err and captured.err.count("\n") == 1


def test_folder_without_cases_is_refused(tmp_path, capsys):
    assert cli.main(["evaluate", str(tmp_path)]) == 2
    assert "holds no cases" in capsys.readouterr().err
