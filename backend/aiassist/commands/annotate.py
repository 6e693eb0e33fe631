"""``aiassist annotate``"""

from __future__ import annotations

import json
import time
from pathlib import Path

from aiassist.commands.shared import (
    add_model,
    add_studies,
    check_mask_name,
    check_output,
    millilitres_a_voxel,
    models_folder,
    one_structure,
    point,
    progress_bar,
)
from aiassist.errors import PatchError, PromptError


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("annotate", help="segment one structure of an image from a person's prompts")
    parser.add_argument("image", help="an image file, or a folder with one DICOM series")
    parser.add_argument("-o", "--output", metavar="MASK", required=True, help="where to write the mask")
    add_model(parser)
    add_studies(parser)
    source = parser.add_argument_group("where the structure is (indices i,j,k of the image)")
    source.add_argument("--points", metavar="FILE.json", help='prompts as JSON: {"points": [[i,j,k], ...]}')
    source.add_argument("--point", metavar="I,J,K", type=point, nargs="+", action="extend", help="extreme points")
    source.add_argument("--positive", metavar="I,J,K", type=point, nargs="+", action="extend", help="points inside")
    source.add_argument("--negative", metavar="I,J,K", type=point, nargs="+", action="extend", help="points outside")
    source.add_argument("--line", metavar="I,J,K", type=point, nargs=2, help="both ends of a lesion's diameter")
    source.add_argument("--box", metavar="I,J,K", type=point, nargs=2, help="two opposite corners")
    source.add_argument("--from-label", metavar="LABEL", help="take the extreme points of a label on the same grid")
    source.add_argument("--value", type=int, metavar="N", help="which value of that label, where it holds several")
    source.add_argument("--seed", type=int, default=0, help="which of several equal extreme points to take")
    source.add_argument("--prior", metavar="MASK", help="a mask on the same grid to correct")
    source.add_argument("--prior-value", type=int, metavar="N", help="which value of it, where it holds several")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options) -> None:
    """Read, annotate, write, say what was done."""
    from aiassist.engine import AnnotateRequest, LocalBackend
    from aiassist.files import check_writable
    from aiassist.imaging import Volume, read_volume, write_volume
    from aiassist.imaging.image_files import check_holds

    output = check_mask_name(options.output)
    _check_options(options, output)
    check_writable(output)
    volume = read_volume(options.image)
    check_holds(output, volume.geometry)
    prompts = _prompts(options, volume)
    prompts.check(volume.geometry)
    if not options.prior:  # of clicks on a mask the later ones count
        _check_clicks(prompts)
    with LocalBackend(device=options.device, models=models_folder(options)) as backend, progress_bar() as bar:
        task = bar.add_task("annotating", total=1.0)
        study = backend.open_study(volume)
        request = AnnotateRequest(study, prompts, model=options.model)
        began = time.perf_counter()
        answer = backend.annotate(request, lambda step: bar.update(task, completed=step.fraction))
        milliseconds = 1000 * (time.perf_counter() - began)
    whole = answer.patch.over(prompts.prior)
    mask = whole.to_mask(volume.shape)
    write_volume(output, Volume(mask, volume.geometry), keep_grid=True)
    millilitres = float(mask.sum()) * millilitres_a_voxel(volume.geometry)
    if options.json:
        print(
            json.dumps(
                {
                    "mask": str(output),
                    "study": study,
                    "version": answer.version,
                    "model": answer.model,
                    "model_version": answer.model_version,
                    "device": answer.device,
                    "voxels": int(mask.sum()),
                    "millilitres": round(millilitres, 4),
                    "milliseconds": round(milliseconds, 1),
                    "prompts": {k: v for k, v in prompts.to_json().items() if k != "prior"},
                }
            )
        )
    else:
        print(
            f"{output}: {int(mask.sum()):,} voxels, {millilitres:.1f} ml, by {answer.model} "
            f"{answer.model_version} in {milliseconds:.0f} ms{_changes(prompts.prior, mask)}."
        )


def _changes(prior, mask) -> str:
    """What a correction did, in words; nothing without a prior mask."""
    if prior is None:
        return ""
    before = prior.to_mask(mask.shape)
    added, removed = int((mask & ~before).sum()), int((before & ~mask).sum())
    if not added and not removed:
        return "; nothing changed: the mask obeys these prompts already"
    return f"; {added:,} voxels added, {removed:,} removed"


def _check_options(options, output: Path) -> None:
    """Refuse what would destroy an input, or be ignored."""
    check_output(output, options.image, options.from_label, options.prior)
    if options.value is not None and not options.from_label:
        raise PromptError(f"--value {options.value} says which value of a label; name the label with --from-label.")
    if options.prior_value is not None and not options.prior:
        raise PromptError(f"--prior-value {options.prior_value} says which value of a mask; name it with --prior.")
    if options.seed < 0:
        raise PromptError(f"--seed is {options.seed}; use 0 or more.")


def _prompts(options, volume):
    """The prompts that the options describe."""
    from dataclasses import replace

    import numpy as np

    from aiassist.imaging import MaskPatch, read_labelmap
    from aiassist.prompts import Prompts, extreme_points

    if sum(bool(x) for x in (options.points, options.point, options.from_label)) > 1:
        raise PromptError("Give the extreme points by one of --points, --point and --from-label, not by several.")
    prompts = _read_prompts(options.points) if options.points else Prompts()
    if options.point:
        prompts = replace(prompts, extreme_points=options.point)
    if options.from_label:
        mask = one_structure(read_labelmap(options.from_label, like=volume).voxels, options.from_label, options.value)
        prompts = replace(prompts, extreme_points=extreme_points(mask, np.random.default_rng(options.seed)))
    for name in ("positive", "negative"):
        if getattr(options, name):
            prompts = replace(prompts, **{name: [*getattr(prompts, name), *getattr(options, name)]})
    for name in ("line", "box"):
        if getattr(options, name):
            prompts = replace(prompts, **{name: getattr(options, name)})
    if options.prior:
        labels = read_labelmap(options.prior, like=volume).voxels
        if labels.any():  # else it says nothing
            labels = one_structure(labels, options.prior, options.prior_value, "--prior-value")
        prompts = replace(prompts, prior=MaskPatch.of_mask(labels != 0))
    return prompts


def _check_clicks(prompts) -> None:
    """Raise `PromptError` when a voxel is said to be inside and outside."""
    from aiassist.segmenters.strokes import clicked_voxels

    inside, outside = ({tuple(v) for v in clicked_voxels(p).tolist()} for p in (prompts.positive, prompts.negative))
    for voxel in inside & outside:
        raise PromptError(f"Clicks say that {list(voxel[::-1])} lies both inside and outside; take one back.")


def _read_prompts(path: str):
    from aiassist.prompts import Prompts

    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise PromptError(f"{path} is not valid JSON: {error}.") from error
    try:
        return Prompts.from_json(data)
    except (PromptError, PatchError) as error:
        raise PromptError(f"{path}: {error}") from error
