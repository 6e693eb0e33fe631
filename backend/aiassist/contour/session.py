"""What a front end drives: open a slice, press, drag, release; the result as a patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiassist.contour.edit import delete_vertex, insert_vertex, nearest_place, pull_vertex
from aiassist.contour.plane import Plane
from aiassist.contour.rasterise import paint, without_swallowed
from aiassist.contour.ring import Ring, check_point
from aiassist.contour.trace import DISTANCE, count_outlines, outline_length, trace
from aiassist.errors import ContourError
from aiassist.imaging import MaskPatch, Region, Volume, finite

#: Neighbours within this many mm along the outline follow, unless asked otherwise.
RADIUS = 20.0
#: A slice with more outlines cannot be corrected by them: it is noise, and would take seconds to trace.
MOST_OUTLINES = 300
#: Nor one whose outlines are longer than this many pixels.
LONGEST = 20_000
#: Where a move is carried on, the border lies within this many pixels of where the moved vertex was.
SAME_BORDER = 10.0


@dataclass(frozen=True, eq=False)
class SliceChange:
    """One slice before and after an edit."""

    plane: Plane
    rings: tuple[tuple[Ring, ...], tuple[Ring, ...]]
    masks: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Edit:
    """What was done, in words, and the slices whose outlines it changed.

    ``place`` is where a move put its vertex, or where one was added, ``farthest`` where the vertex that a move moved
    farthest in mm was, and that one's step; all ``(x, y)`` in pixels.
    """

    name: str
    changes: tuple[SliceChange, ...]
    place: np.ndarray | None = None
    farthest: tuple[np.ndarray, np.ndarray] | None = None

    @property
    def slices(self) -> tuple[int, ...]:
        """Indices of the slices of which voxels changed; none where outlines moved by less."""
        return tuple(change.plane.index for change in self.changes if (change.masks[0] != change.masks[1]).any())

    def is_in(self, mask: np.ndarray, after: bool = True) -> bool:
        """Whether its slices of a mask (k, j, i) are as the edit left them, or else as they were before."""
        return all(np.array_equal(change.plane.of(mask), change.masks[int(after)]) for change in self.changes)

    def difference(self) -> tuple[MaskPatch, MaskPatch]:
        """The voxels that the edit took away and those that it added, over the box around both."""
        first, indices = self.changes[0].plane, [change.plane.index for change in self.changes]
        axis, start = first.axis, min(indices)
        away, more = np.zeros((2, max(indices) + 1 - start, *first.shape), bool)
        for change in self.changes:
            before, after = change.masks
            away[change.plane.index - start] = before & ~after
            more[change.plane.index - start] = after & ~before
        away, more = np.moveaxis(away, 0, axis), np.moveaxis(more, 0, axis)
        tight = Region.of_mask(away | more)
        place = tight.shift([start if a == axis else 0 for a in range(3)])
        return MaskPatch(place, away[tight.slices]), MaskPatch(place, more[tight.slices])


class ContourSession:
    """Corrects one structure's mask by its outlines.

    Pixels change only where an outline was moved over them. All points are ``(x, y)`` in pixels of the
    open slice, see `Plane`.

    Parameters
    ----------
    volume : Volume
        The image.
    mask : MaskPatch
        The structure; it stays as it is.
    distance : float
        Mean distance of vertices in mm.
    earlier : Edit, optional
        A move of another session that made this mask, in part at least: `propagate` carries it on, too.
    """

    def __init__(self, volume: Volume, mask: MaskPatch, distance: float = DISTANCE, earlier: Edit | None = None):
        self.volume = volume
        self.distance = distance
        self._before = mask
        self._mask = mask.to_mask(volume.shape)
        self._earlier = earlier
        self._done: list[Edit] = []
        self._drag: tuple[int, int, tuple[Ring, ...]] | None = None
        # Of slices that were edited: the rings, and the mask slice that they belong to.
        self._edited: dict[tuple[int, int], tuple[tuple[Ring, ...], np.ndarray]] = {}
        self.plane: Plane | None = None
        self.rings: tuple[Ring, ...] = ()

    def open(self, axis: int, index: int) -> tuple[Ring, ...]:
        """Show a slice across array axis 0, 1 or 2 (k, j, i); its rings, as edits left them.

        A drag that was under way is dropped. `ContourError` when there is no such slice, or more than
        `MOST_OUTLINES` on it, or longer ones than `LONGEST`: then none is open.
        """
        plane = Plane(self.volume.geometry, axis, index)
        self.plane, self.rings, self._drag = None, (), None
        self.rings = self._rings_on(plane)
        self.plane, self._grey = plane, finite(plane.of(self.volume.voxels))
        return self.rings

    def _rings_on(self, plane: Plane) -> tuple[Ring, ...]:
        """The rings that edits left, while the slice's mask is still theirs; traced otherwise."""
        rings, mask = self._edited.get((plane.axis, plane.index), ((), None))
        if mask is not None and np.array_equal(mask, plane.of(self._mask)):
            return rings
        return self._trace(plane)

    def _trace(self, plane: Plane) -> tuple[Ring, ...]:
        mask = plane.of(self._mask)
        if (length := outline_length(mask)) > LONGEST:
            raise ContourError(
                f"Slice {plane.index} of the segment has outlines {length:,} pixels long, too long to correct; drop "
                "small pieces with Islands, or fine teeth with Smoothing, first."
            )
        if (count := count_outlines(mask)) > MOST_OUTLINES:
            raise ContourError(
                f"Slice {plane.index} of the segment has {count:,} outlines, too many to correct; drop small pieces "
                "with Islands, or small holes with Smoothing, first."
            )
        return tuple(trace(mask, plane.spacing, self.distance))

    def _rings_if_few(self, plane: Plane) -> tuple[Ring, ...]:
        try:
            return self._rings_on(plane)
        except ContourError:
            return ()

    def nearest(self, point) -> tuple[int, int] | None:
        """Ring and vertex nearest to a point in mm; None on a slice without outlines."""
        spacing, point = self._open().spacing, check_point(point)
        gaps = [np.linalg.norm((ring.points - point) * spacing, axis=1) for ring in self.rings]
        if not gaps:
            return None
        ring = int(np.argmin([gap.min() for gap in gaps]))
        return ring, int(np.argmin(gaps[ring]))

    def press(self, point) -> tuple[int, int] | None:
        """Take hold of the vertex nearest to a point; None, and nothing is held, on a slice without outlines.

        A drag that was under way is dropped.
        """
        self.drop()
        held = self.nearest(point)
        self._drag = (*held, self.rings) if held is not None else None
        return held

    def drag(self, point, radius: float = RADIUS, strength: float = 1.0) -> tuple[Ring, ...]:
        """Show the rings with the held vertex at a point; each call starts from the rings at `press`.

        Vertices that earlier moves put somewhere stay, unless this one is pulled right beside them.
        Radius in mm along the outline, strength from 0 (smooth) to 1 (settles on the border).
        `ContourError` when nothing is held.
        """
        if self._drag is None:
            raise ContourError("No vertex is held; press on one first.")
        ring, vertex, start = self._drag
        options = {"radius": radius, "strength": strength, "placed": self._placed(self.plane)}
        self.rings = pull_vertex(start, ring, vertex, point, self._grey, self.plane.spacing, **options)
        return self.rings

    def _placed(self, plane: Plane) -> list[np.ndarray]:
        """Where moves put vertices of a slice."""
        moves = (edit for edit in self._done if edit.farthest is not None)
        return [edit.place for edit in moves if edit.changes[0].plane == plane]

    def set_by_hand(self) -> list[np.ndarray]:
        """Where vertices of the open slice were put, by moves, or added."""
        steps = (edit for edit in self._done if edit.place is not None)
        return [edit.place for edit in steps if edit.changes[0].plane == self.plane]

    def release(self) -> Edit | None:
        """Keep what the drag showed; None when nothing changed."""
        if self._drag is None:
            return None
        (ring, vertex, start), self._drag = self._drag, None
        before, after = start[ring].points, self.rings[ring].points
        farthest = int(np.argmax(np.linalg.norm((after - before) * self.plane.spacing, axis=1)))
        move = {"place": after[vertex], "farthest": (before[farthest], after[farthest] - before[farthest])}
        return self._keep("move vertex", start, self.rings, **move)

    def drop(self) -> None:
        """Let go of the held vertex, if there is one; the rings are as they were at `press`."""
        if self._drag is not None:
            self.rings, self._drag = self._drag[2], None

    def insert(self, point) -> Edit | None:
        """Add a vertex to the outline where it comes nearest to a point. `ContourError` while a vertex is pulled."""
        plane = self._released()
        if not self.rings:
            return None
        rings, ring, vertex = insert_vertex(self.rings, point, plane.spacing)
        return self._keep("insert vertex", self.rings, rings, place=rings[ring].points[vertex])

    def delete(self, ring: int, vertex: int) -> Edit | None:
        """Remove a vertex. `ContourError` while one is pulled, or when outlines would cross."""
        self._released()
        return self._keep("delete vertex", self.rings, delete_vertex(self.rings, ring, vertex))

    def _released(self) -> Plane:
        """The open slice, when no vertex is being pulled."""
        self._check_released()
        return self._open()

    def _check_released(self) -> None:
        if self._drag is not None and self.rings is not self._drag[2]:
            raise ContourError("A vertex is being pulled; let go of it first.")

    def _keep(self, name: str, before: tuple[Ring, ...], after: tuple[Ring, ...], **places) -> Edit | None:
        change = self._change(self._open(), before, after)
        if change is None:
            return None
        return self._do(Edit(name, (change,), **places))

    def _change(self, plane: Plane, before, after) -> SliceChange | None:
        """A slice's change: only pixels that an outline passed over, and no ring that others swallowed is left."""
        if before is after:
            return None
        after = without_swallowed(after, plane.shape)
        was, now = paint(before, plane.shape), paint(after, plane.shape)
        old = plane.of(self._mask).copy()
        new = np.where(was ^ now, now, old)
        return SliceChange(plane, (tuple(before), after), (old, new))

    def _do(self, edit: Edit) -> Edit:
        """Change the mask and the rings of an edit's slices."""
        self._done.append(edit)
        for change in edit.changes:
            change.plane.of(self._mask)[...] = change.masks[1]
            self._edited[change.plane.axis, change.plane.index] = change.rings[1], change.masks[1]
        self._drag = None
        if self.plane is not None:
            self.rings = self._rings_if_few(self.plane)
        return edit

    @property
    def latest_move(self) -> Edit | None:
        """The move of a vertex since which vertices were only added, on its slice; None when there is none."""
        return _latest_move(self._edits())

    def move_left_in(self, mask: np.ndarray) -> Edit | None:
        """The `latest_move`, when a mask (k, j, i) holds it that somebody else has changed since; else None.

        It is that before "propagate", too, when nothing of what this did is in the mask: somebody took it back. A move
        of less than a pixel leaves nothing to tell it by.
        """
        edits = self._edits()
        if edits and edits[-1].name == "propagate" and edits[-1].is_in(mask, after=False):
            edits.pop()
        latest = _latest_move(edits)
        return latest if latest is not None and latest.slices and latest.is_in(mask) else None

    def _edits(self) -> list[Edit]:
        return [*self._done] if self._earlier is None else [self._earlier, *self._done]

    def propagate(self, slices: int, radius: float = RADIUS, strength: float = 1.0) -> Edit | None:
        """Carry the latest move of a vertex to neighbours of its slice on both sides, fading with distance.

        The vertex that moved farthest is carried: the one that was held, or one beside it that settled
        farther on. On each slice the vertex nearest to where that one was is pulled the same way, by less the
        farther the slice is, and settles with its neighbours on that slice's own border. A side ends at the
        first slice without an outline there, or with too many. Another slice may be open meanwhile, and vertices may
        have been added to the slice since.

        Returns
        -------
        Edit or None
            Says which slices changed; None when there is none to carry on to. `ContourError` without a move to
            carry on, or while a vertex is pulled.
        """
        self._check_released()
        latest = self.latest_move
        if latest is None:
            raise ContourError("There is no move of a vertex to carry on; move one first.")
        plane, (place, step) = latest.changes[0].plane, latest.farthest
        changes = []
        for direction in (-1, 1):
            for away in range(1, slices + 1):
                index = plane.index + direction * away
                if not 0 <= index < self.volume.shape[plane.axis]:
                    break
                share = 1 - away / (slices + 1)
                other = Plane(self.volume.geometry, plane.axis, index)
                change = self._carry(other, place, share * step, radius * np.sqrt(share), strength)
                if change is None:
                    break
                changes.append(change)
        return self._do(Edit("propagate", tuple(changes))) if changes else None

    def _carry(self, plane: Plane, place, step, radius: float, strength: float) -> SliceChange | None:
        rings, spacing = self._rings_if_few(plane), plane.spacing
        borders = [nearest_place(ring.points * spacing, place * spacing)[1] for ring in rings]
        gaps = [np.linalg.norm(border - place * spacing) for border in borders]
        # On pixels as fine as those of micro-CT, twice the distance of vertices would lead to another structure.
        near = min(2 * self.distance, SAME_BORDER * spacing.max())
        if not gaps or min(gaps) > max(near, np.linalg.norm(step * spacing)):
            return None
        ring = int(np.argmin(gaps))
        vertex = int(np.argmin(np.linalg.norm((rings[ring].points - place) * spacing, axis=1)))
        grey, target = finite(plane.of(self.volume.voxels)), rings[ring].points[vertex] + step
        options = {"radius": radius, "strength": strength, "pinned": False, "placed": self._placed(plane)}
        return self._change(plane, rings, pull_vertex(rings, ring, vertex, target, grey, spacing, **options))

    def _open(self) -> Plane:
        if self.plane is None:
            raise ContourError("No slice is open; open one first.")
        return self.plane

    def result(self) -> MaskPatch:
        """What changed since the session began, as a patch over the box around it; empty when nothing did."""
        before = self._before.to_mask(self.volume.shape)
        region = Region.of_mask(self._mask != before)
        return MaskPatch(region, self._mask[region.slices]) if not region.is_empty else MaskPatch.empty()


def _latest_move(edits: list[Edit]) -> Edit | None:
    while edits and edits[-1].name == "insert vertex":
        *edits, added = edits
        if edits and edits[-1].changes[0].plane != added.changes[0].plane:
            return None
    return edits[-1] if edits and edits[-1].farthest is not None else None
