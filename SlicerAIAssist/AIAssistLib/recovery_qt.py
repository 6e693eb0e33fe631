"""Keeps unsaved work on the disk every now and then, and offers it after a crash."""

from __future__ import annotations

import weakref
from contextlib import suppress

import qt
import slicer
import vtk
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError, ImageError, StudyError
from aiassist.imaging import Volume, describe_structure
from aiassist.words import some_of
from AIAssistLib.autosave import Autosave, Found
from AIAssistLib.console import drawn_on
from AIAssistLib.geometry import ijk_to_ras
from AIAssistLib.section_qt import Section, ask
from AIAssistLib.segments import read_mask, write_plainly
from AIAssistLib.structures import segment_named, segment_to_fill
from AIAssistLib.tags import held_of, note_study_id, noted_studies, replace_tags
from AIAssistLib.talks import Talk, ignore
from AIAssistLib.texts import in_lines, shortened

#: Milliseconds between two looks for changes.
EVERY = 15000
#: No study is known to be shown.
NOTHING: tuple[str, int, tuple] = ("", 0, ())


class Recovery(Section):
    """Autosave of the segmentation in the panel."""

    def __init__(self, panel):
        super().__init__(panel, "saveLabel")
        self.autosave = Autosave(panel.logic.settings.folder / "unsaved")
        self._timer = qt.QTimer()
        self._timer.setInterval(EVERY)
        self._timer.connect("timeout()", self.keep)
        self._found: tuple[str, list[Found]] = ("", [])
        self._looking: Talk | None = None
        #: The study that was looked up last; its voxels may go meanwhile.
        self._looked: weakref.ref | None = None
        #: The hash of an image that is not shown, on which the segments in the panel were drawn.
        self._hashing: Talk | None = None
        #: The image in the panel while it is observed, and the observers' tags.
        self._observed: tuple = (None, ())
        #: The study that the image in the panel was last known to hold: its id, when its voxels changed, its grid.
        self._shown: tuple[str, int, tuple] = NOTHING
        #: Why work could not be kept at the last look; empty when it could.
        self._warned = ""
        self.ui.recoverButton.connect("clicked()", self.bring_back)
        self.ui.discardButton.connect("clicked()", self.ask_to_discard)
        self._offer("", [])

    def start(self) -> None:
        """Something is being annotated."""
        self._timer.start()
        self._observe(self.panel.editor.sourceVolumeNode())
        self.look()

    def stop(self) -> None:
        """It is left: what changed is kept first."""
        self._timer.stop()
        self._observe(None)
        while self.keep():
            pass

    def leave(self) -> None:
        """The image is left, or the scene closes: what was kept of it is offered when it comes back."""
        self.stop()
        self.autosave.begin_run()

    def keep(self) -> bool:
        """Write one segment in the panel that changed; whether there was one."""
        editor = self.panel.editor
        volume, segmentation = editor.sourceVolumeNode(), editor.segmentationNode()
        return volume is not None and segmentation is not None and self._keep_of(volume, segmentation)

    def keep_all(self, volume, segmentation) -> None:
        """Write all segments of a segmentation that changed; it leaves the panel."""
        while self._keep_of(volume, segmentation):
            pass

    def _keep_of(self, volume, segmentation) -> bool:
        drawn = _image_of(segmentation, volume)
        if volume is self.panel.editor.sourceVolumeNode() and (shown := self._study_of(volume)) is not None:
            self._look_at(shown)
            self._shown = (vars(shown).get("study_id", ""), *_voxels_of(volume))
        study = self._study_of(drawn)
        if study is None:
            return False
        if "study_id" not in vars(study):
            self._hash(study)
            return False
        return self._keep_as(study.study_id, drawn, segmentation)

    def _keep_as(self, study: str, volume, segmentation) -> bool:
        """Write one segment that changed as a study's work; whether there was one."""
        try:
            kept = self._keep_one(study, volume, segmentation)
        except (AIAssistError, OSError) as error:
            self._warn(error.strerror if isinstance(error, OSError) else str(error))
            return False
        self._warned = ""
        return kept is not None

    def _warn(self, why: str) -> None:
        """Say that work cannot be kept, at every try, and have the person see it, at the first."""
        if why != self._warned:
            self.ui.saveSection.collapsed = False
        self._warned = why
        self.tell(_("Unsaved work cannot be kept: {why}").format(why=why), failed=True)

    def _study_of(self, volume) -> Volume | None:
        """The study of an image; None of one in colour, say, which is said when somebody wants to annotate it."""
        try:
            return self.assistant.studies.of(volume)
        except AIAssistError:
            return None

    def _hash(self, study: Volume) -> None:
        """Hash a study for the next look, unless that is under way."""
        is_looked = self._looked is not None and self._looked() is study
        if not is_looked and (self._hashing is None or not self._hashing.active):
            self._hashing = self.assistant.start(study.hashing(), ignore, ignore)

    def _keep_one(self, study: str, volume, segmentation) -> str | None:
        noted, known = noted_studies(segmentation), self.autosave.knows(segmentation)
        if noted and not known and study not in noted:  # as in a scene that was opened at another time point
            study = noted[-1]
        current, held = self.panel.editor.currentSegmentID(), _held(segmentation, study)
        return self.autosave.keep_one(
            study,
            segmentation,
            volume,
            current,
            lambda version: version in held or self.panel.saving.is_kept(study, version),
            lambda: note_study_id(segmentation, study),
        )

    def _observe(self, volume) -> None:
        """Observe the image in the panel, if there is one."""
        node, tags = self._observed
        for tag in tags:
            node.RemoveObserver(tag)
        events = (vtk.vtkCommand.ModifiedEvent, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent)
        tags = [volume.AddObserver(event, self._image_changes) for event in events] if volume is not None else ()
        self._observed, self._shown = (volume, tags), NOTHING

    def _image_changes(self, volume, _event) -> None:
        """Where it holds other voxels now, as those of another time point: what changed until now is of the last."""
        segmentation, (study, stamp, grid) = self.panel.editor.segmentationNode(), self._shown
        now, where = _voxels_of(volume)
        if not study or now == stamp:
            return
        self._shown = NOTHING
        if segmentation is None or grid != where or _image_of(segmentation, volume) is not volume:
            return
        while self._keep_as(study, volume, segmentation):
            pass

    def look(self) -> None:
        """Offer what an earlier Slicer did not save of this image."""
        self._forget()
        volume = self.panel.editor.sourceVolumeNode()
        study = self._study_of(volume) if volume is not None else None
        if study is not None:
            self._look_at(study)

    def image_changed(self) -> None:
        """Another image may be in the panel: what was offered is not its own."""
        self._forget()
        if self._timer.active:
            self._observe(self.panel.editor.sourceVolumeNode())
            self.look()

    def _look_at(self, study: Volume) -> None:
        """Look up a study unless it was the last one; a model may have asked for its hash already."""
        if self._looked is not None and self._looked() is study:
            return
        self._forget()
        self._looked = weakref.ref(study)
        self._looking = self.assistant.start(study.hashing(), self._hashed, lambda _error: self._forget())

    def _forget(self) -> None:
        self._offer("", [])
        self._looked = None
        if self._looking is not None:
            self._looking.cancel()

    def _hashed(self, study: str) -> None:
        volume, segmentation = self.panel.editor.sourceVolumeNode(), self.panel.editor.segmentationNode()
        looked = self._looked() if self._looked is not None else None
        if volume is not None and looked is not None and self._study_of(volume) is looked:
            self._shown = (study, *_voxels_of(volume))

        def is_here(found: Found) -> bool:
            here = segment_named(segmentation, found.name) if segmentation is not None else ""
            with suppress(ImageError):  # under a deformation, say
                return bool(here) and read_mask(segmentation, here, volume).version == found.mask.version
            return False

        self._offer(study, [found for found in self.autosave.found(study) if not is_here(found)])

    def _offer(self, study: str, found: list[Found]) -> None:
        self._found = (study, found)
        names, button = [one.name for one in found], self.ui.recoverButton
        button.setText(shortened(_("Recover unsaved work: {names}").format(names=some_of(names, 2))))
        every = _("Add what an earlier Slicer did not save of this image: {names}").format(names=", ".join(names))
        button.setToolTip(in_lines(every))
        self.ui.recoverButton.setVisible(bool(found))
        self.ui.discardButton.setVisible(bool(found))
        if found:
            self.ui.saveSection.collapsed = False

    def bring_back(self) -> None:
        """Add what was not saved as segments."""
        self.attempt(self._bring_back)

    def _bring_back(self) -> None:
        study, found = self._found
        volume, segmentation = self.panel.structures.nodes_to_draw()
        if self.assistant.studies.of(volume).study_id != study:
            self.look()
            raise StudyError("The unsaved work is another image's; load that one to recover it.")
        self.panel.editor.saveStateForUndo()
        for one in found:
            segment_id = segment_to_fill(segmentation, volume, describe_structure(one.name))
            write_plainly(one.mask, volume, segmentation, segment_id)
            replace_tags(segmentation.GetSegmentation().GetSegment(segment_id), one.tags)
        while self._keep_one(study, volume, segmentation) is not None:
            pass
        self.discard()  # only now: the old files stay if writing fails

    def ask_to_discard(self) -> None:
        """Ask, and let what is offered go: it is nowhere else."""
        offered = self._found
        names = some_of([one.name for one in offered[1]])
        question = _("Delete the unsaved work ({names})? It cannot be recovered then.").format(names=names)
        if ask(question) and self._found is offered:  # else another image came meanwhile
            self.discard()

    def discard(self) -> None:
        """What is offered is not wanted any more; what was kept of it before, or cannot be deleted, is offered next."""
        study, found = self._found
        self.attempt(self.autosave.forget, found)
        self._hashed(study)


def _image_of(segmentation, volume):
    """The image whose work segments are: that on which they were drawn, else, where that is not in the scene, this."""
    drawn = drawn_on(segmentation)
    is_image = isinstance(drawn, slicer.vtkMRMLVolumeNode) and not isinstance(drawn, slicer.vtkMRMLLabelMapVolumeNode)
    return drawn if is_image and drawn.GetScene() is not None else volume


def _voxels_of(volume) -> tuple[int, tuple]:
    """When an image's voxels changed, and their grid; zero and nothing when it has none."""
    image = volume.GetImageData()
    return (image.GetMTime(), (*image.GetDimensions(), *ijk_to_ras(volume).ravel())) if image is not None else (0, ())


def _held(segmentation, study: str) -> set[str]:
    """Versions of the masks that segments held when they were saved or loaded; a scene that is opened tells them."""
    ids = segmentation.GetSegmentation().GetSegmentIDs()
    return {held.mask for one in ids for held in held_of(segmentation, one) if held.study == study}
