"""What ITK leaves unchecked in MetaImage files: whether the voxels are there, and unpack to what was packed."""

from __future__ import annotations

import re
import zlib
from functools import partial
from pathlib import Path

from aiassist.errors import ImageError

SUFFIXES = (".mha", ".mhd")
#: Most bytes of a header's line, and bytes unpacked at once: they become a thousand times as many at most.
LINE, PIECE = 2**16, 2**16
#: For zlib: the stream's own header says whether it is zlib's or gzip's, as MetaIO has it.
EITHER = 47


def check_meta_image(path: Path, size: int) -> None:
    """Raise `ImageError` when the voxels of a MetaImage are missing, or compressed and damaged.

    Parameters
    ----------
    path : Path
        A file whose header ITK could read.
    size : int
        Bytes of the voxels, unpacked.
    """
    header, start = _header(path)
    where = header.get("ElementDataFile", "")
    is_packed = header.get("CompressedData", "")[:1] in ("T", "t", "1")
    if where.upper().startswith("LIST") or "%" in where:
        if is_packed:
            raise ImageError(f"{path} is compressed in several files; save it as one .mha file.")
        return
    data = path if where.upper() == "LOCAL" else path.parent / where
    if not data.is_file():
        raise ImageError(f"{path} has its voxels in {data}, which is missing; put both files into one folder.")
    if is_packed:
        skipped = header.get("HeaderSize", "")
        _check_packed(path, data, int(skipped) if skipped.isdecimal() else start * (data == path), size)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header, and where it ends."""
    header: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in header and (line := file.readline(LINE)):
            name, _, value = re.sub("[=:]", "\0", line.decode("latin1"), count=1).partition("\0")
            header[name.strip()] = value.strip()
        return header, file.tell()


def _check_packed(path: Path, data: Path, start: int, size: int) -> None:
    unpacker, found = zlib.decompressobj(wbits=EITHER), 0
    with data.open("rb") as file:
        file.seek(start)
        try:
            for piece in iter(partial(file.read, PIECE), b""):
                found += len(unpacker.decompress(piece))
                if unpacker.eof or found > size:
                    break
        except zlib.error as error:
            raise _damaged(path) from error
    if not unpacker.eof or found != size:
        raise _damaged(path)


def _damaged(path: Path) -> ImageError:
    return ImageError(f"{path} is damaged: its compressed voxels cannot be unpacked; copy it again.")
