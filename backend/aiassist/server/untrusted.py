"""What an image from a client must be before it is read.

Some formats let a header name another file as the place of the voxels, which could be any of this computer's, or
crash the libraries that read them. So a file is accepted by what it says, not searched for what it must not say.
"""

from __future__ import annotations

import re
from pathlib import Path

import nrrd
from pydicom.filereader import read_file_meta_info

from aiassist.errors import ImageError, UploadError
from aiassist.imaging.dicom_header import damage_said, unheard
from aiassist.imaging.nrrd_files import read_header

#: Bytes within which a header must end.
HEADER = 2**16
#: The DICOM transfer syntax of files that are unpacked as a whole, to any size, before anything of them is known.
DEFLATED = "1.2.840.10008.1.2.1.99"
_MAGIC = {
    ".png": (b"\x89PNG\r\n\x1a\n",),
    ".jpg": (b"\xff\xd8\xff",),
    ".jpeg": (b"\xff\xd8\xff",),
    ".tif": (b"II*\0", b"MM\0*"),
    ".tiff": (b"II*\0", b"MM\0*"),
}
_META_KEYS = {
    "ObjectType",
    "ObjectSubType",
    "NDims",
    "BinaryData",
    "BinaryDataByteOrderMSB",
    "ElementByteOrderMSB",
    "CompressedData",
    "CompressedDataSize",
    "CompressionLevel",
    "TransformMatrix",
    "Offset",
    "Position",
    "Origin",
    "Orientation",
    "Rotation",
    "CenterOfRotation",
    "AnatomicalOrientation",
    "ElementSpacing",
    "ElementSize",
    "DimSize",
    "ElementType",
    "ElementNumberOfChannels",
    "ElementDataFile",
}
_META_LINE = re.compile(rb"([A-Za-z]+) = ([ -~]{0,1000})")


def check_untrusted(path: Path) -> None:
    """Raise `UploadError` unless a file holds its own voxels and a header of the kind its ending says."""
    with path.open("rb") as file:
        head = file.read(HEADER)
    ending = path.suffix
    if ending == ".nrrd":
        _check_nrrd(path, head)
    elif ending == ".mha":
        _check_meta(head)
    elif ending == ".dcm":
        _check_dicom(path, head)
    elif ending in _MAGIC and not head.startswith(_MAGIC[ending]):
        raise UploadError(f"The image is no {ending[1:].upper()} file.")


def _check_dicom(path: Path, head: bytes) -> None:
    """The syntax is also looked for as text: of a file that names two, each library believes another."""
    if head[128:132] != b"DICM":
        raise UploadError("The image is no DICOM file.")
    try:
        with unheard(), damage_said(path):
            syntax = str(read_file_meta_info(path).get("TransferSyntaxUID", ""))
    except ImageError as error:
        raise UploadError("The image is a damaged DICOM file; copy it again.") from error
    if DEFLATED in syntax or DEFLATED.encode() in head:
        raise UploadError("The image is a DICOM file that is deflated as a whole; save it uncompressed, then send it.")


def _check_nrrd(path: Path, head: bytes) -> None:
    if not head.startswith(b"NRRD") or not re.search(rb"\r?\n\r?\n", head):
        raise UploadError(f"The image is no NRRD file, or its header is longer than {HEADER} bytes.")
    try:
        with path.open("rb") as file:
            header = read_header(file)
    except (nrrd.NRRDError, ValueError, KeyError, IndexError, StopIteration) as error:
        raise UploadError("The image's NRRD header is damaged.") from error
    elsewhere = {"data file", "datafile", "line skip", "byte skip", "lineskip", "byteskip"} & set(header)
    if elsewhere or header.get("encoding") not in ("raw", "gzip", "gz"):
        raise UploadError("The image's NRRD header names another file, or an encoding other than raw and gzip.")


def _check_meta(head: bytes) -> None:
    """MetaImage's header, line by line; its last line must say that the voxels follow."""
    said: dict[str, str] = {}
    for line in head.split(b"\n"):
        match = _META_LINE.fullmatch(line.removesuffix(b"\r"))
        key = match.group(1).decode() if match else ""
        if key not in _META_KEYS or key in said:
            break
        said[key] = match.group(2).decode().strip()
        if key == "ElementDataFile":
            break
    if said.get("ElementDataFile") != "LOCAL" or said.get("NDims") not in ("2", "3"):
        raise UploadError("The image's MetaImage header names another file, or is not of a plain 2D or 3D image.")
