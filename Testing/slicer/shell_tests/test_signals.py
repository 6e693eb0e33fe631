"""Signals and slots by their C++ signatures, as in PythonQt."""

from __future__ import annotations

import functools

import pytest


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
