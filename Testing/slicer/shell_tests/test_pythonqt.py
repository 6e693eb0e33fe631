"""Module `qt` behaves as PythonQt's."""

from __future__ import annotations

import sys

import pytest


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
