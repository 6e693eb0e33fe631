"""NIfTI files, by nibabel.

ITK's own NIfTI reader returns zeros for a truncated file, ignores an sform that disagrees with the
pixel dimensions and cannot hold sheared grids; its writer reports success on a full disk. nibabel
is exact in all of these.
"""

from __future__ import annotations

import logging
import zlib
from math import prod
from pathlib import Path

import nibabel
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.volumeutils import apply_read_scaling
from nibabel.wrapstruct import WrapStructError

from aiassist.errors import ImageError
from aiassist.imaging.geometry import LPS_RAS, Geometry
from aiassist.imaging.limits import check_promise, check_start
from aiassist.imaging.streams import read_array, read_pieces
from aiassist.imaging.volume import Volume, luminance

_COLOURS = (128, 2304)
#: What reading a damaged file may raise, beside nibabel's own errors.
_DAMAGE = (EOFError, OSError, zlib.error, ValueError, OverflowError)
#: What scaled voxels become.
FLOAT = np.dtype(np.float32)
#: Millimetres in the unit of length that a header names by number (metre, micrometre).
_UNITS = {1: 1000.0, 3: 0.001}
#: Longer vector parts of a quaternion are no rounded ones.
ROUNDED = 1.01
#: Directions, and millimetres, that differ by no more are the same to ITK.
SAME = 1e-4

# Remarks on headers that nibabel would print to stderr; what matters of them is raised.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL + 1)


def read_nifti(path: Path) -> Volume:
    """Read a 2D or 3D NIfTI-1 or NIfTI-2 file, or a pair of such files; see `read_volume`."""
    try:
        image = _load(path)
        _check_header(path, image)
        shape = image.shape
        while len(shape) > 3 and shape[-1] == 1:
            shape = shape[:-1]
        if not 2 <= len(shape) <= 3 or min(shape) < 1:
            raise ImageError(
                f"{path} has the axes {image.shape}: aiassist reads one 3D volume; split a series into volumes."
            )
        stored = Path(image.file_map["image"].filename or path)
        check_start(path, image.dataobj.offset)
        made = None if _is_plain(image) or _is_colour(image) else FLOAT.itemsize
        check_promise(path, shape, image.get_data_dtype().itemsize, stored, made=made)
        geometry = Geometry((*shape, 1)[:3][::-1], _affine(image))
        return Volume(_voxels(image).reshape(shape, order="F").T.reshape(geometry.shape), geometry)
    except ImageError as error:
        raise error if str(path) in str(error) else ImageError(f"{path}: {error}") from error
    except (*_DAMAGE, HeaderDataError, ImageFileError, WrapStructError) as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise
        raise ImageError(
            f"{path} is not a readable NIfTI file: it is damaged, truncated or of another format."
        ) from error


def _load(path: Path):
    """As `nibabel.load`, which for a file called ``.Nii`` looks for one called ``.nii``."""
    # never mapped: a mapped file would change under the study, and block its folder
    for kind in (_Image1, _Image2):
        if kind.path_maybe_image(path)[0]:
            return kind.from_file_map(kind.make_file_map({"image": str(path)}), mmap=False)
    return nibabel.load(path, mmap=False)


def _check_header(path: Path, image) -> None:
    """`ImageError` for Analyze, of which ITK and nibabel differ in where it lies, and for voxels within the header."""
    if not isinstance(image.header, nibabel.Nifti1Header):
        raise ImageError(
            f"{path} is an Analyze file, which does not say how its voxels lie in the patient; save it as .nii.gz."
        )
    offset, size = image.dataobj.offset, image.header.sizeof_hdr
    if image.header.is_single and offset < size:
        raise ImageError(
            f"{path} says that its voxels begin at byte {offset}, within its header of {size} bytes; save it again."
        )


def _affine(image) -> np.ndarray:
    """From voxel indices to LPS in mm, whatever the header's unit of length."""
    unit = _UNITS.get(int(image.header.get("xyzt_units", 0)) & 7, 1.0)
    return np.diag([unit, unit, unit, 1.0]) @ LPS_RAS @ _affine_ras(image)


def _affine_ras(image) -> np.ndarray:
    """What places the voxels, as ITK and Slicer have it, where nibabel has another mind.

    Of a qform and an sform that are both there, see `_prefers_sform`. Where neither counts, the first voxel lies at the
    origin and the axes point to L, P and S; nibabel, as SPM, puts the middle of the image there.
    """
    header = image.header
    has_qform, has_sform = header["qform_code"] > 0, header["sform_code"] > 0
    if has_qform and not (has_sform and _prefers_sform(header)):
        return header.get_qform()
    if has_sform:
        return header.get_sform()
    return LPS_RAS @ np.diag([*np.abs(header["pixdim"][1:4]), 1.0])


def _prefers_sform(header: nibabel.Nifti1Header) -> bool:
    """Whether an sform counts beside a qform: if it has right angles, and is the scanner's or says the same.

    As itk::NiftiImageIO::SetImageIOOrientationFromNIfTI of ITK 5.4, whose tolerances these are.
    """
    sform = header.get_sform()
    lengths = np.linalg.norm(sform[:3, :3], axis=0)
    if not lengths.all():
        return False
    directions = sform[:3, :3] / lengths
    if not np.allclose(directions @ directions.T, np.eye(3), rtol=0, atol=SAME):
        return False
    return header["sform_code"] == 1 or np.allclose(sform, header.get_qform(), rtol=0, atol=SAME)


class _Rounded:
    """A header whose quaternion was rounded to a little more than a rotation's."""

    def get_qform_quaternion(self):
        """The rotation ``(a, b, c, d)``."""
        b, c, d = (float(self[f"quatern_{name}"]) for name in "bcd")
        length = np.sqrt(b * b + c * c + d * d)
        return np.array([0, b, c, d]) / length if 1 < length < ROUNDED else super().get_qform_quaternion()


class _NoExtensions(nibabel.nifti1.Nifti1Extensions):
    """Header extensions that are not read: nobody asks for them, and they may unpack to anything."""

    @classmethod
    def from_fileobj(cls, fileobj, size, byteswap):
        return cls()


class _Header1(_Rounded, nibabel.Nifti1Header):
    exts_klass = _NoExtensions


class _Header2(_Rounded, nibabel.Nifti2Header):
    exts_klass = _NoExtensions


class _Image1(nibabel.Nifti1Image):
    header_class = _Header1


class _Image2(nibabel.Nifti2Image):
    header_class = _Header2


def _is_colour(image) -> bool:
    return int(image.header.get("datatype", 0)) in _COLOURS


def _is_plain(image) -> bool:
    """Whether the voxels are grey values as they are stored."""
    unscaled = (image.dataobj.slope, image.dataobj.inter) in ((1, 0), (None, None))
    return unscaled and image.get_data_dtype().kind in "iuf"


def _voxels(image) -> np.ndarray:
    """Voxels in file order; integers stay integers unless a scale says otherwise."""
    dtype = image.get_data_dtype()
    if dtype.kind == "c":
        raise ImageError("it holds complex numbers, which are not grey values; save the magnitude.")
    with image.file_map["image"].get_prepare_fileobj(mode="rb") as stream:
        stream.seek(image.dataobj.offset)
        if _is_plain(image):
            return read_array(stream, image.shape[::-1], dtype).T
        if _is_colour(image):
            colour = read_array(stream, image.shape[::-1], dtype)
            return luminance(np.moveaxis(colour.view(np.uint8).reshape(*colour.shape, -1).T, 0, -1))
        made, done = np.empty(prod(image.shape), FLOAT), 0
        for piece in read_pieces(stream, len(made), dtype):  # all at once would take several times the memory
            made[done : done + len(piece)] = apply_read_scaling(piece, image.dataobj.slope, image.dataobj.inter)
            done += len(piece)
        return made.reshape(image.shape[::-1]).T


def write_nifti(path: Path, volume: Volume) -> None:
    """Write a volume as NIfTI-1 (NIfTI-2 where an axis needs it); the affine is kept to 32 bits."""
    voxels = volume.voxels
    kind = nibabel.Nifti1Image if max(volume.shape) < 2**15 else nibabel.Nifti2Image
    image = kind(voxels.T, volume.geometry.affine_ras, dtype=voxels.dtype)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.geometry.affine_ras, code="scanner")
    if volume.geometry.is_orthogonal:
        image.set_qform(volume.geometry.affine_ras, code="scanner")
    image.file_map = kind.make_file_map({"image": str(path)})  # nibabel.save would miss a ``.Nii``
    image.to_file_map()
