"""The classical segmenter: geodesic paths between the points, then grey levels and shape."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from aiassist.imaging import MaskPatch, Region, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.blurring import blurred, steepness
from aiassist.segmenters.correction import by_grey_levels, correct, without_older_clicks
from aiassist.segmenters.grey_model import (
    agree_with_neighbours,
    binned,
    counts,
    evidence,
    grey_levels,
    logit,
    smoothed,
)
from aiassist.segmenters.marks import gaussian
from aiassist.segmenters.paths import cheapest_paths
from aiassist.segmenters.strokes import force_clicks, region_with_clicks, stroke_points
from aiassist.segmenters.working_grid import WorkingGrid

CELLS = 64
MARGIN = 0.2
ROUNDS = 4
#: Weight of the neighbours' agreement, in logits.
STRENGTH = 6.0
#: Cells around the points' box in which paths may run.
RIM = 3
#: Logits in favour of inside: cells on the border mix with what lies outside and would be lost.
BORDER = 0.5
#: Occupancy of the middle of the ellipsoid that is expected before looking.
OCCUPANCY = 0.7
#: Share of the inside histogram that stays with the seeds, whatever the mask becomes.
TRUST_SEEDS = 0.8
#: Logits of what the outline points exclude. Farther than a few cells from where they allow anything, all is outside.
FORBIDDEN = np.float32(-8)


class Geodesic:
    """Segments from grey levels, without weights.

    Opposite extreme points are joined by the cheapest paths through the grey levels found at the
    points (as in Roth et al. 2021, doi:10.1007/978-3-030-87193-2 and arXiv:2009.11988, who train a
    network on the outcome). The paths are certain inside; grey-level histograms of inside and
    outside start from them and are refined in turns with the mask (as in GrabCut, Rother et al.
    2004), under a prior for the ellipsoid of the points and for agreement between neighbours.
    Corrective clicks are local, see `aiassist.segmenters.correction`.
    """

    card = ModelCard(
        name="geodesic",
        version="1",
        kind="promptable",
        description="Grey levels along geodesic paths between the points; needs no weights and no GPU.",
        provenance="Classical method after Roth et al. 2021 (arXiv:2009.11988) and GrabCut.",
    )

    def annotate(self, volume: Volume, prompts: Prompts) -> Work:
        """See `aiassist.segmenters.base.Promptable.annotate`."""
        prompts = without_older_clicks(prompts.without_empty_prior())
        if prompts.prior is not None and prompts.has_clicks:
            return (yield from correct(volume, prompts, by_grey_levels(volume)))
        grid, field = yield from solve(volume, prompts)
        found = MaskPatch(grid.region, grid.to_voxels(field) > 0.5)
        region = region_with_clicks(found.region, prompts)
        mask = found.within(region)
        force_clicks(mask, region, prompts)
        return MaskPatch(region, mask)


def solve(
    volume: Volume, prompts: Prompts, cells: int = CELLS, window: tuple[float, float] = (-np.inf, np.inf)
) -> Generator[Step, None, tuple[WorkingGrid, np.ndarray]]:
    """Probability of being inside, on a working grid over the prompts' box; yields steps.

    Parameters
    ----------
    volume : Volume
    prompts : Prompts
    cells : int
        Along a side of the prompts' box at most.
    window : tuple of float
        Grey values beyond these are cut off.

    Returns
    -------
    WorkingGrid
    numpy.ndarray
        Float (k, j, i) of the grid's cells; above one half is the segmenter's answer.
    """
    yield Step("crop", 0.0)
    scene = _Scene.of(volume, prompts, cells, window)
    yield Step("pass", 0.1)
    seeds = scene.seeds(prompts)
    yield Step("pass", 0.4)
    inside, leaning = scene.start(seeds), scene.leaning(seeds)
    for turn in range(ROUNDS):
        yield Step("pass", 0.5 + 0.4 * turn / ROUNDS)
        inside = scene.refine(inside, seeds, leaning, last=turn == ROUNDS - 1)
    yield Step("paste", 0.9)
    return scene.grid, scene.settle(inside, seeds)


@dataclass
class _Scene:
    """Grey levels and prior knowledge on the working grid."""

    grid: WorkingGrid
    levels: np.ndarray
    bins: np.ndarray
    radius: np.ndarray
    allowed: np.ndarray
    expected: np.ndarray

    @classmethod
    def of(cls, volume: Volume, prompts: Prompts, cells: int, window: tuple[float, float]) -> _Scene:
        low, high = prompts.box_ijk(volume.geometry)
        grid = WorkingGrid.around(low, high, volume.geometry, cells, MARGIN)
        radius, allowed = grid.ellipsoid(low, high)
        if not len(prompts.outline_points):
            allowed = np.ones(grid.shape, bool)
        grey = np.clip(grid.sample(volume), *window)
        near = grey[radius < 1.3]
        levels = grey_levels(grey, near if near.size else grey)
        expected = OCCUPANCY / (1 + np.exp(6 * (radius - 1.0)))
        if prompts.prior is not None:
            expected = 0.5 * expected + 0.45 * grid.sample_mask(prompts.prior)
        return cls(grid, levels, binned(levels), radius, allowed, np.clip(expected, 0.01, 0.97) * allowed)

    @cached_property
    def counts(self) -> np.ndarray:
        """How many cells there are of each bin."""
        return counts(self.bins)

    @cached_property
    def open_box(self) -> tuple[slice, ...]:
        """The box of what is allowed, and two cells around it."""
        return Region.of_mask(self.allowed).grow(2, (1, 1, 1)).clip(self.grid.shape).slices

    def seeds(self, prompts: Prompts) -> _Seeds:
        """Cells that are certain to lie inside, and those certain to lie outside."""
        inside = [self._paths(prompts.extreme_points)] if len(prompts.extreme_points) else []
        if prompts.line is not None:
            inside.append(self.grid.nearest_cells(stroke_points(prompts.line)))
        inside.append(self._around(prompts.positive))
        inside += [self.grid.nearest_cells(stroke_points(s.points)) for s in prompts.scribbles if s.positive]
        outside = [self.grid.nearest_cells(prompts.negative)]
        outside += [self.grid.nearest_cells(stroke_points(s.points)) for s in prompts.scribbles if not s.positive]
        return _Seeds.of(self.grid.shape, np.concatenate(inside), np.concatenate(outside))

    def _around(self, points_ijk: np.ndarray) -> np.ndarray:
        """The cells of clicks and their face neighbours."""
        steps = np.concatenate([np.zeros((1, 3)), np.eye(3), -np.eye(3)])
        cells = (self.grid.nearest_cells(points_ijk)[:, np.newaxis] + steps).reshape(-1, 3)
        return np.clip(cells, 0, np.array(self.grid.shape) - 1).astype(int)

    def _paths(self, points_ijk: np.ndarray) -> np.ndarray:
        """Cells (n, 3) of the cheapest paths that join the extreme points through the structure."""
        ends = self.grid.nearest_cells(points_ijk)
        # Paths rarely leave the box that the points span, and searching is dear: a rim of cells around it will do.
        low, high = np.maximum(ends.min(axis=0) - RIM, 0), ends.max(axis=0) + RIM + 1
        box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
        cost = self._path_cost(self.grid.to_cells(points_ijk), box)
        sampling = self.grid.spacing / self.grid.spacing.min()
        paths = cheapest_paths(cost, _opposite_pairs(ends - low), sampling)
        return np.concatenate([ends, *[path + low for path in paths]])

    def _path_cost(self, points: np.ndarray, box: tuple[slice, ...]) -> np.ndarray:
        """Cost of a step in a box of cells: grey levels unlike those at the points, and edges, are dear."""
        surroundings = smoothed(counts(self.bins[(self.radius > 1) | ~self.allowed]))
        ratio = np.log(self._common_greys(points)) - 0.65 * np.log(surroundings)
        edges = steepness(self.levels[box], 0.7)
        cost = 0.5 + np.minimum(2 * (ratio.max() - ratio), 9)[self.bins[box]]
        cost += edges / max(np.percentile(edges, 90), 1e-6)
        return np.where(self.allowed[box], cost, cost + 3)

    def _common_greys(self, points: np.ndarray) -> np.ndarray:
        """Histogram of the grey levels that are found near every point, at it or on the way to the centre.

        The geometric mean of the points' histograms: people miss a thin structure by a voxel with one
        point or the other, but a grey level that lies near all of them is the structure's.
        """
        logs = []
        for samples in _towards_centre(points, steps=(0, 1, 2)):
            cells = np.clip(np.rint(samples), 0, np.array(self.grid.shape) - 1).astype(int)
            low, high = np.maximum(cells.min(axis=0) - 4, 0), cells.max(axis=0) + 5
            window = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            weights = sum(gaussian(cell - low, self.bins[window].shape, 1.0) for cell in cells) * self.allowed[window]
            logs.append(np.log(smoothed(counts(self.bins[window], weights), 1.6) + 0.004))
        common = np.exp(np.mean(logs, axis=0))
        return common / common.sum()

    def start(self, seeds: _Seeds) -> np.ndarray:
        """First guess of the probabilities: cells whose grey level is like the seeds'."""
        if not seeds.any_inside:
            return self.expected.copy()
        found = self.levels[seeds.inside]
        middle = np.median(found)
        spread = max(1.5 * 1.48 * np.median(np.abs(found - middle)), 0.05)
        smooth = blurred(self.levels, 0.7)
        alike = np.exp(-0.5 * ((smooth - middle) / spread) ** 2) * np.sqrt(self.expected)
        return np.clip(np.maximum(alike, 0.9 * seeds.nearness), 1e-3, 0.98) * self.allowed

    def leaning(self, seeds: _Seeds) -> np.ndarray:
        """What speaks for inside whatever the grey levels, in logits."""
        votes = BORDER + logit(self.expected) + 4 * seeds.nearness - 8 * seeds.nearness_outside
        return votes.astype(np.float32)

    def refine(self, inside: np.ndarray, seeds: _Seeds, leaning: np.ndarray, last: bool) -> np.ndarray:
        """Grey-level histograms from the probabilities, then probabilities from the histograms."""
        within = counts(self.bins, inside)
        histogram_inside = smoothed(within)
        if seeds.any_inside:
            anchor = smoothed(counts(self.bins[seeds.inside]), seeds.smoothing)
            histogram_inside = (1 - TRUST_SEEDS) * histogram_inside + TRUST_SEEDS * anchor
        ratio = evidence(histogram_inside, smoothed(self.counts - within)).astype(np.float32)
        box = self.open_box
        votes = np.where(self.allowed[box], leaning[box] + ratio[self.bins[box]], FORBIDDEN)
        found = np.zeros_like(inside)
        found[box] = agree_with_neighbours(votes, inside[box], STRENGTH, rounds=8 if last else 3)
        return found

    def settle(self, inside: np.ndarray, seeds: _Seeds) -> np.ndarray:
        """Keep what hangs together with the seeds, fill holes; above one half is inside."""
        mask = inside > 0.5
        box = Region.of_mask(mask).slices
        parts, count = ndimage.label(mask[box])
        if count > 1:
            sizes = np.bincount(parts.ravel())
            sizes[0] = 0
            touched = np.zeros(count + 1, bool)
            touched[np.unique(parts[seeds.inside[box]])] = True
            touched[0] = False
            touched = touched & (sizes >= 0.05 * (sizes * touched).max()) if touched.any() else sizes == sizes.max()
            mask[box] = touched[parts]
        mask[box] = ndimage.binary_fill_holes(mask[box])
        return np.where(mask, np.maximum(inside, 0.51), np.minimum(inside, 0.49))


@dataclass
class _Seeds:
    """Certain cells, and how near (1 on them, falling to 0 within three cells) each cell is."""

    inside: np.ndarray
    nearness: np.ndarray
    nearness_outside: np.ndarray

    @classmethod
    def of(cls, shape, inside_cells: np.ndarray, outside_cells: np.ndarray) -> _Seeds:
        inside = _marked(shape, inside_cells)
        return cls(inside, _nearness(inside), _nearness(_marked(shape, outside_cells)))

    @property
    def any_inside(self) -> bool:
        return bool(self.inside.any())

    @property
    def smoothing(self) -> float:
        """Width of the grey-level histogram's kernel in bins: wider from fewer seeds."""
        return float(np.clip(1.5 * (100 / self.inside.sum()) ** 0.2, 1.5, 4.0))


def _marked(shape, cells: np.ndarray) -> np.ndarray:
    mask = np.zeros(shape, bool)
    mask[tuple(cells.T)] = True
    return mask


def _nearness(mask: np.ndarray) -> np.ndarray:
    if not mask.any():
        return np.zeros(mask.shape, np.float32)
    near = blurred(mask.astype(np.float32), 1.0)
    return near / near.max()


def _opposite_pairs(points: np.ndarray):
    """Pairs of points to join: along each axis the two that lie farthest apart."""
    for axis in range(3):
        first, last = np.argmin(points[:, axis]), np.argmax(points[:, axis])
        if first != last:
            yield points[first], points[last]


def _towards_centre(points: np.ndarray, steps) -> np.ndarray:
    """For each of n points, itself moved by some cells towards the common centre: (n, steps, 3)."""
    towards = points.mean(axis=0) - points
    length = np.linalg.norm(towards, axis=1, keepdims=True)
    unit = towards / np.maximum(length, 1e-6)
    return np.stack([points + unit * np.minimum(step, length) for step in steps], axis=1)
