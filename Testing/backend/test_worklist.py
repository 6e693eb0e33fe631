"""What a server has to be labelled: its list, its images, and what is done."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from groundtruth_helpers import random_patch, random_volume
from server_helpers import Server, Watched

from aiassist.client import RemoteBackend
from aiassist.client.conversations import Conversations, Pace, carry_out
from aiassist.errors import ConnectionLostError, UnknownStudyError
from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import Geometry, Volume
from aiassist.protocol import Reply
from aiassist.protocol.messages import PIECE, study_to_json, voxels_as_bytes
from aiassist.server.assignments import Assignments
from aiassist.server.tokens import add_token

OBLIQUE = np.array([[0.6, -0.64, 0, 11.5], [0.8, 0.48, 0, -7], [0, 0, -2.5, 3], [0, 0, 0, 1]])


@pytest.fixture
def server(tmp_path):
    """A server over three studies: one to do, one done, one with a rejected label."""
    with GroundTruthStore(tmp_path / "studies") as store:
        for seed, states in enumerate(((), ("draft", "approved"), ("submitted", "rejected"))):
            study = store.add_study(random_volume(seed), f"ct {seed}").id
            for state in states:
                store.add(study, "spleen", random_patch(seed), author="ann", state=State(state))
    with Server(tmp_path / "studies") as running:
        yield running


def test_the_list_says_what_is_to_do(server):
    with server.backend() as backend:
        listed = backend.run(backend.conversations.truth())
    assert [(s["name"], s["state"], s["structures"]) for s in listed] == [
        ("ct 0", "todo", 0),
        ("ct 1", "done", 1),
        ("ct 2", "todo", 1),
    ]


def test_an_image_that_somebody_fetched_is_theirs_until_they_take_up_another(tmp_path, monkeypatch):
    with GroundTruthStore(tmp_path / "studies") as store:
        ids = [store.add_study(random_volume(seed), f"ct {seed}").id for seed in range(3)]
    file = tmp_path / "tokens.txt"
    tokens = {name: add_token(file, name, "annotator") for name in ("ann", "bob")}
    with Server(tmp_path / "studies", "--token-file", str(file)) as server:

        def fetch(name, study):
            assert server.ask("GET", f"/api/studies/{study}/voxels?size=8", tokens[name]).status_code == 200

        def seen_by(name):
            return [s["with"] for s in server.ask("GET", "/api/truth", tokens[name]).json()["studies"]]

        assert seen_by("ann") == seen_by("bob") == [None, None, None]
        fetch("ann", ids[0])
        fetch("bob", ids[1])
        assert seen_by("ann") == [None, "bob", None] and seen_by("bob") == ["ann", None, None]
        fetch("ann", ids[2])
        assert seen_by("bob") == [None, None, "ann"]
        with server.backend(tokens["bob"]) as backend:
            study = backend.open_study(random_volume(0))
            version = backend.run(backend.conversations.put_mask(study, random_patch(0)))
        saved = server.ask("POST", f"/api/truth/{study}/spleen", tokens["bob"], json={"mask": version})
        assert saved.status_code == 200 and seen_by("ann") == ["bob", None, None]


def test_who_asks_for_the_next_study_at_the_same_time_is_given_another(tmp_path):
    people = [f"person{number}" for number in range(8)]
    with GroundTruthStore(tmp_path / "studies") as store:
        ids = [store.add_study(random_volume(seed), f"ct {seed}").id for seed in range(6)]
        store.add(ids[1], "spleen", random_patch(1), author="ann", state=State.APPROVED)
    file = tmp_path / "tokens.txt"
    tokens = {name: add_token(file, name, "annotator") for name in people}
    with Server(tmp_path / "studies", "--token-file", str(file)) as server:

        def given(name, current=None):
            answer = server.ask("POST", "/api/truth/next", tokens[name], json={"current": current})
            assert answer.status_code == 200
            return answer.json()["study"]

        with ThreadPoolExecutor(len(people)) as pool:
            first = dict(zip(people, pool.map(given, people), strict=True))
        assert sorted(filter(None, first.values())) == sorted({*ids} - {ids[1]})
        assert list(first.values()).count(None) == 3
        holder = next(name for name in people if first[name] == ids[0])
        assert given(holder) == ids[0]  # whose answer was lost, and asks again
        assert given(holder, ids[0]) is None  # the others are with the others
        waiting = next(name for name in people if first[name] is None)
        assert given(waiting) is None
        last = next(name for name in people if first[name] == ids[5])
        server.ask("GET", f"/api/studies/{ids[1]}/voxels?size=8", tokens[last])  # takes up another
        assert given(waiting, ids[3]) == ids[5]


def test_after_hours_of_silence_an_image_is_anybodys(monkeypatch):
    taken = Assignments()
    taken.take("ann", "a")
    assert taken.by_others("bob") == {"a": "ann"} and taken.by_others("ann") == {}
    assert taken.take_first("bob", ["a"]) is None
    monkeypatch.setattr("aiassist.server.assignments.PATIENCE", 0)
    assert taken.by_others("bob") == {} and taken.take_first("bob", ["a"]) == "a"


def test_one_structure_that_is_not_handed_in_leaves_a_study_to_do(tmp_path):
    with GroundTruthStore(tmp_path) as store:
        study = store.add_study(random_volume(), "ct").id
        store.add(study, "spleen", random_patch(0), author="ann", state=State.SUBMITTED)
        assert [s["state"] for s in store.worklist()] == ["done"]
        store.add(study, "liver", random_patch(1), author="ann")
        assert [(s["state"], s["structures"]) for s in store.worklist()] == [("todo", 2)]


def test_a_study_is_fetched_as_it_is_and_is_not_sent_back(server, monkeypatch):
    monkeypatch.setattr(Pace, "sent", lambda *_: None)
    monkeypatch.setattr("aiassist.client.conversations.FIRST", 1000)
    told, wire = [], Watched(server.url, server.token)
    with RemoteBackend(wire) as backend:
        listed = backend.run(backend.conversations.truth())
        volume = backend.run(backend.conversations.fetch_study(listed[0]["id"], told.append))
        before = len(wire.sent)
        assert backend.open_study(volume) == listed[0]["id"]
        assert [request.method for request in wire.sent[before:]] == ["HEAD"]
    wanted = random_volume(0)
    assert np.array_equal(volume.voxels, wanted.voxels) and volume.voxels.dtype == wanted.voxels.dtype
    assert np.array_equal(volume.geometry.affine, wanted.geometry.affine)
    assert len(told) == -(-wanted.voxels.nbytes // 1000) and told == sorted(told) and told[-1] == 1
    for start in (8, 16, 8, 0):  # whoever leaves the beginning out is noted as well, and whoever begins again
        assert server.ask("GET", f"/api/studies/{listed[1]['id']}/voxels?start={start}&size=8").status_code == 200
    entries = [json.loads(line) for line in (server.studies / "audit.jsonl").read_text().splitlines()]
    fetched = [listed[0]["id"], *[listed[1]["id"]] * 3]
    assert [(e["who"], e["what"], e["study"]) for e in entries] == [("me", "fetch study", study) for study in fetched]


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_every_grid_and_type_comes_back(server, dtype):
    voxels = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(dtype)
    volume = Volume(voxels, Geometry(voxels.shape, OBLIQUE))
    with server.backend() as backend:
        found = backend.run(backend.conversations.fetch_study(backend.open_study(volume)))
    assert found.study_id == volume.study_id and found.voxels.dtype == voxels.dtype


def test_what_is_not_there_or_too_much_is_said(server):
    with server.backend() as backend:
        with pytest.raises(UnknownStudyError, match="is not open here"):
            backend.run(backend.conversations.fetch_study("0" * 32))
        study = backend.run(backend.conversations.truth())[0]["id"]
    path = f"/api/studies/{study}/voxels"
    size = random_volume(0).voxels.nbytes
    assert len(server.ask("GET", path).content) == size
    assert server.ask("GET", f"{path}?start={size}").content == b""
    assert server.ask("GET", f"{path}?start={2**62}").content == b""
    for query in (f"size={PIECE + 1}", "size=0", "start=-1", "start=a"):
        assert server.ask("GET", f"{path}?{query}").status_code == 422
    assert server.ask("GET", path, token=None).status_code == 401
    assert server.ask("GET", f"/api/studies/{study}", token=None).status_code == 401


@pytest.mark.parametrize(
    ("describe", "piece", "said"),
    [
        ({}, b"", "describes the study in a way that is none"),
        ({"shape": [10**6, 10**6, 10**6]}, b"", "too many for this computer's memory|in a way that is none"),
        ({"shape": [-1, 2, 2]}, b"", "in a way that is none"),
        (None, b"", "broke off at 0 of"),
        (None, bytes(10**6), "broke off at 0 of"),
        (None, None, "What arrived is not the study"),
    ],
)
def test_a_server_that_sends_something_else_is_not_believed(describe, piece, said):
    volume = random_volume()
    data = {} if describe == {} else {**study_to_json(volume), **(describe or {})}
    whole = bytes(voxels_as_bytes(volume))[::-1]

    def send(request):
        body = json.dumps(data).encode() if "voxels" not in request.path else whole if piece is None else piece
        return Reply(200, {}, body)

    with pytest.raises(ConnectionLostError, match=said):
        carry_out(Conversations("window").fetch_study(volume.study_id), send)


def test_images_are_put_on_the_list_from_the_command_line(run_cli, sample_folder, tmp_path):
    image, studies = sample_folder / "image.nii.gz", tmp_path / "studies"
    done = run_cli("truth", "add", "--studies", studies, image, "--study-name", "torso")
    assert done.returncode == 0 and done.stdout.startswith("torso: kept (")
    with GroundTruthStore(studies) as store:
        assert [(s["name"], s["state"]) for s in store.worklist()] == [("torso", "todo")]
    refused = run_cli("truth", "add", "--studies", studies, image, "--name", "spleen")
    assert refused.returncode == 2 and "There is no labelmap for 'spleen'" in refused.stderr
