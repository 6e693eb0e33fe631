"""``.seg.nrrd``: a labelmap with names, colours and codes, as 3D Slicer reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aiassist.imaging.geometry import Geometry
from aiassist.imaging.labels import Label
from aiassist.imaging.nrrd_files import write_nrrd
from aiassist.imaging.region import Region
from aiassist.imaging.volume import Volume

_TISSUE = "SCT^85756007^Tissue"
_ANATOMY = "SCT^123037004^Anatomical Structure"


def write_segmentation(path: Path, labelmap: np.ndarray, geometry: Geometry, labels: Sequence[Label]) -> None:
    """Write a labelmap that Slicer opens as a segmentation, and any NRRD reader as voxels.

    Parameters
    ----------
    path : Path
        Written as it is; see `aiassist.files.whole_file` for doing so safely.
    labelmap : numpy.ndarray
        Unsigned integers ``(k, j, i)``.
    geometry : Geometry
    labels : sequence of Label
        One per value in the labelmap.
    """
    fields = {
        "Segmentation_ContainedRepresentationNames": "Binary labelmap|",
        "Segmentation_MasterRepresentation": "Binary labelmap",
        "Segmentation_ReferenceImageExtentOffset": "0 0 0",
    }
    for number, label in enumerate(labels):
        region = Region.of_mask(labelmap == label.value)
        extent = [f"{a} {b - 1}" for a, b in zip(region.start[::-1], region.stop[::-1], strict=True)]
        fields |= {
            f"Segment{number}_ID": f"Segment_{label.value}",
            f"Segment{number}_Name": label.name,
            f"Segment{number}_Color": " ".join(f"{c / 255:.6f}" for c in label.colour),
            f"Segment{number}_LabelValue": str(label.value),
            f"Segment{number}_Layer": "0",
            f"Segment{number}_Extent": " ".join(extent),
            f"Segment{number}_Tags": f"TerminologyEntry:{_terminology_entry(label)}|",
        }
    write_nrrd(path, Volume(labelmap, geometry), fields)


def _terminology_entry(label: Label) -> str:
    """Slicer's text form of a terminology entry; see vtkSlicerTerminologiesModuleLogic."""
    context = "Segmentation category and type - 3D Slicer General Anatomy list"
    category, kind, side = _TISSUE, _TISSUE, "^^"
    if label.code is not None:
        category, kind = _ANATOMY, f"SCT^{label.code.value}^{label.code.meaning}"
    if label.code is not None and label.side is not None:
        side = f"SCT^{label.side.value}^{label.side.meaning}"
    return f"{context}~{category}~{kind}~{side}~~^^~^^"
