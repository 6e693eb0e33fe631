"""Models of MONAI's zoo are fetched by a button, here from a hub of our own on this computer."""

from __future__ import annotations

import subprocess
import sys

import hub_helpers
import pytest
import slicer

from AIAssistLib.packages import Packages
from helpers import wait
from homes import Homes
from test_packages import wheel

MODEL = "tissues-by-grey-level"


@pytest.fixture(scope="module")
def away(application, tmp_path_factory):
    """Homes whose processes ask that hub, a process of its own: threads of this one starve."""
    folder = tmp_path_factory.mktemp("zoo")
    command = [sys.executable, hub_helpers.__file__, str(hub_helpers.make_tissues(folder / "tissues"))]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with pytest.MonkeyPatch.context() as patch, subprocess.Popen(command, **pipes, encoding="utf8") as hub:
        patch.setenv("HF_ENDPOINT", hub.stdout.readline().strip())
        patch.setenv("HF_HOME", str(folder / "hub"))
        homes = Homes(folder)
        yield homes
        homes.close()
        hub.stdin.close()


@pytest.fixture
def learn(module, away):
    """The section Models, open."""
    away.use(module.logic.assistant, "computer")
    module.panel.learn.home_changed()
    module.panel.backend.look()
    section = module.panel.learn
    module.panel.ui.learnSection.collapsed = False
    wait(lambda: section.learning.known is not None)
    yield section
    module.panel.ui.learnSection.collapsed = True
    section.learning.leave()


def get(learn, name: str) -> None:
    learn.ui.zooCombo.setEditText(name)
    wait(lambda: learn.ui.zooButton.enabled)
    learn.ui.zooButton.click()


def offered(module) -> list[str]:
    combo = module.panel.ui.autoCombo
    return [combo.itemText(n) for n in range(combo.count)]


def test_a_model_is_fetched_runs_and_is_taken_back(learn, module, case, monkeypatch):
    ui = learn.ui
    assert ui.zooCombo.itemText(0) == "spleen_ct_segmentation"
    get(learn, "tissues")
    wait(lambda: learn.learning.running)
    assert not ui.zooButton.enabled and ui.learnStopButton.enabled
    wait(lambda: f"{MODEL}: fat, muscle" in offered(module), 60)
    said = f"{MODEL} version 1 is used from now on; it finds fat, muscle. Licence: Apache-2.0."
    assert ui.learnLabel.text == said
    table = ui.learnTable
    wait(lambda: table.rowCount == 1)
    assert [table.item(0, column).text() for column in range(6)] == [MODEL, "1", "", "", "", "in use"]

    module.panel.editor.setSourceVolumeNode(case.node)
    ui.autoCombo.setCurrentIndex(offered(module).index(f"{MODEL}: fat, muscle"))
    ui.autoRunButton.click()
    wait(lambda: ui.autoLabel.text == "Found fat, muscle", 60)

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: True)
    table.selectRow(0)
    ui.learnTakeBackButton.click()
    wait(lambda: f"{MODEL}: fat, muscle" not in offered(module))


def test_what_the_zoo_has_not_is_said(learn):
    get(learn, "lungs")
    wait(lambda: "has no bundle 'lungs'" in learn.ui.learnLabel.text, 60)
    get(learn, " ")
    assert learn.ui.learnLabel.text.startswith("Name a model of MONAI's model zoo first")
    get(learn, "../lungs")
    wait(lambda: "'../lungs' is no name of a bundle" in learn.ui.learnLabel.text)


def test_what_it_needs_is_installed_after_a_question_then_it_is_fetched(learn, module, tmp_path, monkeypatch):
    answers, asked = [False, True], []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or answers.pop(0))
    wheel(tmp_path, "aiassist_zoo_probe")
    (tmp_path / "requirements.txt").write_text("aiassist_zoo_probe==1.0\n")
    packages = Packages(tmp_path / "packages-5.12-bundles", tmp_path / "requirements.txt")
    monkeypatch.setattr(module.logic, "bundle_packages", packages)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    known = learn.learning.known
    learn.learning.known = {**known, "missing_for_bundles": ["monai", "einops"]}
    get(learn, "tissues")
    assert asked[0].startswith("Models of MONAI's zoo need monai, einops: about 10 MB")
    assert not packages.folder.exists() and not learn.learning.running
    get(learn, "tissues")
    wait(lambda: learn.learning.running, 60)
    assert len(asked) == 2 and packages.missing() == []
    wait(lambda: not learn.learning.running, 60)
    assert f"{MODEL} version 2 is used from now on" in learn.ui.learnLabel.text


def test_what_nobody_can_install_here_is_said(learn, monkeypatch):
    known = learn.learning.known
    learn.learning.known = {**known, "missing_for_bundles": ["torch", "monai"]}
    get(learn, "tissues")
    assert "get the extension PyTorch from the Extensions manager" in learn.ui.learnLabel.text
    monkeypatch.setattr(learn.assistant.home, "near", False, raising=False)
    get(learn, "tissues")
    assert learn.ui.learnLabel.text == "This server lacks torch, monai, which such models need; ask its administrator."
    learn.learning.known = {name: value for name, value in known.items() if name != "missing_for_bundles"}
    get(learn, "tissues")
    assert "does not say whether it can fetch models" in learn.ui.learnLabel.text
    learn.learning.known = {**known, "allowed": False}
    learn._changed()
    assert not learn.ui.zooButton.enabled
