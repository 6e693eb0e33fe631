"""Small networks as models, and stores with labels to learn from."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

import numpy as np
from groundtruth_helpers import random_volume
from synth_helpers import TINY

from aiassist.groundtruth import GroundTruthStore, State
from aiassist.imaging import Geometry, MaskPatch, Volume
from aiassist.segmenters.base import ModelCard
from aiassist.segmenters.model_store import ModelStore
from aiassist.synthesis.export import export_onnx
from aiassist.synthesis.training import Trainer


def add_tiny_version(models: ModelStore, name: str, seed: int = 0) -> int:
    """Add a network that has learned one step; returns its version."""
    with models.new_version(name) as (folder, number):
        for file, content in _tiny_weights(seed).items():
            (folder / file).write_bytes(content)
        card = ModelCard(name, str(number), "promptable", "A network for tests.", licence="CC0-1.0")
        (folder / "card.json").write_text(json.dumps(asdict(card)))
    return number


@cache
def _tiny_weights(seed: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        Trainer(folder, replace(TINY, steps=1, seed=seed), workers=0).run()
        export_onnx(folder / "weights.safetensors", folder / "weights.onnx")
        export_onnx(folder / "weights.safetensors", folder / "corrections.onnx", eight_bits=True)
        return {file: (folder / file).read_bytes() for file in ("weights.onnx", "corrections.onnx")}


def ellipsoid_scan(seed: int) -> tuple[Volume, np.ndarray]:
    """A bright ellipsoid in noise, of another size and place for each seed, and its mask (k, j, i)."""
    rng = np.random.default_rng(seed)
    geometry = Geometry.from_spacing((18, 30, 30), (1.0, 1.0, 2.0))
    half = rng.uniform((3, 6, 6), (5, 9, 9))
    centre = np.array([9, 15, 15]) + rng.uniform(-2, 2, 3)
    mask = sum(((x - c) / h) ** 2 for x, c, h in zip(np.indices(geometry.shape), centre, half, strict=True)) <= 1
    grey = np.where(mask, 60, 0) + rng.normal(0, 8, geometry.shape)
    return Volume(grey.astype(np.int16), geometry), mask


def store_of_ellipsoids(folder: Path, count: int, state: State = State.APPROVED) -> GroundTruthStore:
    """A store with some studies, each with one label called cyst."""
    store = GroundTruthStore(folder)
    for seed in range(count):
        volume, mask = ellipsoid_scan(seed)
        study = store.add_study(volume, f"scan {seed}")
        store.add(study.id, "cyst", MaskPatch.of_mask(mask), author="Ada", state=state)
    return store


def noise(seed: int) -> Volume:
    """A volume as `ellipsoid_scan` gives it, without an ellipsoid."""
    volume, _ = ellipsoid_scan(seed)
    grey = np.random.default_rng(seed).normal(0, 8, volume.shape)
    return Volume(grey.astype(np.int16), volume.geometry)


def patch(*voxels) -> MaskPatch:
    """A mask of some voxels (k, j, i) of a `random_volume`."""
    mask = np.zeros(random_volume().shape, bool)
    mask[voxels] = True
    return MaskPatch.of_mask(mask)
