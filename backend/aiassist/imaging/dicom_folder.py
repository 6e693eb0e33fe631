"""A folder that holds one DICOM series becomes a volume."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from aiassist.errors import ImageError
from aiassist.imaging.dicom_frames import grey_of, reading_frames
from aiassist.imaging.dicom_grid import check_needed, numbers_of, sort_slices
from aiassist.imaging.dicom_header import DAMAGED, check_pixels, damage_said, header_of, identified, unheard
from aiassist.imaging.dicom_listing import is_cut_off, is_enhanced, kind_of
from aiassist.imaging.dicom_names import lost_slices
from aiassist.imaging.dicom_series import SHARED, DicomSeries, differ
from aiassist.imaging.geometry import Geometry
from aiassist.imaging.limits import check_promise
from aiassist.imaging.volume import Volume
from aiassist.words import counted

#: What the type of a slice's voxels follows from, and what holds where it is not said.
_TYPE = {"RescaleSlope": 1, "RescaleIntercept": 0, "PixelRepresentation": 0, "BitsStored": 16, "BitsAllocated": 16}

#: Slices that are decoded at once, and the share of the work that their headers are.
PIECE, HEADERS = 4, 0.5


def read_dicom_folder(folder: Path) -> Volume:
    """Read the DICOM series in a folder; files that are not DICOM images are ignored, unless they are called as slices.

    Slices are ordered by position along their common normal, not by name or number. The patient,
    study and series identifiers are kept in `Volume.dicom`.

    Raises
    ------
    ImageError
        When the folder holds no series or several, when a file is damaged or does not say where it
        lies, or when slices are doubled, unevenly spaced, as where some between others are missing, or
        differ in size, pixel spacing, orientation, patient, study or frame of reference. What is missing
        at an end, or leaves the others even, as every second slice does, cannot be told: what headers say
        of the distance between slices is often the gap, and a series may be thinned on purpose.
    """
    return _read_now(reading_dicom([path for path in folder.iterdir() if path.is_file()], folder))


def read_dicom_file(path: Path) -> Volume | None:
    """Read a DICOM file as a folder that holds it; None when it does not say where in the patient it lies.

    Raises
    ------
    ImageError
        When the file holds a segmentation, or pictures that lie nowhere; else as `read_dicom_folder`.
    """
    try:
        with unheard(), damage_said(path):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            kind = kind_of(header)
    except InvalidDicomError:
        return None
    if "Segmentation" in kind:
        raise ImageError(f"{path} is a DICOM segmentation, no image; save it as .nii.gz or .nrrd, as by 3D Slicer.")
    if is_enhanced(kind):
        return _read_now(reading_frames(path, header))
    _check_one_frame(path, header)
    is_placed = "Rows" in header and "ImagePositionPatient" in header
    return _read_now(reading_dicom([path], path)) if is_placed else None


def _check_one_frame(path: Path, header: pydicom.Dataset) -> None:
    """`ImageError` for several frames in a file that is not enhanced, as those of a dose or of a film."""
    with unheard(), damage_said(path):
        frames = int(header.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ImageError(
            f"{path} is a DICOM file of {counted(frames, 'frame')} that does not say where they lie; save it as "
            ".nii.gz or .nrrd, as by 3D Slicer."
        )


def _read_now(reading: Generator[float, None, Volume]) -> Volume:
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


def reading_dicom(files: Sequence[Path], folder: Path) -> Generator[float, None, Volume]:
    """As `read_dicom_folder`, of some files of a folder, for who must not wait; yields the share that is done."""
    images = yield from _reading_images(sorted(path for path in files if not path.name.startswith(".")))
    stacks = [(path, header) for path, header in images if is_enhanced(kind_of(header))]
    if stacks:
        if len(images) > 1:
            raise ImageError(
                f"{folder} holds {len(images)} DICOM images, of which {stacks[0][0].name} has several slices by "
                "itself; put each in a folder of its own, or name the file."
            )
        return (yield from reading_frames(*stacks[0]))
    with unheard():
        slices = [(path, identified(header)) for path, header in images]
    if not slices:
        raise ImageError(
            f"{folder} holds no DICOM images that say where they lie; name a folder with one series, or an image file."
        )
    series = sorted({str(header.get("SeriesInstanceUID", "")) for _, header in slices})
    if len(series) > 1:
        some = ", ".join(uid or "one without a UID" for uid in series[:3])
        raise ImageError(f"{folder} holds {len(series)} DICOM series ({some}...); put each in a folder of its own.")
    for path, header in slices:
        _check_one_frame(path, header)
    ordered, geometry = sort_slices(folder, slices)
    headers = []
    for path, header in ordered:
        headers.append(_header_of(path, header))
        yield HEADERS / 2 * (1 + len(headers) / len(ordered))
    for tag, name in SHARED.items():
        if differ(headers, tag):
            raise ImageError(f"The slices in {folder} are of several {name}; put those of each in a folder of its own.")
    voxels = yield from _reading_voxels(folder, ordered, geometry)
    return Volume(voxels, geometry, DicomSeries(tuple(headers)))


def _reading_images(files: Sequence[Path]) -> Generator[float, None, list[tuple[Path, pydicom.Dataset]]]:
    """Those of the files that are DICOM images, with their headers; `ImageError` when one is not that should be."""
    images, strangers = [], []
    for number, path in enumerate(files):
        try:
            images += _image_of(path)
        except InvalidDicomError:
            strangers.append(path)
        yield HEADERS / 2 * number / len(files)
    lost = lost_slices(strangers, [path for path, _ in images])
    if lost:
        raise ImageError(DAMAGED.format(path=lost[0]))
    return images


def _image_of(path: Path) -> list[tuple[Path, pydicom.Dataset]]:
    """A file with its header; nothing when it is a DICOM file, but no image that lies in a patient."""
    with unheard(), damage_said(path):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if is_cut_off(header):
            raise ImageError(DAMAGED.format(path=path))
        if "Rows" in header and is_enhanced(kind_of(header)):
            return [(path, header)]
        if "Rows" not in header or "ImagePositionPatient" not in header:
            return []
        check_needed(path, header)
        return [(path, header)]


def _header_of(path: Path, header: pydicom.Dataset) -> dict:
    with unheard(), damage_said(path):
        return header_of(header)


def _reading_voxels(folder: Path, slices, geometry: Geometry) -> Generator[float, None, np.ndarray]:
    check_promise(folder, geometry.size[:2], 2, slices[0][0])
    types = {tuple(tuple(numbers_of(header, *item)) for item in _TYPE.items()) for _, header in slices}
    # where they differ, as in PET, ITK would cut all slices to the type that the first one needs
    pixel, voxels = (sitk.sitkFloat32 if len(types) > 1 else None), None
    for start in range(0, len(slices), PIECE):
        for path, header in slices[start : start + PIECE]:
            check_pixels(path, header)
        piece = [str(path) for path, _ in slices[start : start + PIECE]]
        image = _decoded(piece, pixel)
        pixel = image.GetPixelID()
        part = sitk.GetArrayFromImage(image)
        part = grey_of(folder, part)
        if part.shape != (len(piece), *geometry.shape[1:]):
            raise ImageError(
                f"The pixels of {_which(piece)} are not as many as the header says; copy the series again."
            )
        voxels = np.empty(geometry.shape, part.dtype) if voxels is None else voxels
        voxels[start : start + len(piece)] = part
        yield HEADERS + (1 - HEADERS) * (start + len(piece)) / len(slices)
    return voxels


def _decoded(files: list[str], pixel: int | None) -> sitk.Image:
    """The pixels of some slices; in the type of those before, if there are any."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    if pixel is not None:
        reader.SetOutputPixelType(pixel)
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise ImageError(f"The pixels of {_which(files)} cannot be decoded; copy the series again.") from error


def _which(files: list[str]) -> str:
    """One of some files, in words."""
    return files[0] if len(files) == 1 else f"one of the DICOM files {files[0]} to {Path(files[-1]).name}"
