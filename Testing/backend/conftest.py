"""What the tests share: the bundled sample, the real command line, NIfTI files of any kind."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # test processes that share the cores would wait for each other's threads

import resource
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from groundtruth_helpers import store_with_study
from hypothesis import HealthCheck, settings
from server_helpers import Server

from aiassist.imaging import Volume, read_labelmap, read_volume
from aiassist.prompts import Prompts, extreme_points

# The same examples on every run, however busy the machine is.
settings.register_profile(
    "backend", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("backend")

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status and the texts it printed."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="session")
def sample_folder() -> Path:
    """The bundled CT with its labels."""
    return ROOT / "Resources" / "SampleData" / "ts_ct_torso"


@pytest.fixture(scope="session")
def volume(sample_folder) -> Volume:
    """The bundled CT."""
    return read_volume(sample_folder / "image.nii.gz")


@pytest.fixture(scope="session")
def labelmap(sample_folder, volume) -> Volume:
    """The labels of the bundled CT."""
    return read_labelmap(sample_folder / "label.nii.gz", like=volume)


@pytest.fixture(scope="session")
def run_python():
    """Run Python in a process of its own; `largest_file` (bytes) stands for a full disk."""

    def run(*arguments, largest_file: int | None = None, cwd: Path | None = None) -> Outcome:
        def full_disk():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        done = subprocess.run(
            [sys.executable, *map(str, arguments)],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            encoding="utf8",
            cwd=cwd,
            timeout=60,
            preexec_fn=full_disk if largest_file is not None else None,
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def run_cli(run_python):
    """Run ``python -m aiassist.cli`` with these arguments in a process of its own."""

    def run(*arguments, **limits) -> Outcome:
        return run_python("-m", "aiassist.cli", *arguments, **limits)

    return run


@pytest.fixture(scope="session")
def write_nifti():
    """Write voxels ``(i, j, k)`` with nibabel, and change bytes of the header where asked."""

    def write(path: Path, voxels: np.ndarray, affine_ras=None, patches: dict[int, bytes] | None = None) -> Path:
        affine = np.diag([-1.0, -1.0, 1.0, 1.0]) if affine_ras is None else np.asarray(affine_ras, dtype=float)
        header = nibabel.Nifti1Header(endianness="<" if voxels.dtype.isnative else ">")
        header.set_data_dtype(voxels.dtype)
        image = nibabel.Nifti1Image(voxels, affine, header)
        image.set_sform(affine, code="scanner")
        if patches:
            data = bytearray(image.to_bytes())
            for offset, value in patches.items():
                data[offset : offset + len(value)] = value
            opener = nibabel.openers.Opener(str(path), "wb")
            with opener as file:
                file.write(bytes(data))
        else:
            nibabel.save(image, path)
        return Path(path)

    return write


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """A server process that all tests share which do not change it."""
    with Server(tmp_path_factory.mktemp("studies")) as running:
        yield running


@pytest.fixture
def backend(server):
    """A client of that server."""
    with server.backend() as remote:
        yield remote


@pytest.fixture(scope="session")
def spleen(labelmap):
    """The spleen of the bundled CT."""
    return labelmap.voxels == 1


@pytest.fixture(scope="session")
def prompts(spleen):
    """Six points on the spleen."""
    return Prompts(extreme_points=extreme_points(spleen, np.random.default_rng(0)))


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Weights of a very small network after a few steps, as training leaves them."""
    from synth_helpers import TINY

    from aiassist.synthesis.training import Trainer

    folder = tmp_path_factory.mktemp("run")
    Trainer(folder, replace(TINY, steps=2), workers=0).run()
    return folder / "weights.safetensors"


@pytest.fixture
def store(tmp_path):
    """A store of ground truth with one study called torso."""
    with store_with_study(tmp_path / "studies")[0] as made:
        yield made


@pytest.fixture
def study(store):
    """The id of that study."""
    return store.study("torso").id
