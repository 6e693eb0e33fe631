"""Whose labels a server saves: the token's, unless nobody but who started it may use it."""

from __future__ import annotations

import json

import pytest
from groundtruth_helpers import random_patch, random_volume
from server_helpers import Server

from aiassist.client import RemoteBackend
from aiassist.errors import AccessError
from aiassist.groundtruth import GroundTruthStore
from aiassist.server.tokens import add_token


def save(backend: RemoteBackend, **details) -> dict:
    """Save a label of a small study."""
    study = backend.open_study(random_volume(0))
    return backend.run(backend.conversations.save(study, "spleen", random_patch(0), **details))


def authors(folder) -> list[str]:
    """The authors of the small study's labels, the oldest first."""
    with GroundTruthStore(folder) as store:
        return [version.author for version in store.history(random_volume(0).study_id)]


def noted(folder) -> list[str]:
    """Who saved, by the audit log."""
    lines = map(json.loads, (folder / "audit.jsonl").read_text().splitlines())
    return [line["who"] for line in lines if line["what"] == "save"]


def test_who_is_alone_says_whose_labels_are_saved(tmp_path):
    with Server(tmp_path, "--author", "ann") as server, server.backend() as backend:
        for author in (None, "ann", "Dr. Bo"):
            assert save(backend, author=author)["author"] == (author or "ann")
        first, again = (save(backend, author="Cat", parent=3, comment="once")["number"] for _ in range(2))
        assert first == again == 4  # a save whose answer was lost
        assert [one["with"] for one in server.ask("GET", "/api/truth").json()["studies"]] == [None]
    assert authors(tmp_path) == noted(tmp_path) == ["ann", "ann", "Dr. Bo", "Cat"]


@pytest.mark.parametrize("role", ["annotator", "admin"])
def test_on_a_server_with_tokens_nobody_saves_under_another_name(tmp_path, role):
    token = add_token(tmp_path / "tokens.txt", "ann", role)
    options = ("--token-file", str(tmp_path / "tokens.txt"))
    with Server(tmp_path / "studies", *options) as server, server.backend(token) as backend:
        assert save(backend)["author"] == "ann"
        assert save(backend, author="ann")["author"] == "ann"
        with pytest.raises(AccessError, match="under the name of your token, ann; leave the author out"):
            save(backend, author="bob")
    assert authors(tmp_path / "studies") == noted(tmp_path / "studies") == ["ann", "ann"]


def test_an_author_without_a_name_is_refused(tmp_path):
    with Server(tmp_path) as server, server.backend() as backend:
        study = backend.open_study(random_volume(0))
        version = backend.run(backend.conversations.put_mask(study, random_patch(0)))
        for author in ("", " \t", "x" * 201):
            answer = server.ask("POST", f"/api/truth/{study}/spleen", json={"mask": version, "author": author})
            assert answer.status_code == 422
    assert authors(tmp_path) == []
