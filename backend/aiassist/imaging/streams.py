"""Read an array from a stream without holding its bytes twice."""

from __future__ import annotations

from math import prod
from typing import BinaryIO

import numpy as np

CHUNK = 1 << 24
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
    memory = memoryview(array).cast("B")
    done = 0
    while done < len(memory):
        count = stream.readinto(memory[done : done + CHUNK])
        if not count:
            raise EOFError(f"{len(memory) - done} bytes are missing.")
        done += count
    surplus = 0
    while rest := stream.read(CHUNK):  # a gzip stream checks its sum only when its end is reached
        surplus += len(rest)
        if surplus > SURPLUS:
            raise EOFError(f"The file goes on for more than {SURPLUS} bytes after its voxels.")
    return array.reshape(shape)
