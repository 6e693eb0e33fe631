"""From a click to the mask on a 512x512x300 volume: the network's pass, and everything around it.

    python Testing/benchmarks/bench_click.py [--model M]

Balls and ellipsoids of many sizes in noise, apart from each other; each is annotated from its six points, then
corrected by a click. Beside it the bare pass: the same network on the same input, nothing else.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import numpy as np
import psutil

from aiassist.engine import AnnotateRequest, LocalBackend
from aiassist.imaging import Geometry, MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.registry import DEFAULT, bundled

SHAPE = (300, 512, 512)
#: Half sizes (k, j, i) in voxels.
SIZES = ((5, 8, 8), (8, 15, 20), (20, 30, 30), (30, 60, 45), (45, 60, 80), (60, 100, 100), (90, 150, 130))
REPEATS = 5
FIRST = """
import sys, time
began = time.perf_counter()
import numpy as np
from aiassist.engine import AnnotateRequest, LocalBackend
from aiassist.imaging import Geometry, Volume
from aiassist.prompts import Prompts
shape = (80, 200, 200)
volume = Volume(np.random.default_rng(0).normal(0, 9, shape).astype("int16"), Geometry.from_spacing(shape))
points = [[50, 100, 40], [150, 100, 40], [100, 60, 40], [100, 150, 40], [100, 100, 20], [100, 100, 60]]
with LocalBackend() as backend:
    backend.annotate(AnnotateRequest(backend.open_study(volume), Prompts(extreme_points=points), model=sys.argv[1]))
print(time.perf_counter() - began)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=DEFAULT)
    options = parser.parse_args()
    volume, ellipsoids = scene()
    with LocalBackend(threaded=False) as backend:
        study = backend.open_study(volume)
        before = psutil.Process().memory_info().rss
        rows = [row for e in ellipsoids for row in measure(backend, study, e, options.model)]
        peak = max(row["rss"] for row in rows) - before
    bare = bare_pass(options.model)
    print(f"{'voxels across':>14} {'total ms':>9} {'pass':>6} {'around':>7} {'of it guess':>12} {'click':>6}")
    for across in dict.fromkeys(row["across"] for row in rows):
        mine = [row for row in rows if row["across"] == across]
        middle = {name: np.median([row[name] for row in mine]) for name in ("total", "pass", "guess", "click")}
        around = middle["total"] - middle["pass"]
        print(
            f"{across:>14} {middle['total']:9.0f} {middle['pass']:6.0f} {around:7.0f} {middle['guess']:12.0f} "
            f"{middle['click']:6.0f}"
        )
    total, around = (
        np.array([f(row) for row in rows]) for f in (lambda r: r["total"], lambda r: r["total"] - r["pass"])
    )
    print(f"\nclick to mask p50 {np.median(total):.0f} ms, p95 {np.percentile(total, 95):.0f} ms")
    print(f"around the pass p50 {np.median(around):.0f} ms, p95 {np.percentile(around, 95):.0f} ms")
    print(f"corrective click p50 {np.median([row['click'] for row in rows]):.0f} ms")
    print(f"bare pass {bare:.0f} ms" if bare else "this model has no network")
    print(f"memory beyond the volume at most {peak / 2**20:.0f} MiB")
    first = [
        float(subprocess.run([sys.executable, "-c", FIRST, options.model], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    print(f"first mask in a new process {min(first):.2f} s")


def scene():
    """The volume, and the centre and half size (k, j, i) of each ellipsoid in it."""
    rng = np.random.default_rng(0)
    voxels = rng.integers(-60, 60, SHAPE, np.int16)
    taken, placed = np.zeros(SHAPE, bool), []
    for half in map(np.array, reversed(SIZES)):  # the largest first, while there is room
        centre, inside = _place(half, taken, rng)
        taken |= inside
        voxels[inside] += 80
        placed.append((centre, half))
    return Volume(voxels, Geometry.from_spacing(SHAPE, (0.8, 0.8, 1.5))), placed[::-1]


def _place(half: np.ndarray, taken: np.ndarray, rng: np.random.Generator):
    """The centre of an ellipsoid where nothing is yet, and its voxels."""
    while True:
        centre = np.array([rng.integers(h + 1, n - h - 1) for h, n in zip(half, SHAPE, strict=True)])
        inside = _ellipsoid(centre, half)
        if not (taken & inside).any():
            return centre, inside


def _ellipsoid(centre: np.ndarray, half: np.ndarray) -> np.ndarray:
    k, j, i = np.ogrid[tuple(slice(0, n) for n in SHAPE)]
    return sum(((x - c) / h) ** 2 for x, c, h in zip((k, j, i), centre, half, strict=True)) <= 1


def measure(backend: LocalBackend, study: str, ellipsoid, model: str) -> list[dict]:
    """Annotate from six points, then click, a few times."""
    centre, half = ellipsoid
    steps = [sign * step for step in np.diag(half) for sign in (-1, 1)]
    points = np.array([centre + step for step in steps])[:, ::-1]
    prompts = Prompts(extreme_points=points)
    base = backend.put_mask(study, MaskPatch.of_mask(_ellipsoid(centre, half)))
    outside = Prompts(extreme_points=points, negative=[(centre + half * [0, 0, 0.5])[::-1]])
    rows = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        answer = backend.annotate(AnnotateRequest(study, prompts, model=model))
        total = time.perf_counter() - began
        began = time.perf_counter()
        backend.annotate(AnnotateRequest(study, outside, base=base, model=model))
        click = time.perf_counter() - began
        seconds = {"pass": answer.seconds.get("pass", 0.0), "guess": answer.seconds.get("guess", 0.0)}
        row = {"total": total, "click": click, **seconds}
        rows.append({name: 1000 * value for name, value in row.items()})
        rows[-1] |= {"across": int(2 * half.max()), "rss": psutil.Process().memory_info().rss}
    return rows


def bare_pass(model: str) -> float | None:
    """Milliseconds of the network alone."""
    runner = getattr(bundled().get(model), "runner", None)
    if runner is None:
        return None
    seen = np.random.default_rng(0).normal(size=(runner.inputs, *(runner.cells,) * 3)).astype(np.float32)
    times = []
    for _ in range(10):
        began = time.perf_counter()
        runner(seen)
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times))


if __name__ == "__main__":
    main()
