"""CTK's inputs of numbers."""

from __future__ import annotations

from PySide6 import QtWidgets
from PySide6.QtCore import Property, Qt, Signal, Slot

from shell.stand_ins import ctk, forwarded, row, stand_in, stored


def _slider_limit(name: str) -> Property:
    """A property of a slider widget's spin box that decides how many positions its slider has."""

    def write(self, value):
        setattr(self._spin_box, name, value)
        self._fit_slider()

    return Property(float, lambda self: getattr(self._spin_box, name), write)


@stand_in(ctk)
class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box for the same number."""

    valueChanged = Signal(float)
    valueIsChanging = Signal(float)
    decimalsChanged = Signal(int)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(Qt.Horizontal)
        self._spin_box = QtWidgets.QDoubleSpinBox()
        row(self, self._slider, self._spin_box)
        self._reported = 0.0
        self._fit_slider()
        self._slider.connect("valueChanged(int)", self._on_slider)
        self._slider.connect("sliderReleased()", self._report)
        self._spin_box.connect("valueChanged(double)", self._on_spin_box)

    def _fit_slider(self, *_) -> None:
        """One position of the slider for each step of the spin box."""
        box, blocked = self._spin_box, self._slider.blockSignals(True)
        self._slider.setRange(0, max(0, round((box.maximum - box.minimum) / (box.singleStep or 1))))
        self._slider.setValue(round((box.value - box.minimum) / (box.singleStep or 1)))
        self._slider.blockSignals(blocked)

    def _on_slider(self, position: int) -> None:
        box = self._spin_box
        box.setValue(box.minimum + position * (box.singleStep or 1))

    def _on_spin_box(self, value: float) -> None:
        if not self._slider.sliderDown:
            self._fit_slider()
        self.valueIsChanging.emit(value)
        if self.tracking or not self._slider.sliderDown:
            self._report()

    def _report(self) -> None:
        if self._spin_box.value != self._reported:
            self._reported = self._spin_box.value
            self.valueChanged.emit(self._reported)

    minimum = _slider_limit("minimum")
    maximum = _slider_limit("maximum")
    singleStep = _slider_limit("singleStep")
    pageStep = stored(float, "pageStep", 10.0)
    prefix = forwarded(str, "_spin_box", "prefix")
    suffix = forwarded(str, "_spin_box", "suffix")
    spinBoxAlignment = stored(int, "spinBoxAlignment", 0x1)
    tickInterval = stored(float, "tickInterval", 0.0)
    tickPosition = stored(int, "tickPosition", 0)
    tracking = stored(bool, "tracking", True)
    synchronizeSiblings = stored(int, "synchronizeSiblings", 0)
    popupSlider = stored(bool, "popupSlider", False)
    invertedAppearance = forwarded(bool, "_slider", "invertedAppearance")
    invertedControls = forwarded(bool, "_slider", "invertedControls")

    @Slot(float)
    def setValue(self, value: float) -> None:
        """Move both to a value, or to the nearest that the range allows."""
        self._spin_box.setValue(value)

    @Slot(int)
    def setDecimals(self, decimals: int) -> None:
        """Show so many digits after the point."""
        if decimals != self._spin_box.decimals:
            self._spin_box.setDecimals(decimals)
            self.decimalsChanged.emit(decimals)

    @Slot(bool)
    def setSpinBoxVisible(self, visible: bool) -> None:
        """Show the spin box beside the slider, or the slider alone."""
        self._spin_box.setVisible(visible)

    @Slot()
    def reset(self) -> None:
        """Go to the nearest value to 0."""
        self._spin_box.setValue(0)

    value = Property(float, lambda self: self._spin_box.value, setValue)
    decimals = Property(int, lambda self: self._spin_box.decimals, setDecimals)
    spinBoxVisible = Property(bool, lambda self: not self._spin_box.isHidden(), setSpinBoxVisible)


@stand_in(ctk)
class ctkDoubleSpinBox(QtWidgets.QWidget):
    """A spin box for a number."""

    valueChanged = Signal((float,), (str,))
    decimalsChanged = Signal(int)
    editingFinished = Signal()
    SetAlways, SetIfDifferent = range(2)
    SizeHintByMinMax, SizeHintByValue = range(2)
    FixedDecimals, DecimalsByShortcuts, DecimalsByKey, DecimalsByValue = 0, 1, 2, 4

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._spin_box = QtWidgets.QDoubleSpinBox()
        row(self, self._spin_box)
        self._spin_box.connect("valueChanged(double)", lambda value: self.valueChanged[float].emit(value))
        self._spin_box.connect("textChanged(QString)", lambda text: self.valueChanged[str].emit(text))
        self._spin_box.connect("editingFinished()", lambda: self.editingFinished.emit())

    alignment = forwarded(int, "_spin_box", "alignment")
    frame = forwarded(bool, "_spin_box", "frame")
    readOnly = forwarded(bool, "_spin_box", "readOnly")
    prefix = forwarded(str, "_spin_box", "prefix")
    suffix = forwarded(str, "_spin_box", "suffix")
    cleanText = Property(str, lambda self: self._spin_box.cleanText)
    minimum = forwarded(float, "_spin_box", "minimum")
    maximum = forwarded(float, "_spin_box", "maximum")
    singleStep = forwarded(float, "_spin_box", "singleStep")
    decimalsOption = stored(int, "decimalsOption", 1)
    setMode = stored(int, "setMode", 1)
    invertedControls = stored(bool, "invertedControls", False)
    sizeHintPolicy = stored(int, "sizeHintPolicy", 0)

    @Slot(float)
    def setValue(self, value: float) -> None:
        """Show a value, or the nearest that the range allows."""
        self._spin_box.setValue(value)

    setValueIfDifferent = setValue

    @Slot()
    def stepUp(self) -> None:
        """One step more."""
        self._spin_box.stepUp()

    @Slot()
    def stepDown(self) -> None:
        """One step less."""
        self._spin_box.stepDown()

    @Slot(int)
    def setDecimals(self, decimals: int) -> None:
        """Show so many digits after the point."""
        if decimals != self._spin_box.decimals:
            self._spin_box.setDecimals(decimals)
            self.decimalsChanged.emit(decimals)

    @Slot(bool)
    def setReadOnly(self, read_only: bool) -> None:
        """Show the value only."""
        self._spin_box.setReadOnly(read_only)

    value = Property(float, lambda self: self._spin_box.value, setValue)
    decimals = Property(int, lambda self: self._spin_box.decimals, setDecimals)
