"""Changes of the rings of one slice, each of which leaves them valid: no crossings, three vertices or more."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aiassist.contour.ring import Ring, check_point, crossings, following, is_simple, segments
from aiassist.contour.snap import Pull, drag, follow
from aiassist.errors import ContourError

#: Halvings of the way to the target when the target itself would make the outline cross.
HALVINGS = 10


def pull_vertex(
    rings: Sequence[Ring],
    ring: int,
    vertex: int,
    target,
    grey: np.ndarray,
    spacing,
    radius: float,
    strength: float = 1.0,
    pinned: bool = True,
    placed: Sequence[np.ndarray] = (),
) -> tuple[Ring, ...]:
    """Put a vertex somewhere else; its neighbours within the radius follow and settle on the border.

    When outlines would cross, the neighbours do less: they follow smoothly, or stay. When even then
    they would, the vertex stops on its way, just before.

    Parameters
    ----------
    rings : sequence of Ring
    ring, vertex : int
        Which vertex of which ring.
    target : array_like
        Where it goes, ``(x, y)`` in pixels; beyond the slice's edge it stops at the edge.
    grey : numpy.ndarray
        Finite grey values (rows, columns).
    spacing : array_like
        ``(x, y)`` in mm.
    radius : float
        In mm along the ring.
    strength : float
        0 (smooth dragging) to 1 (settle fully).
    pinned : bool
        Whether the vertex stays exactly where it is put, or settles like its neighbours.
    placed : sequence of numpy.ndarray
        Places ``(x, y)``: vertices that lie exactly there were put there, and stay.

    Returns
    -------
    tuple of Ring

    Raises
    ------
    ContourError
        When the target is not finite, the radius is negative or no number, or strength is not within 0 and 1.
    """
    target = _within(check_point(target), grey.shape)
    if not radius >= 0:
        raise ContourError(f"The radius {radius} is not a length in mm.")
    if not 0 <= strength <= 1:
        raise ContourError(f"The strength {strength} is not between 0 and 1.")
    spacing = np.asarray(spacing, dtype=float)
    old = rings[ring].points
    pull = Pull(old * spacing, vertex, target * spacing, float(radius), pinned, are_at(old, placed))
    if pull.length == 0:
        return tuple(rings)
    for points in _tries(pull, grey, spacing, strength):
        points = np.where(pull.moves[:, np.newaxis], _within(points / spacing, grey.shape), old)
        if is_valid(rings, ring, points, pull.moves):
            return _with(rings, ring, points)
    return _with(rings, ring, _stopped(rings, ring, pull, spacing))


def are_at(points: np.ndarray, places: Sequence[np.ndarray]) -> np.ndarray:
    """Bool (n,): which points lie exactly at one of some places."""
    return (points[:, np.newaxis] == np.reshape(places, (-1, 2))).all(axis=2).any(axis=1)


def _within(points: np.ndarray, shape) -> np.ndarray:
    """The points ``(x, y)``, those beyond the slice's edge put on it."""
    return np.clip(points, -0.5, np.array(shape)[::-1] - 0.5)


def _tries(pull: Pull, grey: np.ndarray, spacing: np.ndarray, strength: float):
    """What to do, from best to least."""
    yield drag(pull, grey, spacing, strength)
    for share in (pull.share_of_ring, 0.5 * pull.share_of_ring, 0.0):
        yield follow(pull, share)


def _stopped(rings, ring: int, pull: Pull, spacing: np.ndarray) -> np.ndarray:
    """The ring with the vertex alone moved as far towards the target as nothing crosses."""
    old = rings[ring].points
    low, high, best = 0.0, 1.0, old
    for _ in range(HALVINGS):
        share = (low + high) / 2
        points = old.copy()
        points[pull.vertex] += share * (pull.target / spacing - old[pull.vertex])
        if is_valid(rings, ring, points, pull.moves):
            low, best = share, points
        else:
            high = share
    return best


def is_valid(rings: Sequence[Ring], ring: int, points: np.ndarray, moved: np.ndarray) -> bool:
    """Whether a ring with these vertices crosses neither itself nor the other rings."""
    if not is_simple(points, moved):
        return False
    mine = segments(points)[moved | following(moved)]
    low, high = mine.min(axis=(0, 1)), mine.max(axis=(0, 1))
    others = [other for number, other in enumerate(rings) if number != ring and _overlap(other.box, low, high)]
    return not any(len(crossings(mine, segments(other.points))) for other in others)


def _overlap(box: tuple[np.ndarray, np.ndarray], low: np.ndarray, high: np.ndarray) -> bool:
    return bool((box[0] <= high).all() and (box[1] >= low).all())


def insert_vertex(rings: Sequence[Ring], point, spacing) -> tuple[tuple[Ring, ...], int, int]:
    """A new vertex where the outlines come nearest to a point; no outline changes.

    Parameters
    ----------
    rings : sequence of Ring
    point : array_like
        ``(x, y)`` in pixels.
    spacing : array_like
        ``(x, y)`` in mm: nearest is what is nearest in mm.

    Returns
    -------
    (tuple of Ring, int, int)
        The rings, and which ring and vertex is new.

    Raises
    ------
    ContourError
        When the point is not finite or there is no ring.
    """
    point, spacing = check_point(point), np.asarray(spacing, dtype=float)
    if not rings:
        raise ContourError("There is no outline to add a vertex to.")
    found = [nearest_place(ring.points * spacing, point * spacing) for ring in rings]
    ring = int(np.argmin([np.linalg.norm(place - point * spacing) for _, place in found]))
    vertex, place = found[ring]
    return _with(rings, ring, np.insert(rings[ring].points, vertex, place / spacing, axis=0)), ring, vertex


def nearest_place(outline: np.ndarray, point: np.ndarray) -> tuple[int, np.ndarray]:
    """Where an outline (n, 2) is nearest to a point, but not on a vertex, and the next vertex's number; all in mm."""
    parts = segments(outline)
    along = parts[:, 1] - parts[:, 0]
    share = ((point - parts[:, 0]) * along).sum(axis=1) / np.maximum((along**2).sum(axis=1), 1e-12)
    places = parts[:, 0] + share.clip(0.05, 0.95)[:, np.newaxis] * along
    nearest = int(np.argmin(np.linalg.norm(places - point, axis=1)))
    return nearest + 1, places[nearest]


def delete_vertex(rings: Sequence[Ring], ring: int, vertex: int) -> tuple[Ring, ...]:
    """The rings without a vertex; a ring of three loses the whole ring. `ContourError` when outlines would cross."""
    if len(rings[ring]) == 3:
        return tuple(r for number, r in enumerate(rings) if number != ring)
    points = np.delete(rings[ring].points, vertex, axis=0)
    moved = np.zeros(len(points), bool)
    moved[[vertex - 1, vertex % len(points)]] = True
    if not is_valid(rings, ring, points, moved):
        raise ContourError(f"Without the vertex {vertex} the outline would cross itself; move it instead.")
    return _with(rings, ring, points)


def _with(rings: Sequence[Ring], ring: int, points: np.ndarray) -> tuple[Ring, ...]:
    return tuple(r.moved(points) if number == ring else r for number, r in enumerate(rings))
