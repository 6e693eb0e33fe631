"""What a front end drives: open a slice, press, drag, release, undo; the result as a patch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiassist.contour.edit import delete_vertex, insert_vertex, pull_vertex
from aiassist.contour.plane import Plane
from aiassist.contour.rasterise import rasterise
from aiassist.contour.ring import Ring, check_point
from aiassist.contour.trace import DISTANCE, count_outlines, trace
from aiassist.errors import ContourError
from aiassist.imaging import MaskPatch, Region, Volume, finite

#: Neighbours within this many mm along the outline follow, unless asked otherwise.
RADIUS = 20.0
#: A slice with more outlines cannot be corrected by them: it is noise, and would take seconds to trace.
MOST_OUTLINES = 300


@dataclass(frozen=True, eq=False)
class SliceChange:
    """One slice before and after an edit."""

    plane: Plane
    rings: tuple[tuple[Ring, ...], tuple[Ring, ...]]
    masks: tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True, eq=False)
class Edit:
    """What was done, in words, and the slices that it changed; can be undone and redone.

    ``place`` is where a move put its vertex, ``(x, y)`` in pixels.
    """

    name: str
    changes: tuple[SliceChange, ...]
    place: np.ndarray | None = None

    @property
    def slices(self) -> tuple[int, ...]:
        """Indices of the slices that changed."""
        return tuple(change.plane.index for change in self.changes)

    def difference(self) -> tuple[MaskPatch, MaskPatch]:
        """The voxels that the edit took away and those that it added, over the box around both."""
        first = self.changes[0].plane
        axis, start, slices = first.axis, min(self.slices), max(self.slices) + 1 - min(self.slices)
        away, more = np.zeros((2, slices, *first.shape), bool)
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
    """

    def __init__(self, volume: Volume, mask: MaskPatch, distance: float = DISTANCE):
        self.volume = volume
        self.distance = distance
        self._before = mask
        self._mask = mask.to_mask(volume.shape)
        self._done: list[Edit] = []
        self._undone: list[Edit] = []
        self._drag: tuple[int, int, tuple[Ring, ...]] | None = None
        self.plane: Plane | None = None
        self.rings: tuple[Ring, ...] = ()

    def open(self, axis: int, index: int) -> tuple[Ring, ...]:
        """Show a slice across array axis 0, 1 or 2 (k, j, i); its rings. A drag that was under way is dropped.

        `ContourError` when there is no such slice, or more than `MOST_OUTLINES` on it: then none is open.
        """
        plane = Plane(self.volume.geometry, axis, index)
        self.plane, self.rings, self._drag = None, (), None
        self.rings = self._trace(plane)
        self.plane, self._grey = plane, finite(plane.of(self.volume.voxels))
        return self.rings

    def _trace(self, plane: Plane) -> tuple[Ring, ...]:
        mask = plane.of(self._mask)
        if (count := count_outlines(mask)) > MOST_OUTLINES:
            raise ContourError(
                f"Slice {plane.index} of the segment has {count:,} outlines, too many to correct; drop small pieces "
                "with Islands, or small holes with Smoothing, first."
            )
        return tuple(trace(mask, plane.spacing, self.distance))

    def _trace_if_few(self, plane: Plane) -> tuple[Ring, ...]:
        try:
            return self._trace(plane)
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
        if self._drag is not None:
            self.rings = self._drag[2]
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
        options = {"radius": radius, "strength": strength, "placed": self._placed()}
        self.rings = pull_vertex(start, ring, vertex, point, self._grey, self.plane.spacing, **options)
        return self.rings

    def _placed(self) -> list[np.ndarray]:
        """Where moves put vertices of the open slice."""
        moves = (edit for edit in self._done if edit.place is not None)
        return [edit.place for edit in moves if edit.changes[0].plane == self.plane]

    def release(self) -> Edit | None:
        """Keep what the drag showed; None when nothing changed."""
        if self._drag is None:
            return None
        (ring, vertex, start), self._drag = self._drag, None
        return self._keep("move vertex", start, self.rings, self.rings[ring].points[vertex])

    def insert(self, point) -> Edit | None:
        """Add a vertex to the outline where it comes nearest to a point. `ContourError` while a vertex is pulled."""
        plane = self._released()
        if not self.rings:
            return None
        rings, _, _ = insert_vertex(self.rings, point, plane.spacing)
        return self._keep("insert vertex", self.rings, rings)

    def delete(self, ring: int, vertex: int) -> Edit | None:
        """Remove a vertex. `ContourError` while one is pulled, or when outlines would cross."""
        self._released()
        return self._keep("delete vertex", self.rings, delete_vertex(self.rings, ring, vertex))

    def _released(self) -> Plane:
        """The open slice, when no vertex is being pulled."""
        if self._drag is not None and self.rings is not self._drag[2]:
            raise ContourError("A vertex is being pulled; let go of it first.")
        return self._open()

    def _keep(self, name: str, before: tuple[Ring, ...], after: tuple[Ring, ...], place=None) -> Edit | None:
        change = self._change(self._open(), before, after)
        if change is None:
            return None
        return self._do(Edit(name, (change,), place))

    def _change(self, plane: Plane, before, after) -> SliceChange | None:
        """A slice's change: only pixels that an outline passed over."""
        if before is after:
            return None
        passed = rasterise(before, plane.shape) ^ rasterise(after, plane.shape)
        old = plane.of(self._mask).copy()
        new = np.where(passed, rasterise(after, plane.shape), old)
        return SliceChange(plane, (tuple(before), tuple(after)), (old, new))

    def _do(self, edit: Edit) -> Edit:
        self._done.append(edit)
        self._undone.clear()
        self._show(edit, 1)
        return edit

    def _show(self, edit: Edit, side: int) -> None:
        """Set the slices of an edit to how they were before (0) or after (1) it."""
        for change in edit.changes:
            change.plane.of(self._mask)[...] = change.masks[side]
            if change.plane == self.plane:
                self.rings = change.rings[side]
        self._drag = None

    def undo(self) -> Edit | None:
        """Take the latest edit back; None when there is none."""
        return self._step(self._done, self._undone, 0)

    def redo(self) -> Edit | None:
        """Do again what was taken back last."""
        return self._step(self._undone, self._done, 1)

    def _step(self, source: list[Edit], target: list[Edit], side: int) -> Edit | None:
        if not source:
            return None
        edit = source.pop()
        target.append(edit)
        self._show(edit, side)
        open_changed = any(change.plane == self.plane for change in edit.changes)
        if self.plane is not None and not open_changed:
            self.rings = self._trace_if_few(self.plane)
        return edit

    def propagate(self, slices: int, radius: float = RADIUS, strength: float = 1.0) -> Edit | None:
        """Carry the latest move of a vertex on the open slice to neighbours on both sides, fading with distance.

        On each, the vertex nearest to where the moved one was is pulled the same way, by less the farther
        the slice is, and settles with its neighbours on that slice's own border. A side ends at the first slice
        without an outline there, or with too many.

        Returns
        -------
        Edit or None
            Says which slices changed; None when none did. `ContourError` without a move to carry on, or while
            a vertex is pulled.
        """
        plane = self._released()
        latest = self._done[-1] if self._done else None
        if latest is None or latest.name != "move vertex" or latest.changes[0].plane != plane:
            raise ContourError("There is no move of a vertex on this slice to carry on; move one first.")
        place, step = _moved(latest.changes[0].rings)
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
        rings = self._trace_if_few(plane)
        gaps = [np.linalg.norm((ring.points - place) * plane.spacing, axis=1) for ring in rings]
        most = max(2 * self.distance, float(np.linalg.norm(step * plane.spacing)))
        if not gaps or min(gap.min() for gap in gaps) > most:
            return None
        ring = int(np.argmin([gap.min() for gap in gaps]))
        vertex = int(np.argmin(gaps[ring]))
        grey, target = finite(plane.of(self.volume.voxels)), rings[ring].points[vertex] + step
        after = pull_vertex(rings, ring, vertex, target, grey, plane.spacing, radius, strength, pinned=False)
        return self._change(plane, rings, after)

    def _open(self) -> Plane:
        if self.plane is None:
            raise ContourError("No slice is open; open one first.")
        return self.plane

    def result(self) -> MaskPatch:
        """What changed since the session began, as a patch over the box around it; empty when nothing did."""
        before = self._before.to_mask(self.volume.shape)
        region = Region.of_mask(self._mask != before)
        return MaskPatch(region, self._mask[region.slices]) if not region.is_empty else MaskPatch.empty()


def _moved(rings) -> tuple[np.ndarray, np.ndarray]:
    """Where the vertex that moved farthest was, and its step, in pixels."""
    before, after = (np.concatenate([ring.points for ring in side]) for side in rings)
    steps = after - before
    farthest = int(np.argmax(np.linalg.norm(steps, axis=1)))
    return before[farthest], steps[farthest]
