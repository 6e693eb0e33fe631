"""Studies on their way to a server: resumed, refused, compressed where that pays."""

from __future__ import annotations

import threading
import zlib

import numpy as np
import pytest
from server_helpers import Watched, ball

from aiassist.client import RemoteBackend
from aiassist.client.conversations import Pace
from aiassist.engine import AnnotateRequest
from aiassist.imaging import Geometry, Volume
from aiassist.protocol.messages import OFFSET, PIECE, RECEIVED, study_to_json, voxels_as_bytes


def test_a_second_opening_sends_no_voxels(server):
    volume, _ = ball(1)
    for number in range(2):
        wire = Watched(server.url, server.token)
        with RemoteBackend(wire) as backend:
            backend.open_study(volume)
        assert [request.method for request in wire.sent] == [["HEAD", "PUT", "PATCH"], ["HEAD"]][number]
    assert wire.bytes == 0


def test_an_upload_goes_on_where_it_broke_off(server, monkeypatch):
    monkeypatch.setattr(Pace, "pack", lambda self, piece: (piece[:20_000], {}))
    volume, _ = ball(2)
    wire = Watched(server.url, server.token)
    told = []
    with RemoteBackend(wire) as backend:
        wire.break_before = "/never"
        conversation = backend.conversations.open_study(volume, told.append)
        request = next(conversation)
        for _ in range(3):  # HEAD, PUT, first piece
            request = conversation.send(wire.send(request))
        conversation.close()  # the client dies
        half = wire.bytes
        assert 20_000 < half < volume.voxels.nbytes
        again = Watched(server.url, server.token)
        with RemoteBackend(again) as other:
            other.open_study(volume, told.append)
    sent = [int(r.headers[OFFSET]) for r in again.sent if r.method == "PATCH"]
    assert sent == [20_000, 40_000] and told[-1] == 1.0 == max(told) and told == sorted(told)


def test_two_windows_may_send_the_same_study_at_once(server, monkeypatch):
    monkeypatch.setattr(Pace, "pack", lambda self, piece: (piece[:3000], {}))
    volume, prompts = ball(3)
    with server.backend() as first, server.backend() as second:
        windows = [threading.Thread(target=b.open_study, args=(volume,)) for b in (first, second)]
        for window in windows:
            window.start()
        for window in windows:
            window.join()
        for backend in (first, second):
            assert backend.annotate(AnnotateRequest(volume.study_id, prompts, model="ellipsoid")).patch.mask.any()


def announce(server, volume) -> str:
    study = volume.study_id
    assert server.ask("PUT", f"/api/studies/{study}", json=study_to_json(volume)).json()["received"] == 0
    return f"/api/studies/{study}/voxels"


def test_a_piece_from_elsewhere_is_refused_with_the_place_to_go_on_from(server):
    volume, _ = ball(4)
    path = announce(server, volume)
    data = bytes(voxels_as_bytes(volume))
    assert server.ask("PATCH", path, data=data[:100], headers={OFFSET: "0"}).json() == {"received": 100, "whole": False}
    refused = server.ask("PATCH", path, data=data[:100], headers={OFFSET: "0"})
    assert refused.status_code == 409 and refused.headers[RECEIVED] == "100"
    beyond = server.ask("PATCH", path, data=data + b"x", headers={OFFSET: "100"})
    assert beyond.status_code == 422 and "would make it" in beyond.json()["message"]
    assert server.ask("PATCH", path, data=data[100:], headers={OFFSET: "100"}).json()["whole"]


def test_voxels_that_are_not_those_of_the_id_are_refused_and_forgotten(server):
    volume, _ = ball(5)
    path = announce(server, volume)
    data = bytearray(voxels_as_bytes(volume))
    data[7] ^= 1
    answer = server.ask("PATCH", path, data=bytes(data), headers={OFFSET: "0"})
    assert answer.status_code == 422 and f"not {volume.study_id}; send it again" in answer.json()["message"]
    assert server.ask("HEAD", path.removesuffix("/voxels")).status_code == 404
    announce(server, volume)


def test_compressed_pieces_are_unpacked_but_bombs_and_stumps_are_not(server):
    volume, _ = ball(6)
    path = announce(server, volume)
    packed = zlib.compress(bytes(voxels_as_bytes(volume)))
    deflate = {OFFSET: "0", "content-encoding": "deflate"}
    bomb = server.ask("PATCH", path, data=zlib.compress(bytes(PIECE + 1)), headers=deflate)
    assert bomb.status_code == 413
    stump = server.ask("PATCH", path, data=packed[: len(packed) // 2], headers=deflate)
    assert stump.status_code == 422 and "cut off" in stump.json()["message"]
    broken = server.ask("PATCH", path, data=b"not deflate", headers=deflate)
    assert broken.status_code == 422 and "damaged" in broken.json()["message"]
    other = server.ask("PATCH", path, data=packed, headers={OFFSET: "0", "content-encoding": "gzip"})
    assert other.status_code == 422 and "deflate" in other.json()["message"]
    assert server.ask("PATCH", path, data=packed, headers=deflate).json()["whole"]


def test_pieces_are_compressed_only_where_that_is_faster():
    piece = memoryview(bytes(np.random.default_rng(0).integers(0, 4, 2**20, dtype=np.uint8)))
    slow, fast = Pace(), Pace()
    assert slow.pack(piece) == (piece, {})  # the first piece measures
    slow.sent(2**20, 2**20, seconds=10.0)
    fast.sent(2**20, 2**20, seconds=0.0005)
    packed, headers = slow.pack(piece)
    assert zlib.decompress(packed) == piece and headers == {"content-encoding": "deflate"}
    assert fast.pack(piece)[1] == {}
    assert fast.size == PIECE and slow.size < 2**20


def test_nothing_is_compressed_for_this_computer_however_slow_it_is(server, monkeypatch):
    sent = Pace.sent
    monkeypatch.setattr(Pace, "sent", lambda self, held, travelled, seconds: sent(self, held, travelled, 1e3 * seconds))
    wire = Watched(server.url, server.token)
    volume = Volume(np.zeros((64, 128, 256), np.int16), Geometry.from_spacing((64, 128, 256)))
    with RemoteBackend(wire) as backend:
        backend.open_study(volume)
    assert wire.bytes > volume.voxels.nbytes
    assert not any("content-encoding" in request.headers for request in wire.sent)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"shape": [4, 4]}, "shape"),
        ({"shape": [100_000, 100_000, 100_000]}, "this server keeps"),
        ({"shape": [0, 4, 4]}, "shape"),
        ({"dtype": "complex64"}, "complex64"),
        ({"dtype": "object"}, "object"),
        ({"affine": [[1, 0], [0, 1]]}, "affine"),
        ({"extra": 1}, "extra"),
    ],
)
def test_a_header_that_no_study_has_is_refused(server, change, said):
    volume, _ = ball(7)
    answer = server.ask("PUT", f"/api/studies/{volume.study_id}", json={**study_to_json(volume), **change})
    assert answer.status_code == 422 and said in answer.json()["message"]


@pytest.mark.parametrize("name", ["..%2F..%2Fetc%2Fpasswd", "0" * 31, "Z" * 32, "%00" * 8])
def test_no_name_from_a_client_becomes_a_path(server, name):
    assert server.ask("HEAD", f"/api/studies/{name}").status_code in (404, 422)
    assert server.ask("PUT", f"/api/studies/{name}", json=study_to_json(ball(7)[0])).status_code in (404, 405, 422)
