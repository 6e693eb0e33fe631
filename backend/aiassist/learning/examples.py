"""Examples for fine-tuning: crops of real labels as people prompt them, and synthetic ones among them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

import torch
from torch.utils.data import Dataset

from aiassist.learning.crops import read_crop
from aiassist.segmenters.registry import load_network_folder
from aiassist.synthesis.corrections import corrections, course
from aiassist.synthesis.example import Example, example, present
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
        made = self._synthetic(seed) if draw.chance(SYNTHETIC) else self._real(draw)
        return [(one.channels.half(), one.truth.half(), one.valid) for one in made]

    def _synthetic(self, seed: int) -> list[Example]:
        return [example(seed, self.cells)]

    def _real(self, draw: Draw) -> list[Example]:
        return [present(draw, self._scan(draw), self.cells)]

    def _scan(self, draw: Draw) -> Scan:
        files = self.crops[draw.integer(0, len(self.crops) - 1)]
        return vary(draw, read_crop(files[draw.integer(0, len(files) - 1)]))


class CorrectionExamples(LabelExamples):
    """Corrections of the mistakes that a model makes, several for a seed.

    Parameters
    ----------
    crops, cells
        See `LabelExamples`.
    corrects : Path
        Folder of the model.
    """

    def __init__(self, crops: Mapping[str, Sequence[Path]], cells: int, corrects: Path):
        super().__init__(crops, cells)
        self.corrects = corrects

    @cached_property
    def _network(self):
        return load_network_folder(self.corrects, threads=1)

    def _synthetic(self, seed: int) -> list[Example]:
        return corrections(seed, self.cells, self._network)

    def _real(self, draw: Draw) -> list[Example]:
        found: list[Example] = []
        while not found:  # some answers are right
            found = list(course(draw, self._scan(draw), self.cells, self._network))
        return found


def vary(draw: Draw, scan: Scan) -> Scan:
    """The scan turned and mirrored, with a little noise and its grey levels bent, as another scanner might show it."""
    order = torch.randperm(3, generator=draw.generator).tolist()
    flips = [axis for axis in range(3) if draw.chance(0.5)]
    voxels, truth = (t.permute(order).flip(flips).contiguous() for t in (scan.voxels, scan.truth))
    low, width = voxels.min(), (voxels.max() - voxels.min()).clamp_min(1e-6)
    voxels = low + width * ((voxels - low) / width) ** draw.log_uniform(BEND, 1 / BEND)
    noise = torch.randn(voxels.shape, generator=draw.generator)
    spread = 1.5 * (voxels - voxels.median()).abs().median()  # whatever a scanner puts where it saw nothing
    voxels = voxels + noise * spread * draw.uniform(0, NOISE)
    return replace(scan, voxels=voxels, truth=truth, spacing=tuple(scan.spacing[axis] for axis in order))
