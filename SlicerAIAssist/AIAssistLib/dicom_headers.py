"""The DICOM headers of a volume that came from Slicer's DICOM database, or from the files of a folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import slicer

from aiassist.errors import ConnectionLostError, ImageError
from aiassist.imaging import DicomSeries, Geometry, Volume
from aiassist.imaging.dicom_header import read_header
from AIAssistLib.talks import Conversation

#: Attribute of volume nodes: the SOP Instance UIDs of the slices, between spaces.
UIDS = "DICOM.instanceUIDs"
#: Attribute of volume nodes that did not come from the database: the files of the slices, as a JSON list.
FILES = "AIAssist.Files"


def keep_files(volume_node, series: DicomSeries, files: Sequence[Path]) -> None:
    """Note from which files of a series a volume was read, so that their headers are found without the database."""
    volume_node.SetAttribute(UIDS, " ".join(header["00080018"]["Value"][0] for header in series.headers))
    volume_node.SetAttribute(FILES, json.dumps([str(path) for path in files]))


def files_of(volume_node) -> list[str]:
    """The files that `keep_files` noted."""
    return json.loads(volume_node.GetAttribute(FILES) or "[]")


def series_of(volume_node, geometry: Geometry) -> Conversation[DicomSeries]:
    """Read the headers of a volume's slices, one file a turn.

    `ImageError` when the volume did not come from the DICOM database, is not there any more, or was changed since it
    was loaded, so that its slices are not those of the files.
    """
    return DicomSeries.matched((yield from _headers_of(volume_node)), geometry)


def _headers_of(volume_node) -> Conversation[list[dict]]:
    uids = (volume_node.GetAttribute(UIDS) or "").split()
    if not uids:
        raise ImageError(
            f"{volume_node.GetName()!r} did not come from Slicer's DICOM database, so nothing says whose it is; import "
            "its series in the module DICOM and load it from there."
        )
    headers = []
    for path in files_of(volume_node) or map(_file_of, uids):
        headers.append(read_header(path))
        yield
    return headers


def _file_of(uid: str) -> str:
    database = getattr(slicer, "dicomDatabase", None)
    if database is None or not database.isOpen:
        raise ImageError("Slicer's DICOM database is not open; open the module DICOM, then try again.")
    path = database.fileForInstance(uid)
    if not path:
        raise ImageError("A slice of the image is not in Slicer's DICOM database any more; import its series again.")
    return path


def give_series(conversations, volume: Volume, volume_node) -> Conversation[str]:
    """Give the DICOM headers of an opened study to the backend; returns why it has none of them, or nothing.

    Nothing, too, for a volume that did not come from DICOM. The study is used in any case. What no second try would
    change is remembered as long as the study is open: of the same voxels there may be several series.
    """
    uids = volume_node.GetAttribute(UIDS)
    if not uids:
        return ""
    said = conversations.said_of_series(volume.study_id, uids)
    if said is not None:
        return said
    try:
        headers = yield from _headers_of(volume_node)
    except ImageError as error:  # the person can bring the files back
        return str(error)
    try:
        series = DicomSeries.matched(headers, volume.geometry)
    except ImageError as error:
        conversations.note_series(volume.study_id, uids, str(error))
        return str(error)
    return (yield from conversations.give_series(volume.with_dicom(series), uids))


def with_series(assistant, volume_node) -> Conversation[Volume]:
    """A volume's study with its DICOM headers, from Slicer's database, or else from the backend, if it keeps some.

    The volume's own go first: they are the patient's whom the person sees. `ImageError` when there are none.
    """
    volume, conversations = assistant.studies.of(volume_node), assistant.conversations

    def talk():
        try:
            return volume.with_dicom((yield from series_of(volume_node, volume.geometry)))
        except ImageError as error:
            if volume_node.GetAttribute(UIDS):
                raise
            missing = error
        yield from volume.hashing()
        try:
            series = yield from conversations.series(volume.study_id, volume.geometry)
        except ConnectionLostError as error:
            raise missing from error
        if series is None:
            raise missing
        return volume.with_dicom(series)

    return talk()
