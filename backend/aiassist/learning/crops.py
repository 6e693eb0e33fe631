"""Structures cut out of their studies, with what lies around them: what training reads, quickly and often."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from aiassist.files import whole_file
from aiassist.imaging import Region, Volume, finite
from aiassist.synthesis.scanner import Scan

#: Around a structure, this share of its longest side is kept.
AROUND = 0.4
#: About so many voxels along a structure's side are kept: two for each cell of the network.
ENOUGH = 80


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
    spacing = np.array(volume.geometry.spacing_kji)
    box = Region.of_mask(mask)
    region = box.grow(AROUND * float((np.array(box.shape) * spacing).max()), tuple(spacing)).clip(mask.shape)
    steps = np.maximum(np.rint(np.array(box.shape) / ENOUGH), 1).astype(int)
    few = tuple(slice(step // 2, None, step) for step in steps)
    voxels = volume.voxels[region.slices][few]
    truth = mask[region.slices][few]
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(
            file,
            voxels=finite(voxels) if voxels.dtype.kind == "f" else voxels,
            truth=np.packbits(truth),
            shape=np.array(truth.shape),
            spacing=spacing * steps,
        )


def read_crop(path: Path) -> Scan:
    """A crop as training takes it, with the structure in it as the target."""
    with np.load(path) as held:
        shape = tuple(held["shape"].tolist())
        truth = np.unpackbits(held["truth"], count=int(np.prod(shape))).reshape(shape).astype(bool)
        voxels = torch.from_numpy(held["voxels"].astype(np.float32))
        return Scan(voxels, torch.from_numpy(truth), tuple(held["spacing"].tolist()), cut=False, family="label")
