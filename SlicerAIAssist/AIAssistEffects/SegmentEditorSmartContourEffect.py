"""Smart Contour: pull one vertex of an outline, and its neighbours settle on the border."""

from __future__ import annotations

import math

import slicer
import vtk
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError, StudyError
from AIAssistEffects.base import AIAssistEffect
from AIAssistLib.contour_actor import ContourActor
from AIAssistLib.section_qt import busy
from AIAssistLib.segments import Target

#: Which way the wheel turns; with Shift, macOS turns it sideways.
WHEEL = {
    vtk.vtkCommand.MouseWheelForwardEvent: 1,
    vtk.vtkCommand.MouseWheelLeftEvent: 1,
    vtk.vtkCommand.MouseWheelBackwardEvent: -1,
    vtk.vtkCommand.MouseWheelRightEvent: -1,
}


class SegmentEditorSmartContourEffect(AIAssistEffect):
    """Shows the outlines on the slice under the mouse and lets vertices be pulled."""

    NAME, SOURCE = "Smart Contour", __file__
    TITLE = _("Smart Contour")

    def __init__(self, scriptedEffect):
        super().__init__(scriptedEffect)
        self.contour = None
        self._actor = ContourActor()
        self._view = None
        self._dragging = False
        #: The view of which the message says why it shows no outline.
        self._lost = None
        #: The segmentation that is observed, and the observers' tags.
        self._watched: list[tuple[object, int]] = []

    def helpText(self):
        """Shown above the options."""
        return _(
            "<html>Pull a <b>vertex</b> of the outline; its neighbours follow and settle on the border. <b>Shift+wheel"
            "</b> changes how far along the outline, <b>Ctrl+click</b> adds a vertex, or removes the dot under the "
            "mouse. <b>Propagate</b> carries the latest pull on to the neighbouring slices.</html>"
        )

    def connect_widgets(self):
        """See `AIAssistEffect.connect_widgets`."""
        self.connect(self.ui.radiusSlider, "valueChanged(double)", self._radius_set)
        self.connect(self.ui.strengthSlider, "valueChanged(double)", self._strength_set)
        self.connect(self.ui.propagateButton, "clicked()", self.propagate)

    def begin(self, target: Target):
        """See `AIAssistEffect.begin`."""
        from AIAssistLib.smart_contour import SmartContour  # needs scikit-image

        self.contour = SmartContour(self.logic.assistant.studies, self._writer, self.save_state)
        self.contour.begin(target)
        self._limit_radius(self.contour.least_radius)
        self.contour.radius, self.contour.strength = self.ui.radiusSlider.value, self.ui.strengthSlider.value
        node, events = target.segmentation_node, slicer.vtkSegmentation
        kinds = (events.SegmentModified, events.SourceRepresentationModified)  # the first comes of Undo
        self._watched = [(node, node.AddObserver(kind, self._segments_change)) for kind in kinds]
        self.tell("")

    def end(self):
        """See `AIAssistEffect.end`."""
        self._leave()
        self._dragging, self.contour, self._lost = False, None, None
        for node, tag in self._watched:
            node.RemoveObserver(tag)
        self._watched = []

    def layoutChanged(self):
        """The view may be gone."""
        self._leave()

    # What the person does

    def mouse(self, interactor, event_id, view_widget) -> bool:
        """Pull, add and remove vertices; change the radius."""
        events = vtk.vtkCommand
        if event_id in WHEEL:
            return self._wheel(interactor, WHEEL[event_id])
        node, position = self.slice_node(view_widget), interactor.GetEventPosition()
        self.contour.scale = self.pixels(view_widget)
        if event_id == events.LeaveEvent and not self._dragging:
            self._leave()
        elif event_id == events.LeftButtonDoubleClickEvent:
            return True  # it would maximise the view
        elif event_id == events.LeftButtonPressEvent and not (interactor.GetShiftKey() or interactor.GetAltKey()):
            return self._press(interactor, node, position, view_widget)
        elif event_id == events.MouseMoveEvent:
            return self._move(node, position, view_widget)
        elif event_id == events.LeftButtonReleaseEvent and self._dragging:
            self._dragging = False
            try:
                self.contour.release(node)
            finally:  # where masking allows nothing, the outline is where it was
                self._look(view_widget)
            return True
        return False

    def _press(self, interactor, node, position, view_widget) -> bool:
        self.check_shown(view_widget)
        self._look(view_widget)
        self.tell("")
        if interactor.GetControlKey():
            if not self.contour.delete(node, position):
                self.contour.insert(node, position)
            self._draw(view_widget)
            return True
        self._dragging = self.contour.press(node, position)
        self._draw(view_widget)
        return self._dragging

    def _move(self, node, position, view_widget) -> bool:
        if self._dragging:
            try:
                self.contour.drag(node, position)
            except AIAssistError:
                self._dragging = self.contour.held is not None  # it may have been dropped
                self._look(view_widget)
                raise
            self._draw(view_widget)
            return True
        self._look(view_widget, only_changes=True)
        return False

    def _wheel(self, interactor, steps: int) -> bool:
        if not interactor.GetShiftKey():
            return self._dragging  # scrolling would leave the slice that is being changed
        self.ui.radiusSlider.setValue(self.contour.change_radius(steps))
        return True

    def propagate(self):
        """Carry the latest pull on to neighbouring slices."""
        self.attempt(self._propagate)

    def _propagate(self):
        if self.contour is None:
            raise StudyError("There is no pull to carry on; choose an image and a segment, and pull a vertex first.")
        self.tell_now(_("Carrying the pull on to the neighbouring slices"))
        with busy():
            changed = self.contour.propagate(int(self.ui.slicesSpinBox.value))
        one, several = _("One neighbouring slice changed."), _("{count} neighbouring slices changed.")
        self.tell(one if changed == 1 else several.format(count=changed))

    def _limit_radius(self, least: float):
        """Let the slider go down to `least` mm, in steps and with decimals that show it."""
        slider = self.ui.radiusSlider
        slider.decimals = 0 if least > 1 and least.is_integer() else math.ceil(1 - math.log10(least))
        slider.singleStep, slider.minimum = min(1.0, least), least

    def _radius_set(self, value):
        if self.contour is not None:
            self.contour.radius = value

    def _strength_set(self, value):
        if self.contour is not None:
            self.contour.strength = value

    # What the person sees

    def _look(self, view_widget, only_changes: bool = False) -> None:
        """Show the outlines of the slice in a view; none, and why, where there are none to show."""
        try:
            is_other = self.contour.open(self.slice_node(view_widget))
        except AIAssistError:
            self._lost = view_widget
            self._leave()
            raise
        if self._lost is not None:
            self._lost = None
            self.tell("")
        if is_other or not only_changes or view_widget != self._view:
            self._draw(view_widget)

    def _segments_change(self, *_event) -> None:
        """Somebody changed the segments, as *Undo* does: show the outlines as they are now."""
        contour = self.contour
        if self._view is None or self._dragging or contour.writes:
            return
        if contour.target.segmentation_node.GetSegmentation().GetSegment(contour.target.segment_id) is not None:
            self.attempt(self._look, self._view, True)

    def _draw(self, view_widget) -> None:
        if view_widget != self._view:
            self._leave()
            self.scriptedEffect.addActor2D(view_widget, self._actor.actor)
            self._view = view_widget
        rings = self.contour.rings(self.slice_node(view_widget))
        self._actor.show(rings, self.contour.dots(rings), self.contour.held, self.contour.scale)
        self.scriptedEffect.scheduleRender(view_widget)

    def _leave(self) -> None:
        if self._view is not None:
            self.scriptedEffect.removeActor2D(self._view, self._actor.actor)
            self.scriptedEffect.scheduleRender(self._view)
            self._view = None

    def processViewNodeEvents(self, callerViewNode, eventId, viewWidget):
        """The view was scrolled or zoomed: show the outlines of what it shows now."""
        if viewWidget not in (self._view, self._lost) or self._dragging or self.contour is None:
            return
        self.attempt(self._look, viewWidget)
