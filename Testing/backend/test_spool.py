"""Uploads on the server's disk: begun anew, taken back, evicted."""

from __future__ import annotations

import errno
import os
import time

import numpy as np
import pytest
from server_helpers import noise

from aiassist.errors import RoomError, UnknownStudyError, UploadError
from aiassist.protocol.messages import study_to_json, voxels_as_bytes
from aiassist.server import spool as spools
from aiassist.server.arriving import Upload
from aiassist.server.service import Service, Settings
from aiassist.server.spool import ABANDONED, HESITATES, Spool


def test_an_upload_begun_anew_is_not_rewound(tmp_path):
    spool, volume = Spool(tmp_path, 10**9), noise(6)
    study, data, said = volume.study_id, bytes(voxels_as_bytes(volume)), study_to_json(volume)
    first = spool.begin(study, {**said, "dtype": "uint16"})
    first.append(0, [data[:1000]])
    second = spool.begin(study, said)  # another window, which says it right
    second.append(0, [data[:2000], data[2000:3000]])
    first.rewind(0)
    with pytest.raises(UnknownStudyError, match="announce it first"):
        first.append(1000, [data[1000:]])
    second.append(3000, [data[3000:]])
    assert np.array_equal(spool.finish(study).voxels, volume.voxels)


def test_what_a_body_left_behind_is_taken_back(tmp_path):
    spool, volume = Spool(tmp_path, 10**9), noise(8)
    study, data = volume.study_id, bytes(voxels_as_bytes(volume))
    upload = spool.begin(study, study_to_json(volume))
    upload.append(0, [data[:500]])
    upload.append(500, [bytes(700)])
    upload.rewind(500)
    assert spool.received(study) == upload.received == 500
    upload.append(500, [data[500:]])
    assert np.array_equal(spool.finish(study).voxels, volume.voxels)


def test_what_one_window_took_back_no_other_brings_back(tmp_path):
    spool, volume = Spool(tmp_path, 10**9), noise(15)
    study, data = volume.study_id, bytes(voxels_as_bytes(volume))
    upload = spool.begin(study, study_to_json(volume))
    upload.append(0, [data[:5000]])  # of the first window, while the second one begins at 5000
    upload.rewind(0)
    upload.rewind(5000)
    assert spool.received(study) == upload.received == 0
    upload.append(0, [bytes(4000)])  # a third one's, which are wrong
    upload.append(4000, [bytes(4000)])
    upload.rewind(5000)
    assert spool.received(study) == upload.received == 4000
    upload.append(4000, [data[4000:]])
    with pytest.raises(UploadError, match=f"not {study}; send it again"):
        spool.finish(study)


def test_a_disk_that_fills_up_leaves_an_upload_as_it_was(tmp_path, monkeypatch):
    spool, volume = Spool(tmp_path, 10**9), noise(9)
    study, data = volume.study_id, bytes(voxels_as_bytes(volume))
    upload = spool.begin(study, study_to_json(volume))
    upload.append(0, [data[:500]])

    def full(self, offset, pieces, write=Upload._write):
        write(self, offset, [pieces[0][:100]])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(Upload, "_write", full)
        upload.append(500, [data[500:]])
    assert upload.append(500, [data[500:]]) == len(data)
    assert np.array_equal(spool.finish(study).voxels, volume.voxels)


def test_what_arrives_is_not_evicted_and_the_limit_holds(tmp_path):
    volumes = [noise(seed) for seed in range(10, 14)]
    size = volumes[0].voxels.nbytes
    spool = Spool(tmp_path, 2 * size + 4000)
    for volume in volumes[:2]:
        spool.begin(volume.study_id, study_to_json(volume)).append(0, [bytes(voxels_as_bytes(volume))])
        assert spool.finish(volume.study_id) is not None
    third = spool.begin(volumes[2].study_id, study_to_json(volumes[2]))
    fourth = spool.begin(volumes[3].study_id, study_to_json(volumes[3]))
    assert volumes[0].study_id in spool and volumes[1].study_id in spool  # nothing has come yet
    third.append(0, [bytes(1000)])  # the oldest goes
    assert volumes[0].study_id not in spool and volumes[1].study_id in spool
    fourth.append(0, [bytes(1000)])
    assert spool.received(volumes[2].study_id) == 1000 and volumes[1].study_id not in spool


def test_room_is_made_as_bytes_come(tmp_path, monkeypatch):
    monkeypatch.setattr(spools, "AHEAD", 1000)
    kept, small, large = noise(50), noise(51), noise(52, (48, 30, 36))
    size = kept.voxels.nbytes
    spool = Spool(tmp_path, 4 * size)
    for volume in (kept, small):
        spool.put(volume)
    upload = spool.begin(large.study_id, study_to_json(large))
    spool.limit -= size  # the headers take some, too
    upload.append(0, [bytes(size // 2)])
    assert kept.study_id in spool and small.study_id in spool
    upload.append(size // 2, [bytes(size)])
    assert kept.study_id not in spool and small.study_id in spool


def test_an_upload_for_which_there_is_no_room_beside_others_is_refused_and_nothing_goes_for_it(tmp_path):
    idle, first, second = noise(39), noise(40), noise(41)
    spool = Spool(tmp_path, 10**9)
    spool.put(idle)
    spool.begin(first.study_id, study_to_json(first)).append(0, [bytes(1000)])
    spool.limit = 2 * first.voxels.nbytes - 1
    with pytest.raises(RoomError, match="try again later"):
        spool.begin(second.study_id, study_to_json(second))
    with pytest.raises(RoomError, match="try again later"):
        spool.put(second)
    assert spool.received(first.study_id) == 1000 and idle.study_id in spool and second.study_id not in spool


def test_what_is_larger_than_the_spool_is_refused_for_good_however_it_comes(tmp_path):
    volume = noise(44)
    spool = Spool(tmp_path, volume.voxels.nbytes - 1)
    with pytest.raises(UploadError, match="The study has 51,840 bytes; this server keeps 51,839 at most"):
        spool.begin(volume.study_id, study_to_json(volume))
    with pytest.raises(UploadError, match="The study has 51,840 bytes; this server keeps 51,839 at most"):
        spool.put(volume)


def test_a_study_in_use_stays_while_others_go_also_when_it_is_in_memory(tmp_path):
    used, idle, new = noise(45), noise(46), noise(47)
    service = Service(Settings(tmp_path, disk=3 * used.voxels.nbytes - 1))
    for volume, age in ((used, 3000), (idle, 2000)):
        service.open_volume(volume)
        then = time.time() - age
        os.utime(service.spool.folder / f"{volume.study_id}.raw", (then, then))
    service.studies.volume(used.study_id)
    service.open_volume(new)
    assert [volume.study_id in service.spool for volume in (used, idle, new)] == [True, False, True]
    service.studies.volume(idle.study_id)  # still in memory, so it can be used
    service.close()


def test_an_announced_upload_of_which_nothing_comes_makes_room_after_a_minute(tmp_path, monkeypatch):
    first, second = noise(42), noise(43)
    spool = Spool(tmp_path, first.voxels.nbytes + 500)
    spool.begin(first.study_id, study_to_json(first))
    monkeypatch.setattr(Upload, "silence", HESITATES + 1)
    assert spool.begin(second.study_id, study_to_json(second)).received == 0


def test_an_upload_that_nobody_goes_on_with_makes_room_after_an_hour(tmp_path, monkeypatch):
    volumes = [noise(seed) for seed in range(30, 33)]
    size = volumes[0].voxels.nbytes
    spool = Spool(tmp_path, size + 500)
    left = spool.begin(volumes[0].study_id, study_to_json(volumes[0]))
    left.append(0, [bytes(1000)])
    with pytest.raises(RoomError):
        spool.begin(volumes[1].study_id, study_to_json(volumes[1]))
    assert spool.received(volumes[0].study_id) == 1000
    monkeypatch.setattr(Upload, "silence", 2 * ABANDONED)
    third = spool.begin(volumes[2].study_id, study_to_json(volumes[2]))
    assert spool.received(volumes[0].study_id) == 1000 and left.over
    third.append(0, [bytes(1000)])
    assert spool.received(volumes[0].study_id) is None
    with pytest.raises(UnknownStudyError, match="announce it first"):
        left.append(1000, [bytes(1000)])


def test_what_is_being_taken_up_again_is_not_evicted_meanwhile(tmp_path, monkeypatch):
    volume, other, third = noise(20), noise(21), noise(22)
    data = bytes(voxels_as_bytes(volume))
    Spool(tmp_path, 10**9).begin(volume.study_id, study_to_json(volume)).append(0, [data[:5000]])
    Spool(tmp_path, 10**9).put(third)
    spool = Spool(tmp_path, 2 * len(data) + 1000)

    def hashed(self, study, *more, init=Upload.__init__):
        if study == volume.study_id:  # while it is hashed, another study comes
            spool.begin(other.study_id, study_to_json(other))
        init(self, study, *more)

    monkeypatch.setattr(Upload, "__init__", hashed)
    upload = spool.begin(volume.study_id, study_to_json(volume))
    spool.upload(other.study_id).append(0, [bytes(voxels_as_bytes(other))])
    assert upload.append(5000, [data[5000:]]) == len(data)
    assert third.study_id not in spool  # both were counted
    assert np.array_equal(spool.finish(volume.study_id).voxels, volume.voxels)


def test_what_another_process_adds_while_an_upload_is_taken_up_is_not_hashed(tmp_path, monkeypatch):
    volume = noise(24)
    data = bytes(voxels_as_bytes(volume))
    Spool(tmp_path, 10**9).begin(volume.study_id, study_to_json(volume)).append(0, [data[:500]])

    def later(path, *more, **also):
        with path.open("ab") as file:
            file.write(b"other")
        return memmap(path, *more, **also)

    memmap, spool = np.memmap, Spool(tmp_path, 10**9)
    with monkeypatch.context() as patch:
        patch.setattr(np, "memmap", later)
        upload = spool.begin(volume.study_id, study_to_json(volume))
    assert upload.append(500, [data[500:]]) == len(data)
    assert upload.found == volume.study_id


def test_an_upload_whose_file_is_gone_is_asked_for_again(tmp_path):
    spool, volume = Spool(tmp_path, 10**9), noise(23)
    upload = spool.begin(volume.study_id, study_to_json(volume))
    (tmp_path / f"{volume.study_id}.part").unlink()
    with pytest.raises(UnknownStudyError, match="announce it first"):
        upload.append(0, [b"abc"])
    upload.rewind(0)
    assert spool.begin(volume.study_id, study_to_json(volume)).append(0, [b"abc"]) == 3


def test_a_lost_header_beside_a_part_begins_the_upload_anew(tmp_path):
    volume = noise(7)
    Spool(tmp_path, 10**9).begin(volume.study_id, study_to_json(volume)).append(0, [b"abc"])
    again = Spool(tmp_path, 10**9)
    assert again.begin(volume.study_id, study_to_json(volume)).received == 3
    (tmp_path / f"{volume.study_id}.json").write_bytes(b"")
    assert Spool(tmp_path, 10**9).begin(volume.study_id, study_to_json(volume)).received == 0
