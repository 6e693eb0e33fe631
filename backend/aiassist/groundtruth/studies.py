"""The studies of a folder: images, and the DICOM headers that they came with."""

from __future__ import annotations

import logging
import shutil
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, select

from aiassist.errors import BrokenStoreError, ImageError, NotStoredError, SeriesError, StoreError
from aiassist.files import sync, whole_file
from aiassist.groundtruth.folder import StudiesFolder
from aiassist.groundtruth.index import LabelRow, StudyRow
from aiassist.groundtruth.names import check_text
from aiassist.groundtruth.records import StudyRecord, study_record
from aiassist.imaging import DicomSeries, Geometry, Volume, read_volume, write_volume
from aiassist.imaging.nrrd_files import read_nrrd_geometry

log = logging.getLogger(__name__)

#: Why headers of a second series are not taken.
OTHER_SERIES = (
    "This image is kept with the DICOM headers of another series, perhaps a copy of yours, and those stay; an "
    "administrator can remove them."
)


class Studies(StudiesFolder):
    """The images of a folder, each kept once; see `GroundTruthStore` for its parameters and errors."""

    def add_study(self, volume: Volume, name: str, check: bool = False) -> StudyRecord:
        """Keep an image; adding it again adds at most what is not there, its DICOM headers or a file that was lost.

        With `check` the file that is kept is read whole, and written anew when it is damaged.
        """
        check_text({"study name": name})
        study = volume.study_id
        with self._session() as session:
            row = session.get(StudyRow, study)
        if row is None:
            return study_record(self._write_study(study, volume, name))
        if not self._has_image(volume, check):
            self._write_image(study, volume)
        if row.dicom is None and volume.dicom is not None:
            row = self._enter_series(study, volume.dicom)
        return study_record(row)

    def _has_image(self, volume: Volume, whole: bool) -> bool:
        """Whether an image is on the disk as it was added, by its header or as a `whole`."""
        try:
            if whole:
                return self.image(volume.study_id).study_id == volume.study_id
            return self.geometry(volume.study_id).shape == volume.shape
        except (ImageError, OSError):
            return False

    def _write_image(self, study: str, volume: Volume) -> Path:
        home = self.folder / "studies" / study
        home.mkdir(parents=True, exist_ok=True)
        write_volume(home / "image.nrrd", volume)
        return home

    def _write_study(self, study: str, volume: Volume, name: str) -> StudyRow:
        home = self._write_image(study, volume)
        for folder in (home.parent, self.folder):
            sync(folder)
        with self._session() as session:
            row = session.get(StudyRow, study, with_for_update=True)
            if row is None:  # else another process added it meanwhile, perhaps without headers
                image = self._relative(home / "image.nrrd")
                row = StudyRow(id=study, name=name, image=image, dicom=None, added=datetime.now(UTC))
                session.add(row)
            if row.dicom is None and volume.dicom is not None:
                row.dicom = self._write_series(home, volume.dicom)
        return row

    def _write_series(self, home: Path, series: DicomSeries) -> str:
        path = home / "dicom.json.gz"
        with whole_file(path) as temporary:
            temporary.write_bytes(series.to_bytes())
        return self._relative(path)

    def series(self, study: str) -> DicomSeries | None:
        """The DICOM headers of a study, by id; None when it has none, `StoreError` when they are damaged."""
        path = self.series_file(study)
        try:
            return None if path is None else DicomSeries.from_bytes(path.read_bytes())
        except FileNotFoundError:
            raise BrokenStoreError(f"The DICOM headers {path} are gone; restore them from a backup.") from None

    def series_file(self, study: str) -> Path | None:
        """Where the DICOM headers of a study lie, by id; None when it has none."""
        row = self._study_row(study)
        return None if row.dicom is None else self.folder / row.dicom

    def add_series(self, study: str, series: DicomSeries) -> None:
        """Keep DICOM headers of a study that has none; `SeriesError` when it has those of another series."""
        known = self.series(study)
        if known is None:
            self._enter_series(study, series)
            known = self.series(study)
        if known is not None and known.identity != series.identity:
            raise SeriesError(OTHER_SERIES)

    def _enter_series(self, study: str, series: DicomSeries) -> StudyRow:
        """Keep the headers unless another process has kept some meanwhile: the transaction holds the write lock."""
        with self._session() as session:
            row = session.get(StudyRow, study, with_for_update=True)
            if row.dicom is None:
                row.dicom = self._write_series((self.folder / row.image).parent, series)
        return row

    def drop_series(self, study: str) -> None:
        """Forget the DICOM headers of a study, by id; its image and labels stay."""
        row = self._study_row(study)
        if row.dicom is None:
            return
        with self._session() as session:
            session.get(StudyRow, study).dicom = None
        with self._session() as session:  # not while another process writes new ones there
            if session.get(StudyRow, study, with_for_update=True).dicom is None:
                (self.folder / row.dicom).unlink(missing_ok=True)

    def remove_study(self, study: str) -> None:
        """Remove a study for good, by id: its image, its DICOM headers, and all versions of its labels.

        Where that is broken off, the study stays in the index, and can be removed again. `NotStoredError` when there is
        none, `OSError` when a file cannot be removed.
        """
        home = (self.folder / self._study_row(study).image).parent
        with self._session() as session:  # it holds the write lock, so that nobody adds a version meanwhile
            session.execute(delete(LabelRow).where(LabelRow.study == study))
            session.execute(delete(StudyRow).where(StudyRow.id == study))
            if home.exists():
                shutil.rmtree(home)
                sync(home.parent)

    def studies(self) -> list[StudyRecord]:
        """All studies, oldest first."""
        with self._session() as session:
            return [study_record(row) for row in session.scalars(select(StudyRow).order_by(StudyRow.added))]

    def has(self, study: str) -> bool:
        """Whether a study of this id is in the store."""
        with self._session() as session:
            return session.get(StudyRow, study) is not None

    def has_image(self, study: str) -> bool:
        """Whether a study of this id is in the store, and its image is on the disk; reads nothing of that."""
        with self._session() as session:
            row = session.get(StudyRow, study)
        return row is not None and (self.folder / row.image).exists()

    def study(self, name_or_id: str) -> StudyRecord:
        """A study by its name, its id, or the first digits of its id; `StoreError` unless exactly one fits."""
        everything = self.studies()
        found = [s for s in everything if s.id == name_or_id] or [s for s in everything if s.name == name_or_id]
        found = found or [s for s in everything if len(name_or_id) >= 4 and s.id.startswith(name_or_id)]
        if not found:
            raise NotStoredError(
                f"There is no study called {name_or_id!r} in {self.folder}; give a name, or at least four digits "
                "of the hash, as: aiassist truth list --studies shows them."
            )
        if len(found) > 1:
            ids = ", ".join(s.id[:8] for s in found[:5])
            raise StoreError(
                f"There are {len(found)} studies called {name_or_id!r} in {self.folder}; give one of {ids}."
            )
        return found[0]

    def geometry(self, study: str) -> Geometry:
        """The grid of a study's image, by id; reads no voxels."""
        return read_nrrd_geometry(self.folder / self._study_row(study).image)

    def _study_row(self, study: str) -> StudyRow:
        with self._session() as session:
            row = session.get(StudyRow, study)
        if row is None:
            raise NotStoredError(f"There is no study {study!r} in {self.folder}.")
        return row

    def image(self, study: str) -> Volume:
        """The image of a study, by id, without its DICOM headers."""
        return read_volume(self.folder / self._study_row(study).image)

    def volume(self, study: str) -> Volume:
        """The image of a study, by id, with its DICOM headers if it has any that can be read."""
        volume = self.image(study)
        try:
            return volume.with_dicom(self.series(study))
        except StoreError:
            log.warning("The DICOM headers of the study %s are damaged; it is used without.", study)
            return volume
