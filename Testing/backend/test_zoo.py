"""Bundles are fetched from a hub of models as Hugging Face's is, here one of our own on this computer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hub_helpers import COMMIT, hub_of, make_tissues, served
from server_helpers import Server, wait_until

from aiassist.errors import ModelError
from aiassist.groundtruth import GroundTruthStore
from aiassist.segmenters.model_store import MODELS, ModelStore
from aiassist.server import training
from aiassist.server.tokens import add_token


@pytest.fixture
def studies(tmp_path) -> Path:
    folder = tmp_path / "studies"
    GroundTruthStore(folder).close()
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    handler = hub_of(make_tissues(tmp_path / "tissues"))
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


def test_errors_in_a_bundle_of_the_zoo_name_it_and_not_a_temporary_folder(hub, studies, tmp_path, run_cli):
    (tmp_path / "tissues" / "configs" / "metadata.json").unlink()
    done = run_cli("models", "pull", "tissues", "--studies", studies)
    assert done.returncode == 2 and "aiassist: MONAI/tissues has no configs/metadata.json" in done.stderr


def test_without_a_network_the_way_around_is_named(studies, run_cli, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = run_cli("models", "pull", "tissues", "--studies", studies)
    assert (done.returncode, done.stdout) == (2, "")
    assert "tissues could not be fetched from MONAI's model zoo (ConnectError: " in done.stderr
    assert done.stderr.endswith("aiassist models import PATH.\n") and done.stderr.count("\n") == 1


def test_a_mirror_that_is_no_address_is_said(studies, run_cli, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "mirror.example")
    done = run_cli("models", "pull", "tissues", "--studies", studies)
    said = "aiassist: HF_ENDPOINT is 'mirror.example', which is no address; begin it with https://.\n"
    assert (done.returncode, done.stderr) == (2, said)


def test_a_program_is_told_how_far_it_is(hub, studies, run_cli):
    done = run_cli("models", "pull", "tissues", "--studies", studies, "--json")
    assert json.loads(done.stdout) == {
        **{"model": "tissues-by-grey-level", "version": 1, "labels": ["fat", "muscle"]},
        **{"licence": "Apache-2.0", "published": True},
    }
    told = [json.loads(line) for line in done.stderr.splitlines()]
    fetching = [one for one in told if one["phase"] == "fetching"]
    assert 0 < fetching[-1]["done"] == fetching[-1]["total"]  # bytes
    assert told[-1]["phase"] == "trying it on a small image"


def _in_the_background() -> None:
    """As what a shell starts there, and a server that was started there: Ctrl+C means nothing to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def test_who_stops_waits_for_no_download_and_leaves_nothing(hub, studies, tmp_path, monkeypatch):
    (tmp_path / "tissues" / "models" / "large.pt").write_bytes(bytes(100 * 2**20))
    hub.pause = 0.1
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    command = [sys.executable, "-m", "aiassist.cli", "models", "pull", "tissues", f"--studies={studies}", "--json"]
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    started = [*command, "--until-stdin-closes"]
    with subprocess.Popen(started, **pipes, encoding="utf8", preexec_fn=_in_the_background) as process:
        told = {"done": 0}
        while told["done"] < 10**7:
            told = json.loads(process.stderr.readline())
        assert told["done"] < told["total"] / 2
        process.stdin.close()
        rest = process.stderr.read()
        assert process.wait(5) == 130
        assert "aiassist: Stopped." in rest and "Traceback" not in rest
        assert f'"done": {told["total"]}' not in rest
    assert not list((tmp_path / "temporary").iterdir()) and ModelStore(studies / MODELS).names() == []


def test_a_server_fetches_one_for_its_admin_and_runs_no_program_of_it(hub, studies, tmp_path):
    token = {
        name: add_token(tmp_path / "tokens", name, role) for name, role in (("ada", "admin"), ("bob", "annotator"))
    }
    with Server(studies, "--token-file", str(tmp_path / "tokens")) as server:

        def pull(who: str, **body):
            return server.ask("POST", "/api/learning/pull", token[who], json=body)

        def task() -> dict:
            return server.ask("GET", "/api/learning/task", token["ada"]).json()["task"]

        def models() -> dict:
            return {card["name"]: card for card in server.ask("GET", "/api/models", token["bob"]).json()["models"]}

        assert server.ask("GET", "/api/learning", token["ada"]).json()["missing_for_bundles"] == []
        assert pull("bob", bundle="tissues").status_code == 403
        for body in ({"bundle": "--help"}, {"bundle": "../x"}, {"bundle": "tissues", "name": "a b"}):
            assert pull("ada", **body).status_code == 422
        assert pull("ada", bundle="tissues", trust=True).status_code == 422  # nobody far away can say so
        assert task() is None and "tissues-by-grey-level" not in models()
        begun = pull("ada", bundle="tissues", version="0.3.1").json()["task"]
        assert (begun["what"], begun["model"], begun["by"]) == ("pull", "tissues", "ada")
        wait_until(lambda: task()["state"] != "running", 60)
        assert task()["state"] == "done", task()
        assert task()["result"]["labels"] == ["fat", "muscle"]
        assert models()["tissues-by-grey-level"]["kind"] == "automatic"
        pull("ada", bundle="lungs")
        wait_until(lambda: task()["state"] != "running", 60)
        assert task()["message"] == "MONAI's model zoo has no bundle 'lungs'; see https://huggingface.co/MONAI."


def test_a_server_that_lacks_a_package_says_so(studies, monkeypatch):
    monkeypatch.setattr(training, "NEEDED_BY_BUNDLES", ("torch", "no_such_package"))
    with pytest.raises(ModelError, match="This server lacks no_such_package, so it cannot run MONAI's bundles"):
        training.Training(studies).pull("Ada", "tissues")
