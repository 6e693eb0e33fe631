"""Labels as a DICOM Segmentation object, by highdicom."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
import pydicom
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import generate_uid
from pydicom.valuerep import DS

import aiassist
from aiassist.errors import MissingExtraError, StoreError
from aiassist.files import whole_file
from aiassist.imaging.dicom_header import unheard
from aiassist.imaging.labels import TISSUE, Code, Label, category_of
from aiassist.imaging.patch import MaskPatch
from aiassist.imaging.volume import Volume

log = logging.getLogger(__name__)

#: Most bytes of masks that overlap, a byte a voxel; writing them takes three and a half times as much.
OVERLAPS = 2**30
#: Most characters of a name (value representation LO).
LONG = 64


@dataclass(frozen=True)
class Segment:
    """One structure of a DICOM SEG file.

    ``category`` is that of the label's code, see `category_of` when absent; ``region`` is where in the body it lies.
    ``tracking`` names this very segment among all that were ever made of the structure. ``origin`` says whether a
    person drew it, a person and a model made it together, or a model alone.
    """

    label: Label
    mask: MaskPatch
    tracking: str
    origin: Literal["manual", "semiautomatic", "automatic"] = "manual"
    model: str = ""
    model_version: str = ""
    category: Code | None = None
    region: Code | None = None


def write_dicom_seg(path: Path, volume: Volume, segments: Sequence[Segment]) -> None:
    """Write structures as one DICOM SEG file that refers to the series they were found in.

    Parameters
    ----------
    path : Path
    volume : Volume
        The study's image, with its DICOM headers.
    segments : sequence of Segment
        In this order; they may overlap.

    Raises
    ------
    StoreError
        Without segments, when they overlap and are many, when the volume did not come from DICOM, or when its headers
        lack what the file must say.
    MissingExtraError
        When highdicom is not installed.
    """
    check_can_write_dicom_seg(path, volume)
    if not segments:
        raise StoreError(
            f"{path.name}: nothing was found, and a DICOM SEG holds at least one structure; use .seg.nrrd."
        )
    file = io.BytesIO()  # pydicom would wrap the error of a full disk in one that does not say so
    try:
        with unheard():
            _segmentation(volume, segments).save_as(file)
    except (AttributeError, KeyError, TypeError, ValueError, OSError) as error:  # the slices lack something
        said = str(error).partition("\n")[0]  # pydicom adds where in its code
        raise StoreError(
            f"{path.name}: the series cannot carry a DICOM SEG ({said}); export .seg.nrrd instead."
        ) from error
    with whole_file(path) as temporary:
        temporary.write_bytes(file.getbuffer())


def _segmentation(volume: Volume, segments: Sequence[Segment]):
    from highdicom.seg import Segmentation, SegmentationTypeValues

    names = _distinct([segment.label.name for segment in segments])
    pixels, frames = _pixels(volume.shape, [s.mask for s in segments]), volume.dicom.slices_of_frames(volume.geometry)
    return Segmentation(
        source_images=_sources(volume),
        pixel_array=pixels if frames is None else pixels[frames],
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_description(n, *one) for n, one in enumerate(zip(segments, names, strict=True), 1)],
        series_instance_uid=generate_uid(),
        series_number=9000,
        sop_instance_uid=generate_uid(),
        instance_number=1,
        manufacturer="SlicerAIAssist",
        manufacturer_model_name="aiassist",
        software_versions=aiassist.__version__,
        device_serial_number="0",
        content_description="Segmentation",
        series_description="Segmentation by aiassist",
    )


def _pixels(shape: tuple[int, int, int], masks: Sequence[MaskPatch]) -> np.ndarray:
    """A labelmap ``(k, j, i)`` where no masks overlap, which takes a fraction of time and memory; else all of them."""
    labelmap = np.zeros(shape, np.uint8 if len(masks) < 256 else np.uint16)
    for number, mask in enumerate(masks, start=1):
        part = labelmap[mask.region.slices]
        if part[mask.mask].any():
            _check_overlaps(shape, len(masks))
            stacked = np.stack([mask.to_mask(shape) for mask in masks]).view(np.uint8)
            return np.moveaxis(stacked, 0, -1)  # one mask after the other in memory: half the time
        part[mask.mask] = number
    return labelmap


def _check_overlaps(shape: tuple[int, int, int], masks: int) -> None:
    """Raise `StoreError` when masks that overlap would take too much memory: highdicom takes all of them at once."""
    size = masks * math.prod(shape)
    if size > OVERLAPS:
        raise StoreError(
            f"Some of the {masks} structures overlap, and all as masks ({size / 1e9:,.1f} GB) are too large for one "
            "DICOM SEG; export fewer at a time."
        )


def check_can_write_dicom_seg(path: Path, volume: Volume) -> None:
    """Raise `StoreError` unless the volume has the DICOM headers that a DICOM SEG file refers to.

    `MissingExtraError` when highdicom is not installed.
    """
    if volume.dicom is None:
        raise StoreError(f"{path.name}: this study did not come from DICOM, so it cannot go back as DICOM SEG.")
    if find_spec("highdicom") is None:
        raise MissingExtraError("highdicom", "dicom", "Writing DICOM SEG")


def _sources(volume: Volume) -> list[pydicom.Dataset]:
    """The slices' headers, in Unicode; identifiers that anonymisation emptied are replaced by made-up ones.

    So is a thickness that is not said, by how far the slices lie apart: a DICOM SEG without one cannot be read.
    """
    sources = [pydicom.Dataset.from_json(header) for header in volume.dicom.headers]
    for source in sources:
        source.SpecificCharacterSet = "ISO_IR 192"  # highdicom takes it over, and it may lack the segments' letters
        measures = _measures(source)
        if measures.get("SliceThickness") is None:
            measures.SliceThickness = DS(volume.geometry.spacing[2], auto_format=True)
    for name in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        if not sources[0].get(name):
            made = generate_uid(entropy_srcs=[volume.study_id, name])
            log.warning("The series has no %s; the segmentation uses %s.", name, made)
            for source in sources:
                setattr(source, name, made)
    for source in sources:
        for name in (
            "PatientID",
            "PatientName",
            "PatientBirthDate",
            "PatientSex",
            "AccessionNumber",
            "StudyID",
            "StudyDate",
            "StudyTime",
            "ReferringPhysicianName",
            "PositionReferenceIndicator",
        ):
            if name not in source:
                setattr(source, name, None)
    return sources


def _measures(source: pydicom.Dataset) -> pydicom.Dataset:
    """What of a header says how thick a slice is: of a multi-frame file's that which holds for all frames."""
    groups = source.get("SharedFunctionalGroupsSequence")
    return groups[0].PixelMeasuresSequence[0] if groups else source


def _text(name: str) -> str:
    """A name as DICOM takes it: at most `LONG` characters, and no backslash, which separates values."""
    return name.replace("\\", "/")[:LONG]


def _distinct(names: Sequence[str]) -> list[str]:
    """Names as DICOM takes them, of which those that would coincide are numbered."""
    found: list[str] = []
    for name in map(_text, names):
        number, kept = 1, name
        while kept in found:
            number += 1
            kept = f"{name[: LONG - len(f' {number}')]} {number}"
        found.append(kept)
    return found


def _code(code: Code) -> DicomCode:
    return DicomCode(code.value, code.scheme, _text(code.meaning))


def _description(number: int, segment: Segment, name: str):
    from highdicom.color import CIELabColor
    from highdicom.content import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription
    from highdicom.sr import CodedConcept

    label = segment.label
    algorithm = {"algorithm_type": SegmentAlgorithmTypeValues[segment.origin.upper()]}
    if segment.origin != "manual":
        algorithm["algorithm_identification"] = AlgorithmIdentificationSequence(
            name=_text(segment.model) or "unknown",
            version=_text(segment.model_version) or "unknown",
            family=DicomCode("123110", "DCM", "Artificial Intelligence"),
        )
    description = SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=_code(segment.category or category_of(label.code)),
        segmented_property_type=_code(label.code or TISSUE),
        tracking_uid=generate_uid(),
        tracking_id=_text(segment.tracking),
        anatomic_regions=[_code(segment.region)] if segment.region else None,
        display_color=CIELabColor.from_rgb(*label.colour),
        **algorithm,
    )
    if label.code and label.side:
        modifier = CodedConcept(label.side.value, label.side.scheme, _text(label.side.meaning))
        description.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    return description
