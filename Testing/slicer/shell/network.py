"""Since Qt 6.7 PythonQt turns what names a header into text as ``str()`` does: bytes name one that is not there."""

from __future__ import annotations

from PySide6.QtNetwork import QNetworkReply

_read = QNetworkReply.rawHeader


def install() -> None:
    """Change ``QNetworkReply.rawHeader``."""
    QNetworkReply.rawHeader = lambda self, name: _read(self, str(name))
