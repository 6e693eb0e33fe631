"""The table of Slicer's Qt API, and the guard that holds the stand-ins to it."""

from __future__ import annotations

from types import ModuleType

import pytest


@pytest.mark.parametrize(
    ("class_name", "attribute", "kind"),
    [
        ("qMRMLNodeComboBox", "currentNodeId", "property"),  # and an invokable of the same name
        ("qMRMLNodeComboBox", "setCurrentNode", "method"),
        ("qMRMLNodeComboBox", "currentNode", "method"),
        ("qMRMLNodeComboBox", "currentNodeChanged", "signal"),
        ("qMRMLNodeComboBox", "className", "common"),
        ("qMRMLNodeComboBox", "setEnabled", "qt"),
        ("qMRMLNodeComboBox", "enabled", "qt"),
        ("qMRMLNodeComboBox", "setNodeTypes", None),
        ("qMRMLSegmentsTableView", "mrmlScene", "method"),  # of its base qMRMLWidget
        ("ctkCollapsibleButton", "checked", "qt"),
        ("ctkSliderWidget", "SynchronizeWidth", "enum"),
        ("ctkSliderWidget", "setMinimum", None),
        ("qSlicerWidget", "mrmlScene", None),
    ],
)
def test_an_attribute_is_looked_up_through_the_bases(api, class_name, attribute, kind):
    assert api.kind(class_name, attribute) == kind
    assert api.allows(class_name, attribute) is (kind is not None)


def test_unknown_classes_are_named(api):
    with pytest.raises(KeyError, match="qMRMLNodeComboBocks"):
        api.allows("qMRMLNodeComboBocks", "currentNode")
    assert "qMRMLNodeComboBox" in api
    assert "qMRMLNodeComboBocks" not in api


def test_signals_are_listed_by_signature(api):
    assert api.allows_signal("qMRMLNodeComboBox", "currentNodeChanged(vtkMRMLNode*)")
    assert api.allows_signal("qMRMLNodeComboBox", "destroyed(QObject*)")
    assert not api.allows_signal("qMRMLNodeComboBox", "currentNodeChanged()")
    assert not api.allows_signal("qMRMLNodeComboBox", "currentNodeChanged(PyObject)")


def test_taken_shortcuts_can_be_asked_for_by_owner(api):
    taken = api.taken_shortcuts()
    assert {"Ctrl+S", "Esc", "Space", "Ctrl+Z"} <= taken
    assert api.taken_shortcuts("qSlicerMainWindow") < taken
    assert "Ctrl+W" in api.taken_shortcuts("qSlicerMainWindow")
    assert api.taken_shortcuts("nobody") == set()


# The guard of stand-ins


@pytest.fixture(scope="module")
def thresholder(shell):
    """A stand-in that defines more than Slicer's class has, and a property as a method."""
    namespace = ModuleType("namespace")

    @shell.stand_ins.stand_in(namespace, "qMRMLVolumeThresholdWidget")
    class Thresholder(shell.qt.QWidget):
        def __init__(self, parent=None):
            super().__init__(parent)
            self._bound = 40.0

        def lowerThreshold(self):
            return self._bound

        def setLowerThreshold(self, bound):
            self._bound = bound

        def invented(self):
            return 1

    return namespace.qMRMLVolumeThresholdWidget


def test_a_stand_in_shows_what_slicer_has_and_nothing_else(thresholder, qt):
    widget = thresholder()
    widget.setLowerThreshold(50.0)
    assert widget._bound == 50.0
    assert widget.className() == "qMRMLVolumeThresholdWidget"
    for name in ("invented", "imaginary"):
        with pytest.raises(AttributeError, match=f"qMRMLVolumeThresholdWidget has no attribute '{name}'"):
            getattr(widget, name)
        with pytest.raises(AttributeError, match=f"qMRMLVolumeThresholdWidget has no attribute '{name}'"):
            setattr(widget, name, 1)
    with pytest.raises(AttributeError, match="upperThreshold exists in Slicer, but the stand-in has none yet"):
        _ = widget.upperThreshold
    with pytest.raises(AttributeError, match="'setLowerThreshold' can not be overwritten"):
        widget.setLowerThreshold = print


def test_a_property_beats_a_method_of_the_same_name(thresholder, qt):
    assert thresholder().lowerThreshold == 40.0
    with pytest.raises(TypeError, match="not callable"):
        thresholder().lowerThreshold()


def test_methods_that_only_cpp_has_are_told_apart(ctk):
    slider = ctk.ctkSliderWidget()
    with pytest.raises(AttributeError, match=r"ctkSliderWidget.setMinimum exists in C\+\+ only"):
        slider.setMinimum(1)


def test_classes_derived_from_a_stand_in_may_have_their_own_attributes(slicer):
    class Panel(slicer.qMRMLWidget):
        def __init__(self):
            super().__init__()
            self.title = "Panel"

        def describe(self):
            return f"{self.title} {self.mrmlScene()}"

    assert Panel().describe() == "Panel None"
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = Panel().nothing


def test_a_stand_in_for_no_class_of_slicer_is_refused(shell):
    with pytest.raises(KeyError, match="qMRMLDreamWidget"):
        shell.stand_ins.stand_in(ModuleType("namespace"), "qMRMLDreamWidget")(type("Dream", (), {}))


def test_a_plain_python_class_can_stand_in(shell):
    namespace = ModuleType("namespace")

    @shell.stand_ins.stand_in(namespace)
    class qSlicerModuleManager:
        def module(self, name):
            return name

        def unheard(self):
            return 1

    manager = namespace.qSlicerModuleManager()
    assert manager.module("CT") == "CT"
    with pytest.raises(AttributeError, match="has no attribute 'unheard'"):
        manager.unheard()


def test_every_public_name_of_the_stand_ins_is_slicers(shell):
    classes = [value for module in (shell.ctk, shell.slicer) for value in vars(module).values()]
    stand_ins = [cls for cls in classes if "_api_name" in getattr(cls, "__dict__", ())]
    assert {"ctkSliderWidget", "qMRMLNodeComboBox", "qMRMLWidget"} <= {cls.__name__ for cls in stand_ins}
    ours = [cls for cls in stand_ins if cls.__module__ in {module.__name__ for module in shell.widgets.MODULES}]
    surplus = [
        f"{cls.__name__}.{name}"
        for cls in ours
        for name in vars(cls)
        if not name.startswith("_") and not shell.stand_ins.API.allows(cls.__name__, name)
    ]
    assert surplus == []
