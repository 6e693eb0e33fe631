"""What the tests of other programs' clients share."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "backend"))

from server_helpers import Server  # noqa: E402

from aiassist.imaging import Volume, read_labelmap, read_volume, write_volume  # noqa: E402

SAMPLE = ROOT / "Resources" / "SampleData" / "ts_ct_torso"


@pytest.fixture(scope="session")
def volume() -> Volume:
    """The bundled CT."""
    return read_volume(SAMPLE / "image.nii.gz")


@pytest.fixture(scope="session")
def spleen(volume) -> np.ndarray:
    """The spleen in it."""
    return read_labelmap(SAMPLE / "label.nii.gz", volume).voxels == 1


@pytest.fixture(scope="session")
def image_file() -> Path:
    """The bundled CT's file."""
    return SAMPLE / "image.nii.gz"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server process."""
    with Server(tmp_path_factory.mktemp("studies")) as running:
        yield running


@pytest.fixture
def mask_file(tmp_path, volume, spleen) -> Path:
    """The spleen as a labelmap file."""
    path = tmp_path / "mask.nii.gz"
    write_volume(path, Volume(spleen.astype(np.uint8), volume.geometry))
    return path
