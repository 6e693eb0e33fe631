"""The tutorial's pictures of panel and views show what the extension does today."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

HERE = Path(__file__).parent
PICTURES = HERE.parents[1] / "docs" / "pictures"
#: Mean difference of grey levels that fonts, and the time of a save, may make.
LIKE = 6.0


@pytest.mark.heavy
def test_each_step_of_the_tutorial_looks_as_its_picture_in_the_docs(tmp_path):
    done = subprocess.run(
        [sys.executable, HERE / "draw_tutorial.py", tmp_path], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    kept = sorted(PICTURES.glob("slicer-*.png"))
    assert [path.name for path in kept] == sorted(path.name for path in tmp_path.glob("slicer-*.png"))
    for path in kept:
        drawn, known = (np.asarray(Image.open(p).convert("L"), float) for p in (tmp_path / path.name, path))
        assert drawn.shape == known.shape, path.name
        assert np.abs(drawn - known).mean() < LIKE, path.name
