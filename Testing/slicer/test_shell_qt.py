"""The shell's Qt layer: PythonQt's semantics, the guarded stand-ins, `.ui` files, and the table of Slicer's Qt API."""

from __future__ import annotations

import functools
import os
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

UI = """<ui version="4.0"><class>Panel</class>
<widget class="qMRMLWidget" name="Panel"><layout class="QVBoxLayout" name="rows">
 <item><widget class="ctkCollapsibleButton" name="inputs">
  <property name="text"><string>Inputs</string></property>
  <layout class="QFormLayout" name="form">
   <item row="0" column="1"><widget class="qMRMLNodeComboBox" name="volumeSelector">
    <property name="nodeTypes"><stringlist><string>vtkMRMLScalarVolumeNode</string></stringlist></property>
    <property name="noneEnabled"><bool>true</bool></property>
    <property name="SlicerParameterName" stdset="0"><string>inputVolume</string></property></widget></item>
   <item row="1" column="1"><widget class="ctkSliderWidget" name="radius">
    <property name="maximum"><double>50</double></property><property name="value"><double>7.5</double></property>
   </widget></item>
   <item row="2" column="1"><widget class="ctkPathLineEdit" name="folder">
    <property name="filters"><set>ctkPathLineEdit::Dirs|ctkPathLineEdit::Hidden</set></property></widget></item>
  </layout></widget></item>
 <item><widget class="ctkCollapsibleButton" name="advanced">
  <property name="collapsed"><bool>true</bool></property>
  <layout class="QVBoxLayout" name="more"><item><widget class="QPushButton" name="apply"/></item></layout>
 </widget></item>
</layout></widget>
<connections><connection><sender>Panel</sender><signal>mrmlSceneChanged(vtkMRMLScene*)</signal>
 <receiver>volumeSelector</receiver><slot>setMRMLScene(vtkMRMLScene*)</slot></connection></connections>
</ui>"""


@pytest.fixture(scope="module")
def shell() -> SimpleNamespace:
    """The installed shell."""
    os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
    from shell import pythonqt, widgets

    qt = pythonqt.install()
    widgets.install()
    import ctk
    import slicer

    app = pythonqt.application()
    return SimpleNamespace(pythonqt=pythonqt, widgets=widgets, qt=qt, ctk=ctk, slicer=slicer, app=app)


@pytest.fixture
def qt(shell) -> ModuleType:
    """The module `qt`; a slot that raised fails the test."""
    shell.pythonqt.slot_errors.clear()
    yield shell.qt
    assert shell.pythonqt.slot_errors == []


@pytest.fixture
def ctk(shell, qt) -> ModuleType:
    """The module `ctk`."""
    return shell.ctk


@pytest.fixture
def slicer(shell, qt) -> ModuleType:
    """The module `slicer` with the stand-ins."""
    return shell.slicer


@pytest.fixture
def scene(slicer):
    """A scene with one volume, CT."""
    scene = slicer.vtkMRMLScene()
    scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
    return scene


@pytest.fixture
def selector(slicer, scene):
    """A node selector for volumes, with None."""
    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.noneEnabled = True
    selector.setMRMLScene(scene)
    return selector


@pytest.fixture
def api(shell):
    """The table of Slicer's Qt API."""
    return shell.widgets.API


def pixels(widget) -> np.ndarray:
    """A widget's picture, rows of RGBA."""
    image = widget.grab().toImage()
    image = image.convertToFormat(type(image).Format_RGBA8888)
    return np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine() // 4, 4).copy()


# ---- Module qt ------------------------------------------------------------------------------------------------------


def test_installing_twice_changes_nothing(shell):
    before = shell.qt.QLabel.__setattr__, shell.qt.QTimer.singleShot, sys.excepthook
    assert shell.pythonqt.install() is shell.qt is sys.modules["qt"]
    shell.widgets.install()
    assert sys.modules["ctk"] is shell.ctk
    assert (shell.qt.QLabel.__setattr__, shell.qt.QTimer.singleShot, sys.excepthook) == before


def test_properties_are_attributes(qt):
    label = qt.QLabel("one")
    assert label.text == "one"
    label.text = "two"
    assert label.text == "two"
    label.setText("three")
    assert label.text == "three"
    label.objectName = "title"
    assert label.name == "title"
    assert label.isVisible() is label.visible is False


@pytest.mark.parametrize("name", ["text", "sizeHint", "width", "objectName", "minimumSizeHint", "enabled"])
def test_calling_a_property_is_a_type_error(qt, name):
    for widget in (qt.QLabel("x"), qt.QPushButton("x")):
        with pytest.raises(TypeError, match="not callable"):
            getattr(widget, name)()


def test_a_property_that_is_read_only_or_of_another_type_is_refused(qt):
    slider = qt.QSlider()
    with pytest.raises(AttributeError, match="'width' of QSlider object is not writable"):
        slider.width = 5
    with pytest.raises(AttributeError, match="'value' of type 'int' does not accept"):
        slider.value = "many"
    assert slider.value == 0


def test_enumeration_properties_take_and_give_the_enumeration(qt):
    label = qt.QLabel("x")
    label.alignment = qt.Qt.AlignRight
    assert label.alignment == qt.Qt.AlignRight


def test_cpp_objects_take_no_new_attributes(qt):
    with pytest.raises(AttributeError, match="creating new attributes on C\\+\\+ objects is not allowed"):
        qt.QPushButton("x").state = 1
    with pytest.raises(AttributeError, match="creating new attributes on C\\+\\+ objects is not allowed"):
        qt.QPoint(1, 2).z = 3
    with pytest.raises(AttributeError, match="'setText' can not be overwritten"):
        qt.QPushButton("x").setText = print


def test_python_classes_keep_their_own_attributes_and_override_virtual_methods(qt):
    class Square(qt.QWidget):
        def __init__(self):
            super().__init__()
            self.side = 30

        def sizeHint(self):
            return qt.QSize(self.side, self.side)

    box, square = qt.QWidget(), Square()
    layout = qt.QVBoxLayout(box)
    layout.setContentsMargins(0, 0, 0, 0)
    layout.addWidget(square)
    assert box.sizeHint.height() == square.side == 30
    with pytest.raises(AttributeError, match="'setToolTip' can not be overwritten"):
        square.setToolTip = 1


def test_dynamic_properties_are_attributes(qt):
    widget = qt.QWidget()
    assert not hasattr(widget, "SlicerParameterName")
    widget.setProperty("SlicerParameterName", "radius")
    assert widget.SlicerParameterName == "radius"
    widget.SlicerParameterName = "threshold"
    assert widget.property("SlicerParameterName") == "threshold"


def test_enumerations_are_unscoped(qt):
    assert qt.Qt.Checked is qt.Qt.CheckState(2)
    assert qt.QProcess().state() == qt.QProcess.NotRunning
    assert qt.QMessageBox.Ok | qt.QMessageBox.Cancel == qt.QMessageBox.StandardButton(0x400400)
    assert isinstance(qt.Qt.Checked, qt.Qt.CheckState)
    with pytest.raises(AttributeError, match=r"leave out 'CheckState\.' before 'Checked'"):
        _ = qt.Qt.CheckState.Checked
    with pytest.raises(TypeError, match="called with wrong argument types"):  # PySide6 still words its errors
        qt.QLabel(1, 2, 3)


def test_bytes_come_from_data(qt):
    process = qt.QProcess()
    process.start("echo", ["slice"])
    assert process.waitForFinished()
    assert process.readAll().data() == b"slice\n"


def test_children_of_a_widget_become_variables(qt, slicer):
    panel = qt.QWidget()
    button = qt.QPushButton("Go", panel)
    button.objectName = "goButton"
    assert slicer.util.childWidgetVariables(panel).goButton is button
    assert slicer.util.findChildren(panel, className="QPushButton", text="Go") == [button]


def test_event_loops_run_by_exec_(qt, shell):
    dialog = qt.QDialog()
    qt.QTimer.singleShot(0, dialog.accept)
    assert dialog.exec_() == 1
    qt.QTimer.singleShot(0, dialog, "reject()")
    assert dialog.exec_() == 0
    loop = qt.QEventLoop()
    qt.QTimer.singleShot(0, lambda: loop.exit(7))
    assert loop.exec_() == 7
    qt.QTimer.singleShot(0, lambda: shell.app.exit(8))
    assert qt.QApplication.exec_() == 8


def test_a_file_dialog_gives_the_path_alone(shell):
    first = shell.pythonqt._first_result(lambda *_: ("/data/ct.nrrd", "*.nrrd"))
    assert first(None, "Open") == "/data/ct.nrrd"


def test_input_dialogs_that_hide_a_cancel_are_refused(qt):
    with pytest.raises(NotImplementedError, match=r"QInputDialog.getText"):
        qt.QInputDialog.getText(None, "Name", "Name:")


# ---- Signals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("signature", ["clicked", "clicked(int)", "clickt(bool)", ""])
def test_connecting_needs_a_full_signature_that_exists(qt, signature):
    with pytest.raises(ValueError, match="QPushButton has no signal"):
        qt.QPushButton().connect(signature, print)


def test_surplus_arguments_are_dropped_by_counting_parameters(qt):
    button, got = qt.QPushButton(), []
    button.setCheckable(True)

    class Receiver:
        def nothing(self):
            got.append("method")

        def one(self, checked):
            got.append(checked)

    receiver = Receiver()
    button.connect("clicked(bool)", lambda: got.append("none"))
    button.connect("clicked(bool)", receiver.nothing)
    button.connect("clicked(bool)", receiver.one)
    button.connect("clicked(bool)", lambda stray="default": got.append(stray))
    button.connect("clicked(bool)", lambda *arguments: got.append(arguments))
    button.connect("clicked(bool)", functools.partial(got.append))
    button.connect("clicked()", lambda *arguments: got.append(arguments))
    button.click()
    assert got == ["none", "method", True, True, (True,), True, ()]


def test_signals_reach_slots_named_by_signature(qt):
    box, slider = qt.QSpinBox(), qt.QSlider()
    assert box.connect("valueChanged(int)", slider, "setValue(int)") is True
    box.setValue(12)
    assert slider.value == 12
    assert box.disconnect("valueChanged(int)", slider, "setValue(int)") is True
    box.setValue(13)
    assert slider.value == 12
    with pytest.raises(ValueError, match=r"QSlider has no slot 'setValue\(double\)'"):
        box.connect("valueChanged(int)", slider, "setValue(double)")


def test_disconnecting_one_receiver_or_all(qt):
    button, got = qt.QPushButton(), []
    first, second, third = (functools.partial(got.append, number) for number in range(3))
    for receiver in (first, second, third):
        button.connect("clicked()", receiver)
    assert button.disconnect("clicked()", second) is True
    assert button.disconnect("clicked()", second) is False
    button.click()
    assert got == [0, 2]
    assert button.disconnect("clicked()") is True
    button.click()
    assert got == [0, 2]


def test_connections_are_forgotten_with_their_sender(qt, shell):
    def count():
        return len(shell.pythonqt._receivers)

    before = count()
    button = qt.QPushButton()
    button.connect("clicked()", print)
    assert count() == before + 1
    button.delete()
    assert count() == before


def test_signals_of_python_classes_are_connected_by_signature(qt):
    class Source(qt.QObject):
        changed = qt.Signal(int, str)

    source, got = Source(), []
    source.connect("changed(int,QString)", lambda number: got.append(number))
    source.changed.emit(3, "three")
    assert got == [3]


def test_what_slots_raise_is_collected_and_not_raised(qt, shell):
    button = qt.QPushButton()
    button.connect("clicked()", lambda: 1 / 0)
    button.connect("clicked()", lambda missing: None)
    button.click()
    qt.QTimer.singleShot(0, lambda: [][1])
    qt.QApplication.processEvents()
    assert [type(error) for error in shell.pythonqt.slot_errors] == [ZeroDivisionError, TypeError, IndexError]
    shell.pythonqt.slot_errors.clear()


def test_what_overridden_methods_raise_is_collected(qt, shell):
    class Broken(qt.QWidget):
        def event(self, event):
            if event.type() == qt.QEvent.User:
                raise OSError("broken")
            return super().event(event)

    widget = Broken()
    qt.QApplication.postEvent(widget, qt.QEvent(qt.QEvent.User))
    qt.QApplication.processEvents()
    assert [str(error) for error in shell.pythonqt.slot_errors] == ["broken"]
    shell.pythonqt.slot_errors.clear()


# ---- Slicer's Qt API ------------------------------------------------------------------------------------------------


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


# ---- The guard of stand-ins -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def thresholder(shell):
    """A stand-in that defines more than Slicer's class has, and a property as a method."""
    namespace = ModuleType("namespace")

    @shell.widgets.stand_in(namespace, "qMRMLVolumeThresholdWidget")
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
        shell.widgets.stand_in(ModuleType("namespace"), "qMRMLDreamWidget")(type("Dream", (), {}))


def test_a_plain_python_class_can_stand_in(shell):
    namespace = ModuleType("namespace")

    @shell.widgets.stand_in(namespace)
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
    ours = [cls for cls in stand_ins if cls.__module__ == "shell.widgets"]
    surplus = [
        f"{cls.__name__}.{name}"
        for cls in ours
        for name in vars(cls)
        if not name.startswith("_") and not shell.widgets.API.allows(cls.__name__, name)
    ]
    assert surplus == []


# ---- .ui files ------------------------------------------------------------------------------------------------------


@pytest.fixture
def panel(tmp_path, slicer):
    """The widget of the `.ui` file above, loaded as a module does it."""
    path = tmp_path / "Panel.ui"
    path.write_text(UI)
    return slicer.util.loadUI(str(path))


def test_ui_files_make_stand_ins_with_their_properties(panel, slicer, ctk):
    ui = slicer.util.childWidgetVariables(panel)
    assert isinstance(panel, slicer.qMRMLWidget)
    assert isinstance(ui.radius, ctk.ctkSliderWidget)
    assert (ui.inputs.text, ui.inputs.collapsed, ui.advanced.collapsed) == ("Inputs", False, True)
    assert (ui.radius.maximum, ui.radius.value) == (50.0, 7.5)
    assert ui.folder.filters == ctk.ctkPathLineEdit.Dirs | ctk.ctkPathLineEdit.Hidden
    assert ui.volumeSelector.nodeTypes == ["vtkMRMLScalarVolumeNode"]
    assert ui.volumeSelector.SlicerParameterName == "inputVolume"


def test_ui_files_connect_the_scene(panel, slicer, scene):
    panel.setMRMLScene(scene)
    selector = slicer.util.childWidgetVariables(panel).volumeSelector
    assert selector.mrmlScene() is scene
    assert selector.nodeCount() == 1


def test_children_are_no_attributes_of_the_loaded_widget(panel):
    with pytest.raises(AttributeError, match="'radius'"):
        _ = panel.radius


def test_ui_files_load_through_the_loader_too(qt, ctk, tmp_path):
    path = tmp_path / "Plain.ui"
    path.write_text('<ui version="4.0"><class>P</class><widget class="ctkCheckBox" name="P"/></ui>')
    file = qt.QFile(str(path))
    assert file.open(qt.QFile.ReadOnly)
    assert isinstance(qt.QUiLoader().load(file), ctk.ctkCheckBox)


def test_a_missing_ui_file_is_a_runtime_error(slicer, tmp_path):
    with pytest.raises(RuntimeError, match=r"file not found .*None\.ui"):
        slicer.util.loadUI(str(tmp_path / "None.ui"))


# ---- CTK's widgets --------------------------------------------------------------------------------------------------


@pytest.fixture(params=["ctkCollapsibleButton", "ctkCollapsibleGroupBox"])
def section(request, qt, ctk):
    """A section with two rows, the second one hidden by the program."""
    section = getattr(ctk, request.param)()
    layout = qt.QVBoxLayout(section)
    for text in ("shown", "hidden"):
        layout.addWidget(qt.QPushButton(text))
    layout.itemAt(1).widget().hide()
    section.show()
    qt.QApplication.processEvents()
    return section


def test_a_section_hides_and_shows_its_contents(section, qt):
    shown, hidden = (section.layout().itemAt(row).widget() for row in range(2))
    height = section.sizeHint.height()
    section.collapsed = True
    assert (shown.visible, hidden.visible, section.checked) == (False, False, False)
    assert section.maximumHeight < height
    section.collapsed = False
    assert (shown.visible, hidden.visible, section.checked) == (True, False, True)
    assert section.sizeHint.height() == height


def test_a_section_is_drawn_with_an_arrow_that_turns(section, qt):
    section.setFixedSize(200, 120)
    expanded = pixels(section)[:25, :25]
    section.collapsed = True
    section.setFixedSize(200, 120)
    assert (pixels(section)[:25, :25] != expanded).any()


def test_only_the_header_of_a_section_is_a_button(qt, ctk):
    from PySide6.QtTest import QTest

    section, got = ctk.ctkCollapsibleButton(), []
    qt.QVBoxLayout(section).addWidget(qt.QLabel("contents"))
    section.connect("contentsCollapsed(bool)", got.append)
    section.resize(200, 100)
    section.show()
    QTest.mouseClick(section, qt.Qt.LeftButton, qt.Qt.NoModifier, qt.QPoint(50, 95))
    assert got == []
    QTest.mouseClick(section, qt.Qt.LeftButton, qt.Qt.NoModifier, qt.QPoint(50, 8))
    assert got == [True]
    assert section.collapsed is True


def test_what_is_added_to_a_collapsed_section_is_hidden(qt, ctk):
    section = ctk.ctkCollapsibleButton()
    section.collapsed = True
    early, late = qt.QPushButton("early"), qt.QPushButton("late")
    layout = qt.QVBoxLayout(section)
    layout.addWidget(early)
    section.show()
    layout.addWidget(late)
    qt.QApplication.processEvents()
    assert (early.visible, late.visible) == (False, False)
    section.collapsed = False
    assert (early.visible, late.visible) == (True, True)


def test_a_slider_widget_keeps_slider_and_spin_box_together(ctk):
    widget, got = ctk.ctkSliderWidget(), []
    widget.minimum, widget.maximum, widget.singleStep, widget.suffix = -10.0, 10.0, 0.5, " mm"
    widget.connect("valueChanged(double)", got.append)
    widget.setValue(2.5)
    widget.value = 99
    widget._slider.setValue(0)
    assert got == [2.5, 10.0, -10.0]
    assert (widget.value, widget.suffix) == (-10.0, " mm")
    assert widget._slider.maximum == 40
    widget.reset()
    assert (widget.value, widget._slider.value) == (0.0, 20)


def test_a_slider_widget_without_tracking_reports_when_released(ctk):
    widget, got, changing = ctk.ctkSliderWidget(), [], []
    widget.tracking = False
    widget.connect("valueChanged(double)", got.append)
    widget.connect("valueIsChanging(double)", changing.append)
    widget._slider.setSliderDown(True)
    widget._slider.setValue(30)
    widget._slider.setValue(31)
    assert (changing, got) == ([30.0, 31.0], [])
    widget._slider.setSliderDown(False)
    assert got == [31.0]


def test_a_spin_box_reports_value_and_decimals(ctk):
    box, values, texts, decimals = ctk.ctkDoubleSpinBox(), [], [], []
    box.connect("valueChanged(double)", values.append)
    box.connect("valueChanged(QString)", texts.append)
    box.connect("decimalsChanged(int)", decimals.append)
    box.decimals = 1
    box.setValue(1.5)
    box.stepUp()
    assert (values, decimals, box.value) == ([1.5, 2.5], [1], 2.5)
    assert [text.replace(",", ".") for text in texts] == ["1.5", "2.5"]


def test_a_combo_box_chooses_by_user_data(ctk, qt):
    combo = ctk.ctkComboBox()
    combo.defaultText = "Choose"
    combo.addItem("Spleen", "spleen")
    combo.addItem("Liver", "liver")
    combo.currentUserDataAsString = "liver"
    assert (combo.currentText, combo.currentUserDataAsString, combo.placeholderText) == ("Liver", "liver", "Choose")


def test_a_path_line_edit_reports_path_and_validity(ctk, tmp_path):
    edit, paths, valid = ctk.ctkPathLineEdit(), [], []
    edit.connect("currentPathChanged(QString)", paths.append)
    edit.connect("validInputChanged(bool)", valid.append)
    edit.currentPath = str(tmp_path)
    edit.setCurrentPath(str(tmp_path / "none"))
    assert paths == [str(tmp_path), str(tmp_path / "none")]
    assert valid == [True, False]
    edit.addCurrentPathToHistory()
    assert edit.comboBox().count == 1
    edit.showBrowseButton = False
    assert edit.showBrowseButton is False


def test_a_directory_button_shows_its_directory(ctk):
    button, got = ctk.ctkDirectoryButton("/data"), []
    button.connect("directoryChanged(QString)", got.append)
    button.directory = "/study"
    button.directory = "/study"
    assert (button.directory, button.text, got) == ("/study", "/study", ["/study"])
    button.text = "Choose"
    assert (button.directory, button.text) == ("/study", "Choose")


def test_a_message_box_may_not_be_shown_again(ctk, qt):
    box = ctk.ctkMessageBox()
    assert (box.dontShowAgainVisible, box.dontShowAgain) == (False, False)
    box.dontShowAgainVisible = True
    box.setDontShowAgain(True)
    assert (box.dontShowAgainVisible, box.dontShowAgain) == (True, True)
    qt.QTimer.singleShot(0, box.accept)
    assert box.exec_() == 1


def test_a_text_browser_is_as_high_as_its_text(ctk):
    browser = ctk.ctkFittedTextBrowser()
    browser.setCollapsibleText("one<!-- details --><br>two<br>three<br>four")
    collapsed = browser.height
    browser.collapsed = False
    assert browser.height > 2 * collapsed > 0
    assert "four" in browser.plainText


# ---- The node selector ----------------------------------------------------------------------------------------------


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
