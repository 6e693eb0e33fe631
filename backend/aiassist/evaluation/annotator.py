"""A simulated person: knows the truth, gives prompts as people do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from aiassist.imaging import Geometry, MaskPatch, Region
from aiassist.prompts import Prompts, Scribble, extreme_points

#: One sloppy click in this many lands outside the error it was meant for, so many voxels beside it at most.
SLOPPY_MISS, BESIDE = 10, 3


@dataclass(frozen=True)
class Click:
    """A corrective click: where, and whether the structure should be there."""

    point: np.ndarray
    positive: bool


def jitter(points: np.ndarray, geometry: Geometry, rng: np.random.Generator) -> np.ndarray:
    """Points moved by a normal of max(1 voxel, 3 % of the box side), kept inside the volume."""
    side = np.ptp(points, axis=0)
    moved = points + rng.normal(size=points.shape) * np.maximum(1.0, 0.03 * side)
    return np.clip(moved, 0, np.asarray(geometry.size) - 1)


def deepest(mask: np.ndarray, spacing_kji) -> np.ndarray:
    """The voxel ``(i, j, k)`` of a non-empty mask that lies farthest from its border."""
    region = Region.of_mask(mask)
    depth = ndimage.distance_transform_edt(np.pad(mask[region.slices], 1), sampling=spacing_kji)[1:-1, 1:-1, 1:-1]
    place = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return (np.array(place) + region.start)[::-1].astype(float)


def largest_component(mask: np.ndarray) -> np.ndarray:
    """The largest 26-connected component of a mask (the whole when it is empty)."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    if count < 2:
        return mask
    return parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))


def oracle_click(truth: np.ndarray, mask: np.ndarray, spacing_kji) -> Click | None:
    """The deepest voxel of the largest connected error; None when there is no error.

    Arrays may be crops as long as both cover the same voxels; the point is in their indices.
    """
    errors = [(largest_component(truth & ~mask), True), (largest_component(mask & ~truth), False)]
    error, positive = max(errors, key=lambda e: int(e[0].sum()))
    if not error.any():
        return None
    return Click(deepest(error, spacing_kji), positive)


def sloppy_click(truth: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> Click | None:
    """A click anywhere in the largest error; one in `SLOPPY_MISS` lands up to `BESIDE` voxels beside it.

    It then says what the error asks for of a voxel that is right; where the error leaves no such voxel, it hits.
    """
    errors = [(largest_component(truth & ~mask), True), (largest_component(mask & ~truth), False)]
    error, positive = max(errors, key=lambda e: int(e[0].sum()))
    inside = np.argwhere(error)
    if not len(inside):
        return None
    place = inside[rng.integers(len(inside))]
    if rng.integers(SLOPPY_MISS) == 0:
        region = Region.of_mask(error).grow(BESIDE, (1, 1, 1)).clip(error.shape)
        near = ndimage.binary_dilation(error[region.slices], iterations=BESIDE)
        beside = np.argwhere(near & (truth[region.slices] == mask[region.slices])) + region.start
        place = beside[rng.integers(len(beside))] if len(beside) else place
    return Click(place[::-1].astype(float), positive)


def starting_prompts(truth: np.ndarray, geometry: Geometry, rng: np.random.Generator) -> dict[str, Prompts]:
    """The other ways to begin: one click, a box, a line, a scribble, a spoiled prior mask.

    `truth` is a mask of the whole volume. There is no line where its deepest slice has one voxel of it only.
    """
    region = Region.of_mask(truth)
    low, high = np.array(region.start[::-1], float), np.array(region.stop[::-1], float) - 1
    centre = deepest(truth, geometry.spacing_kji)
    line = _longest_in_slice(truth[int(centre[2])], centre[2], geometry)
    return {
        "one click": Prompts(positive=[centre]),
        "box": Prompts(box=[low, high]),
        **({"line": Prompts(line=line)} if (line[0] != line[1]).any() else {}),
        "scribble": Prompts(scribbles=[Scribble(_stroke(truth, region))]),
        "spoiled prior": Prompts(
            extreme_points=extreme_points(truth, rng), prior=spoil(truth, geometry.spacing_kji, rng)
        ),
    }


def _longest_in_slice(plane: np.ndarray, k: float, geometry: Geometry) -> np.ndarray:
    """Ends of (nearly) the longest diameter of a mask slice, as a RECIST line."""
    inside = np.argwhere(plane)[:, ::-1] * np.asarray(geometry.spacing[:2])
    start = inside[np.argmax(np.linalg.norm(inside - inside.mean(axis=0), axis=1))]
    for _ in range(3):
        end = inside[np.argmax(np.linalg.norm(inside - start, axis=1))]
        start, end = end, start
    ends = np.array([start, end]) / np.asarray(geometry.spacing[:2])
    return np.column_stack([ends, [k, k]])


def _stroke(truth: np.ndarray, region: Region) -> np.ndarray:
    """A polyline through the middle of the structure, one point per slice of its longest axis."""
    axis = int(np.argmax(region.shape))
    planes = range(region.start[axis], region.stop[axis])
    points = []
    for plane in list(planes)[len(planes) // 6 : len(planes) - len(planes) // 6] or [planes[len(planes) // 2]]:
        cut = np.take(truth, plane, axis=axis)
        if not cut.any():
            continue
        depth = ndimage.distance_transform_edt(cut)
        place = list(np.unravel_index(int(np.argmax(depth)), depth.shape))
        place.insert(axis, plane)
        points.append(place[::-1])
    return np.array(points, dtype=float)


def spoil(truth: np.ndarray, spacing_kji, rng: np.random.Generator) -> MaskPatch:
    """A prior mask with known faults: a lobe missing on one side, a bulge on another."""
    region = Region.of_mask(truth)
    size = np.array(region.shape) * spacing_kji
    margin = region.grow(0.2 * float(size.max()), spacing_kji).clip(truth.shape)
    mask = truth[margin.slices].copy()
    border = np.argwhere(mask & ~ndimage.binary_erosion(mask, border_value=0))
    axes = np.meshgrid(*[np.arange(n) for n in mask.shape], indexing="ij", sparse=True)
    radius = 0.25 * float(np.cbrt(np.prod(size)))
    for fill in (False, True):
        centre = border[rng.integers(len(border))]
        ball = sum(((a - c) * s) ** 2 for a, c, s in zip(axes, centre, spacing_kji, strict=True)) <= radius**2
        mask[ball] = fill
    return MaskPatch(margin, mask)
