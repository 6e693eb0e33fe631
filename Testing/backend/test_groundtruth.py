"""The ground-truth store: nothing is lost, overwritten or mixed up."""

from __future__ import annotations

import hashlib
import json
import os
import time
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
import SimpleITK as sitk
from groundtruth_helpers import (
    SHAPE,
    check_whole,
    random_mask,
    random_patch,
    random_volume,
    run_python,
    start_python,
    store_with_study,
    unfinished_files,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiassist.errors import StoreError
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.groundtruth.store import INDEX, STALE
from aiassist.imaging import DicomSeries, Geometry, MaskPatch, Volume, read_volume
from aiassist.prompts import Prompts, Scribble


@pytest.fixture
def store(tmp_path):
    with store_with_study(tmp_path / "studies")[0] as made:
        yield made


@pytest.fixture
def study(store):
    return store.study("torso").id


# Versions


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
        scribbles=[Scribble([[1, 1, 1], [2, 2, 2]], positive=False, radius=2.5)],
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
    assert [v.parent for v in store.history(study, "spleen")] == [None, 1, 2, 2]


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


def test_a_name_that_spells_another_names_folder_does_not_share_it(store, study):
    first = store.add(study, "a b", random_patch(1), author="ann")
    second = store.add(study, first.path.parent.name, random_patch(2), author="ann")
    assert first.path.parent != second.path.parent
    assert (store.mask(first).to_mask(SHAPE) == random_mask(1)).all()


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(st.text(st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp")), min_size=1), max_size=4))
def test_two_structures_never_share_a_file(store, study, names):
    for name in filter(str.strip, names):
        version = store.add(study, name, random_patch(5), author="ann")
        assert store.version(study, name) == version
    versions = store.history(study)
    assert len({str(v.path).casefold() for v in versions}) == len(versions)
    assert len({(v.path.parent, v.number) for v in versions}) == len(versions)


@pytest.mark.parametrize("name", ["", "   ", "two\nlines", "a\x00b", "bell\x07", "\udcff"])
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


# The files


def fields_of(path):
    """The ``key:=value`` fields of a NRRD file, read as the UTF-8 that Slicer expects."""
    header = path.read_bytes().partition(b"\n\n")[0].decode("utf8")
    return dict(line.split(":=", 1) for line in header.splitlines() if ":=" in line)


def test_the_file_describes_its_segment_as_slicer_does(store, study):
    mask = np.zeros(SHAPE, bool)
    mask[2:5, 3:7, 4:10] = True
    version = store.add(study, "kidney_right", MaskPatch.of_mask(mask), author="ann")
    assert version.path.name == "v0001.seg.nrrd"
    fields = fields_of(version.path)
    colour = [round(255 * float(c)) for c in fields["Segment0_Color"].split()]
    assert fields["Segment0_Name"] == "kidney_right"
    assert fields["Segment0_LabelValue"] == "1"
    assert fields["Segment0_Layer"] == "0"
    assert fields["Segment0_Extent"] == "4 9 3 6 2 4"
    assert tuple(colour) == version.label.colour == (185, 102, 83)
    assert "SCT^64033007^Kidney" in fields["Segment0_Tags"]
    assert "SCT^24028007^Right" in fields["Segment0_Tags"]
    assert fields["Segmentation_MasterRepresentation"] == "Binary labelmap"
    assert (sitk.GetArrayFromImage(sitk.ReadImage(str(version.path))) == mask).all()


@pytest.mark.parametrize("name", ["脾臓 – Größe", "a:=b", "back\\slash", "hash # tilde ~ bar |"])
def test_names_survive_in_the_file(store, study, name):
    version = store.add(study, name, random_patch(1), author="ann")
    assert fields_of(version.path)["Segment0_Name"] == name.replace("\\", "\\\\")  # NRRD escapes the backslash
    assert sitk.ReadImage(str(version.path)).GetMetaData("Segment0_Name") == name


def rotation(axis, degrees):
    angle, turned = np.radians(degrees), np.eye(3)
    a, b = [n for n in range(3) if n != axis]
    turned[a, a] = turned[b, b] = np.cos(angle)
    turned[a, b], turned[b, a] = -np.sin(angle), np.sin(angle)
    return turned


GRIDS = {
    "oblique": Geometry.from_spacing(SHAPE, (0.7, 0.7, 3.3), (-11.5, 7, 1e3), rotation(0, 20) @ rotation(2, -33)),
    "left-handed": Geometry.from_spacing(SHAPE, (1, 1, 1), (0, 0, 0), np.diag([1.0, 1.0, -1.0])),
    "permuted": Geometry.from_spacing(SHAPE, (2, 1, 0.5), (5, 5, 5), np.eye(3)[[2, 0, 1]]),
    "anisotropic": Geometry.from_spacing(SHAPE, (0.012345678, 0.4, 9.87654321), (1 / 3, -1 / 7, 1e-5)),
    "sheared": Geometry(
        SHAPE, np.array([[1, 0.2, 0, 3], [0, 1.5, 0.4, -2], [0.1, 0, 2, 7], [0, 0, 0, 1]], dtype=float)
    ),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_masks_and_geometry_are_exact_on_any_grid(store, grid):
    record = store.add_study(random_volume(4, GRIDS[grid]), grid)
    version = store.add(record.id, "spleen", random_patch(6), author="ann")
    assert store.mask(version).version == version.mask
    assert (store.mask(version).to_mask(SHAPE) == random_mask(6)).all()
    assert np.array_equal(store.geometry(record.id).affine, GRIDS[grid].affine)
    assert np.array_equal(read_volume(version.path).geometry.affine, GRIDS[grid].affine)
    assert store.volume(record.id).study_id == record.id


# Several processes

ADDING = """
import json
from pathlib import Path
from groundtruth_helpers import random_patch, random_volume
from aiassist.groundtruth import GroundTruthStore
folder, first, count = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
print("ready", flush=True)
sys.stdin.readline()
with GroundTruthStore(folder) as store:
    study = store.add_study(random_volume(), "torso").id
    for seed in range(first, first + count):
        version = store.add(study, "spleen", random_patch(seed), author=f"process {first}")
        print(json.dumps([version.number, seed]), flush=True)
"""


def test_processes_that_add_at_the_same_time_number_differently_and_lose_nothing(tmp_path):
    count, firsts = 25, (100, 200, 300)
    children = [start_python(ADDING, tmp_path, first, count, stdin=-1) for first in firsts]
    for child in children:
        assert child.stdout.readline() == "ready\n", child.stderr.read()
    for child in children:  # none has touched the folder before all are ready
        child.stdin.write("\n")
        child.stdin.flush()
    acknowledged = {}
    for child in children:
        out, err = child.communicate(timeout=60)
        assert child.returncode == 0, err
        for number, seed in map(json.loads, out.splitlines()):
            assert number not in acknowledged
            acknowledged[number] = seed
    assert sorted(acknowledged) == list(range(1, count * len(firsts) + 1))
    with GroundTruthStore(tmp_path) as store:
        assert len(store.studies()) == 1
        assert check_whole(store) == len(acknowledged)
        for version in store.history(store.study("torso").id):
            assert (store.mask(version).to_mask(SHAPE) == random_mask(acknowledged[version.number])).all()
    assert unfinished_files(tmp_path) == []


# Trouble

FULL = """
import os, resource, signal
from groundtruth_helpers import random_patch, random_volume
from aiassist.errors import StoreError
from aiassist.groundtruth import GroundTruthStore
store = GroundTruthStore(sys.argv[1])
study, limit = store.study("torso").id, int(sys.argv[2])
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
try:
    if sys.argv[3] == "label":
        store.add(study, "spleen", random_patch(2), author="ann")
    else:
        store.add_study(random_volume(9), "new")
except (StoreError, OSError) as error:
    print(f"{type(error).__name__}: {error}")
    os._exit(0)  # as a crash would: nobody tidies up
"""


def everything_in(folder):
    """All files but those of the index, with their contents."""
    return {
        p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file() and not p.name.startswith(INDEX)
    }


@pytest.mark.parametrize("what", ["label", "study"])
@pytest.mark.parametrize("limit", [0, 100, 600, 4096])
def test_a_full_disk_is_an_error_that_leaves_the_store_as_it_was(store, study, limit, what):
    store.add(study, "spleen", random_patch(1), author="ann")
    before = everything_in(store.folder)
    message = run_python(FULL, store.folder, limit, what)
    assert message.startswith(("OSError: ", "StoreError: ")), message
    after = everything_in(store.folder)
    if (limit, what) == (4096, "study"):  # only the index did not fit: the image is whole, and waits for its study
        image = store.folder / "studies" / random_volume(9).study_id / "image.nrrd"
        assert read_volume(image).study_id == random_volume(9).study_id
        after.pop(image.relative_to(store.folder))
    assert after == before
    with GroundTruthStore(store.folder) as fresh:
        assert check_whole(fresh) == len(fresh.history(study))
        assert (fresh.mask(fresh.version(study, "spleen", 1)).to_mask(SHAPE) == random_mask(1)).all()
        number = fresh.add(study, "spleen", random_patch(3), author="ann").number
        assert number == len(fresh.history(study))
    assert unfinished_files(store.folder) == []


#: A folder's mode does not bind root, unless root gives up its capabilities.
READ_ONLY = """
import ctypes
from groundtruth_helpers import random_patch
from aiassist.errors import StoreError
from aiassist.groundtruth import GroundTruthStore
store = GroundTruthStore(sys.argv[1])
study = store.study("torso").id
version = ctypes.c_uint32 * 2
if hasattr(ctypes.CDLL(None), "capset"):
    ctypes.CDLL(None).capset(version(0x20080522, 0), (ctypes.c_uint32 * 6)())
try:
    store.add(study, "spleen", random_patch(2), author="ann")
except (StoreError, OSError) as error:
    print(f"{type(error).__name__}: {error}")
"""


def test_a_folder_that_may_not_be_written_is_an_error_that_names_it(store, study):
    store.add(study, "spleen", random_patch(1), author="ann")
    home = store.version(study, "spleen").path.parent
    home.chmod(0o555)
    try:
        message = run_python(READ_ONLY, store.folder)
    finally:
        home.chmod(0o755)
    assert message.startswith("PermissionError: ") and str(home) in message
    with GroundTruthStore(store.folder) as fresh:
        assert check_whole(fresh) == 1
    assert unfinished_files(store.folder) == []


def test_a_folder_below_a_file_cannot_be_a_store(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(OSError, match="file"):
        GroundTruthStore(tmp_path / "file" / "studies")


def test_an_index_that_is_garbage_is_refused_by_its_folder(tmp_path):
    (tmp_path / INDEX).write_bytes(b"This is no database at all, but it is long enough to look at. " * 50)
    with pytest.raises(StoreError, match=str(tmp_path)):
        GroundTruthStore(tmp_path)
    assert (tmp_path / INDEX).read_bytes().startswith(b"This is no database")


def test_an_index_that_is_damaged_later_on_is_a_store_error(tmp_path):
    store, study = store_with_study(tmp_path)
    for n in range(20):
        store.add(study.id, "spleen", random_patch(n), author="ann", comment="long " * 500)
    store.close()
    index = tmp_path / INDEX
    data = bytearray(index.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    index.write_bytes(data)
    with pytest.raises(StoreError, match="index of"), GroundTruthStore(tmp_path) as damaged:
        damaged.history(study.id)


def test_the_index_of_another_program_is_a_store_error(tmp_path):
    import sqlite3

    connection = sqlite3.connect(tmp_path / INDEX)
    connection.execute("CREATE TABLE studies (something INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="index of"), GroundTruthStore(tmp_path) as foreign:
        foreign.studies()


def test_stale_unfinished_files_are_swept_and_fresh_ones_are_not(store, study):
    home = store.add(study, "spleen", random_patch(1), author="ann").path.parent
    stale, fresh, precious = home / ".unfinished-1-x.seg.nrrd", home / ".unfinished-2-y.seg.nrrd", home / "notes.txt"
    for path, age in ((stale, STALE + 60), (fresh, STALE - 60), (precious, 10 * STALE)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    with GroundTruthStore(store.folder) as again:
        assert check_whole(again) == 1
    assert [p.exists() for p in (stale, fresh, precious)] == [False, True, True]


def test_a_store_opens_while_another_process_finishes_its_files(store, tmp_path):
    child = start_python(ADDING, store.folder, 100, 40, stdin=-1)
    child.stdout.readline()
    child.stdin.write("\n")
    child.stdin.flush()
    while child.poll() is None:
        GroundTruthStore(store.folder).close()
    assert child.communicate()[1] == ""
    with GroundTruthStore(store.folder) as fresh:
        assert check_whole(fresh) == 40
