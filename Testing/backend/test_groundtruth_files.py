"""The ground-truth store's files: plain, shared by several processes, damaged, killed."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import threading
import time

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
from sqlalchemy.exc import OperationalError

from aiassist.errors import AIAssistError, BrokenStoreError, BusyError, ImageError, RoomError, StoreError
from aiassist.files import UNFINISHED
from aiassist.groundtruth import GroundTruthStore
from aiassist.groundtruth.folder import INDEX, STALE
from aiassist.imaging import Geometry, MaskPatch, read_volume, write_volume
from aiassist.segmenters.model_store import MODELS

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
from aiassist.files import UNFINISHED
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


def test_a_store_opens_while_others_remove_folders_in_it(store):
    done = threading.Event()

    def come_and_go():
        while not done.is_set():
            for number in range(20):
                (store.folder / MODELS / "spleen" / f"x{number}").mkdir(parents=True, exist_ok=True)
            shutil.rmtree(store.folder / MODELS)

    other = threading.Thread(target=come_and_go)
    other.start()
    try:
        for _ in range(60):
            GroundTruthStore(store.folder).close()
    finally:
        done.set()
        other.join()
    old = store.folder / "studies" / f"{UNFINISHED}half.seg.nrrd"
    old.write_bytes(b"")
    os.utime(old, (1, 1))
    GroundTruthStore(store.folder).close()
    assert not old.exists()


FULL = """
import os, resource, signal
from groundtruth_helpers import random_patch, random_volume
from aiassist.errors import StoreError
from aiassist.files import UNFINISHED
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
    assert message.startswith(("OSError: ", "RoomError: ", "BrokenStoreError: ")), message
    after = everything_in(store.folder)
    if (limit, what) == (4096, "study"):  # only the index did not fit: the image is whole, and waits for its study
        image = store.folder / "studies" / random_volume(9).study_id / "image.nrrd"
        assert read_volume(image).study_id == random_volume(9).study_id
        after.pop(image.relative_to(store.folder))
    assert after == before
    with GroundTruthStore(store.folder) as fresh:
        assert check_whole(fresh) == 1
        assert (fresh.mask(fresh.version(study, "spleen", 1)).to_mask(SHAPE) == random_mask(1)).all()
        assert fresh.add(study, "spleen", random_patch(3), author="ann").number == 2
    assert unfinished_files(store.folder) == []


#: A folder's mode does not bind root, unless root gives up its capabilities.
READ_ONLY = """
import ctypes
from groundtruth_helpers import random_patch
from aiassist.errors import StoreError
from aiassist.files import UNFINISHED
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
    connection = sqlite3.connect(tmp_path / INDEX)
    connection.execute("CREATE TABLE studies (something INTEGER)")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="index of"), GroundTruthStore(tmp_path) as foreign:
        foreign.studies()


def test_an_index_older_than_the_files_overwrites_none_of_them(tmp_path):
    store, study = store_with_study(tmp_path)
    store.add(study.id, "spleen", random_patch(1), author="ann")
    store.close()
    backup = (tmp_path / INDEX).read_bytes()
    with GroundTruthStore(tmp_path) as store:
        lost = store.add(study.id, "spleen", random_patch(2), author="ann")
    before = lost.path.read_bytes()
    for rest in tmp_path.glob(f"{INDEX}*"):
        rest.unlink()
    (tmp_path / INDEX).write_bytes(backup)
    with GroundTruthStore(tmp_path) as restored:
        added = restored.add(study.id, "spleen", random_patch(3), author="bob")
        assert (added.number, added.parent) == (3, 1)
        assert lost.path.read_bytes() == before
        assert check_whole(restored) == 2


def test_an_index_that_may_not_be_written_says_so_at_once(store):
    with pytest.raises(StoreError, match="may not be written"), store._session():
        raise OperationalError("INSERT", {}, Exception("attempt to write a readonly database"))


def test_stale_unfinished_files_are_swept_and_fresh_ones_are_not(store, study):
    home = store.add(study, "spleen", random_patch(1), author="ann").path.parent
    stale, fresh, precious = home / ".unfinished-1-x.seg.nrrd", home / ".unfinished-2-y.seg.nrrd", home / "notes.txt"
    for path, age in ((stale, STALE + 60), (fresh, STALE - 60), (precious, 10 * STALE)):
        path.write_bytes(b"half")
        os.utime(path, (time.time() - age,) * 2)
    with GroundTruthStore(store.folder) as again:
        assert check_whole(again) == 1
    assert [p.exists() for p in (stale, fresh, precious)] == [False, True, True]


def test_what_cannot_be_swept_locks_nobody_out(store, study):
    home = store.add(study, "spleen", random_patch(1), author="ann").path.parent
    folder = home / ".unfinished-3-z.seg.nrrd"  # as is a file of somebody else's, it is not removed by unlinking
    folder.mkdir()
    os.utime(folder, (time.time() - STALE - 60,) * 2)
    with GroundTruthStore(store.folder) as again:
        assert check_whole(again) == 1


def remove(image):
    image.unlink()


def remove_folder(image):
    image.rename(image.parent.parent / "elsewhere")
    image.parent.rmdir()


def cut(image):
    image.write_bytes(image.read_bytes()[:-100])


def empty(image):
    image.write_bytes(b"")


def swap(image):
    write_volume(image, random_volume(7))


@pytest.mark.parametrize(
    ("spoil", "check"), [(remove, False), (remove_folder, False), (empty, False), (cut, True), (swap, True)]
)
def test_an_image_that_was_lost_is_kept_anew_when_it_is_added_again(store, study, spoil, check):
    spoil(store.folder / "studies" / study / "image.nrrd")
    assert store.add_study(random_volume(), "torso", check).id == study
    assert store.volume(study).study_id == study
    assert store.add(study, "spleen", random_patch(1), author="ann").number == 1


@pytest.mark.parametrize(
    "header", [b"", b"NRRD0004\n", b"NRRD0004\ntype: short\nsizes: 3 x\n\n", b"NRRD0004\nsizes: 3 4\n\n"]
)
def test_the_grid_of_a_damaged_image_is_an_error_that_names_it(store, study, header):
    (store.folder / "studies" / study / "image.nrrd").write_bytes(header)
    with pytest.raises(ImageError, match=r"image\.nrrd"):
        store.geometry(study)


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


@pytest.mark.parametrize(
    ("said", "kind"),
    [("database is locked", BusyError), ("database or disk is full", RoomError), ("no such table", BrokenStoreError)],
)
def test_what_stands_against_the_index_is_told_apart(store, said, kind):
    with pytest.raises(AIAssistError) as caught, store._session():
        raise OperationalError("INSERT", {}, Exception(said))
    assert type(caught.value) is kind


def test_a_version_whose_file_is_gone_is_said_to_be(store, study):
    version = store.add(study, "spleen", random_patch(1), author="ann")
    version.path.unlink()
    with pytest.raises(BrokenStoreError, match=r"v0001\.seg\.nrrd, which holds 'spleen' v1, is gone; restore it"):
        store.mask(version)
    version.path.write_bytes(b"NRRD0004, and no more")
    with pytest.raises(BrokenStoreError, match=r"v0001\.seg\.nrrd, which holds 'spleen' v1, is damaged; restore it"):
        store.mask(version)
