"""Stand-ins for the widgets of CTK and Slicer, held to the API that `slicer_qt_api.json` lists, and `.ui` files.

A stand-in is a PySide6 class of the same name with as much behaviour as the extension needs. Its public attributes are
those that Python code reaches in Slicer and no others: `stand_in` sees to that. Its own state has underscore names.
"""

from __future__ import annotations

import re
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FunctionType, ModuleType

import shiboken6
import slicer
import slicer.util
import vtk
from PySide6 import QtCore, QtGui, QtUiTools, QtWidgets
from PySide6.QtCore import Property, Qt, Signal, Slot

from shell import pythonqt
from shell.qt_api import QtApi

qt = pythonqt.install()
ctk = ModuleType("ctk", "Stand-ins for the widgets of the Common Toolkit.")
API = QtApi()

_ui_classes: list[type] = []


def install() -> None:
    """Make ``ctk`` importable and let `slicer.util.loadUI` and ``qt.QUiLoader`` know the stand-ins."""
    sys.modules["ctk"] = ctk
    qt.QUiLoader = UiLoader
    slicer.util.loadUI = load_ui


# ---- Guarded classes ------------------------------------------------------------------------------------------------


def stand_in(namespace: ModuleType, api_name: str | None = None) -> Callable[[type], type]:
    """Decorate a class as the stand-in for one of Slicer's.

    It gets PythonQt's semantics, is put into the namespace and, when it is a widget, is found by `.ui` files. Reading,
    calling or setting a public attribute of an instance raises `AttributeError` when Slicer's class has none of that
    name, even if the stand-in defines it. What Slicer declares as a property is one here, even if the stand-in defines
    a method. Classes that derive from the stand-in may have attributes of their own.

    Parameters
    ----------
    namespace : module
        Where Slicer's class is found: `slicer` or `ctk`.
    api_name : str, optional
        Name of Slicer's class, if the Python class is called otherwise.

    Raises
    ------
    KeyError
        When `slicer_qt_api.json` does not list the class.
    """

    def decorate(cls: type) -> type:
        name = api_name or cls.__name__
        API.bases(name)
        cls.__name__ = name
        cls._api_name = name
        cls._allows_signal = staticmethod(lambda signature: API.allows_signal(name, signature))
        if issubclass(cls, QtCore.QObject):
            pythonqt.patch_properties(cls)
            cls.className = lambda self: name
        _guard(cls, name)
        setattr(namespace, name, cls)
        if issubclass(cls, QtWidgets.QWidget):
            _ui_classes.append(cls)
        return cls

    return decorate


def _guard(cls: type, api_name: str) -> None:
    """Let only the API's attributes through, of instances of a stand-in class."""
    read, write = cls.__getattribute__, cls.__setattr__

    def guarded_read(self, name: str):
        if name.startswith("_") or type(self)._api_name != api_name or _is_own(self, name):
            return read(self, name)
        kind = API.kind(api_name, name)
        if kind is None and not _is_dynamic(self, name):
            raise AttributeError(_refusal(api_name, name))
        if kind == "property" and isinstance(getattr(type(self), name, None), FunctionType):
            return read(self, name)()
        try:
            return read(self, name)
        except AttributeError as error:
            if hasattr(type(self), name):
                raise
            raise AttributeError(f"{api_name}.{name} exists in Slicer, but the stand-in has none yet.") from error

    def guarded_write(self, name: str, value: object) -> None:
        if pythonqt.is_child_attribute(name, value):
            return
        if not name.startswith("_") and type(self)._api_name == api_name and type(self) is cls:
            kind = API.kind(api_name, name)
            if kind is None and not _is_dynamic(self, name):
                raise AttributeError(_refusal(api_name, name))
            if kind not in ("property", "common", "qt", None):
                raise AttributeError(f"'{name}' can not be overwritten on {api_name} object")
        write(self, name, value)

    cls.__getattribute__, cls.__setattr__ = guarded_read, guarded_write


def _is_own(instance: object, name: str) -> bool:
    """Whether the name belongs to a class that derives from the stand-in, or to an instance of such a class."""
    cls = type(instance)
    if "_api_name" in vars(cls):
        return False
    derived = cls.__mro__[: next(index for index, base in enumerate(cls.__mro__) if "_api_name" in vars(base))]
    return name in instance.__dict__ or any(name in vars(base) for base in derived)


def _is_dynamic(instance: object, name: str) -> bool:
    return isinstance(instance, QtCore.QObject) and pythonqt.has_dynamic_property(instance, name)


def _refusal(api_name: str, name: str) -> str:
    """Why an attribute is refused, in a sentence."""
    if API.is_cpp_only(api_name, name):
        return f"{api_name}.{name} exists in C++ only: Slicer's Python cannot reach it."
    return f"{api_name} has no attribute '{name}' in Slicer (see slicer_qt_api.json)."


def stored(kind: type | str, name: str, default: object, changed: str | None = None) -> Property:
    """A Qt property that only keeps its value, in the attribute ``_name``.

    Parameters
    ----------
    kind : type or str
        Its type in Python, or in C++.
    name : str
        Its name.
    default : object
        Its value before it is set.
    changed : str, optional
        Name of a method, or of a signal to emit, called with each new value.
    """
    attribute = f"_{name}"

    def read(self):
        return self.__dict__.get(attribute, default)

    def write(self, value):
        if value == read(self):
            return
        self.__dict__[attribute] = value
        if changed is not None:
            receiver = getattr(self, changed)
            getattr(receiver, "emit", receiver)(value)

    return Property(kind, read, write)


def forwarded(kind: type | str, child: str, name: str) -> Property:
    """A Qt property that is one of a child widget's; the child is in the attribute of the given name."""
    return Property(
        kind,
        lambda self: getattr(getattr(self, child), name),
        lambda self, value: setattr(getattr(self, child), name, value),
    )


# ---- .ui files ------------------------------------------------------------------------------------------------------


class UiLoader(QtUiTools.QUiLoader):
    """Qt's loader of `.ui` files, knowing the stand-ins; connections of signals with MRML objects work."""

    def __init__(self, parent: QtCore.QObject | None = None):
        super().__init__(parent)
        for cls in _ui_classes:
            self.registerCustomWidget(cls)

    def load(self, device: QtCore.QIODevice, parent: QtWidgets.QWidget | None = None) -> QtWidgets.QWidget:
        """The widget that an open file describes."""
        text = device.readAll().data().decode()
        text = re.sub(r"\bvtk\w+\s*\*", pythonqt.PYTHON_OBJECT, text)
        text = re.sub(r"<(enum|set)>([^<]*)</\1>", _number, text)
        buffer = QtCore.QBuffer()
        buffer.setData(text.encode())
        buffer.open(QtCore.QIODevice.ReadOnly)
        with pythonqt.without_child_attributes():
            return super().load(buffer, parent)


def _number(match: re.Match) -> str:
    """An enumeration's value in a `.ui` file; a stand-in's, such as ``ctkPathLineEdit::Dirs``, as a number."""
    known = {cls.__name__: cls for cls in _ui_classes}
    keys = [key.split("::") for key in match[2].split("|")]
    if any(parts[0] not in known for parts in keys):
        return match[0]
    return f"<number>{sum(getattr(known[parts[0]], parts[-1]) for parts in keys)}</number>"


def load_ui(path: str | Path) -> QtWidgets.QWidget:
    """The widget that a `.ui` file describes, as `slicer.util.loadUI` gives it; `RuntimeError` when there is none."""
    file = QtCore.QFile(str(path))
    if not file.open(QtCore.QIODevice.ReadOnly):
        raise RuntimeError(f"Could not load UI file: file not found {path}")
    widget = UiLoader().load(file)
    if widget is None:
        raise RuntimeError(f"Could not load UI file: {path}")
    return widget


def _row(owner: QtWidgets.QWidget, *children: QtWidgets.QWidget) -> None:
    """Lay children side by side; the first takes the room that is left."""
    layout = QtWidgets.QHBoxLayout(owner)
    layout.setContentsMargins(0, 0, 0, 0)
    for child in children:
        layout.addWidget(child, 1 if child is children[0] else 0)


# ---- CTK: containers ------------------------------------------------------------------------------------------------


class _Collapsing:
    """Hides a widget's children and shows those again that it hid."""

    def __init__(self, widget: QtWidgets.QWidget):
        self._widget = widget
        self._hidden: list[QtWidgets.QWidget] = []

    def set(self, collapsed: bool, height: int) -> None:
        """Collapse to a height, or expand."""
        if collapsed:
            children = [child for child in self._widget.children() if child.isWidgetType()]
            for child in [child for child in children if not _is_hidden_explicitly(child)]:
                child.hide()
                self._hidden.append(child)
            self._widget.setMaximumHeight(height)
            return
        self._widget.setMaximumHeight(16777215)  # Qt's QWIDGETSIZE_MAX
        for child in filter(shiboken6.isValid, self._hidden):
            child.show()
        self._hidden.clear()


def _is_hidden_explicitly(widget: QtWidgets.QWidget) -> bool:
    """Whether `hide` was called, and not only the parent is not shown."""
    return widget.isHidden() and widget.testAttribute(Qt.WA_WState_ExplicitShowHide)


@stand_in(ctk)
class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A section with a header to click on."""

    contentsCollapsed = Signal(bool)
    collapsedHeight = stored(int, "collapsedHeight", 10)
    flat = stored(bool, "flat", False)
    contentsFrameShape = stored(int, "contentsFrameShape", 0)
    contentsFrameShadow = stored(int, "contentsFrameShadow", 16)
    contentsLineWidth = stored(int, "contentsLineWidth", 1)
    contentsMidLineWidth = stored(int, "contentsMidLineWidth", 0)
    buttonTextAlignment = stored(int, "buttonTextAlignment", 0x81)
    indicatorAlignment = stored(int, "indicatorAlignment", 0x81)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._collapsing = _Collapsing(self)
        self.setCheckable(True)
        self.setChecked(True)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.setContentsMargins(0, self._header_height(), 0, 0)
        self.setMinimumHeight(self._header_height())
        self.toggled.connect(self._on_toggled)

    def _set_collapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: not self.checked, _set_collapsed)

    def _on_toggled(self, expanded: bool) -> None:
        self._collapsing.set(not expanded, self._header_height())
        self.contentsCollapsed.emit(not expanded)

    def _header_height(self) -> int:
        return QtGui.QFontMetrics(self.font).height() + 10

    @Slot()
    def _hide_contents(self) -> None:
        if self.collapsed:
            self._collapsing.set(True, self._header_height())

    def childEvent(self, event: QtCore.QChildEvent) -> None:
        """Hide what is added to a collapsed section, once it is complete."""
        super().childEvent(event)
        if event.added() and self.collapsed:
            QtCore.QMetaObject.invokeMethod(self, "_hide_contents", Qt.QueuedConnection)

    def showEvent(self, event: QtGui.QShowEvent) -> None:
        """Hide what was added before the section was shown."""
        super().showEvent(event)
        self._hide_contents()

    def hitButton(self, position: QtCore.QPoint) -> bool:
        """Only the header is a button."""
        return 0 <= position.y() < self._header_height() and self.rect.contains(position)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """Draw the header: a button with an arrow and the text."""
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = QtCore.QRect(0, 0, self.width, self._header_height())
        option.state |= QtWidgets.QStyle.State_Sunken if self.down else QtWidgets.QStyle.State_Raised
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        text = option.rect.adjusted(26, 0, -6, 0)
        painter.drawItemText(text, Qt.AlignLeft | Qt.AlignVCenter, self.palette, self.enabled, self.text)
        option.rect = QtCore.QRect(8, (self._header_height() - 12) // 2, 12, 12)
        _draw_arrow(painter, option, self.collapsed)


@stand_in(ctk)
class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box whose title hides and shows its contents."""

    collapsedHeight = stored(int, "collapsedHeight", 14)

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._collapsing = _Collapsing(self)
        self.setCheckable(True)
        self.toggled.connect(self._on_toggled)

    def _set_collapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: not self.checked, _set_collapsed)

    def _on_toggled(self, expanded: bool) -> None:
        self._collapsing.set(not expanded, QtGui.QFontMetrics(self.font).height() + self.collapsedHeight)

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """Draw the box, with an arrow where a group box has its check mark."""
        painter = QtWidgets.QStylePainter(self)
        option = QtWidgets.QStyleOptionGroupBox()
        self.initStyleOption(option)
        painter.drawComplexControl(QtWidgets.QStyle.CC_GroupBox, option)
        mark = QtWidgets.QStyle.SC_GroupBoxCheckBox
        option.rect = self.style().subControlRect(QtWidgets.QStyle.CC_GroupBox, option, mark, self)
        painter.fillRect(option.rect, self.palette.window())
        _draw_arrow(painter, option, self.collapsed)


def _draw_arrow(painter: QtWidgets.QStylePainter, option: QtWidgets.QStyleOption, collapsed: bool) -> None:
    """Point to the right when collapsed, else downwards."""
    style = QtWidgets.QStyle
    painter.drawPrimitive(style.PE_IndicatorArrowRight if collapsed else style.PE_IndicatorArrowDown, option)


# ---- CTK: numbers ---------------------------------------------------------------------------------------------------


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
        _row(self, self._slider, self._spin_box)
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
        _row(self, self._spin_box)
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


# ---- CTK: choices and texts -----------------------------------------------------------------------------------------


@stand_in(ctk)
class ctkComboBox(QtWidgets.QComboBox):
    """A combo box that shows a text while nothing is chosen."""

    returnRelease = Signal()
    NeverScroll, AlwaysScroll, ScrollWithFocus, ScrollWithNoVScrollBar = range(4)
    defaultText = stored(str, "defaultText", "", "_show_default")
    defaultIcon = stored(QtGui.QIcon, "defaultIcon", QtGui.QIcon())
    forceDefault = stored(bool, "forceDefault", False)
    elideMode = stored(int, "elideMode", 3)
    scrollWheelEffect = stored(int, "scrollWheelEffect", 1)

    def _show_default(self, text: str) -> None:
        self.placeholderText = text

    @Slot(str)
    def setCurrentUserDataAsString(self, text: str) -> None:
        """Choose the item with this user data."""
        self.setCurrentIndex(self.findData(text))

    currentUserDataAsString = Property(str, lambda self: str(self.currentData or ""), setCurrentUserDataAsString)


@stand_in(ctk)
class ctkCheckBox(QtWidgets.QCheckBox):
    """A check box that may show an icon for its mark."""

    indicatorIcon = stored(QtGui.QIcon, "indicatorIcon", QtGui.QIcon())
    indicatorIconSize = stored(QtCore.QSize, "indicatorIconSize", QtCore.QSize())


@stand_in(ctk)
class ctkPathLineEdit(QtWidgets.QWidget):
    """A path to type in or to choose by a dialog."""

    currentPathChanged = Signal(str)
    validInputChanged = Signal(bool)
    Dirs, Files, Drives, NoSymLinks, Readable, Writable, Executable = 0x1, 0x2, 0x4, 0x8, 0x10, 0x20, 0x40
    Modified, Hidden, System, AllDirs, CaseSensitive, NoDot, NoDotDot = 0x80, 0x100, 0x200, 0x400, 0x800, 0x2000, 0x4000
    AllEntries, NoDotAndDotDot = 0x7, 0x6000
    ShowDirsOnly, DontResolveSymlinks, DontConfirmOverwrite, DontUseNativeDialog, ReadOnly = 0x1, 0x2, 0x4, 0x10, 0x20
    AdjustToContents, AdjustToContentsOnFirstShow, AdjustToMinimumContentsLength = range(3)

    label = stored(str, "label", "")
    filters = stored(int, "filters", AllEntries)
    options = stored(int, "options", 0)
    nameFilters = stored("QStringList", "nameFilters", [])
    settingKey = stored(str, "settingKey", "")
    showHistoryButton = stored(bool, "showHistoryButton", True)
    sizeAdjustPolicy = stored(int, "sizeAdjustPolicy", 1)
    minimumContentsLength = forwarded(int, "_combo_box", "minimumContentsLength")

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._combo_box = QtWidgets.QComboBox()
        self._combo_box.setEditable(True)
        self._combo_box.setInsertPolicy(QtWidgets.QComboBox.NoInsert)
        self._button = QtWidgets.QToolButton()
        self._button.setText("...")
        self._valid = False
        _row(self, self._combo_box, self._button)
        self._combo_box.connect("editTextChanged(QString)", self._on_text)
        self._button.connect("clicked()", self.browse)

    def _on_text(self, text: str) -> None:
        self.currentPathChanged.emit(text)
        valid = bool(text) and Path(text).exists()
        if valid != self._valid:
            self._valid = valid
            self.validInputChanged.emit(valid)

    def comboBox(self) -> QtWidgets.QComboBox:
        """The editable part."""
        return self._combo_box

    @Slot(str)
    def setCurrentPath(self, path: str) -> None:
        """Show a path."""
        self._combo_box.setEditText(path)

    @Slot()
    def browse(self) -> None:
        """Ask for a path: a directory when only those are wanted."""
        dialog = QtWidgets.QFileDialog
        if self.filters & (self.Dirs | self.Files) == self.Dirs:
            path = dialog.getExistingDirectory(self, self.label or "Select a directory", self.currentPath)
        else:
            path = dialog.getOpenFileName(
                self, self.label or "Select a file", self.currentPath, ";;".join(self.nameFilters)
            )
        if path:
            self.setCurrentPath(path)

    @Slot()
    def addCurrentPathToHistory(self) -> None:
        """Offer the path in the list from now on."""
        if self.currentPath and self._combo_box.findText(self.currentPath) < 0:
            self._combo_box.addItem(self.currentPath)

    def _show_button(self, visible: bool) -> None:
        self._button.setVisible(visible)

    currentPath = Property(str, lambda self: self._combo_box.currentText, setCurrentPath)
    showBrowseButton = Property(bool, lambda self: not self._button.isHidden(), _show_button)


@stand_in(ctk)
class ctkDirectoryButton(QtWidgets.QWidget):
    """A button that shows a directory and asks for another."""

    directoryChanged = Signal(str)
    directorySelected = Signal(str)
    ShowDirsOnly, DontResolveSymlinks, DontConfirmOverwrite, DontUseNativeDialog, ReadOnly = 0x1, 0x2, 0x4, 0x10, 0x20
    caption = stored(str, "caption", "")
    acceptMode = stored(int, "acceptMode", 0)
    options = stored(int, "options", 1)
    elideMode = stored(int, "elideMode", 3)

    def __init__(self, *arguments):
        """``(parent)`` or ``(directory, parent)``."""
        super().__init__(*[argument for argument in arguments if not isinstance(argument, str)])
        self._directory = next((argument for argument in arguments if isinstance(argument, str)), str(Path.cwd()))
        self._text = ""
        self._button = QtWidgets.QPushButton(self._directory)
        self._button.setIcon(self.style().standardIcon(QtWidgets.QStyle.SP_DirOpenIcon))
        _row(self, self._button)
        self._button.connect("clicked()", self.browse)

    def _show(self) -> None:
        self._button.setText(self._text or self._directory)

    def _set_directory(self, directory: str) -> None:
        if directory != self._directory:
            self._directory = directory
            self._show()
            self.directoryChanged.emit(directory)

    def _set_text(self, text: str) -> None:
        self._text = text
        self._show()

    @Slot(result=str)
    def browse(self) -> str:
        """Ask for a directory; empty when the user cancels."""
        chosen = QtWidgets.QFileDialog.getExistingDirectory(self, self.caption, self._directory)
        if chosen:
            self._set_directory(chosen)
            self.directorySelected.emit(chosen)
        return chosen

    directory = Property(str, lambda self: self._directory, _set_directory)
    text = Property(str, lambda self: self._button.text, _set_text)
    icon = forwarded(QtGui.QIcon, "_button", "icon")


@stand_in(ctk)
class ctkMessageBox(QtWidgets.QMessageBox):
    """A message box that the user may ask not to see again; the answer is kept for the box, not in the settings."""

    dontShowAgainSettingsKey = stored(str, "dontShowAgainSettingsKey", "")

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self._mark = QtWidgets.QCheckBox("Don't show this message again")
        self._mark.hide()
        self._roles: list[int] = []

    @Slot(bool)
    def setDontShowAgain(self, checked: bool) -> None:
        """Check the box for the user."""
        self._mark.setChecked(checked)

    def addDontShowAgainButtonRole(self, role: QtWidgets.QMessageBox.ButtonRole) -> None:
        """Keep the answer when a button of this role was pressed."""
        self._roles.append(role)

    def _set_visible(self, visible: bool) -> None:
        if visible and self.checkBox() is None:
            self.setCheckBox(self._mark)
        self._mark.setVisible(visible)

    dontShowAgain = Property(bool, lambda self: self._mark.checked, setDontShowAgain)
    dontShowAgainVisible = Property(bool, lambda self: not self._mark.isHidden(), _set_visible)


@stand_in(ctk)
class ctkFittedTextBrowser(QtWidgets.QTextBrowser):
    """A text browser as high as its text; of collapsible text the part before ``<!-- details -->`` when collapsed."""

    disableMouseScroll = stored(bool, "disableMouseScroll", False)
    collapsed = stored(bool, "collapsed", True, "_show")
    showDetailsText = stored(str, "showDetailsText", "Show details...")
    hideDetailsText = stored(str, "hideDetailsText", "Hide details.")

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._collapsible = ""
        self.setVerticalScrollBarPolicy(Qt.ScrollBarAlwaysOff)
        self.textChanged.connect(self._fit)

    def _show(self, *_) -> None:
        teaser, _, details = self._collapsible.partition("<!-- details -->")
        self.setHtml(teaser if self.collapsed else teaser + details)

    def collapsibleText(self) -> str:
        """The whole text."""
        return self._collapsible

    @Slot(str)
    def setCollapsibleText(self, text: str) -> None:
        """Show the text, or its first part."""
        self._collapsible = text
        self._show()

    def _fit(self) -> None:
        self.document.setTextWidth(self.viewport().width)
        self.setFixedHeight(int(self.document.size.height()) + 2 * self.frameWidth)

    def resizeEvent(self, event: QtGui.QResizeEvent) -> None:
        """The height depends on the width."""
        super().resizeEvent(event)
        self._fit()


# ---- Slicer ---------------------------------------------------------------------------------------------------------


@stand_in(slicer)
class qMRMLWidget(QtWidgets.QWidget):
    """A widget with a scene."""

    mrmlSceneChanged = Signal(object)

    @Slot(object)
    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene, and say so to what is connected."""
        if scene is not self.__dict__.get("_scene"):
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene."""
        return self.__dict__.get("_scene")


@stand_in(slicer)
class qSlicerWidget(QtWidgets.QWidget):
    """A widget with a scene that Python cannot ask for."""

    mrmlSceneChanged = Signal(object)

    @Slot(object)
    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Set the scene, and say so to what is connected."""
        if scene is not self.__dict__.get("_scene"):
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)


@stand_in(slicer)
class qMRMLNodeComboBox(QtWidgets.QWidget):
    """A choice of one of the scene's nodes. Its menu offers no actions: call `addNode` and `removeCurrentNode`."""

    currentNodeChanged = Signal((object,), (bool,))
    currentNodeIDChanged = Signal(str)
    currentNodeRenamed = Signal(str)
    nodeActivated = Signal(object)
    nodeAdded = Signal(object)
    nodeAddedByUser = Signal(object)
    nodeAddedByUserAction = Signal(object)
    nodeAboutToBeRemoved = Signal(object)
    nodeAboutToBeEdited = Signal(object)

    nodeTypes = stored("QStringList", "nodeTypes", [], "_refresh")
    showHidden = stored(bool, "showHidden", False, "_refresh")
    showChildNodeTypes = stored(bool, "showChildNodeTypes", True, "_refresh")
    hideChildNodeTypes = stored("QStringList", "hideChildNodeTypes", [], "_refresh")
    noneEnabled = stored(bool, "noneEnabled", False, "_refresh")
    noneDisplay = stored(str, "noneDisplay", "None", "_refresh")
    addEnabled = stored(bool, "addEnabled", True)
    removeEnabled = stored(bool, "removeEnabled", True)
    editEnabled = stored(bool, "editEnabled", False)
    renameEnabled = stored(bool, "renameEnabled", False)
    selectNodeUponCreation = stored(bool, "selectNodeUponCreation", True)
    baseName = stored(str, "baseName", "")
    interactionNodeSingletonTag = stored(str, "interactionNodeSingletonTag", "")
    sizeAdjustPolicy = stored(int, "sizeAdjustPolicy", 0)

    def __init__(self, parent: QtWidgets.QWidget | None = None):
        super().__init__(parent)
        self._scene: slicer.vtkMRMLScene | None = None
        self._nodes: list[slicer.vtkMRMLNode] = []
        self._required: list[tuple[str, str, str | None]] = []
        self._labels: dict[str, str] = {}
        self._reported = ""
        self._observed: list[tuple[vtk.vtkObject, int]] = []
        self._combo_box = QtWidgets.QComboBox()
        self._combo_box.setSizePolicy(QtWidgets.QSizePolicy.Expanding, QtWidgets.QSizePolicy.Fixed)
        _row(self, self._combo_box)
        self._combo_box.connect("currentIndexChanged(int)", self._report)
        self._combo_box.connect("activated(int)", self._on_activated)
        self._refresh()

    # -- The scene

    @Slot(object)
    def setMRMLScene(self, scene: slicer.vtkMRMLScene | None) -> None:
        """Offer the nodes of a scene."""
        for observed, tag in self._observed:
            observed.RemoveObserver(tag)
        self._observed.clear()
        self._scene = scene
        if scene is not None:
            for event in (scene.NodeAddedEvent, scene.NodeRemovedEvent, scene.EndBatchProcessEvent):
                self._observe(scene, event, "_refresh")
            self._observe(scene, scene.NodeAboutToBeRemovedEvent, "_on_removal")
        self._refresh()

    def mrmlScene(self) -> slicer.vtkMRMLScene | None:
        """The scene."""
        return self._scene

    def _observe(self, observed: vtk.vtkObject, event: int, method: str) -> None:
        """Call a method on an event, as long as the widget lives."""
        reference = weakref.ref(self)

        @vtk.calldata_type(vtk.VTK_OBJECT)
        def call(caller, event_name, node=None):
            widget = reference()
            if widget is not None and shiboken6.isValid(widget):
                getattr(widget, method)(node)

        self._observed.append((observed, observed.AddObserver(event, call)))

    def _on_removal(self, node: slicer.vtkMRMLNode) -> None:
        if node in self._nodes:
            self.nodeAboutToBeRemoved.emit(node)

    def _on_rename(self, _=None) -> None:
        names = [node.GetName() for node in self._nodes]
        if names != [self._combo_box.itemText(index) for index in self._node_rows()]:
            self._refresh()
            if self.currentNode() is not None:
                self.currentNodeRenamed.emit(self.currentNode().GetName())

    # -- Which nodes are offered

    def _offered(self) -> list[slicer.vtkMRMLNode]:
        if self._scene is None:
            return []
        nodes = (self._scene.GetNthNode(index) for index in range(self._scene.GetNumberOfNodes()))
        return [node for node in nodes if self._offers(node)]

    def _offers(self, node: slicer.vtkMRMLNode) -> bool:
        if node.GetHideFromEditors() and not self.showHidden:
            return False
        name = node.GetClassName()
        kinds = [kind for kind in self.nodeTypes if name == kind or (self.showChildNodeTypes and node.IsA(kind))]
        if not kinds or (name not in kinds and any(node.IsA(hidden) for hidden in self.hideChildNodeTypes)):
            return False
        required = [(attribute, value) for kind, attribute, value in self._required if node.IsA(kind)]
        return all(
            node.GetAttribute(attribute) is not None if value is None else node.GetAttribute(attribute) == value
            for attribute, value in required
        )

    def addAttribute(self, node_type: str, attribute: str, value: object = None) -> None:
        """Offer nodes of a class only if they have an attribute, of this value if one is given."""
        self.removeAttribute(node_type, attribute)
        self._required.append((node_type, attribute, None if value is None else str(value)))
        self._refresh()

    def removeAttribute(self, node_type: str, attribute: str) -> None:
        """Undo `addAttribute`."""
        self._required = [entry for entry in self._required if entry[:2] != (node_type, attribute)]
        self._refresh()

    def setNodeTypeLabel(self, label: str, node_type: str) -> None:
        """Name a node class for the user."""
        self._labels[node_type] = label

    def nodeTypeLabel(self, node_type: str) -> str:
        """A node class's name for the user."""
        return self._labels.get(node_type, "")

    # -- What is shown

    def _node_rows(self) -> range:
        first = int(self.noneEnabled)
        return range(first, first + len(self._nodes))

    def _refresh(self, *_) -> None:
        """Show the nodes as they are now, and keep the current one if it is still there."""
        current, known, offered = self.currentNode(), self._nodes, self._offered()
        added = [node for node in offered if node not in known]
        blocked = self._combo_box.blockSignals(True)
        self._nodes = offered
        self._combo_box.clear()
        self._combo_box.addItems([self.noneDisplay] * self.noneEnabled + [node.GetName() for node in offered])
        self._combo_box.setCurrentIndex(self._row_of(current) if current in offered else 0)
        self._combo_box.blockSignals(blocked)
        self._observe_names()
        for node in added:
            self.nodeAdded.emit(node)
        self._report()

    def _observe_names(self) -> None:
        """Notice when a node that is offered is renamed."""
        watched = [observed for observed, _ in self._observed]
        for observed, tag in list(self._observed):
            if observed is not self._scene and observed not in self._nodes:
                observed.RemoveObserver(tag)
                self._observed.remove((observed, tag))
        for node in self._nodes:
            if node not in watched:
                self._observe(node, vtk.vtkCommand.ModifiedEvent, "_on_rename")

    def _row_of(self, node: slicer.vtkMRMLNode | None) -> int:
        if node in self._nodes:
            return self._node_rows()[self._nodes.index(node)]
        return 0 if self.noneEnabled else -1

    def _report(self, *_) -> None:
        """Tell of the current node if it is another than before."""
        node = self.currentNode()
        node_id = "" if node is None else node.GetID()
        if node_id != self._reported:
            self._reported = node_id
            self.currentNodeChanged[object].emit(node)
            self.currentNodeChanged[bool].emit(node is not None)
            self.currentNodeIDChanged.emit(node_id)

    def _on_activated(self) -> None:
        self.nodeActivated.emit(self.currentNode())

    # -- The current node

    def currentNode(self) -> slicer.vtkMRMLNode | None:
        """The chosen node."""
        return self.nodeFromIndex(self._combo_box.currentIndex - int(self.noneEnabled))

    def nodeFromIndex(self, index: int) -> slicer.vtkMRMLNode | None:
        """The n-th node that is offered."""
        return self._nodes[index] if 0 <= index < len(self._nodes) else None

    def nodeCount(self) -> int:
        """How many nodes are offered."""
        return len(self._nodes)

    @Slot(object)
    def setCurrentNode(self, node: slicer.vtkMRMLNode | str | None) -> None:
        """Choose a node, given itself or its ID."""
        node = self._scene.GetNodeByID(node) if isinstance(node, str) and self._scene is not None else node
        self._combo_box.setCurrentIndex(self._row_of(node))

    @Slot(str)
    def setCurrentNodeID(self, node_id: str) -> None:
        """Choose a node by its ID."""
        self.setCurrentNode(node_id or None)

    @Slot(int)
    def setCurrentNodeIndex(self, index: int) -> None:
        """Choose the n-th node."""
        self.setCurrentNode(self.nodeFromIndex(index))

    def _current_id(self) -> str:
        node = self.currentNode()
        return "" if node is None else node.GetID()

    currentNodeID = Property(str, _current_id, setCurrentNodeID)
    currentNodeId = Property(str, _current_id, setCurrentNodeID)

    # -- What the real widget's menu does

    @Slot()
    def addNode(self, node_type: str | None = None) -> slicer.vtkMRMLNode:
        """Make a node, of the first class offered unless named, and choose it."""
        node_type = node_type or self.nodeTypes[0]
        name = self._scene.GenerateUniqueName(
            self.baseName or self._labels.get(node_type) or node_type[len("vtkMRML") :]
        )
        node = self._scene.AddNewNodeByClass(node_type, name)
        if self.selectNodeUponCreation:
            self.setCurrentNode(node)
        self.nodeAddedByUser.emit(node)
        self.nodeAddedByUserAction.emit(node)
        return node

    @Slot()
    def removeCurrentNode(self) -> None:
        """Remove the chosen node from the scene."""
        self._scene.RemoveNode(self.currentNode())
