"""PySide6 takes the names of headers as text where PythonQt takes bytes: makes it take bytes, and bytes only."""

from __future__ import annotations

from PySide6.QtNetwork import QNetworkReply

_read = QNetworkReply.rawHeader


def install() -> None:
    """Change ``QNetworkReply.rawHeader``."""
    QNetworkReply.rawHeader = _raw_header


def _raw_header(self, name: bytes):
    if not isinstance(name, bytes):
        raise TypeError(f"rawHeader() takes bytes, not {type(name).__name__}")
    return _read(self, name.decode())
