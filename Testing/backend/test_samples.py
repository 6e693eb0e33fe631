"""What a model learns from: labels, who teaches and who judges, and the examples made of them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from dicom_series import write_series
from groundtruth_helpers import random_volume
from learning_helpers import add_tiny_version, ellipsoid_scan, patch, store_of_ellipsoids

from aiassist.errors import ModelError, StoreError
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import DicomSeries, Geometry, Volume, read_volume
from aiassist.learning import examples as learning_examples
from aiassist.learning.crops import read_crop, write_crop
from aiassist.learning.examples import LabelExamples, vary
from aiassist.learning.samples import find_samples, targets
from aiassist.learning.splits import Splits
from aiassist.segmenters.model_store import ASKED, LEARNED_FROM, MODELS, ModelStore
from aiassist.synthesis.fields import Draw

# Samples


def test_the_newest_accepted_label_of_each_structure_teaches(tmp_path):
    with GroundTruthStore(tmp_path) as store:
        first, second = (store.add_study(random_volume(n), f"scan {n}").id for n in (1, 2))
        store.add(first, "Liver", patch(slice(2)), author="a", state=State.SUBMITTED)
        store.add(first, "liver", patch(slice(3)), author="a", state=State.APPROVED)
        store.add(first, "liver", patch(slice(4)), author="a", state=State.DRAFT)
        store.add(first, "spleen", patch(slice(2)), author="a", state=State.SUBMITTED)
        store.add(first, "spleen", patch(slice(2)), author="b", state=State.REJECTED)  # what it rejects is no better
        store.add(first, "kidney", patch(slice(2)), author="a", state=State.REJECTED)
        store.add(first, "kidney", patch(slice(3)), author="a", state=State.SUBMITTED)  # corrected since
        store.add(first, "cyst", patch(slice(0)), author="a", state=State.APPROVED)  # empty
        store.add(second, "spleen", patch(slice(5)), author="a", state=State.SUBMITTED)
        store.add(second, "liver", patch(slice(5)), author="a", state=State.DRAFT)
        found = [(sample.study, sample.structure, sample.number) for sample in find_samples(store)]
        assert found == [(first, "kidney", 2), (first, "liver", 2), (second, "spleen", 1)]
        assert [sample.study for sample in find_samples(store, ["SPLEEN"])] == [second]
        drafts = [(sample.study, sample.number) for sample in find_samples(store, ["liver"], drafts=True)]
        assert drafts == [(first, 3), (second, 1)]
        absent = [(sample.study, sample.structure) for sample in find_samples(store, absent=True)]
        assert absent == [(first, "cyst"), (first, "kidney"), (first, "liver"), (second, "spleen")]
        with pytest.raises(StoreError, match="holds no submitted or approved label of lung to learn from"):
            find_samples(store, ["lung"])
        with pytest.raises(StoreError, match="label of cyst to learn from"):
            find_samples(store, ["cyst"], absent=True)


def test_a_label_in_pieces_is_several_structures_and_crumbs_are_none():
    mask = np.zeros((20, 20, 20), bool)
    mask[2:6, 2:6, 2:6] = mask[12:16, 12:16, 12:16] = True
    mask[0, 0, 0] = True
    pieces = list(targets(mask))
    assert [int(piece.sum()) for piece in pieces] == [64, 64]
    assert not (pieces[0] & pieces[1]).any()
    mask[12:16] = False
    (whole,) = targets(mask)  # 64 of 65 voxels hang together
    assert int(whole.sum()) == 65
    assert list(targets(mask & (np.indices(mask.shape)[0] < 3))) == []


# Who teaches and who judges


def test_a_side_once_given_stays(tmp_path):
    with store_of_ellipsoids(tmp_path, 11) as store:
        studies = [study.id for study in store.studies()]
        few = Splits(tmp_path / MODELS).judging(store, studies[:6])
        assert few == {studies[0], studies[5]}
        assert Splits(tmp_path / MODELS).judging(store, reversed(studies[:6])) == few
        more = Splits(tmp_path / MODELS).judging(store, studies)
        assert few < more
        assert len(more) == 3


def test_one_patient_alone_can_not_teach_and_judge(tmp_path):
    with store_of_ellipsoids(tmp_path, 2) as store:
        studies = [study.id for study in store.studies()]
        with pytest.raises(StoreError, match="are of one patient, or have the same Patient ID; add another's"):
            Splits(tmp_path / MODELS).judging(store, studies[:1])
        assert Splits(tmp_path / MODELS).judging(store, studies) == {studies[0]}


def test_images_of_one_patient_are_on_one_side(tmp_path):
    for name in ("one", "other"):
        write_series(tmp_path / name, random_volume(len(name)).voxels, random_volume().geometry.affine)
    with GroundTruthStore(tmp_path) as store:
        one, other = (store.add_study(read_volume(tmp_path / name), name).id for name in ("one", "other"))
        rest = [store.add_study(random_volume(n), f"other {n}").id for n in range(2)]
        assert store.series(one).patient_id == store.series(other).patient_id
        assert Splits(tmp_path / MODELS).judging(store, [one, *rest, other]) == {one, other}
        assert store.series(one).patient_id not in (tmp_path / MODELS / "splits.json").read_text()


@pytest.mark.parametrize("late_judges", [False, True])
def test_who_taught_once_never_judges_when_headers_come_later(tmp_path, late_judges):
    for name in ("late", "other"):
        write_series(tmp_path / name, random_volume(len(name)).voxels, random_volume().geometry.affine)
    late_image, other_image = (read_volume(tmp_path / name) for name in ("late", "other"))
    with GroundTruthStore(tmp_path) as store:
        splits, first = Splits(tmp_path / MODELS), store.add_study(random_volume(0), "first").id
        late = store.add_study(Volume(late_image.voxels, late_image.geometry), "late").id
        before = splits.judging(store, [late, first] if late_judges else [first, late])
        assert (late in before) == late_judges
        store.add_series(late, late_image.dicom)
        other = store.add_study(other_image, "other").id  # of the same patient
        rest = [store.add_study(random_volume(n), f"rest {n}").id for n in range(1, 4)]
        judging = splits.judging(store, [first, late, other, *rest])
        assert (late in judging) == (other in judging) == late_judges
        assert splits.judging(store, [other, late, *rest, first]) == judging


def series(patient: str, exam: str, name: str = "1") -> DicomSeries:
    """Headers of an image of `random_volume`'s grid."""
    header = {"00100020": {"vr": "LO", "Value": [patient]}, "0020000D": {"vr": "UI", "Value": [exam]}}
    return DicomSeries((header | {"0020000E": {"vr": "UI", "Value": [name]}},) * random_volume().shape[0])


def add_scan(store: GroundTruthStore, seed: int, headers: DicomSeries | None = None) -> str:
    plain = random_volume(seed)
    return store.add_study(Volume(plain.voxels, plain.geometry, headers), f"scan {seed}").id


@pytest.mark.parametrize("blank", ["", "   "])
def test_series_of_one_exam_without_a_patient_id_are_of_one_patient(tmp_path, blank):
    with GroundTruthStore(tmp_path) as store:
        one, other = (add_scan(store, n, series(blank, "1.2", f"1.2.{n}")) for n in (0, 1))
        another = add_scan(store, 2, series(blank, "1.3"))
        padded = [add_scan(store, n, series(said, f"1.{n}")) for n, said in ((4, "P-1"), (5, " P-1 "))]
        judging = Splits(tmp_path / MODELS).judging(store, [one, other, another, *padded])
        assert judging == {one, other}
        held = json.loads((tmp_path / MODELS / "splits.json").read_text())["patients"]
        assert held[padded[0]] == held[padded[1]] != held[another] != held[one] == held[other]


@pytest.mark.parametrize("is_asked", [True, False])
def test_a_study_follows_its_headers_when_they_are_mended_and_who_taught_once_never_judges(tmp_path, is_asked):
    with GroundTruthStore(tmp_path) as store:
        splits = Splits(tmp_path / MODELS)
        right = add_scan(store, 0, series("right", "1"))
        mixed_up = add_scan(store, 1, series("wrong", "2"))
        rest = [add_scan(store, n, series(f"rest {n}", f"1.{n}")) for n in range(2, 5)]
        assert splits.judging(store, [right, mixed_up, *rest]) == {right}
        store.drop_series(mixed_up)
        store.add_series(mixed_up, series("right", "2"))
        added = add_scan(store, 5, series("new", "9"))
        asked = [right, *rest, added, *([mixed_up] if is_asked else [])]
        assert splits.judging(store, asked) == {added}  # right taught as wrong
        assert splits.judging(store, [mixed_up, added]) == {added}


def test_a_study_that_is_gone_or_whose_headers_are_damaged_keeps_its_patient(tmp_path):
    with GroundTruthStore(tmp_path) as store:
        splits = Splits(tmp_path / MODELS)
        studies = [add_scan(store, n, series(f"patient {n}", f"1.{n}")) for n in range(6)]
        before = splits.judging(store, studies)
        held = json.loads(splits.path.read_text())
        store.series_file(studies[0]).write_bytes(b"damaged")
        held["patients"]["gone"] = held["patients"][studies[5]]
        splits.path.write_text(json.dumps(held))
        assert splits.judging(store, studies) == before
        assert json.loads(splits.path.read_text()) == held


def test_patients_of_whom_a_study_taught_judge_nothing_more(tmp_path):
    with GroundTruthStore(tmp_path) as store:
        one, other = (add_scan(store, n, series("P-1", "1", f"1.{n}")) for n in (0, 1))
        rest = [add_scan(store, n) for n in range(2, 8)]
        splits = Splits(tmp_path / MODELS)
        judging = splits.judging(store, [one, *rest])
        assert one in judging and len(judging) == 2
        assert splits.judging(store, [one, *rest], taught=[other]) == judging - {one}  # of which no side is known
        assert splits.judging(store, [one, other, *rest], taught=[other, "gone"]) == judging - {one}


def test_where_the_list_of_sides_is_lost_who_taught_a_version_does_not_judge(tmp_path):
    with store_of_ellipsoids(tmp_path, 6) as store:
        studies = [study.id for study in store.studies()]
        splits, models = Splits(tmp_path / MODELS), ModelStore(tmp_path / MODELS)
        assert splits.judging(store, studies) == {studies[0], studies[5]}
        splits.path.unlink()
        add_tiny_version(models, "cysts")
        plan = {"config": dict.fromkeys(ASKED), "teaching": [{"study": studies[0]}], "judging": [{"study": studies[3]}]}
        (models.folder_of("cysts", 1) / LEARNED_FROM).write_text(json.dumps(plan))
        judging = splits.judging(store, studies)
        assert studies[3] in judging and studies[0] not in judging


def test_a_study_that_is_removed_for_good_leaves_no_trace_of_its_patient(tmp_path):
    with GroundTruthStore(tmp_path) as store:
        splits = Splits(tmp_path / MODELS)
        splits.forget("nobody")
        one, other = (add_scan(store, n, series("P-1", "1", f"1.{n}")) for n in (0, 1))
        alone = add_scan(store, 2, series("P-2", "2", "2.1"))
        rest = [add_scan(store, n) for n in range(3, 8)]
        judging = splits.judging(store, [one, other, alone, *rest])
        patients = json.loads(splits.path.read_text())["patients"]
        splits.forget(one)
        splits.forget(alone)
        left = splits.path.read_text()
        assert patients[alone] not in left and alone not in left and one not in left
        assert json.loads(left)["judges"][patients[one]] is True  # the other's
        assert splits.judging(store, [other, *rest]) == judging - {one, alone}


def test_a_damaged_list_of_sides_is_named_and_stays(tmp_path):
    with store_of_ellipsoids(tmp_path, 2) as store:
        path = tmp_path / MODELS / "splits.json"
        path.parent.mkdir()
        for spoiled in ("", "[]", '{"a": 1}', '{"judges": {"a": 1}, "patients": {}}', '{"judges": 3, "patients": {}}'):
            path.write_text(spoiled)
            with pytest.raises(ModelError, match=r"splits\.json is damaged; restore it from a backup"):
                Splits(tmp_path / MODELS).judging(store, [study.id for study in store.studies()])
            assert path.read_text() == spoiled


# Crops and examples


def test_a_crop_holds_the_structure_and_its_surroundings(tmp_path, volume, labelmap):
    mask = labelmap.voxels == 5  # of the bundled CT
    write_crop(tmp_path / "crop.npz", volume, mask)
    scan = read_crop(tmp_path / "crop.npz")
    assert int(scan.truth.sum()) == int(mask.sum())
    assert scan.spacing == pytest.approx(volume.geometry.spacing_kji)
    inside = scan.voxels[scan.truth].numpy()
    assert np.array_equal(inside, volume.voxels[mask].astype(np.float32))
    assert scan.truth.numel() < mask.size
    ends = scan.truth.nonzero()
    assert (ends.amin(0) > 0).sum() >= 2  # something lies around it, where the image does not end


def test_a_structure_that_is_thin_everywhere_is_kept(tmp_path):
    geometry = Geometry.from_spacing((10, 400, 400), (0.5, 0.5, 3.0))
    mask = np.zeros(geometry.shape, bool)
    mask[5, 1::8, 201] = mask[5, 201, 1:380] = True
    mask[5, 20:380, 201] = True
    write_crop(tmp_path / "crop.npz", Volume(np.where(mask, 7, 0).astype(np.int16), geometry), mask)
    scan = read_crop(tmp_path / "crop.npz")
    assert int(scan.truth.sum()) > 30
    LabelExamples({"catheter": [tmp_path / "crop.npz"]}, 16)[3]


def test_of_a_large_structure_fewer_voxels_are_kept(tmp_path):
    geometry = Geometry.from_spacing((40, 200, 200), (1.0, 1.0, 5.0))
    mask = np.zeros(geometry.shape, bool)
    mask[10:30, 20:180, 20:180] = True
    write_crop(tmp_path / "crop.npz", Volume(np.where(mask, 7, 0).astype(np.int16), geometry), mask)
    scan = read_crop(tmp_path / "crop.npz")
    assert scan.spacing == (5.0, 2.0, 2.0)
    extent = (scan.truth.nonzero().amax(0) - scan.truth.nonzero().amin(0) + 1).tolist()
    assert extent == [20, 80, 80]  # two of a cell, which are 48 over the box and an eighth on each side
    assert torch.equal(scan.voxels == 7, scan.truth)


@pytest.fixture
def crops(tmp_path) -> dict:
    found = {}
    for number, structure in enumerate(("cyst", "cyst", "node")):
        write_crop(tmp_path / f"{number}.npz", *ellipsoid_scan(number))
        found.setdefault(structure, []).append(tmp_path / f"{number}.npz")
    return found


def test_a_seed_makes_one_example(crops):
    made = LabelExamples(crops, 16)
    for seed in range(4):
        (once,), (again,) = made[seed], made[seed]
        assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
    assert not torch.equal(made[0][0][0], made[1][0][0])


def test_structures_are_shown_equally_often_among_synthetic_scans(crops, monkeypatch):
    shown = []
    monkeypatch.setattr(learning_examples, "example", lambda seed, cells: shown.append("synthetic") or 1 / 0)
    monkeypatch.setattr(learning_examples, "read_crop", lambda path: shown.append(path.name) or 1 / 0)
    made = LabelExamples(crops, 16)
    for seed in range(400):
        with pytest.raises(ZeroDivisionError):
            made[seed]
    counts = {name: shown.count(name) / 400 for name in ("synthetic", "0.npz", "1.npz", "2.npz")}
    assert counts == pytest.approx({"synthetic": 0.25, "0.npz": 0.1875, "1.npz": 0.1875, "2.npz": 0.375}, abs=0.06)


def test_a_varied_scan_shows_the_same_structure(crops):
    scan = read_crop(crops["cyst"][0])
    orders = set()
    for seed in range(12):
        varied = vary(Draw(seed), scan)
        assert int(varied.truth.sum()) == int(scan.truth.sum())
        assert sorted(varied.spacing) == sorted(scan.spacing)
        assert varied.voxels.shape[varied.spacing.index(2.0)] == scan.voxels.shape[0]
        assert varied.voxels[varied.truth].mean() > varied.voxels[~varied.truth].mean() + varied.voxels.std()
        orders.add(varied.spacing)
    assert len(orders) == 3


def test_the_noise_of_a_varied_scan_does_not_grow_with_what_a_scanner_puts_where_it_saw_nothing(crops):
    scan = read_crop(crops["cyst"][0])
    padded = torch.zeros_like(scan.voxels)
    padded[:, :, : padded.shape[2] // 4] = -30000.0
    for seed in range(8):
        assert len(vary(Draw(seed), replace(scan, voxels=padded)).voxels.unique()) == 2
    spread = [vary(Draw(seed), replace(scan, voxels=padded + scan.voxels)).voxels.max() for seed in range(8)]
    assert len(set(map(float, spread))) == 8  # there is some, though
