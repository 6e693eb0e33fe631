"""The main job on the bundled CT: six points an organ, masks, saved ground truth, one picture."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiassist.engine import AnnotateRequest, LocalBackend
from aiassist.evaluation.metrics import dice
from aiassist.evaluation.pictures import Outline, draw_slices, pyplot
from aiassist.groundtruth import GroundTruthStore, LabelVersion
from aiassist.imaging import MaskPatch, Volume, read_labelmap, read_volume
from aiassist.prompts import Prompts, extreme_points
from aiassist.resources import resource

CASE = "ts_ct_torso"
ORGANS = ("spleen", "kidney_right", "kidney_left", "gallbladder", "urinary_bladder", "liver")


@dataclass(frozen=True)
class DemoOrgan:
    """One organ of the demo: its mask, how it compares, and the version it was saved as."""

    name: str
    patch: MaskPatch
    reference: MaskPatch
    dice: float
    baseline_dice: float
    milliseconds: float
    saved: LabelVersion


def run_demo(output: Path, model: str | None = None) -> tuple[list[DemoOrgan], Path]:
    """Annotate the organs of the bundled CT from six points each, save them, and draw them.

    Parameters
    ----------
    output : Path
        Folder for the studies and the picture; made when missing.
    model : str, optional
        The default model when absent.

    Returns
    -------
    organs : list of DemoOrgan
    picture : Path
    """
    pyplot()  # says now, not after the work, when pictures cannot be drawn
    folder = resource("SampleData", CASE)
    volume = read_volume(folder / "image.nii.gz")
    labelmap = read_labelmap(folder / "label.nii.gz", like=volume).voxels
    names = json.loads((folder / "meta.json").read_text(encoding="utf8"))["labels"]
    values = {name: int(value) for value, (name, _) in names.items()}
    with GroundTruthStore(output / "studies") as store, LocalBackend() as backend:
        study = backend.open_study(volume)
        store.add_study(volume, CASE)
        organs = [_annotate(backend, store, study, n, labelmap == values[n], model) for n in ORGANS]
    picture = output / "demo.png"
    _draw(picture, volume, organs)
    return organs, picture


def _annotate(backend, store, study: str, name: str, truth: np.ndarray, model: str | None) -> DemoOrgan:
    prompts = Prompts(extreme_points=extreme_points(truth, np.random.default_rng(0)))
    began = time.perf_counter()
    answer = backend.annotate(AnnotateRequest(study, prompts, structure=name, model=model))
    milliseconds = 1000 * (time.perf_counter() - began)
    baseline = backend.annotate(AnnotateRequest(study, prompts, structure=name, model="ellipsoid"))
    saved = store.add(
        study,
        name,
        answer.patch,
        author="aiassist demo",
        model=answer.model,
        model_version=answer.model_version,
        prompts=prompts,
        comment="Made by the demo from six points of the reference label.",
    )
    return DemoOrgan(
        name,
        answer.patch,
        MaskPatch.of_mask(truth),
        dice(truth, answer.patch.to_mask(truth.shape)),
        dice(truth, baseline.patch.to_mask(truth.shape)),
        milliseconds,
        saved,
    )


def _draw(path: Path, volume: Volume, organs: list[DemoOrgan]) -> None:
    outlines = [Outline(organ.reference, "white", "reference", ":") for organ in organs]
    outlines += [
        Outline(organ.patch, f"C{number}", organ.name.replace("_", " ")) for number, organ in enumerate(organs)
    ]
    draw_slices(path, volume, outlines, "Six points an organ, and its contour on every slice", crop_mm=None)
