"""Models learn from the saved labels, in the panel."""

from __future__ import annotations

import json

import pytest
import slicer
from learning_helpers import add_tiny_version, store_of_ellipsoids

from aiassist.client import learning as asking
from aiassist.errors import ConnectionLostError
from aiassist.segmenters.model_store import MODELS, RUN, ModelStore
from helpers import wait
from homes import Homes

LONG = 240


@pytest.fixture(scope="module")
def taught(application, tmp_path_factory):
    """Homes whose computer has six labelled scans, and a published network that has learned next to nothing."""
    folder = tmp_path_factory.mktemp("taught")
    store_of_ellipsoids(folder / "computer", 6).close()
    models = ModelStore(folder / "computer" / MODELS)
    add_tiny_version(models, "tiny")
    models.publish("tiny", add_tiny_version(models, "tiny", seed=1), "Ada")
    homes = Homes(folder)
    yield homes
    homes.close()


@pytest.fixture
def learn(module, taught):
    """The section, open, over those homes."""
    taught.use(module.logic.assistant, "computer")
    module.panel.learn.home_changed()
    module.panel.backend.look()
    wait(lambda: "tiny" in [card.name for card in module.logic.assistant.cards] or is_taken_back(taught))
    module.panel.ui.learnSection.collapsed = False
    section = module.panel.learn
    wait(lambda: section.learning.known is not None)
    section.ui.learnModelCombo.setEditText("tiny")
    yield section
    module.panel.ui.learnSection.collapsed = True
    section.learning.leave()


def is_taken_back(taught) -> bool:
    """Whether a test has taken back what was published."""
    return ModelStore(taught.folder / "computer" / MODELS).published("tiny") is None


def rows(section) -> list[list[str]]:
    table = section.ui.learnTable
    return [[table.item(row, column).text() for column in range(6)] for row in range(table.rowCount)]


def test_it_says_what_there_is_to_learn_from_and_what_was_learned(learn):
    ui = learn.ui
    assert ui.learnLabelsLabel.text == "6 labels of 6 images to learn from: cyst 6"
    assert ui.learnModelCombo.currentText == "tiny"
    assert not ui.learnKindCombo.enabled and ui.learnKindCombo.currentIndex == 0  # what it is, it stays
    assert [ui.learnStructureCombo.itemText(n) for n in range(2)] == ["All structures", "cyst"]
    assert rows(learn) == [
        ["tiny", "2", "", "", "", "in use"],
        ["tiny", "1", "", "", "", ""],
    ]
    assert ui.learnButton.enabled and ui.learnButton.text == "Learn" and not ui.learnStopButton.enabled
    ui.learnModelCombo.setEditText("cysts")
    assert ui.learnKindCombo.enabled


def test_a_training_is_seen_stopped_goes_on_and_is_discarded(learn, taught, monkeypatch):
    ui, learning = learn.ui, learn.learning
    ui.learnStructureCombo.setCurrentIndex(1)
    ui.learnEpochsSpinBox.setValue(200)
    ui.learnButton.click()
    wait(lambda: learning.running)
    assert not ui.learnButton.enabled and not ui.learnProgress.isHidden()
    wait(lambda: learning.task["phase"] == "learning" and learning.task["done"] > 1, LONG)
    assert ui.learnLabel.text.startswith("tiny: learning: loss ") and ui.learnLabel.text.endswith("%)")
    assert ui.learnProgress.value == round(100 * learning.task["done"] / learning.task["total"])
    ui.learnStopButton.click()
    wait(lambda: ui.learnButton.text == "Go on learning", LONG)
    assert ui.learnLabel.text == "tiny: It was stopped and saved; asked for again, the same training goes on."
    done = learning.task["done"]
    run = taught.folder / "computer" / MODELS / "tiny" / RUN
    assert len((run / "log.jsonl").read_text().splitlines()) >= done > 0
    assert not ui.learnEpochsSpinBox.enabled and ui.learnEpochsSpinBox.value == 200  # what it was asked, it is asked
    assert not ui.learnStructureCombo.enabled and ui.learnStructureCombo.currentText == "cyst"
    ui.learnButton.click()
    wait(lambda: learning.running and learning.task["phase"] == "learning" and learning.task["done"] > done, LONG)
    assert learn.is_learning_here
    ui.learnStopButton.click()
    wait(lambda: not learning.running, LONG)
    steps = [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, len(steps) + 1))  # none was done twice
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: True)
    wait(lambda: not ui.learnDiscardButton.isHidden())
    ui.learnDiscardButton.click()
    wait(lambda: ui.learnButton.text == "Learn")
    assert not run.exists() and ui.learnEpochsSpinBox.enabled


def test_a_version_is_used_only_if_it_is_better_and_taken_back(learn, module, monkeypatch):
    ui, asked = learn.ui, []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or True)
    combo = module.panel.ui.modelCombo
    combo.setCurrentIndex(combo.findText("tiny"))
    assert module.logic.assistant.model == "tiny"
    assert not ui.publishButton.enabled and not ui.learnTakeBackButton.enabled  # none is chosen
    ui.learnTable.selectRow(1)
    assert ui.publishButton.enabled and not ui.learnTakeBackButton.enabled
    ui.publishButton.click()
    wait(lambda: learn.learning.failed, LONG)
    assert "does not say what it learned from" in ui.learnLabel.text
    ui.learnTable.selectRow(0)
    assert not ui.publishButton.enabled and ui.learnTakeBackButton.enabled
    ui.learnTakeBackButton.click()
    wait(lambda: rows(learn)[0][5] == "")
    assert asked == ["Use what was used before version 2 of tiny was published? Everybody here will."]
    assert ui.learnLabel.text == "No version of tiny is offered any more."
    wait(lambda: "tiny" not in [card.name for card in module.logic.assistant.cards])
    wait(lambda: module.logic.assistant.model == "network-fine")  # and no click asks for what is gone
    assert module.panel.ui.modelCombo.currentText == "network-fine"


def test_what_came_of_a_training_is_said(learn, monkeypatch):
    result = {"model": "liver", "version": 3, "before": {"a": 0.8, "b": 0.7}, "now": {"a": 0.85, "b": 0.75}}
    ends = {
        "liver version 3 is used from now on: mean Dice 0.800, before 0.750.": {"better": True, "published": True},
        "liver version 3 is better: mean Dice 0.800, before 0.750. Choose it below to use it.": {
            "better": True,
            "published": False,
        },
        "liver version 3 is there; all labels that were to judge it were removed meanwhile.": {
            "version": 3,
            "published": False,
            "better": False,
            "now": {},
            "before": {},
        },
        "liver version 3 is not clearly better, so what is used stays as it is: mean Dice 0.800, before 0.750.": {
            "better": False,
            "published": False,
        },
    }
    for sentence, more in ends.items():
        learn.learning.text = ""
        task = {"id": "1", "model": "liver", "state": "done", "result": {**result, **more}, "message": ""}
        learn.learning._note(task)
        assert learn.ui.learnLabel.text == sentence


def test_a_name_is_needed_and_a_wrong_one_is_said(learn):
    learn.ui.learnModelCombo.setEditText(" ")
    learn.ui.learnButton.click()
    assert learn.ui.learnLabel.text == "Give the model a name first, such as the structure's."
    learn.ui.learnModelCombo.setEditText("a liver")
    learn.ui.learnButton.click()
    wait(lambda: "'a liver' is no name for a model" in learn.ui.learnLabel.text)


def test_what_is_missing_is_said_with_what_to_do(learn, monkeypatch):
    known = learn.learning.known
    home = learn.assistant.home
    learn.learning.known = {**known, "missing": ["torch", "onnx"]}
    learn.learning._say("tiny version 2 is used from now on.")
    assert "get the extension PyTorch from the Extensions manager" in learn.ui.learnLabelsLabel.text
    assert learn.ui.learnLabel.text == "tiny version 2 is used from now on."  # which needs no PyTorch
    assert learn.ui.learnInstallButton.isHidden() and not learn.ui.learnButton.enabled
    learn.learning.known = {**known, "missing": ["onnx"]}
    learn._changed()
    assert "Learning needs onnx, about 10 MB" in learn.ui.learnLabelsLabel.text
    assert not learn.ui.learnInstallButton.isHidden()
    monkeypatch.setattr(home, "near", False, raising=False)
    learn._changed()
    assert "This server lacks onnx" in learn.ui.learnLabelsLabel.text
    assert learn.ui.learnInstallButton.isHidden()


def test_an_annotator_sees_what_was_learned_and_changes_nothing(learn):
    learn.ui.learnTable.setCurrentCell(0, 0)
    assert learn.ui.learnButton.enabled and (learn.ui.publishButton.enabled or learn.ui.learnTakeBackButton.enabled)
    learn.learning.known = {**learn.learning.known, "allowed": False}
    learn._changed()
    ui = learn.ui
    assert "You are an annotator on this server" in ui.learnLabelsLabel.text
    assert rows(learn) and not any(
        button.enabled for button in (ui.learnButton, ui.learnStopButton, ui.publishButton, ui.learnTakeBackButton)
    )


def test_versions_show_the_mean_of_all_courses(learn):
    metrics = {"labels": 4, "dice, six points": 0.8, "dice, points moved": 0.7}
    metrics |= {"before, dice, six points": 0.6, "before, dice, points moved": 0.5, "steps": 60}
    model = {"name": "liver", "versions": [{"version": "1", "metrics": metrics}], "published": 1}
    learn.learning.known = {**learn.learning.known, "models": [model]}
    learn._changed()
    assert rows(learn) == [["liver", "1", "4", "0.550", "0.750", "in use"]]


def test_the_chosen_version_stays_the_chosen_one_when_others_come(learn):
    versions = [{"version": str(number), "metrics": {}} for number in (1, 2)]
    model = {"name": "liver", "kind": "promptable", "versions": versions, "published": 1, "unfinished": None}
    learn.learning.known = {**learn.learning.known, "models": [model]}
    learn._changed()
    learn.ui.learnTable.setCurrentCell(0, 0)
    assert learn._chosen().number == 2
    versions.append({"version": "3", "metrics": {}})
    learn._changed()
    assert [row[1] for row in rows(learn)] == ["3", "2", "1"]
    assert learn._chosen().number == 2 and learn.ui.learnTable.currentRow() == 1


def test_a_backend_that_was_restarted_is_noticed_and_an_old_error_goes(learn):
    task = {"id": "1", "what": "train", "model": "tiny", "state": "running", "done": 3, "total": 9, "text": ""}
    task["phase"] = "learning"
    learn.learning._note({**task, "message": "", "result": None})
    assert learn.learning.running
    learn.learning._note(None)
    assert learn.ui.learnLabel.text == "tiny: the backend was restarted; what was trained is kept."
    learn.learning._fail(ConnectionLostError("The server does not answer."))
    assert learn.ui.learnLabel.text == "The server does not answer."
    learn.look()
    wait(lambda: learn.ui.learnLabel.text != "The server does not answer.")


def test_nobody_stops_a_training_by_the_way(learn, module, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) and False)
    task = {"id": "1", "what": "train", "model": "tiny", "state": "running", "done": 3, "total": 9}
    learn.learning.task = task
    home = module.logic.assistant.home
    module.panel.backend.restart()
    module.panel.ui.whereCombo.setCurrentIndex(2)
    assert module.logic.assistant.home is home and module.panel.ui.whereCombo.currentIndex == 0
    assert len(asked) == 2 and "A model learns on this computer" in asked[0]
    learn.learning.task = {**task, "what": "pull"}
    module.panel.backend.restart()
    assert module.logic.assistant.home is home and "A model is being fetched" in asked[2]
    learn.learning.task = None


def test_this_slicer_asks_the_process_that_keeps_the_labels(learn, taught, module):
    taught.use(module.logic.assistant, "slicer")
    learn.home_changed()
    module.panel.backend.look()
    wait(lambda: learn.learning.known is not None)
    assert learn.ui.learnLabelsLabel.text.startswith("There is no label to learn from yet")
    assert not learn.ui.learnButton.enabled
    assert module.logic.assistant.home.finish(asking.task()) is None
