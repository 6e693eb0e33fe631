"""Files are written whole or not at all."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest
from volume_helpers import FORMATS, named_volume

from aiassist.imaging import Geometry, Volume, read_volume, write_volume


@pytest.mark.parametrize("ending", [*FORMATS, ".png", ".tif"])
def test_a_missing_folder_is_named_and_not_made(tmp_path, ending):
    volume = Volume(np.ones((1, 4, 5), np.uint8), Geometry.from_spacing((1, 4, 5)))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        write_volume(tmp_path / "nowhere" / f"a{ending}", volume)
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_the_file_is_left_alone(tmp_path):
    (tmp_path / "a.nii.gz").mkdir()
    with pytest.raises(OSError, match=r"a\.nii\.gz"):
        write_volume(tmp_path / "a.nii.gz", named_volume())
    assert [p.name for p in tmp_path.iterdir()] == ["a.nii.gz"]
    assert not list((tmp_path / "a.nii.gz").iterdir())


def test_a_name_as_long_as_names_can_be_is_written(tmp_path):
    path = tmp_path / ("x" * 248 + ".nii.gz")
    write_volume(path, named_volume())
    assert np.array_equal(read_volume(path).voxels, named_volume().voxels)
    with pytest.raises(OSError, match="too long"):
        write_volume(tmp_path / ("x" * 250 + ".nii.gz"), named_volume())
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_replaced_keeps_its_rights_and_its_link(tmp_path):
    kept, link = tmp_path / "kept.nii.gz", tmp_path / "link.nii.gz"
    write_volume(kept, named_volume())
    kept.chmod(0o600)
    link.symlink_to(kept)
    before = kept.read_bytes()
    write_volume(link, Volume(named_volume().voxels + 1, named_volume().geometry))
    assert link.is_symlink() and kept.read_bytes() != before and kept.stat().st_mode & 0o777 == 0o600
    assert sorted(tmp_path.iterdir()) == [kept, link]


def test_a_pipe_is_not_replaced_by_a_file(tmp_path):
    os.mkfifo(tmp_path / "pipe.nii.gz")
    with pytest.raises(OSError, match="is no file"):
        write_volume(tmp_path / "pipe.nii.gz", named_volume())
    assert (tmp_path / "pipe.nii.gz").is_fifo()


WRITE_ALL = """
import json, sys
import numpy as np
from pathlib import Path
from aiassist.imaging import Geometry, Volume, write_volume
size = int(sys.argv[2])
noise = np.random.default_rng(0).integers(0, 255, (1, size, size), dtype=np.uint8)
errors = {}
for ending in sys.argv[3:]:
    path = Path(sys.argv[1]) / f"old{ending}"
    try:
        write_volume(path, Volume(noise, Geometry.from_spacing(noise.shape)))
    except OSError as error:
        errors[ending] = str(error)
print(json.dumps(errors))
"""


@pytest.mark.parametrize(("size", "room"), [(200, 10_000), (60, 3000), (60, 300), (10, 100)])
def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path, run_python, size, room):
    endings = [*FORMATS, ".png", ".tif"]
    for ending in endings:
        (tmp_path / f"old{ending}").write_bytes(b"old")
    outcome = run_python("-c", WRITE_ALL, tmp_path, size, *endings, largest_file=room)
    assert outcome.returncode == 0, outcome.stderr
    errors = json.loads(outcome.stdout)
    assert sorted(errors) == sorted(endings)
    for ending in endings:
        assert f"old{ending}" in errors[ending]
        assert (tmp_path / f"old{ending}").read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == len(endings)


def test_a_read_only_file_is_replaced_only_by_a_whole_one(tmp_path, run_python):
    path = tmp_path / "old.nii"
    path.write_bytes(b"old")
    path.chmod(0o444)
    outcome = run_python("-c", WRITE_ALL, tmp_path, 200, ".nii", largest_file=10_000)
    assert list(json.loads(outcome.stdout)) == [".nii"]
    assert path.read_bytes() == b"old"
    write_volume(path, named_volume())
    assert np.array_equal(read_volume(path).voxels, named_volume().voxels)


def test_gzip_files_hold_no_name_or_time_so_that_equal_volumes_make_equal_files(tmp_path):
    for name in ("one.nii.gz", "another.nii.gz"):
        write_volume(tmp_path / name, named_volume())
    one, another = ((tmp_path / n).read_bytes() for n in ("one.nii.gz", "another.nii.gz"))
    assert gzip.decompress(one) == gzip.decompress(another)
    assert one == another
