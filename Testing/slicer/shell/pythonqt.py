"""Module `qt` as Slicer's Python sees it: PySide6 with PythonQt's semantics, and stricter where a mistake would pass.

Slicer wraps Qt by PythonQt, which differs from PySide6: properties are attributes and not methods, signals are named
by their C++ signature, enumerations are unscoped, no attribute can be added to a C++ object, and no call of Qt's lets
Python threads run. `install` patches PySide6's classes in place, so code that runs here runs in Slicer, and code that
would fail there fails here.
"""

from __future__ import annotations

import ctypes
import enum
import inspect
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FunctionType, MethodType, ModuleType

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtUiTools, QtWidgets
from PySide6.QtCore import SIGNAL, SLOT, QMetaObject, QObject

from shell import interpreter_lock

QT_MODULES = (QtCore, QtGui, QtWidgets, QtUiTools, QtNetwork)
#: PySide6's own helpers, which PythonQt has not or spells differently.
PYSIDE_ONLY = frozenset(["ClassInfo", "QEnum", "QFlag", "SIGNAL", "SLOT", "SignalInstance"])
#: In C++ a MRML class, in PySide6 any Python object.
PYTHON_OBJECT = "PyObject"

#: Exceptions raised in slots, timers and overridden Qt methods. PythonQt prints and forgets them; tests assert that
#: there are none.
slot_errors: list[BaseException] = []

_loading = False
#: Shiboken's own attribute assignment.
_store = shiboken6.Object.__setattr__
_qt = ModuleType("qt", "Qt, as Slicer's Python sees it.")


def install() -> ModuleType:
    """Patch PySide6 and make the result importable as ``qt``; calling it again changes nothing.

    Returns
    -------
    module
        The module ``qt``.
    """
    if sys.modules.get("qt") is not _qt:
        interpreter_lock.hold()
        for module in reversed(QT_MODULES):  # the namespace Qt is in two modules; QtCore's holds the enumerations
            names = [name for name in dir(module) if not name.startswith("_") and name not in PYSIDE_ONLY]
            vars(_qt).update({name: getattr(module, name) for name in names})
        _patch_classes([value for value in vars(_qt).values() if inspect.isclass(value)])
        _patch_functions()
        _collect_uncaught()
        _keep_none_alive()
        sys.modules["qt"] = _qt
    return _qt


def _keep_none_alive() -> None:
    """Give None many references: some calls lose one each, and Python before 3.12 aborts when none is left."""
    ctypes.c_ssize_t.from_address(id(None)).value += 10**9


def application() -> QtWidgets.QApplication:
    """The one Qt application, made on the first call; ``QT_QPA_PLATFORM`` must be set before."""
    return QtWidgets.QApplication.instance() or QtWidgets.QApplication(["slicer"])


def is_cpp_object(thing: object) -> bool:
    """Whether an object's class is Qt's own and not derived from it in Python."""
    return type(thing).__module__.startswith("PySide6.")


# ---- Attributes -----------------------------------------------------------------------------------------------------


class MetaProperty:
    """One of Qt's properties as an attribute; on the class it is the C++ method of the same name, if there is one."""

    def __init__(self, name: str, method: object = None):
        self._name = name
        self._method = method
        self._reading: set[int] = set()

    def __get__(self, instance, owner):
        if instance is None or id(instance) in self._reading:
            return self._bound(instance, owner)
        # For a virtual method Qt asks for its override, by this very attribute: answer with the method then.
        self._reading.add(id(instance))
        try:
            return instance.property(self._name)
        finally:
            self._reading.discard(id(instance))

    def _bound(self, instance, owner):
        if self._method is None:
            raise AttributeError(f"{owner.__name__}.{self._name} is a property; read it from an object.")
        return self._method.__get__(instance, owner)

    def __set__(self, instance, value):
        set_property(instance, self._name, value)


def set_property(instance: QObject, name: str, value: object) -> None:
    """Write a property; `AttributeError` when it cannot be written or does not take the value."""
    described = instance.metaObject().property(instance.metaObject().indexOfProperty(name))
    if not described.isWritable():
        raise AttributeError(f"Property '{name}' of {instance.className()} object is not writable")
    if not QObject.setProperty(instance, name, value):
        raise AttributeError(
            f"Property '{name}' of type '{described.typeName()}' does not accept an object of type "
            f"{type(value).__name__} ({value!r})"
        )


def _patch_classes(classes: list[type]) -> None:
    """Give PythonQt's semantics to Qt's classes, bases first."""
    for cls in classes:
        _unscope_enumerations(cls)
    # PySide6 finds connect, disconnect and a few other methods in C, past any patch; so each such lookup is wrapped.
    lookups = {cls: vars(cls)["__getattribute__"] for cls in classes if "__getattribute__" in vars(cls)}
    for cls in sorted(classes, key=lambda cls: len(cls.__mro__)):
        if not issubclass(cls, QObject):
            if issubclass(cls, shiboken6.Object):
                cls.__setattr__ = _set_value_attribute
            continue
        patch_properties(cls)
        cls.__setattr__ = _set_attribute
        if cls in lookups or cls is QObject:
            cls.__getattribute__ = _lookup(lookups.get(cls, QObject.__getattribute__))
        if "exec_" in vars(cls):
            cls.exec_ = vars(cls)["exec"]  # PySide6's own exec_ warns
    QObject.name = MetaProperty("objectName")
    QObject.className = lambda self: self.metaObject().className()
    QObject.delete = lambda self: shiboken6.delete(self)


def _unscope_enumerations(cls: type) -> None:
    """Leave the members of a class's enumerations on the class alone: ``Qt.Checked``, not ``Qt.CheckState.Checked``."""
    enumerations = {name: value for name, value in vars(cls).items() if isinstance(value, enum.EnumType)}
    for name, enumeration in enumerations.items():
        for key, member in enumeration.__members__.items():
            if key not in vars(cls):
                setattr(cls, key, member)
        content = {"_enumeration": enumeration, "__module__": enumeration.__module__}
        setattr(cls, name, _Enumeration(name, (), content))


class _Enumeration(type):
    """The class of an enumeration, which converts numbers to members and does not show the members itself."""

    def __call__(cls, value):
        return cls._enumeration(value)

    def __instancecheck__(cls, instance):
        return isinstance(instance, cls._enumeration)

    def __getattr__(cls, name: str):
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("shibokensupport"):  # PySide6 when it words its error messages
            return getattr(cls._enumeration, name)
        raise AttributeError(f"PythonQt has no scoped enumerations: leave out '{cls.__name__}.' before '{name}'.")


def patch_properties(cls: type[QObject]) -> None:
    """Make the Qt properties of a class attributes: its own, and inherited ones that a method of the class hides."""
    meta = cls.staticMetaObject
    for index in range(meta.propertyCount()):
        name = meta.property(index).name()
        method = inspect.getattr_static(cls, name, None)
        if isinstance(method, QtCore.Property | MetaProperty | FunctionType):
            continue  # a stand-in's own
        if index >= meta.propertyOffset() or name in vars(cls):
            setattr(cls, name, MetaProperty(name, method))


def _lookup(original: Callable) -> Callable:
    """A class's attribute lookup, with string signals and dynamic properties."""

    def lookup(self, name: str):
        if name == "connect":
            return MethodType(_connect, self)
        if name == "disconnect":
            return MethodType(_disconnect, self)
        try:
            return original(self, name)
        except AttributeError:
            if has_dynamic_property(self, name):
                return QObject.property(self, name)
            raise

    return lookup


def has_dynamic_property(instance: QObject, name: str) -> bool:
    """Whether a property was added to an object, as `.ui` files can do."""
    return name.encode() in [bytes(known.data()) for known in QObject.dynamicPropertyNames(instance)]


def _set_attribute(self, name: str, value: object) -> None:
    """Attribute assignment: properties are written, slots stay, new attributes are for Python classes only."""
    if is_child_attribute(name, value):
        return
    known = inspect.getattr_static(type(self), name, None)
    if isinstance(known, MetaProperty | QtCore.Property):
        set_property(self, name, value)
    elif hasattr(type(known), "__set__"):
        known.__set__(self, value)
    elif has_dynamic_property(self, name):
        QObject.setProperty(self, name, value)
    elif _is_cpp_member(type(self), name):
        raise AttributeError(f"'{name}' can not be overwritten on {self.className()} object")
    elif is_cpp_object(self):
        raise AttributeError(_no_new_attribute(self.className(), name))
    else:
        _store(self, name, value)


def _set_value_attribute(self, name: str, value: object) -> None:
    """Attribute assignment on Qt's value classes, such as QPoint."""
    if is_cpp_object(self) and not hasattr(type(inspect.getattr_static(type(self), name, None)), "__set__"):
        raise AttributeError(_no_new_attribute(type(self).__name__, name))
    _store(self, name, value)


@contextmanager
def without_child_attributes() -> Iterator[None]:
    """Keep PySide6's `.ui` loader from making each child widget an attribute of the loaded one; Slicer's does not."""
    global _loading
    before, _loading = _loading, True  # a widget of one file may load another, as Slicer's editor does
    try:
        yield
    finally:
        _loading = before


def is_child_attribute(name: str, value: object) -> bool:
    """Whether this assignment comes from PySide6's `.ui` loader, see `without_child_attributes`."""
    return _loading and isinstance(value, QObject) and QObject.property(value, "objectName") == name


def _is_cpp_member(cls: type, name: str) -> bool:
    """Whether Qt's own classes define the name."""
    return any(name in vars(base) for base in cls.__mro__ if base.__module__.startswith("PySide6."))


def _no_new_attribute(class_name: str, name: str) -> str:
    return f"'{name}' does not exist on {class_name} and creating new attributes on C++ objects is not allowed"


# ---- Signals --------------------------------------------------------------------------------------------------------

#: Python receivers by sender (its address in C++) and signature, each with the function that Qt calls for it.
_receivers: dict[tuple[int, str], list[tuple[Callable, Callable]]] = {}


def _connect(self, signal, receiver=None, slot=None, *more):
    """``connect("clicked(bool)", function)`` or ``connect("clicked()", receiver, "accept()")``.

    Raises
    ------
    ValueError
        When sender or receiver has no such signal or slot with exactly this signature.
    """
    if isinstance(signal, QObject):  # PySide6's own code, such as that of QTimer
        return QObject.connect(*[argument for argument in (signal, receiver, slot, *more) if argument is not None])
    signature = _signal(self, signal)
    if slot is not None:
        return bool(QObject.connect(self, SIGNAL(signature), receiver, SLOT(_slot(receiver, slot))))
    if not callable(receiver):
        raise TypeError(f"{self.className()}.connect({signal!r}, ...) needs something to call, not {receiver!r}.")
    relay = _relay(receiver)
    QObject.connect(self, SIGNAL(signature), relay)
    _remember(self, signature, receiver, relay)
    return True


def _disconnect(self, signal, receiver=None, slot=None):
    """``disconnect("clicked(bool)"[, function])`` or ``disconnect("clicked()", receiver, "accept()")``.

    Returns
    -------
    bool
        Whether anything was connected.
    """
    if isinstance(signal, QObject):
        return QObject.disconnect(signal, receiver, slot)
    signature = _signal(self, signal)
    if slot is not None:
        return bool(QObject.disconnect(self, SIGNAL(signature), receiver, SLOT(_slot(receiver, slot))))
    connected = _receivers.get((_address(self), signature), [])
    leaving = [pair for pair in connected if receiver is None or pair[0] == receiver]
    for pair in leaving:
        QObject.disconnect(self, SIGNAL(signature), pair[1])
        connected.remove(pair)
    return bool(leaving)


def _signal(sender: QObject, signature: str) -> str:
    """The signature as PySide6 declares it; `ValueError` when the sender has no such signal."""
    normalized = QMetaObject.normalizedSignature(signature).data().decode()
    listed = getattr(type(sender), "_allows_signal", lambda _: True)
    declared = declared_signature(normalized)
    if "(" not in normalized or not listed(normalized) or sender.metaObject().indexOfSignal(declared) < 0:
        raise ValueError(
            f"{sender.className()} has no signal '{signature}'; write its full signature, as in 'clicked(bool)'."
        )
    return declared


def _slot(receiver: QObject, signature: str) -> str:
    """The signature as PySide6 declares it; `ValueError` when the receiver has no such slot."""
    declared = declared_signature(QMetaObject.normalizedSignature(signature).data().decode())
    if receiver.metaObject().indexOfMethod(declared) < 0:
        raise ValueError(f"{receiver.className()} has no slot '{signature}'.")
    return declared


def declared_signature(signature: str) -> str:
    """A C++ signature with VTK's pointers as what stand-ins declare for them: any Python object."""
    name, _, types = signature.removesuffix(")").partition("(")
    kinds = [PYTHON_OBJECT if kind.startswith("vtk") else kind for kind in types.split(",")]
    return f"{name}({','.join(kinds)})"


def _remember(sender: QObject, signature: str, receiver: Callable, relay: Callable) -> None:
    """Keep a connection, to find it when the receiver is disconnected, until the sender is destroyed."""
    address = _address(sender)
    if not any(known == address for known, _ in list(_receivers)):  # garbage that goes now forgets its own
        QObject.connect(sender, SIGNAL("destroyed()"), lambda: _forget(address))
    _receivers.setdefault((address, signature), []).append((receiver, relay))


def _forget(address: int) -> None:
    for key in [key for key in list(_receivers) if key[0] == address]:
        del _receivers[key]


def _address(instance: QObject) -> int:
    return shiboken6.getCppPointer(instance)[0]


def _relay(receiver: Callable) -> Callable:
    """What Qt calls: passes as many arguments as the receiver has parameters, and keeps what it raises."""
    count = positional_count(receiver)

    def relay(*arguments):
        try:
            receiver(*arguments[:count])
        except Exception as error:  # noqa: BLE001 - PythonQt prints whatever a slot raises
            _report(error)

    return relay


def positional_count(receiver: Callable) -> int | None:
    """How many of a signal's arguments PythonQt passes on, defaulted parameters included; None for all of them.

    Only plain functions and methods are counted; anything else, such as `functools.partial`, gets all arguments.
    """
    function = getattr(receiver, "__func__", receiver)
    if not isinstance(function, FunctionType) or function.__code__.co_flags & inspect.CO_VARARGS:
        return None
    return function.__code__.co_argcount - isinstance(receiver, MethodType)


def _report(error: BaseException) -> None:
    """Print an exception, as PythonQt does, and keep it for the tests."""
    slot_errors.append(error)
    traceback.print_exception(error)


def _collect_uncaught() -> None:
    """Keep also the exceptions of overridden Qt methods, which PySide6 hands to `sys.excepthook`."""
    previous = sys.excepthook

    def hook(kind, error, trace):
        slot_errors.append(error)
        previous(kind, error, trace)

    sys.excepthook = hook


# ---- Single functions that differ -----------------------------------------------------------------------------------


def _patch_functions() -> None:
    """Functions whose results or arguments PythonQt changes."""
    QtCore.QTimer.singleShot = staticmethod(_single_shot(QtCore.QTimer.singleShot))
    for name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName"):
        setattr(QtWidgets.QFileDialog, name, staticmethod(_first_result(getattr(QtWidgets.QFileDialog, name))))
    for name in ("getText", "getMultiLineText", "getInt", "getDouble", "getItem"):
        setattr(QtWidgets.QInputDialog, name, staticmethod(_refused(f"QInputDialog.{name}")))


def _single_shot(original: Callable) -> Callable:
    """``singleShot(ms, function)`` and ``singleShot(ms, receiver, "slot()")``."""

    def single_shot(milliseconds: int, receiver, slot: str | None = None):
        if slot is not None:
            return original(milliseconds, receiver, SLOT(_slot(receiver, slot)))
        return original(milliseconds, _relay(receiver))

    return single_shot


def _first_result(original: Callable) -> Callable:
    """A file dialog that returns what was chosen, without the filter."""
    return lambda *arguments: original(*arguments)[0]


def _refused(function: str) -> Callable:
    """A function that says in a bool behind a pointer whether the user cancelled, which Python cannot read."""

    def refuse(*_):
        raise NotImplementedError(f"{function} returns the answer without telling whether it was cancelled.")

    return refuse
