"""Measurements of segments, one row each."""

from __future__ import annotations

import csv
from dataclasses import astuple, dataclass, fields
from pathlib import Path

import numpy as np
import slicer
from scipy import ndimage
from scipy.spatial import ConvexHull, QhullError
from scipy.spatial.distance import pdist

from aiassist.files import whole_file
from AIAssistLib.geometry import ijk_to_world, transform
from AIAssistLib.segments import read_mask


@dataclass(frozen=True)
class Row:
    """One segment: volume in millilitres, longest diameter in mm, mean grey value, and its middle (RAS, mm)."""

    segment: str
    name: str
    millilitres: float
    diameter: float
    mean: float
    middle: tuple[float, float, float]


def measure(segmentation_node, volume_node) -> list[Row]:
    """Measure all segments that are not empty, in the editor's order."""
    segmentation = segmentation_node.GetSegmentation()
    voxels = slicer.util.arrayFromVolume(volume_node)
    to_world = ijk_to_world(volume_node)
    rows = []
    for number in range(segmentation.GetNumberOfSegments()):
        segment_id = segmentation.GetNthSegmentID(number)
        patch = read_mask(segmentation_node, segment_id, volume_node)
        if not patch.region.is_empty:
            name = segmentation.GetNthSegment(number).GetName()
            rows.append(_row(segment_id, name, patch, voxels, to_world))
    return rows


def _row(segment_id: str, name: str, patch, voxels: np.ndarray, to_world: np.ndarray) -> Row:
    mask, start = patch.mask, patch.region.start[::-1]
    millilitres = np.count_nonzero(mask) * abs(np.linalg.det(to_world[:3, :3])) / 1000
    middle = transform(to_world, np.add(ndimage.center_of_mass(mask)[::-1], start))[0]
    mean = float(voxels[patch.region.slices][mask].mean())
    border = np.argwhere(mask & ~ndimage.binary_erosion(mask))[:, ::-1] + start
    return Row(segment_id, name, millilitres, longest_diameter(transform(to_world, border)), mean, tuple(middle))


def longest_diameter(points: np.ndarray) -> float:
    """Largest distance between any two points (n, 3), between voxel centres, in their unit."""
    if len(points) < 2:
        return 0.0
    centred = points - points.mean(axis=0)
    along = centred @ np.linalg.svd(centred, full_matrices=False)[2].T  # the longest extent first
    for dimensions in (3, 2):  # two where all points lie in one plane
        try:
            return float(pdist(points[ConvexHull(along[:, :dimensions]).vertices]).max())
        except QhullError:
            continue
    return float(np.ptp(along[:, 0]))  # on one line


def write_csv(rows: list[Row], path: Path, image: str) -> None:
    """Write the measurements of an image as a table, its name in each row; whole or not at all.

    It begins with UTF-8's mark, without which Excel takes the text for another alphabet's.
    """
    with whole_file(path) as temporary, temporary.open("w", newline="", encoding="utf-8-sig") as stream:
        writer = csv.writer(stream)
        writer.writerow(["image"] + [f.name for f in fields(Row)[:-1]] + ["middle_r", "middle_a", "middle_s"])
        for row in rows:
            *values, middle = astuple(row)
            writer.writerow([image, *values, *middle])
