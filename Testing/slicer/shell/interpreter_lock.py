"""Qt keeps Python's interpreter lock, as in Slicer: Python threads get nowhere while C++ runs or waits for events.

Slicer's main thread holds the lock throughout. Its main loop is C++, and PythonQt does not release the lock around
what Python calls, be it ``processEvents``, a dialog's ``exec`` or ``QProcess.waitForFinished``. PySide6 does, around
nearly every call, so a thread that starves in Slicer would run in the tests.

PySide6's libraries release and take the lock by two functions of Python's. Each library has a table with the addresses
of the functions that it imports; `hold` puts others in their places, which leave the lock alone. So this holds for all
of Qt's functions, of which many wait for events. What Python itself releases, `time.sleep` does for one, stays so.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import shiboken6
from PySide6 import QtCore, QtGui, QtNetwork, QtWidgets

#: The modules of Qt's that release the lock; PySide6's QtTest and QtUiTools do not.
MODULES = (QtCore, QtGui, QtWidgets, QtNetwork)
FOLDERS = frozenset(Path(module.__file__).resolve().parent for module in (QtCore, shiboken6))
#: What is called instead: the one gives the thread's state, as is expected, the other does nothing with it.
INSTEAD = {b"PyEval_SaveThread": "PyThreadState_Get", b"PyEval_RestoreThread": "Py_IsInitialized"}
#: Tags of the entries of a library's dynamic section, from <elf.h>.
DT_NULL, DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_JMPREL = 0, 2, 5, 6, 23
RELOCATION = struct.Struct("QQq")
SYMBOL_SIZE = 24
READ_AND_WRITE = 3


class _Entry(ctypes.Structure):
    """An entry of a library's dynamic section."""

    _fields_ = (("tag", ctypes.c_int64), ("value", ctypes.c_uint64))


class _Library(ctypes.Structure):
    """A loaded library: the ``link_map`` of <link.h>."""


_Library._fields_ = (
    ("base", ctypes.c_uint64),
    ("path", ctypes.c_char_p),
    ("dynamic", ctypes.POINTER(_Entry)),
    ("next", ctypes.POINTER(_Library)),
)


def hold() -> None:
    """Let PySide6 release the interpreter lock no more; calling it again changes nothing.

    Raises
    ------
    RuntimeError
        When this PySide6, or this system, is built in another way than is known here.
    """
    if sys.platform != "linux" or struct.calcsize("P") != 8:
        raise RuntimeError("PySide6 can be kept from releasing Python's lock on 64-bit Linux only.")
    held = {path for path, library in _loaded() if path.parent in FOLDERS and _replace(library)}
    if missing := [module.__name__ for module in MODULES if Path(module.__file__).resolve() not in held]:
        raise RuntimeError(
            f"{', '.join(missing)}: nothing known here releases Python's lock, so threads might run that starve in "
            f"Slicer; see {Path(__file__).name}."
        )


@contextmanager
def starving_threads(seconds: float) -> Iterator[None]:
    """Give no thread a turn between two lines of Python either, for at most this time.

    For who waits by calling the event loop again and again: Slicer's own loop runs no Python in between. A thread that
    is waiting for the lock already gets one turn.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(seconds)
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def _loaded() -> Iterator[tuple[Path, _Library]]:
    """Every loaded library, and where it lies."""
    library = _Library.from_address(ctypes.CDLL(None)._handle)
    while library.next:
        library = library.next.contents
        yield Path(library.path.decode()).resolve(), library


def _replace(library: _Library) -> bool:
    """Put what is called instead into a library's table; whether it imports all that is replaced."""
    places = {name: place for name, place in _imported(library) if name in INSTEAD}
    for name, place in places.items():
        _make_writable(place)
        instead = ctypes.cast(getattr(ctypes.pythonapi, INSTEAD[name]), ctypes.c_void_p).value
        ctypes.c_void_p.from_address(place).value = instead
    return len(places) == len(INSTEAD)


def _imported(library: _Library) -> Iterator[tuple[bytes, int]]:
    """The functions that a library imports, each with the place in memory that holds its address."""
    section = _dynamic_section(library)
    relocations = ctypes.string_at(section[DT_JMPREL], section[DT_PLTRELSZ]) if DT_JMPREL in section else b""
    for offset, info, _addend in RELOCATION.iter_unpack(relocations):
        symbol = section[DT_SYMTAB] + SYMBOL_SIZE * (info >> 32)
        name = section[DT_STRTAB] + ctypes.c_uint32.from_address(symbol).value
        yield ctypes.string_at(name), library.base + offset


def _dynamic_section(library: _Library) -> dict[int, int]:
    """The entries of a library's dynamic section by their tags."""
    entries = {}
    for entry in library.dynamic:
        if entry.tag == DT_NULL:
            break
        entries[entry.tag] = entry.value
    return entries


def _make_writable(place: int) -> None:
    """Let a place in memory be written to, as some builds of libraries do not."""
    page = place & -mmap.PAGESIZE
    if ctypes.CDLL(None).mprotect(ctypes.c_void_p(page), ctypes.c_size_t(mmap.PAGESIZE), READ_AND_WRITE) != 0:
        raise RuntimeError("The tables of PySide6's libraries cannot be changed here.")
