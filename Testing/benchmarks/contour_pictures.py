"""Ten corrections on real slices, drawn before, during and after one pull.

    python Testing/benchmarks/contour_pictures.py FOLDER [--shared DATA]

Green is the truth, orange the outline, the arrow the pull.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from bench_contour import FAULTS, Task, dense, largest, largest_ring
from scipy import ndimage
from scipy.spatial import cKDTree

from aiassist.contour import Ring
from aiassist.contour.edit import pull_vertex
from aiassist.evaluation.cases import load_case
from aiassist.imaging import Volume, finite, read_labelmap, read_volume

SHARED = Path(__file__).parents[3] / "shared" / "data"


@dataclass
class Scene:
    """A slice of one label of a case, and what is wrong with its mask."""

    case: str
    value: int
    name: str
    fault: str
    radius: float = 30.0  # mm


SCENES = [
    Scene("ts_ct_torso", 1, "spleen", "leaked bulge"),
    Scene("ts_ct_torso", 5, "liver", "missed lobe", 60),
    Scene("ts_ct_torso", 2, "right kidney", "shifted arc"),
    Scene("ct20", 5, "liver", "leaked bulge", 80),
    Scene("ct20", 1, "spleen", "missed lobe", 60),
    Scene("sts_012_mr", 1, "sarcoma, MR", "shifted arc", 50),
    Scene("scd_n02_ed", 1, "left ventricle, MR", "eroded", 40),
    Scene("sct_t2_cord", 1, "spinal cord, MR", "leaked bulge"),
    Scene("msd_spleen_2_crop", 1, "spleen, CT", "missed lobe", 60),
    Scene("tptbox_ct_l3", 22, "vertebra, CT", "leaked bulge"),
]


def load(shared: Path, case: str) -> tuple[Volume, np.ndarray]:
    if case != "ct20":
        return load_case(shared / "cases" / case)
    volume = read_volume(shared / "dicom" / case)
    return volume, read_labelmap(shared / "dicom" / "ct20_label.nii.gz", volume).voxels


def task_of(scene: Scene, shared: Path) -> Task:
    volume, labels = load(shared, scene.case)
    values = np.unique(labels)
    truth = labels == (scene.value if scene.value in values else values[-1])
    slices = np.flatnonzero(truth.any(axis=(1, 2)))
    k = int(slices[len(slices) // 2])
    plane = ndimage.binary_fill_holes(largest(truth[k]))
    towards = np.sign(np.diag(volume.geometry.affine)[:2])[::-1]  # shown as radiologists look at it: LPS
    flip = tuple(slice(None, None, int(way) or 1) for way in towards)
    plane, grey = plane[flip], finite(volume.voxels[k])[flip]
    rows, columns = np.nonzero(plane)
    margin = int(0.4 * max(np.ptp(rows), np.ptp(columns))) + 6
    crop = tuple(slice(max(a.min() - margin, 0), a.max() + margin) for a in (rows, columns))
    plane, grey = plane[crop], grey[crop]
    mask = ndimage.binary_fill_holes(largest(FAULTS[scene.fault](plane, np.random.default_rng(3))))
    return Task(grey, plane, mask, np.array(volume.geometry.spacing[:2]), "", scene.case, scene.fault, 0)


def hand(truth: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, int]:
    """Where a person would pull which vertex: the worst place of the outline, or of the truth when that is worse."""
    to_truth, to_outline = cKDTree(truth), cKDTree(points)
    too_far, missed = to_truth.query(points)[0], to_outline.query(truth)[0]
    if too_far.max() >= missed.max():
        vertex = int(np.argmax(too_far))
        return truth[to_truth.query(points[vertex])[1]], vertex
    target = truth[np.argmax(missed)]
    return target, int(to_outline.query(target)[1])


def pulled(task: Task, radius: float) -> list[np.ndarray]:
    """The outline before, half way and after; the vertex and its target come last."""
    pixel = float(np.sqrt(np.prod(task.spacing)))
    truth = dense(largest_ring(task.truth, task.spacing, 1.0), 0.25 * pixel)
    points = largest_ring(task.mask, task.spacing, max(3 * pixel, 2.5))
    target, vertex = hand(truth, points)
    found = [points]
    for share in (0.5, 1.0):
        place = (points[vertex] + share * (target - points[vertex])) / task.spacing
        rings = pull_vertex([Ring(points / task.spacing)], 0, vertex, place, task.grey, task.spacing, radius)
        found.append(rings[0].points * task.spacing)
    return [truth, *found, points[vertex], target]


def draw(scene: Scene, task: Task, path: Path) -> None:
    truth, before, during, after, start, target = pulled(task, scene.radius)
    height, width = np.array(task.grey.shape) * task.spacing[::-1]
    figure, axes = plt.subplots(1, 3, figsize=(9.6, 3.4 * height / width + 0.35), layout="constrained")
    low, high = np.percentile(task.grey[ndimage.binary_dilation(task.truth, iterations=6)], [1, 99])
    spread = 0.4 * (high - low)
    for axis, points, title in zip(axes, (before, during, after), ("before", "half way", "after"), strict=True):
        x, y = task.spacing
        extent = (-x / 2, width - x / 2, height - y / 2, -y / 2)
        axis.imshow(task.grey, cmap="gray", vmin=low - spread, vmax=high + spread, extent=extent)
        axis.plot(*np.vstack([truth, truth[:1]]).T, color="#35c759", linewidth=1.2)
        axis.plot(*np.vstack([points, points[:1]]).T, color="#ff9f0a", linewidth=1.6, marker="o", markersize=2.4)
        axis.set_title(title, fontsize=10)
        axis.axis("off")
    axes[0].annotate("", target, start, arrowprops={"arrowstyle": "-|>", "color": "#0a84ff", "lw": 2})
    axes[2].plot(*target, "o", color="#0a84ff", markersize=6)
    figure.suptitle(f"{scene.name}: {scene.fault}", fontsize=11)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shared", type=Path, default=SHARED)
    options = parser.parse_args()
    if not options.shared.exists():
        sys.exit(f"There are no cases in {options.shared}; name the folder that holds cases/ and dicom/.")
    options.folder.mkdir(parents=True, exist_ok=True)
    for number, scene in enumerate(SCENES, 1):
        path = options.folder / f"{number:02}-{scene.case}-{scene.fault.replace(' ', '-')}.png"
        draw(scene, task_of(scene, options.shared), path)
        print(path)


if __name__ == "__main__":
    main()
