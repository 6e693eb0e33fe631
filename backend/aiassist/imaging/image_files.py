"""Read and write images of any supported format.

nibabel and pydicom are imported where a file of theirs is met: the process behind Slicer's clicks meets none.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from aiassist.errors import ImageError
from aiassist.files import whole_file
from aiassist.imaging import meta_image, nrrd_files
from aiassist.imaging.geometry import Geometry
from aiassist.imaging.limits import check_promise
from aiassist.imaging.pictures import check_whole
from aiassist.imaging.volume import Volume, colour_refused

NIFTI = (".nii", ".nii.gz", ".hdr", ".img", ".hdr.gz", ".img.gz")
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
WRITABLE = (".nii.gz", ".nii", ".nrrd", ".mha", ".png", ".tif")
#: Who reads a file is said by its ending. ITK would go by the content, and take what begins as a picture and ends
#: as HDF5 for the latter, whose voxels may lie in any other file of this computer.
_READERS = {
    ".png": "PNGImageIO",
    ".jpg": "JPEGImageIO",
    ".jpeg": "JPEGImageIO",
    ".bmp": "BMPImageIO",
    ".tif": "TIFFImageIO",
    ".tiff": "TIFFImageIO",
    ".dcm": "GDCMImageIO",
    ".mha": "MetaImageIO",
    ".mhd": "MetaImageIO",
}
READABLE = (*NIFTI, *nrrd_files.SUFFIXES, *_READERS)
#: Labels may lie this far from their image, in voxels at the corners: ITK makes another grid of a DICOM series whose
#: positions and directions are rounded. It is half of what `DicomSeries` allows headers.
LABELS_OFF = 0.05
#: The types of voxels that a picture can hold; MetaImage holds all.
_PICTURE_TYPES = {
    ".png": ("uint8", "uint16"),
    ".tif": ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"),
}

sitk.ProcessObject.SetGlobalWarningDisplay(False)


def read_volume(path: str | Path) -> Volume:
    """Read an image.

    Parameters
    ----------
    path : str or Path
        A NIfTI, NRRD, MetaImage, DICOM or picture file (PNG, JPEG, TIFF, BMP), or a folder that
        holds one DICOM series. Files end as in `READABLE`, DICOM files in anything else too. Colour becomes grey; a 2D
        picture becomes one slice.

    Returns
    -------
    Volume
        Voxels in the file's own type, on its own grid.

    Raises
    ------
    FileNotFoundError
        When there is nothing at `path`.
    ImageError
        When it is no image, damaged, not three-dimensional, has no usable geometry, or its header
        promises more than its file can hold (refused before memory is asked for).
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file or folder {path}; check the spelling.")
    if path.is_dir():
        from aiassist.imaging.dicom_folder import read_dicom_folder

        return read_dicom_folder(path)
    if path.stat().st_size == 0:
        raise ImageError(f"{path} is empty.")
    path.open("rb").close()  # libraries call a file damaged that may not be read
    if is_nifti(path):
        from aiassist.imaging.nifti import read_nifti

        return read_nifti(path)
    if path.name.lower().endswith(nrrd_files.SUFFIXES):
        return nrrd_files.read_nrrd(path)
    if _is_dicom(path):
        from aiassist.imaging.dicom_folder import read_dicom_file

        return read_dicom_file(path) or _read_itk(path)
    if path.suffix.lower() not in _READERS:
        raise ImageError(f"{path} has no known image ending and is no DICOM file; use one of {', '.join(READABLE)}.")
    return _read_itk(path)


def is_nifti(path: Path) -> bool:
    """Whether the name says NIfTI, in one file or two."""
    return path.name.lower().endswith(NIFTI)


def _is_dicom(path: Path) -> bool:
    """Whether the name says DICOM, or says nothing and the file begins as DICOM does."""
    if path.suffix.lower() in _READERS:
        return path.suffix.lower() == ".dcm"
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def _read_itk(path: Path) -> Volume:
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.SetImageIO(_READERS.get(path.suffix.lower(), _READERS[".dcm"]))
    try:
        reader.ReadImageInformation()
        if path.suffix.lower() != ".mhd":
            check_promise(path, reader.GetSize(), _bytes_a_voxel(reader))
        check_whole(path)
        if path.suffix.lower() in meta_image.SUFFIXES:
            meta_image.check_meta_image(path, reader.GetSize(), _bytes_a_voxel(reader))
        if reader.GetDimension() > 3 and min(reader.GetSize()[3:]) > 1:
            raise ImageError(
                f"{path} has the axes {reader.GetSize()}: aiassist reads one 3D volume; split a series into volumes."
            )
        if reader.GetDimension() > 3:
            reader.SetExtractSize([*reader.GetSize()[:3], *([0] * (reader.GetDimension() - 3))])
        return Volume.from_sitk(reader.Execute())
    except ImageError as error:
        raise error if str(path) in str(error) else ImageError(f"{path}: {error}") from error
    except RuntimeError as error:
        raise ImageError(f"{path} is not a readable image: it is damaged, truncated or of another format.") from error


def _bytes_a_voxel(reader: sitk.ImageFileReader) -> int:
    one = sitk.Image([1] * reader.GetDimension(), reader.GetPixelIDValue(), reader.GetNumberOfComponents())
    return one.GetSizeOfPixelComponent() * one.GetNumberOfComponentsPerPixel()


def read_labelmap(path: str | Path, like: Volume | None = None) -> Volume:
    """Read a labelmap: a volume of whole numbers, on the grid of `like` when given, where it lies within `LABELS_OFF`.

    Raises
    ------
    ImageError
        When the voxels are not whole numbers from 0 to 65535, as colours are not, or lie on another grid.
    """
    with colour_refused():
        volume = read_volume(path)
    voxels = volume.voxels
    low, high = voxels.min(), voxels.max()
    if not (low >= 0 and high <= 65535) or (voxels.dtype.kind == "f" and (voxels % 1 != 0).any()):
        raise ImageError(f"{path} is not a labelmap: its voxels must be whole numbers from 0 to 65535.")
    if like is not None and not volume.geometry.same_grid(like.geometry, LABELS_OFF):
        raise ImageError(
            f"{path} lies on another grid than the image: {volume.geometry.difference(like.geometry)}; "
            "resample it onto the image first."
        )
    geometry = volume.geometry if like is None else like.geometry
    return Volume(voxels.astype(np.uint8 if high < 256 else np.uint16, copy=False), geometry)


def check_output_name(path: str | Path) -> Path:
    """The path, when its name ends in a format that can be written; else `ImageError`."""
    path = Path(path)
    if not path.name.lower().endswith(WRITABLE):
        raise ImageError(f"{path} has no known image ending; use one of {', '.join(WRITABLE)}.")
    return path


def check_holds(path: Path, geometry: Geometry) -> None:
    """Raise `ImageError` when a file of this name cannot hold voxels on a grid."""
    if path.suffix.lower() in PICTURES and geometry.shape[0] != 1:
        raise ImageError(f"{path} is a picture, but the volume has {geometry.shape[0]} slices; use .nii.gz.")
    if not geometry.is_orthogonal and not path.name.lower().endswith((*NIFTI, *nrrd_files.SUFFIXES)):
        raise ImageError(f"{path} cannot hold a sheared grid, as of a tilted gantry; use .nii.gz or .nrrd.")


def write_volume(path: str | Path, volume: Volume, compress: bool = True, keep_grid: bool = False) -> None:
    """Write a volume to a new file, whole or not at all, in the format its name says, compressed where that can be.

    A picture (``.png``, ``.tif``) keeps the size of its pixels, but neither the thickness of the slice nor its place
    and directions; with `keep_grid`, one that would lose them is refused.

    Raises
    ------
    ImageError
        When the format is unknown or cannot hold the volume.
    OSError
        When the folder is missing, not writable or full; nothing is left behind.
    """
    path = check_output_name(path)
    with whole_file(path) as temporary:
        if is_nifti(path):
            from aiassist.imaging.nifti import write_nifti

            write_nifti(temporary, volume)
        elif path.name.lower().endswith(".nrrd"):
            nrrd_files.write_nrrd(temporary, volume, compress=compress)
        else:
            _write_itk(temporary, volume, path, compress, keep_grid)


def _write_itk(temporary: Path, volume: Volume, path: Path, compress: bool, keep_grid: bool) -> None:
    check_holds(path, volume.geometry)
    image = volume.to_sitk()
    if path.suffix.lower() in PICTURES:
        types = _PICTURE_TYPES[path.suffix.lower()]
        if volume.voxels.dtype.name not in types:
            raise ImageError(f"{path} cannot hold voxels of type {volume.voxels.dtype}; use .nii.gz.")
        image = image[:, :, 0]
    with _small_ending(temporary) as known:
        try:
            sitk.WriteImage(image, str(known), useCompression=compress)
            back = _read_itk(known)  # ITK reports success on a full disk
        except (RuntimeError, ImageError) as error:
            raise OSError(f"{path} could not be written; is the disk full?") from error
        if back.voxels.tobytes() != volume.voxels.tobytes():
            raise OSError(f"{path} could not be written; is the disk full?")
        if keep_grid and not _is_same(back.geometry, volume.geometry):
            raise ImageError(
                f"{path} is a picture, which cannot keep where the slice lies, how it is turned and how thick it is; "
                "use .nii.gz or .nrrd."
            )


def _is_same(one: Geometry, other: Geometry) -> bool:
    """Whether two grids are the same, and a single slice as thick too."""
    return one.same_grid(other) and np.allclose(one.affine[:3, 2], other.affine[:3, 2], atol=1e-3)


@contextmanager
def _small_ending(path: Path) -> Iterator[Path]:
    """A file to write that becomes `path`: ITK would write a ``.MHA`` as two files of other names."""
    known = path.with_suffix(path.suffix.lower())
    try:
        yield known
        known.replace(path)
    except BaseException:
        known.unlink(missing_ok=True)
        raise
