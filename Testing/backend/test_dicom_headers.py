"""DICOM headers: matched to the slices by where they lie, sent to a server, and kept for the right patient."""

from __future__ import annotations

import gzip
import io
import json
import os
import struct
import threading
import zlib
from pathlib import Path
from unittest.mock import Mock

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import write_series
from pydicom.errors import BytesLengthException
from server_helpers import Server, Watched

from aiassist.client import RemoteBackend
from aiassist.client.conversations import Conversations, carry_out
from aiassist.errors import ImageError, SeriesError, UploadError
from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import DicomSeries, Geometry, MaskPatch, Volume, read_volume
from aiassist.imaging.dicom_header import cleaned, read_header
from aiassist.protocol import Reply
from aiassist.protocol.dicom_lines import LINE, line_of, series_from_lines
from aiassist.protocol.messages import SERIES, study_to_json
from aiassist.server.asked import NewVersion
from aiassist.server.service import Service, Settings
from aiassist.server.spool import Spool
from aiassist.server.tokens import Person, add_token

DAMAGED = gzip.compress(json.dumps([{"00100020": {"vr": "LO", "Value": ["P-17"]}}] * 7).encode())
ANN = Person("ann", "annotator")
SHAPE = (7, 20, 16)
SPACING = (0.8, 0.9, 2.5)
ANGLE = np.radians(20)
OBLIQUE = np.eye(4)
OBLIQUE[:3, :3] = np.array([[np.cos(ANGLE), -np.sin(ANGLE), 0], [np.sin(ANGLE), np.cos(ANGLE), 0], [0, 0, 1]]) * SPACING
OBLIQUE[:3, 3] = -50, 12, 30


def series_of(folder, seed: int = 0, **change) -> Volume:
    """A written series of noise, read back."""
    stored = np.random.default_rng(seed).integers(-900, 900, SHAPE).astype(np.int16)
    write_series(folder, stored, OBLIQUE, **change)
    return read_volume(folder)


@pytest.fixture
def series(tmp_path) -> Volume:
    return series_of(tmp_path / "series")


def without(volume: Volume) -> Volume:
    """The same image, as a file without DICOM headers would give it."""
    return Volume(volume.voxels, volume.geometry)


def lines(volume: Volume) -> bytes:
    return b"".join(map(line_of, volume.dicom.headers))


# Matching


def test_headers_are_matched_by_where_they_lie_not_by_their_order(series, tmp_path):
    shuffled = [series.dicom.headers[n] for n in (3, 0, 6, 1, 5, 2, 4)]
    assert DicomSeries.matched(shuffled, series.geometry) == series.dicom
    read = [read_header(path) for path in sorted((tmp_path / "series").iterdir())]
    assert DicomSeries.matched(read, series.geometry) == series.dicom


def test_headers_of_a_reversed_volume_are_reversed(series):
    affine = OBLIQUE.copy()
    affine[:3, 3] += (SHAPE[0] - 1) * affine[:3, 2]
    affine[:3, 2] *= -1
    found = DicomSeries.matched(series.dicom.headers, Geometry(SHAPE, affine))
    assert found.headers == series.dicom.headers[::-1]
    assert found.identity != series.dicom.identity


def _moved(affine):
    affine[:3, 3] += 0.5
    return affine


def _turned(affine):
    affine[:3, :3] = affine[:3, [1, 0, 2]]
    return affine


def _finer(affine):
    affine[:3, 2] /= 2
    return affine


@pytest.mark.parametrize("change", [_moved, _turned, _finer])
def test_headers_of_an_image_that_was_changed_are_refused(series, change):
    with pytest.raises(ImageError, match=r"voxels from the slice|not \d+x\d+"):
        DicomSeries.matched(series.dicom.headers, Geometry(SHAPE, change(OBLIQUE.copy())))


@pytest.mark.parametrize(
    ("tag", "value", "said"),
    [
        ("0020000E", {"vr": "UI", "Value": ["1.2.3"]}, "of several series"),
        ("00100020", {"vr": "LO", "Value": ["Q"]}, "of several patients"),
        ("00080018", {"vr": "UI"}, "do not name each slice"),
        ("00200032", {"vr": "DS"}, r"\(0020,0032\) is missing"),
        ("00280010", {"vr": "US", "Value": [19]}, "16x19 pixels, not 16x20"),
    ],
)
def test_headers_that_do_not_fit_together_are_refused(series, tag, value, said):
    headers = [dict(header) for header in series.dicom.headers]
    headers[2][tag] = value
    with pytest.raises(ImageError, match=said):
        DicomSeries.matched(headers, series.geometry)


def test_one_header_twice_or_too_few_are_refused(series):
    headers = list(series.dicom.headers)
    with pytest.raises(ImageError, match="6 DICOM headers for 7 slices"):
        DicomSeries.matched(headers[1:], series.geometry)
    doubled = {**headers[0], "00080018": {"vr": "UI", "Value": ["1.2.3"]}}
    with pytest.raises(ImageError, match="Two DICOM headers are of the same slice, 0"):
        DicomSeries.matched([doubled, *headers[:-1]], series.geometry)


def test_a_file_is_read_without_private_fields_and_pixels_and_nothing_is_logged(tmp_path, caplog, recwarn):
    series_of(tmp_path / "series")
    path = next((tmp_path / "series").iterdir())
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x00091001, "LO", "private")
    dataset.add_new(0x60003000, "OB", b"overlay")
    dataset.PatientBirthDate = "19700101-wrong-and-secret"
    dataset.save_as(path)
    assert "secret" in caplog.text  # pydicom's own way
    recwarn.clear()
    caplog.clear()
    header = read_header(path)
    assert header["00100020"] == {"vr": "LO", "Value": ["P-17"]}
    assert not {tag for tag in header if tag.startswith(("7FE0", "0009", "6000"))}
    assert not recwarn.list and caplog.text == ""


@pytest.mark.parametrize(("data", "said"), [(None, "cannot be read"), (b"nothing", "is no DICOM file")])
def test_a_file_that_is_none_is_said(tmp_path, data, said):
    if data is not None:
        (tmp_path / "a.dcm").write_bytes(data)
    with pytest.raises(ImageError, match=said):
        read_header(tmp_path / "a.dcm")


@pytest.mark.parametrize(
    ("tag", "data"),
    [
        (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00US\x03\x00"),  # Rows of three bytes
        (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00FD\x02\x00"),  # a double of two bytes
    ],
)
def test_a_damaged_file_is_said_in_one_sentence(series, tmp_path, tag, data):
    path = sorted((tmp_path / "series").iterdir())[0]
    whole = path.read_bytes()
    assert whole.count(tag) == 1
    path.write_bytes(whole.replace(tag, data))
    for read in (lambda: read_header(path), lambda: read_volume(tmp_path / "series")):
        with pytest.raises(ImageError, match=r"slice000\.dcm"):
            read()


@pytest.mark.parametrize("error", [struct.error, BytesLengthException, OverflowError, RecursionError, zlib.error])
def test_whatever_pydicom_raises_for_a_file_it_is_damaged(series, tmp_path, monkeypatch, error):
    monkeypatch.setattr(pydicom, "dcmread", Mock(side_effect=error("secret")))
    path = sorted((tmp_path / "series").iterdir())[0]
    for read in (lambda: read_header(path), lambda: read_volume(tmp_path / "series")):
        with pytest.raises(ImageError, match=r"slice000\.dcm is a damaged DICOM file; copy it again\.$"):
            read()


def test_only_what_reads_without_fault_is_kept_of_what_somebody_sends():
    nested: dict = {"00080060": {"vr": "CS", "Value": ["CT"]}}
    for _ in range(20):
        nested = {"00081115": {"vr": "SQ", "Value": [nested]}}
    said = {
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane"}]},
        "00180050": {"vr": "DS", "Value": [2.5, None]},
        "00200013": {"vr": "IS", "Value": ["seven"]},
        "00101010": {"vr": "AS", "Value": ["\ud800"]},
        "00280010": {"vr": "US", "Value": [True]},
        "00280030": {"vr": "DS", "Value": [float("inf")]},
        "00091001": {"vr": "LO", "Value": ["private"]},
        "7FE00010": {"vr": "OW", "BulkDataURI": "file:///etc/passwd"},
        "00420011": {"vr": "OB", "InlineBinary": "AAAA"},
        "../../../x": {"vr": "LO", "Value": ["x"]},
        "00080005": ["ISO_IR 100"],
        **nested,
    }
    kept = cleaned(said)
    assert set(kept) == {"00100010", "00180050", "00081115"}
    assert pydicom.Dataset.from_json(kept).PatientName == "Doe^Jane"
    assert json.dumps(kept).count("00081115") == 8


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\n" * 100, "100 DICOM headers for 7 slices"),
        (b"[" * 100_000, "Line 1 of the DICOM headers is no DICOM JSON object"),
        (b'{"a": ' * 10_000, "Line 1"),
        (b"{}\n[]\n", "Line 2"),
        (b"{}\n\xff", "Line 2"),
        (b"1" * (LINE + 1), "longer than 8,388,608 bytes"),
    ],
)
def test_lines_that_are_no_headers_are_refused(series, data, said):
    with pytest.raises(UploadError, match=said):
        series_from_lines(data, series.geometry)


# A server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    file = tmp_path_factory.mktemp("secret") / "tokens.txt"
    tokens = {"ann": add_token(file, "ann", "annotator"), "boss": add_token(file, "boss", "admin")}
    with Server(tmp_path_factory.mktemp("studies"), "--token-file", str(file)) as running:
        running.tokens = tokens
        yield running


@pytest.fixture
def backend(server):
    with server.backend(server.tokens["ann"]) as remote:
        yield remote


def audit(server, study: str) -> list[tuple[str, str]]:
    """Who did what to a study."""
    path = server.studies / "audit.jsonl"
    entries = map(json.loads, path.read_text().splitlines()) if path.exists() else ()
    return [(entry["who"], entry["what"]) for entry in entries if entry["study"] == study]


def seg_of(server, study: str):
    """The server's DICOM SEG of a study."""
    answer = server.ask("GET", f"/api/truth/{study}/export?format=dcm", server.tokens["ann"])
    assert answer.status_code == 200, answer.text
    return highdicom.seg.segread(io.BytesIO(answer.content))


def half(volume: Volume) -> MaskPatch:
    return MaskPatch.of_mask(np.arange(SHAPE[0])[:, None, None] * np.ones(SHAPE) > 3)


def test_headers_travel_once_and_come_back(server, tmp_path):
    volume = series_of(tmp_path / "series", 1)
    for number in range(2):
        wire = Watched(server.url, server.tokens["ann"])
        with RemoteBackend(wire) as backend:
            study = backend.open_study(volume)
            assert backend.run(backend.conversations.series(study, volume.geometry)) == volume.dicom
        methods = [request.method for request in wire.sent]
        assert methods == [["HEAD", "PUT", "PATCH", "PUT", "GET"], ["HEAD", "GET"]][number]
    assert audit(server, study) == [("ann", "keep series"), ("ann", "fetch series"), ("ann", "fetch series")]


@pytest.mark.parametrize("saved", [False, True])
def test_a_server_that_knows_the_voxels_only_receives_the_headers(server, backend, tmp_path, saved):
    volume = series_of(tmp_path / "series", 2 + saved)
    talk, study = backend.conversations, backend.open_study(without(volume))
    assert talk.said_of_series(study, "ct") is None and backend.run(talk.series(study, volume.geometry)) is None
    if saved:
        backend.run(talk.save(study, "spleen", half(volume)))
        answer = server.ask("GET", f"/api/truth/{study}/export?format=dcm", server.tokens["ann"])
        assert answer.status_code == 422 and "did not come from DICOM" in answer.json()["message"]
    assert backend.run(talk.give_series(volume, "ct")) == ""
    assert talk.said_of_series(study, "ct") == ""
    if not saved:
        backend.run(talk.save(study, "spleen", half(volume)))
    seg = seg_of(server, study)
    assert (seg.PatientID, seg.StudyInstanceUID) == ("P-17", volume.dicom.study_uid)
    assert seg.FrameOfReferenceUID == volume.dicom.headers[0]["00200052"]["Value"][0]
    (referenced,) = seg.ReferencedSeriesSequence
    assert referenced.SeriesInstanceUID == volume.dicom.series_uid
    assert (server.studies / "studies" / study / "dicom.json.gz").exists()
    assert audit(server, study)[-1] == ("ann", "export")


def test_headers_of_another_series_are_refused_until_an_admin_removes_the_first(server, backend, tmp_path):
    volume, copy = series_of(tmp_path / "series", 4), series_of(tmp_path / "copy", 4)
    assert volume.study_id == copy.study_id and volume.dicom.identity != copy.dicom.identity
    talk, study = backend.conversations, backend.open_study(volume)
    backend.run(talk.save(study, "spleen", half(volume)))
    backend.open_study(copy)  # it is used all the same
    said = backend.run(talk.give_series(copy, "copy"))
    assert (talk.said_of_series(study, "copy"), talk.said_of_series(study, "ct")) == (said, None)
    assert said.startswith("This image is kept with the DICOM headers of another series")
    answer = server.ask("PUT", f"/api/studies/{study}/dicom", server.tokens["ann"], data=lines(copy))
    assert (answer.status_code, answer.json()["error"]) == (409, "SeriesError")
    assert seg_of(server, study).StudyInstanceUID == volume.dicom.study_uid
    assert ("ann", "another series refused") in audit(server, study)
    path = f"/api/studies/{study}/dicom"
    assert server.ask("DELETE", path, server.tokens["ann"]).status_code == 403
    assert server.ask("DELETE", path, server.tokens["boss"]).status_code == 200
    assert SERIES not in server.ask("HEAD", f"/api/studies/{study}", server.tokens["ann"]).headers
    assert backend.run(talk.give_series(copy, "copy")) == talk.said_of_series(study, "copy") == ""
    assert seg_of(server, study).StudyInstanceUID == copy.dicom.study_uid
    assert ("boss", "forget series") in audit(server, study)


@pytest.mark.parametrize(("status", "is_final"), [(409, True), (422, True), (413, False), (429, False), (507, False)])
def test_only_a_final_refusal_is_remembered_and_no_longer_than_the_study_is_open(series, status, is_final):
    def answer(request):
        if request.path.endswith("/dicom"):
            return Reply(status, {}, b'{"error": "StoreError", "message": "No."}')
        return Reply(200, {}, b"{}")

    talk, study = Conversations("ann"), series.study_id
    carry_out(talk.open_study(without(series)), answer)
    assert carry_out(talk.give_series(series, "ct"), answer) == "No."
    assert talk.said_of_series(study, "ct") == ("No." if is_final else None)
    assert talk.said_of_series(study, "copy") is None
    carry_out(talk.close_study(study), answer)
    assert carry_out(talk.give_series(series, "ct"), answer) == "No."
    assert talk.said_of_series(study, "ct") is None and not talk.knows(study)


def test_headers_that_do_not_fit_are_refused_and_say_why(server, backend, tmp_path):
    volume, other = series_of(tmp_path / "series", 5), series_of(tmp_path / "other", 6)
    study = backend.open_study(without(volume))
    path, token = f"/api/studies/{study}/dicom", server.tokens["ann"]
    fewer = b"".join(map(line_of, volume.dicom.headers[:-1]))
    for data, status, said in (
        (fewer, 422, "6 DICOM headers for 7 slices"),
        (b"", 422, "no DICOM JSON object"),
        (b"\n" * 40_000_000, 413, "A body may have"),
        (zlib.compress(bytes(100_000_000)), 413, "A body may have"),
    ):
        packed = {"content-encoding": "deflate"} if data[:1] == b"\x78" else {}
        answer = server.ask("PUT", path, token, data=data, headers=packed)
        assert (answer.status_code, said in answer.json()["message"]) == (status, True), answer.text
    assert server.ask("PUT", f"/api/studies/{'0' * 32}/dicom", token, data=lines(other)).status_code == 404
    assert server.ask("GET", path, token).status_code == 404
    assert audit(server, study) == []


def test_headers_are_there_after_a_restart_and_go_with_their_study(tmp_path):
    volume = series_of(tmp_path / "series", 7)
    with Server(tmp_path / "studies") as server, server.backend() as backend:
        study = backend.open_study(volume)
    with Server(tmp_path / "studies") as server:
        head = server.ask("HEAD", f"/api/studies/{study}")
        assert (head.status_code, head.headers[SERIES]) == (200, volume.dicom.identity)
        assert server.ask("DELETE", f"/api/studies/{study}").status_code == 200
        assert list((tmp_path / "studies" / "uploads").iterdir()) == []


def test_the_servers_log_holds_nothing_of_the_headers(server, backend, tmp_path):
    volume = series_of(tmp_path / "series", 8)
    study = backend.open_study(volume)
    backend.run(backend.conversations.save(study, "spleen", half(volume), name="torso"))
    seg_of(server, study)
    log = server.ask("GET", "/logs/?lines=2000", server.tokens["boss"]).text
    written = (server.studies / "audit.jsonl").read_text()
    assert "/dicom" in log
    for secret in ("P-17", "Doe", volume.dicom.study_uid, volume.dicom.series_uid):
        assert secret not in log and secret not in written


def test_headers_outlive_the_voxels_file_by_a_day_for_who_still_has_the_study_open(tmp_path):
    volumes = [series_of(tmp_path / str(seed), seed) for seed in (10, 11, 12)]
    studies = [volume.study_id for volume in volumes]
    spool = Spool(tmp_path / "spool", 2 * volumes[0].voxels.nbytes)
    for volume in volumes[:2]:
        spool.put(volume)
    assert studies[0] not in spool and spool.series(studies[0]) == volumes[0].dicom
    dicom = tmp_path / "spool" / f"{studies[0]}.dicom"
    os.utime(dicom, (0, 0))
    os.utime(dicom.with_stem(studies[1]), (0, 0))
    spool.put(volumes[2])
    assert spool.series(studies[0]) is None
    spool.remove(studies[2])
    assert spool.series(studies[2]) is None


def test_an_image_added_to_the_ground_truth_takes_the_headers_that_were_sent_along(tmp_path):
    volume, copy = series_of(tmp_path / "series", 14), series_of(tmp_path / "copy", 14)
    service, study = Service(Settings(tmp_path / "studies")), volume.study_id
    try:
        service.open_volume(without(volume))
        service.keep_series(ANN, study, lines(volume))
        service.keep_study(ANN, copy, "torso")
        service.spool.remove(study)
        assert service.store.series(study) == volume.dicom
    finally:
        service.close()


def test_headers_in_the_spool_join_an_image_that_was_added_without_when_a_label_is_saved(tmp_path):
    volume = series_of(tmp_path / "series", 15)
    service, study = Service(Settings(tmp_path / "studies")), volume.study_id
    try:
        service.open_volume(volume)
        service.store.add_study(without(volume), "torso")
        service.save(ANN, study, "spleen", NewVersion(service.studies.remember(study, half(volume))))
        assert service.store.series(study) == volume.dicom
    finally:
        service.close()


def test_headers_that_went_with_the_voxels_file_are_taken_again(tmp_path):
    volume, copy = series_of(tmp_path / "series", 13), series_of(tmp_path / "copy", 13)
    service, study = Service(Settings(tmp_path / "studies")), volume.study_id
    try:
        service.open_volume(volume)
        assert service.series_identity(study) == volume.dicom.identity
        service.spool.remove(study)  # no room
        assert service.series_identity(study) is None
        service.open_volume(without(volume))
        service.keep_series(ANN, study, lines(volume))
        assert service.series(study) == volume.dicom
        service.spool.drop_series(study)
        assert service.keep_series(ANN, study, lines(copy)) == service.series_identity(study) == copy.dicom.identity
    finally:
        service.close()


@pytest.mark.parametrize(
    "damaged",
    [b"", b"\x1f\x8b", DAMAGED[:-30], DAMAGED[:20] + bytes(40), gzip.compress(b"[1]")],
    ids=["empty", "magic only", "cut off", "zeros within", "no headers"],
)
def test_damaged_headers_of_an_upload_are_sent_again(tmp_path, damaged):
    volume = series_of(tmp_path / "series", 16)
    service, study = Service(Settings(tmp_path / "studies")), volume.study_id
    try:
        service.open_volume(volume)
        service.spool.series_file(study).write_bytes(damaged)
        assert service.series_identity(study) is None and service.series(study) is None
        assert service.keep_series(ANN, study, lines(volume)) == service.series_identity(study)
        assert service.series(study) == volume.dicom
    finally:
        service.close()


def test_damaged_headers_of_the_ground_truth_are_said_and_its_image_opens_without(server, backend, tmp_path):
    volume = series_of(tmp_path / "series", 17)
    talk, study, token = backend.conversations, backend.open_study(volume), server.tokens["ann"]
    backend.run(talk.save(study, "spleen", half(volume)))
    path = server.studies / "studies" / study / "dicom.json.gz"
    path.write_bytes(path.read_bytes()[:-30])
    assert SERIES not in server.ask("HEAD", f"/api/studies/{study}", token).headers
    said = backend.run(talk.give_series(volume, "ct"))
    assert said.startswith("The DICOM headers of this study are damaged")
    for address in (f"/api/studies/{study}/dicom", f"/api/truth/{study}/export?format=dcm"):
        answer = server.ask("GET", address, token)
        assert (answer.status_code, answer.json()["message"]) == (422, said)
    backend.run(talk.save(study, "spleen", half(volume)))
    with GroundTruthStore(server.studies) as store:
        assert store.volume(study).dicom is None


# The store


def meanwhile(monkeypatch, method: str, work) -> None:
    """Let another process work on the same store before the next call of one of its methods."""
    original = getattr(GroundTruthStore, method)

    def after_others(self, *arguments):
        monkeypatch.setattr(GroundTruthStore, method, original)
        with GroundTruthStore(self.folder) as other:
            work(other)
        return original(self, *arguments)

    monkeypatch.setattr(GroundTruthStore, method, after_others)


def test_headers_are_kept_when_another_process_adds_the_same_image_without_at_the_same_time(tmp_path, monkeypatch):
    volume = series_of(tmp_path / "series", 18)
    with GroundTruthStore(tmp_path / "studies") as store:
        meanwhile(monkeypatch, "_write_image", lambda other: other.add_study(without(volume), "ct"))
        assert store.add_study(volume, "ct").from_dicom
        assert store.series(volume.study_id) == volume.dicom


def test_of_headers_that_two_processes_add_at_the_same_time_the_first_stay(tmp_path, monkeypatch):
    volume, copy = series_of(tmp_path / "series", 18), series_of(tmp_path / "copy", 18)
    with GroundTruthStore(tmp_path / "new") as store:
        meanwhile(monkeypatch, "_write_image", lambda other: other.add_study(volume, "ct"))
        assert store.add_study(copy, "ct").from_dicom
        assert store.series(volume.study_id) == volume.dicom
    with GroundTruthStore(tmp_path / "bare") as store:
        study = store.add_study(without(volume), "ct").id
        meanwhile(monkeypatch, "_enter_series", lambda other: other.add_series(study, volume.dicom))
        with pytest.raises(SeriesError, match="is kept with the DICOM headers of another series"):
            store.add_series(study, copy.dicom)
        assert store.series(study) == volume.dicom
        store.drop_series(study)
        meanwhile(monkeypatch, "_enter_series", lambda other: other.add_series(study, volume.dicom))
        assert store.add_study(copy, "ct").from_dicom
        assert store.series(study) == volume.dicom


def test_headers_that_come_while_others_are_removed_stay(tmp_path, monkeypatch):
    volume, copy = series_of(tmp_path / "series", 18), series_of(tmp_path / "copy", 18)
    unlink, threads = Path.unlink, []
    with GroundTruthStore(tmp_path / "studies") as store, GroundTruthStore(tmp_path / "studies") as other:
        study = store.add_study(volume, "ct").id

        def while_another_adds(path, **options):
            monkeypatch.setattr(Path, "unlink", unlink)
            threads.append(threading.Thread(target=other.add_series, args=(study, copy.dicom)))
            threads[0].start()
            threads[0].join(0.5)  # it waits for the index
            unlink(path, **options)

        monkeypatch.setattr(Path, "unlink", while_another_adds)
        store.drop_series(study)
        threads[0].join()
        assert store.series(study) == copy.dicom


def test_a_study_added_without_headers_gets_those_of_the_next_time_and_keeps_them(tmp_path):
    volume, copy = series_of(tmp_path / "series", 9), series_of(tmp_path / "copy", 9)
    with GroundTruthStore(tmp_path / "studies") as store:
        record = store.add_study(without(volume), "ct")
        assert not record.from_dicom and store.series(record.id) is None
        assert store.add_study(volume, "ct").from_dicom
        store.add_study(copy, "ct")
        assert store.series(record.id) == volume.dicom
        store.drop_series(record.id)
        assert store.volume(record.id).dicom is None and not store.study("ct").from_dicom


def test_a_wrong_upload_leaves_the_headers_of_the_right_one(tmp_path):
    volume = series_of(tmp_path / "series", 17)
    study, data = volume.study_id, study_to_json(volume)
    spool = Spool(tmp_path / "spool", 10**9)
    spool.put(volume)
    spool._remove_voxels(study)  # to make room
    spool.begin(study, data).append(0, [bytes(volume.voxels.nbytes)])
    with pytest.raises(UploadError, match="send it again"):
        spool.finish(study)
    spool.put(without(volume))
    assert spool.series(study) == volume.dicom
