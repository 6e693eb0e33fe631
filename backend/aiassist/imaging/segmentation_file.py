"""``.seg.nrrd``: a labelmap with names, colours and codes, as 3D Slicer reads and writes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aiassist.imaging.geometry import Geometry
from aiassist.imaging.labels import Label, terminology_entry
from aiassist.imaging.nrrd_files import read_header, write_nrrd
from aiassist.imaging.region import Region
from aiassist.imaging.volume import Volume


def segment_names(path: Path) -> dict[int, str]:
    """The structures by value that a ``.seg.nrrd`` of one layer names; none of another file.

    Where a file has several layers a value may mean a structure in each of them; those are not told apart. A name that
    is no UTF-8, as of old programs, is left out, for whoever reads the file to give it.
    """
    if not str(path).lower().endswith(".seg.nrrd"):
        return {}
    with path.open("rb") as stream:
        header = read_header(stream)
    numbers = [
        key[len("Segment") : -len("_Name")] for key in header if key.startswith("Segment") and key.endswith("_Name")
    ]
    values = {number: str(header.get(f"Segment{number}_LabelValue", "")) for number in numbers}
    names = {n: str(header[f"Segment{n}_Name"]).replace("\\\\", "\\") for n in numbers}  # as NRRD writes them
    return {int(values[n]): names[n] for n in numbers if values[n].isdecimal() and "\ufffd" not in names[n]}


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
            f"Segment{number}_Tags": f"TerminologyEntry:{terminology_entry(label)}|",
        }
    write_nrrd(path, Volume(labelmap, geometry), fields)
