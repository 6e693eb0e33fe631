"""One segment corrected by its outlines in the slice views."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from aiassist.errors import ContourError, StudyError

try:
    from aiassist.contour import ContourSession, Edit, Plane
except ModuleNotFoundError as error:  # the outlines are drawn here, also when the models run on a server
    raise ContourError(
        f"Smart Contour needs packages that this Slicer lacks ({error.name}); open the module AI Assist and press "
        "Install, then choose Smart Contour again."
    ) from error

from AIAssistLib.geometry import slice_axis, slice_index, transform, view_to_ijk
from AIAssistLib.segments import SegmentWriter, Target

#: A vertex is taken hold of within this many pixels of the view.
REACH = 12.0
#: Limits of the radius in mm, and how much a step of the wheel changes it.
RADII, STEP = (2.0, 100.0), 1.25


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
        #: Ring and vertex that are being pulled.
        self.held: tuple[int, int] | None = None
        #: In mm along the outline, and from 0 (smooth) to 1 (settles on the border).
        self.radius, self.strength = 20.0, 1.0

    def begin(self, target: Target) -> None:
        """Correct a segment from now on. Raises when the volume is unusable or the segment gone."""
        self._studies.of(target.volume_node)
        self.session, self.target = None, target

    def end(self) -> None:
        """Let go of the segment."""
        self.session = self.target = None

    # Where the mouse is

    def open(self, slice_node) -> bool:
        """Show the outlines of the slice in a view; whether they are others than before.

        `ContourError` for a view that cuts the volume obliquely.
        """
        session = self._current()
        axis = slice_axis(slice_node, self.target.volume_node)
        if axis is None:
            raise ContourError(
                "This view cuts the image obliquely; turn it to the volume's own plane with the button Rotate to "
                "volume plane."
            )
        plane = Plane(session.volume.geometry, axis, slice_index(slice_node, self.target.volume_node, axis))
        if plane == session.plane:
            return False
        session.open(axis, plane.index)
        return True

    def _current(self) -> ContourSession:
        """The session of image and segment as they are now; a new one when somebody else changed or moved them."""
        if self.target is None:
            raise ContourError("No segment is chosen; choose one first.")
        target = self.target
        volume = self._studies.of(target.volume_node)
        if self.session is None or not target.is_as(self._state) or self.session.volume is not volume:
            mask = target.mask()
            if mask.region.is_empty:
                name = target.segment.GetName()
                raise ContourError(f"{name!r} is empty; mark it with AI Points or paint it first.")
            self.session, self._state = ContourSession(volume, mask), target.state()
        return self.session

    def rings(self, slice_node) -> list[np.ndarray]:
        """The outlines in a view that shows the open slice: pixels ``(x, y)``, shape (n, 2) each."""
        to_view = np.linalg.inv(view_to_ijk(slice_node, self.target.volume_node))
        plane = self.session.plane
        return [transform(to_view, plane.to_ijk(ring.points))[:, :2] for ring in self.session.rings]

    def _xy(self, slice_node, position) -> np.ndarray:
        """A pixel of a view as a point of the open slice."""
        ijk = transform(view_to_ijk(slice_node, self.target.volume_node), [*position, 0.0])
        return self.session.plane.to_xy(ijk)[0]

    def vertex_at(self, slice_node, position) -> tuple[int, int] | None:
        """Ring and vertex within reach of a pixel of a view; None when there is none."""
        rings = self.rings(slice_node)
        gaps = [np.linalg.norm(ring - position, axis=1) for ring in rings]
        if not gaps or min(gap.min() for gap in gaps) > REACH * self.scale:
            return None
        ring = int(np.argmin([gap.min() for gap in gaps]))
        return ring, int(np.argmin(gaps[ring]))

    # Changing

    def press(self, slice_node, position) -> bool:
        """Take hold of the vertex under the mouse; whether there is one."""
        self.open(slice_node)
        self.held = self.vertex_at(slice_node, position)
        if self.held is None:
            return False
        ring, vertex = self.held
        self.session.press(self.session.rings[ring].points[vertex])
        return True

    def drag(self, slice_node, position) -> None:
        """Move the held vertex; its neighbours follow and settle."""
        self.session.drag(self._xy(slice_node, position), self.radius, self.strength)

    def release(self) -> bool:
        """Write what the drag showed into the segment; whether anything changed."""
        self.held = None
        return self._write(self.session.release())

    def insert(self, slice_node, position) -> None:
        """Add a vertex where the outlines come nearest to a pixel of the view."""
        self.open(slice_node)
        self.session.insert(self._xy(slice_node, position))

    def delete(self, slice_node, position) -> bool:
        """Remove the vertex under the mouse; whether there was one."""
        self.open(slice_node)
        held = self.vertex_at(slice_node, position)
        return held is not None and self._write(self.session.delete(*held))

    def propagate(self, slices: int) -> int:
        """Carry the latest move on to so many neighbours on each side; how many slices changed."""
        if self.session is None or not self.target.is_as(self._state):
            self.session = None  # undone, or changed or moved by somebody else
            raise ContourError("There is no move of a vertex to carry on; move one first.")
        edit = self.session.propagate(slices, self.radius, self.strength)
        return len(edit.slices) if self._write(edit) else 0

    def change_radius(self, steps: int) -> float:
        """Make the radius larger or smaller by steps of the wheel; the new one."""
        self.radius = float(np.clip(self.radius * STEP**steps, *RADII))
        return self.radius

    def _write(self, edit: Edit | None) -> bool:
        if edit is None:
            return False
        taken, added = edit.difference()
        if taken.region.is_empty:
            return True
        target, expected = self.target, self.session
        self._save_state()
        try:
            self._writer.write(target.volume_node, target.segmentation_node, target.segment_id, taken, added)
        except StudyError:  # masking allows nothing of it: the outline is where it was
            self.session = None
            raise
        self._state = target.state()
        if not self._as_expected(added, taken):
            plane, self.session = expected.plane, None  # masking had its say
            self._current().open(plane.axis, plane.index)
        return True

    def _as_expected(self, added, taken) -> bool:
        target = self.target
        now = target.mask().within(added.region)
        return bool(now[added.mask].all() and not now[taken.mask].any())
