"""The header of one DICOM file as DICOM JSON (PS3.18 F), without private fields, pixels and other bulk data."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.uid import ImplicitVRLittleEndian

from aiassist.errors import AIAssistError, ImageError

DAMAGED = "{path} is a damaged DICOM file; copy it again."
#: Sequences within sequences are kept down to this depth.
DEPTH = 8
#: Value representations of whole numbers, other numbers, and text; those of bytes are left out.
_WHOLE = {"IS", "SL", "SS", "SV", "UL", "US", "UV"}
_NUMBERS = {"DS", "FD", "FL"}
_TEXT = {"AE", "AS", "CS", "DA", "DT", "LO", "LT", "SH", "ST", "TM", "UC", "UI", "UR", "UT"}
_KINDS = _WHOLE | _NUMBERS | _TEXT | {"PN"}
_DIGITS = set("0123456789ABCDEF")


def read_header(path: str | Path) -> dict:
    """The header of a DICOM file.

    Raises
    ------
    ImageError
        When there is no such file, or it is no DICOM file, or a damaged one.
    """
    path = Path(path)
    try:
        with unheard(), damage_said(path):
            return header_of(pydicom.dcmread(path, stop_before_pixels=True))
    except OSError as error:
        raise ImageError(f"{path} cannot be read ({error.strerror}); import its series again.") from error
    except InvalidDicomError as error:
        raise ImageError(f"{path} is no DICOM file; import its series again.") from error


@contextmanager
def damage_said(path: Path) -> Iterator[None]:
    """Whatever goes wrong in a damaged file becomes one `ImageError`; pydicom leaves open what that may be."""
    try:
        yield
    except (AIAssistError, InvalidDicomError, OSError):
        raise
    except Exception as error:
        raise ImageError(DAMAGED.format(path=path)) from error


def check_pixels(path: Path, header: pydicom.Dataset, frames: int = 1) -> None:
    """Raise `ImageError` when a file's uncompressed pixels are fewer than its header says: ITK would decode noise."""
    with unheard(), damage_said(path):
        if pydicom.uid.UID(header.file_meta.get("TransferSyntaxUID") or ImplicitVRLittleEndian).is_compressed:
            return
        pixels = pydicom.dcmread(path, defer_size=1, specific_tags=["PixelData"])
        pixels = pixels.get_item("PixelData", keep_deferred=True)
        size = frames * header.Rows * header.Columns * header.get("SamplesPerPixel", 1) * header.BitsAllocated // 8
    if pixels is None or pixels.length < size:
        raise ImageError(DAMAGED.format(path=path))


@contextmanager
def unheard() -> Iterator[None]:
    """Silence for pydicom: its warnings quote values, which may be a patient's, and no log is a place for those."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def header_of(dataset: pydicom.FileDataset) -> dict:
    """The header of a dataset that was read; changes it as `identified` does."""
    return cleaned(identified(dataset).to_json_dict(suppress_invalid_tags=True))


def identified(dataset: pydicom.FileDataset) -> pydicom.FileDataset:
    """The dataset without private fields; identifiers emptied by anonymisation come from the file's meta, if there."""
    dataset.remove_private_tags()
    for name in ("SOPInstanceUID", "SOPClassUID"):
        said = dataset.file_meta.get(f"MediaStorage{name}")
        if said and not dataset.get(name):
            setattr(dataset, name, said)
    return dataset


def cleaned(header: Mapping, depth: int = DEPTH) -> dict:
    """A DICOM JSON object without all that is not text, numbers, names and sequences of those.

    What is left reads without fault, whoever sent it, and refers to nothing outside of itself.
    """
    kept = {}
    for tag, element in header.items():
        if not _is_public_tag(tag) or not isinstance(element, Mapping):
            continue
        kind, values = element.get("vr"), element.get("Value", [])
        if not isinstance(kind, str) or not isinstance(values, list):
            continue
        if kind == "SQ" and depth and all(isinstance(item, Mapping) for item in values):
            kept[tag] = {"vr": kind, "Value": [cleaned(item, depth - 1) for item in values]}
        elif kind in _KINDS and all(_fits(kind, value) for value in values):
            kept[tag] = {"vr": kind, "Value": values} if values else {"vr": kind}
    return kept


def _is_public_tag(tag) -> bool:
    return isinstance(tag, str) and len(tag) == 8 and set(tag) <= _DIGITS and int(tag[:4], 16) % 2 == 0


def _fits(kind: str, value) -> bool:
    """Whether a value is one of its value representation."""
    if value is None:
        return True
    if isinstance(value, bool):
        return False
    if kind in _WHOLE:
        return isinstance(value, int) and abs(value) < 2**63
    if kind in _NUMBERS:
        return isinstance(value, int | float) and math.isfinite(value)
    if kind == "PN":
        return isinstance(value, Mapping) and all(_is_text(part) for pair in value.items() for part in pair)
    return kind in _TEXT and _is_text(value)


def _is_text(value) -> bool:
    """Whether something is text, without halves of characters that cannot be written."""
    return isinstance(value, str) and not any("\ud800" <= character <= "\udfff" for character in value)
