"""The controllers of the extension: plain Python over MRML and the backend.

Only files named ``*_qt.py`` know Qt. The package ``aiassist`` lies beside this one when the extension
is installed, and in ``backend/`` in a checkout.
"""

import importlib.util
import sys
from pathlib import Path

if importlib.util.find_spec("aiassist") is None:
    sys.path.append(str(Path(__file__).parents[2] / "backend"))
