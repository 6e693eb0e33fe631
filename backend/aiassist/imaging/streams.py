"""Read an array from a stream without holding its bytes twice."""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import BinaryIO

import numpy as np

CHUNK = 1 << 24
#: Bytes of a piece of which something larger is made.
PIECE = 1 << 20
#: Bytes after the voxels that are read to the end; more are taken for a bomb.
SURPLUS = 1 << 26


def read_array(stream: BinaryIO, shape, dtype: np.dtype) -> np.ndarray:
    """An array ``(k, j, i)`` of `shape` in C order, read straight into its memory.

    Raises
    ------
    EOFError
        When the stream ends early, or goes on for `SURPLUS` bytes after the array.
    """
    array = np.empty(prod(shape), dtype)
    _fill(array, stream)
    _check_end(stream)
    return array.reshape(shape)


def read_pieces(stream: BinaryIO, count: int, dtype: np.dtype) -> Iterator[np.ndarray]:
    """As `read_array`, but flat and in pieces of about `PIECE` bytes, for who makes something else of them."""
    size = max(1, PIECE // dtype.itemsize)
    for start in range(0, count, size):
        piece = np.empty(min(size, count - start), dtype)
        _fill(piece, stream)
        yield piece
    _check_end(stream)


def _fill(array: np.ndarray, stream: BinaryIO) -> None:
    memory = memoryview(array.view(np.uint8))
    done = 0
    while done < len(memory):
        count = stream.readinto(memory[done : done + CHUNK])
        if not count:
            raise EOFError(f"{len(memory) - done} bytes are missing.")
        done += count


def _check_end(stream: BinaryIO) -> None:
    surplus = 0
    while rest := stream.read(CHUNK):  # a gzip stream checks its sum only when its end is reached
        surplus += len(rest)
        if surplus > SURPLUS:
            raise EOFError(f"The file goes on for more than {SURPLUS} bytes after its voxels.")
