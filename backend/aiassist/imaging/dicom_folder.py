"""A folder that holds one DICOM series becomes a volume."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK as sitk
from pydicom.errors import InvalidDicomError

from aiassist.errors import ImageError
from aiassist.imaging.dicom_header import damage_said, header_of, identified, unheard
from aiassist.imaging.dicom_listing import is_cut_off, is_enhanced, kind_of
from aiassist.imaging.dicom_series import ROUNDED, DicomSeries
from aiassist.imaging.geometry import Geometry
from aiassist.imaging.limits import check_promise
from aiassist.imaging.volume import Volume, luminance
from aiassist.words import counted

#: What the header of every slice must say, and how many numbers.
_NEEDED = {"Rows": 1, "Columns": 1, "ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
#: What the type of a slice's voxels follows from, and what holds where it is not said.
_TYPE = {"RescaleSlope": 1, "RescaleIntercept": 0, "PixelRepresentation": 0, "BitsStored": 16, "BitsAllocated": 16}

#: Slices may lie this far (in slice distances) from even spacing before the series is refused,
EVEN = 0.02
#: or at most `ROUNDED` mm along each axis, and this far (in slice distances): a missing slice moves others by 1/6.
ROUNDED_EVEN = 0.16
#: Slices that are decoded at once, and the share of the work that their headers are.
PIECE, HEADERS = 4, 0.5


def read_dicom_folder(folder: Path) -> Volume:
    """Read the DICOM series in a folder; files that are not DICOM images are ignored.

    Slices are ordered by position along their common normal, not by name or number. The patient,
    study and series identifiers are kept in `Volume.dicom`.

    Raises
    ------
    ImageError
        When the folder holds no series or several, when a file is damaged or does not say where it
        lies, or when slices are missing, doubled, unevenly spaced or differ in size, pixel spacing or
        orientation.
    """
    return _read_now(reading_dicom([path for path in folder.iterdir() if path.is_file()], folder))


def read_dicom_file(path: Path) -> Volume | None:
    """Read a DICOM file of one slice as a folder that holds it; None when it does not say where in the patient it lies.

    Raises
    ------
    ImageError
        When the file holds several slices, or a segmentation; else as `read_dicom_folder`.
    """
    try:
        with unheard(), damage_said(path):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            kind, frames = kind_of(header), int(header.get("NumberOfFrames") or 1)
    except InvalidDicomError:
        return None
    if "Segmentation" in kind:
        raise ImageError(f"{path} is a DICOM segmentation, no image; save it as .nii.gz or .nrrd, as by 3D Slicer.")
    if frames > 1 or is_enhanced(kind):
        raise ImageError(
            f"{path} is a multi-frame DICOM file of {counted(frames, 'frame')}; save it as .nii.gz or .nrrd, as by "
            "3D Slicer."
        )
    is_placed = "Rows" in header and "ImagePositionPatient" in header
    return _read_now(reading_dicom([path], path)) if is_placed else None


def _read_now(reading: Generator[float, None, Volume]) -> Volume:
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


def reading_dicom(files: Sequence[Path], folder: Path) -> Generator[float, None, Volume]:
    """As `read_dicom_folder`, of some files of a folder, for who must not wait; yields the share that is done."""
    files, slices, headers = sorted(path for path in files if not path.name.startswith(".")), [], []
    for number, path in enumerate(files):
        slices += _slice_of(path)
        yield HEADERS / 2 * number / len(files)
    if not slices:
        raise ImageError(f"{folder} holds no DICOM images; name a folder with one series, or an image file.")
    series = sorted({str(header.get("SeriesInstanceUID", "")) for _, header in slices})
    if len(series) > 1:
        raise ImageError(
            f"{folder} holds {len(series)} DICOM series ({', '.join(series[:3])}...); put each in a folder of its own."
        )
    ordered, geometry = _sort(folder, slices)
    for path, header in ordered:
        headers.append(_header_of(path, header))
        yield HEADERS / 2 * (1 + len(headers) / len(ordered))
    voxels = yield from _reading_voxels(folder, ordered, geometry)
    return Volume(voxels, geometry, DicomSeries(tuple(headers)))


def _slice_of(path: Path) -> list[tuple[Path, pydicom.Dataset]]:
    """A file with its header; nothing when it is no DICOM image."""
    try:
        with unheard(), damage_said(path):
            header = pydicom.dcmread(path, stop_before_pixels=True)
            if is_cut_off(header):
                raise ImageError(f"{path} is a damaged DICOM file; copy it again.")
            if "Rows" not in header or "ImagePositionPatient" not in header:
                return []
            _check_needed(path, header)
            return [(path, identified(header))]
    except InvalidDicomError:
        return []


def _header_of(path: Path, header: pydicom.Dataset) -> dict:
    with unheard(), damage_said(path):
        return header_of(header)


def _check_needed(path: Path, header: pydicom.Dataset) -> None:
    for name, count in _NEEDED.items():
        _placing(path, header, name, count)


def _placing(path: Path, header: pydicom.Dataset, name: str, count: int, usual: float = np.nan) -> np.ndarray:
    """The finite numbers of an element that says where a slice lies."""
    numbers = _numbers(header, name, usual)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ImageError(
            f"{path} has no {name} of {counted(count, 'number')}, so it is not known where its pixels lie; "
            "export the series again."
        )
    return numbers


def _numbers(header: pydicom.Dataset, name: str, usual: float) -> np.ndarray:
    """The values of an element, or the usual one where it says nothing; none at all where one of them is no number."""
    try:
        value = header.get(name)
        return np.array(usual if value is None else value, dtype=float).ravel()
    except (TypeError, ValueError):
        return np.empty(0)


def _sort(folder: Path, slices):
    """The slices in order of position, and their common geometry."""
    first = slices[0][1]
    orientation = np.array(first.ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    for path, header in slices:
        same = (header.Rows, header.Columns) == (first.Rows, first.Columns)
        same &= np.allclose(header.PixelSpacing, first.PixelSpacing, rtol=1e-3, atol=0)
        turned = np.abs(np.array(header.ImageOrientationPatient, dtype=float) - orientation).max() > 1e-3
        if not same or turned:
            raise ImageError(
                f"{path.name} in {folder} differs from the other slices in size, pixel spacing or orientation."
            )
    positions = np.array([[float(x) for x in header.ImagePositionPatient] for _, header in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    origin, step = _even_grid(folder, positions)
    row, column = (float(x) for x in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * column
    affine[:3, 1] = orientation[3:] * row
    affine[:3, 2] = normal * _thickness(*slices[0]) if step is None else step
    affine[:3, 3] = origin
    geometry = Geometry((len(slices), first.Rows, first.Columns), affine)
    return [slices[n] for n in order], geometry


def _thickness(path: Path, header: pydicom.Dataset) -> float:
    """How thick a single slice is, in mm; one where it does not say."""
    return float(_placing(path, header, "SliceThickness", 1, usual=1.0)[0]) or 1.0


def _even_grid(folder: Path, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """The place of the first slice, and the vector from slice to slice, in mm; no vector for a single slice."""
    if len(positions) == 1:
        return positions[0], None
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    length = np.linalg.norm(step)
    ideal = positions[0] + np.outer(np.arange(len(positions)), step)
    off = np.linalg.norm(positions - ideal, axis=1)
    if length >= 1e-6 and off.max() <= EVEN * length:
        return positions[0], step
    origin, step, rounding = _fitted_grid(positions)
    length = np.linalg.norm(step)
    if length >= 1e-6 and rounding.max() <= ROUNDED and np.linalg.norm(rounding, axis=1).max() <= ROUNDED_EVEN * length:
        return origin, step
    raise ImageError(
        f"The slices in {folder} are not evenly spaced (slice {int(off.argmax())} is off by {off.max():.2f} mm): "
        "some are missing or doubled; complete the series."
    )


def _fitted_grid(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The place and vector of the even grid closest to all slices, and how far each lies from it along x, y and z."""
    numbers = np.arange(len(positions))
    centred = numbers - numbers.mean()
    step = centred @ (positions - positions[0]) / (centred @ centred)
    rest = positions - np.outer(numbers, step)
    origin = (rest.min(axis=0) + rest.max(axis=0)) / 2
    return origin, step, np.abs(rest - origin)


def _reading_voxels(folder: Path, slices, geometry: Geometry) -> Generator[float, None, np.ndarray]:
    check_promise(folder, geometry.size[:2], 2, slices[0][0])
    types = {tuple(tuple(_numbers(header, *item)) for item in _TYPE.items()) for _, header in slices}
    # where they differ, as in PET, ITK would cut all slices to the type that the first one needs
    pixel, voxels = (sitk.sitkFloat32 if len(types) > 1 else None), None
    for start in range(0, len(slices), PIECE):
        piece = [str(path) for path, _ in slices[start : start + PIECE]]
        image = _decoded(folder, piece, pixel)
        pixel = image.GetPixelID()
        part = sitk.GetArrayFromImage(image)
        part = luminance(part) if part.ndim == 4 else part
        if part.shape != (len(piece), *geometry.shape[1:]):
            raise ImageError(f"{folder} holds {part.shape[0]} frames for {len(piece)} slices.")
        voxels = np.empty(geometry.shape, part.dtype) if voxels is None else voxels
        voxels[start : start + len(piece)] = part
        yield HEADERS + (1 - HEADERS) * (start + len(piece)) / len(slices)
    return voxels


def _decoded(folder: Path, files: list[str], pixel: int | None) -> sitk.Image:
    """The pixels of some slices; in the type of those before, if there are any."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(files)
    if pixel is not None:
        reader.SetOutputPixelType(pixel)
    try:
        return reader.Execute()
    except RuntimeError as error:
        raise ImageError(f"The pixels of the DICOM series in {folder} cannot be decoded.") from error
