"""From a mask slice to outlines."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.measure import find_contours

from aiassist.contour.rasterise import toggle_inside
from aiassist.contour.ring import Ring, is_simple, segment_lengths, signed_area
from aiassist.errors import ContourError

#: Vertices are this many mm apart in the mean, unless asked otherwise.
DISTANCE = 3.0
#: An outline may run this many pixels from the mask's own: the first that keeps the mask is taken. The last
#: keeps every pixel centre on its side.
TOLERANCES = (0.8, 0.6, 0.45, 0.34)
#: What a coarser outline must keep: Dice with the part it bounds, and its area within a share.
KEPT, AREA = 0.997, 0.005
#: How much closer vertices lie where the outline bends: a turn of one radian counts like this many pixels.
BEND = 2.0
#: Outlines of fewer points are kept as they are: coarser ones never kept the mask (measured up to 58 points).
SHORT = 48


def trace(mask: np.ndarray, spacing=(1.0, 1.0), distance: float = DISTANCE) -> list[Ring]:
    """Outlines of all parts and holes of a mask slice.

    Outlines run half way between the pixels inside and outside, smoothed as far as every pixel keeps
    its side. Parts that touch at a corner only are parts of their own.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool (rows, columns); beyond its edge all is outside.
    spacing : (float, float)
        Of pixels ``(x, y)`` in mm.
    distance : float
        Mean distance of vertices in mm; they lie closer where the outline bends, and where the mask
        would change otherwise.

    Returns
    -------
    list of Ring
        The largest first; holes are marked as such.

    Raises
    ------
    ContourError
        When the mask is not 2D, or spacing or distance are not positive lengths.
    """
    mask, spacing = check_slice(mask, spacing)
    if not (np.isfinite(distance) and distance > 0):
        raise ContourError(f"The distance {distance} between vertices is not a length in mm.")
    padded = np.pad(mask.astype(bool), 1).astype(float)
    rings = []
    for outline in find_contours(padded, 0.5, fully_connected="low"):
        points = outline[:-1, ::-1] - 1.0
        hole = signed_area(points) < 0  # find_contours runs the other way around low values
        rings.append(Ring(_vertices(points, spacing, distance), hole))
    return sorted(rings, key=lambda ring: -ring.area)


def count_outlines(mask: np.ndarray) -> int:
    """How many outlines, of parts and holes, `trace` would find in a mask slice."""
    parts, holes = ndimage.label(mask)[1], ndimage.label(~np.pad(mask, 1), np.ones((3, 3)))[1] - 1
    return parts + holes


def outline_length(mask: np.ndarray) -> int:
    """Length in pixels of all outlines of a mask slice, steps included: of how many points `trace` starts from."""
    padded = np.pad(mask, 1)
    return sum(int(np.count_nonzero(np.diff(padded, axis=axis))) for axis in (0, 1))


def check_slice(image: np.ndarray, spacing) -> tuple[np.ndarray, np.ndarray]:
    """The slice as a 2D array and the spacing as two positive lengths, or `ContourError`."""
    image, spacing = np.asarray(image), np.asarray(spacing, dtype=float)
    if image.ndim != 2:
        raise ContourError(f"A slice has rows and columns, not the shape {image.shape}.")
    if spacing.shape != (2,) or not (np.isfinite(spacing).all() and (spacing > 1e-6).all() and (spacing < 1e6).all()):
        raise ContourError(f"The spacing {np.asarray(spacing).tolist()} is not two lengths (x, y) in mm.")
    return image, spacing


def _vertices(outline: np.ndarray, spacing: np.ndarray, distance: float) -> np.ndarray:
    """Vertices for a dense outline (n, 2): as few as the distance asks for and the mask allows."""
    if len(outline) < SHORT:
        return outline
    for tolerance in TOLERANCES:
        smooth = _smoothed(outline, tolerance / 2)
        chosen = _spaced(smooth, spacing, distance)
        while len(far := _farthest(smooth, outline, chosen, tolerance)):
            chosen = np.union1d(chosen, far)
        points = smooth[chosen]
        if len(points) >= 3 and _keeps(points, outline) and is_simple(points):
            return points
    return outline


def _keeps(points: np.ndarray, outline: np.ndarray) -> bool:
    """Whether a polygon bounds (nearly) the same pixels as the outline it stands for."""
    corner = np.floor(outline.min(axis=0)) - 1
    size = np.ceil(outline.max(axis=0) - corner).astype(int) + 2
    found, right = np.zeros(size[::-1], bool), np.zeros(size[::-1], bool)
    toggle_inside(found, points, corner)
    toggle_inside(right, outline, corner)
    pixels = int(right.sum())
    close = 2 * int((found & right).sum()) >= KEPT * (int(found.sum()) + pixels)
    return close and abs(abs(signed_area(points)) - pixels) <= AREA * pixels


def _smoothed(outline: np.ndarray, most: float) -> np.ndarray:
    """The outline without its steps, nowhere farther than `most` pixels from itself."""
    smooth = ndimage.gaussian_filter1d(outline, 4 * most + 1, axis=0, mode="wrap")
    step = smooth - outline
    length = np.linalg.norm(step, axis=1, keepdims=True)
    return outline + step * np.minimum(1, most / np.maximum(length, 1e-9))


def _spaced(points: np.ndarray, spacing: np.ndarray, distance: float) -> np.ndarray:
    """Indices of points about `distance` mm apart, closer where the outline bends."""
    length = segment_lengths(points * spacing)
    count = max(int(np.rint(length.sum() / distance)), 3)
    if count >= len(points):
        return np.arange(len(points))
    calm = ndimage.gaussian_filter1d(points, 2.0, axis=0, mode="wrap")
    step = np.roll(calm, -1, axis=0) - calm
    turn = np.angle(np.exp(1j * np.diff(np.arctan2(step[:, 1], step[:, 0]), append=np.arctan2(step[0, 1], step[0, 0]))))
    effort = np.cumsum(length + BEND * np.abs(turn) * spacing.mean())
    places = (np.arange(count) + 0.5) * effort[-1] / count
    return np.unique(np.searchsorted(effort, places).clip(0, len(points) - 1))


def _farthest(smooth: np.ndarray, outline: np.ndarray, chosen: np.ndarray, tolerance: float) -> np.ndarray:
    """For each piece between chosen points that leaves the outline by more than the tolerance, where it is worst."""
    count, number = len(smooth), np.arange(len(smooth))
    piece = np.searchsorted(chosen, number, side="right") - 1  # -1 lies before the first chosen point
    start, stop = smooth[chosen[piece]], smooth[chosen[(piece + 1) % len(chosen)]]
    along = stop - start
    share = ((outline - start) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12)
    off = np.linalg.norm(start + along * share.clip(0, 1)[:, np.newaxis] - outline, axis=1)
    off[chosen] = 0
    worst = []
    for bad in np.unique(piece[off > tolerance] % len(chosen)):
        members = number[piece % len(chosen) == bad]
        worst.append(members[np.argmax(off[members])])
    return np.array(worst[:count], dtype=int)
