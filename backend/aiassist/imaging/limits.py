"""Refuse a header that promises more than its file can hold, before memory is asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from aiassist.errors import ImageError

#: Deflate cannot shrink data by more than this,
MAX_COMPRESSION = 1032
#: and bzip2 by no more than this: a block holds at most 45.9 MB, a run of one byte, and takes 32 bytes or more.
MAX_BZIP2 = 1_500_000
#: Most bytes before the voxels of a file whose size is limited; unpacking more would take long and give nothing.
MAX_BEFORE = 2**20
#: More voxels than any scanner makes; guards against files that are honest but absurd.
MAX_VOXELS = 4_000_000_000


_most: ContextVar[float] = ContextVar("most", default=math.inf)


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """While it lasts, images of more bytes than this, unpacked, are refused by `check_promise`."""
    before = _most.set(size)
    try:
        yield
    finally:
        _most.reset(before)


def check_start(path: Path, offset: int) -> None:
    """Raise `ImageError` when an image that is limited by `at_most` has its voxels far behind its header."""
    if offset > MAX_BEFORE and _most.get() < math.inf:
        raise ImageError(f"{path} has {offset:,} bytes before its voxels; save it without header extensions.")


def check_promise(
    path: Path,
    shape,
    itemsize: int,
    stored: Path | None = None,
    compression: int = MAX_COMPRESSION,
    made: int | None = None,
) -> None:
    """Raise `ImageError` when the file at `stored` cannot hold an array of `shape`, or memory may not.

    Parameters
    ----------
    path : Path
        Named in the message.
    shape : sequence of int
        What the header promises.
    itemsize : int
        Bytes of a voxel.
    stored : Path, optional
        Where the voxels lie when not in `path`.
    compression : int
        The most by which the file's encoding can shrink data.
    made : int, optional
        Bytes of what becomes of a voxel, where that is more than `itemsize`.
    """
    voxels = math.prod(int(n) for n in shape)
    promised, held = voxels * itemsize, (stored or path).stat().st_size
    size, unpacked = "x".join(str(n) for n in shape), voxels * max(itemsize, made or 0)
    if voxels > MAX_VOXELS or promised > held * compression or unpacked > _most.get():
        raise ImageError(
            f"{path} promises {size} voxels ({unpacked / 1e9:,.1f} GB) in a file of {held / 1e6:,.1f} MB; "
            "it is damaged or too large to open."
        )
