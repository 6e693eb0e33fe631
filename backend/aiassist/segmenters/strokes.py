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


def force_clicks(mask: np.ndarray, region: Region, prompts: Prompts) -> None:
    """Make every positively clicked voxel of `mask` (over `region`) true and every negative one false."""
    strokes = [(stroke_points(s.points), s.positive) for s in prompts.scribbles if len(s.points)]
    for points, inside in ((prompts.positive, True), *strokes, (prompts.negative, False)):
        voxels = np.rint(np.asarray(points)[:, ::-1]).astype(int) - region.start
        voxels = voxels[((voxels >= 0) & (voxels < region.shape)).all(axis=1)]
        mask[tuple(voxels.T)] = inside
