"""One image, its geometry, and where it came from."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import SimpleITK as sitk

from aiassist.errors import ImageError
from aiassist.imaging.dicom_series import DicomSeries
from aiassist.imaging.geometry import Geometry

#: Grey values beyond this are no measurements, and would overflow on the way.
HUGE = 1e30
#: What voxels become whose type no file holds, so that a study is the same wherever it is kept.
WIDER = {"bool": np.uint8, "float16": np.float32}
#: Bytes hashed at once.
HASHED = 2**23
#: Types of a colour's parts.
COLOURS = ("uint8", "uint16")
#: Bytes of a colour image that become grey at once, and the weights of red, green and blue.
ROWS, BT601 = 2**20, np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True, eq=False)
class Volume:
    """Voxels on a grid in the patient.

    Parameters
    ----------
    voxels : numpy.ndarray
        3D array ``(k, j, i)`` of integers or real numbers; NaN and infinities are allowed.
        Kept as given (no copy) and made read-only; types that no file holds become wider ones at once, see `WIDER`.
    geometry : Geometry
        Where the voxels lie; of the same shape.
    dicom : DicomSeries, optional
        Present when the volume was read from a DICOM series.
    """

    voxels: np.ndarray
    geometry: Geometry
    dicom: DicomSeries | None = None

    def __post_init__(self):
        voxels = np.asarray(self.voxels)
        if voxels.shape != self.geometry.shape:
            raise ImageError(f"Voxels of shape {voxels.shape} do not fit a grid of {self.geometry.shape}.")
        if voxels.dtype.kind not in "biuf":
            raise ImageError(f"Voxels of type {voxels.dtype} are not grey values; use integers or reals.")
        if voxels.dtype.name in WIDER:
            voxels = voxels.astype(WIDER[voxels.dtype.name])
        if not voxels.dtype.isnative:
            voxels = voxels.astype(voxels.dtype.newbyteorder("="))
        voxels = voxels.view()
        voxels.flags.writeable = False
        object.__setattr__(self, "voxels", voxels)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of voxels ``(k, j, i)``."""
        return self.geometry.shape

    def with_dicom(self, dicom: DicomSeries | None) -> Volume:
        """The same image with these headers; no voxel is copied or hashed again."""
        image = Volume(self.voxels, self.geometry, dicom)
        if "study_id" in vars(self):
            vars(image)["study_id"] = self.study_id
        return image

    @cached_property
    def study_id(self) -> str:
        """Hash of the decoded voxels and the geometry: 32 hexadecimal digits.

        The affine enters as the 32-bit numbers that NIfTI keeps of it, and what is below a millionth
        of a millimetre as zero, so that formats that store it in different ways agree on the study.
        """
        hashing = self.hashing()
        while True:
            try:
                next(hashing)
            except StopIteration as end:
                return end.value

    def hashing(self) -> Generator[None, None, str]:
        """Compute `study_id` piece by piece, for who must not wait; yields after every `HASHED` bytes."""
        if "study_id" in self.__dict__:
            return self.study_id
        digest = study_digest(self.geometry, self.voxels.dtype)
        little = self.voxels.dtype.newbyteorder("<")
        planes = max(1, HASHED * len(self.voxels) // max(self.voxels.nbytes, 1))
        for start in range(0, len(self.voxels), planes):
            digest.update(np.ascontiguousarray(self.voxels[start : start + planes], dtype=little).data)
            yield
        return self.__dict__.setdefault("study_id", digest.hexdigest())

    @classmethod
    def from_sitk(cls, image: sitk.Image) -> Volume:
        """Volume of a 2D or 3D SimpleITK image; colour becomes grey, 2D becomes one slice.

        The voxels are a copy; to save memory, drop the image afterwards.
        """
        voxels = sitk.GetArrayFromImage(image)
        if image.GetNumberOfComponentsPerPixel() > 1:
            voxels = luminance(voxels)
        dimension = image.GetDimension()
        if dimension not in (2, 3):
            raise ImageError(f"An image of {dimension} dimensions is not a volume; split it first.")
        direction = np.eye(3)
        direction[:dimension, :dimension] = np.reshape(image.GetDirection(), (dimension, dimension))
        spacing, origin = list(image.GetSpacing()), list(image.GetOrigin())
        if dimension == 2:
            voxels, spacing, origin = voxels[np.newaxis], [*spacing, 1.0], [*origin, 0.0]
        return cls(voxels, Geometry.from_spacing(voxels.shape, spacing, origin, direction))

    def to_sitk(self) -> sitk.Image:
        """A SimpleITK image of the same grid, with voxels copied; sheared grids are refused."""
        if not self.geometry.is_orthogonal:
            raise ImageError("SimpleITK cannot hold a sheared grid; save it as NIfTI or NRRD instead.")
        image = sitk.GetImageFromArray(self.voxels)
        image.SetSpacing(self.geometry.spacing)
        image.SetOrigin(self.geometry.origin)
        image.SetDirection(self.geometry.direction.ravel().tolist())
        return image


def study_digest(geometry: Geometry, dtype: np.dtype) -> hashlib.blake2b:
    """The hash of `Volume.study_id` before its voxels, which follow in C order ``(k, j, i)``, little-endian."""
    digest = hashlib.blake2b(digest_size=16)
    affine = np.round(geometry.affine.astype(np.float32).astype(float), 6) + 0.0
    digest.update(f"{geometry.shape} {dtype.newbyteorder('<').str} ".encode())
    digest.update(affine.astype("<f8").tobytes())
    return digest


_is_refused: ContextVar[bool] = ContextVar("is_refused", default=False)


@contextmanager
def colour_refused() -> Iterator[None]:
    """While it lasts, `luminance` refuses what is not grey already: the colours of labels have no grey value."""
    before = _is_refused.set(True)
    try:
        yield
    finally:
        _is_refused.reset(before)


def luminance(colour: np.ndarray) -> np.ndarray:
    """Grey values of an array whose last axis is red, green, blue (and alpha, which is ignored).

    Weights of ITU-R BT.601. Two channels are taken as grey and alpha, one as grey.

    Raises
    ------
    ImageError
        When the channels are more, or no unsigned integers of 8 or 16 bits, as of vectors and complex numbers; or when
        they differ while `colour_refused`.
    """
    channels = colour.shape[-1]
    if channels > 4 or (channels > 1 and colour.dtype.name not in COLOURS):
        raise ImageError(
            f"it holds {channels} numbers of type {colour.dtype.name} a voxel, which are neither a grey value nor a "
            "colour; save one of them."
        )
    if channels < 3:
        return np.ascontiguousarray(colour[..., 0])
    if _is_refused.get() and (colour[..., :3] != colour[..., :1]).any():
        raise ImageError("it holds colours, which are no labels; save the labels as whole numbers, as in .nii.gz.")
    made = np.empty(colour.shape[:-1], colour.dtype)
    rows = colour.reshape(-1, *colour.shape[-2:])
    count = max(1, ROWS // rows[0].nbytes)
    for start in range(0, len(rows), count):  # all at once would take several times the memory
        part = rows[start : start + count, :, :3].astype(np.float32) @ BT601
        made.reshape(rows.shape[:2])[start : start + count] = np.rint(part)
    return made


def finite(voxels: np.ndarray) -> np.ndarray:
    """Float32 copy in which NaN, infinities and what is beyond `HUGE` take the median of the other voxels."""
    with np.errstate(over="ignore"):
        grey = voxels.astype(np.float32)
    if voxels.dtype.kind == "f":
        bad = ~(np.abs(grey) < HUGE)
        if bad.any():
            grey[bad] = np.median(grey[~bad]) if not bad.all() else 0.0
    return grey
