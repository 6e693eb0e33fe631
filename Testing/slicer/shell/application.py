"""Slicer's application without its window: a real scene, real module logics, and stand-ins for what holds them."""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import qt
import slicer
import vtk
from PySide6.QtCore import Signal

from shell.stand_ins import stand_in, stored

#: The logics of Slicer's own modules that the extension, or Slicer's logics themselves, ask for.
LOGICS = (
    ("Colors", "vtkMRMLColorLogic"),
    ("Markups", "vtkSlicerMarkupsLogic"),
    ("Volumes", "vtkSlicerVolumesLogic"),
    ("Terminologies", "vtkSlicerTerminologiesModuleLogic"),
    ("Segmentations", "vtkSlicerSegmentationsModuleLogic"),
    ("SubjectHierarchy", "vtkSlicerSubjectHierarchyModuleLogic"),
    ("Data", "vtkSlicerDataModuleLogic"),
)
#: What a module says of itself.
PROPERTIES = (
    *("title", "categories", "contributors", "associatedNodeTypes", "helpText", "acknowledgementText", "extensions"),
    *("icon", "hidden", "dependencies", "index", "name", "path"),
)


class Application:
    """A started application: ``slicer.mrmlScene``, ``slicer.app``, ``slicer.modules``.

    Parameters
    ----------
    folder : Path
        Where settings and temporary files go.
    home : Path, optional
        Where Slicer is installed; a folder that is not there when absent.
    """

    def __init__(self, folder: Path, home: Path | None = None):
        self.folder = Path(folder)
        self.scene = slicer.vtkMRMLScene()
        crosshair = slicer.vtkMRMLCrosshairNode()
        crosshair.SetCrosshairName("default")
        self.scene.AddNode(crosshair)
        self.logic = slicer.vtkSlicerApplicationLogic()
        self.logic.SetMRMLScene(self.scene)
        self.logic.GetColorLogic().SetMRMLScene(self.scene)
        self.logic.GetColorLogic().AddDefaultColorNodes()
        self.logic.SetSliceLogics(vtk.vtkCollection())
        self.logic.SetViewLogics(vtk.vtkCollection())
        self.logics = {name: self._module_logic(name, kind) for name, kind in LOGICS}
        slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(self.scene, True)
        slicer.mrmlScene = self.scene
        self.modules: dict[str, object] = {}
        slicer.modules = types.SimpleNamespace(
            **{name.lower(): _CoreModule(logic) for name, logic in self.logics.items()}
        )
        slicer.app = qSlicerApplication()
        slicer.app._shell = self
        slicer.app._slicerHome = str(home if home is not None else self.folder / "home")
        slicer.app._slicerUserSettingsFilePath = str(self.folder / "settings" / "Slicer.ini")
        qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
        qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, str(self.folder / "settings"))
        self.window = None

    def _module_logic(self, name: str, kind: str):
        logic = getattr(slicer, kind)()
        if hasattr(logic, "SetModuleShareDirectory"):
            logic.SetModuleShareDirectory(str(self.folder / name))
        logic.SetMRMLScene(self.scene)
        logic.SetMRMLApplicationLogic(self.logic)
        self.logic.SetModuleLogic(name, logic)
        return logic

    def load_module(self, path: Path):
        """Load a scripted module as Slicer does; its widget is made when it is first asked for."""
        name = path.stem
        sys.path.insert(0, str(path.parent))
        spec = importlib.util.spec_from_file_location(name, path)
        python = importlib.util.module_from_spec(spec)
        sys.modules[name] = python
        spec.loader.exec_module(python)
        module = slicer.qSlicerScriptedLoadableModule()
        module._name, module._path, module._python = name, str(path), python
        self.modules[name] = module
        setattr(slicer.modules, name.lower(), module)
        module._instance = getattr(python, name)(module)
        setattr(slicer.modules, f"{name}Instance", module._instance)
        return module

    def open_window(self):
        """Open a main window, which a Slicer started with ``--no-main-window`` lacks."""
        self.window = slicer.qSlicerMainWindow()
        self.window.setObjectName("qSlicerMainWindow")
        self.window.show()
        return self.window

    def start(self) -> None:
        """Tell the modules that the start is complete."""
        slicer.app.startupCompleted.emit()

    def stop(self) -> None:
        """Leave as Slicer does."""
        slicer.app.aboutToQuit.emit()
        for module in self.modules.values():
            if module._widget is not None:
                module._widget._python_self.cleanup()


class _CoreModule:
    def __init__(self, logic):
        self._logic = logic

    def logic(self):
        return self._logic


@stand_in(slicer)
class qSlicerMainWindow(qt.QMainWindow):
    pass


@stand_in(slicer)
class qSlicerScriptedLoadableModule(qt.QObject):
    """What a module's ``parent`` is."""

    for _name in PROPERTIES:
        vars()[_name] = stored("QVariant", _name, None)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._widget = self._instance = self._python = None

    def widgetRepresentation(self):
        """The module's widget; made at the first call, as Slicer does."""
        if self._widget is None:
            widget = slicer.qSlicerScriptedLoadableModuleWidget()
            widget.setLayout(qt.QVBoxLayout())
            widget.setMRMLScene(slicer.mrmlScene)
            self._widget = widget
            widget._python_self = getattr(self._python, f"{self._name}Widget")(widget)
            widget._python_self.setup()
        return self._widget

    def logic(self):
        return None


@stand_in(slicer)
class qSlicerScriptedLoadableModuleWidget(slicer.qMRMLWidget):
    def self(self):
        return self._python_self


@stand_in(slicer)
class qSlicerModuleManager(qt.QObject):
    moduleAboutToBeUnloaded = Signal(str)
    moduleLoaded = Signal(str)

    def module(self, name):
        return slicer.app._shell.modules.get(name)


@stand_in(slicer)
class qSlicerApplication(qt.QObject):
    startupCompleted = Signal()
    aboutToQuit = Signal()
    slicerHome = stored("QString", "slicerHome", "")
    slicerUserSettingsFilePath = stored("QString", "slicerUserSettingsFilePath", "")
    majorVersion = stored(int, "majorVersion", 5)
    minorVersion = stored(int, "minorVersion", 12)

    def __init__(self, parent=None):
        super().__init__(parent)
        self._manager = qSlicerModuleManager()
        self._layout = None
        self._shell = None
        self._testing = True

    def testingEnabled(self):
        return self._testing

    def processEvents(self):
        qt.QApplication.processEvents()

    def moduleManager(self):
        return self._manager

    def pauseRender(self):
        pass

    def resumeRender(self):
        pass

    def applicationLogic(self):
        return self._shell.logic

    def mrmlScene(self):
        return self._shell.scene

    def layoutManager(self):
        return self._layout

    def topLevelWidgets(self):
        return [self._shell.window] if self._shell.window is not None else []

    def setOverrideCursor(self, cursor):
        pass

    def restoreOverrideCursor(self):
        pass

    def translate(self, context, text):
        return text
