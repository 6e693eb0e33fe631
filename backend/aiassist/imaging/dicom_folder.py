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
from aiassist.imaging.dicom_listing import is_cut_off
from aiassist.imaging.dicom_series import DicomSeries
from aiassist.imaging.geometry import Geometry
from aiassist.imaging.limits import check_promise
from aiassist.imaging.volume import Volume, luminance

#: What the header of every slice must say, and how many numbers.
_NEEDED = {"ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}

#: Slices may lie this far (in slice distances) from even spacing before the series is refused.
EVEN = 0.02
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
        lies, or when slices are missing, doubled, unevenly spaced or differ in orientation or size.
    """
    reading = reading_dicom([path for path in folder.iterdir() if path.is_file()], folder)
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
        value = header.get(name)
        if value is None or np.size(value) != count:
            raise ImageError(f"{path} has no {name} of {count} numbers, so it is not known where it lies.")


def _sort(folder: Path, slices):
    """The slices in order of position, and their common geometry."""
    first = slices[0][1]
    orientation = np.array(first.ImageOrientationPatient, dtype=float)
    normal = np.cross(orientation[:3], orientation[3:])
    for path, header in slices:
        same = (header.Rows, header.Columns) == (first.Rows, first.Columns)
        turned = np.abs(np.array(header.ImageOrientationPatient, dtype=float) - orientation).max() > 1e-3
        if not same or turned:
            raise ImageError(f"{path.name} in {folder} differs from the other slices in size or orientation.")
    positions = np.array([[float(x) for x in header.ImagePositionPatient] for _, header in slices])
    order = np.argsort(positions @ normal, kind="stable")
    positions = positions[order]
    step = _even_step(folder, positions)
    row, column = (float(x) for x in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * column
    affine[:3, 1] = orientation[3:] * row
    affine[:3, 2] = step if step is not None else normal * float(first.get("SliceThickness") or 1.0)
    affine[:3, 3] = positions[0]
    geometry = Geometry((len(slices), first.Rows, first.Columns), affine)
    return [slices[n] for n in order], geometry


def _even_step(folder: Path, positions: np.ndarray) -> np.ndarray | None:
    """The vector from slice to slice, in mm; None for a single slice."""
    if len(positions) == 1:
        return None
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    length = np.linalg.norm(step)
    ideal = positions[0] + np.outer(np.arange(len(positions)), step)
    off = np.linalg.norm(positions - ideal, axis=1)
    if length < 1e-6 or off.max() > EVEN * length:
        raise ImageError(
            f"The slices in {folder} are not evenly spaced (slice {int(off.argmax())} is off by {off.max():.2f} mm): "
            "some are missing or doubled; complete the series."
        )
    return step


def _reading_voxels(folder: Path, slices, geometry: Geometry) -> Generator[float, None, np.ndarray]:
    check_promise(folder, geometry.size[:2], 2, slices[0][0])
    scales = {(header.get("RescaleSlope", 1), header.get("RescaleIntercept", 0)) for _, header in slices}
    # where they differ, as in PET, ITK would cut all slices to the type that the first one needs
    pixel, voxels = (sitk.sitkFloat32 if len(scales) > 1 else None), None
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
