"""How many drags correct a contour: ours beside plain dragging, smooth falloff and intelligent scissors.

    python Testing/benchmarks/bench_contour.py [CASES] [--quick] [--split dev|report] [--json OUT]

CASES is laid out as the project's shared cases. Each slice starts from a mask that is wrong in a known
way. A simulated annotator drags the vertex farthest from the truth to its true place, missed by a
normal of 1.5 pixels, until Dice is .95 or the mean border distance less than a pixel.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from aiassist.contour import Ring, rasterise, trace
from aiassist.contour.ring import is_simple
from aiassist.contour.snap import Pull, drag, follow
from aiassist.evaluation.cases import Structure, find_structures
from aiassist.evaluation.metrics import dice
from aiassist.imaging import finite

CASES = Path(__file__).parents[3] / "shared" / "data" / "cases"
RADII = (12, 24, 48)
MISS = 1.5
MOST = 30
#: Fewest pixels of a slice of a structure.
LEAST = 80


@dataclass
class Task:
    """A slice to correct: grey values, the truth, a faulty mask, spacing ``(x, y)`` and where it is from."""

    grey: np.ndarray
    truth: np.ndarray
    mask: np.ndarray
    spacing: np.ndarray
    stratum: str
    case: str
    fault: str
    seed: int


# Faults


def shifted_arc(truth, rng):
    size = np.sqrt(truth.sum() / np.pi)
    angle = rng.uniform(0, 2 * np.pi)
    shift = np.rint(0.3 * size * np.array([np.sin(angle), np.cos(angle)])).astype(int)
    moved = ndimage.shift(truth, shift, order=0)
    row, column = np.indices(truth.shape)
    centre = np.argwhere(truth).mean(axis=0)
    side = (row - centre[0]) * np.sin(angle) + (column - centre[1]) * np.cos(angle) > 0.3 * size
    return np.where(side, moved, truth)


def _disc_on_border(truth, rng, share):
    border = np.argwhere(truth & ~ndimage.binary_erosion(truth, border_value=1))
    centre = border[rng.integers(len(border))]
    row, column = np.indices(truth.shape)
    return (row - centre[0]) ** 2 + (column - centre[1]) ** 2 <= share**2 * truth.sum() / np.pi


def leaked_bulge(truth, rng):
    return truth | _disc_on_border(truth, rng, 0.5)


def missed_lobe(truth, rng):
    return truth & ~_disc_on_border(truth, rng, 0.6)


def eroded(truth, rng):
    depth = ndimage.distance_transform_edt(truth)
    return depth > 0.25 * depth.max() + 1


def ellipse(truth, rng):
    rows, columns = np.nonzero(truth)
    centre = [(rows.max() + rows.min()) / 2, (columns.max() + columns.min()) / 2]
    half = [max(np.ptp(rows) / 2, 1) + 0.5, max(np.ptp(columns) / 2, 1) + 0.5]
    row, column = np.indices(truth.shape)
    return ((row - centre[0]) / half[0]) ** 2 + ((column - centre[1]) / half[1]) ** 2 <= 1


FAULTS: dict[str, Callable] = {
    "shifted arc": shifted_arc,
    "leaked bulge": leaked_bulge,
    "missed lobe": missed_lobe,
    "eroded": eroded,
    "ellipse": ellipse,
}


def largest(mask: np.ndarray) -> np.ndarray:
    parts, count = ndimage.label(mask)
    return mask if count < 2 else parts == 1 + np.argmax(np.bincount(parts.ravel())[1:])


def tasks(structure: Structure, slices: int) -> Iterator[Task]:
    """Faulty slices of one structure."""
    volume, truth = structure.load()
    areas = truth.sum(axis=(1, 2))
    good = np.flatnonzero(areas >= LEAST)
    if not len(good):
        return
    spacing = np.array(volume.geometry.spacing[:2])
    for k in np.unique(good[np.linspace(0, len(good) - 1, slices + 2).astype(int)[1:-1]]):
        plane = ndimage.binary_fill_holes(largest(truth[k]))
        if plane.sum() < LEAST:
            continue
        rows, columns = np.nonzero(plane)
        margin = int(0.6 * max(np.ptp(rows), np.ptp(columns))) + 8
        crop = (
            slice(max(rows.min() - margin, 0), rows.max() + margin),
            slice(max(columns.min() - margin, 0), columns.max() + margin),
        )
        grey, plane = finite(volume.voxels[k][crop]), plane[crop]
        name = f"{structure.case} {structure.name} {k}"
        masks = {
            fault: make(plane, np.random.default_rng([zlib.crc32(name.encode()), n]))
            for n, (fault, make) in enumerate(FAULTS.items())
        }
        masks["classical"] = _classical(structure, volume, truth, int(k), crop)
        for fault, mask in masks.items():
            mask = ndimage.binary_fill_holes(largest(mask))
            if mask.sum() >= 20 and not good_enough(mask, plane, spacing):
                yield Task(
                    grey,
                    plane,
                    mask,
                    spacing,
                    structure.stratum,
                    structure.case,
                    fault,
                    zlib.crc32(f"{name} {fault}".encode()),
                )


_solved: dict = {}


def _classical(structure, volume, truth, k, crop):
    """The slice of what the classical segmenter makes of the structure's extreme points."""
    from aiassist.prompts import Prompts, extreme_points
    from aiassist.segmenters.base import run
    from aiassist.segmenters.geodesic import Geodesic

    if structure.title not in _solved:
        _solved.clear()
        points = extreme_points(truth, np.random.default_rng(0))
        _solved[structure.title] = run(Geodesic().annotate(volume, Prompts(extreme_points=points))).to_mask(
            volume.shape
        )
    return _solved[structure.title][k][crop]


# Ways to drag: points (n, 2) in mm, vertex, target, radius in mm, task -> points


def plain(points, vertex, target, radius, task):
    moved = points.copy()
    moved[vertex] = target
    return moved


def falloff(points, vertex, target, radius, task):
    return follow(Pull(points, vertex, target, radius))


def valid_falloff(pull: Pull) -> np.ndarray:
    """The smooth falloff as an outline: the farthest one that does not cross itself; the vertex alone at the least."""
    tries = (follow(pull, share) for share in np.linspace(1, 0, 11))
    return next((points for points in tries if is_simple(points, pull.moves)), follow(pull, 0.0))


class Ours:
    """Our snapping; vertices that were put somewhere stay."""

    def __init__(self):
        self._shown, self._placed = None, None

    def __call__(self, points, vertex, target, radius, task):
        if points is not self._shown:  # another course
            self._placed = np.zeros(len(points), bool)
        pull = Pull(points, vertex, target, radius, placed=self._placed)
        self._placed = self._placed & ~pull.moves
        self._placed[vertex] = True
        self._shown = drag(pull, task.grey, task.spacing)
        return self._shown


class Scissors:
    """OpenCV's intelligent scissors from anchor to target to anchor."""

    def __init__(self):
        self._task, self._tool = None, None

    def __call__(self, points, vertex, target, radius, task):
        import cv2

        if self._task is not task:
            low, high = np.percentile(task.grey, [1, 99])
            image = np.clip((task.grey - low) / max(high - low, 1e-6) * 255, 0, 255).astype(np.uint8)
            self._tool = cv2.segmentation.IntelligentScissorsMB()
            self._tool.setEdgeFeatureCannyParameters(32, 100)
            self._tool.setGradientMagnitudeMaxLimit(200)
            self._tool.applyImage(cv2.cvtColor(image, cv2.COLOR_GRAY2BGR))
            self._task = task
        pull = Pull(points, vertex, target, radius)
        keep = np.flatnonzero(~pull.moves)
        count = len(points)
        back = max(keep, key=lambda n: -((vertex - n) % count))
        ahead = max(keep, key=lambda n: -((n - vertex) % count))
        limit = np.array(task.grey.shape)[::-1] - 1

        def pixel(p):
            return tuple(int(v) for v in np.clip(np.rint(p / task.spacing), 0, limit))

        self._tool.buildMap(pixel(target))
        moved = points.copy()
        for end, step in ((back, -1), (ahead, 1)):
            path = np.asarray(self._tool.getContour(pixel(points[end]))).reshape(-1, 2) * task.spacing
            if np.linalg.norm(path[0] - target) > np.linalg.norm(path[-1] - target):
                path = path[::-1]
            members, n = [], (vertex + step) % count
            while n != end:
                members.append(n)
                n = (n + step) % count
            moved[members] = path[np.linspace(0, len(path) - 1, len(members) + 2)[1:-1].astype(int)]
        moved[vertex] = target
        return moved


METHODS = {
    "plain": (plain, (0,)),
    "falloff": (falloff, RADII),
    "ours": (Ours(), RADII),
    "scissors": (Scissors(), RADII),
}


# The annotator


def dense(points, step):
    closed = np.vstack([points, points[:1]])
    way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    places = np.arange(0, way[-1], step)
    return np.column_stack([np.interp(places, way, closed[:, a]) for a in range(2)])


def correct(task: Task, way, radius_px: float) -> dict:
    """Drag until it is good; counts drags and what each did."""
    pixel = float(np.sqrt(np.prod(task.spacing)))
    truth = dense(largest_ring(task.truth, task.spacing, 1.0), 0.25 * pixel)
    tree = cKDTree(truth)
    points = largest_ring(task.mask, task.spacing, 4 * pixel)
    rng = np.random.default_rng(task.seed)
    befores, afters, plains, valids, seconds = [], [], [], [], []
    for number in range(MOST + 1):
        if _good(points, truth, task, pixel):
            break
        if number == MOST:
            break
        vertex = int(np.argmax(tree.query(points)[0]))
        target = truth[tree.query(points[vertex])[1]] + rng.normal(0, MISS, 2) * task.spacing
        before = points
        began = time.perf_counter()
        points = way(points, vertex, target, radius_px * pixel, task)
        seconds.append(time.perf_counter() - began)
        if radius_px:
            pull = Pull(before, vertex, target, radius_px * pixel)
            within = pull.moves
            befores.append(_distance(before, within, tree) / pixel)
            afters.append(_distance(points, within, tree) / pixel)
            plains.append(_distance(follow(pull), within, tree) / pixel)
            valids.append(_distance(valid_falloff(pull), within, tree) / pixel)
    milliseconds = [1000 * s for s in seconds]
    distances = {"before": befores, "after": afters, "falloff": plains, "valid": valids}
    return {"drags": number, **distances, "ms": milliseconds}


def _distance(points, within, tree) -> float:
    """Mean distance to the truth of the segments between vertices that may move."""
    following = np.roll(points, -1, axis=0)
    chosen = within | np.roll(within, -1)
    shares = np.linspace(0, 1, 5)[:, np.newaxis, np.newaxis]
    return float(tree.query(points[chosen] + shares * (following - points)[chosen])[0].mean())


def good_enough(mask, truth, spacing) -> bool:
    """Dice .95 or more, or a mean border distance below a pixel."""
    if dice(mask, truth) >= 0.95:
        return True
    pixel = float(np.sqrt(np.prod(spacing)))
    outlines = [dense(largest_ring(m, spacing, 1.0), 0.25 * pixel) for m in (mask, truth)]
    return _apart(*outlines) < pixel


def largest_ring(mask, spacing, distance) -> np.ndarray:
    """Vertices (n, 2) in mm of the largest part's outline."""
    return max(trace(mask, spacing, distance), key=lambda ring: ring.area).points * spacing


def _apart(mine, truth) -> float:
    return float(cKDTree(truth).query(mine)[0].mean() + cKDTree(mine).query(truth)[0].mean()) / 2


def _good(points, truth, task, pixel) -> bool:
    found = rasterise([Ring(points / task.spacing)], task.truth.shape)
    if dice(found, task.truth) >= 0.95:
        return True
    return _apart(dense(points, 0.25 * pixel), truth) < pixel


def measure(work) -> list[dict]:
    structure, slices, methods = work
    rows = []
    for task in tasks(structure, slices):
        for method in methods:
            way, radii = METHODS[method]
            for radius in radii:
                rows.append(
                    {
                        "method": method,
                        "radius": radius,
                        "stratum": task.stratum,
                        "case": task.case,
                        "fault": task.fault,
                        **correct(task, way, radius),
                    }
                )
    return rows


# The report


def geometric(values) -> float:
    return float(np.exp(np.mean(np.log(np.maximum(values, 0.5)))))


def report(rows: list[dict]) -> dict:
    """Print tables; the numbers as a dictionary."""
    faults = sorted({row["fault"] for row in rows})
    print(f"\n{'method':>10} {'radius px':>9} {'drags':>7}" + "".join(f"{fault[:12]:>14}" for fault in faults))
    numbers = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        for radius in METHODS[method][1]:
            chosen = [row for row in rows if (row["method"], row["radius"]) == (method, radius)]
            each = [geometric([row["drags"] for row in chosen if row["fault"] == fault]) for fault in faults]
            numbers[method, radius] = over_strata(chosen)
            print(f"{method:>10} {radius:>9} {numbers[method, radius]:7.2f}" + "".join(f"{v:14.2f}" for v in each))
    best = {m: min((v, r) for (name, r), v in numbers.items() if name == m) for m in {name for name, _ in numbers}}
    if {"falloff", "ours"} <= set(best):
        _compare(rows, best)
    for radius in RADII:
        chosen = [row for row in rows if (row["method"], row["radius"]) == ("ours", radius)]
        if chosen:
            _print_drags(radius, chosen)
    return {f"{method} {radius}": value for (method, radius), value in numbers.items()}


def over_strata(rows: list[dict]) -> float:
    """Geometric mean of drags within a stratum, then over strata."""
    strata = sorted({row["stratum"] for row in rows})
    return geometric([geometric([row["drags"] for row in rows if row["stratum"] == s]) for s in strata])


def _compare(rows: list[dict], best: dict) -> None:
    """How many times fewer drags ours at its best radius needs than each other method at its own."""
    mine, radius = best["ours"]
    for method, (value, other) in best.items():
        if method != "ours":
            print(f"ours at {radius} pixels: {value / mine:.2f} times fewer drags than {method} at {other}")
    columns = [(m, r) for m, (_, r) in best.items() if m != "ours"] + [("ours", r) for r in METHODS["ours"][1]]
    print(f"  {'drags':16}" + "".join(f"{f'{method} {radius}':>14}" for method, radius in columns))
    for stratum in sorted({row["stratum"] for row in rows}):
        chosen = [[r for r in rows if (r["method"], r["radius"], r["stratum"]) == (*c, stratum)] for c in columns]
        print(f"  {stratum:16}" + "".join(f"{over_strata(each):14.2f}" for each in chosen))


def _print_drags(radius: int, rows: list[dict]) -> None:
    """What single drags did to the border distance within the radius."""
    names = ("before", "after", "falloff", "valid")
    before, after, smooth, valid = (np.concatenate([row[k] for row in rows]) for k in names)
    first = [[row[k][0] for k in names] for row in rows if row["after"]]
    times = np.percentile(np.concatenate([row["ms"] for row in rows]), [50, 95])
    print(
        f"ours at {radius} pixels: border distance falls in {np.mean(after < before):.1%} of drags "
        f"(first drags {np.mean([a < b for b, a, _, _ in first]):.1%}; falloff {np.mean(smooth < before):.1%}); "
        f"over .5 pixel worse than a falloff that does not cross itself in {np.mean(after > valid + 0.5):.2%} "
        f"(first {np.mean([a > v + 0.5 for _, a, _, v in first]):.1%}), than one that may in "
        f"{np.mean(after > smooth + 0.5):.2%} (first {np.mean([a > f + 0.5 for _, a, f, _ in first]):.1%}), "
        f"better in {np.mean(after < valid - 0.5):.1%}; "
        f"{times[0]:.1f} ms p50, {times[1]:.1f} ms p95"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="?", type=Path, default=CASES)
    parser.add_argument("--split", choices=("dev", "report"))
    parser.add_argument("--quick", action="store_true", help="two structures a stratum, one slice each")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if not options.cases.exists():
        sys.exit(f"There are no cases in {options.cases}; name a folder laid out as the shared data's cases.")
    chosen, seen = [], defaultdict(int)
    for structure in find_structures(str(options.cases)):
        if options.split in (None, structure.split) or structure.split == "all":
            seen[structure.stratum] += 1
            if seen[structure.stratum] <= (2 if options.quick else 12):
                chosen.append(structure)
    work = [(s, 1 if options.quick else 2, options.methods) for s in chosen]
    with ProcessPoolExecutor(options.workers) as pool:
        rows = [row for found in pool.map(measure, work) for row in found]
    print(f"{len(rows)} courses, {len(chosen)} structures")
    numbers = report(rows)
    if options.json:
        options.json.write_text(json.dumps(numbers, indent=1), encoding="utf8")


if __name__ == "__main__":
    main()
