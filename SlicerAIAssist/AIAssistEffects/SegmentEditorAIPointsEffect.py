"""AI Points: mark a structure, and a model contours it on every slice."""

from __future__ import annotations

import numpy as np
import slicer
import vtk
from slicer.i18n import tr as _

from aiassist.errors import StudyError
from AIAssistEffects.base import AIAssistEffect
from AIAssistLib.geometry import array_of, transform
from AIAssistLib.marks import BOX, EXTREME, LINE, NEGATIVE, POSITIVE
from AIAssistLib.points import PointsSession
from AIAssistLib.section_qt import busy
from AIAssistLib.segments import Target, has_surface

#: A click within this many pixels of a mark takes hold of the mark.
REACH = 10.0
#: A quick second click is a click; left to Slicer it would maximise the view.
PRESSES = (vtk.vtkCommand.LeftButtonPressEvent, vtk.vtkCommand.LeftButtonDoubleClickEvent)


class SegmentEditorAIPointsEffect(AIAssistEffect):
    """Puts marks into slice views and shows the model's answer until it is accepted."""

    NAME, SOURCE = "AI Points", __file__
    TITLE = _("AI Points")

    def __init__(self, scriptedEffect):
        super().__init__(scriptedEffect)
        self.session: PointsSession | None = None
        self._swallow_release = False

    def helpText(self):
        """Shown above the options."""
        return _(
            "<html>Mark a structure and a model contours it on every slice: click its <b>six ends</b> in any slice "
            "view, or give a <b>box</b>, a <b>line</b> across it or one <b>click</b>. Correct with more clicks: plain "
            "ones include, <b>Ctrl+click</b> excludes; drag a mark to move it. Then accept.</html>"
        )

    def connect_widgets(self):
        """See `AIAssistEffect.connect_widgets`."""
        for button, _role in self._kinds():
            self.connect(button, "clicked()", self._chosen)
        self.connect(self.ui.runButton, "clicked()", self.run)
        self.connect(self.ui.acceptButton, "clicked()", self.accept)
        self.connect(self.ui.resetButton, "clicked()", self.reset)
        self.connect(self.ui.takeBackButton, "clicked()", self.take_back)
        self.connect(self.ui.lookButton, "clicked()", self.next_look)
        self.connect(self.ui.addCheck, "toggled(bool)", self._adds)

    def _kinds(self):
        ui = self.ui
        return (
            (ui.extremeButton, EXTREME),
            (ui.boxButton, BOX),
            (ui.lineButton, LINE),
            (ui.clickButton, POSITIVE),
        )

    def begin(self, target: Target):
        """See `AIAssistEffect.begin`."""
        assistant = self.logic.assistant
        if self.session is None or self.session.assistant is not assistant:  # the module was reloaded
            self.session = PointsSession(slicer.mrmlScene, assistant, self._changed)
        self.session.begin(target)
        self.session.set_adding(self.ui.addCheck.checked)

    def end(self):
        """See `AIAssistEffect.end`."""
        self._swallow_release = False
        if self.session is not None:
            self.session.end()

    @property
    def _begun(self) -> PointsSession:
        """The session; `StudyError` when none has begun."""
        if self.session is None:
            raise StudyError("Nothing is being marked yet; choose an image and a segment.")
        return self.session

    # What the person does

    def mouse(self, interactor, event_id, view_widget) -> bool:
        """A click on empty ground adds a mark; a click on a mark is left to the markups, which drag it."""
        if event_id == vtk.vtkCommand.LeftButtonReleaseEvent:
            swallow, self._swallow_release = self._swallow_release, False
            return swallow
        if event_id == vtk.vtkCommand.MiddleButtonPressEvent:  # would move all marks, where panning was meant
            node, position = self.slice_node(view_widget), interactor.GetEventPosition()
            return self._mark_at(node, position, REACH * self.pixels(view_widget))
        plain = not (interactor.GetShiftKey() or interactor.GetAltKey())
        if event_id not in PRESSES or not plain:
            return False
        node, position = self.slice_node(view_widget), interactor.GetEventPosition()
        excludes = bool(interactor.GetControlKey())  # which drags nothing, so it is obeyed beside marks of other kinds
        self.session.catch_up(keeps_outline=excludes or self._chosen_kind != POSITIVE)
        if self._mark_at(node, position, REACH * self.pixels(view_widget), NEGATIVE if excludes else None):
            return event_id == vtk.vtkCommand.LeftButtonDoubleClickEvent
        world = transform(array_of(node.GetXYToRAS()), [*position, 0.0])[0]
        self.check_shown(view_widget)
        self.session.add(NEGATIVE if excludes else self.kind, world)
        self._swallow_release = True
        return True

    def key(self, key: str) -> bool:
        """Return starts with fewer than six points."""
        if key not in ("Return", "KP_Enter"):
            return False
        self.session.run()
        return True

    def _mark_at(self, slice_node, position, reach: float, role: str | None = None) -> bool:
        """Whether there is a mark within so many pixels, of a role if one is given."""
        marks = self.session.marks.node
        numbers = range(marks.GetNumberOfControlPoints())
        wanted = [n for n in numbers if role in (None, marks.GetNthControlPointDescription(n))]
        places = [marks.GetNthControlPointPositionWorld(n) for n in wanted]
        if not places:
            return False
        xyz = transform(np.linalg.inv(array_of(slice_node.GetXYToRAS())), places)
        away = np.linalg.norm(xyz[:, :2] - position, axis=1)
        return bool(((away <= reach) & (np.abs(xyz[:, 2]) < 0.5)).any())

    @property
    def kind(self) -> str:
        """What a plain click adds: the chosen kind of mark, and a correction once there are enough of these."""
        return POSITIVE if self.session.marks.complete(self._chosen_kind) else self._chosen_kind

    @property
    def _chosen_kind(self) -> str:
        """The kind of mark that is chosen."""
        return next((role for button, role in self._kinds() if button.checked), EXTREME)

    @property
    def is_wanted(self) -> bool:
        """Whether there is something to accept, or will be shortly."""
        return self.session is not None and (self.session.busy or self.session.preview.mask is not None)

    def run(self):
        """Ask with the marks as they are."""
        self.attempt(lambda: self._begun.run())

    def accept(self):
        """Write the preview into the segment."""
        self.attempt(self.accept_or_raise)

    def accept_or_raise(self):
        """Write the preview into the segment. `AIAssistError` when that is not possible."""
        try:
            with busy():
                self._begun.accept(self._writer, self._writes)
        finally:
            self._changed()

    def _writes(self):
        """Nothing stands against it: say what takes long, and let it be undone."""
        if has_surface(self.session.target.segmentation_node):
            self.tell_now(_("Writing the segment; Slicer makes its 3D surface anew, which cannot be interrupted"))
        self.save_state()

    def reset(self):
        """Remove marks and preview."""
        self.attempt(lambda: self._begun.reset())

    def take_back(self):
        """Remove the latest mark."""
        self.attempt(lambda: self._begun.take_back())

    def next_look(self):
        """Fill, outline, hidden."""
        self.attempt(lambda: self._begun.next_look())

    def _chosen(self):
        self.attempt(self._changed)

    def _adds(self, adding: bool):
        if self.session is not None:
            self.attempt(lambda: self.session.set_adding(adding))

    # What the person sees

    def _changed(self):
        session = self.session
        if session is None or self.ui is None:
            return
        shown = session.preview.mask is not None
        self.ui.acceptButton.setEnabled(shown and not session.busy)
        self.ui.runButton.setEnabled(session.marks.count(EXTREME, LINE, BOX, POSITIVE) > 0)
        self.ui.takeBackButton.setEnabled(bool(session.marks.roles()))
        self.ui.hintLabel.setText(self._hint())
        self.tell(session.text, session.failed)

    def _hint(self) -> str:
        kind, marks = self.kind, self.session.marks
        if kind == EXTREME:
            return _("Click the structure's six ends: {count} of 6. Return starts with fewer.").format(
                count=marks.count(EXTREME)
            )
        if kind == BOX:
            return _("Click two opposite corners of a box, scrolling in between; in one slice its height is guessed.")
        if kind == LINE:
            return _("Click both ends of the longest diameter.")
        if self.session.can_correct or marks.outlined:
            return _("Click what is missing, Ctrl+click what is too much; drag a mark to move it.")
        return _("Click the middle of the structure.")
