"""Examples for fine-tuning: crops of real labels as people prompt them, and synthetic ones among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils.data import Dataset

from aiassist.learning.crops import read_crop
from aiassist.synthesis.example import example, present
from aiassist.synthesis.fields import Draw
from aiassist.synthesis.scanner import Scan

#: Share of synthetic examples, so that what the model knew of other structures stays.
SYNTHETIC = 0.25
#: Most noise that is added, as a share of the crop's standard deviation.
NOISE = 0.1
#: Grey levels are bent by a power between this and its inverse.
BEND = 0.7


class LabelExamples(Dataset):
    """Examples by seed, as `aiassist.synthesis.training.Examples`.

    Parameters
    ----------
    crops : mapping
        Files of `write_crop` by structure; every structure is shown equally often.
    cells : int
        Along a side of the network's cube.
    """

    def __init__(self, crops: Mapping[str, Sequence[Path]], cells: int):
        self.crops = [list(files) for _, files in sorted(crops.items())]
        self.cells = cells

    def __getitem__(self, seed: int) -> list[tuple]:
        draw = Draw(seed)
        if draw.chance(SYNTHETIC):
            made = example(seed, self.cells)
        else:
            files = self.crops[draw.integer(0, len(self.crops) - 1)]
            made = present(draw, vary(draw, read_crop(files[draw.integer(0, len(files) - 1)])), self.cells)
        return [(made.channels.half(), made.truth.half(), made.valid)]


def vary(draw: Draw, scan: Scan) -> Scan:
    """The scan turned and mirrored, with a little noise and its grey levels bent, as another scanner might show it."""
    order = torch.randperm(3, generator=draw.generator).tolist()
    flips = [axis for axis in range(3) if draw.chance(0.5)]
    voxels, truth = (t.permute(order).flip(flips).contiguous() for t in (scan.voxels, scan.truth))
    low, width = voxels.min(), (voxels.max() - voxels.min()).clamp_min(1e-6)
    voxels = low + width * ((voxels - low) / width) ** draw.log_uniform(BEND, 1 / BEND)
    noise = torch.randn(voxels.shape, generator=draw.generator)
    voxels = voxels + noise * voxels.std() * draw.uniform(0, NOISE)
    return replace(scan, voxels=voxels, truth=truth, spacing=tuple(scan.spacing[axis] for axis in order))
