"""What a DICOM series says of itself: the headers of its slices, matched to the slices of a volume."""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from aiassist.errors import ImageError, StoreError
from aiassist.imaging.geometry import Geometry
from aiassist.words import counted

#: A slice lies where its header says to within this share of a voxel, or this far in mm along each axis, as where
#: positions are rounded to 0.1 mm, or the header is another image's.
NEAR, ROUNDED = 0.1, 0.07
#: Tags of what all slices of a series must agree in, and what to call it.
SHARED = {
    "00100020": "patients",
    "0020000D": "studies",
    "0020000E": "series",
    "00200052": "frames of reference",
}
_INSTANCE, _ROWS, _COLUMNS = "00080018", "00280010", "00280011"
_POSITION, _ORIENTATION, _SPACING, _THICKNESS = "00200032", "00200037", "00280030", "00180050"
#: Sequences of a multi-frame file: what holds for all frames, and for each; in them those that say where frames lie.
_SHARED_GROUPS, _FRAME_GROUPS = "52009229", "52009230"
_PLACING = {"00209113": (_POSITION,), "00209116": (_ORIENTATION,), "00289110": (_SPACING, _THICKNESS)}


@dataclass(frozen=True)
class DicomSeries:
    """What a DICOM series says of itself, kept so that results can be sent back as DICOM.

    Parameters
    ----------
    headers : tuple of dict
        One DICOM JSON object (PS3.18 F) per slice, in order of k, without pixel data; or that of a multi-frame file.
    """

    headers: tuple[dict, ...] = field(repr=False)

    @property
    def patient_id(self) -> str:
        """Patient ID (0010,0020)."""
        return text_of(self.headers[0], "00100020")

    @property
    def study_uid(self) -> str:
        """Study Instance UID (0020,000D)."""
        return text_of(self.headers[0], "0020000D")

    @property
    def series_uid(self) -> str:
        """Series Instance UID (0020,000E)."""
        return text_of(self.headers[0], "0020000E")

    @property
    def modality(self) -> str:
        """Modality (0008,0060), as "CT"."""
        return text_of(self.headers[0], "00080060")

    @property
    def identity(self) -> str:
        """Hash of the patient, the study, the series and its slices, in order: 32 hexadecimal digits.

        Two series of equal voxels differ in it, as an anonymised copy differs from its original.
        """
        said = [[text_of(header, tag) for tag in (*SHARED, _INSTANCE)] for header in self.headers]
        return hashlib.blake2b(json.dumps(said).encode(), digest_size=16).hexdigest()

    def slices_of_frames(self, geometry: Geometry) -> np.ndarray | None:
        """The slice k of each frame, in the order of the file; None where each slice has a file of its own.

        `ImageError` when the frames are not the slices of the grid.
        """
        frames = frames_of(self.headers[0])
        return _slices_of(frames, geometry, "frame") if frames else None

    def to_bytes(self) -> bytes:
        """All of it, compressed, for a file."""
        return gzip.compress(json.dumps(self.headers).encode(), 5, mtime=0)

    @classmethod
    def from_bytes(cls, data: bytes) -> DicomSeries:
        """Read what `to_bytes` wrote; `StoreError` when it is damaged."""
        try:
            headers = json.loads(gzip.decompress(data))
        except (OSError, EOFError, zlib.error, ValueError):
            headers = None
        if not isinstance(headers, list) or not headers or not all(isinstance(header, dict) for header in headers):
            raise StoreError(
                "The DICOM headers of this study are damaged on the disk; restore them from a backup, or remove them "
                "and send them again."
            )
        return cls(tuple(headers))

    @classmethod
    def matched(cls, headers: Sequence[Mapping], geometry: Geometry) -> DicomSeries:
        """The series of headers in any order, when each is that of one slice of the grid.

        They are told by where they lie (Image Position and Orientation, Pixel Spacing), not by their order; so are the
        frames of a single header of a multi-frame file.

        Raises
        ------
        ImageError
            When they are too few or too many, differ in patient, study, series or frame of reference, do not say where
            they lie, or lie elsewhere than the slices.
        """
        if len(headers) == 1 and frames_of(headers[0]):
            found = cls((dict(headers[0]),))
            found.slices_of_frames(geometry)
            return found
        _check_count(headers, geometry, "header")
        for tag, name in SHARED.items():
            if differ(headers, tag):
                raise ImageError(f"The DICOM headers are of several {name}.")
        instances = {text_of(header, _INSTANCE) for header in headers}
        if len(instances) < len(headers) or "" in instances:
            raise ImageError("The DICOM headers do not name each slice (SOP Instance UID).")
        slices = _slices_of(headers, geometry, "header")
        return cls(tuple(dict(headers[n]) for n in np.argsort(slices)))


def differ(headers: Sequence[Mapping], tag: str) -> bool:
    """Whether headers say different things under a tag."""
    return len({text_of(header, tag) for header in headers}) > 1


def frames_of(header: Mapping) -> list[dict]:
    """Where the frames of a multi-frame file lie, each said as in the header of a slice; empty for another file's.

    From the Functional Groups of the DICOM standard, PS3.3 C.7.6.16.
    """
    shared, found = _first(header, _SHARED_GROUPS), []
    for groups in _items(header, _FRAME_GROUPS):
        frame = {tag: header[tag] for tag in (_ROWS, _COLUMNS) if tag in header}
        for group, tags in _PLACING.items():
            said = _first(groups, group) or _first(shared, group)
            frame |= {tag: said[tag] for tag in tags if tag in said}
        found.append(frame)
    return found


def _first(header: Mapping, tag: str) -> Mapping:
    """The first item of a sequence; empty without one."""
    return next(iter(_items(header, tag)), {})


def _items(header: Mapping, tag: str) -> list[Mapping]:
    """The items of a sequence."""
    element = header.get(tag, {})
    return element.get("Value", []) if element.get("vr") == "SQ" else []


def text_of(header: Mapping, tag: str) -> str:
    """The first value of an element of a DICOM JSON object as text; empty when it has none."""
    values = header.get(tag, {}).get("Value") or [""]
    value = values[0].get("Alphabetic", "") if isinstance(values[0], Mapping) else values[0]
    return "" if value is None else str(value)


def _check_count(headers: Sequence[Mapping], geometry: Geometry, what: str) -> None:
    found, slices = counted(len(headers), f"DICOM {what}"), counted(geometry.shape[0], "slice")
    if len(headers) != geometry.shape[0]:
        raise ImageError(f"{found} for {slices}: there must be one for each.")


def _slices_of(headers: Sequence[Mapping], geometry: Geometry, what: str) -> np.ndarray:
    """The slice k that each header, or frame, is of; `ImageError` unless there is one for each slice."""
    _check_count(headers, geometry, what)
    slices = [_slice_of(header, geometry) for header in headers]
    doubled = [k for k, times in Counter(slices).items() if times > 1]
    if doubled:
        raise ImageError(f"Two DICOM {what}s are of the same slice, {doubled[0]}.")
    return np.array(slices)


def _slice_of(header: Mapping, geometry: Geometry) -> int:
    """The number k of the slice that a header is of; `ImageError` when it is of none."""
    columns, rows, _ = geometry.size
    said = (_numbers(header, _COLUMNS, 1)[0], _numbers(header, _ROWS, 1)[0])
    if said != (columns, rows):
        raise ImageError(f"The DICOM headers are of slices of {said[0]:g}x{said[1]:g} pixels, not {columns}x{rows}.")
    first, turned = _numbers(header, _POSITION, 3), _numbers(header, _ORIENTATION, 6)
    down, right = _numbers(header, _SPACING, 2)
    sides = np.array([np.zeros(3), turned[:3] * right * (columns - 1), turned[3:] * down * (rows - 1)])
    found = geometry.to_ijk(first + sides)
    k = round(np.clip(np.nan_to_num(found[0, 2]), 0, geometry.shape[0] - 1))
    offsets = np.abs(found - [[0, 0, k], [columns - 1, 0, k], [0, rows - 1, k]])
    off = offsets.max()
    if not (off <= NEAR or (offsets * geometry.spacing).max() <= ROUNDED):
        raise ImageError(
            f"A DICOM header lies {off:.3g} voxels from the slice that is nearest to it, {k}; the image was moved, "
            "turned, cropped or resampled."
        )
    return k


def _numbers(header: Mapping, tag: str, count: int) -> np.ndarray:
    values = header.get(tag, {}).get("Value") or []
    if len(values) != count or not all(isinstance(v, int | float) and abs(v) < 1e9 for v in values):
        raise ImageError(f"A DICOM header does not say where its slice lies: ({tag[:4]},{tag[4:]}) is missing.")
    return np.array(values, dtype=float)
