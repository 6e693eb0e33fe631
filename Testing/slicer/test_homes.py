"""Where the models run: the process that the extension starts, a server, this Slicer; and what happens when they go."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import qt
import slicer
from engine_helpers import Whole, make_volume

from aiassist.engine import SegmentRequest
from aiassist.errors import AccessError, ConnectionLostError, UnknownStudyError
from aiassist.groundtruth import GroundTruthStore
from aiassist.resources import resource
from aiassist.segmenters.base import Step
from aiassist.segmenters.model_store import MODELS, ModelStore
from aiassist.segmenters.pieces import in_pieces
from AIAssistLib.child_qt import are_ending, wait_for_ends
from AIAssistLib.ground_truth import GroundTruth
from AIAssistLib.homes_qt import Server, ThisComputer
from AIAssistLib.launch import backend_command
from AIAssistLib.network_qt import NetworkCarrier
from AIAssistLib.process_qt import BackendProcess
from AIAssistLib.settings_qt import COMPUTER, SERVER, SLICER, Settings
from AIAssistLib.tags import MODEL, tag_of
from AIAssistLib.this_slicer import ThisSlicer
from helpers import add_segment, answered, click_ends, dice, mask_of, wait
from homes import NAMES


@pytest.fixture
def own(panel, tmp_path):
    """A process of the test's own in use; it may be killed."""
    home = ThisComputer(*backend_command(sys.executable, tmp_path / "none", tmp_path / "studies"))
    panel.logic.assistant.home = home
    yield home
    home.close()


def test_the_process_is_started_by_the_first_question_and_stopped_with_the_home(own, points, slice_views, case):
    assert not own.process.running
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    own.close()
    assert are_ending()  # nobody waited for it
    wait(lambda: not are_ending())


def test_a_process_that_does_not_end_is_killed_while_slicer_goes_on(application, monkeypatch):
    monkeypatch.setattr("AIAssistLib.child_qt.PATIENCE", 200)
    deaf = "import signal, sys, time; print('up', flush=True); time.sleep(60)"
    process = BackendProcess(sys.executable, ["-c", deaf], print, print)
    process.start()
    held = process._process
    assert held.waitForReadyRead(10000)
    process.stop()
    assert are_ending() and not process.running
    wait(lambda: not are_ending())
    assert held.exitStatus() == qt.QProcess.CrashExit


def test_slicers_own_end_waits_for_the_process(application):
    process = BackendProcess(sys.executable, ["-c", "import sys; sys.stdin.read()"], print, print)
    process.start()
    held = process._process
    assert held.waitForStarted(10000)
    process.stop()
    wait_for_ends()
    assert held.state() == qt.QProcess.NotRunning and held.exitCode() == 0


def test_what_this_slicer_saves_is_written_by_the_process(module, homes, case, monkeypatch):
    monkeypatch.setattr(GroundTruthStore, "__init__", None)  # in this process nobody opens the store
    homes.use(module.logic.assistant, "slicer")
    add_segment(case, "spleen of this Slicer", case.mask("spleen"))
    said = []
    truth = GroundTruth(module.logic.assistant)
    module.logic.assistant.start(truth.save(case.node, case.segmentation), said.append, said.append)
    wait(lambda: said)
    assert said[0].numbers == {"spleen of this Slicer": 1}
    newest = homes.get("slicer").finish(truth.history(case.node))[0]
    assert (newest["structure"], newest["author"]) == ("spleen of this Slicer", "Ann")


def test_a_process_that_cannot_start_is_said_in_one_sentence_and_marks_stay(panel, points, slice_views, case):
    panel.logic.assistant.home = ThisComputer("/nowhere/PythonSlicer", ["-c", ""])
    click_ends(slice_views, case.ends("spleen"))
    wait(lambda: points.session.failed)
    assert points.ui.statusLabel.text.startswith("The backend on this computer could not be started:")
    assert points.session.marks.roles() == ["extreme"] * 6


def test_a_process_that_dies_at_once_is_not_started_for_ever(panel, points, slice_views, case):
    home = panel.logic.assistant.home = ThisComputer(sys.executable, ["-c", "import sys; sys.exit('no such model')"])
    click_ends(slice_views, case.ends("spleen"))
    wait(lambda: points.session.failed)
    assert points.ui.statusLabel.text == "The backend on this computer stopped: no such model"
    assert not home.process.running


def test_a_server_that_is_not_there_is_said_in_one_sentence_and_marks_stay(panel, points, slice_views, case):
    panel.logic.assistant.home = Server("http://127.0.0.1:9")
    click_ends(slice_views, case.ends("spleen"))
    wait(lambda: points.session.failed)
    assert "http://127.0.0.1:9 does not answer" in points.ui.statusLabel.text
    assert points.session.marks.roles() == ["extreme"] * 6


def test_a_wrong_token_is_said_in_one_sentence(panel, homes, points, slice_views, case):
    panel.logic.assistant.home = Server(homes.get("server").carrier.url, "wrong")
    click_ends(slice_views, case.ends("spleen"))
    wait(lambda: points.session.failed)
    assert "token" in points.ui.statusLabel.text


def test_a_token_never_travels_unencrypted():
    with pytest.raises(AccessError, match="is not encrypted"):
        NetworkCarrier("http://server.example:8000", "secret")
    with pytest.raises(ConnectionLostError, match="is no address of a server"):
        NetworkCarrier("ftp://server", None)


def test_before_images_go_to_a_server_the_person_is_asked_once(module, homes, monkeypatch):
    asked = []
    answers = [False, True]

    def confirm(question, **_):
        asked.append(question)
        return answers[len(asked) - 1]

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", confirm)
    server, panel = homes.get("server"), module.panel
    panel.ui.urlEdit.setText(server.carrier.url)
    panel.ui.tokenEdit.setText(server._token)
    panel.ui.connectButton.click()
    assert module.logic.settings.where == COMPUTER
    assert "Nothing was sent" in panel.ui.backendStatusLabel.text
    panel.ui.connectButton.click()
    assert module.logic.settings.where == SERVER
    panel.ui.connectButton.click()
    assert len(asked) == 2
    assert server.carrier.url in asked[0]
    wait(lambda: module.logic.assistant.cards)
    assert module.logic.assistant.home.name == server.carrier.url
    assert panel.ui.modelCombo.currentText == "network-fine"
    module.logic.settings.where = COMPUTER


def test_the_token_is_in_no_scene_and_no_log(module, homes, points, slice_views, case, tmp_path, caplog):
    homes.use(module.logic.assistant, "server")
    with caplog.at_level("DEBUG"):
        click_ends(slice_views, case.ends("spleen"))
        answered(points)
        points.ui.acceptButton.click()
    token = homes.get("server")._token
    assert len(token) > 20
    assert slicer.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(tmp_path), None)
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or token.encode() not in path.read_bytes()
    assert token not in caplog.text
    assert token not in slicer.mrmlScene.GetURL()


@pytest.mark.parametrize("has_gpu", [True, False, None])
def test_this_slicer_uses_the_gpu_that_slicer_can_use(application, monkeypatch, has_gpu):
    torch = None if has_gpu is None else SimpleNamespace(cuda=SimpleNamespace(is_available=lambda: has_gpu))
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "onnx", SimpleNamespace())
    monkeypatch.setattr("aiassist.engine.local.LocalBackend", lambda **said: SimpleNamespace(**said))
    home = Settings().home(SLICER)
    assert home.backend.device == ("cuda" if has_gpu else "cpu")
    assert home.backend.models == Settings().studies / MODELS
    assert "--warm-up" not in home._computer.process._arguments
    assert "--warm-up" in Settings().home(COMPUTER).process._arguments


def test_a_home_that_cannot_be_used_now_stays_remembered(module, monkeypatch):
    Settings().where = SLICER
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    logic = type(module.logic)()
    try:
        assert isinstance(logic.assistant.home, ThisComputer)
        assert (logic.settings.where, Settings().where) == (COMPUTER, SLICER)
        why = "This Slicer lacks onnxruntime; press Install in the module AI Assist first"
        assert logic.assistant.status == f"This computer ({why})"
        logic.move(COMPUTER)  # Restart: it is tried again, and still cannot be used
        assert why in logic.assistant.status and Settings().where == SLICER
        monkeypatch.undo()
        logic.move(COMPUTER)
        assert (logic.assistant.status, logic.settings.where) == ("This Slicer", SLICER)
        logic.move(COMPUTER)
        assert (logic.assistant.status, Settings().where) == ("This computer", COMPUTER)
    finally:
        logic.close()
        Settings().where = COMPUTER


def test_settings_are_remembered(application):
    settings = Settings()
    settings.url = " https://gpu.example:8000 "
    settings.set_token(settings.url, " abc ", remember=True)
    assert Settings().url == "https://gpu.example:8000"
    assert Settings().token("https://gpu.example:8000") == "abc"
    assert Settings().token("https://other.example") == ""
    assert not Settings().allowed("https://gpu.example:8000")
    qt.QSettings().setValue("AIAssist/where", "the moon")
    assert Settings().where == COMPUTER


def test_a_token_is_written_down_only_when_the_person_ticks_the_box(module, homes, monkeypatch):
    settings, ui, server = module.logic.settings, module.panel.ui, homes.get("server")
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda question, **_: True)
    file = Path(qt.QSettings().fileName())
    ui.urlEdit.setText(server.carrier.url)
    ui.tokenEdit.setText(server._token)
    assert "plain text" in ui.rememberCheck.text
    for remember in (False, True, False):
        ui.rememberCheck.setChecked(remember)
        ui.connectButton.click()
        wait(lambda: module.logic.assistant.cards)  # it works either way
        qt.QSettings().sync()
        assert (server._token in file.read_text()) is remember is settings.remembers(server.carrier.url)
        assert settings.token(server.carrier.url) == server._token
    assert Settings().token(server.carrier.url) == ""  # as in the next session, which asks
    monkeypatch.setattr(module.logic, "settings", Settings())
    module.exit()
    module.enter()
    assert ui.backendStatusLabel.text == f"Enter your token for {server.carrier.url}, then press Connect."
    Settings().where = COMPUTER


def test_a_token_goes_to_its_own_server_only(module, monkeypatch):
    settings, ui = module.logic.settings, module.panel.ui
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda question, **_: True)
    monkeypatch.setattr(module.panel.backend, "look", lambda: None)
    connect(ui, "https://a.example", "secret of a")
    connect(ui, "https://b.example")
    home = module.logic.assistant.home
    assert (home.name, home._token, settings.token("https://b.example")) == ("https://b.example", None, "")
    connect(ui, "https://A.example/")
    assert module.logic.assistant.home._token == "secret of a"
    connect(ui, "http://b.example", "secret")  # its token could be read on the way
    assert "use https" in ui.backendStatusLabel.text
    assert (module.logic.assistant.home.name, settings.url) == ("https://A.example", "https://A.example/")
    connect(ui, " ")
    assert settings.url == "https://A.example/" and "Enter the server's address" in ui.backendStatusLabel.text
    settings.where = COMPUTER


def connect(ui, url: str, token: str | None = None) -> None:
    """Type an address, and perhaps a token, and press Connect."""
    ui.urlEdit.selectAll()
    ui.urlEdit.insert(url)
    if token is not None:
        ui.tokenEdit.setText(token)
    ui.connectButton.click()


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("https://h/a", "https://h_a", False),
        ("https://h/a", "https://h/a/", True),
        ("https://h", "HTTPS://H ", True),
        ("h:80", "http://h:80", True),
        ("http://h", "https://h", False),
        ("http://[", "http://", False),
    ],
)
def test_tokens_and_consent_belong_to_an_address_however_it_is_written(application, one, other, same):
    settings = Settings()
    settings.set_token(one, "secret", remember=True)
    settings.allow(one)
    assert (settings.token(other), settings.remembers(other), settings.allowed(other)) == (
        ("secret", True, True) if same else ("", False, False)
    )
    qt.QSettings().remove("AIAssist")


def test_volumes_go_from_memory_also_where_the_panel_was_never_opened(module, case):
    logic = module.logic
    study = logic.assistant.studies.of(case.node).study_id
    clone = slicer.util.addVolumeFromArray(case.volume.voxels, name="clone")
    clone.CopyOrientation(case.node)
    assert logic.assistant.studies.of(clone).study_id == study
    slicer.mrmlScene.RemoveNode(clone)
    assert logic.assistant.studies.holds(study)
    slicer.util.arrayFromVolume(case.node)[:] += 1
    slicer.util.arrayFromVolumeModified(case.node)
    assert logic.assistant.studies.of(case.node).study_id != study
    assert not logic.assistant.studies.holds(study)
    slicer.mrmlScene.RemoveNode(case.node)
    assert logic.assistant.studies._known == {}


@pytest.mark.parametrize("where", ["computer", "slicer"])
@pytest.mark.parametrize("during", ["hashing", "sending"])
def test_an_image_that_goes_while_its_labels_are_saved_is_in_memory_no_longer(panel, own, homes, case, where, during):
    assistant = panel.logic.assistant
    assistant.home = own if where == "computer" else ThisSlicer(own, models=homes.folder / "slicer" / MODELS)
    add_segment(case, "spleen", case.mask("spleen"))
    volume = assistant.studies.of(case.node)
    panel.ui.saveLabel.setText("")
    panel.ui.saveButton.click()
    if during == "sending":
        wait(lambda: "study_id" in vars(volume))
    assert ("study_id" in vars(volume)) == (during == "sending")
    assert own.carrier.network is None  # what is sent waits for the process
    slicer.mrmlScene.Clear(0)
    wait(lambda: panel.ui.saveButton.enabled)
    assert panel.ui.saveLabel.text.startswith("Saved: spleen (version 1)")
    assert not own.conversations.knows(volume.study_id)


def test_an_image_that_goes_while_it_is_prepared_is_in_memory_no_longer(module, homes, case):
    assistant, home = module.logic.assistant, homes.get("slicer")
    homes.use(assistant, "slicer")
    volume = assistant.studies.of(case.node)
    talk = assistant.prepare(case.node)
    assert talk.active and "study_id" not in vars(volume)
    slicer.mrmlScene.RemoveNode(case.node)
    wait(lambda: not talk.active)
    assert not home.conversations.knows(volume.study_id)
    with pytest.raises(UnknownStudyError):
        home.backend.studies.geometry(volume.study_id)


def test_what_is_cancelled_in_this_slicer_is_over_at_once(own):
    class Looping(Whole):
        def segment(self, volume):
            """Work in a thread of its own, as a bundle's."""
            yield Step("pass", 0.0)
            for _ in in_pieces(lambda pause: [pause() for _n in range(10)]):
                yield Step("pass", 0.5)

    home, threads = ThisSlicer(own), set(threading.enumerate())
    home.backend.registry.add("whole", Looping)
    study = home.backend.open_study(make_volume())
    talk = home.conversations.segment(SegmentRequest(study, "whole"), "job")
    while set(threading.enumerate()) == threads:
        next(talk)
    next(talk)
    talk.close()
    assert set(threading.enumerate()) == threads and home.backend.worker._queue == []


def test_a_module_that_is_loaded_again_has_a_backend_of_its_own(module):
    """The first one's was stopped for good."""
    again = object.__new__(sys.modules["AIAssist"].AIAssist)
    again._logic = None
    first = again.logic
    again.forget_logic()
    assert again.logic is not first and again.logic.assistant.home is not first.assistant.home
    again.forget_logic()
    assert slicer.modules.AIAssistInstance.logic is module.logic


def test_the_extension_starts_no_python_threads(points, slice_views, case):
    before = set(threading.enumerate())
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    assert set(threading.enumerate()) <= before


def test_an_upload_goes_in_pieces_and_shows_its_progress(panel, own, points, slice_views, case):
    said = []
    tell = points.tell
    points.tell = lambda text, failed=False: (said.append(text), tell(text, failed))
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    assert any(text.startswith("Sending the image: ") for text in said)


def test_the_image_is_sent_to_this_computer_while_the_person_looks_for_the_organ(panel, own, points, case):
    points.ui.resetButton.click()  # as choosing a segment does, begins anew
    study = panel.logic.assistant.studies.of(case.node)
    wait(lambda: "study_id" in study.__dict__ and own.conversations.knows(study.study_id))
    assert points.session.text == "" and not points.session.busy


def test_a_click_while_the_image_is_on_its_way_goes_on_with_it(panel, own, points, slice_views, case):
    points.ui.resetButton.click()
    wait(lambda: own.carrier.network is not None)  # now it is being sent
    assert not own.conversations.knows(panel.logic.assistant.studies.of(case.node).study_id)
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    assert dice(points.session.preview.mask.to_mask(case.labels.shape), case.mask("spleen")) > 0.85


def test_nothing_is_sent_to_a_server_before_something_is_asked(panel, homes, points, slice_views, case):
    homes.use(panel.logic.assistant, "server")
    server = homes.get("server")
    case.node.GetImageData().Modified()
    points.ui.resetButton.click()
    study = panel.logic.assistant.studies.of(case.node)
    assert panel.logic.assistant.prepare(case.node) is None
    assert "study_id" not in study.__dict__
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    assert server.conversations.knows(study.study_id)


def test_the_console_works_without_a_window_and_waits(application, module, case, homes):
    window, application.window = application.window, None
    try:
        logic = slicer.util.getModuleLogic("AIAssist")
        segment = logic.annotate(case.node, case.ends("spleen"), case.segmentation, name="spleen")
        made = case.segmentation.GetSegmentation().GetSegment(segment)
        assert tag_of(made, MODEL).startswith("network-fine ")  # as by clicks, though no panel asked for the models
        assert dice(mask_of(case, segment), case.mask("spleen")) > 0.85
        assert case.segmentation.GetSegmentation().GetSegment(segment).GetName() == "spleen"
        before = case.segmentation.GetSegmentation().GetNumberOfSegments()
        with pytest.raises(ValueError, match="lies outside the volume"):
            logic.annotate(case.node, case.ends("spleen") + 1000, case.segmentation, name="x")
        assert case.segmentation.GetSegmentation().GetNumberOfSegments() == before
        markups = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
        slicer.util.updateMarkupsControlPointsFromArray(markups, case.ends("gallbladder"))
        segment = logic.annotate(case.node, markups, name="gallbladder")
        made = slicer.util.getNodesByClass("vtkMRMLSegmentationNode")[-1]
        assert made.GetName() == "torso segmentation"
        assert made.GetSegmentation().GetSegment(segment).GetName() == "gallbladder"
    finally:
        application.window = window


def test_the_console_starts_the_process_itself(own, module, case):
    began = time.perf_counter()
    segment = module.logic.annotate(case.node, case.ends("spleen"), case.segmentation, name="spleen")
    assert mask_of(case, segment).any()
    assert own.process.running
    assert time.perf_counter() - began < 60


def test_of_two_questions_for_the_models_only_the_later_is_answered(panel, homes):
    assistant, heard = panel.logic.assistant, []
    homes.use(assistant, "server")
    first = assistant.look(lambda: heard.append("first"), heard.append)
    assistant.look(lambda: heard.append("second"), heard.append)
    assert not first.active
    wait(lambda: heard)
    assert heard == ["second"] and assistant.cards


@pytest.fixture
def trained(homes):
    """Publishes the network that ships as a model that was trained in a home's studies folder."""
    stores = []

    def publish(home: str) -> ModelStore:
        models = ModelStore(homes.folder / home / MODELS)
        with models.new_version("kidneys") as (folder, number):
            shutil.copytree(resource("Models", "network"), folder, dirs_exist_ok=True)
            card = json.loads((folder / "card.json").read_text()) | {"name": "kidneys", "version": str(number)}
            (folder / "card.json").write_text(json.dumps(card))
        models.publish("kidneys", number, "Ann")
        stores.append(models)
        return models

    yield publish
    for models in stores:
        shutil.rmtree(models.folder)


@pytest.mark.parametrize("home", NAMES)
def test_a_model_that_was_trained_and_published_there_can_be_chosen(
    home, panel, points, homes, trained, slice_views, case
):
    homes.use(panel.logic.assistant, home)
    models, ui = trained(home), panel.ui
    panel.backend.look()
    wait(lambda: ui.modelCombo.findText("kidneys") >= 0)
    ui.modelCombo.setCurrentIndex(ui.modelCombo.findText("kidneys"))
    click_ends(slice_views, case.ends("liver"))
    answered(points)
    assert "kidneys 1 on cpu" in panel.logic.assistant.status
    points.ui.acceptButton.click()
    assert dice(mask_of(case, case.liver), case.mask("liver")) > 0.85
    models.rollback("kidneys", "Ann")
    panel.backend.look()
    wait(lambda: ui.modelCombo.findText("kidneys") < 0)
