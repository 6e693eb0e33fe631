"""How long opening a slice, a drag, and carrying a correction to ten slices take, beside plain following.

    python Testing/benchmarks/bench_contour_speed.py [DICOM_FOLDER LABELS]

On a CT of 512x512 pixels a slice, vertices spaced so that an outline has about 200, radius 20 mm.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

from aiassist.contour import ContourSession
from aiassist.contour.edit import is_valid
from aiassist.contour.ring import segment_lengths
from aiassist.contour.snap import Pull, follow
from aiassist.imaging import MaskPatch, read_labelmap, read_volume

DATA = Path(__file__).parents[3] / "shared" / "data" / "dicom"
RADIUS, VERTICES, DRAGS = 20.0, 200, 12


def milliseconds(work, *arguments) -> tuple[float, object]:
    began = time.perf_counter()
    result = work(*arguments)
    return 1000 * (time.perf_counter() - began), result


def longest(rings):
    return max(range(len(rings)), key=lambda n: len(rings[n]))


def session_with(volume, patch, k: int) -> ContourSession | None:
    """A session on a slice whose longest outline has about `VERTICES` vertices; None for small outlines."""
    session = ContourSession(volume, patch, distance=2.0)
    rings = session.open(0, k)
    if not rings:
        return None
    ring = rings[longest(rings)]
    length = segment_lengths(ring.points * session.plane.spacing).sum()
    return ContourSession(volume, patch, distance=length / VERTICES) if length > 200 else None


def measure(volume, mask: np.ndarray, times: dict[str, list[float]]) -> None:
    patch = MaskPatch.of_mask(mask)
    rng = np.random.default_rng(0)
    areas = mask.sum(axis=(1, 2))
    for k in np.argsort(areas)[::-1][:3]:
        session = session_with(volume, patch, int(k))
        if session is None:
            return
        took, rings = milliseconds(session.open, 0, int(k))
        times["open"].append(took)
        number = longest(rings)
        ring, spacing = rings[number], session.plane.spacing
        times["vertices"].append(len(ring))
        for vertex in rng.integers(0, len(ring), DRAGS):
            target = ring.points[vertex] + rng.normal(0, 6, 2) / spacing
            session.press(ring.points[vertex])
            times["drag"].append(milliseconds(session.drag, target, RADIUS)[0])
            times["following alone"].append(milliseconds(plain, rings, number, vertex, target, spacing)[0])
        session.drag(target, RADIUS)
        session.release()
        took, edit = milliseconds(session.propagate, 5, RADIUS)
        if edit is not None and len(edit.slices) >= 8:
            times["propagate to 8 to 10 slices"].append(took)


def plain(rings, number, vertex, target, spacing) -> bool:
    pull = Pull(rings[number].points * spacing, int(vertex), target * spacing, RADIUS)
    return is_valid(rings, number, follow(pull) / spacing, pull.moves)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("image", nargs="?", type=Path, default=DATA / "ct20")
    parser.add_argument("labels", nargs="?", type=Path, default=DATA / "ct20_label.nii.gz")
    options = parser.parse_args()
    if not options.image.exists():
        sys.exit(f"There is no image in {options.image}; name a DICOM folder and its labels.")
    volume = read_volume(options.image)
    labels = read_labelmap(options.labels, volume).voxels
    times: dict[str, list[float]] = {name: [] for name in ("vertices", "open", "drag", "following alone")}
    times["propagate to 8 to 10 slices"] = []
    for value in np.unique(labels)[1:]:
        measure(volume, labels == value, times)
    print(f"slices of {volume.shape[1]}x{volume.shape[2]}; outlines of {np.median(times.pop('vertices')):.0f} vertices")
    for name, found in times.items():
        print(f"{name:>28}: n {len(found):4}, p50 {np.median(found):7.1f} ms, p95 {np.percentile(found, 95):7.1f} ms")


if __name__ == "__main__":
    main()
