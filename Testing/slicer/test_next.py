"""The next image, of the studies that the backend keeps or of a folder; and what becomes of the one before."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import qt
import slicer
import vtk
from server_helpers import Server as RunningServer

from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import Geometry, MaskPatch, Volume, read_volume
from aiassist.server.tokens import add_token
from AIAssistLib.console import new_segmentation
from AIAssistLib.geometry import study_of
from AIAssistLib.homes_qt import Server
from AIAssistLib.server_worklist import Study, to_do_after
from helpers import CASE, Case, add_segment, answered, click_ends, dice, mask_of, wait
from homes import NAMES, Homes

OBLIQUE = np.array([[2.4, -1.92, 0, 11.5], [1.8, 2.56, 0, -7], [0, 0, -3, 3], [0, 0, 0, 1]])
KINDS = ("vtkMRMLVolumeNode", "vtkMRMLSegmentationNode", "vtkMRMLDisplayNode", "vtkMRMLStorageNode")


def count_nodes() -> dict[str, int]:
    """How many nodes there are that an image brings."""
    return {kind: slicer.mrmlScene.GetNumberOfNodesByClass(kind) for kind in KINDS}


@pytest.fixture(scope="module")
def three_studies(tmp_path_factory):
    """A studies folder with "oblique" and "torso" to do, and between them "finished"; and their ids."""
    torso = read_volume(CASE / "image.nii.gz")
    oblique = Volume(torso.voxels[:40].astype(np.float32), Geometry((40, *torso.shape[1:]), OBLIQUE))
    other = Volume(torso.voxels[:10], Geometry((10, *torso.shape[1:]), torso.geometry.affine))
    folder, ids = tmp_path_factory.mktemp("studies"), {}
    with GroundTruthStore(folder) as store:
        for name, volume in (("oblique", oblique), ("finished", other), ("torso", torso)):
            ids[name] = store.add_study(volume, name).id
        mask = MaskPatch.of_mask(other.voxels > 100)
        store.add(ids["finished"], "bone", mask, author="ann", state=State.APPROVED)
        mask = MaskPatch.of_mask(torso.voxels > 200)
        store.add(ids["torso"], "bone", mask, author="ann", state=State.DRAFT)
    return folder, ids


@pytest.fixture
def kept(tmp_path, three_studies):
    """Homes that keep three studies."""
    folder, ids = three_studies
    for home in NAMES:
        shutil.copytree(folder, tmp_path / home)
    homes = Homes(tmp_path)
    homes.ids = dict(ids)
    yield homes
    homes.close()


@pytest.fixture
def server(panel, kept):
    """The panel on a server that keeps three studies, ready to go on with them."""
    begin(panel, kept, "server")
    return kept


def begin(panel, homes: Homes, home: str) -> None:
    homes.use(panel.logic.assistant, home)
    panel.ui.imagesCombo.setCurrentIndex(0)
    panel.ui.imagesCombo.setCurrentIndex(1)
    wait(lambda: panel.ui.studiesTable.rowCount == 3)


def go_on(panel, name: str):
    """Press Next and wait for an image; its node."""
    panel.ui.nextButton.click()
    return arrived(panel, name)


def arrived(panel, name: str):
    wait(lambda: panel.editor.sourceVolumeNode().GetName() == name and panel.ui.nextButton.enabled)
    return panel.editor.sourceVolumeNode()


def of_node(panel, node, case: Case) -> Case:
    """The case, with the image and the segmentation that the panel shows now."""
    case.node, case.segmentation = node, panel.editor.segmentationNode()
    return case


@pytest.mark.parametrize("home", NAMES)
def test_studies_come_one_after_the_other_at_their_place_and_are_not_sent_back(
    home, panel, kept, points, slice_views, case
):
    begin(panel, kept, home)
    table = panel.ui.studiesTable
    rows = [[table.item(row, column).text() for column in range(3)] for row in range(3)]
    assert rows == [["oblique", "to do", "0"], ["finished", "done", "1"], ["torso", "to do", "1"]]
    node = go_on(panel, "oblique")
    study = study_of(node)
    assert (study.study_id, study.voxels.dtype) == (kept.ids["oblique"], np.float32)
    assert study.geometry.affine == pytest.approx(OBLIQUE)
    assert panel.editor.segmentationNode().GetSegmentation().GetNumberOfSegments() == 0
    node = go_on(panel, "torso")
    assert slice_views["Red"].logic.GetSliceCompositeNode().GetBackgroundVolumeID() == node.GetID()
    assert "torso has labels already" in panel.ui.saveLabel.text
    of_node(panel, node, case)
    panel.editor.setCurrentSegmentID(add_segment(case, "spleen"))
    panel.points()
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    points.ui.acceptButton.click()
    panel.ui.saveButton.click()
    wait(lambda: "Saved: spleen (version 1)" in panel.ui.saveLabel.text)
    assert list((kept.folder / home).glob("uploads/*")) == []
    with GroundTruthStore(kept.folder / home) as store:
        mask = store.mask(store.version(kept.ids["torso"], "spleen")).to_mask(case.labels.shape)
        assert dice(mask, case.mask("spleen")) > 0.85
        assert [s["name"] for s in store.worklist()] == ["oblique", "finished", "torso"]


def test_what_is_saved_goes_from_the_scene_and_is_done(panel, server, case):
    node = go_on(panel, "oblique")
    panel.ui.nextButton.click()
    of_node(panel, arrived(panel, "torso"), case)
    assert node.GetScene() is None
    before = count_nodes()
    for structure in ("spleen", "bone"):
        add_segment(case, structure, case.mask("spleen"))
    panel.ui.saveNextButton.click()
    arrived(panel, "oblique")
    assert case.node.GetScene() is None and case.segmentation.GetScene() is None
    assert count_nodes() == before
    wait(lambda: panel.ui.studiesTable.item(2, 1).text() == "done")
    panel.ui.nextButton.click()
    wait(lambda: panel.ui.saveLabel.text == "No other image is to do here; kept: 3.")
    assert panel.editor.sourceVolumeNode().GetName() == "oblique"


@pytest.mark.parametrize("answer", [False, True])
def test_before_unsaved_work_goes_the_person_is_asked(panel, server, case, monkeypatch, answer):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or answer)
    node = of_node(panel, go_on(panel, "oblique"), case).node
    mask = np.zeros((40, *case.labels.shape[1:]), bool)
    mask[10:20, 10:20, 10:20] = True
    add_segment(case, "cyst", mask)
    panel.ui.nextButton.click()
    wait(lambda: asked)
    assert asked == ["oblique has work that is not saved as ground truth (cyst); remove it and go on?"]
    if not answer:
        assert node.GetScene() is not None and panel.ui.nextButton.enabled
        return
    arrived(panel, "torso")
    assert node.GetScene() is None
    panel.images._open_row(0)  # and it is not lost: the autosave has it
    arrived(panel, "oblique")
    wait(lambda: panel.recovery.autosave._run and not panel.recovery._looking.active)
    found = list((panel.recovery.autosave._folder / server.ids["oblique"]).rglob("*.patch"))
    assert len(found) == 1
    wait(lambda: not panel.ui.recoverButton.isHidden())
    assert panel.ui.recoverButton.text == "Recover unsaved work: cyst"


def test_work_in_another_segmentation_on_the_image_is_asked_about_too(panel, server, case, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) and False)
    node = of_node(panel, go_on(panel, "oblique"), case).node
    case.segmentation = new_segmentation(node)
    panel.editor.setSegmentationNode(case.segmentation)
    before = panel.work()
    mask = np.zeros((40, *case.labels.shape[1:]), bool)
    mask[10:20, 10:20, 10:20] = True
    add_segment(case, "cyst", mask)
    assert panel.work() != before
    assert not panel.may_leave()
    assert asked == ["oblique has work that is not saved as ground truth (cyst); remove it and go on?"]


@pytest.mark.parametrize("gone", [True, False])
def test_work_on_the_image_is_asked_about_though_another_segmentation_is_shown_or_its_own_is_gone(
    gone, panel, server, case, questions
):
    node = of_node(panel, go_on(panel, "oblique"), case).node
    own, case.segmentation = case.segmentation, new_segmentation(node)
    before = panel.work()
    add_segment(case, "cyst", a_cyst(case))
    if gone:
        slicer.mrmlScene.RemoveNode(own)
        panel.editor.setSegmentationNode(case.segmentation)
    assert panel.work() != before
    assert not panel.may_leave()
    assert questions == ["oblique has work that is not saved as ground truth (cyst); remove it and go on?"]


def test_a_preview_is_work_too_and_a_version_brought_back_is_none(
    panel, server, case, monkeypatch, points, slice_views
):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) and False)
    go_on(panel, "oblique")
    of_node(panel, go_on(panel, "torso"), case)
    wait(lambda: panel.ui.historyTable.rowCount == 1)
    panel.ui.historyGroup.collapsed = False
    panel.ui.historyTable.selectRow(0)
    panel.ui.restoreButton.click()
    wait(lambda: "again here" in panel.ui.saveLabel.text)
    bone = case.segmentation.GetSegmentation().GetNthSegmentID(0)
    assert (mask_of(case, bone) == (case.volume.voxels > 200)).all()
    assert panel.may_leave() and asked == []
    panel.editor.setCurrentSegmentID(add_segment(case, "spleen"))
    panel.points()
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    assert not panel.may_leave()
    assert asked == [
        "torso has work that is not saved as ground truth (spleen: marks that are not accepted); remove it and go on?"
    ]


def test_getting_an_image_shows_how_far_it_is_and_can_be_cancelled(panel, server, monkeypatch):
    first = panel.editor.sourceVolumeNode()
    before, told = count_nodes(), []
    show = panel.images._show_progress

    def watched(share):
        show(share)
        told.append(share)
        if share:
            assert not panel.ui.cancelNextButton.isHidden() and not panel.ui.nextButton.enabled
            assert panel.ui.nextProgress.value == round(100 * share)
            qt.QTimer.singleShot(0, panel.ui.cancelNextButton.click)

    monkeypatch.setattr(panel.images, "_show_progress", watched)
    panel.images._open_row(2)
    wait(lambda: panel.ui.saveLabel.text == "Cancelled; this image stays.")
    monkeypatch.undo()
    assert told[0] == 0.0 and 0 < told[1] < 1 and told[-1] is None
    assert panel.ui.cancelNextButton.isHidden() and panel.ui.nextButton.enabled
    assert panel.editor.sourceVolumeNode() is first and count_nodes() == before
    assert go_on(panel, "oblique") is not first


def test_what_is_drawn_while_an_image_comes_is_asked_for_when_it_is_there(panel, server, case, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) and False)
    node = of_node(panel, go_on(panel, "oblique"), case).node
    add_segment(case, "cyst")
    before = count_nodes()
    panel.images._open_row(2)
    add_segment(case, "cyst", np.ones((40, *case.labels.shape[1:]), bool))
    wait(lambda: asked)
    assert panel.editor.sourceVolumeNode() is node
    wait(lambda: count_nodes() == before)


def test_what_was_fetched_is_no_other_image_that_gets_its_id(panel, server):
    number = go_on(panel, "oblique").GetID()
    assert panel.images._study() == server.ids["oblique"]
    slicer.mrmlScene.Clear(0)
    others = {node.GetID(): node for node in (Case().node, Case().node)}
    panel.editor.setSourceVolumeNode(others[number])
    assert panel.images._study() != server.ids["oblique"]


def test_the_list_of_one_server_is_not_shown_for_another(panel, server):
    assistant = panel.logic.assistant
    assistant.home.close = lambda: None
    assistant.move(Server("http://127.0.0.1:9"))
    assert panel.ui.studiesTable.rowCount == 0 and panel.images._studies == []


@pytest.mark.parametrize("left", [True, False])
def test_a_colleague_who_presses_next_a_moment_before_gets_another_image(left, panel, kept, tmp_path, monkeypatch):
    tokens = {name: add_token(tmp_path / "tokens.txt", name, "annotator") for name in ("ann", "bob")}
    with RunningServer(kept.folder / "server", "--token-file", str(tmp_path / "tokens.txt")) as running:
        panel.logic.assistant.home = Server(running.url, tokens["ann"])
        panel.ui.imagesCombo.setCurrentIndex(1)
        wait(lambda: panel.ui.studiesTable.rowCount == 3)
        seen, first, given = panel.images._seen, panel.editor.sourceVolumeNode(), []
        slicer.util.arrayFromVolume(first)[:] += 1  # none of the list
        slicer.util.arrayFromVolumeModified(first)

        def hooked(listed):  # Ann has the list of before
            seen(listed)
            answer = running.ask("POST", "/api/truth/next", tokens["bob"], json={"current": None})
            given.append(answer.json()["study"])
            if not left:
                with GroundTruthStore(kept.folder / "server") as store:
                    mask = MaskPatch.of_mask(Case().volume.voxels > 100)
                    store.add(kept.ids["torso"], "bone", mask, author="cat", state=State.APPROVED)

        monkeypatch.setattr(panel.images, "_seen", hooked)
        panel.ui.nextButton.click()
        if left:
            wait(lambda: panel.editor.sourceVolumeNode() is not first and panel.ui.nextButton.enabled)
            assert study_of(panel.editor.sourceVolumeNode()).study_id == kept.ids["torso"]
        else:
            wait(lambda: panel.ui.saveLabel.text.startswith("No other image is to do here; kept: 3"))
            assert panel.editor.sourceVolumeNode() is first
        assert given == [kept.ids["oblique"]]


def test_a_server_that_is_not_there_is_said_and_the_image_stays(panel, server):
    first = panel.editor.sourceVolumeNode()
    panel.logic.assistant.home = Server("http://127.0.0.1:9")
    panel.ui.nextButton.click()
    wait(lambda: "http://127.0.0.1:9 does not answer" in panel.ui.saveLabel.text)
    assert panel.editor.sourceVolumeNode() is first and panel.ui.nextButton.enabled


def test_the_order_begins_anew_after_the_last_and_leaves_out_what_is_done():
    listed = [Study(name, name, 0, name == "b") for name in "abc"]
    order = {current: to_do_after(listed, current).id for current in (None, "a", "b", "c", "elsewhere")}
    assert order == {None: "a", "a": "c", "b": "c", "c": "a", "elsewhere": "a"}
    assert to_do_after(listed[:2], "a") is None and to_do_after([], None) is None
    with_ann = [*listed[:2], Study("c", "c", 0, False, "ann")]
    assert to_do_after(with_ann, "a") is None and to_do_after(with_ann, None).id == "a"


@pytest.fixture
def questions(monkeypatch) -> list[str]:
    """What the person is asked, and answers with No."""
    asked: list[str] = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) and False)
    return asked


def a_cyst(case) -> np.ndarray:
    """A mask on the image "oblique"."""
    mask = np.zeros((40, *case.labels.shape[1:]), bool)
    mask[10:20, 10:20, 10:20] = True
    return mask


def begin_to_mark(panel, case) -> None:
    """Go on to the image "torso" and choose AI Points on a new segment."""
    go_on(panel, "oblique")
    of_node(panel, go_on(panel, "torso"), case)
    panel.editor.setCurrentSegmentID(add_segment(case, "spleen"))
    panel.points()


def test_marks_that_are_not_accepted_are_asked_about_whatever_effect_is_active(
    panel, server, points, slice_views, case, questions
):
    begin_to_mark(panel, case)
    click_ends(slice_views, case.ends("spleen"))
    answered(points)
    panel.contour()
    panel.images._open_row(0)
    assert ["spleen: marks that are not accepted" in question for question in questions] == [True]
    assert panel.ui.saveLabel.text == "This image stays."
    assert case.segmentation.GetScene() is not None


def test_marks_that_were_put_while_the_next_image_travelled_are_asked_about(
    panel, server, points, slice_views, case, questions
):
    begin_to_mark(panel, case)
    panel.images._open_row(0)
    assert questions == []
    click_ends(slice_views, case.ends("spleen"))
    wait(lambda: panel.ui.nextButton.enabled)
    assert len(questions) == 1
    assert (case.node.GetScene() is not None, panel.editor.sourceVolumeNode()) == (True, case.node)


def test_segments_whose_image_was_deleted_stay(panel, server, case, questions):
    node = of_node(panel, go_on(panel, "oblique"), case).node
    add_segment(case, "cyst", a_cyst(case))
    slicer.mrmlScene.RemoveNode(node)
    panel.ui.nextButton.click()
    wait(lambda: panel.editor.sourceVolumeNode() is not None and panel.ui.nextButton.enabled)
    assert case.segmentation.GetScene() is not None


def test_a_comment_stays_with_its_image(panel, server, case):
    of_node(panel, go_on(panel, "oblique"), case)
    add_segment(case, "cyst", a_cyst(case))
    panel.ui.saveButton.click()
    wait(lambda: panel.ui.saveButton.enabled)
    panel.ui.commentEdit.setText("biopsy proven")
    panel.ui.saveNextButton.click()
    arrived(panel, "torso")
    assert panel.ui.commentEdit.text == ""


def test_next_waits_for_what_is_under_way(panel, server, case):
    panel.ui.nextButton.click()
    assert not panel.ui.nextButton.enabled  # the list is asked for
    of_node(panel, arrived(panel, "oblique"), case)
    add_segment(case, "cyst", a_cyst(case))
    panel.ui.saveButton.click()
    assert not panel.ui.nextButton.enabled
    wait(lambda: panel.ui.saveButton.enabled)
    assert panel.ui.nextButton.enabled
    panel.images._open_row(2)
    panel.saving._allow(True)  # as when a save ends meanwhile
    assert panel.images._is_fetching and not panel.ui.nextButton.enabled
    arrived(panel, "torso")


def a_photo():
    """An image in colour, in the scene."""
    photo = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    image = vtk.vtkImageData()
    image.SetDimensions(4, 4, 4)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
    photo.SetAndObserveImageData(image)
    return photo


def test_an_image_in_colour_is_gone_past(panel, server, case):
    panel.editor.setSourceVolumeNode(a_photo())
    panel.ui.saveLabel.setText("Saved: cyst (version 1)")
    assert panel.recovery.keep() is False
    assert panel.ui.saveLabel.text == "Saved: cyst (version 1)"
    go_on(panel, "oblique")


def deform(case) -> None:
    """Lay the image and its segments under a deformation."""
    spline = vtk.vtkThinPlateSplineTransform()
    for points, corner in ((vtk.vtkPoints(), 100.0), (vtk.vtkPoints(), 120.0)):
        for place in ((0, 0, 0), (corner, 0, 0), (0, corner, 0), (0, 0, corner), (corner, corner, 70)):
            points.InsertNextPoint(place)
        spline.SetTargetLandmarks(points) if corner > 100 else spline.SetSourceLandmarks(points)
    warp = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTransformNode", "warp")
    warp.SetAndObserveTransformToParent(spline)
    for node in (case.node, case.segmentation):
        node.SetAndObserveTransformNodeID(warp.GetID())


def test_the_next_image_comes_after_one_in_colour_that_next_opened(panel, server):
    photo = a_photo()
    panel.open(photo)
    node = go_on(panel, "oblique")
    assert photo.GetScene() is None and node.GetScene() is not None


def test_work_under_a_deformation_is_asked_about_and_why_it_is_not_kept_is_said(panel, server, case, questions):
    of_node(panel, go_on(panel, "oblique"), case)
    wait(lambda: not panel.recovery._looking.active)
    add_segment(case, "cyst", a_cyst(case))
    deform(case)
    assert panel.recovery.keep() is False
    said = panel.ui.saveLabel.text
    assert said.startswith("Unsaved work cannot be kept: 'oblique") and "under the deformation 'warp'" in said
    panel.ui.nextButton.click()
    wait(lambda: questions)
    assert questions == ["oblique has work that is not saved as ground truth (cyst); remove it and go on?"]
