"""A studies folder: images, and for each structure all versions of its label."""

from __future__ import annotations

import os
import re
import time
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from aiassist.errors import BrokenStoreError, ImageError, NotNewestError, NotStoredError, StoreError
from aiassist.files import UNFINISHED, sync, whole_file
from aiassist.groundtruth.index import LabelRow, State, StudyRow
from aiassist.groundtruth.names import check_said, folder_name, key_of
from aiassist.groundtruth.records import LabelVersion, Newest, label_version, study_to_json
from aiassist.groundtruth.studies import Studies
from aiassist.imaging import MaskPatch, describe_structure, read_volume
from aiassist.imaging.segmentation_file import write_segmentation
from aiassist.prompts import Prompts

#: Names of the files of label versions.
VERSION = re.compile(r"v(\d{4,})\.seg\.nrrd")


class GroundTruthStore(Studies):
    """The ground truth of a folder of studies.

    Nothing in it is ever overwritten: a correction, and even a restored old version, is a new
    version. A voxel file is written under a temporary name, flushed to the disk, renamed, and only
    then entered in the index, so the index never points at a file that is not whole, whenever the
    process is killed.

    Parameters
    ----------
    folder : str or Path
        Made when missing.
    url : str, optional
        SQLAlchemy URL of the index; SQLite inside the folder when absent.

    Raises
    ------
    StoreError
        When the index cannot be opened.
    OSError
        When the folder cannot be made or written.
    """

    def add(
        self,
        study: str,
        structure: str,
        mask: MaskPatch,
        *,
        author: str,
        model: str | None = None,
        model_version: str | None = None,
        prompts: Prompts | None = None,
        seconds: float | None = None,
        edits: int | None = None,
        comment: str = "",
        state: State = State.DRAFT,
        parent: int | None = None,
        newest: int | None = None,
    ) -> LabelVersion:
        """Save a new version of a structure's label.

        Parameters
        ----------
        study : str
            Id of a study in the store.
        structure : str
            Its name; upper and lower case are the same structure.
        mask : MaskPatch
            The whole structure.
        author : str
            Who answers for it.
        model, model_version : str, optional
            What it came from; absent when drawn by hand.
        prompts : Prompts, optional
            What the person said to get it.
        seconds, edits : number, optional
            What it cost the person.
        comment : str
        state : State
        parent : int, optional
            Number of the version it was made from, 0 for none; the latest when absent.
        newest : int, optional
            Number of the version that must be the newest one still; `NotNewestError` when another is.

        Returns
        -------
        LabelVersion
            When this returns, the version is on the disk for good.
        """
        check_said(author, comment=comment, model=model, model_version=model_version)
        row = LabelRow(
            study=study,
            key=key_of(structure),
            structure=structure,
            mask=mask.version,
            voxels=int(mask.mask.sum()),
            author=author,
            parent=parent,
            model=model,
            model_version=model_version,
            prompts=replace(prompts, prior=None).to_json() if prompts is not None else None,
            seconds=seconds,
            edits=edits,
            comment=comment,
            state=state,
        )
        self._enter(row, mask, newest)
        return label_version(row, self.folder)

    def _enter(self, row: LabelRow, mask: MaskPatch, newest: int | None) -> None:
        """Write the voxels of a version, number it, and enter it in the index; not beside another than the `newest`."""
        geometry = self.geometry(row.study)
        home = self.folder / "studies" / row.study / folder_name(row.key)
        home.mkdir(parents=True, exist_ok=True)
        sync(home.parent)
        finished = home / f"{UNFINISHED}{os.getpid()}-{time.time_ns()}.seg.nrrd"
        with whole_file(finished) as temporary:
            labelmap = mask.to_mask(geometry.shape).astype(np.uint8)
            write_segmentation(temporary, labelmap, geometry, [describe_structure(row.structure)])
        try:
            with self._session() as session:
                # SQLite's transaction holds the write lock already; other databases lock the study's row.
                if session.scalar(select(StudyRow.id).where(StudyRow.id == row.study).with_for_update()) is None:
                    raise NotStoredError(f"The study {row.study} was removed meanwhile; add its image again.")
                last = self._last_number(session, row.study, row.key)
                if newest not in (None, last):
                    raise NotNewestError(f"{row.structure!r} got version {last} meanwhile; look at that one.")
                row.number = 1 + max(last, _last_file(home))
                if row.parent is None:
                    row.parent = last
                row.parent = row.parent or None
                path = self._version_path(home, row.number)
                row.file, row.made = self._relative(path), datetime.now(UTC)
                finished.replace(path)
                sync(home)
                session.add(row)
        except BaseException:
            finished.unlink(missing_ok=True)
            self._drop_unindexed(row, home)
            raise

    def _drop_unindexed(self, row: LabelRow, home: Path) -> None:
        """Remove the file of a version that failed after it was renamed, unless the index has it all the same."""
        with suppress(StoreError), self._session() as session:
            if row.file is not None and self._last_number(session, row.study, row.key) < row.number:
                self._version_path(home, row.number).unlink(missing_ok=True)

    def worklist(self) -> list[dict]:
        """All studies as JSON, oldest first: what there is to do.

        ``structures`` is how many have a label; ``state`` is "done" when there are some and the newest version of each
        is submitted or approved, else "todo".
        """
        newest: dict[str, dict[str, State]] = {}
        query = select(LabelRow.study, LabelRow.key, LabelRow.state).order_by(LabelRow.number)
        with self._session() as session:
            for study, key, state in session.execute(query):
                newest.setdefault(study, {})[key] = state
        return [study_to_json(record, newest.get(record.id, {})) for record in self.studies()]

    def history(self, study: str, structure: str | None = None) -> list[LabelVersion]:
        """All label versions of a study (of one structure), oldest first."""
        query = select(LabelRow).where(LabelRow.study == study).order_by(LabelRow.key, LabelRow.number)
        if structure is not None:
            query = query.where(LabelRow.key == key_of(structure))
        with self._session() as session:
            return [label_version(row, self.folder) for row in session.scalars(query)]

    def latest(self, study: str) -> dict[str, LabelVersion]:
        """The newest version of each structure of a study, by the structure's name."""
        newest = {key_of(v.structure): v for v in self.history(study)}
        return {version.structure: version for version in newest.values()}

    def structures(self, study: str | None = None) -> dict[str, list[Newest]]:
        """What is newest of each structure of each study that has labels (of one study), read at once.

        The structure that was saved first comes first, so that one that is added later changes no place of another.
        """
        newest: dict[str, dict[str, Newest]] = {}
        columns = (LabelRow.study, LabelRow.key, LabelRow.structure, LabelRow.number, LabelRow.made)
        query = select(*columns).order_by(LabelRow.id)
        if study is not None:
            query = query.where(LabelRow.study == study)
        with self._session() as session:
            for of, key, *said in session.execute(query):
                newest.setdefault(of, {})[key] = Newest(*said)
        return {of: list(labels.values()) for of, labels in newest.items()}

    def accepted(self, drafts: bool = False) -> dict[str, list[LabelVersion]]:
        """The labels of each study that somebody stands for, oldest study first.

        Of each structure it is the newest version that is no draft, if that was not rejected; a draft that was begun on
        top of it changes nothing, even when it is rejected. With `drafts` a draft on top of it that was not rejected
        takes its place.
        """
        newest: dict[str, dict[str, LabelVersion | None]] = {study.id: {} for study in self.studies()}
        standing, begun = {}, set()  # the newest without any drafts; drafts, and those that were rejected
        with self._session() as session:
            for row in session.scalars(select(LabelRow).order_by(LabelRow.key, LabelRow.number)):
                is_rejected_draft = row.state is State.REJECTED and (row.study, row.key, row.parent) in begun
                version = label_version(row, self.folder)
                if row.state is State.DRAFT or is_rejected_draft:
                    begun.add((row.study, row.key, row.number))
                else:
                    standing[row.study, row.key] = version
                is_taken = drafts and row.state is State.DRAFT
                newest.setdefault(row.study, {})[row.key] = version if is_taken else standing.get((row.study, row.key))
        good = {s: [v for v in of.values() if v and v.state is not State.REJECTED] for s, of in newest.items()}
        return {study: versions for study, versions in good.items() if versions}

    def version(self, study: str, structure: str, number: int | None = None) -> LabelVersion:
        """One version, the newest when no number is given; `NotStoredError` when there is none."""
        versions = self.history(study, structure)
        chosen = versions[-1:] if number is None else [v for v in versions if v.number == number]
        if not chosen:
            known = f"its versions are {', '.join(str(v.number) for v in versions)}"
            if not versions:
                known = f"its structures are {', '.join(self.latest(study)) or 'none yet'}"
            wanted = "no label" if number is None else f"no version {number}"
            raise NotStoredError(f"There is {wanted} of {structure!r} in the study {study}; {known}.")
        return chosen[0]

    def mask(self, version: LabelVersion) -> MaskPatch:
        """The voxels of a version; `BrokenStoreError` when its file no longer holds what was saved."""
        what = f"{version.structure!r} v{version.number}"
        if not version.path.exists():
            raise BrokenStoreError(f"{version.path}, which holds {what}, is gone; restore it from a backup.")
        try:
            patch = MaskPatch.of_mask(read_volume(version.path).voxels != 0)
        except ImageError as error:
            raise BrokenStoreError(
                f"{version.path}, which holds {what}, is damaged; restore it from a backup."
            ) from error
        if patch.version != version.mask:
            raise BrokenStoreError(
                f"{version.path} was changed after it was saved as {what}; restore it from a backup."
            )
        return patch

    def restore(self, study: str, structure: str, number: int, author: str) -> LabelVersion:
        """Make an old version the newest again, as a new version of the same voxels."""
        old = self.version(study, structure, number)
        return self._again(old, author, f"Restored version {number} by {old.author}.", State.DRAFT)

    def review(
        self, study: str, structure: str, state: State, author: str, comment: str = "", number: int | None = None
    ) -> LabelVersion:
        """Approve or reject the newest version of a label, as a new version of the same voxels.

        Parameters
        ----------
        study : str
            Id of a study in the store.
        structure : str
        state : State
            `State.APPROVED` or `State.REJECTED`.
        author : str
            Who reviews.
        comment : str
        number : int, optional
            The version that was looked at.

        Raises
        ------
        NotStoredError
            When there is no such label.
        NotNewestError
            When the version that was looked at is not the newest any more.
        StoreError
            When it is in this state already.
        """
        newest = self.version(study, structure)
        what = f"{newest.structure!r} version {newest.number} by {newest.author}"
        if number not in (None, newest.number):
            raise NotNewestError(f"Version {number} is not the newest one, which is {what}; look at that one.")
        if newest.state is state:
            raise StoreError(f"{what} is {state.value} already.")
        return self._again(newest, author, comment, state, newest.number)

    def _again(
        self, version: LabelVersion, author: str, comment: str, state: State, newest: int | None = None
    ) -> LabelVersion:
        """A new version of another's voxels, which came from the same model and prompts."""
        return self.add(
            version.study,
            version.structure,
            self.mask(version),
            author=author,
            model=version.model,
            model_version=version.model_version,
            prompts=Prompts.from_json(version.prompts) if version.prompts else None,
            comment=comment,
            state=state,
            parent=version.number,
            newest=newest,
        )

    def _last_number(self, session: Session, study: str, key: str) -> int:
        query = select(func.max(LabelRow.number)).where(LabelRow.study == study, LabelRow.key == key)
        return session.scalar(query) or 0

    @staticmethod
    def _version_path(home: Path, number: int) -> Path:
        return home / f"v{number:04d}.seg.nrrd"


def _last_file(home: Path) -> int:
    """The highest number of a version's file: an index that was restored from a backup may not know of it."""
    return max((int(found[1]) for path in home.iterdir() if (found := VERSION.fullmatch(path.name))), default=0)
