"""Clicks and strokes as voxels."""

from __future__ import annotations

import itertools

import numpy as np

from aiassist.imaging import Region
from aiassist.prompts import Prompts


def stroke_points(polyline_ijk: np.ndarray) -> np.ndarray:
    """Points along a polyline of voxel indices, no farther than half a voxel apart."""
    points = np.asarray(polyline_ijk, dtype=float)
    parts = [points[:1]]
    for start, stop in itertools.pairwise(points):
        count = max(int(np.ceil(2 * np.abs(stop - start).max())), 1)
        parts.append(start + (stop - start) * (np.arange(1, count + 1) / count)[:, np.newaxis])
    return np.concatenate(parts)


def clicked_voxels(points_ijk: np.ndarray) -> np.ndarray:
    """The voxels (n, 3) ``(k, j, i)`` that points ``(i, j, k)`` lie in.

    Halves go down, so that a point on the volume's last face is in its last voxel.
    """
    return np.maximum(np.ceil(np.asarray(points_ijk)[:, ::-1] - 0.5), 0).astype(int)


def region_with_clicks(region: Region, prompts: Prompts) -> Region:
    """The box around `region` and all clicks and strokes."""
    points = [prompts.positive, prompts.negative, *(s.points for s in prompts.scribbles)]
    voxels = clicked_voxels(np.concatenate(points))
    return region.union(Region(voxels.min(axis=0), voxels.max(axis=0) + 1)) if len(voxels) else region


def force_clicks(mask: np.ndarray, region: Region, prompts: Prompts) -> None:
    """Make every positively clicked voxel of `mask` (over `region`) true and every negative one false."""
    strokes = [(stroke_points(s.points), s.positive) for s in prompts.scribbles if len(s.points)]
    for points, inside in ((prompts.positive, True), *strokes, (prompts.negative, False)):
        voxels = clicked_voxels(points) - region.start
        voxels = voxels[((voxels >= 0) & (voxels < region.shape)).all(axis=1)]
        mask[tuple(voxels.T)] = inside
