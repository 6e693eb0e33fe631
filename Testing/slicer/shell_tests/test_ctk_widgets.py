"""The stand-ins for CTK's widgets."""

from __future__ import annotations

import numpy as np
import pytest


def pixels(widget) -> np.ndarray:
    """A widget's picture, rows of RGBA."""
    image = widget.grab().toImage()
    image = image.convertToFormat(type(image).Format_RGBA8888)
    return np.frombuffer(image.constBits(), np.uint8).reshape(image.height(), image.bytesPerLine() // 4, 4).copy()


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
