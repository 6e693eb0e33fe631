"""Local corrections: a click changes what it points at, and nothing far away.

After the progressive merge of FocalClick (Chen et al. 2022, arXiv:2204.02574): a positive click
may only add and a negative only remove, within a reach in mm.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Set
from dataclasses import replace
from typing import TypeVar

import numpy as np
from scipy import ndimage

from aiassist.imaging import MaskPatch, Region, Volume, finite
from aiassist.prompts import Prompts
from aiassist.segmenters.base import Step, Work
from aiassist.segmenters.grey_model import agree_with_neighbours, binned, counts, evidence, grey_levels, smoothed
from aiassist.segmenters.strokes import clicked_voxels, force_clicks, stroke_points

#: A click never changes a voxel farther away than this, in mm, or in voxels where those are small.
MAX_REACH, MAX_VOXELS = 30.0, 60
#: Reach of a click in multiples of its distance to the border of the mask.
REACH = 2.5


#: Says which voxels of a region should flip. Takes the region, and over it: which voxels are right as they
#: are, which may move, and how near (0 at the click, 1 at the end of its reach) each is.
Propose = Callable[[Region, np.ndarray, np.ndarray, np.ndarray], np.ndarray]
Result = TypeVar("Result")
#: Looks at clicked voxels (n, 3), what they should be, and the mask so far; yields steps, returns a `Propose`.
Look = Callable[[np.ndarray, bool, MaskPatch], Generator[Step, None, Propose]]


def correct(volume: Volume, prompts: Prompts, look: Look, reach: float = 0.0, apart: bool = False) -> Work:
    """Correct ``prompts.prior`` where clicks and scribbles contradict it.

    A click that the mask already obeys changes nothing. How far a contradicted one reaches follows
    from how wrong the mask is there: two and a half times the distance from the click to the mask's
    border, at least three voxels and `reach` (mm), at most `farthest`. Within that, `look` says what should
    flip; of it the piece that the click touches does, or with `apart` all of it.
    """
    yield Step("crop", 0.0)
    wrong = _contradicted(prompts)
    if not wrong:
        return MaskPatch.empty()
    region = _region(volume, wrong)
    mask = prompts.prior.within(region)
    before = mask.copy()
    for number, (voxels, inside) in enumerate(wrong):
        share = 0.8 / len(wrong)
        yield Step("pass", 0.1 + number * share)
        voxels = voxels[mask[tuple((voxels - region.start).T)] != inside]
        if not len(voxels):  # an earlier click put it right
            continue
        so_far = MaskPatch(region, mask).over(prompts.prior)
        propose = yield from part(look(voxels, inside, so_far), 0.1 + number * share, share)
        _flip(mask, region, voxels, inside, volume.geometry.spacing_kji, propose, reach, apart)
    yield Step("paste", 0.9)
    force_clicks(mask, region, prompts)
    changed = Region.of_mask(mask != before)
    return MaskPatch(changed.shift(region.start), mask[changed.slices])


def part(steps: Generator[Step, None, Result], start: float, share: float) -> Generator[Step, None, Result]:
    """Steps whose fractions are those of a share of the work that begins at `start`."""
    while True:
        try:
            step = next(steps)
        except StopIteration as end:
            return end.value
        yield Step(step.phase, start + share * step.fraction)


def by_grey_levels(volume: Volume) -> Look:
    """Flip what looks like the place that was clicked."""

    def propose(region, right, movable, nearness):
        return _alike(finite(volume.voxels[region.slices]), right, movable, nearness)

    def look(_voxels, _inside, _mask):
        yield from ()  # there is nothing to announce
        return propose

    return look


def without_older_clicks(prompts: Prompts) -> Prompts:
    """The prompts without the older one of a positive and a negative click on the same voxel of a prior mask.

    The prior obeys all clicks but the newest. So of such a pair it is the one that the prior obeys which is older, if
    the other is the last of its kind, and if no click elsewhere is newer, which the prior disobeys.
    """
    kinds = {True: prompts.positive, False: prompts.negative}
    voxels = {kind: list(map(tuple, clicked_voxels(points).tolist())) for kind, points in kinds.items()}
    both = set(voxels[True]) & set(voxels[False])
    if prompts.prior is None or not both:
        return prompts
    is_elsewhere = bool(_contradicted(_without(prompts, both, both)))
    older: dict[bool, set] = {True: set(), False: set()}
    for voxel in both:
        obeyed = bool(_at(prompts.prior, np.array([voxel]))[0])
        is_newest = voxels[not obeyed][-1] == voxel and not is_elsewhere
        older[obeyed if is_newest else not obeyed].add(voxel)
    return _without(prompts, older[True], older[False])


def _without(prompts: Prompts, positive: Set[tuple], negative: Set[tuple]) -> Prompts:
    """The prompts without the clicks in these voxels ``(k, j, i)``."""
    kept = {}
    for name, gone in (("positive", positive), ("negative", negative)):
        points = getattr(prompts, name)
        kept[name] = points[[tuple(voxel) not in gone for voxel in clicked_voxels(points).tolist()]]
    return replace(prompts, **kept)


def _contradicted(prompts: Prompts) -> list[tuple[np.ndarray, bool]]:
    """The clicks and strokes that the prior mask disobeys, as voxels (n, 3) ``(k, j, i)``."""
    strokes = [(point[np.newaxis], True) for point in prompts.positive]
    strokes += [(point[np.newaxis], False) for point in prompts.negative]
    strokes += [(stroke_points(s.points), s.positive) for s in prompts.scribbles if len(s.points)]
    wrong = []
    for points, inside in strokes:
        voxels = np.unique(clicked_voxels(points), axis=0)
        obeyed = _at(prompts.prior, voxels) == inside
        if not obeyed.all():
            wrong.append((voxels[~obeyed], inside))
    return wrong


def _at(patch: MaskPatch, voxels: np.ndarray) -> np.ndarray:
    local = voxels - patch.region.start
    inside = ((local >= 0) & (local < patch.region.shape)).all(axis=1)
    values = np.zeros(len(voxels), bool)
    values[inside] = patch.mask[tuple(local[inside].T)]
    return values


def farthest(spacing_kji) -> float:
    """How far a click may reach at most, in mm."""
    return min(MAX_REACH, MAX_VOXELS * min(spacing_kji))


def _region(volume: Volume, wrong) -> Region:
    """All that the clicks might reach, and a rim to see beyond it."""
    voxels = np.concatenate([points for points, _ in wrong])
    spacing = volume.geometry.spacing_kji
    region = Region(tuple(voxels.min(axis=0)), tuple(voxels.max(axis=0) + 1))
    return region.grow(farthest(spacing), spacing).grow(2 * np.array(spacing), spacing).clip(volume.shape)


def _flip(mask, region: Region, voxels, inside: bool, spacing, propose: Propose, least: float, apart: bool) -> None:
    """Flip, in place, what of `mask` (over `region`) the clicked voxels point at; they reach `least` mm at least."""
    clicked = np.zeros(region.shape, bool)
    clicked[tuple((voxels - region.start).T)] = True
    reach = min(max(_reach(mask, clicked, inside, spacing), least), farthest(spacing))
    near = Region.of_mask(clicked).grow(reach, spacing).grow(2 * np.array(spacing), spacing).clip(region.shape)
    current, clicked = mask[near.slices], clicked[near.slices]
    distance = ndimage.distance_transform_edt(~clicked, sampling=spacing)
    movable = (current != inside) & (distance <= reach)
    chosen = propose(near.shift(region.start), current == inside, movable, distance / reach) & movable
    chosen |= clicked & movable
    if apart:
        current[chosen] = inside
        return
    parts, _ = ndimage.label(chosen)
    touched = np.unique(parts[clicked])
    current[np.isin(parts, touched[touched > 0])] = inside


def _reach(mask: np.ndarray, clicked: np.ndarray, inside: bool, spacing_kji) -> float:
    """How far the click may reach, in mm: from its distance to what is already right."""
    least = 3 * float(np.cbrt(np.prod(spacing_kji)))
    most = farthest(spacing_kji)
    near = Region.of_mask(clicked).grow(most / REACH, spacing_kji).clip(mask.shape).slices  # nothing beyond matters
    right = mask[near] == inside
    if not right.any():
        return most
    distance = ndimage.distance_transform_edt(~right, sampling=spacing_kji)
    return float(np.clip(REACH * distance[clicked[near]].max(), min(least, most), most))


def _alike(grey: np.ndarray, right: np.ndarray, movable: np.ndarray, nearness: np.ndarray) -> np.ndarray:
    """Which movable voxels look like what the click stands for.

    Grey levels close to the click, and those of the part that is already right, speak for a flip;
    those of the movable voxels at the edge of the reach speak against.
    """
    levels = grey_levels(grey, grey)
    bins = binned(levels)
    core = movable & (nearness <= 0.3)
    rim = movable & (nearness > 0.55)
    flip = smoothed(counts(bins[core]), 2.0)
    stay = smoothed(counts(bins[rim]), 2.0) if rim.any() else np.full_like(flip, 1 / len(flip))
    votes = evidence(flip, stay)[bins] + 6.0 * (0.65 - nearness)
    votes = np.where(movable, votes, np.where(right, 3.0, -3.0))
    start = 1 / (1 + np.exp(-votes))
    return agree_with_neighbours(votes, start, 3.0, rounds=5) > 0.5
