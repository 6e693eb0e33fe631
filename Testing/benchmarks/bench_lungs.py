"""The lungs of a CT of 512x512x300 voxels: Dice, time and memory, beside thresholding alone as the baseline.

Run by ``make bench``. The thorax is that of the tests, made of simple shapes; the shared chest, where it is, is small
and real. The last line is JSON.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

import numpy as np
from scipy import ndimage

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "Testing" / "backend"))

from thorax import LEFT, RIGHT, Thorax  # noqa: E402

from aiassist.imaging import Geometry, Region, Volume, read_labelmap, read_volume  # noqa: E402
from aiassist.segmenters.lungs import LungsCT  # noqa: E402

SHAPE, SPACING = (300, 512, 512), (0.8, 0.8, 1.2)
CHEST = ROOT.parent / "shared" / "data" / "cases" / "cip_ct64_lung"
#: Slices that are made at once.
SLAB = 10


def large_thorax() -> tuple[Volume, np.ndarray]:
    """A thorax in full resolution, made in slabs."""
    size = np.array(SHAPE[::-1])
    geometry = Geometry.from_spacing(SHAPE, SPACING, origin=[0, 10, -10] - (size - 1) / 2 * SPACING)
    voxels, truth = np.empty(SHAPE, np.int16), np.empty(SHAPE, np.uint8)
    for k in range(0, SHAPE[0], SLAB):
        region = Region((k, 0, 0), (k + SLAB, *SHAPE[1:]))
        part, truth[region.slices] = Thorax().scan(geometry.crop(region))
        voxels[region.slices] = part.voxels
    return Volume(voxels, geometry), truth


def shared_chest() -> tuple[Volume, np.ndarray]:
    """The real chest of the shared data, 4 mm; the upper byte of its labels says airway or vessel."""
    volume = read_volume(CHEST / "image.nii.gz")
    regions = read_labelmap(CHEST / "label.nii.gz", like=volume).voxels & 255
    return volume, np.isin(regions, (9, 10, 11)) * LEFT + np.isin(regions, (12, 13, 14)) * RIGHT


def threshold_alone(volume: Volume) -> np.ndarray:
    """The two largest pieces of air that touch no side, left from right by the array's middle: the baseline."""
    parts, _ = ndimage.label(volume.voxels < -400)
    sizes = np.bincount(parts.ravel())
    sizes[np.concatenate([[0], parts[:, [0, -1]].ravel(), parts[:, :, [0, -1]].ravel()])] = 0
    air = np.isin(parts, np.argsort(sizes)[-2:])
    towards_left = np.arange(volume.shape[2]) * volume.geometry.direction[0, 0]
    return np.where(towards_left > np.median(towards_left), LEFT, RIGHT) * air


def memory(what: str) -> int:
    """``VmRSS``, what this process holds, or ``VmHWM``, the most it has held, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(rf"{what}:\s+(\d+) kB", status).group(1))


def measure(name: str, volume: Volume, truth: np.ndarray) -> dict:
    """One row: Dice of both, the slowest step, and what it took."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")  # forget the most it has held
    before, began, steps = memory("VmRSS"), time.perf_counter(), []
    work = LungsCT().segment(volume)
    while True:
        start = time.perf_counter()
        try:
            next(work)
        except StopIteration as end:
            patch = end.value
            break
        finally:
            steps.append(time.perf_counter() - start)
    row = {"image": name, "seconds": time.perf_counter() - began, "longest step": max(steps)}
    row["MB"] = (memory("VmHWM") - before) / 1e6
    found = patch.to_labelmap(volume.shape)
    for method, labels in (("lungs-ct", found), ("threshold", threshold_alone(volume))):
        row |= {f"{method} {side}": dice(labels == v, truth == v) for side, v in (("left", LEFT), ("right", RIGHT))}
    return row


def dice(found: np.ndarray, truth: np.ndarray) -> float:
    return float(2 * (found & truth).sum() / (found.sum() + truth.sum()))


def main() -> None:
    """Measure and print."""
    rows = [measure("thorax of shapes, 512x512x300", *large_thorax())]
    if CHEST.is_dir():
        rows.append(measure("shared chest, 64x64x79, silver labels", *shared_chest()))
    else:
        print(f"{CHEST} is not here: the real chest is left out.")
    for row in rows:
        image, *numbers = row.items()
        print(f"{image[1]}: " + ", ".join(f"{name} {value:.3g}" for name, value in numbers))
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
