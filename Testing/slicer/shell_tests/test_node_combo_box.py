"""The stand-in for Slicer's choice of a node."""

from __future__ import annotations

import pytest


def test_a_selector_follows_the_scene(selector, scene, slicer):
    ct = scene.GetFirstNodeByName("CT")
    changed, ids = [], []
    selector.connect("currentNodeChanged(vtkMRMLNode*)", changed.append)
    selector.connect("currentNodeIDChanged(QString)", ids.append)
    assert (selector.nodeCount(), selector.currentNode(), selector.currentNodeID) == (1, None, "")
    selector.setCurrentNode(ct)
    second = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MR")
    scene.AddNewNodeByClass("vtkMRMLModelNode", "Surface")
    assert (selector.nodeCount(), selector.currentNode()) == (2, ct)
    selector.setCurrentNodeIndex(1)
    assert selector.currentNode() is second
    scene.RemoveNode(second)
    assert (selector.nodeCount(), selector.currentNode()) == (1, None)
    assert changed == [ct, second, None]
    assert ids == ["vtkMRMLScalarVolumeNode1", "vtkMRMLScalarVolumeNode2", ""]


def test_a_selector_shows_a_new_name(selector, scene):
    ct, renamed = scene.GetFirstNodeByName("CT"), []
    selector.setCurrentNode(ct)
    selector.connect("currentNodeRenamed(QString)", renamed.append)
    ct.SetName("CT chest")
    assert renamed == ["CT chest"]
    assert selector._combo_box.currentText == "CT chest"


def test_a_selector_without_none_takes_the_first_node(slicer, scene):
    selector, chosen = slicer.qMRMLNodeComboBox(), []
    selector.connect("currentNodeChanged(bool)", chosen.append)
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(scene)
    assert selector.currentNode().GetName() == "CT"
    selector.setCurrentNode(None)
    assert selector.currentNode() is None
    assert chosen == [True, False]


def test_a_selector_offers_by_class_visibility_and_attribute(selector, scene):
    labelmap = scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "Mask")
    assert selector.nodeCount() == 2
    selector.showChildNodeTypes = False
    assert selector.nodeCount() == 1
    selector.showChildNodeTypes = True
    selector.hideChildNodeTypes = ["vtkMRMLLabelMapVolumeNode"]
    assert selector.nodeCount() == 1
    selector.hideChildNodeTypes = []
    selector.addAttribute("vtkMRMLScalarVolumeNode", "Reviewed", "1")
    assert selector.nodeCount() == 0
    labelmap.SetAttribute("Reviewed", "1")
    selector.addAttribute("vtkMRMLScalarVolumeNode", "Reviewed")
    assert selector.nodeFromIndex(0) is labelmap
    selector.removeAttribute("vtkMRMLScalarVolumeNode", "Reviewed")
    hidden = scene.CreateNodeByClass("vtkMRMLScalarVolumeNode")
    hidden.UnRegister(None)
    hidden.SetHideFromEditors(True)
    scene.AddNode(hidden)
    assert selector.nodeCount() == 2
    selector.showHidden = True
    assert selector.nodeCount() == 3


def test_a_selector_adds_and_removes_nodes(selector, scene):
    added, leaving = [], []
    selector.connect("nodeAddedByUser(vtkMRMLNode*)", added.append)
    selector.connect("nodeAboutToBeRemoved(vtkMRMLNode*)", leaving.append)
    selector.baseName = "Result"
    node = selector.addNode()
    assert (node.GetName(), selector.currentNode(), added) == ("Result", node, [node])
    selector.removeCurrentNode()
    assert (scene.GetFirstNodeByName("Result"), selector.currentNode(), leaving) == (None, None, [node])


def test_a_selector_leaves_its_scene(selector, scene):
    selector.setMRMLScene(None)
    assert (selector.nodeCount(), selector.currentNode()) == (0, None)
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "late")
    assert (selector.nodeCount(), selector.mrmlScene()) == (0, None)


def test_a_scene_outlives_its_selector(slicer, scene):
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(scene)
    selector.delete()
    assert scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "after").GetName() == "after"


def test_scene_signals_reach_other_widgets_by_signature(slicer, scene, selector):
    outer, got = slicer.qMRMLWidget(), []
    inner = slicer.qSlicerWidget()
    outer.connect("mrmlSceneChanged(vtkMRMLScene*)", inner, "setMRMLScene(vtkMRMLScene*)")
    inner.connect("mrmlSceneChanged(vtkMRMLScene*)", got.append)
    outer.setMRMLScene(scene)
    outer.setMRMLScene(scene)
    assert got == [scene]
    for signature in ("mrmlSceneChanged(PyObject)", "mrmlSceneChanged()", "mrmlSceneChanged"):
        with pytest.raises(ValueError, match="qMRMLWidget has no signal"):
            outer.connect(signature, print)
