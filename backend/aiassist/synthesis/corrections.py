"""What a correction shows the network: a mask that a network made of a scan, and a click in its largest error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from scipy import ndimage

from aiassist.evaluation.annotator import oracle_click, sloppy_click
from aiassist.imaging import Geometry, MaskPatch, Region, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import run
from aiassist.segmenters.cube import Cube
from aiassist.segmenters.promptable import ZOOM, PromptableNetwork
from aiassist.synthesis.example import Example, extreme_points, faulty_mask, finish
from aiassist.synthesis.fields import Draw
from aiassist.synthesis.scanner import Scan, scan

#: Clicks that a scan gets one after the other; each makes an example.
CLICKS = 4
#: Fewest voxels of an error that is worth a click.
LEAST = 4


def corrections(seed: int, cells: int, network: PromptableNetwork, device: torch.device | str = "cpu") -> list[Example]:
    """The examples of a seed, one or more; the same on every call.

    Parameters
    ----------
    seed : int
    cells : int
        Along a side of the network's cube.
    network : PromptableNetwork
        Whose answers to the points are corrected, three scans in four; the others get the truth spoiled or the
        classical segmenter's answer.
    device : torch.device or str
        Where scans are made.
    """
    draw = Draw(seed, device)
    found: list[Example] = []
    while not found:
        scanned = scan(draw)
        found = list(course(draw, scanned, cells, network)) if scanned is not None else []
    return found


def course(draw: Draw, scanned: Scan, cells: int, network: PromptableNetwork) -> Iterator[Example]:
    """The examples of a scan: a mask of its target, and clicks one after the other; none where nothing is wrong."""
    truth = scanned.truth.cpu().numpy()
    volume = Volume(scanned.voxels.cpu().numpy(), Geometry.from_spacing(truth.shape, scanned.spacing[::-1]))
    points = extreme_points(draw, np.argwhere(truth), truth.shape)
    prompts = Prompts(extreme_points=points[:, ::-1])
    whole = Region((0, 0, 0), truth.shape)
    if draw.chance(0.75):
        mask = run(network.annotate(volume, prompts)).within(whole)
    else:
        mask = faulty_mask(draw, scanned, volume, points).cpu().numpy()
    start = draw.choice(("points", "box", "mask"), (0.8, 0.1, 0.1))
    if start == "box":
        prompts = Prompts(box=[points.min(axis=0)[::-1], points.max(axis=0)[::-1]])
    elif start == "mask" and mask.any():
        prompts = Prompts()
    rng = np.random.default_rng(draw.integer(0, 2**31 - 1))
    for _ in range(CLICKS):
        click = oracle_click(truth, mask, scanned.spacing) if draw.chance(0.6) else sloppy_click(truth, mask, rng)
        voxel = tuple(click.point[::-1].astype(int)) if click is not None else None
        if voxel is None or int((truth != mask).sum()) < LEAST or truth[voxel] == mask[voxel] or not mask.any():
            return
        side = "positive" if click.positive else "negative"
        prompts = replace(prompts, prior=MaskPatch.of_mask(mask), **{side: [*getattr(prompts, side), click.point]})
        cube = _view(draw, volume, prompts, click.point[::-1], cells)
        yield finish(scanned, cube, volume, prompts, "correction", wrong=click)
        mask = _better(draw, mask, truth, voxel, scanned.spacing)


def _view(draw: Draw, volume: Volume, prompts: Prompts, place: np.ndarray, cells: int) -> Cube:
    """What is looked at: about `ZOOM` of the structure's box around the click."""
    low, high = prompts.box_ijk(volume.geometry)
    half = ZOOM * draw.log_uniform(0.75, 1.33) * (high - low)[::-1] / 2
    return Cube.around(place - half, place + half, volume.shape, volume.geometry.spacing_kji, cells)


def _better(draw: Draw, mask: np.ndarray, truth: np.ndarray, voxel, spacing) -> np.ndarray:
    """The mask, right near the click, as a correction leaves it."""
    away = np.ones(mask.shape, bool)
    away[voxel] = False
    distance = ndimage.distance_transform_edt(away, sampling=spacing)
    inside = np.argwhere(truth)
    size = float(np.cbrt(np.prod((np.ptp(inside, axis=0) + 1) * spacing)))
    right = distance <= size * draw.log_uniform(0.06, 0.5)
    if draw.chance(0.5):  # one side only
        right &= mask != truth[voxel]
    return np.where(right, truth, mask)
