"""Which files that are no DICOM should be slices, by their names: broken copies leave files empty or full of zeros."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

#: What counts up in the names of a series' files, by tens or sixteens.
_NUMBER = re.compile("[0-9a-f]*[0-9][0-9a-f]*")


def lost_slices(strangers: Iterable[Path], slices: Iterable[Path]) -> list[Path]:
    """Those among files that are no DICOM that end in ``.dcm``, or are called as the slices are but for numbers.

    Hidden files are none: macOS puts one beside each slice that it copies.
    """
    known = {_pattern(path) for path in slices}
    seen = (path for path in strangers if not path.name.startswith("."))
    return [path for path in seen if path.suffix.lower() == ".dcm" or _pattern(path) in known]


def _pattern(path: Path) -> str:
    return _NUMBER.sub("#", path.name.lower())
