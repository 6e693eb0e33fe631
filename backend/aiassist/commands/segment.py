"""``aiassist segment``"""

from __future__ import annotations

import json
import time
from pathlib import Path

from aiassist.commands.shared import (
    add_model,
    add_studies,
    check_output,
    millilitres_a_voxel,
    models_folder,
    progress_bar,
)


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("segment", help="let an automatic model find all its structures in an image")
    parser.add_argument("image", help="an image file, or a folder with one DICOM series")
    parser.add_argument(
        "-o",
        "--output",
        metavar="LABELMAP",
        required=True,
        help="where to write: .nii.gz, .nrrd, .mha, .seg.nrrd (Slicer segmentation), .dcm (DICOM SEG)",
    )
    add_model(parser, required=True)
    add_studies(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.set_defaults(run=run)


def run(options) -> None:
    """Read, segment, write, say what was found."""
    from aiassist.engine import LocalBackend, SegmentRequest
    from aiassist.files import check_writable
    from aiassist.groundtruth.export import check_labels_name
    from aiassist.imaging import read_volume
    from aiassist.imaging.dicom_seg import check_can_write_dicom_seg
    from aiassist.imaging.image_files import check_holds

    output = check_labels_name(options.output)
    check_output(output, options.image)
    check_writable(output)
    with LocalBackend(device=options.device, models=models_folder(options)) as backend, progress_bar() as bar:
        volume = read_volume(options.image)
        if output.name.lower().endswith(".dcm"):
            check_can_write_dicom_seg(output, volume)
        else:
            check_holds(output, volume.geometry)
        task = bar.add_task("segmenting", total=1.0)
        request = SegmentRequest(backend.open_study(volume), options.model)
        began = time.perf_counter()
        answer = backend.segment(request, lambda step: bar.update(task, completed=step.fraction))
        milliseconds = 1000 * (time.perf_counter() - began)
        labels = backend.registry.get(answer.model).card.labels
    labelmap = answer.patch.to_labelmap(volume.shape)
    _write(output, volume, labelmap, labels, answer)
    _tell(options, output, answer, _found(labelmap, labels, volume.geometry), milliseconds)


def _write(output: Path, volume, labelmap, labels, answer) -> None:
    from aiassist.groundtruth.export import write_labelmap
    from aiassist.imaging import MaskPatch
    from aiassist.imaging.dicom_seg import Segment, write_dicom_seg

    if not output.name.lower().endswith(".dcm"):
        write_labelmap(output, labelmap, volume.geometry, labels)
        return
    made = (f"{answer.model} {answer.model_version}", "automatic", answer.model, answer.model_version)
    masks = [(label, MaskPatch.of_mask(labelmap == label.value)) for label in labels]
    write_dicom_seg(output, volume, [Segment(label, mask, *made) for label, mask in masks if mask.region.voxels])


def _found(labelmap, labels, geometry) -> list[dict]:
    """What each label holds."""
    import numpy as np

    counts = np.bincount(labelmap.ravel(), minlength=1 + max(label.value for label in labels))
    each = millilitres_a_voxel(geometry)
    return [
        {
            "name": label.name,
            "value": label.value,
            "voxels": int(counts[label.value]),
            "millilitres": round(float(counts[label.value]) * each, 4),
        }
        for label in labels
    ]


def _tell(options, output: Path, answer, found: list[dict], milliseconds: float) -> None:
    if options.json:
        said = {name: getattr(answer, name) for name in ("study", "model", "model_version", "device")}
        print(json.dumps({"labelmap": str(output), **said, "milliseconds": round(milliseconds, 1), "labels": found}))
        return
    parts = [f"{one['name']} {one['millilitres']:.1f} ml" for one in found if one["voxels"]]
    listed = ", ".join(parts) or "nothing"
    print(f"{output}: {listed}, by {answer.model} {answer.model_version} in {milliseconds:.0f} ms.")
