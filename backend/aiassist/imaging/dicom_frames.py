"""A DICOM file that holds all slices, as an Enhanced CT or MR does, becomes a volume."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk

from aiassist.errors import ImageError
from aiassist.imaging.dicom_grid import check_needed, sort_slices
from aiassist.imaging.dicom_header import DAMAGED, check_pixels, damage_said, header_of, unheard
from aiassist.imaging.dicom_series import DicomSeries, frames_of
from aiassist.imaging.limits import check_promise
from aiassist.imaging.volume import Volume, luminance

#: What else to do with a file that cannot be read.
ELSE = "save it as .nii.gz or .nrrd, as by 3D Slicer"


def reading_frames(path: Path, header: pydicom.Dataset) -> Generator[float, None, Volume]:
    """Read a multi-frame file of one image of a place, whose header is known; yields the share that is done.

    Frames are ordered by position along their common normal.

    Raises
    ------
    ImageError
        When the file does not say where its frames lie, holds several of one place, lacks some, or they are unevenly
        spaced, differ in pixel spacing, orientation or scale of grey values, or cannot be decoded.
    """
    with unheard(), damage_said(path):
        kept, scales = header_of(header), _scales(header)
        frames = [pydicom.Dataset.from_json(frame) for frame in frames_of(kept)]
    if not frames:
        raise ImageError(f"{path} does not say where its frames lie; {ELSE}.")
    if len(scales) > 1:
        raise ImageError(f"The frames of {path} are of {len(scales)} scales of grey values; {ELSE}.")
    for number, frame in enumerate(frames):
        check_needed(path, frame)
        frame.InstanceNumber = number
    if len({tuple(frame.ImagePositionPatient) for frame in frames}) < len(frames):
        raise ImageError(f"{path} holds several frames of one place, as of phases or echoes; {ELSE}.")
    ordered, geometry = sort_slices(path, [(path, frame) for frame in frames])
    yield 0.2
    check_promise(path, geometry.size, 2)
    check_pixels(path, header, len(frames))
    try:
        voxels = sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    except RuntimeError as error:
        raise ImageError(f"The pixels of {path} cannot be decoded; {ELSE}.") from error
    voxels = grey_of(path, voxels)
    if voxels.shape != geometry.shape:
        raise ImageError(DAMAGED.format(path=path))
    yield 0.8
    numbers = [int(frame.InstanceNumber) for _, frame in ordered]
    return Volume(voxels[numbers], geometry, DicomSeries((kept,)))


def grey_of(path: Path, voxels: np.ndarray) -> np.ndarray:
    """Decoded voxels as grey values; `ImageError` that names the file, or folder, when they have none."""
    try:
        return luminance(voxels) if voxels.ndim == 4 else voxels
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


def _scales(header: pydicom.Dataset) -> set[tuple[float, float]]:
    """Slope and intercept of the frames' grey values."""
    shared = (header.get("SharedFunctionalGroupsSequence") or [pydicom.Dataset()])[0]
    found = set()
    for groups in header.get("PerFrameFunctionalGroupsSequence") or []:
        said = groups.get("PixelValueTransformationSequence") or shared.get("PixelValueTransformationSequence")
        said = said[0] if said else pydicom.Dataset()
        found.add((float(said.get("RescaleSlope", 1)), float(said.get("RescaleIntercept", 0))))
    return found
