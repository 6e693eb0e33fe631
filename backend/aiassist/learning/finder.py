"""Train an automatic model: its network sees a whole volume on coarse cells and says where each structure is."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from aiassist.files import whole_file
from aiassist.groundtruth.names import key_of
from aiassist.imaging import Label, Volume, describe_structure
from aiassist.learning.judge import load
from aiassist.learning.run import LearningRun
from aiassist.learning.samples import Sample
from aiassist.segmenters.overview import CHANNELS, Overview
from aiassist.segmenters.registry import load_network_folder
from aiassist.synthesis.fields import Draw
from aiassist.synthesis.training import Settings, Trainer, answer_loss

#: Cells along each side of the cube over a volume.
CELLS = 64
#: Maps of a step.
BATCH = 4
RATE = 2e-3
#: Fewest steps of a run, however few the labels.
LEAST = 200
WIDTHS = (16, 32, 64, 128)
#: Channels that move with the patient; the others say where a cell is.
MOVING = 3
#: How far a map is turned (degrees), scaled (or its inverse) and shifted (share of the cube's side) when it is shown.
TURN, SCALE, SHIFT = 12.0, 1.2, 0.08


class FinderTraining(LearningRun):
    """A run that trains the network that finds structures; the one of its base looks closer."""

    kind = "automatic"
    weights = "finder.onnx"

    def prepare(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """See `LearningRun.prepare`; `ModelError` where the card of an older version is damaged."""
        self._known_values()  # without them it could not end, which is said now and not after hours
        super().prepare(progress)

    def _write_data(
        self, teaching: list[Sample], progress: Callable[[int, int], None]
    ) -> tuple[list[Sample], list[str]]:
        places = {structure: n for n, structure in enumerate(sorted({sample.structure for sample in teaching}))}
        total, maps = len({sample.study for sample in teaching}), []
        for study, loaded in groupby(load(self.store, teaching), lambda one: one[1].study):
            maps.append(f"{study}.npz")
            labels = ((volume, places[sample.structure], label) for volume, sample, label in loaded)
            write_map(self.data / maps[-1], labels, len(places))
            progress(len(maps), total)
        return teaching, maps

    @property
    def steps(self) -> int:
        """See `LearningRun.steps`."""
        return max(LEAST, math.ceil(len(self.plan["files"]) * self.config.epochs / BATCH))

    def trainers(self, device: str = "cpu", workers: int = 0) -> Iterator[Trainer]:
        """See `LearningRun.trainers`; it begins from nothing, and needs no workers."""
        settings = Settings(
            steps=self.steps,
            batch=BATCH,
            fresh=BATCH,
            cells=CELLS,
            inputs=len(CHANNELS),
            outputs=len(self.structures),
            widths=WIDTHS,
            fine=min(32, 8 + len(self.structures)),
            rate=RATE,
            warmup=min(50, self.steps // 4),
        )
        yield MapTrainer(self.folder, settings, [self.data / name for name in self.plan["files"]], device)

    def description(self) -> str:
        """See `LearningRun.description`."""
        return f"Finds what it learned from the labels here; looks closer by {self.config.base}."

    def labels(self) -> tuple[Label, ...]:
        """See `LearningRun.labels`."""
        names = {key_of(name): name for study in self.store.studies() for name in self.store.latest(study.id)}
        values = self._values()
        return tuple(describe_structure(names.get(key, key), values[key]) for key in self.structures)

    def _values(self) -> dict[str, int]:
        """The value of each structure in an answer: that which it has in every other version, too."""
        values = self._known_values()
        for key in self.structures:
            values.setdefault(key, 1 + max(values.values(), default=0))
        return values

    def _known_values(self) -> dict[str, int]:
        """The value that each structure has in the versions that there are."""
        values: dict[str, int] = {}
        for version in self.models.versions(self.name):
            for label in load_network_folder(self.models.folder_of(self.name, version)).card.labels:
                values[key_of(label.name)] = label.value
        return values


def write_map(path: Path, labels: Iterable[tuple[Volume, int, np.ndarray]], structures: int) -> None:
    """Write a volume on the cells and the share of each that its structures cover, whole or not at all.

    Parameters
    ----------
    path : Path
        Ends in ``.npz``.
    labels : iterable
        The volume, the number of a structure and its mask, bool ``(k, j, i)``; of one volume, in any order.
    structures : int
        How many there are; those without a mask are not known in this volume.
    """
    known, shares, seen = np.zeros(structures, bool), {}, None
    for volume, structure, mask in labels:  # one after the other: all masks of a large scan would fill the memory
        overview = Overview.of(volume.geometry, CELLS)
        seen = overview.see(volume)[:MOVING].astype(np.float16) if seen is None else seen
        share = overview.sample(mask)
        share /= max(share.max(), 1e-3) if mask.any() else 1.0  # what is smaller than a cell must be found, too
        known[structure], shares[structure] = True, np.rint(255 * share).astype(np.uint8)
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, seen=seen, shares=np.stack([shares[n] for n in sorted(shares)]), known=known)


class MapTrainer(Trainer):
    """A run on the maps of some volumes, resumable to the step as any `Trainer`.

    Parameters
    ----------
    folder, settings, device
        See `Trainer`.
    maps : sequence of Path
        Files of `write_map`.
    """

    def __init__(self, folder: Path, settings: Settings, maps: Sequence[Path], device: str = "cpu"):
        self.maps = list(maps)
        super().__init__(folder, settings, device, workers=0)

    def _batches(self, until: int, *_: object) -> Iterator[tuple[torch.Tensor, ...]]:
        for step in range(self.step, until):
            draw = Draw(self.settings.seed * 1_000_000_007 + step)
            made = [self._example(draw) for _ in range(self.settings.batch)]
            yield tuple(torch.stack(parts).to(self.device) for parts in zip(*made, strict=True))

    def _example(self, draw: Draw) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What the network sees (6, c, c, c), the truth (structures, c, c, c), and which of them is known."""
        with np.load(self.maps[draw.integer(0, len(self.maps) - 1)]) as held:
            seen, known = torch.from_numpy(held["seen"].astype(np.float32)), torch.from_numpy(held["known"])
            shares = torch.from_numpy(held["shares"].astype(np.float32)) / 255
        seen, shares = warp(draw, seen, shares)
        truth = torch.zeros(len(known), *shares.shape[1:])
        truth[known] = shares
        return torch.cat([seen, _places(seen.shape[-1])]), truth, known

    def _loss(self, seen, truth, known) -> tuple[torch.Tensor, float]:
        inside = seen[:, 2:3].expand_as(truth) > 0
        truth = truth.contiguous(memory_format=torch.channels_last_3d)  # pooled several times as fast
        border = F.max_pool3d(truth, 5, 1, 2) + F.max_pool3d(1 - truth, 5, 1, 2) - 1
        weight = inside * (1 + 2 * border)
        logits, half = self._answer(seen)
        answers = logits[known].unsqueeze(1), half[known].unsqueeze(1)  # of what nobody labelled, nothing is said
        return answer_loss(answers, truth[known].unsqueeze(1), weight[known].unsqueeze(1))


def warp(draw: Draw, seen: torch.Tensor, shares: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A map turned, scaled and shifted a little, with its grey levels changed, as another patient's might be."""
    angles = [math.radians(draw.uniform(-TURN, TURN)) for _ in range(3)]
    matrix = torch.eye(3)
    for axis, angle in enumerate(angles):
        one, other = (n for n in range(3) if n != axis)
        turn = torch.eye(3)
        turn[one, one] = turn[other, other] = math.cos(angle)
        turn[one, other], turn[other, one] = -math.sin(angle), math.sin(angle)
        matrix = matrix @ turn
    matrix = matrix * torch.tensor([draw.log_uniform(1 / SCALE, SCALE) for _ in range(3)])
    shift = torch.tensor([[2 * draw.uniform(-SHIFT, SHIFT)] for _ in range(3)])
    grid = F.affine_grid(torch.cat([matrix, shift], 1)[None], [1, 1, *seen.shape[1:]], align_corners=False)
    moved = F.grid_sample(torch.cat([seen, shares])[None], grid, align_corners=False)[0]
    seen, shares = moved[: len(seen)].clone(), moved[len(seen) :]
    inside = seen[2] > 0.5
    noise = 0.05 * torch.randn(seen[:2].shape, generator=draw.generator)
    grey = seen[:2] * draw.uniform(0.8, 1.25) + draw.uniform(-0.15, 0.15) + noise
    return torch.cat([grey * inside, inside[None].float()]), shares


def _places(cells: int) -> torch.Tensor:
    """Where each cell lies in the cube, -1 to 1 along k, j and i."""
    along = torch.linspace(-1, 1, cells)
    return torch.stack(torch.meshgrid(along, along, along, indexing="ij"))
