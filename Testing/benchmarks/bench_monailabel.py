"""Time outside the network pass of one click: ours through the server, beside MONAI Label's published steps.

    python Testing/benchmarks/bench_monailabel.py [CASE]

MONAI Label's DeepEdit application (sample-apps/radiology/lib/infers/deepedit.py of 0.8.5) does these steps for every
click: read the image file, orient, scale, place the clicks, resize to 128x128x128, add click channels; after the
network activate, argmax, resize and orient back, write the mask file, read it, send it. They are done here by MONAI's
own transforms, in the same order and without the network, its server and its HTTP, which is in its favour; the image
lies uncompressed on the disk and in the system's cache. Ours is the whole way from a client's call to its mask, less
the network's passes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
from bench_server import SAMPLE, Server, large

from aiassist.client import RemoteBackend
from aiassist.engine import AnnotateRequest
from aiassist.evaluation.cases import load_case
from aiassist.imaging import write_volume
from aiassist.prompts import Prompts, extreme_points

CLICKS = 8
CUBE = (128, 128, 128)


def steps(path: Path):
    """What runs before and after the network, as MONAI transforms."""
    from monai.apps.deepedit.transforms import (
        AddGuidanceFromPointsDeepEditd,
        AddGuidanceSignalDeepEditd,
        ResizeGuidanceMultipleLabelDeepEditd,
    )
    from monai.transforms import (
        Activationsd,
        AsDiscreted,
        Compose,
        EnsureChannelFirstd,
        EnsureTyped,
        LoadImaged,
        Orientationd,
        Resized,
        ScaleIntensityRanged,
        SqueezeDimd,
        ToNumpyd,
    )

    names = {"spleen": 1, "background": 0}
    before = Compose(
        [
            LoadImaged(keys="image", image_only=False),
            EnsureChannelFirstd(keys="image"),
            Orientationd(keys="image", axcodes="RAS", labels=None),
            ScaleIntensityRanged(keys="image", a_min=-175, a_max=250, b_min=0.0, b_max=1.0, clip=True),
            AddGuidanceFromPointsDeepEditd(ref_image="image", guidance="guidance", label_names=names),
            Resized(keys="image", spatial_size=CUBE, mode="area"),
            ResizeGuidanceMultipleLabelDeepEditd(guidance="guidance", ref_image="image"),
            AddGuidanceSignalDeepEditd(keys="image", guidance="guidance", number_intensity_ch=1),
            EnsureTyped(keys="image"),
        ]
    )
    after = Compose(
        [
            EnsureTyped(keys="pred"),
            Activationsd(keys="pred", softmax=True),
            AsDiscreted(keys="pred", argmax=True),
            SqueezeDimd(keys="pred", dim=0),
            ToNumpyd(keys="pred"),
        ]
    )
    return before, after


def monai_click(path: Path, out: Path, point: list[int], before, after) -> dict[str, float]:
    """Milliseconds of each part of a click's work outside the network."""
    import nibabel
    import torch
    from monai.transforms import Orientation, Resize

    marks = [time.perf_counter()]
    data = before({"image": str(path), "spleen": [point], "background": []})
    marks.append(time.perf_counter())
    data["pred"] = torch.stack([data["image"][0], data["image"][1]]).as_tensor()  # stands for the network's output
    marks.append(time.perf_counter())
    data = after(data)
    original = nibabel.load(path)
    restored = Resize(spatial_size=original.shape, mode="nearest")(data["pred"][None])
    codes = nibabel.orientations.aff2axcodes(original.affine)
    restored = Orientation(axcodes=codes, labels=None)(restored)[0]
    marks.append(time.perf_counter())
    nibabel.save(nibabel.Nifti1Image(np.asarray(restored).astype(np.uint8), original.affine), out)
    out.read_bytes()
    marks.append(time.perf_counter())
    return {
        "before": 1000 * (marks[1] - marks[0]),
        "after": 1000 * (marks[3] - marks[2]),
        "file": 1000 * (marks[4] - marks[3]),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", nargs="?", type=Path, default=SAMPLE)
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    volume, wide = large(*load_case(options.case))
    mask = wide == 1
    ours = []
    with tempfile.TemporaryDirectory() as folder:
        with Server(f"{folder}/studies") as server, RemoteBackend(server.url, server.token) as backend:
            study = backend.open_study(volume)
            for turn in range(CLICKS + 1):
                points = extreme_points(mask, np.random.default_rng(turn))
                began = time.perf_counter()
                answer = backend.annotate(AnnotateRequest(study, Prompts(extreme_points=points)))
                ours.append(1000 * (time.perf_counter() - began - answer.seconds["pass"]))
        path, out = Path(folder) / "image.nii", Path(folder) / "mask.nii.gz"
        write_volume(path, volume)
        before, after = steps(path)
        middle = np.argwhere(mask)[mask.sum() // 2][::-1].tolist()
        theirs = [monai_click(path, out, middle, before, after) for _ in range(CLICKS + 1)][1:]
    mine, other = np.median(ours[1:]), np.median([sum(one.values()) for one in theirs])
    parts = {name: round(float(np.median([one[name] for one in theirs]))) for name in theirs[0]}
    print(
        f"outside the network pass, p50: ours {mine:.0f} ms, MONAI Label's steps {other:.0f} ms {parts}: "
        f"{other / mine:.1f} times"
    )


if __name__ == "__main__":
    main()
