"""From a scan to what the network is shown: prompts as people give them, and the truth on the cube."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from aiassist.evaluation.annotator import Click
from aiassist.imaging import Geometry, MaskPatch, Region, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import run
from aiassist.segmenters.cube import Cube
from aiassist.segmenters.geodesic import solve
from aiassist.segmenters.grey_channels import window
from aiassist.segmenters.marks import Marks
from aiassist.segmenters.network_input import GUESS_CELLS, channels, sample_guess, show_click
from aiassist.synthesis.fields import Draw
from aiassist.synthesis.scanner import Scan, scan

#: How examples begin, and how often.
STARTS = {"points": 0.76, "few points": 0.06, "box": 0.06, "line": 0.03, "click": 0.03, "scribble": 0.03, "prior": 0.03}


@dataclass
class Example:
    """``channels`` (17, c, c, c), ``truth`` share (c, c, c), ``valid`` bool (c, c, c), ``kind`` of prompts."""

    channels: torch.Tensor
    truth: torch.Tensor
    valid: torch.Tensor
    kind: str
    family: str


def example(seed: int, cells: int, device: torch.device | str = "cpu") -> Example:
    """The example of a seed; the same on every call."""
    return examples(seed, cells, 1, device)[0]


def examples(seed: int, cells: int, count: int, device: torch.device | str = "cpu") -> list[Example]:
    """So many examples of the scan of a seed, each with prompts of its own; the same on every call."""
    draw = Draw(seed, device)
    scanned = None
    while scanned is None:
        scanned = scan(draw)
    return [present(draw, scanned, cells) for _ in range(count)]


def present(draw: Draw, scanned: Scan, cells: int) -> Example:
    """An example made of a scan: prompts for its target as people give them."""
    inside = scanned.truth.nonzero().cpu().numpy()
    points = extreme_points(draw, inside, scanned.truth.shape)
    volume = Volume(scanned.voxels.cpu().numpy(), Geometry.from_spacing(scanned.truth.shape, scanned.spacing[::-1]))
    kind = draw.choice(list(STARTS), list(STARTS.values()))
    prompts, low, high = _prompts(draw, kind, inside, points, volume.geometry)
    if kind == "prior":
        prompts = replace(prompts, prior=_patch(faulty_mask(draw, scanned, volume, points)))
    cube = Cube.around(low, high, volume.shape, scanned.spacing, cells)
    return finish(scanned, cube, volume, prompts, kind)


def finish(
    scanned: Scan, cube: Cube, volume: Volume, prompts: Prompts, kind: str, wrong: Click | None = None
) -> Example:
    """What the network is shown of a cube; `wrong` is the click that contradicts the prior mask."""
    prior = None
    if prompts.prior is not None:
        prior = cube.sample(prompts.prior.within(Region((0, 0, 0), volume.shape)).astype(np.float32))[0]
    marks = Marks.of(prompts, cube)
    cells, valid = cube.sample(volume.voxels)
    limits = window(cells, valid, marks, prior)
    guess = None
    if kind != "correction":
        guess = sample_guess(cube, *run(solve(volume, prompts, GUESS_CELLS, limits)))
    seen = channels(np.clip(cells, *limits), valid, cube, marks, prior, guess)
    if wrong is not None:
        show_click(seen, cube.to_cells(wrong.point[::-1]), wrong.positive)
    truth, valid = cube.sample(scanned.truth.cpu().numpy().astype(np.float32))
    seen, truth, valid = (torch.from_numpy(a) for a in (seen, truth, valid))
    return Example(seen, truth, valid, kind, scanned.family)


def _patch(mask: torch.Tensor) -> MaskPatch:
    """A mask of the whole scan as a patch."""
    return MaskPatch(Region((0, 0, 0), tuple(mask.shape)), mask.cpu().numpy())


def extreme_points(draw: Draw, inside: np.ndarray, shape) -> np.ndarray:
    """Six voxels (6, 3) of the truth, ``(k, j, i)``, where it ends along each axis; three in four jittered."""
    points = []
    for axis in range(3):
        for end in (inside[:, axis].min(), inside[:, axis].max()):
            candidates = inside[inside[:, axis] == end]
            points.append(candidates[draw.integer(0, len(candidates) - 1)])
    points = np.array(points, dtype=float)
    if draw.chance(0.75):
        amount = draw.uniform(0.2, 1.4) * np.maximum(1.0, 0.03 * np.ptp(inside, axis=0))
        points = points + torch.randn(6, 3, generator=draw.generator).numpy() * amount
    return np.clip(points, 0, np.array(shape) - 1)


def _prompts(draw: Draw, kind: str, inside: np.ndarray, points: np.ndarray, geometry: Geometry):
    """The prompts, and the box of the cube (low, high, border to border, ``(k, j, i)``)."""
    if kind == "few points":
        keep = torch.randperm(6, generator=draw.generator)[: draw.integer(2, 5)].numpy()
        points = points[keep]
    if kind == "box":
        return _boxed(Prompts(box=[points.min(axis=0)[::-1], points.max(axis=0)[::-1]]), geometry)
    if kind in ("points", "few points", "prior"):
        return _boxed(Prompts(extreme_points=points[:, ::-1]), geometry)
    middle = inside[draw.integer(0, len(inside) - 1)].astype(float)
    if kind == "line":
        plane = inside[inside[:, 0] == int(middle[0])].astype(float)
        first = plane[np.argmax(np.linalg.norm(plane - plane.mean(0), axis=1))]
        last = plane[np.argmax(np.linalg.norm(plane - first, axis=1))]
        return _boxed(Prompts(line=[first[::-1], last[::-1]]), geometry)
    # A click or scribble says little of the size: the cube's size is a guess around the true one.
    stroke = middle[None]
    if kind == "scribble":
        order = np.argsort(np.linalg.norm(inside - middle, axis=1))[: max(3, len(inside) // 20)]
        chosen = inside[order[torch.randperm(len(order), generator=draw.generator)[:12].numpy()]]
        stroke = np.concatenate([stroke, chosen.astype(float)])
    spacing = np.array(geometry.spacing_kji)
    size = (np.ptp(points, axis=0) * spacing).max() * draw.log_uniform(0.7, 1.8) / 2 / spacing
    return Prompts(positive=stroke[:, ::-1]), middle - size - 0.5, middle + size + 0.5


def _boxed(prompts: Prompts, geometry: Geometry):
    low, high = prompts.box_ijk(geometry)
    return prompts, low[::-1], high[::-1]


def faulty_mask(draw: Draw, scanned: Scan, volume: Volume, points: np.ndarray) -> torch.Tensor:
    """A faulty mask: the truth spoiled, or what the classical segmenter made of the points."""
    if draw.chance(0.5):
        return spoil(draw, scanned.truth)
    grid, field = run(solve(volume, Prompts(extreme_points=points[:, ::-1]), GUESS_CELLS))
    mask = MaskPatch(grid.region, grid.to_voxels(field) > 0.5).within(Region((0, 0, 0), volume.shape))
    return torch.from_numpy(mask).to(scanned.truth.device)


def spoil(draw: Draw, truth: torch.Tensor) -> torch.Tensor:
    """A mask with faults: grown, shrunk, shifted, with pieces missing and added."""
    mask = truth.float()[None, None]
    width = draw.choice((3, 5))
    if draw.chance(0.4):
        mask = F.avg_pool3d(mask, width, 1, width // 2) > draw.uniform(0.1, 0.9)
    mask = mask[0, 0] > 0.5
    if draw.chance(0.4):
        mask = torch.roll(mask, [draw.integer(-2, 2) for _ in range(3)], (0, 1, 2))
    inside = truth.nonzero().float()
    extent = (inside.amax(0) - inside.amin(0) + 1).clamp_min(2)
    axes = [torch.arange(n, device=truth.device).float() for n in truth.shape]
    for _ in range(draw.integer(1, 3)):
        centre = (
            inside[draw.integer(0, len(inside) - 1)] + torch.tensor(_any_normal(draw)).to(truth.device) * extent / 6
        )
        radius = extent * draw.uniform(0.1, 0.3)
        terms = [((a - c) / r).square() for a, c, r in zip(axes, centre, radius, strict=True)]
        ball = terms[0][:, None, None] + terms[1][None, :, None] + terms[2][None, None, :] <= 1
        mask = mask | ball if draw.chance(0.5) else mask & ~ball
    return mask


def _any_normal(draw: Draw) -> list[float]:
    return torch.randn(3, generator=draw.generator).tolist()
