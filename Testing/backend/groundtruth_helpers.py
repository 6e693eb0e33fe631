"""Small studies, masks and child processes for the tests of the ground truth."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from aiassist.groundtruth import GroundTruthStore, StudyRecord
from aiassist.imaging import Geometry, MaskPatch, Volume

SHAPE = (9, 11, 13)
#: Unfinished files begin so.
UNFINISHED = ".unfinished-"


def random_volume(seed: int = 0, geometry: Geometry | None = None) -> Volume:
    """A small int16 volume of noise."""
    geometry = geometry or Geometry.from_spacing(SHAPE, (0.7, 0.8, 2.5), (10, -20, 30))
    voxels = np.random.default_rng(seed).integers(-1000, 1000, geometry.shape).astype(np.int16)
    return Volume(voxels, geometry)


def random_mask(seed: int, shape=SHAPE) -> np.ndarray:
    """Noise: hardly two seeds give the same mask."""
    return np.random.default_rng(seed).random(shape) < 0.3


def random_patch(seed: int, shape=SHAPE) -> MaskPatch:
    """`random_mask` as a patch."""
    return MaskPatch.of_mask(random_mask(seed, shape))


def store_with_study(folder: Path) -> tuple[GroundTruthStore, StudyRecord]:
    """A new store with one study called torso."""
    store = GroundTruthStore(folder)
    return store, store.add_study(random_volume(), "torso")


def unfinished_files(folder: Path) -> list[Path]:
    """What an interrupted write left behind."""
    return sorted(folder.rglob(f"{UNFINISHED}*"))


def check_whole(store: GroundTruthStore) -> int:
    """Assert that the store holds what its index says; returns the number of versions.

    Numbers of a structure rise (a killed save may leave one out), and every version has a file of its own whose voxels
    have the hash of the index.
    """
    count = 0
    for study in store.studies():
        assert store.volume(study.id).study_id == study.id
        structures: dict[str, list[int]] = {}
        for version in store.history(study.id):
            assert store.mask(version).version == version.mask
            structures.setdefault(version.structure, []).append(version.number)
            count += 1
        for numbers in structures.values():
            assert numbers == sorted(set(numbers))
    return count


def start_python(code: str, *arguments, **options) -> subprocess.Popen:
    """A child process that runs `code` and can import this module."""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    command = [sys.executable, "-c", path + code, *map(str, arguments)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf8", **options
    )


def run_python(code: str, *arguments) -> str:
    """What a child process printed; its failure fails the test."""
    child = start_python(code, *arguments)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    return out
