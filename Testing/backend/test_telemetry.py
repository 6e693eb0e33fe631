"""Nothing leaves the computer by the libraries that run models."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

PROGRAM = """
import time
from aiassist.engine import LocalBackend
with LocalBackend() as backend:
    backend.warm_up().result(60)
    time.sleep(12)
"""


def test_the_name_by_which_telemetry_is_switched_off_is_still_known():
    libraries = Path(onnxruntime.__file__).parent.rglob("onnxruntime_pybind11_state*")
    telling = [file for file in libraries if b"telemetry_1ds" in file.read_bytes()]
    assert telling and all(b"ORT_DISABLE_TELEMETRY" in file.read_bytes() for file in telling)
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"


@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
def test_running_a_model_asks_for_no_address(tmp_path):
    trace = tmp_path / "trace"
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    command = ["strace", "-f", "-qq", "-e", "trace=connect", "-o", str(trace), sys.executable, "-c", PROGRAM]
    subprocess.run(command, check=True, env=clean, timeout=120)
    assert re.findall(r"htons\((?:53|80|443)\)", trace.read_text()) == []
