"""What the ground truth says of a study and of a version of a label."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from aiassist.groundtruth.index import ACCEPTED, LabelRow, State, StudyRow
from aiassist.imaging import Label, describe_structure


@dataclass(frozen=True)
class StudyRecord:
    """One image of the store: its id (see `Volume.study_id`), name, and when it was added (UTC)."""

    id: str
    name: str
    added: datetime
    from_dicom: bool


@dataclass(frozen=True)
class LabelVersion:
    """One version of one structure's label.

    ``mask`` is the hash of its voxels (`MaskPatch.version`), ``parent`` the number of the version
    it was made from, ``seconds`` and ``edits`` what it cost the person. Times are UTC.
    """

    study: str
    structure: str
    number: int
    mask: str
    voxels: int
    author: str
    made: datetime
    parent: int | None
    model: str | None
    model_version: str | None
    prompts: dict | None
    seconds: float | None
    edits: int | None
    comment: str
    state: State
    path: Path

    @property
    def label(self) -> Label:
        """Name, colour and code."""
        return describe_structure(self.structure)

    def to_json(self) -> dict:
        """All of it as JSON, but for its place on the disk."""
        data = asdict(self)
        del data["path"]
        return {**data, "made": self.made.isoformat(), "state": self.state.value}


class Newest(NamedTuple):
    """Which version of a structure is the newest, and when it was made (UTC)."""

    structure: str
    number: int
    made: datetime


def study_record(row: StudyRow) -> StudyRecord:
    """The record of a row of the index."""
    return StudyRecord(row.id, row.name, row.added, row.dicom is not None)


def study_to_json(record: StudyRecord, states: dict[str, State]) -> dict:
    """A study as JSON, given the states of the newest version of each of its structures."""
    done = bool(states) and set(states.values()) <= set(ACCEPTED)
    said = {**asdict(record), "added": record.added.isoformat()}
    return {**said, "structures": len(states), "state": "done" if done else "todo"}


def label_version(row: LabelRow, folder: Path) -> LabelVersion:
    """The record of a row of the index, for a store in `folder`."""
    names = LabelVersion.__dataclass_fields__.keys() - {"path"}
    return LabelVersion(**{name: getattr(row, name) for name in names}, path=folder / row.file)
