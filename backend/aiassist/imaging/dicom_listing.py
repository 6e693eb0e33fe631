"""Which DICOM series there are among the files of a folder, by the beginnings of their headers."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.filereader import read_partial

from aiassist.errors import ImageError
from aiassist.imaging.dicom_header import damage_said, unheard
from aiassist.imaging.dicom_names import lost_slices

#: Where the word DICM stands in a DICOM file.
MAGIC = 128
#: What is read of a header, which goes no farther than the last of these.
_NAMES = ("SOPClassUID", "SeriesDescription", "SeriesInstanceUID", "SeriesNumber", "ImagePositionPatient", "Rows")
_TAGS = [pydicom.tag.Tag(name) for name in _NAMES]
_LAST = _TAGS[-1]


@dataclass(frozen=True)
class ListedSeries:
    """A series, or a file of one that holds several slices: number and description of the series, and its files."""

    name: str
    files: tuple[Path, ...]


def listing_series(files: Iterable[Path]) -> Generator[None, None, list[ListedSeries]]:
    """Find the series among some files, by number; yields after each file, for who must not wait.

    A few bytes of what is no DICOM file are read, and a header's beginning of what is one. Reports, segmentations and
    pictures that lie nowhere in the patient are left out. Damaged files, and those that are called as slices and are no
    DICOM, belong to the only series beside them, so that whoever reads it hears of them, else they make one alone.
    """
    known: dict[tuple[str, str], list[tuple[Path, pydicom.Dataset]]] = {}
    damaged, strangers = [], []
    for path in sorted(files):
        yield
        if not _is_dicom(path):
            strangers.append(path)
            continue
        try:
            header = _beginning(path)
        except (ImageError, OSError):
            damaged.append(path)
            continue
        if is_cut_off(header):
            damaged.append(path)
        elif _is_placed(header):
            own = path.name if is_enhanced(kind_of(header)) else ""  # each file is an image
            known.setdefault((str(header.get("SeriesInstanceUID", "")), own), []).append((path, header))
    damaged += lost_slices(strangers, [path for slices in known.values() for path, _ in slices])
    found = [_listed(slices, damaged if len(known) == 1 else []) for _, slices in sorted(known.items(), key=_order)]
    return found if not damaged or len(known) == 1 else [*found, ListedSeries("", tuple(damaged))]


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(MAGIC + 4)[MAGIC:] == b"DICM"
    except OSError:
        return False


def _beginning(path: Path) -> pydicom.Dataset:
    """The header's first part; `ImageError` when it is damaged."""
    with path.open("rb") as file, unheard(), damage_said(path):
        header = read_partial(file, lambda tag, _vr, _length: tag > _LAST, specific_tags=_TAGS)
        for name in _NAMES:
            header.get(name)  # which reads the value
        return header


def kind_of(header) -> str:
    """The name of what kind of object a file holds, such as "CT Image Storage"; empty when it does not say."""
    said = header.get("SOPClassUID") or header.file_meta.get("MediaStorageSOPClassUID") or ""
    return pydicom.uid.UID(said).name


def is_cut_off(header) -> bool:
    """Whether a header ends before the size of the image that its file should hold."""
    kind = kind_of(header)
    return "Rows" not in header and (not kind or kind.endswith("Image Storage"))


def _is_placed(header) -> bool:
    kind = kind_of(header)
    is_slice = "Rows" in header and "ImagePositionPatient" in header and "Segmentation" not in kind
    return is_slice or is_enhanced(kind)


def is_enhanced(kind: str) -> bool:
    """Whether files of a kind hold several slices."""
    return kind.removeprefix("Legacy Converted ").startswith("Enhanced ") and kind.endswith("Image Storage")


def _order(item) -> tuple:
    which, slices = item
    number = str(slices[0][1].get("SeriesNumber") or "")
    return (int(number) if number.isdecimal() else 0, which)


def _listed(slices, damaged: list[Path]) -> ListedSeries:
    header = slices[0][1]
    said = (str(header.get(name) or "").strip() for name in ("SeriesNumber", "SeriesDescription"))
    files = tuple(sorted([*(path for path, _ in slices), *damaged]))
    return ListedSeries(" ".join(part for part in said if part), files)
