"""The ground-truth store: nothing is lost, overwritten or mixed up."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from groundtruth_helpers import (
    SHAPE,
    check_whole,
    random_mask,
    random_patch,
    random_volume,
    unfinished_files,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiassist.errors import NotStoredError, StoreError
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import DicomSeries, Geometry, MaskPatch, Volume
from aiassist.prompts import Prompts, Scribble

# Versions


@pytest.mark.parametrize("name", ["what?mode=memory", "a%20b", "größe #1"])
def test_the_folder_may_have_any_name(tmp_path, name):
    with GroundTruthStore(tmp_path / name) as store:
        store.add_study(Volume(np.zeros((3, 4, 5), np.int16), Geometry.from_spacing((3, 4, 5))), "one")
    assert (tmp_path / name / "index.sqlite").exists() and [p.name for p in tmp_path.iterdir()] == [name]
    with GroundTruthStore(tmp_path / name) as store:
        assert [study.name for study in store.studies()] == ["one"]


def test_a_new_version_leaves_the_bytes_of_older_ones_untouched(store, study):
    first = store.add(study, "spleen", random_patch(1), author="ann")
    before = hashlib.sha256(first.path.read_bytes()).hexdigest()
    second = store.add(study, "spleen", random_patch(2), author="bob")
    assert (first.number, second.number) == (1, 2)
    assert hashlib.sha256(first.path.read_bytes()).hexdigest() == before
    assert (store.mask(second).to_mask(SHAPE) == random_mask(2)).all()


def test_the_same_mask_saved_twice_makes_two_versions(store, study):
    versions = [store.add(study, "spleen", random_patch(1), author="ann") for _ in range(2)]
    assert [v.number for v in versions] == [1, 2]
    assert versions[0].mask == versions[1].mask
    assert versions[0].path != versions[1].path


def test_all_that_was_said_of_a_version_comes_back_from_a_fresh_store(store, study):
    store.add(study, "spleen", random_patch(1), author="ann")
    store.add(study, "spleen", random_patch(2), author="ann")
    prompts = Prompts(
        extreme_points=[[1, 2, 3], [4.5, 5, 6]],
        positive=[[7, 7, 7]],
        scribbles=[Scribble([[1, 1, 1], [2, 2, 2]], positive=False)],
    )
    before = datetime.now(UTC)
    added = store.add(
        study,
        "spleen",
        random_patch(3),
        author="Zoë Ångström",
        model="geodesic",
        model_version="1.2",
        prompts=prompts,
        seconds=61.5,
        edits=7,
        comment='Two lines,\nand "quotes" — 脾臓.',
        state=State.SUBMITTED,
        parent=1,
    )
    with GroundTruthStore(store.folder) as fresh:
        found = fresh.version(study, "spleen", 3)
    assert found == added
    assert (found.author, found.model, found.model_version) == ("Zoë Ångström", "geodesic", "1.2")
    assert (found.seconds, found.edits, found.parent) == (61.5, 7, 1)
    assert found.comment == 'Two lines,\nand "quotes" — 脾臓.'
    assert found.state is State.SUBMITTED
    assert Prompts.from_json(found.prompts).to_json() == prompts.to_json()
    assert found.voxels == random_mask(3).sum()
    assert found.mask == random_patch(3).version
    assert before <= found.made <= datetime.now(UTC)
    assert found.made.utcoffset() == timedelta(0)


def test_what_was_not_said_comes_back_as_absent(store, study):
    found = store.version(study, "spleen", store.add(study, "spleen", random_patch(1), author="ann").number)
    assert [found.model, found.model_version, found.prompts, found.seconds, found.edits, found.parent] == [None] * 6
    assert (found.comment, found.state) == ("", State.DRAFT)


def test_the_parent_is_the_version_before_unless_another_is_named(store, study):
    for _ in range(3):
        store.add(study, "spleen", random_patch(1), author="ann")
    store.add(study, "spleen", random_patch(1), author="ann", parent=2)
    store.add(study, "spleen", random_patch(2), author="ann", parent=0)  # drawn anew
    assert [v.parent for v in store.history(study, "spleen")] == [None, 1, 2, 2, None]


@pytest.mark.parametrize("state", State)
def test_every_review_state_is_kept(store, study, state):
    store.add(study, "spleen", random_patch(1), author="ann", state=state)
    assert store.version(study, "spleen").state is state


def test_restoring_makes_a_new_version_of_the_old_voxels(store, study):
    store.add(study, "spleen", random_patch(1), author="ann", model="geodesic", model_version="1", state=State.APPROVED)
    store.add(study, "spleen", random_patch(2), author="bob")
    restored = store.restore(study, "spleen", 1, "cat")
    assert (restored.number, restored.parent, restored.author) == (3, 1, "cat")
    assert (restored.model, restored.model_version, restored.state) == ("geodesic", "1", State.DRAFT)
    assert (store.mask(restored).to_mask(SHAPE) == random_mask(1)).all()
    assert (store.mask(store.version(study, "spleen", 2)).to_mask(SHAPE) == random_mask(2)).all()
    assert store.version(study, "spleen") == restored


def test_a_review_does_not_bury_what_came_while_it_was_written(store, study, monkeypatch):
    first = store.add(study, "spleen", random_patch(1), author="ann", state=State.SUBMITTED)
    read = store.mask

    def read_while_ann_saves(version):
        with GroundTruthStore(store.folder) as other:
            other.add(study, "spleen", random_patch(2), author="ann", state=State.SUBMITTED)
        return read(version)

    monkeypatch.setattr(store, "mask", read_while_ann_saves)
    with pytest.raises(StoreError, match="'spleen' got version 2 meanwhile; look at that one"):
        store.review(study, "spleen", State.APPROVED, "boss", number=first.number)
    monkeypatch.undo()
    assert [(v.number, v.author, v.state) for v in store.history(study)] == [
        (1, "ann", State.SUBMITTED),
        (2, "ann", State.SUBMITTED),
    ]
    assert sorted(path.name for path in first.path.parent.iterdir()) == ["v0001.seg.nrrd", "v0002.seg.nrrd"]


def test_a_review_is_a_version_of_the_same_voxels_by_who_reviews(store, study):
    points = Prompts(extreme_points=[[1, 2, 3], [3, 2, 1]])
    made = {"model": "network", "model_version": "5", "prompts": points, "state": State.SUBMITTED}
    first = store.add(study, "spleen", random_patch(1), author="ann", **made)
    second = store.review(study, "Spleen", State.REJECTED, "cat", "The hilum is missing.", first.number)
    assert (second.number, second.parent, second.author, second.state) == (2, 1, "cat", State.REJECTED)
    assert (second.mask, second.model, second.prompts) == (first.mask, "network", points.to_json())
    assert second.comment == "The hilum is missing." and store.accepted() == {}
    with pytest.raises(StoreError, match="'spleen' version 2 by cat is rejected already"):
        store.review(study, "spleen", State.REJECTED, "dan")
    with pytest.raises(StoreError, match="Version 1 is not the newest one, which is 'spleen' version 2 by cat"):
        store.review(study, "spleen", State.APPROVED, "dan", number=1)
    assert store.review(study, "spleen", State.APPROVED, "dan").number == 3
    assert [v.number for v in store.accepted()[study]] == [3]
    with pytest.raises(StoreError, match="no label of 'liver'"):
        store.review(study, "liver", State.APPROVED, "dan")


def test_a_draft_that_is_rejected_leaves_the_label_below_it_accepted(store, study):
    store.add(study, "spleen", random_patch(1), author="ann", state=State.APPROVED)
    store.add(study, "spleen", random_patch(2), author="bob")
    store.review(study, "spleen", State.REJECTED, "cat")
    store.add(study, "liver", random_patch(1), author="ann")
    store.review(study, "liver", State.REJECTED, "cat")
    assert [(v.structure, v.number) for v in store.accepted()[study]] == [("spleen", 1)]
    assert store.accepted(drafts=True) == store.accepted()
    store.review(study, "spleen", State.APPROVED, "cat")
    assert [v.number for v in store.accepted()[study]] == [4]
    store.review(study, "spleen", State.REJECTED, "cat")  # what was approved meanwhile
    assert store.accepted() == {}


def test_a_version_that_does_not_exist_is_refused_by_its_number(store, study):
    store.add(study, "spleen", random_patch(1), author="ann")
    with pytest.raises(StoreError, match=r"no version 9 of 'spleen'.*its versions are 1"):
        store.restore(study, "spleen", 9, "ann")
    with pytest.raises(StoreError, match=r"no label of 'liver'.*its structures are spleen"):
        store.version(study, "liver")
    assert len(store.history(study)) == 1


def test_history_and_latest_keep_structures_apart(store, study):
    for structure, seed in (("spleen", 1), ("liver", 2), ("spleen", 3)):
        store.add(study, structure, random_patch(seed), author="ann")
    assert [(v.structure, v.number) for v in store.history(study)] == [("liver", 1), ("spleen", 1), ("spleen", 2)]
    assert [v.number for v in store.history(study, "spleen")] == [1, 2]
    assert {name: v.mask for name, v in store.latest(study).items()} == {
        "liver": random_patch(2).version,
        "spleen": random_patch(3).version,
    }


def test_an_empty_mask_is_a_version_too(store, study):
    version = store.add(study, "spleen", MaskPatch.empty(), author="ann")
    assert version.voxels == 0
    assert not store.mask(version).to_mask(SHAPE).any()


@pytest.mark.parametrize("author", ["", "  \t"])
def test_a_label_without_an_author_is_refused(store, study, author):
    with pytest.raises(StoreError, match="needs an author"):
        store.add(study, "spleen", random_patch(1), author=author)
    assert store.history(study) == []


@pytest.mark.parametrize("said", [{"author": "a\udcff"}, {"author": "ann", "comment": "\ud800"}])
def test_what_is_no_text_is_refused_and_leaves_nothing(store, study, said):
    with pytest.raises(StoreError, match="holds characters that are no text"):
        store.add(study, "spleen", random_patch(1), **said)
    with pytest.raises(StoreError, match=r"study name '.*' holds characters that are no text"):
        store.add_study(random_volume(1), "b\udcff")
    assert store.history(study) == [] and len(store.studies()) == 1


def test_a_mask_that_reaches_beyond_the_study_is_refused_and_leaves_nothing(store, study):
    with pytest.raises(ValueError, match="reaches beyond"):
        store.add(study, "spleen", random_patch(1, (10, 12, 14)), author="ann")
    assert store.history(study) == []
    assert unfinished_files(store.folder) == []


def test_an_unknown_study_is_refused_by_its_id(store):
    with pytest.raises(StoreError, match="no study 'beef'"):
        store.add("beef", "spleen", random_patch(1), author="ann")


def test_a_voxel_file_changed_behind_the_stores_back_is_noticed(store, study):
    version = store.add(study, "spleen", random_patch(1), author="ann")
    other = store.add(study, "liver", random_patch(2), author="ann")
    version.path.write_bytes(other.path.read_bytes())
    with pytest.raises(StoreError, match=r"v0001\.seg\.nrrd was changed after it was saved"):
        store.mask(version)


# Names

NAMES = [
    "spleen",
    "Kidney Right",
    "脾臓",
    "Größe",
    "سرطان",
    "😀" * 80,
    "x" * 300,
    "x" * 301,
    "liver/segment 4",
    "liver\\segment 4",
    "liver segment 4",
    "liver-segment 4",
    "..",
    ".",
    "../../escape",
    "/absolute",
    ".hidden",
    ".unfinished-1.seg.nrrd",
    "image.nrrd",
    "dicom.json.gz",
    "v0001.seg.nrrd",
    "con",
    "CON.txt",
    "com1",
    "com¹",
    "nul",
    "trailing.",
    'a:b*c?"<>|d',
    "a~b",
    "%s {name} $HOME",
    "'; DROP TABLE labels; --",
]


def test_any_name_is_kept_as_written_in_a_folder_of_its_own(store, study):
    versions = {name: store.add(study, name, random_patch(n), author="ann") for n, name in enumerate(NAMES)}
    folders = {version.path.parent for version in versions.values()}
    assert len({str(folder).casefold() for folder in folders}) == len(NAMES)
    assert set(store.latest(study)) == set(NAMES)
    for n, name in enumerate(NAMES):
        assert store.version(study, name).structure == name
        assert (store.mask(versions[name]).to_mask(SHAPE) == random_mask(n)).all()
    home = store.folder / "studies" / study
    assert {folder.parent for folder in folders} == {home}
    assert store.volume(study).study_id == study


def test_folder_names_suit_windows_and_every_file_system(store, study):
    for name in NAMES:
        folder = store.add(study, name, random_patch(1), author="ann").path.parent.name
        assert not set(folder) & set('<>:"/\\|?* .'), folder
        assert len(folder.encode()) <= 255
        assert folder not in ("con", "nul", "com1", "com¹")


def test_names_that_differ_only_in_case_or_unicode_form_are_one_structure(store, study):
    composed, decomposed = "Gr\u00f6\u00dfe", "gro\u0308\u00dfe"
    numbers = [
        store.add(study, name, random_patch(1), author="ann").number for name in ("Spleen", "SPLEEN", " spleen ")
    ]
    assert numbers == [1, 2, 3]
    assert [store.add(study, name, random_patch(1), author="ann").number for name in (composed, decomposed)] == [1, 2]
    assert len(store.latest(study)) == 2
    assert store.version(study, "sPlEeN").number == 3


def test_spaces_and_what_cannot_be_seen_make_no_other_structure(store, study):
    for number, name in enumerate(("left kidney", "left\u00a0kidney", " left  kidney\u200b"), 1):
        assert store.add(study, name, random_patch(1), author="ann").number == number


def test_a_name_that_spells_another_names_folder_does_not_share_it(store, study):
    first = store.add(study, "a b", random_patch(1), author="ann")
    second = store.add(study, first.path.parent.name, random_patch(2), author="ann")
    assert first.path.parent != second.path.parent
    assert (store.mask(first).to_mask(SHAPE) == random_mask(1)).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp")), min_size=1), max_size=4)
)
def test_two_structures_never_share_a_file(store, study, names):
    for name in filter(str.strip, names):
        version = store.add(study, name, random_patch(5), author="ann")
        assert store.version(study, name) == version
    versions = store.history(study)
    assert len({str(v.path).casefold() for v in versions}) == len(versions)
    assert len({(v.path.parent, v.number) for v in versions}) == len(versions)


@pytest.mark.parametrize("name", ["", "   ", "two\nlines", "a\x00b", "bell\x07", "\udcff", "\u200b"])
def test_what_is_no_name_is_refused_and_leaves_nothing(store, study, name):
    with pytest.raises(StoreError):
        store.add(study, name, random_patch(1), author="ann")
    assert store.history(study) == []
    assert [p.name for p in (store.folder / "studies" / study).iterdir()] == ["image.nrrd"]


# Studies


def test_adding_the_same_image_again_changes_nothing(store, study):
    image = store.folder / "studies" / study / "image.nrrd"
    before = (image.read_bytes(), image.stat().st_mtime_ns, store.studies())
    again = store.add_study(random_volume(), "another name")
    assert (again.id, again.name) == (study, "torso")
    assert (image.read_bytes(), image.stat().st_mtime_ns, store.studies()) == before


def test_the_same_voxels_on_another_grid_are_another_study(store, study):
    moved = Geometry.from_spacing(SHAPE, (0.7, 0.8, 2.5), (10, -20, 31))
    other = store.add_study(Volume(random_volume().voxels, moved), "moved")
    assert other.id != study
    assert [s.name for s in store.studies()] == ["torso", "moved"]


def test_a_study_is_found_by_name_id_and_prefix(store, study):
    other = store.add_study(random_volume(1), "head")
    for text in ("torso", study, study[:8], study[:4]):
        assert store.study(text).id == study
    assert store.study("head") == other


def test_an_unknown_study_name_is_named_in_the_error(store):
    for text in ("nobody", "", "ffff" * 8):
        with pytest.raises(StoreError, match=f"is no study called {text!r}"):
            store.study(text)


def test_a_name_that_two_studies_have_is_refused_and_their_ids_still_work(store, study):
    other = store.add_study(random_volume(1), "torso")
    with pytest.raises(StoreError, match="are 2 studies called 'torso'"):
        store.study("torso")
    assert {store.study(study).id, store.study(other.id).id} == {study, other.id}


def test_a_prefix_of_less_than_four_digits_is_not_taken_for_an_id(store, study):
    with pytest.raises(StoreError, match=f"no study called {study[:3]!r}"):
        store.study(study[:3])


def test_dicom_headers_come_back_with_the_volume(store):
    header = {"00100020": {"vr": "LO", "Value": ["P-1"]}, "0020000D": {"vr": "UI", "Value": ["1.2.3"]}}
    plain = random_volume(2)
    record = store.add_study(Volume(plain.voxels, plain.geometry, DicomSeries((header,) * SHAPE[0])), "ct")
    assert record.from_dicom
    series = store.volume(record.id).dicom
    assert (series.patient_id, series.study_uid, len(series.headers)) == ("P-1", "1.2.3", SHAPE[0])
    assert store.volume(store.study("torso").id).dicom is None


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
def test_an_image_comes_back_bit_identical(store, dtype):
    plain = random_volume(3)
    volume = Volume(plain.voxels.astype(dtype), plain.geometry)
    back = store.volume(store.add_study(volume, "typed").id)
    assert back.voxels.dtype == dtype
    assert (back.voxels == volume.voxels).all()


def test_a_removed_study_leaves_nothing_and_the_others_stay(store, study):
    store.add(study, "spleen", random_patch(1), author="Ada")
    kept = store.add_study(random_volume(1), "head").id
    store.add(kept, "brain", random_patch(2), author="Ada")
    store.remove_study(study)
    assert [record.id for record in store.studies()] == [kept]
    assert [path.name for path in (store.folder / "studies").iterdir()] == [kept]
    assert check_whole(store) == 1 and not store.history(study)
    with pytest.raises(NotStoredError, match="There is no study"):
        store.remove_study(study)
    again = store.add_study(random_volume(), "torso").id
    assert again == study and store.add(study, "spleen", random_patch(3), author="Ada").number == 1


def test_a_removal_that_is_broken_off_can_be_done_again(store, study, monkeypatch):
    store.add(study, "spleen", random_patch(1), author="Ada")

    def fail(folder):
        (folder / "image.nrrd").unlink()
        raise PermissionError(13, "Permission denied", str(folder))

    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", fail)
        with pytest.raises(PermissionError):
            store.remove_study(study)
    assert [record.id for record in store.studies()] == [study] and len(store.history(study)) == 1
    store.remove_study(study)
    assert not store.studies() and not list((store.folder / "studies").iterdir())
