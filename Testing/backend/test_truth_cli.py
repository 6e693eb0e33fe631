"""``aiassist truth`` and ``aiassist models``: what they print, and one sentence for every mistake."""

from __future__ import annotations

import json
from datetime import datetime

import numpy as np
import pytest
from dicom_series import write_series
from groundtruth_helpers import SHAPE, random_volume

from aiassist.cli import main
from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import Geometry, Label, Volume, read_labelmap, read_volume, write_volume
from aiassist.imaging.segmentation_file import write_segmentation
from aiassist.segmenters.model_store import ASKED

LABELMAP = np.zeros(SHAPE, np.uint8)
LABELMAP[1:4, 2:6, 3:8] = 1
LABELMAP[5:8, 2:9, 3:12] = 2


@pytest.fixture
def folder(tmp_path):
    """A folder with an image and labelmaps, and room for studies."""
    geometry = random_volume().geometry
    moved = Geometry.from_spacing(SHAPE, (0.7, 0.8, 2.5), (10, -20, 99))
    write_volume(tmp_path / "torso.nii.gz", random_volume())
    for name, voxels, grid in (
        ("two", LABELMAP, geometry),
        ("one", (LABELMAP == 2).astype(np.uint8) * 7, geometry),
        ("empty", np.zeros(SHAPE, np.uint8), geometry),
        ("elsewhere", LABELMAP, moved),
    ):
        write_volume(tmp_path / f"{name}.nii.gz", Volume(voxels, grid))
    return tmp_path


@pytest.fixture
def truth(folder, capsys):
    """Runs ``aiassist truth ACTION``; returns exit status, stdout and stderr."""

    def run(action: str, *arguments):
        status = main(["truth", action, "--studies", str(folder / "studies"), *map(str, arguments)])
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.fixture
def add(truth, folder):
    """Adds a labelmap of `folder` to its image."""

    def run(label: str, *arguments):
        return truth("add", folder / "torso.nii.gz", folder / f"{label}.nii.gz", *arguments)

    return run


def assert_one_sentence(outcome, *named: str) -> None:
    """Exit status 2, nothing on stdout, one line on stderr that names what is wrong."""
    status, out, err = outcome
    assert (status, out) == (2, "")
    assert err.startswith("aiassist: ") and err.endswith("\n") and err.count("\n") == 1, err
    for text in named:
        assert text in err


# What works


def test_a_slicer_segmentation_is_added_by_its_names_or_by_one_where_it_has_none(truth, folder):
    volume = read_volume(folder / "torso.nii.gz")
    labelmap = np.zeros(volume.shape, np.uint8)
    labelmap[1:3, 1:3, 1:3], labelmap[4:6, 1:3, 1:3] = 1, 2

    def add(names: list[str], *arguments):
        labels = [Label(name, value) for value, name in enumerate(names, 1)]
        write_segmentation(folder / "s.seg.nrrd", labelmap * (labelmap <= len(names)), volume.geometry, labels)
        return truth("add", folder / "torso.nii.gz", folder / "s.seg.nrrd", *arguments)

    assert "cyst" in add(["cyst", "left\\right"])[1]
    assert json.loads(truth("list", "--json")[1])[0]["labels"][1]["structure"] == "left\\right"
    assert "spleen" in add(["Segment_1"], "--name", "spleen")[1]
    assert_one_sentence(add(["kidney"], "--name", "spleen"), "'1=spleen' contradicts", "in which 1 is 'kidney'")
    assert_one_sentence(add(["lesion", "Lesion"]), "calls both 1 and 2 'Lesion'")


def test_add_names_structures_by_value_and_prints_a_line_for_each(add):
    status, out, err = add("two", "--names", "1=spleen", "2=liver", "--author", "ann")
    assert (status, err) == (0, "")
    first, second = out.splitlines()
    assert first.startswith("torso: spleen v1 draft, 60 voxels, ") and first.endswith("by ann")
    assert second.startswith("torso: liver v1 draft, 189 voxels, ")


def test_add_keeps_all_that_is_said(add, folder):
    said = ("--model", "geodesic", "--model-version", "1", "--seconds", "12.5", "--edits", "3", "--state", "submitted")
    assert add("one", "--name", "liver", "--comment", "a lobe", "--author", "ann", *said)[0] == 0
    with GroundTruthStore(folder / "studies") as store:
        version = store.version(store.study("torso").id, "liver")
        assert (store.mask(version).to_mask(SHAPE) == (LABELMAP == 2)).all()
    assert (version.model, version.model_version, version.seconds, version.edits) == ("geodesic", "1", 12.5, 3)
    assert (version.comment, version.author, version.state.value) == ("a lobe", "ann", "submitted")


def test_add_saves_only_the_values_that_are_named(add, truth):
    assert add("two", "--names", "2= liver ")[0] == 0
    (study,) = json.loads(truth("list", "--json")[1])
    assert [(v["structure"], v["voxels"]) for v in study["labels"]] == [("liver", 189)]


def test_the_study_is_named_after_the_image_or_as_asked(add, truth):
    add("one", "--name", "liver")
    assert add("one", "--name", "liver", "--study-name", "torso")[0] == 0
    assert_one_sentence(add("one", "--name", "liver", "--study-name", "thorax"), "'torso' already", "'thorax'")
    assert [s["name"] for s in json.loads(truth("list", "--json")[1])] == ["torso"]


def test_a_study_can_be_named_at_first(add, truth):
    add("one", "--name", "liver", "--study-name", "Münster 7")
    status, out, _ = truth("history", "Münster 7")
    assert status == 0 and "liver v1" in out


def test_list_prints_the_newest_label_of_each_structure(add, truth):
    add("two", "--names", "1=spleen", "2=liver", "--author", "ann")
    add("one", "--name", "liver", "--author", "bob", "--comment", "better")
    status, out, err = truth("list")
    assert (status, err) == (0, "")
    title, *lines = out.splitlines()
    assert title.startswith("torso (")
    assert len(lines) == 2
    assert lines[0].startswith("  liver v2 draft, 189 voxels, ") and lines[0].endswith("by bob: better")
    assert lines[1].startswith("  spleen v1 ")


def test_list_as_json_is_complete(add, truth):
    add("one", "--name", "liver", "--author", "ann", "--model", "geodesic", "--model-version", "1")
    (study,) = json.loads(truth("list", "--json")[1])
    (label,) = study["labels"]
    assert (study["name"], len(study["study"])) == ("torso", 32)
    assert label["study"] == study["study"]
    assert (label["structure"], label["number"], label["voxels"], label["parent"]) == ("liver", 1, 189, None)
    assert (label["author"], label["model"], label["state"]) == ("ann", "geodesic", "draft")
    assert datetime.fromisoformat(label["made"]).utcoffset().total_seconds() == 0
    assert (read_labelmap(label["path"]).voxels == (LABELMAP == 2)).all()


def test_history_shows_every_version_oldest_first(add, truth):
    for author in ("ann", "bob"):
        add("two", "--names", "1=spleen", "2=liver", "--author", author)
    lines = truth("history", "torso", "liver")[1].splitlines()
    assert [line.split(",")[0] for line in lines] == ["liver v1 draft", "liver v2 draft"]
    versions = json.loads(truth("history", "torso", "--json")[1])
    assert [(v["structure"], v["number"], v["author"]) for v in versions] == [
        ("liver", 1, "ann"),
        ("liver", 2, "bob"),
        ("spleen", 1, "ann"),
        ("spleen", 2, "bob"),
    ]


def test_restore_makes_a_new_version(add, truth):
    add("one", "--name", "spleen", "--author", "ann")
    add("two", "--names", "1=spleen", "--author", "bob")
    status, out, err = truth("restore", "torso", "spleen", "1", "--author", "cat")
    assert (status, err) == (0, "")
    assert out.startswith("spleen v3 draft, 189 voxels, ") and "by cat: Restored version 1 by ann." in out
    versions = json.loads(truth("history", "torso", "spleen", "--json")[1])
    assert [v["parent"] for v in versions] == [None, 1, 1]
    assert versions[0]["mask"] == versions[2]["mask"]


def test_export_writes_what_was_added(add, truth, folder):
    add("two", "--names", "1=spleen", "2=liver")
    out = folder / "out.nii.gz"
    status, printed, err = truth("export", "torso", "-o", out)
    assert (status, printed, err) == (0, f"{out}: 1=liver v1, 2=spleen v1\n", "")
    assert (read_labelmap(out, like=random_volume()).voxels == np.array([0, 2, 1], np.uint8)[LABELMAP]).all()
    truth("export", "torso", "-o", out, "--structure", "spleen", "--version", "1")
    assert (read_labelmap(out).voxels == (LABELMAP == 1)).all()


def test_a_study_is_named_after_a_link_as_it_is_called(truth, folder):
    (folder / "patient 7.nii.gz").symlink_to(folder / "torso.nii.gz")
    assert truth("add", folder / "patient 7.nii.gz")[1].startswith("patient 7: kept (")


def test_a_folder_named_by_dots_gives_its_own_name(truth, tmp_path, monkeypatch):
    write_series(tmp_path / "head", np.zeros((3, 4, 5), np.int16), np.eye(4))
    monkeypatch.chdir(tmp_path / "head")
    assert truth("add", ".")[1].startswith("head: kept (")


def test_a_model_without_a_version_is_named_alone(add):
    out = add("one", "--name", "liver", "--author", "ann", "--model", "geodesic")[1]
    assert out.endswith(" by ann, from geodesic\n")


def test_export_gives_the_values_that_are_asked_for(add, truth, folder):
    add("two", "--names", "1=spleen", "2=liver")
    for name in ("out.nii.gz", "out.seg.nrrd"):
        status, printed, _ = truth("export", "torso", "-o", folder / name, "--names", "300=Spleen", "7=liver")
        assert (status, printed) == (0, f"{folder / name}: 300=spleen v1, 7=liver v1\n")
        assert (read_labelmap(folder / name).voxels == np.array([0, 300, 7])[LABELMAP]).all()
    truth("export", "torso", "-o", folder / "out.nrrd", "--names", "5=liver", "--version", "1")
    assert (read_labelmap(folder / "out.nrrd").voxels == 5 * (LABELMAP == 2)).all()


def test_a_slicer_segmentation_names_its_structures_itself(add, truth, folder):
    add("two", "--names", "1=spleen", "2=liver")
    file = folder / "there.seg.nrrd"
    assert truth("export", "torso", "-o", file, "--names", "5=liver", "300=spleen")[0] == 0
    said = truth("add", folder / "torso.nii.gz", file)[1]
    assert "liver v2" in said and "spleen v2" in said
    versions = json.loads(truth("history", "torso", "--json")[1])
    assert len({(version["structure"], version["mask"]) for version in versions}) == 2
    assert_one_sentence(truth("add", folder / "torso.nii.gz", file, "--names", "5=spleen", "300=liver"), "'5=spleen'")


def test_values_that_are_not_saved_are_said(add):
    assert add("two", "--names", "1=spleen")[1].endswith("Not saved, since nothing names them: the values 2.\n")


def test_export_takes_a_structure_that_is_named_twice_once(add, truth, folder):
    add("one", "--name", "liver")
    out = folder / "out.nrrd"
    assert (
        truth("export", "torso", "-o", out, "--structure", "liver", "--structure", "LIVER")[1] == f"{out}: 1=liver v1\n"
    )


def test_export_says_that_a_label_was_rejected(add, truth, folder):
    add("one", "--name", "liver")
    add("one", "--name", "liver", "--state", "rejected")
    out = folder / "out.nrrd"
    assert truth("export", "torso", "-o", out)[1] == f"{out}: 1=liver v2 (rejected)\n"


def test_a_label_is_approved_and_rejected(add, truth):
    add("one", "--name", "liver", "--author", "Ann", "--state", "submitted")
    said = truth("review", "torso", "liver", "rejected", "--comment", "Too small", "--author", "Cat")[1]
    assert said.startswith("liver v2 rejected, ") and said.endswith(" by Cat: Too small\n")
    assert truth("review", "torso", "liver", "approved", "--author", "Cat")[1].startswith("liver v3 approved, ")
    assert_one_sentence(truth("review", "torso", "liver", "approved"), "'liver' version 3 by Cat is approved already")
    assert_one_sentence(truth("review", "torso", "liver", "rejected", "--version", 1), "Version 1 is not the newest")


# What does not


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--names", "1=liver", "1=spleen"), "'1=spleen' names a value or a structure twice"),
        (("--names", "0=liver"), "'0=liver'"),
        (("--names", "65536=liver"), "'65536=liver'"),
        (("--names", "1=nobody"), "'nobody'"),
        (("--names", "1=liver", "--structure", "liver"), "--structure and --names 1=liver contradict"),
        (("--names", "1=liver", "-o", "seg.dcm"), "seg.dcm is a DICOM SEG"),
    ],
)
def test_values_that_cannot_be_given_are_refused(add, truth, folder, options, named):
    add("two", "--names", "1=spleen", "2=liver")
    assert_one_sentence(truth("export", "torso", "-o", folder / "out.nrrd", *options), named)
    assert not (folder / "out.nrrd").exists()


def test_the_series_of_another_patient_is_refused_and_nothing_is_saved_of_it(truth, tmp_path):
    stored = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    for name in ("first", "second"):
        write_series(tmp_path / name, stored, np.eye(4))
    write_volume(tmp_path / "label.nrrd", Volume((stored > 30).astype(np.uint8), Geometry(stored.shape, np.eye(4))))
    label = (tmp_path / "label.nrrd", "--name", "liver")
    assert truth("add", tmp_path / "first", *label)[0] == 0
    assert truth("add", tmp_path / "first", *label)[0] == 0
    assert_one_sentence(truth("add", tmp_path / "second", *label), "DICOM headers of another series")
    assert_one_sentence(truth("add", tmp_path / "second"), "DICOM headers of another series")
    assert len(json.loads(truth("history", "first", "--json")[1])) == 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--author", " "), "needs an author"),
        (("--author", "a\udcff"), "author 'a\\udcff'"),
        (("--comment", "\udcff"), "comment '\\udcff'"),
        (("--study-name", "\udcff"), "study name '\\udcff'"),
        (("--seconds", "-1"), "--seconds is -1.0"),
        (("--seconds", "nan"), "--seconds is nan"),
        (("--seconds", "inf"), "--seconds is inf"),
        (("--edits", "-1"), "--edits is -1"),
        (("--edits", str(10**30)), f"--edits is {10**30}"),
    ],
)
def test_what_cannot_be_kept_of_a_label_is_refused_before_anything_is_saved(add, folder, options, named):
    assert_one_sentence(add("one", "--name", "liver", *options), named)
    assert not (folder / "studies").exists()


@pytest.mark.parametrize("action", ["history", "restore", "export"])
def test_an_unknown_study_is_named(add, truth, folder, action):
    add("one", "--name", "liver")
    more = {"history": (), "restore": ("liver", 1), "export": ("-o", folder / "out.nrrd")}[action]
    assert_one_sentence(truth(action, "nobody", *more), "no study called 'nobody'", "aiassist truth list")


@pytest.mark.parametrize("action", ["history", "restore", "export"])
def test_an_unknown_structure_is_named(add, truth, folder, action):
    add("one", "--name", "liver")
    more = {
        "history": ("spleen",),
        "restore": ("spleen", 1),
        "export": ("-o", folder / "out.nrrd", "--structure", "spleen"),
    }[action]
    assert_one_sentence(truth(action, "torso", *more), "'spleen'")


def test_a_version_that_does_not_exist_is_named(add, truth, folder):
    add("one", "--name", "liver")
    assert_one_sentence(truth("restore", "torso", "liver", 5), "no version 5 of 'liver'", "its versions are 1")
    wanted = ("-o", folder / "out.nrrd", "--structure", "liver", "--version", "2")
    assert_one_sentence(truth("export", "torso", *wanted), "no version 2 of 'liver'")
    assert not (folder / "out.nrrd").exists()


def test_a_version_of_several_structures_is_refused(add, truth, folder):
    add("two", "--names", "1=spleen", "2=liver")
    assert_one_sentence(truth("export", "torso", "-o", folder / "out.nrrd", "--version", "1"), "single --structure")


def test_a_label_on_another_grid_is_refused_before_anything_is_saved(add, folder):
    assert_one_sentence(add("elsewhere", "--names", "1=spleen"), "elsewhere.nii.gz", "another grid")
    assert not (folder / "studies").exists()


def test_an_empty_label_is_refused_before_anything_is_saved(add, folder):
    assert_one_sentence(add("empty", "--name", "spleen"), "empty.nii.gz is empty")
    assert not (folder / "studies").exists()


def test_one_name_for_several_values_is_refused(add, folder):
    assert_one_sentence(add("two", "--name", "spleen"), "two.nii.gz holds 2 structures", "--names")
    assert not (folder / "studies").exists()


def test_a_label_without_names_is_refused(add, folder):
    assert_one_sentence(add("two"), "two.nii.gz", "--name")
    assert not (folder / "studies").exists()


@pytest.mark.parametrize("pair", ["spleen", "1", "1=", "=spleen", "9=spleen", "-1=spleen", "1.0=spleen", "²=spleen"])
def test_a_pair_that_names_no_value_is_refused(add, folder, pair):
    assert_one_sentence(add("two", f"--names={pair}"), repr(pair))
    assert not (folder / "studies").exists()


@pytest.mark.parametrize(
    "pairs", [("1=spleen", "1=liver"), ("1=kidney", "2= Kidney"), ("1=Gr\u00f6\u00dfe", "2=gro\u0308\u00dfe")]
)
def test_a_value_or_structure_that_is_named_twice_is_refused(add, folder, pairs):
    assert_one_sentence(add("two", "--names", *pairs), repr(pairs[1]), "twice")
    assert not (folder / "studies").exists()


@pytest.mark.parametrize("name", ["two\nlines", "  ", "\udcff"])
def test_a_name_that_is_none_is_refused_before_anything_is_saved(add, folder, name):
    assert_one_sentence(add("one", "--name", name))
    assert_one_sentence(add("two", "--names", "1=spleen", f"2={name}"))
    assert not (folder / "studies").exists()


def test_a_missing_image_is_named(truth, folder):
    assert_one_sentence(truth("add", folder / "no.nii.gz", folder / "one.nii.gz", "--name", "liver"), "no.nii.gz")


def test_what_is_not_a_studies_folder_is_named(truth, folder):
    for action, more in (("list", ()), ("history", ("torso",)), ("restore", ("torso", "liver", 1))):
        assert_one_sentence(truth(action, *more), str(folder / "studies"), "not a studies folder")
    assert not (folder / "studies").exists()


def test_a_damaged_index_is_one_sentence(add, truth, folder):
    add("one", "--name", "liver")
    for path in (folder / "studies").glob("index.sqlite*"):
        path.write_bytes(b"garbage " * 1000)
    assert_one_sentence(truth("list"), "index")
    assert_one_sentence(add("one", "--name", "liver"), "index")


def test_an_export_into_a_missing_folder_names_it(add, truth, folder):
    add("one", "--name", "liver")
    for name in ("out.seg.nrrd", "out.nii.gz"):
        assert_one_sentence(truth("export", "torso", "-o", folder / "missing" / name), str(folder / "missing"))


# Models


def test_a_study_is_removed_only_for_good_and_the_models_that_it_taught_are_named(add, truth, folder):
    add("two", "--names", "1=liver", "2=spleen")
    study = GroundTruthStore(folder / "studies").study("torso").id
    uploads, models = folder / "studies" / "uploads", folder / "studies" / "models" / "mine"
    config = dict.fromkeys(ASKED) | {"base": "network"}
    for version, taught in (("1", study), ("2", "0" * 32), ("3", study)):
        (models / version).mkdir(parents=True)
        plan = {"config": config, "teaching": [{"study": taught}], "judging": []}
        (models / version / "learned-from.json").write_text(json.dumps(plan) if version != "3" else "{")
    uploads.mkdir()
    (uploads / f"{study}.raw").write_bytes(b"voxels")
    status, out, _ = truth("remove", "torso")
    assert status == 0 and out.startswith(f"This would remove torso ({study[:8]})") and "liver, spleen" in out
    assert (uploads / f"{study}.raw").exists() and truth("list")[1].count("v1") == 2
    status, out, _ = truth("remove", "torso", "--for-good")
    assert status == 0 and out.startswith(f"Removed torso ({study[:8]})")
    assert f"It taught {models / '1'}," in out and str(models / "2") not in out
    assert f"What {models / '3'} learned from cannot be read; it may know it" in out
    assert truth("list")[1] == "" and not list(uploads.iterdir()) and not list((folder / "studies/studies").iterdir())
    assert_one_sentence(truth("remove", "torso", "--for-good"), "torso")


def run_models(capsys, *arguments):
    status = main(["models", *arguments])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_models_list_begins_with_the_default(capsys):
    status, out, err = run_models(capsys, "list")
    assert (status, err) == (0, "")
    assert out.splitlines()[0].startswith("network ") and "(default)" in out.splitlines()[0]
    assert out.count("(default)") == 1
    assert any(line.startswith("ellipsoid ") for line in out.splitlines())


def test_models_list_as_json_holds_every_card(capsys):
    cards = json.loads(run_models(capsys, "list", "--json")[1])
    assert cards[0]["name"] == "network"
    for card in cards:
        assert card["kind"] in ("promptable", "automatic")
        assert card["licence"] and card["version"] and "cpu" in card["devices"]
        assert json.loads(run_models(capsys, "info", card["name"], "--json")[1]) == card


def test_models_info_prints_the_card(capsys):
    status, out, err = run_models(capsys, "info", "geodesic")
    assert (status, err) == (0, "")
    fields = {line.partition(":")[0]: line.partition(":")[2].strip() for line in out.splitlines()}
    assert (fields["name"], fields["kind"], fields["licence"]) == ("geodesic", "promptable", "Apache-2.0")
    assert (fields["devices"], fields["modalities"]) == ("cpu", "any")


def test_an_unknown_model_is_named(capsys):
    assert_one_sentence(run_models(capsys, "info", "oracle"), "'oracle'", "geodesic")
