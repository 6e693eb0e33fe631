"""Pictures that were cut off, of which ITK makes up the missing part."""

from __future__ import annotations

import struct
from pathlib import Path

from aiassist.errors import ImageError

#: Markers of JPEG (ITU-T T.81, table B.1): end of the image, and those that stand alone, which have no length.
END, ALONE = 0xD9, (0x00, 0x01, *range(0xD0, 0xD9))
#: BMP: bytes of the headers that are needed, and of the oldest header, which has numbers of other sizes.
BMP_HEAD, BMP_OLDEST = 34, 12
#: BMP: compressions whose pixels take as many bytes as there are bits.
BMP_PLAIN = (0, 3)


def check_whole(path: Path) -> None:
    """Raise `ImageError` when a JPEG or BMP file ends before its picture does; others are ITK's to check."""
    ending, is_whole = path.suffix.lower(), True
    if ending in (".jpg", ".jpeg"):
        is_whole = _has_end(path.read_bytes())
    elif ending == ".bmp":
        with path.open("rb") as file:
            is_whole = path.stat().st_size >= _bmp_size(file.read(BMP_HEAD))
    if not is_whole:
        raise ImageError(f"{path} is damaged: it ends before its picture does; copy it again.")


def _has_end(jpeg: bytes) -> bool:
    """Whether a JPEG file has its last marker, which those of a thumbnail within it are not."""
    at = 2
    while 0 <= (at := jpeg.find(b"\xff", at)) < len(jpeg) - 1:
        marker = jpeg[at + 1]
        if marker == END:
            return True
        if marker == 0xFF:  # a fill byte
            at += 1
        elif marker in ALONE:
            at += 2
        else:
            at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return False


def _bmp_size(head: bytes) -> int:
    """How many bytes a BMP file has at least, by its headers."""
    if len(head) < BMP_HEAD:
        return BMP_HEAD
    size, start, kind, width, height, bits, compression = struct.unpack("<2xI4xIIii2xHI", head)
    if kind == BMP_OLDEST or compression not in BMP_PLAIN:
        return size
    return start + (width * bits + 31) // 32 * 4 * abs(height)
