"""Classes that stand in for those of CTK and Slicer, held to the API that `slicer_qt_api.json` lists.

A stand-in is a PySide6 class of the same name with as much behaviour as the extension needs. Its public attributes are
those that Python code reaches in Slicer and no others: `stand_in` sees to that. Its own state has underscore names.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType, ModuleType

from PySide6 import QtCore, QtWidgets
from PySide6.QtCore import Property

from shell import pythonqt
from shell.qt_api import QtApi

pythonqt.install()
ctk = ModuleType("ctk", "Stand-ins for the widgets of the Common Toolkit.")
API = QtApi()
#: The widgets that `.ui` files may name.
ui_classes: list[type] = []


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
            ui_classes.append(cls)
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


def row(owner: QtWidgets.QWidget, *children: QtWidgets.QWidget) -> None:
    """Lay children side by side; the first takes the room that is left."""
    layout = QtWidgets.QHBoxLayout(owner)
    layout.setContentsMargins(0, 0, 0, 0)
    for child in children:
        layout.addWidget(child, 1 if child is children[0] else 0)
