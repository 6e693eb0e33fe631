"""The main job on the bundled CT: six points an organ, masks, saved ground truth, one picture."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from aiassist.engine import AnnotateRequest, Annotation, LocalBackend
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
    """One organ of the demo: the points, the answer to them, and how it compares."""

    name: str
    prompts: Prompts
    answer: Annotation
    reference: MaskPatch
    dice: float
    baseline_dice: float
    milliseconds: float


def run_demo(output: Path, model: str | None = None) -> tuple[list[DemoOrgan], list[LabelVersion], Path]:
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
    versions : list of LabelVersion
        What each was saved as.
    picture : Path
    """
    pyplot()  # says now, not after the work, when pictures cannot be drawn
    folder = resource("SampleData", CASE)
    volume = read_volume(folder / "image.nii.gz")
    labelmap = read_labelmap(folder / "label.nii.gz", like=volume).voxels
    names = json.loads((folder / "meta.json").read_text(encoding="utf8"))["labels"]
    values = {name: int(value) for value, (name, _) in names.items()}
    with LocalBackend() as backend:
        study = backend.open_study(volume)
        organs = [_annotate(backend, study, name, labelmap == values[name], model) for name in ORGANS]
    with GroundTruthStore(output / "studies") as store:
        store.add_study(volume, CASE)
        versions = [_save(store, study, organ) for organ in organs]
    picture = output / "demo.png"
    _draw(picture, volume, organs)
    return organs, versions, picture


def _annotate(backend: LocalBackend, study: str, name: str, truth: np.ndarray, model: str | None) -> DemoOrgan:
    prompts = Prompts(extreme_points=extreme_points(truth, np.random.default_rng(0)))
    began = time.perf_counter()
    answer = backend.annotate(AnnotateRequest(study, prompts, structure=name, model=model))
    milliseconds = 1000 * (time.perf_counter() - began)
    baseline = backend.annotate(AnnotateRequest(study, prompts, structure=name, model="ellipsoid"))
    found, plain = (dice(truth, one.patch.to_mask(truth.shape)) for one in (answer, baseline))
    return DemoOrgan(name, prompts, answer, MaskPatch.of_mask(truth), found, plain, milliseconds)


def _save(store: GroundTruthStore, study: str, organ: DemoOrgan) -> LabelVersion:
    return store.add(
        study,
        organ.name,
        organ.answer.patch,
        author="aiassist demo",
        model=organ.answer.model,
        model_version=organ.answer.model_version,
        prompts=organ.prompts,
        comment="Made by the demo from six points of the reference label.",
    )


def _draw(path: Path, volume: Volume, organs: list[DemoOrgan]) -> None:
    outlines = [Outline(organ.reference, "white", "reference", ":") for organ in organs]
    outlines += [
        Outline(organ.answer.patch, f"C{number}", organ.name.replace("_", " ")) for number, organ in enumerate(organs)
    ]
    draw_slices(path, volume, outlines, "Six points an organ, and its contour on every slice", crop_mm=None)
