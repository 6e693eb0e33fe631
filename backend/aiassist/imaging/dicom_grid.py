"""Where the slices of a DICOM series lie, and the even grid that they make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom

from aiassist.errors import ImageError
from aiassist.imaging.dicom_series import ROUNDED
from aiassist.imaging.geometry import SINGULAR, Geometry
from aiassist.words import counted

#: What the header of every slice must say, and how many numbers.
_NEEDED = {"Rows": 1, "Columns": 1, "ImagePositionPatient": 3, "ImageOrientationPatient": 6, "PixelSpacing": 2}
#: Slices that lie no farther apart, in mm, are of one place.
SAME = 1e-3
#: Slices may lie this far (in slice distances) from even spacing before the series is refused,
EVEN = 0.02
#: or at most `ROUNDED` mm along each axis, and this far (in slice distances): a missing slice moves others by 1/6.
ROUNDED_EVEN = 0.16


def check_needed(path: Path, header: pydicom.Dataset) -> None:
    """`ImageError` unless a slice says where it lies, how it is turned and how large its pixels are."""
    for name, count in _NEEDED.items():
        _placing(path, header, name, count)
    spacing = numbers_of(header, "PixelSpacing", np.nan)
    if spacing.min() <= 0:
        raise ImageError(
            f"{path} has the PixelSpacing {spacing.tolist()}, which must be more than 0; export the series again."
        )
    turned = numbers_of(header, "ImageOrientationPatient", np.nan)
    if np.linalg.norm(np.cross(turned[:3], turned[3:])) < SINGULAR:
        raise ImageError(
            f"{path} has the ImageOrientationPatient {turned.tolist()}, whose axes coincide or have no length; export "
            "the series again."
        )


def _placing(path: Path, header: pydicom.Dataset, name: str, count: int, usual: float = np.nan) -> np.ndarray:
    """The finite numbers of an element that says where a slice lies."""
    numbers = numbers_of(header, name, usual)
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise ImageError(
            f"{path} has no {name} of {counted(count, 'number')}, so it is not known where its pixels lie; "
            "export the series again."
        )
    return numbers


def numbers_of(header: pydicom.Dataset, name: str, usual: float) -> np.ndarray:
    """The values of an element, or the usual one where it says nothing; none at all where one of them is no number."""
    try:
        value = header.get(name)
        return np.array(usual if value is None else value, dtype=float).ravel()
    except (TypeError, ValueError):
        return np.empty(0)


def sort_slices(folder: Path, slices):
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
    slices = [slices[n] for n in order]
    origin, step = _even_grid(folder, slices, positions)
    row, column = (float(x) for x in first.PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0] = orientation[:3] * column
    affine[:3, 1] = orientation[3:] * row
    affine[:3, 2] = normal * _thickness(*slices[0]) if step is None else step
    affine[:3, 3] = origin
    try:
        return slices, Geometry((len(slices), first.Rows, first.Columns), affine)
    except ImageError as error:
        raise ImageError(f"{folder}: {error}") from error


def _thickness(path: Path, header: pydicom.Dataset) -> float:
    """How thick a single slice is, in mm; one where it does not say."""
    return float(_placing(path, header, "SliceThickness", 1, usual=1.0)[0]) or 1.0


def _even_grid(folder: Path, slices, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
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
    raise _uneven(folder, slices, np.linalg.norm(np.diff(positions, axis=0), axis=1))


def _uneven(folder: Path, slices, steps: np.ndarray) -> ImageError:
    """What is wrong with slices, in order of position, that are not evenly spaced, by the steps between them, in mm."""
    if steps.min() <= SAME:
        one, other = (_called(folder, *slices[steps.argmin() + n]) for n in (0, 1))
        return ImageError(
            f"{folder} holds several images of one place, as {one} and {other}: those of phases or echoes, or one "
            "twice; put those of each in a folder of its own."
        )
    usual = float(np.median(steps))
    odd = int(np.abs(steps - usual).argmax())
    one, other = (_called(folder, *slices[odd + n]) for n in (0, 1))
    return ImageError(
        f"The slices in {folder} are not evenly spaced ({one} and {other} lie {steps[odd]:.2f} mm apart, others "
        f"{usual:.2f} mm): some are missing or doubled; complete the series."
    )


def _called(folder: Path, path: Path, header: pydicom.Dataset) -> str:
    """What to call a slice: its file, or its number among the frames of the only file, from 1."""
    return path.name if path != folder else f"frame {header.InstanceNumber + 1}"


def _fitted_grid(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The place and vector of the even grid closest to all slices, and how far each lies from it along x, y and z."""
    numbers = np.arange(len(positions))
    centred = numbers - numbers.mean()
    step = centred @ (positions - positions[0]) / (centred @ centred)
    rest = positions - np.outer(numbers, step)
    origin = (rest.min(axis=0) + rest.max(axis=0)) / 2
    return origin, step, np.abs(rest - origin)
