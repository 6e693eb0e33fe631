"""NRRD files, by pynrrd; the format of the ground-truth store and of Slicer."""

from __future__ import annotations

import bz2
import gzip
import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import nrrd
import numpy as np

from aiassist.errors import ImageError
from aiassist.imaging.geometry import LPS_RAS, Geometry
from aiassist.imaging.limits import MAX_BZIP2, MAX_COMPRESSION, check_promise
from aiassist.imaging.streams import read_array
from aiassist.imaging.volume import Volume, luminance

SUFFIXES = (".nrrd", ".nhdr")
_TO_LPS = {
    "left-posterior-superior": np.eye(4),
    "lps": np.eye(4),
    "right-anterior-superior": LPS_RAS,
    "ras": LPS_RAS,
    "left-anterior-superior": np.diag([1.0, -1.0, 1.0, 1.0]),
    "las": np.diag([1.0, -1.0, 1.0, 1.0]),
}
_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}
#: Fields that say something of each axis, under both of their names.
_LIMITS = (("spacings",), ("axis mins", "axismins"), ("axis maxs", "axismaxs"))
_UNPACKERS = {"gzip": gzip.open, "gz": gzip.open, "bzip2": bz2.open, "bz2": bz2.open}
_COLOUR_KINDS = ("rgb-color", "rgba-color", "vector", "3-color", "4-color")
#: Kinds of axes along which voxels lie; the last two say nothing.
_PLACE_KINDS = ("domain", "space", "none", "???")
#: A header's last field where the voxels lie in several files whose names follow it,
_LISTED = re.compile(rb"data ?file\s*:\s*LIST\s")
#: and what such a field says, or one that counts the files.
_SEVERAL = re.compile(r"LIST(\s|$)|.*%\d*d.*(\s[+-]?\d+){3}")


def read_nrrd(path: Path) -> Volume:
    """Read a 2D or 3D NRRD file, attached or detached; see `read_volume`."""
    with _damage_said(path):
        voxels, header = _read(path)
    first, count = _place_axes(path, header)
    try:
        voxels = voxels.reshape(voxels.shape[-first - count :])  # without axes of one voxel after those of space
        voxels = luminance(voxels) if first else voxels
        voxels = voxels[np.newaxis] if voxels.ndim == 2 else voxels
        return Volume(voxels, Geometry(voxels.shape, _affine(header, first)))
    except ImageError as error:
        raise ImageError(f"{path}: {error}") from error


@contextmanager
def _damage_said(path: Path) -> Iterator[None]:
    """Whatever goes wrong in a damaged file becomes one `ImageError`."""
    try:
        yield
    except (ImageError, FileNotFoundError, PermissionError):
        raise
    except (nrrd.NRRDError, ValueError, KeyError, EOFError, OSError, zlib.error, IndexError, StopIteration) as error:
        raise ImageError(
            f"{path} is not a readable NRRD file: it is damaged, truncated or of another format."
        ) from error


def read_header(stream: BinaryIO) -> dict:
    """The fields of an open NRRD file's header; the stream stands behind it then.

    Text is UTF-8. pynrrd, which reads the fields, would by itself drop every letter that is not ASCII.
    """
    return nrrd.read_header(_lines(stream))


def _lines(stream: BinaryIO) -> Iterator[str]:
    """The lines of a header, without the names of files that may follow its last field."""
    for line in stream:
        yield line.decode("utf8", "replace")
        if _LISTED.match(line):
            return


def _header(path: Path, stream: BinaryIO) -> dict:
    """A file's header, whose words are in small letters.

    `ImageError` for an unknown order of bytes, and for voxels in several files.
    """
    header = read_header(stream)
    for field in ("type", "encoding", "endian"):
        if field in header:
            header[field] = header[field].strip().lower()
    if header.get("endian", "little") not in ("little", "big"):
        raise ImageError(f"{path} says that its endian is {header['endian']!r}, which must be little or big.")
    data = header.get("data file", header.get("datafile", ""))
    if _SEVERAL.match(data):
        raise ImageError(f"{path} has its voxels in several files ({data}); save it as one .nrrd file.")
    return header


def _dtype(header) -> np.dtype:
    """The voxel type that a header names."""
    code = next(code for code, names in _TYPES.items() if header["type"] in names)
    return np.dtype(code).newbyteorder(">" if header.get("endian") == "big" else "<")


def _read(path: Path) -> tuple[np.ndarray, dict]:
    with path.open("rb") as stream:
        header = _header(path, stream)
        detached = "data file" in header or "datafile" in header
        if not detached:
            dtype, unpacker = _dtype(header), _UNPACKERS.get(header["encoding"])
            compression = MAX_BZIP2 if unpacker is bz2.open else MAX_COMPRESSION
            check_promise(path, header["sizes"], dtype.itemsize, compression=compression)
        if not detached and unpacker and not {"line skip", "byte skip"} & set(header):
            with unpacker(stream) as unpacked:
                return read_array(unpacked, tuple(int(n) for n in header["sizes"][::-1]), dtype), header
        return nrrd.read_data(header, stream, str(path), index_order="C"), header


def read_nrrd_geometry(path: Path) -> Geometry:
    """The grid of a 3D NRRD file of grey values, from its header alone; `ImageError` when that is damaged."""
    with _damage_said(path), path.open("rb") as stream:
        header = read_header(stream)
        try:
            return Geometry(tuple(header["sizes"][::-1]), _affine(header))
        except ImageError as error:
            raise ImageError(f"{path}: {error}") from error


def _place_axes(path: Path, header) -> tuple[int, int]:
    """Which axis of a file is i, the first along which voxels lie, and how many these are.

    Before them are the colours, or a list of one, if it has them; axes of one voxel after three of them are none.
    `ImageError` when they are not two or three, or of another kind, as time or a list.
    """
    kinds, axes = [kind.lower() for kind in header.get("kinds", [])], tuple(map(int, header["sizes"]))
    before = kinds[:1] if len(axes) > 2 else []
    first = sum(kind in _COLOUR_KINDS or (axes[0] == 1 and kind not in _PLACE_KINDS) for kind in before)
    count = len(axes) - first
    while count > 3 and axes[first + count - 1] == 1:
        count -= 1
    if "Segment0_ID" in header and count > 3:
        raise ImageError(
            f"{path} holds segments in {axes[0]} layers, as those that overlap need; export them to a labelmap in 3D "
            "Slicer, those that overlap to one each, and save that."
        )
    if not 2 <= count <= 3:
        raise ImageError(f"{path} has the axes {axes}: aiassist reads one 3D volume; split it first.")
    odd = [kind for kind in kinds[first : first + count] if kind not in _PLACE_KINDS]
    if odd:
        raise ImageError(f"{path} has an axis of the kind {odd[0]!r}, which is none of space; split it into volumes.")
    return first, count


def _affine(header, first: int = 0) -> np.ndarray:
    """Voxel indices of a file's axes, from the first that counts, to LPS."""
    affine, directions = np.eye(4), header.get("space directions")
    if directions is None:
        return _affine_of_axes(header, first)
    directions = directions[first:]
    vectors = [*directions[:3], header.get("space origin")]
    if any(vector is not None and len(vector) > 3 for vector in vectors):
        raise ImageError("its space has more than three dimensions; aiassist reads volumes in three.")
    for axis, direction in enumerate(directions[:3]):
        affine[: len(direction), axis] = direction
    if len(directions) == 2:  # one slice: its normal, one millimetre long
        affine[:3, 2] = np.cross(affine[:3, 0], affine[:3, 1])
        affine[:3, 2] /= max(np.linalg.norm(affine[:3, 2]), 1e-12)
    origin = header.get("space origin")
    if origin is not None:
        affine[: len(origin), 3] = origin
    return _TO_LPS.get(str(header.get("space", "lps")).lower(), np.eye(4)) @ affine


def _affine_of_axes(header, first: int) -> np.ndarray:
    """As `_affine`, of a file that says spacings and limits of its axes, but not how these lie in space.

    As nrrdOriginCalculate of Teem, by which ITK goes: the limits are those of the voxels' sides, unless the axis's
    centring says that they are those of their centres.
    """
    steps, low, high = (_of_axes(header, first, *names, unsaid=np.nan) for names in _LIMITS)
    if {"space", "space dimension"} & set(header) and np.isfinite([steps, low]).any():
        raise ImageError("its header names a space, but no space directions; save it again.")
    affine, count = np.eye(4), len(steps)
    affine[range(count), range(count)] = np.where(np.isfinite(steps), steps, 1.0)
    at_centre = np.char.lower(_of_axes(header, first, "centerings", "centers", unsaid="cell").astype(str)) == "node"
    parts = np.array(header["sizes"][first : first + 3]) - at_centre
    widths = np.where(np.isfinite(steps), steps, (high - low) / np.maximum(parts, 1))
    if np.isfinite(low).any() and np.isfinite(widths).all():
        affine[:count, 3] = low + np.where(at_centre, 0.0, widths / 2)
    return affine


def _of_axes(header, first: int, *names: str, unsaid) -> np.ndarray:
    """What the field of one of some names says of each axis along which voxels lie; `unsaid` where there is none."""
    count = len(header["sizes"])
    said = next((header[name] for name in names if name in header), [unsaid] * count)
    said = np.array(said.split() if isinstance(said, str) else said)
    if said.shape != (count,):
        raise ImageError(f"its {names[0]} are not {count}, one for each axis; save it again.")
    return said[first : first + 3]


def write_nrrd(path: Path, volume: Volume, fields: dict | None = None, compress: bool = True) -> None:
    """Write a volume as NRRD with its affine to full precision.

    Parameters
    ----------
    path : Path
        Where to write; see `aiassist.files.whole_file` for doing so safely.
    volume : Volume
        Any grid, sheared ones too.
    fields : dict of str, optional
        Custom ``key:=value`` fields, such as the segment descriptions of a ``.seg.nrrd``.
    compress : bool
        By gzip.
    """
    affine = volume.geometry.affine
    header = {
        "space": "left-posterior-superior",
        "kinds": ["domain"] * 3,
        "space directions": affine[:3, :3].T,
        "space origin": affine[:3, 3],
        "encoding": "gzip" if compress else "raw",
    }
    if not fields:
        nrrd.write(str(path), volume.voxels, header, index_order="C", compression_level=3)
        return
    buffer = io.BytesIO()
    nrrd.write(buffer, volume.voxels, header, index_order="C", compression_level=3)
    head, end, data = buffer.getvalue().partition(b"\n\n")
    lines = "".join(f"\n{name}:={_escaped(value)}" for name, value in fields.items())
    path.write_bytes(head + lines.encode() + end + data)


def _escaped(value: str) -> str:
    """A ``key:=value`` field's value as NRRD wants it; pynrrd escapes nothing and refuses all but ASCII."""
    return value.replace("\\", "\\\\").replace("\n", "\\n")
