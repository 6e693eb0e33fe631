"""Structures cut out of their studies, with what lies around them: what training reads, quickly and often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from aiassist.files import whole_file
from aiassist.imaging import Region, Volume, finite
from aiassist.segmenters.cube import Cube
from aiassist.synthesis.scanner import Scan

#: Around the network's cube over a structure, this share of the cube's side is kept.
AROUND = 0.2
#: Cells along the cube's side; two voxels for each are enough.
CELLS = 48
#: Of a structure of which fewer voxels than this would be left, all are kept.
FEW = 200


def write_crop(path: Path, volume: Volume, mask: np.ndarray) -> None:
    """Write a structure's surroundings to a file, whole or not at all.

    Parameters
    ----------
    path : Path
        Ends in ``.npz``.
    volume : Volume
    mask : numpy.ndarray
        Bool ``(k, j, i)``, not empty: the structure.
    """
    box, spacing = Region.of_mask(mask), np.array(volume.geometry.spacing_kji)
    cube = Cube.around(np.array(box.start) - 0.5, np.array(box.stop) - 0.5, mask.shape, spacing, CELLS)
    around = AROUND * (cube.high - cube.low)
    region = Region(
        tuple(np.floor(cube.low - around).astype(int)), tuple(np.ceil(cube.high + around).astype(int))
    ).clip(mask.shape)
    steps = np.maximum(cube.cell // 2, 1).astype(int)
    if mask[region.slices][_every(steps)].sum() < FEW:
        steps = np.ones(3, int)
    voxels, truth = volume.voxels[region.slices][_every(steps)], mask[region.slices][_every(steps)]
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            voxels=finite(voxels) if voxels.dtype.kind == "f" else voxels,
            truth=np.packbits(truth),
            shape=np.array(truth.shape),
            spacing=spacing * steps,
        )


def _every(steps: np.ndarray) -> tuple[slice, ...]:
    return tuple(slice(step // 2, None, step) for step in steps)


def read_crop(path: Path) -> Scan:
    """A crop as training takes it, with the structure in it as the target."""
    with np.load(path) as held:
        shape = tuple(held["shape"].tolist())
        truth = np.unpackbits(held["truth"], count=int(np.prod(shape))).reshape(shape).astype(bool)
        voxels = torch.from_numpy(held["voxels"].astype(np.float32))
        return Scan(voxels, torch.from_numpy(truth), tuple(held["spacing"].tolist()), cut=False, family="label")
