"""One segment corrected by its outlines in the slice views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aiassist.errors import AIAssistError, ContourError, StudyError
from aiassist.imaging import MaskPatch

try:
    from aiassist.contour import ContourSession, Edit, Plane
    from aiassist.contour.edit import are_at, nearest_place
except ModuleNotFoundError as error:  # the outlines are drawn here, also when the models run on a server
    raise ContourError(
        f"Smart Contour needs packages that this Slicer lacks ({error.name}); open the module AI Assist and press "
        "Install, then choose Smart Contour again."
    ) from error

from AIAssistLib.geometry import slice_axis, slice_index, transform, view_to_ijk
from AIAssistLib.segments import SegmentWriter, Target, check_keeps_voxels

#: Pixels of the view between vertices that are drawn, in the mean at least.
APART = 9.0
#: A drawn vertex is meant within this many pixels, so that there is room between two of them.
TOUCH = 4.0
#: A vertex is taken hold of within this many pixels.
REACH = 12.0
#: A vertex is added within this many pixels of an outline: who clicks farther away means something else.
NEAR = 4 * REACH
#: Nothing moves until the mouse has left this many pixels: hands tremble when they click.
STILL = 2.5
#: Limits of the radius in mm, and how much a step of the wheel changes it.
RADII, STEP = (2.0, 100.0), 1.25
#: The least radius in the image's finest pixels, where these are so fine that this is less.
LEAST = 3.0


class SmartContour:
    """Pulls vertices of a segment's outlines and writes what changed into the segment.

    Parameters
    ----------
    studies : AIAssistLib.studies.Studies
    writer : SegmentWriter
    save_state : callable
        Called before each change, so that the editor can undo it.
    """

    def __init__(self, studies, writer: SegmentWriter, save_state: Callable[[], None]):
        self._studies = studies
        self._writer = writer
        self._save_state = save_state
        self._state = (0, np.eye(4))
        self.session: ContourSession | None = None
        self.target: Target | None = None
        #: How many pixels of the view look like one on an ordinary screen.
        self.scale = 1.0
        #: Whether the segment changes by what was done here, and not by somebody else.
        self.writes = False
        #: Ring and vertex that are being pulled.
        self.held: tuple[int, int] | None = None
        # Where the mouse was pressed, until it has left there, and by how much it missed the vertex, on the slice.
        self._pressed: np.ndarray | None = None
        self._missed = np.zeros(2)
        #: In mm along the outline, and from 0 (smooth) to 1 (settles on the border).
        self.radius, self.strength = 20.0, 1.0
        #: In mm: how small the radius may be on this image.
        self.least_radius = RADII[0]

    def begin(self, target: Target) -> None:
        """Correct a segment from now on. Raises when the volume is unusable, or the segments are not kept as voxels."""
        # Slicer asks when an effect begins, but not when another segmentation is chosen meanwhile.
        check_keeps_voxels(target.segmentation_node)
        geometry = self._studies.of(target.volume_node).geometry
        self.least_radius = min(RADII[0], LEAST * float(min(geometry.spacing_kji)))
        self.session, self.target = None, target

    def end(self) -> None:
        """Let go of the segment."""
        self.session = self.target = self.held = None

    # Where the mouse is

    def open(self, slice_node) -> bool:
        """Show the outlines of the slice in a view; whether they are others than before.

        `ContourError` for a view that cuts the volume obliquely.
        """
        session = self._current()
        plane = self._plane(slice_node)
        if plane == session.plane:
            return False
        session.open(plane.axis, plane.index)
        return True

    def _plane(self, slice_node) -> Plane:
        """The slice that a view shows."""
        axis = slice_axis(slice_node, self.target.volume_node)
        if axis is None:
            raise ContourError(
                "This view cuts the image obliquely; turn it to the volume's own plane with the button Rotate to "
                "volume plane."
            )
        index = slice_index(slice_node, self.target.volume_node, axis)
        return Plane(self.session.volume.geometry, axis, index)

    def _current(self) -> ContourSession:
        """The session of image and segment as they are now; a new one when somebody else changed or moved them."""
        if self.target is None:
            raise ContourError("No segment is chosen; choose one first.")
        if not self._is_current():
            self._begin_session(self._move_left())
        return self.session

    def _is_current(self) -> bool:
        """Whether the session is of image and segment as they are now."""
        volume = self._studies.of(self.target.volume_node)
        return self.session is not None and self.target.is_as(self._state) and self.session.volume is volume

    def _move_left(self) -> Edit | None:
        """The latest move, when somebody changed the segment meanwhile, as by taking its propagation back."""
        session, target = self.session, self.target
        if session is None or session.volume is not self._studies.of(target.volume_node):
            return None
        return session.move_left_in(target.mask().to_mask(session.volume.shape))

    def _begin_session(self, earlier: Edit | None = None) -> None:
        """Read image and segment anew; `earlier` is a move that can be carried on all the same."""
        target, mask = self.target, self.target.mask()
        self.session = None
        if mask.region.is_empty:
            name = target.segment.GetName()
            raise ContourError(f"{name!r} is empty; mark it with AI Points or paint it first.")
        volume = self._studies.of(target.volume_node)
        self.session, self._state = ContourSession(volume, mask, earlier=earlier), target.state()

    def rings(self, slice_node) -> list[np.ndarray]:
        """The outlines in a view that shows the open slice: pixels ``(x, y)``, shape (n, 2) each."""
        to_view = np.linalg.inv(view_to_ijk(slice_node, self.target.volume_node))
        plane = self.session.plane
        return [transform(to_view, plane.to_ijk(ring.points))[:, :2] for ring in self.session.rings]

    def _xy(self, slice_node, position) -> np.ndarray:
        """A pixel of a view as a point of the open slice."""
        ijk = transform(view_to_ijk(slice_node, self.target.volume_node), [*position, 0.0])
        return self.session.plane.to_xy(ijk)[0]

    def dots(self, rings: list[np.ndarray]) -> list[np.ndarray]:
        """Numbers of the vertices of each of `rings` that are drawn: those that the person set, and some others."""
        set_by_hand = [are_at(ring.points, self.session.set_by_hand()) for ring in self.session.rings]
        return [_dots(ring, by_hand, APART * self.scale) for ring, by_hand in zip(rings, set_by_hand, strict=True)]

    def dot_at(self, slice_node, position) -> tuple[int, int] | None:
        """Ring and vertex that is drawn at a pixel of a view; None when there is none."""
        rings = self.rings(slice_node)
        dots = self.dots(rings)
        drawn = [ring[numbers] for ring, numbers in zip(rings, dots, strict=True)]
        found = _nearest(drawn, position, TOUCH * self.scale)
        return None if found is None else (found[0], int(dots[found[0]][found[1]]))

    def vertex_at(self, slice_node, position) -> tuple[int, int] | None:
        """Ring and vertex, drawn or not, within reach of a pixel of a view; None when there is none."""
        return _nearest(self.rings(slice_node), position, REACH * self.scale)

    # Changing

    def press(self, slice_node, position) -> bool:
        """Take hold of the vertex under the mouse; whether there is one."""
        self.open(slice_node)
        self.held = self.vertex_at(slice_node, position)
        if self.held is None:
            return False
        ring, vertex = self.held
        place = self.session.rings[ring].points[vertex]
        self._pressed, self._missed = np.array(position, float), place - self._xy(slice_node, position)
        self.session.press(place)
        return True

    def drag(self, slice_node, position) -> None:
        """Move the held vertex as the mouse moved; its neighbours follow and settle.

        `ContourError`, and the vertex is let go of, when the view shows another slice by now, or when somebody
        changed the segment or the image.
        """
        self._check_held(slice_node)
        if self._pressed is not None and np.linalg.norm(self._pressed - position) <= STILL * self.scale:
            return
        self._pressed = None
        self.session.drag(self._xy(slice_node, position) + self._missed, self.radius, self.strength)

    def release(self, slice_node) -> bool:
        """Write what the drag showed into the segment; whether anything changed. Errors as those of `drag`."""
        self._check_held(slice_node)
        self.held = None
        return self._write(self.session.release())

    def _check_held(self, slice_node) -> None:
        try:
            if not self._is_current():
                self.session = None
                raise ContourError("The segment or the image changed during the pull, which was dropped; pull again.")
            if self._plane(slice_node) != self.session.plane:
                raise ContourError("The view left the slice during the pull, which was dropped; pull again.")
        except AIAssistError:
            self.drop()
            raise

    def drop(self) -> None:
        """Let go of the held vertex; its outline is where it was."""
        self.held = None
        if self.session is not None:
            self.session.drop()

    def insert(self, slice_node, position) -> None:
        """Add a vertex where the outlines come nearest to a pixel of the view.

        `ContourError` when that is farther than `NEAR`, or when there is no outline.
        """
        self.open(slice_node)
        position = np.array(position, float)
        places = [nearest_place(ring, position)[1] for ring in self.rings(slice_node)]
        if not places:
            raise ContourError("This slice has no outline to add a vertex to; scroll to one that has.")
        away = min(float(np.linalg.norm(place - position)) for place in places)
        if away > NEAR * self.scale:
            raise ContourError(f"The click lies {away:.0f} pixels from the nearest outline; Ctrl+click at an outline.")
        self._write(self.session.insert(self._xy(slice_node, position)))

    def delete(self, slice_node, position) -> bool:
        """Remove the vertex that is drawn under the mouse; whether there was one."""
        self.open(slice_node)
        held = self.dot_at(slice_node, position)
        return held is not None and self._write(self.session.delete(*held))

    def propagate(self, slices: int) -> int:
        """Carry the latest move on to so many neighbours on each side; how many slices changed."""
        if self.session is None:
            raise ContourError("There is no move of a vertex to carry on; move one first.")
        self._current()
        before, edit = self.target.mask(), self.session.propagate(slices, self.radius, self.strength)
        return _slices_between(before, self.target.mask(), edit.changes[0].plane.axis) if self._write(edit) else 0

    def change_radius(self, steps: int) -> float:
        """Make the radius larger or smaller by steps of the wheel; the new one."""
        self.radius = float(np.clip(self.radius * STEP**steps, self.least_radius, RADII[1]))
        return self.radius

    def _write(self, edit: Edit | None) -> bool:
        if edit is None:
            return False
        self.writes = True
        try:
            return self._write_edit(edit)
        finally:
            self.writes = False

    def _write_edit(self, edit: Edit) -> bool:
        taken, added = edit.difference()
        target, expected = self.target, self.session
        self._save_state()
        if taken.region.is_empty:
            target.segment.Modified()  # else Undo would take the step before it back as well
            return True
        try:
            self._writer.write(target.volume_node, target.segmentation_node, target.segment_id, taken, added)
        except StudyError:  # nothing of it can be: the outline is where it was
            self.session = None
            raise
        self._state = target.state()
        if not self._as_expected(added, taken):  # masking had its say
            plane = expected.plane
            self._begin_session(earlier=expected.latest_move)
            if plane is not None:
                self.session.open(plane.axis, plane.index)
        return True

    def _as_expected(self, added, taken) -> bool:
        target = self.target
        now = target.mask().within(added.region)
        return bool(now[added.mask].all() and not now[taken.mask].any())


def _dots(ring: np.ndarray, set_by_hand: np.ndarray, apart: float) -> np.ndarray:
    """Numbers of a ring's vertices to draw: those set by hand, and every so many others, to be told apart."""
    step = np.linalg.norm(np.diff(ring, axis=0, append=ring[:1]), axis=1).mean()
    every = max(1, int(np.ceil(apart / max(step, 1e-6))))
    return np.union1d(np.flatnonzero(set_by_hand), np.arange(len(ring))[::every])


def _nearest(rings: list[np.ndarray], position, reach: float) -> tuple[int, int] | None:
    """Ring and vertex nearest to a pixel, if it is within so many pixels."""
    gaps = [np.linalg.norm(ring - position, axis=1) for ring in rings]
    if not gaps or min(gap.min() for gap in gaps) > reach:
        return None
    ring = int(np.argmin([gap.min() for gap in gaps]))
    return ring, int(np.argmin(gaps[ring]))


def _slices_between(before: MaskPatch, after: MaskPatch, axis: int) -> int:
    """On how many slices across an array axis two masks differ."""
    region = before.region.union(after.region)
    changed = np.moveaxis(before.within(region) != after.within(region), axis, 0)
    return int(np.count_nonzero(changed.any(axis=(1, 2))))
