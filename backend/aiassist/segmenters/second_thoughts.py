"""Second thoughts on extreme points: those that a hand missed a little, and those that an answer does not reach."""

from __future__ import annotations

import numpy as np

from aiassist.imaging import Region

#: How far a point goes towards the answer's end.
SHARE = 0.5
#: Points this many voxels from the answer's end are believed, or this share of the box's side: about a cell of the
#: network's, which tells no more.
BELIEVED, A_CELL = 1.0, 0.02
#: A hand misses by about a voxel, or this share of the box's side. Ends farther than twice that away are no miss:
#: beyond a point they count as that far; short of it the answer is wrong there, and the point is believed.
MISS = 0.03
#: An answer does not reach a point farther away than this, in cells, or in voxels where those are larger.
UNREACHED = 4.0


def better_points(points: np.ndarray, answer: Region) -> np.ndarray | None:
    """Extreme points between where they were put and where an answer ends; None when they are believed.

    Along each axis the two outermost points belong to the answer's two ends; an axis along which the points say
    nothing (all in one or two slices) tells nothing of a miss.

    Parameters
    ----------
    points : numpy.ndarray
        Extreme points (n, 3), voxel indices ``(i, j, k)``; fewer than six are believed.
    answer : Region
        The box of the answer's voxels.
    """
    if len(points) < 6 or answer.is_empty:
        return None
    sides = np.ptp(points, axis=0)
    most, least = 2 * np.maximum(1.0, MISS * sides), np.maximum(BELIEVED, A_CELL * sides)
    first, last = np.array(answer.start)[::-1], np.array(answer.stop)[::-1] - 1
    moves = np.zeros_like(points)
    for axis in np.flatnonzero(sides >= 2):
        along = points[:, axis]
        for outwards, number, end in ((-1, along.argmin(), first), (1, along.argmax(), last)):
            beyond = outwards * (end[axis] - along[number])
            if abs(beyond) > least[axis] and beyond >= -most[axis]:
                moves[number, axis] = outwards * SHARE * min(beyond, most[axis])
    return points + moves if moves.any() else None


def unreached(points: np.ndarray, answer: np.ndarray, cell: np.ndarray) -> np.ndarray:
    """Which extreme points an answer ends far short of.

    Parameters
    ----------
    points : numpy.ndarray
        Extreme points (n, 3) in cells ``(k, j, i)``.
    answer : numpy.ndarray
        Bool (k, j, i) of the cells.
    cell : numpy.ndarray
        Voxels along each side of a cell.

    Returns
    -------
    numpy.ndarray
        Bool (n,).
    """
    reach = UNREACHED * np.maximum(1, 1 / cell)
    first, last = np.ceil(points - reach).astype(int), np.floor(points + reach).astype(int) + 1
    windows = [tuple(map(slice, np.maximum(a, 0), np.maximum(b, 0))) for a, b in zip(first, last, strict=True)]
    return np.array([not answer[window].any() for window in windows], dtype=bool)
