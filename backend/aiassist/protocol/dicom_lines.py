"""DICOM headers on their way: one a line, so that neither side holds more than one as text."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiassist.errors import UploadError
from aiassist.imaging import DicomSeries, Geometry
from aiassist.imaging.dicom_header import cleaned
from aiassist.words import counted

#: Content type: bytes, as of all that is no single JSON object.
LINES_TYPE = "application/octet-stream"
#: Most bytes of all lines, and of one, which may be of a multi-frame file of a thousand frames and more.
LINES, LINE = 32 * 2**20, 8 * 2**20


def line_of(header: Mapping) -> bytes:
    """A header as a line."""
    return json.dumps(header, allow_nan=False, separators=(",", ":")).encode() + b"\n"


def series_from_lines(data: bytes, geometry: Geometry) -> DicomSeries:
    """The series of lines in any order, of nothing but text, numbers, names and sequences.

    Raises
    ------
    UploadError
        When a line is no header.
    ImageError
        When they are not those of the grid's slices; see `DicomSeries.matched`.
    """
    count = data.count(b"\n")
    if count > geometry.shape[0]:
        raise UploadError(
            f"{counted(count, 'DICOM header')} for {counted(geometry.shape[0], 'slice')}: there must be one for each."
        )
    lines = data.removesuffix(b"\n").split(b"\n")
    return DicomSeries.matched([_header_of(line, number) for number, line in enumerate(lines, 1)], geometry)


def _header_of(line: bytes, number: int) -> dict:
    if len(line) > LINE:
        raise UploadError(f"Line {number} of the DICOM headers is longer than {LINE:,} bytes.")
    try:
        header = json.loads(line)
    except (ValueError, RecursionError):
        header = None
    if not isinstance(header, dict):
        raise UploadError(f"Line {number} of the DICOM headers is no DICOM JSON object.")
    return cleaned(header)
