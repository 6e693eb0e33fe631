"""Opening a large volume, and a click in it: memory and time, beside a bare read as the baseline.

Run by ``make bench``. Makes a CT-like volume of 512x512x400 voxels in a temporary folder, opens it
in a fresh process per reader, and annotates an organ that is 200 voxels wide.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from aiassist.imaging import Geometry, Volume, write_volume

SHAPE = (400, 512, 512)
#: Semi-axes of the organ, (k, j, i) voxels: 200 voxels wide.
ORGAN = (70, 90, 100)
READERS = ("aiassist", "nibabel", "SimpleITK")


def make_volume() -> Volume:
    """A noisy int16 volume: air, a body, an organ in the middle."""
    rng = np.random.default_rng(0)
    voxels = np.full(SHAPE, -1000, np.int16)
    centre = [n / 2 for n in SHAPE]
    axes = np.ix_(*[np.arange(n) - c for n, c in zip(SHAPE, centre, strict=True)])
    voxels[(axes[1] / 180) ** 2 + (axes[2] / 230) ** 2 + 0 * axes[0] <= 1] = -80
    voxels[sum((a / s) ** 2 for a, s in zip(axes, ORGAN, strict=True)) <= 1] = 60
    for plane in voxels:
        plane += rng.normal(0, 20, plane.shape).astype(np.int16)
    return Volume(voxels, Geometry.from_spacing(SHAPE, (0.8, 0.8, 1.0)))


def peak_memory() -> int:
    """The most memory that this process has held since it was started, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))


def read(reader: str, path: str):
    """Read the file by one of the readers and hold its voxels."""
    if reader == "aiassist":
        from aiassist.engine import LocalBackend
        from aiassist.imaging import read_volume

        volume = read_volume(path)
        backend = LocalBackend(threaded=False)
        backend.open_study(volume)
        return backend, volume
    if reader == "nibabel":
        import nibabel

        return np.asanyarray(nibabel.load(path).dataobj)
    import SimpleITK as sitk

    return sitk.GetArrayFromImage(sitk.ReadImage(path))


def child(reader: str, path: str) -> None:
    """Open the volume and print what it took; for aiassist also annotate."""
    import nibabel  # noqa: F401 - so that libraries are not counted as the volume's memory
    import SimpleITK  # noqa: F401

    import aiassist.engine

    before = peak_memory()
    began = time.perf_counter()
    held = read(reader, path)
    report = {"seconds": time.perf_counter() - began, "bytes": peak_memory() - before}
    if reader == "aiassist":
        report["annotate"] = annotate(*held, aiassist.engine)
    print(json.dumps(report))


def annotate(backend, volume, engine) -> dict:
    """Seconds of five calls by each model, and Dice, for the organ in the middle."""
    from aiassist.prompts import Prompts

    centre = np.array([n / 2 for n in SHAPE[::-1]])
    semi = np.diag(ORGAN[::-1])
    prompts = Prompts(extreme_points=np.concatenate([centre - semi, centre + semi]))
    seconds = {}
    for model in ("ellipsoid", "geodesic"):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            backend.annotate(engine.AnnotateRequest(volume.study_id, prompts, model=model))
            times.append(time.perf_counter() - began)
        seconds[model] = {"first": times[0], "median": float(np.median(times))}
    return seconds


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        volume = make_volume()
        size = volume.voxels.nbytes
        print(f"volume: {volume.geometry.describe()}, {size / 1e6:.0f} MB")
        print(f"{'file':10}{'reader':12}{'seconds':>10}{'peak / own bytes':>20}")
        for ending in (".nii.gz", ".nrrd"):
            path = Path(folder) / f"volume{ending}"
            write_volume(path, volume)
            for reader in READERS[:: 2 if ending == ".nrrd" else 1]:
                done = subprocess.run(
                    [sys.executable, __file__, reader, str(path)], check=True, capture_output=True, text=True
                )
                report = json.loads(done.stdout)
                print(f"{ending:10}{reader:12}{report['seconds']:10.2f}{report['bytes'] / size:20.2f}")
                for model, times in report.get("annotate", {}).items():
                    print(f"{'':10}annotate, {model}: first {times['first']:.2f} s, median {times['median']:.2f} s")


if __name__ == "__main__":
    child(*sys.argv[1:]) if len(sys.argv) > 1 else main()
