"""What Python code can reach on the Qt classes of Slicer and CTK, and which shortcuts they take."""

from __future__ import annotations

import json
from pathlib import Path

from PySide6 import QtCore, QtGui, QtNetwork, QtWidgets

#: Read from the headers of Slicer and CTK.
FILE = Path(__file__).resolve().parents[1] / "slicer_qt_api.json"
QT_MODULES = (QtCore, QtGui, QtWidgets, QtNetwork)


class QtApi:
    """The attributes, signals and shortcuts of Slicer's Qt classes.

    Parameters
    ----------
    path : Path
        A file with the content of ``slicer_qt_api.json``.
    """

    def __init__(self, path: Path = FILE):
        content = json.loads(path.read_text(encoding="utf-8"))
        self._classes = content["classes"] | content["cpp_classes"]
        self._external_bases = content["external_bases"]
        self._common = frozenset(_name(signature) for signature in content["pythonqt_common"])
        self._shortcuts = content["shortcuts"]
        self._kinds: dict[tuple[str, str], str | None] = {}

    def __contains__(self, class_name: str) -> bool:
        return class_name in self._classes

    def allows(self, class_name: str, attribute: str) -> bool:
        """Whether ``object.attribute`` exists in Slicer for an object of the class."""
        return self.kind(class_name, attribute) is not None

    def kind(self, class_name: str, attribute: str) -> str | None:
        """What an attribute is.

        Returns
        -------
        str or None
            ``"property"``, ``"signal"``, ``"method"``, ``"enum"``, ``"common"`` (PythonQt gives it to every
            object), ``"qt"`` (of the Qt class that the class derives from), or None when Slicer has no such
            attribute. A property beats a method of the same name, also one of a derived class.

        Raises
        ------
        KeyError
            For a class that is not listed.
        """
        key = (class_name, attribute)
        if key not in self._kinds:
            self._kinds[key] = self._look_up(class_name, attribute)
        return self._kinds[key]

    def _look_up(self, class_name: str, attribute: str) -> str | None:
        chain = [self._classes[name] for name in self.bases(class_name)]
        if any(attribute in entry.get("properties", ()) for entry in chain):
            return "property"
        for entry in chain:
            if found := _member_kind(entry, attribute):
                return found
        if attribute in self._common:
            return "common"
        qt_class = self.qt_base(class_name)
        return "qt" if qt_class is not None and _qt_has(qt_class, attribute) else None

    def bases(self, class_name: str) -> list[str]:
        """The class and those of its bases that are Slicer's or CTK's, nearest first.

        Raises
        ------
        KeyError
            For a class that is not listed.
        """
        if class_name not in self._classes:
            raise KeyError(f"{class_name!r} is no Qt class of Slicer or CTK that slicer_qt_api.json lists.")
        names = []
        while class_name in self._classes:
            names.append(class_name)
            class_name = self._classes[class_name].get("base")
        return names

    def qt_base(self, class_name: str) -> type | None:
        """Qt's own class that the chain of bases ends in; None when there is none or PySide6 lacks it."""
        name = self._classes[self.bases(class_name)[-1]].get("base")
        while name in self._external_bases:
            name = self._external_bases[name]
        if not name:
            return None
        return next((getattr(module, name) for module in QT_MODULES if hasattr(module, name)), None)

    def allows_signal(self, class_name: str, signature: str) -> bool:
        """Whether a full signature such as ``"clicked(bool)"`` names a signal of the class."""
        wanted = _normalized(signature)
        listed = (text for name in self.bases(class_name) for text in self._classes[name].get("signals", ()))
        if any(_normalized(text) == wanted for text in listed):
            return True
        qt_class = self.qt_base(class_name)
        return qt_class is not None and qt_class.staticMetaObject.indexOfSignal(wanted) >= 0

    def is_cpp_only(self, class_name: str, attribute: str) -> bool:
        """Whether C++ code has the method but Python does not; to tell why an attribute is refused."""
        return any(attribute in self._classes[name].get("cpp_only", ()) for name in self.bases(class_name))

    def taken_shortcuts(self, *owners: str) -> set[str]:
        """Key sequences that Slicer uses, as it spells them; of all its parts, or of the named owners only."""
        return {entry["keys"] for entry in self._shortcuts if not owners or entry["owner"] in owners}


def _qt_has(qt_class: type, attribute: str) -> bool:
    """Whether a class of Qt has a method, signal, enumeration or property of the name."""
    return hasattr(qt_class, attribute) or qt_class.staticMetaObject.indexOfProperty(attribute) >= 0


def _member_kind(entry: dict, attribute: str) -> str | None:
    """What a class itself declares by a name, properties aside."""
    if any(_name(signature) == attribute for signature in entry.get("signals", ())):
        return "signal"
    for group in ("slots", "invokables", "decorated"):
        if any(_name(signature) == attribute for signature in entry.get(group, ())):
            return "method"
    enums = entry.get("enums", {})
    return "enum" if attribute in enums or any(attribute in keys for keys in enums.values()) else None


def _name(signature: str) -> str:
    """The name in ``"static setValue(double)"``."""
    return signature.removeprefix("static ").split("(")[0]


def _normalized(signature: str) -> str:
    """A signature as Qt compares it."""
    return QtCore.QMetaObject.normalizedSignature(signature).data().decode()
