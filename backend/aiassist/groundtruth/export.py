"""Write structures to files that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from aiassist.errors import NotStoredError, StoreError
from aiassist.files import whole_file
from aiassist.groundtruth.records import LabelVersion, StudyRecord
from aiassist.groundtruth.store import GroundTruthStore
from aiassist.imaging import Geometry, Label, MaskPatch, Volume, write_volume
from aiassist.imaging.segmentation_file import write_segmentation

#: Endings that a labelmap of several structures can be written to.
LABELMAPS = (".nii.gz", ".nii", ".nrrd", ".mha")


def export(
    store: GroundTruthStore,
    study: StudyRecord,
    versions: Sequence[LabelVersion],
    path: Path,
    values: Sequence[int] | None = None,
) -> None:
    """Write labels of a study to one file, whole or not at all.

    Parameters
    ----------
    store : GroundTruthStore
    study : StudyRecord
    versions : sequence of LabelVersion
        One per structure.
    path : Path
        ``.seg.nrrd`` (Slicer segmentation), ``.dcm`` (DICOM SEG), or an image format (labelmap).
    values : sequence of int, optional
        Of the versions in a labelmap, 1 to 65535; 1, 2, ... in their order when absent. DICOM SEG has none.

    Raises
    ------
    NotStoredError
        When there is nothing to export.
    StoreError
        When structures overlap in a labelmap or Slicer segmentation, or when DICOM SEG
        is asked for of a study that did not come from DICOM.
    """
    if not versions:
        raise NotStoredError(f"The study {study.name!r} has no labels to export.")
    path = check_labels_name(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {path.parent} to write {path.name} into; make it first.")
    if path.name.lower().endswith(".dcm"):
        from aiassist.imaging.dicom_seg import write_dicom_seg

        volume = store.image(study.id).with_dicom(store.series(study.id))
        write_dicom_seg(path, volume, [_segment(v, store.mask(v)) for v in versions])
        return
    geometry, values = store.geometry(study.id), values or range(1, len(versions) + 1)
    labelmap = np.zeros(geometry.shape, np.uint8 if max(values) < 256 else np.uint16)
    labels: dict[int, Label] = {}
    for value, version in zip(values, versions, strict=True):
        patch = store.mask(version)
        part = labelmap[patch.region.slices]
        if part[patch.mask].any():
            other = labels[int(part[patch.mask].max())].name
            raise StoreError(
                f"{version.structure!r} overlaps {other!r}, which one labelmap cannot hold; "
                "export them to a file each" + (", or as DICOM SEG." if study.from_dicom else ".")
            )
        part[patch.mask] = value
        labels[value] = replace(version.label, value=value)
    write_labelmap(path, labelmap, geometry, list(labels.values()))


def _segment(version: LabelVersion, mask: MaskPatch):
    from aiassist.imaging.dicom_seg import Segment

    origin = "semiautomatic" if version.model else "manual"
    tracking = f"{version.structure} v{version.number}"
    return Segment(version.label, mask, tracking, origin, version.model or "", version.model_version or "")


def check_labels_name(path: str | Path) -> Path:
    """The path, when its name ends in a format that structures can be written to; else `StoreError`."""
    path = Path(path)
    if not path.name.lower().endswith((*LABELMAPS, ".seg.nrrd", ".dcm")):
        raise StoreError(f"{path} has no known ending; use .seg.nrrd, .dcm (DICOM SEG), {', '.join(LABELMAPS)}.")
    return path


def write_labelmap(path: Path, labelmap: np.ndarray, geometry: Geometry, labels: Sequence[Label]) -> None:
    """Write a labelmap ``(k, j, i)``, whole or not at all.

    A ``.seg.nrrd`` (Slicer segmentation) also holds the labels' names, colours and codes; an image format the voxels.
    """
    if path.name.lower().endswith(".seg.nrrd"):
        with whole_file(path) as temporary:
            write_segmentation(temporary, labelmap, geometry, labels)
    else:
        write_volume(path, Volume(labelmap, geometry))
