"""Models learn where the labels are: on the server, in a process of its own."""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import signal

import psutil
import pytest
import torch
from learning_helpers import add_tiny_version, store_of_ellipsoids
from server_helpers import Server, wait_until

from aiassist.errors import BusyError
from aiassist.segmenters.model_store import MODELS, RUN, ModelStore
from aiassist.server.tokens import add_token
from aiassist.server.training import Options, Training

LONG = 240


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """Six labelled scans, and a published network that has learned next to nothing."""
    home = tmp_path_factory.mktemp("template")
    store_of_ellipsoids(home / "studies", 6).close()
    models = ModelStore(home / "studies" / MODELS)
    add_tiny_version(models, "tiny")
    models.publish("tiny", 1, "Ada")
    return home / "studies"


@pytest.fixture
def studies(template, tmp_path):
    """A copy of it."""
    return shutil.copytree(template, tmp_path / "studies")


def learning(server) -> dict:
    return server.ask("GET", "/api/learning").json()


def task(server) -> dict | None:
    return server.ask("GET", "/api/learning/task").json()["task"]


def begin(server, what: str, **body) -> dict:
    reply = server.ask("POST", f"/api/learning/{what}", json=body)
    assert reply.status_code == 200, reply.text
    return reply.json()["task"]


def wait_for_end(server) -> dict:
    wait_until(lambda: task(server)["state"] != "running", LONG)
    return task(server)


@pytest.mark.heavy
def test_a_model_learns_on_the_server_and_is_offered_once_it_is_published(studies):
    with Server(studies, "--author", "Ada") as server:
        before = learning(server)
        assert (before["labels"], before["studies"], before["structures"]) == (6, 6, {"cyst": 6})
        assert before["missing"] == [] and before["task"] is None
        (model,) = before["models"]
        said = [model[key] for key in ("name", "kind", "published", "unfinished")]
        assert said == ["tiny", "promptable", 1, None]

        begin(server, "train", model="tiny", epochs=20)
        ended = wait_for_end(server)
        assert ended["state"] == "done", ended
        result = ended["result"]
        assert (result["version"], result["labels"], result["judging labels"], result["published"]) == (2, 4, 2, False)
        assert result["better"] and result["now"]["six points"] > result["before"]["six points"]
        (model,) = learning(server)["models"]
        assert [one["version"] for one in model["versions"]] == ["1", "2"] and model["published"] == 1
        dice = model["versions"][1]["metrics"]["dice, six points"]
        assert dice == pytest.approx(result["now"]["six points"], abs=1e-4)

        begin(server, "publish", model="tiny", version=2)
        assert wait_for_end(server)["result"]["published"] is True
        with server.backend() as backend:
            assert {card.name: card.version for card in backend.models()}["tiny"] == "2"
        assert server.ask("POST", "/api/learning/rollback", json={"model": "tiny"}).json() == {"published": 1}
        assert [one["action"] for one in learning(server)["models"][0]["history"]] == ["publish", "publish", "rollback"]
    audit = [json.loads(line) for line in (studies / "audit.jsonl").read_text().splitlines()]
    assert [(line["who"], line["what"]) for line in audit] == [("Ada", one) for one in ("train", "publish", "rollback")]


@pytest.mark.heavy
def test_a_training_that_is_stopped_or_outlived_goes_on(studies):
    asked = {"model": "tiny", "epochs": 200, "structures": ["Cyst"]}
    with Server(studies, "--author", "Ada") as server:
        began = begin(server, "train", **asked)
        assert (began["what"], began["model"], began["by"], began["state"]) == ("train", "tiny", "Ada", "running")
        busy = server.ask("POST", "/api/learning/train", json={"model": "other"})
        assert busy.status_code == 503 and "Ada has 'tiny' trained, published or fetched now" in busy.json()["message"]
        wait_until(lambda: task(server)["phase"] == "learning" and task(server)["done"] > 1, LONG)
        assert task(server)["total"] == 134 and re.match(r"learning: loss [\d.]+, Dice ", task(server)["text"])
        stopped = server.ask("DELETE", "/api/learning/task")
        assert stopped.status_code == 200
        ended = wait_for_end(server)
        assert (ended["state"], ended["result"]) == ("stopped", None)
        assert "the same training goes on" in ended["message"]
        first = task(server)["done"]
        (model,) = learning(server)["models"]
        assert (model["unfinished"]["epochs"], model["unfinished"]["structures"]) == (200, ["cyst"])
        begin(server, "train", **{**asked, "epochs": 3})
        other = wait_for_end(server)
        assert other["state"] == "failed" and "was begun otherwise" in other["message"]
        begin(server, "train", **asked)
        wait_until(lambda: task(server)["phase"] == "learning" and task(server)["done"] > first, LONG)
        server.kill()  # as a power cut: the training stops, too, and keeps what it did
    wait_until(lambda: is_free(studies), LONG)
    with Server(studies) as server:
        begin(server, "train", **asked)
        wait_until(lambda: task(server)["phase"] == "learning", LONG)
        begun = task(server)["done"]
        assert begun > first  # where it was
        wait_until(lambda: task(server)["done"] > begun, LONG)
    wait_until(lambda: is_free(studies), LONG)
    log = (studies / MODELS / "tiny" / RUN / "log.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in log] == list(range(1, len(log) + 1))  # no step was done twice


@pytest.mark.parametrize("sign", [pytest.param(signal.SIGINT, marks=pytest.mark.heavy), signal.SIGTERM])
def test_what_the_system_tells_the_whole_service_loses_no_step(studies, sign):
    server = Server(studies)
    with server:
        begin(server, "train", model="tiny", epochs=200)
        wait_until(lambda: task(server)["phase"] == "learning" and task(server)["done"] > 1, LONG)
        children = psutil.Process(server.process.pid).children()
        for process in (*children, server.process):  # as systemd does, and nearly as a terminal
            process.send_signal(sign)
        server.process.wait(LONG)
        server.process.stdout.close()
    assert len(children) == 1 and is_free(studies)
    run = studies / MODELS / "tiny" / RUN
    assert torch.load(run / "state.pt")["step"] == len((run / "log.jsonl").read_text().splitlines())


def is_free(studies) -> bool:
    """Whether no training of the model goes on."""
    try:
        with ModelStore(studies / MODELS).held("tiny", "training"):
            return True
    except BusyError:
        return False


def test_only_an_admin_trains_publishes_and_takes_back(studies, tmp_path):
    tokens = tmp_path / "tokens"
    token = {name: add_token(tokens, name, role) for name, role in (("ada", "admin"), ("bob", "annotator"))}
    with Server(studies, "--token-file", str(tokens)) as server:
        wanted = {
            ("POST", "train"): {"model": "tiny"},
            ("POST", "publish"): {"model": "tiny", "version": 1},
            ("POST", "rollback"): {"model": "tiny"},
            ("POST", "discard"): {"model": "tiny"},
            ("DELETE", "task"): None,
        }
        for (method, what), body in wanted.items():
            reply = server.ask(method, f"/api/learning/{what}", token["bob"], json=body)
            assert reply.status_code == 403 and "bob is an annotator; this needs an admin." in reply.text
        seen = {name: server.ask("GET", "/api/learning", token[name]).json() for name in token}
        assert (seen["bob"]["task"], seen["bob"]["allowed"], seen["ada"]["allowed"]) == (None, False, True)
        assert ModelStore(studies / MODELS).published("tiny") == 1
        reply = server.ask("POST", "/api/learning/rollback", token["ada"], json={"model": "tiny"})
        assert reply.json() == {"published": None}


def test_what_cannot_be_trained_or_published_is_said_at_once(studies):
    wrong = [
        ("train", {"model": "--help"}, 422, "'--help' is no name for a model"),
        ("train", {"model": "../x"}, 422, "'../x' is no name for a model"),
        ("train", {"model": "tiny", "epochs": 0}, 422, "epochs: Input should be greater than or equal to 1"),
        ("publish", {"model": "tiny", "version": 7}, 404, "There is no version 7 of the model 'tiny'"),
        ("publish", {"model": "none", "version": 1}, 404, "No model 'none' was trained"),
        ("rollback", {"model": "none"}, 404, "There is no model 'none' here, but tiny."),
        ("discard", {"model": "none"}, 404, "There is no model 'none' here, but tiny."),
        ("train", {"model": "tiny", "base": "../x"}, 422, "'../x' is no name for a model"),
        ("train", {"model": "tiny", "structures": ["a\0b"]}, 422, "structures.0: String should match pattern"),
    ]
    with Server(studies) as server:
        for what, body, status, sentence in wrong:
            reply = server.ask("POST", f"/api/learning/{what}", json=body)
            assert reply.status_code == status and sentence in reply.json()["message"]
        assert task(server) is None
        assert not list((studies / MODELS).glob(".none*"))


def test_a_training_that_fails_says_why(studies):
    with Server(studies) as server:
        begin(server, "train", model="tiny", structures=["kidney"], base="network")
        ended = wait_for_end(server)
        assert ended["state"] == "failed" and ended["result"] is None
        assert "holds no submitted or approved label of kidney to learn from" in ended["message"]
        begin(server, "train", model="network")
        assert "'network' is a model that ships with aiassist" in wait_for_end(server)["message"]
        begin(server, "publish", model="tiny", version=1)
        assert wait_for_end(server)["message"] == "Version 1 of 'tiny' is published already."


def test_a_server_without_torch_says_what_it_lacks(studies, monkeypatch):
    known = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "torch" else known(name))
    training = Training(studies)
    assert training.missing() == ["torch"]
    with pytest.raises(ValueError, match="This server lacks torch, so it cannot train"):
        training.train("Ada", "tiny", Options())


def test_a_long_result_is_read_whole_and_a_path_is_told_to_nobody(tmp_path, monkeypatch):
    training = Training(tmp_path / "secret")
    monkeypatch.setattr("aiassist.server.training._PROGRAM", "print('{{\"a\": \"' + 'x' * 300000 + '\"}}') #{path}")
    done = training.publish("Ada", "tiny", 1)
    wait_until(lambda: done.state != "running")
    assert done.state == "done" and len(done.result["a"]) == 300000
    said = f"{tmp_path / 'secret'} is full"
    printing = json.dumps(json.dumps({"kept back": said, "now": [said]})).replace("{", "{{").replace("}", "}}")
    monkeypatch.setattr("aiassist.server.training._PROGRAM", f"print({printing}) #{{path}}")
    kept_back = training.publish("Ada", "tiny", 1)
    wait_until(lambda: kept_back.state != "running")
    told = "the studies folder is full"
    assert kept_back.to_json()["result"] == {"kept back": told, "now": [told]}
    monkeypatch.undo()
    failed = training.publish("Ada", "tiny", 1)
    wait_until(lambda: failed.state != "running")
    assert failed.state == "failed" and str(tmp_path) not in failed.message


def test_a_damaged_model_keeps_nobody_from_the_others(studies):
    models = studies / MODELS
    (models / "broken" / "1").mkdir(parents=True)
    (models / "broken" / "1" / "card.json").write_text("no card")
    (models / "learned-automatic" / RUN / "data").mkdir(parents=True)  # a training that broke off at its beginning
    with Server(studies) as server:
        told = {model["name"]: model for model in learning(server)["models"]}
        assert told["broken"]["message"] == "The files of 'broken' are damaged; the server's log says more."
        assert told["tiny"]["published"] == 1
        trainers = server.ask("GET", "/info/").json()["trainers"]
        assert set(trainers) == {"tiny", "learned", "learned-automatic"}
        assert "on its own" in trainers["learned-automatic"]["description"]
        other = server.ask("DELETE", "/train/tiny")
        assert other.status_code == 404
