"""The panel's part on files: segments written for other programs."""

from __future__ import annotations

from pathlib import Path

import qt
from slicer.i18n import tr as _

from aiassist.errors import StudyError
from aiassist.imaging import Volume
from AIAssistLib.dicom_headers import with_series
from AIAssistLib.export import export
from AIAssistLib.label_files import is_segmentation, legend_of
from AIAssistLib.section_qt import Section, may_write, path_to_write
from AIAssistLib.structures_section_qt import left_out

#: The endings of DICOM files, and of labelmaps, which get a legend.
DICOM, LABELMAPS = ".dcm", (".nii.gz", ".nrrd")


class ExportSection(Section):
    """Writes all segments to a file."""

    def __init__(self, panel):
        super().__init__(panel, "saveLabel")
        formats = {
            _("Slicer segmentation"): ".seg.nrrd",
            _("NIfTI labelmap"): ".nii.gz",
            _("NRRD labelmap"): ".nrrd",
            _("DICOM segmentation"): DICOM,
        }
        #: The endings of the files in the order of the box.
        self._endings = list(formats.values())
        self.ui.exportCombo.addItems(list(formats))
        self.ui.exportButton.connect("clicked()", self.begin)

    def begin(self) -> None:
        """Accept the preview, if there is one, ask for the file's name and write it.

        For DICOM first look whether there are headers, and say why not.
        """
        self.attempt(self._begin, self._endings[self.ui.exportCombo.currentIndex])

    def _begin(self, ending: str) -> None:
        self.panel.accept_if_any()
        nodes = self.panel.structures.nodes()
        if ending != DICOM:
            self._choose(ending, nodes)
            return
        self.tell(_("Reading the DICOM headers"))
        study = self.assistant.studies.of(nodes[0])

        def seen(image) -> None:
            self.tell("")
            gone = any(node.GetScene() is None for node in nodes)
            if gone or self.assistant.studies.of(nodes[0]) is not study:
                raise StudyError("The image was changed or removed while its headers were read; export it again.")
            self._choose(ending, nodes, image)

        self.talk(with_series(self.assistant, nodes[0]), seen)

    def _choose(self, ending: str, nodes, image: Volume | None = None) -> None:
        proposed = self.logic.settings.path_for(f"{nodes[0].GetName()} labels{ending}")
        chosen = qt.QFileDialog.getSaveFileName(self.panel.widget, _("Export"), proposed, f"*{ending}")
        path = path_to_write(chosen, ending)
        if path is None:
            return
        if ending in LABELMAPS and not path.exists() and not may_write(legend_of(path)):  # that of another labelmap
            return
        self.logic.settings.note_written(path)
        self.export_to(path, nodes, image)

    def export_to(self, path: Path, nodes=None, image: Volume | None = None) -> None:
        """Write all segments to a file of the kind that its ending says.

        `nodes` are the volume and the segmentation, those in the panel when absent; `image` is the volume with its
        DICOM headers, if they were read.
        """
        if path.suffix.lower() == DICOM:
            self.attempt(self._export_dicom, path, nodes, image)
        else:
            self.attempt(self._export, path, nodes)

    def _export(self, path: Path, nodes) -> None:
        volume, segmentation = nodes or self.panel.structures.nodes()
        covered = export(segmentation, volume, path)
        alone = _("Written: {path}")
        legend = _("Written: {path}, and beside it {legend}, which says what each value is.")
        written = (alone if is_segmentation(path) else legend).format(path=path, legend=legend_of(path).name)
        lost = _(
            "Segments overlap, and a labelmap keeps one for each voxel, so voxels are missing of: {names}. Export a "
            "Slicer segmentation to keep them all."
        )
        parts = [written, lost.format(names=", ".join(covered)) if covered else "", left_out(segmentation)]
        self.tell(" ".join(part for part in parts if part))

    def _export_dicom(self, path: Path, nodes, image: Volume | None) -> None:
        from AIAssistLib.dicom_export import export_dicom  # it needs pydicom's dictionaries, which take their time

        volume, segmentation = nodes or self.panel.structures.nodes()
        reading = with_series(self.assistant, volume) if image is None else None
        self.tell(_("Writing {path}").format(path=path))

        def talk():
            known = image if reading is None else (yield from reading)
            yield from export_dicom(segmentation, volume, known, path)

        said = " ".join([_("Written: {path}").format(path=path), left_out(segmentation)]).strip()
        self.talk(talk(), lambda _nothing: self.tell(said))
