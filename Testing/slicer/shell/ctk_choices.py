"""CTK's choices, paths and texts."""

from __future__ import annotations

from pathlib import Path

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Qt, Signal, Slot

from shell.stand_ins import ctk, forwarded, row, stand_in, stored

#: How many paths `ctkPathLineEdit` offers.
MAX_HISTORY = 5


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
    filters = stored(int, "filters", AllEntries | Readable | Executable | NoDotAndDotDot)
    options = stored(int, "options", 0)
    nameFilters = stored("QStringList", "nameFilters", [])
    settingKey = stored(str, "settingKey", "", "_on_key")
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
        row(self, self._combo_box, self._button)
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
        """Ask for a path: a file unless files are filtered out, as they are not at first; then a directory."""
        dialog = QtWidgets.QFileDialog
        if not self.filters & self.Files:
            path = dialog.getExistingDirectory(self, "Select a directory...", self.currentPath)
        else:
            ask = dialog.getSaveFileName if self.filters & self.Writable else dialog.getOpenFileName
            path = ask(self, "Select a file", self.currentPath, ";;".join(self.nameFilters))
        if path:
            self.setCurrentPath(path)

    def _on_key(self, _key: str) -> None:
        self.retrieveHistory()

    def _history(self) -> list[str]:
        """The paths in the settings, the latest first."""
        known = QtCore.QSettings().value(self._history_key()) or []
        return [known] if isinstance(known, str) else list(known)  # a list of one is a text in the settings file

    def _history_key(self) -> str:
        return f"ctkPathLineEdit/{self.settingKey or self.objectName}"

    @Slot()
    def retrieveHistory(self) -> None:
        """Offer the paths in the settings; where there is no path yet, the latest of them is chosen."""
        path = self.currentPath
        self._combo_box.clear()
        self._combo_box.addItems(self._history()[:MAX_HISTORY])
        if path:
            self.setCurrentPath(path)

    @Slot()
    def addCurrentPathToHistory(self) -> None:
        """Offer the path first in the list from now on, and keep it in the settings."""
        path = self.currentPath
        if not path:
            return
        QtCore.QSettings().setValue(self._history_key(), [path, *(one for one in self._history() if one != path)])
        self._combo_box.removeItem(self._combo_box.findText(path))
        while self._combo_box.count >= MAX_HISTORY:
            self._combo_box.removeItem(self._combo_box.count - 1)
        self._combo_box.insertItem(0, path)
        self._combo_box.setCurrentIndex(0)

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
        row(self, self._button)
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
