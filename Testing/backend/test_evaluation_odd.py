"""Odd structures, foreign files and ended processes do not spoil a measurement, or are named in one sentence."""

from __future__ import annotations

import io
import json
import os
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from aiassist.errors import AIAssistError, ImageError
from aiassist.evaluation import run
from aiassist.evaluation.annotator import starting_prompts
from aiassist.evaluation.baselines import INSIDE, OUTSIDE, comparable, grow_from_seeds
from aiassist.evaluation.cases import Structure, find_structures, load_case
from aiassist.evaluation.measure import Plan, Result, Trail
from aiassist.evaluation.metrics import dice
from aiassist.evaluation.pictures import Outline, draw_slices
from aiassist.evaluation.report import as_json, print_report
from aiassist.imaging import Geometry, MaskPatch, Volume, write_volume
from aiassist.prompts import Prompts, extreme_points
from aiassist.segmenters import base

ENTRY = {
    "case": "one",
    "value": 1,
    "name": "lesion",
    "stratum": "lesions",
    "nsd_mm": 2.0,
    "split": "dev",
    "truth": "expert",
    "single": True,
    "per_component": False,
}


@pytest.fixture
def case(tmp_path):
    """A case with a block of value 1 and a column, one voxel thick, of value 2."""
    labelmap = np.zeros((20, 24, 24), np.uint8)
    labelmap[5:12, 5:15, 5:15] = 1
    labelmap[3:18, 20, 20] = 2
    return write_case(tmp_path / "cases" / "one", labelmap)


def write_case(folder, labelmap):
    folder.mkdir(parents=True)
    geometry = Geometry.from_spacing(labelmap.shape)
    write_volume(folder / "image.nii.gz", Volume(labelmap * np.float32(100), geometry))
    write_volume(folder / "label.nii.gz", Volume(labelmap, geometry))
    return folder


# Structures


def test_a_structure_one_voxel_wide_has_no_line_and_is_measured_from_all_other_starts(case):
    column = Structure(case, 2, "column", "vessels", 2.0)
    volume, truth = column.load()
    assert "line" not in starting_prompts(truth, volume.geometry, np.random.default_rng(0))
    block, plan = Structure(case, 1, "block", "organs", 2.0), Plan(("ellipsoid",), clicks=0, draws=1)
    results = run.evaluate([column, block], plan, workers=1)
    assert set(results[0].starts) == {"one click", "box", "scribble", "spoiled prior"}
    starts = as_json(results, plan)["models"]["ellipsoid"]["all"]["starts"]
    assert starts["line"] == results[1].starts["line"][0]
    assert starts["box"] == pytest.approx(np.mean([r.starts["box"][0] for r in results]))


def test_a_group_without_any_line_has_a_dash_in_the_table():
    from rich.console import Console

    thick = Result(
        "a", "x", 0, "s", "dev", "expert", 9, "m", [Trail([0.9], [0.9])], [], [0.5], {"line": [0.8]}, [1], [1]
    )
    thin = replace(thick, split="report", starts={"box": [0.7]})
    console = Console(record=True, width=120, file=io.StringIO())
    print_report(console, [thick, thin], Plan(("m",), clicks=0, draws=1))
    (row,) = [line for line in console.export_text().splitlines() if "Dice from line" in line]
    assert [cell.strip() for cell in row.strip("│").split("│")] == ["Dice from line", ".800", ".800", "-"]


def test_a_structure_that_cannot_be_measured_is_named(case):
    with pytest.raises(AIAssistError, match=r"^one: ghost cannot be measured: .*does not hold the value 9 of 'ghost'"):
        run.evaluate([Structure(case, 9, "ghost", "s", 2.0)], Plan(("ellipsoid",), clicks=0, draws=1), workers=1)


def test_what_nobody_foresaw_comes_with_the_structures_name(case, monkeypatch):
    monkeypatch.setattr(run, "measure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) as raised:
        run.evaluate([Structure(case, 1, "block", "s", 2.0)], Plan(("ellipsoid",), clicks=0, draws=1), workers=1)
    assert raised.value.__notes__ == ["This happened while one: block was measured."]


# Processes


class Deadly(Structure):
    """Ends the process that loads it, as the system does when memory is short."""

    def load(self):
        os._exit(9)


def test_a_process_that_the_system_ends_gives_one_sentence(case):
    structures = [Deadly(case, 1, "block", "s", 2.0)] * 2
    with pytest.raises(AIAssistError, match="want of memory; use fewer, for example --workers 1"):
        run.evaluate(structures, Plan(("ellipsoid",), clicks=0, draws=1), workers=2)


def test_windows_gets_no_more_processes_than_it_can_wait_for(monkeypatch):
    assert run._count(96, 200) == 96 and run._count(96, 3) == 3
    monkeypatch.setattr(sys, "platform", "win32")
    assert run._count(96, 200) == 61 and run._count(2, 200) == 2


# Files


@pytest.mark.parametrize("text", ['{"name": "my app", "icons": []}', '[{"id": 1}]', "[1, 2]", '"text"'])
def test_the_manifest_of_another_program_does_not_count(case, text):
    (case.parent / "manifest.json").write_text(text, encoding="utf8")
    (case.parent.parent / "manifest.json").write_text(json.dumps([ENTRY]), encoding="utf8")
    assert [s.name for s in find_structures(case.parent)] == ["lesion"]


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"case": "one", "value": 1}], r"Entry 1 of .*manifest.json lacks 'name'"),
        ([ENTRY, {k: v for k, v in ENTRY.items() if k != "nsd_mm"}], r"Entry 2 of .*manifest.json lacks 'nsd_mm'"),
        ([ENTRY, 5], r"Entry 2 of .*manifest.json lacks 'case'"),
        ([{**ENTRY, "value": 7}], r"label.nii.gz does not hold the value 7 of 'lesion'"),
        ([{**ENTRY, "value": "1"}], r"Entry 1 of .*manifest.json has \"1\" for 'value'; give a whole number"),
        ([{**ENTRY, "value": True}], r"has true for 'value'; give a whole number"),
        (
            [ENTRY, {**ENTRY, "nsd_mm": None}],
            r"Entry 2 of .*manifest.json has null for 'nsd_mm'; give a length above 0",
        ),
        ([{**ENTRY, "nsd_mm": 0}], r"has 0 for 'nsd_mm'"),
        ([{**ENTRY, "nsd_mm": float("nan")}], r"has NaN for 'nsd_mm'"),
        ([{**ENTRY, "stratum": None}], r"has null for 'stratum'; give a text"),
        ([{**ENTRY, "case": 1}], r"has 1 for 'case'; give a text"),
        ([{**ENTRY, "per_component": "no"}], r"has \"no\" for 'per_component'; give true or false"),
        ([ENTRY, {**ENTRY, "case": "tow"}], r"manifest.json names the case 'tow', but beside it is no such folder"),
    ],
)
def test_a_faulty_manifest_is_refused_before_anything_is_measured(case, entries, said):
    (case.parent / "manifest.json").write_text(json.dumps(entries), encoding="utf8")
    with pytest.raises(ImageError, match=said):
        find_structures(case.parent)


def test_a_manifest_beside_a_case_or_above_the_folder_may_name_cases_that_are_not_there(case):
    entries = json.dumps([ENTRY, {**ENTRY, "case": "tow"}])
    (case.parent.parent / "manifest.json").write_text(entries, encoding="utf8")
    assert [s.name for s in find_structures(case.parent)] == ["lesion"]
    (case.parent / "manifest.json").write_text(entries, encoding="utf8")
    assert [s.name for s in find_structures(case)] == ["lesion"]


def test_a_case_that_the_manifest_leaves_out_is_not_measured_unless_it_leaves_out_all(case):
    write_case(case.parent / "two", np.pad(np.ones((8, 8, 8), np.uint8), 4))
    (case.parent / "manifest.json").write_text(json.dumps([ENTRY]), encoding="utf8")
    assert [s.title for s in find_structures(case.parent)] == ["one: lesion"]
    assert [s.title for s in find_structures(case.parent / "two")] == ["two: label 1"]


def test_a_label_on_another_grid_is_refused_before_anything_is_measured(case):
    (case.parent / "manifest.json").write_text(json.dumps([ENTRY]), encoding="utf8")
    labelmap = np.pad(np.ones((8, 8, 8), np.uint8), 4)
    write_volume(case / "label.nii.gz", Volume(labelmap, Geometry.from_spacing(labelmap.shape)))
    load_case.cache_clear()
    with pytest.raises(ImageError, match=r"label\.nii\.gz"):
        find_structures(case.parent)


def test_grow_from_seeds_takes_a_single_slice():
    grey = np.zeros((1, 20, 20), np.float32)
    grey[:, 5:15, 5:15] = 100
    seeds = np.full(grey.shape, 0, np.uint8)
    seeds[:, 9:11, 9:11], seeds[:, 2] = INSIDE, OUTSIDE
    found = grow_from_seeds(grey, seeds, np.ones(3))
    assert np.array_equal(found[:, 1:-1, 1:-1] > 0, grey[:, 1:-1, 1:-1] > 0)


@pytest.mark.parametrize(
    ("folder", "given"),
    [
        ("cases/one", "."),
        ("cases", "."),
        ("cases", "one"),
        (".", "cases/one"),
        ("cases/one", ".."),
        ("cases/one", "../one"),
    ],
)
@pytest.mark.parametrize("place", ["", "cases"])
def test_the_manifest_counts_wherever_one_stands(case, monkeypatch, folder, given, place):
    top = case.parent.parent
    (top / place / "manifest.json").write_text(json.dumps([ENTRY]), encoding="utf8")
    monkeypatch.chdir(top / folder)
    assert [s.title for s in find_structures(given)] == ["one: lesion"]


def test_a_folder_is_named_as_it_was_given(case, monkeypatch):
    monkeypatch.chdir(case.parent)
    with pytest.raises(FileNotFoundError, match=r"There is no folder nowhere;"):
        find_structures("nowhere")
    (case / "empty").mkdir()
    with pytest.raises(ImageError, match=r"^one.empty holds no cases"):
        find_structures("one/empty")


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights there")
def test_a_case_that_is_a_link_goes_by_the_name_of_the_link(case, tmp_path):
    stored = case.rename(tmp_path / "stored")
    case.symlink_to(stored)
    (case.parent / "manifest.json").write_text(json.dumps([ENTRY]), encoding="utf8")
    assert [s.title for s in find_structures(case)] == ["one: lesion"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{bad", r"meta.json is not valid JSON"),
        ("[]", r"meta.json does not name the labels"),
        ('{"labels": ["liver"]}', r"meta.json does not name the labels"),
    ],
)
def test_a_faulty_meta_file_is_refused(case, text, said):
    (case / "meta.json").write_text(text, encoding="utf8")
    with pytest.raises(ImageError, match=said):
        find_structures(case)


@pytest.mark.parametrize(
    ("labels", "name"),
    [({"1": "liver"}, "liver"), ({"1": ["liver", 700]}, "liver"), ({"1": []}, "label 1"), ({}, "label 1")],
)
def test_labels_are_named_by_a_text_or_the_first_of_a_list(case, labels, name):
    (case / "meta.json").write_text(json.dumps({"labels": labels, "modality": "CT"}), encoding="utf8")
    assert [(s.name, s.stratum) for s in find_structures(case)] == [(name, "CT")]


def test_without_background_the_lowest_label_counts_too(tmp_path):
    labelmap = np.ones((10, 20, 20), np.uint8)
    labelmap[:5] = 2
    assert [s.value for s in find_structures(write_case(tmp_path / "full", labelmap))] == [1, 2]


# Baselines


@pytest.mark.parametrize(
    ("spacing", "stop"),
    [((1, 1, 1), (7, 22, 22)), ((0.7, 0.7, 5), (7, 28, 28)), ((0.7, 0.7, 5), (7, 40, 40)), ((1, 1, 1), (12, 60, 60))],
)
def test_the_random_walker_finds_bright_blocks_of_few_slices(spacing, stop):
    truth = np.zeros((12, 60, 60), bool)
    truth[5 : stop[0], 20 : stop[1], 20 : stop[2]] = True
    assert walked(truth, spacing) > 0.99


def test_the_random_walker_finds_what_fills_the_image():
    assert walked(np.ones((6, 6, 6), bool), (1, 1, 1)) == 1.0


def walked(truth, spacing) -> float:
    """Dice of the random walker on an image that is bright where the truth is."""
    volume = Volume(truth * np.float32(100), Geometry.from_spacing(truth.shape, spacing))
    prompts = Prompts(extreme_points=extreme_points(truth, np.random.default_rng(0)))
    found = base.run(comparable().get("random-walker").annotate(volume, prompts))
    return dice(found.to_mask(truth.shape), truth)


# Pictures


@pytest.mark.parametrize("shape", [(1, 256, 256), (2, 256, 256), (256, 256, 1)])
def test_a_picture_of_few_slices_is_no_wider_than_a_screen_or_two(tmp_path, shape):
    mask = np.zeros(shape, bool)
    mask[:, 80:120, : shape[2] // 2 + 1] = True
    volume = Volume(mask * np.float32(100), Geometry.from_spacing(shape))
    draw_slices(tmp_path / "p.png", volume, [Outline(MaskPatch.of_mask(mask), "red", "truth")], "few slices", None)
    with Image.open(tmp_path / "p.png") as picture:
        assert picture.width < 6000 and np.asarray(picture.convert("RGB"))[..., 0].max() == 255
