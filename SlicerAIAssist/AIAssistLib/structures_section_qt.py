"""The panel's section on the image, the structures to go through, and their measurements."""

from __future__ import annotations

import qt
import slicer
from slicer.i18n import tr as _

from aiassist.errors import AIAssistError, ImageError, StudyError
from aiassist.imaging import describe_structure
from AIAssistLib.console import drawn_on, new_segmentation
from AIAssistLib.drafts import names_with_drafts
from AIAssistLib.section_qt import Section, ask, busy, fill_table, path_to_write
from AIAssistLib.structures import new_segment
from AIAssistLib.tags import forget_studies, noted_studies
from AIAssistLib.templates import Structure, Template, read_templates

#: The choice that is remembered: the name of the list of structures.
LIST = "structures"


class StructuresSection(Section):
    """Adds structures one after the other, by hand or from a template."""

    def __init__(self, panel):
        super().__init__(panel, "lesionLabel")
        self._templates: list[Template] = []
        self._read_templates()
        names = [t.name for t in self._templates]
        self.ui.templateCombo.addItems([_("Free choice"), *names])
        chosen = self.logic.settings.choice(LIST)
        self.ui.templateCombo.setCurrentIndex(names.index(chosen) + 1 if chosen in names else 0)
        self._offer_structures()
        self.ui.templateCombo.connect("currentIndexChanged(int)", self._template_chosen)
        self.ui.addStructureButton.connect("clicked()", self.add)
        self.ui.structureCombo.lineEdit().connect("returnPressed()", self.add)
        self.ui.nextStructureButton.connect("clicked()", self.next)
        self.ui.measureButton.connect("clicked()", self.measure)
        self.ui.csvButton.connect("clicked()", self._save_csv)
        self.ui.lesionTable.connect("cellDoubleClicked(int,int)", self._jump)
        #: What the person wants with segments of other images: to draw or to save, and the IDs of both nodes; where a
        #: node holds other voxels than before, its study instead of its ID.
        self._wanted: set[tuple[str, str, str]] = set()
        self._rows = []
        #: Name of the image that was measured.
        self._measured = ""

    def _read_templates(self) -> None:
        refused: list[str] = []
        for folder in (self.panel.resources / "Templates", self.logic.settings.folder / "templates"):
            found, bad = read_templates(folder)
            self._templates += found
            refused += bad
        self.tell(" ".join(refused), failed=bool(refused))

    # Nodes

    def nodes(self):
        """The volume and the segmentation in use; made, or taken from the views, where none is chosen.

        `ImageError` when there is no volume.
        """
        editor, volume = self.panel.editor, self.volume()
        segmentation = editor.segmentationNode()
        if segmentation is None:
            segmentation = new_segmentation(volume)
            editor.setSegmentationNode(segmentation)
        elif not segmentation.GetSegmentation().GetNumberOfSegments():
            forget_studies(segmentation)
            if drawn_on(segmentation) is not volume:
                segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
        if editor.sourceVolumeNode() is not volume:
            editor.setSourceVolumeNode(volume)
        return volume, segmentation

    def nodes_to_draw(self):
        """As `nodes`; where the segments are another image's, the person says whether to begin a segmentation anew.

        Another image's are also those that were drawn when the same node held other voxels.
        """
        volume, segmentation = self.nodes()
        other, asked = drawn_on(segmentation), ("draw", volume.GetID(), segmentation.GetID())
        name = volume.GetName()
        if other not in (None, volume):
            question = _("The segments in the panel were drawn on {other}. Begin a new segmentation for {image}?")
            question = question.format(other=other.GetName(), image=name)
        elif (noted := self._noted(segmentation, volume)) and (now := self._study_of(volume)) not in noted:
            asked = ("draw", now, segmentation.GetID())
            question = _(
                "{image} holds other voxels than when the segments were drawn (another time point?). "
                "Begin a new segmentation for what it holds now?"
            ).format(image=name)
        else:
            return volume, segmentation
        if asked in self._wanted or not ask(question):
            self._wanted.add(asked)
            return volume, segmentation
        segmentation = new_segmentation(volume)
        self.panel.editor.setSegmentationNode(segmentation)
        self.panel.editor.setSourceVolumeNode(volume)
        return volume, segmentation

    def nodes_to_save(self):
        """As `nodes`; `StudyError` where the segments are another image's, and not to be labels of this one as well.

        Another image's are also those that were drawn when the same node held other voxels.
        """
        volume, segmentation = self.nodes()
        other, asked = drawn_on(segmentation), ("save", volume.GetID(), segmentation.GetID())
        if other not in (None, volume):
            question = _("The segments in the panel were drawn on {other}. Save them as labels of {image}?")
            back = f"Nothing was saved; choose {other.GetName()!r}, on which it was drawn, to save it."
            self._agree(asked, question.format(other=other.GetName(), image=volume.GetName()), back)
        elif (noted := self._noted(segmentation, volume)) and noted != [now := self._study_of(volume)]:
            question, back = _of_other_voxels(now in noted)
            self._agree(("save", now, segmentation.GetID()), question.format(image=volume.GetName()), back)
        return volume, segmentation

    def _agree(self, asked: tuple[str, str, str], question: str, back: str) -> None:
        """Ask once whether labels are saved; `StudyError` with the way back where they are not."""
        if asked not in self._wanted:
            if not ask(question):
                raise StudyError(back)
            self._wanted.add(asked)

    def _noted(self, segmentation, volume) -> list[str]:
        """The studies on which segments were drawn, but for those of other images in the scene, as of another phase."""
        noted = noted_studies(segmentation)
        now = self._study_of(volume) if noted else ""  # which takes a while to find out
        return [one for one in noted if one == now or not self.assistant.studies.holds(one)]

    def _study_of(self, volume) -> str:
        """The id of the study that a volume node holds; most often it is known."""
        with busy():
            return self.assistant.studies.of(volume).study_id

    def volume(self):
        """The volume in use, or the one that the views show. `ImageError` when there is none."""
        volume = self.panel.editor.sourceVolumeNode() or self._shown_volume()
        if volume is None:
            raise ImageError("There is no image; load one first.")
        return volume

    def _shown_volume(self):
        manager = slicer.app.layoutManager()
        names = manager.sliceViewNames() if manager is not None else ()
        for name in names:
            composite = manager.sliceWidget(name).sliceLogic().GetSliceCompositeNode()
            node = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID() or "")
            if node is not None:
                return node
        return slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    # Structures

    def _template(self) -> Template | None:
        index = self.ui.templateCombo.currentIndex - 1
        return self._templates[index] if index >= 0 else None

    def _template_chosen(self) -> None:
        template = self._template()
        self.logic.settings.set_choice(LIST, template.name if template is not None else "")
        self._offer_structures()

    def _offer_structures(self) -> None:
        template = self._template()
        self.ui.structureCombo.clear()
        self.ui.structureCombo.addItems([s.label.name for s in template.structures] if template is not None else [])

    def add(self) -> None:
        """Add the structure that is named in the box, and begin to mark it."""
        self.attempt(self._add, self.ui.structureCombo.currentText.strip())

    def _add(self, name: str) -> None:
        if not name:
            raise AIAssistError("The structure has no name; type one, such as liver.")
        template = self._template()
        known = {s.label.name: s for s in template.structures} if template is not None else {}
        structure = known.get(name, Structure(describe_structure(name)))
        volume, segmentation = self.nodes_to_draw()
        self._window(structure, volume)
        self.panel.editor.saveStateForUndo()  # else undoing the new segment would undo what was before it as well
        self.panel.editor.setCurrentSegmentID(new_segment(segmentation, structure.label))
        self.panel.points()
        self.tell("")

    def next(self) -> None:
        """Accept the preview, if there is one, and go on with the next structure of the list."""
        self.attempt(self._next)

    def _next(self) -> None:
        self.panel.accept_if_any()
        _volume, segmentation = self.nodes_to_draw()
        template = self._template()
        if template is None:
            raise AIAssistError("No list of structures is chosen; choose one, or type a name and press Add.")
        segments = segmentation.GetSegmentation()
        names = [segments.GetNthSegment(n).GetName() for n in range(segments.GetNumberOfSegments())]
        structure = template.after(names)
        if structure is None:
            self.tell(_("All structures of {name} are there.").format(name=template.name))
            return
        self.ui.structureCombo.setCurrentText(structure.label.name)
        self._add(structure.label.name)

    @staticmethod
    def _window(structure: Structure, volume) -> None:
        display = volume.GetDisplayNode()
        if structure.window is not None and display is not None:
            display.SetAutoWindowLevel(False)
            display.SetWindowLevelMinMax(*structure.window)

    # Measurements

    def measure(self) -> None:
        """Measure all segments; the preview, if there is one, is accepted first."""
        self.attempt(self._measure)

    def _measure(self) -> None:
        from AIAssistLib.lesions import measure  # it needs scipy, which takes most of a second to import

        self.panel.accept_if_any()
        volume, segmentation = self.nodes()
        self._show_rows(measure(segmentation, volume), volume.GetName())
        self.tell(left_out(segmentation))

    def scene_closes(self) -> None:
        """Nothing is wanted any more: the next scene's nodes may have the same IDs."""
        self._wanted.clear()

    def image_changed(self) -> None:
        """Another image or segmentation is in the panel: what was measured is not its own."""
        self._show_rows([], "")

    def _show_rows(self, rows: list, image: str) -> None:
        self._rows, self._measured = rows, image
        titles = [_("Structure"), _("ml"), _("Diameter (mm)"), _("Mean grey")]
        texts = [[r.name, f"{r.millilitres:.2f}", f"{r.diameter:.1f}", f"{r.mean:.1f}"] for r in rows]
        fill_table(self.ui.lesionTable, titles, texts)
        self.ui.csvButton.setEnabled(bool(rows))

    def _jump(self, row: int) -> None:
        self.attempt(self._jump_to, row)

    def _jump_to(self, number: int) -> None:
        _volume, segmentation = self.nodes()
        row = self._rows[number]
        if segmentation.GetSegmentation().GetSegment(row.segment) is None:
            raise StudyError(f"{row.name!r} was removed; press Measure again.")
        self.panel.editor.setCurrentSegmentID(row.segment)
        slicer.modules.markups.logic().JumpSlicesToLocation(*row.middle, True)

    def _save_csv(self) -> None:
        self.attempt(self._write_csv)

    def _write_csv(self) -> None:
        from AIAssistLib.lesions import write_csv

        self._measure()  # anew: a segment may have been corrected or renamed since
        proposed = self.logic.settings.path_for(f"{self._measured} lesions.csv")
        chosen = qt.QFileDialog.getSaveFileName(self.panel.widget, _("Save the table"), proposed, "CSV (*.csv)")
        path = path_to_write(chosen, ".csv")
        if path is not None:
            write_csv(self._rows, path, self._measured)
            self.logic.settings.note_written(path)


def _of_other_voxels(mixed: bool) -> tuple[str, str]:
    """What to ask before segments are saved that were drawn when the image held other voxels, and the way back.

    With ``mixed`` some were drawn on what it holds now.
    """
    if mixed:
        question = _(
            "Some of the segments in the panel were drawn when {image} held other voxels (another time point?). "
            "Save all of them as labels of what it holds now?"
        )
        return question, "Nothing was saved; remove the segments that are of another time point, and save again."
    question = _(
        "{image} holds other voxels than when the segments were drawn (another time point?). Save them as its labels?"
    )
    return question, "Nothing was saved; go back to the time point on which it was drawn."


def left_out(segmentation) -> str:
    """What to say of segments with marks that nobody accepted: nothing of those is measured or exported."""
    names = names_with_drafts(segmentation)
    text = _("Not in it, since their marks are not accepted: {names}.")
    return text.format(names=", ".join(names)) if names else ""
