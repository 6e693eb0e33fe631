"""CTK's sections: a header that hides and shows what is below it."""

from __future__ import annotations

import shiboken6
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal, Slot

from shell.stand_ins import ctk, stand_in, stored


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
