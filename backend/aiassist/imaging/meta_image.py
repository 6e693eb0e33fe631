"""What ITK leaves unchecked in MetaImage files: whether all voxels are there, and unpack to what was packed."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from math import prod
from pathlib import Path

from aiassist.errors import ImageError

SUFFIXES = (".mha", ".mhd")
#: Most bytes of a header's line, and bytes unpacked at once: they become a thousand times as many at most.
LINE, PIECE = 2**16, 2**16
#: For zlib: the stream's own header says whether it is zlib's or gzip's, as MetaIO has it.
EITHER = 47
#: What several files are called by their numbers, and a list of files with the number of axes of each.
_PATTERN, _LIST = re.compile(r"[^%]*%\d{0,2}[diu][^%]*"), re.compile(r"LIST\s+(\d)D")


def check_meta_image(path: Path, shape: Sequence[int], itemsize: int) -> None:
    """Raise `ImageError` when some voxels of a MetaImage are missing, or compressed and damaged.

    Parameters
    ----------
    path : Path
        A file whose header ITK could read.
    shape : sequence of int
        Voxels ``(i, j, k)``, as the header has them.
    itemsize : int
        Bytes of a voxel, unpacked.
    """
    header, start = _header(path)
    where, skipped = header.get("ElementDataFile", ""), header.get("HeaderSize", "")
    is_packed = header.get("CompressedData", "")[:1] in ("T", "t", "1")
    is_text = header.get("BinaryData", "T")[:1] not in ("T", "t", "1")
    skip, size = int(skipped) if skipped.isdecimal() else 0, prod(shape) * itemsize
    if where.startswith("LIST") or "%" in where:
        if is_packed or is_text:
            what = "compressed" if is_packed else "text"
            raise ImageError(f"{path} is {what} in several files; save it as one .mha file.")
        _check_several(path, _names(path, where, start, shape[-1]), where, shape, itemsize, skip)
        return
    data = path if where.upper() == "LOCAL" else path.parent / where
    _check_there(path, data)
    start = skip or start * (data == path)
    if is_packed:
        _check_packed(path, data, start, size)
    elif is_text:
        _check_text(path, data, start, prod(shape))
    else:
        _check_size(path, data, start, size)


def _header(path: Path) -> tuple[dict[str, str], int]:
    """The fields of a header, and where it ends."""
    header: dict[str, str] = {}
    with path.open("rb") as file:
        while "ElementDataFile" not in header and (line := file.readline(LINE)):
            name, _, value = re.sub("[=:]", "\0", _text(line), count=1).partition("\0")
            header[name.strip()] = value.strip()
        return header, file.tell()


def _text(line: bytes) -> str:
    """With names of files as the system has them."""
    return line.decode("utf8", "surrogateescape")


def _names(path: Path, where: str, start: int, slices: int) -> Iterator[str]:
    """What the files of an image in several are called, as MetaIO has it."""
    if where.startswith("LIST"):
        yield from (line.rstrip() for line in _text(path.read_bytes()[start:]).rstrip().split("\n"))
        return
    pattern, *numbers = where.split()
    if not _PATTERN.fullmatch(pattern) or len(numbers) == 2 or not all(number.isdecimal() for number in numbers):
        return  # of two numbers, from and to, ITK may never come to an end
    first = int(numbers[0]) if numbers else 1
    last, step = map(int, numbers[1:3]) if numbers[1:] else (first + slices - 1, 1)
    yield from (pattern % number for number in range(first, last + 1, step or 1))


def _check_several(path: Path, names: Iterator[str], where: str, shape, itemsize: int, skip: int) -> None:
    """Raise `ImageError` unless there is a whole file for each slice, or for as many axes as a list says."""
    each = _LIST.match(where)
    axes = min(int(each[1]) if each else len(shape), len(shape) - 1)
    count, size = prod(shape[axes:]), prod(shape[:axes]) * itemsize
    for number in range(count):
        name = next(names, None)
        if name is None:
            raise ImageError(f"{path} names {number} of {count} files with its voxels; save it as one .mha file.")
        _check_there(path, path.parent / name)
        _check_size(path, path.parent / name, skip, size)


def _check_there(path: Path, data: Path) -> None:
    if not data.is_file():
        raise ImageError(f"{path} has its voxels in {data}, which is missing; put both files into one folder.")


def _check_size(path: Path, data: Path, start: int, size: int) -> None:
    found = max(data.stat().st_size - start, 0)
    if found < size:
        raise _cut_off(path, data, f"{found:,} of {size:,} bytes")


def _check_text(path: Path, data: Path, start: int, voxels: int) -> None:
    text = data.read_bytes()[start:]
    found = len(text.split())
    if found < voxels:
        raise _cut_off(path, data, f"{found:,} of {voxels:,} numbers")
    if not text[-1:].isspace():
        raise _cut_off(path, data, "a last number that no space or line break ends")


def _cut_off(path: Path, data: Path, what: str) -> ImageError:
    return ImageError(f"{path} is cut off: {data.name} holds {what}; copy it again.")


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
