"""Bundles are fetched from a hub of models as Hugging Face's is, here one of our own on this computer."""

from __future__ import annotations

import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

import pytest
from bundle_helpers import make_bundle

from aiassist.groundtruth import GroundTruthStore
from aiassist.segmenters.model_store import MODELS, ModelStore

COMMIT = "0123456789" * 4


def hub_of(folder: Path):
    """A handler that has the files of a folder as MONAI/tissues, version 0.3.1 and newest."""

    class Hub(BaseHTTPRequestHandler):
        asked: ClassVar[list[str]] = []

        def do_GET(self):
            path = urlsplit(self.path).path
            self.asked.append(path)
            api, files = "/api/models/MONAI/tissues", f"/MONAI/tissues/resolve/{COMMIT}/"
            if path in (f"{api}/revision/main", f"{api}/revision/0.3.1"):
                self.answer(json.dumps({"id": "MONAI/tissues", "sha": COMMIT, "siblings": []}).encode())
            elif path == f"{api}/tree/{COMMIT}":
                self.answer(
                    json.dumps([described(file) for file in sorted(folder.rglob("*")) if file.is_file()]).encode()
                )
            elif path.startswith(files):
                self.answer((folder / path.removeprefix(files)).read_bytes())
            else:
                known = path.startswith(api)
                self.send_response(404)
                self.send_header("X-Error-Code", "RevisionNotFound" if known else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET

        def answer(self, body: bytes):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_arguments):
            pass

    def described(file: Path) -> dict:
        content = file.read_bytes()
        name = file.relative_to(folder).as_posix()
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    return Hub


@contextmanager
def served(handler):
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture
def studies(tmp_path) -> Path:
    folder = tmp_path / "studies"
    GroundTruthStore(folder).close()
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub with one bundle, which holds more than a model needs."""
    bundle = make_bundle(tmp_path / "tissues")
    (bundle / "large_files.yml").write_text("large_files: []")
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "own.py").write_text("raise SystemExit('a program ran')")
    handler = hub_of(bundle)
    with served(handler) as address:
        monkeypatch.setenv("HF_ENDPOINT", address)
        monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
        yield handler


def test_a_bundle_of_the_zoo_is_fetched_and_imported(hub, studies, run_cli):
    done = run_cli("models", "pull", "tissues", "--studies", studies, "--name", "fat")
    assert done.stdout == "fat version 1 is used from now on; it finds fat, muscle. Licence: Apache-2.0.\n", done.stderr
    assert ModelStore(studies / MODELS).published("fat") == 1
    fetched = {path.split(COMMIT)[1] for path in hub.asked if "/resolve/" in path}
    assert fetched == {"/LICENSE", "/configs/inference.json", "/configs/metadata.json", "/models/model.pt"}


@pytest.mark.parametrize(
    "asked, said",
    [
        (["lungs"], "MONAI's model zoo has no bundle 'lungs'; see https://huggingface.co/MONAI."),
        (["tissues", "--version", "9"], "MONAI's model zoo has no version '9' of tissues."),
        (["../tissues"], "'../tissues' is no name of a bundle"),
        (["a--b"], "'a--b' is no name of a bundle"),
    ],
)
def test_what_the_zoo_has_not_is_said_and_nothing_is_kept(hub, studies, run_cli, asked, said):
    done = run_cli("models", "pull", *asked, "--studies", studies)
    assert (done.returncode, done.stdout) == (2, "") and said in done.stderr
    assert ModelStore(studies / MODELS).names() == []


def test_without_a_network_the_way_around_is_named(studies, run_cli, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = run_cli("models", "pull", "tissues", "--studies", studies)
    assert (done.returncode, done.stdout) == (2, "")
    assert (
        "tissues could not be fetched from MONAI's model zoo" in done.stderr
        and "aiassist models import PATH" in done.stderr
    )
