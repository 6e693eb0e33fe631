"""The images of a folder and of the folders in it, one after the other."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path

from aiassist.errors import ImageError
from AIAssistLib.label_files import ENDINGS, images_among


@dataclass(frozen=True)
class Found:
    """An image that was found: its name, and its file, or the files of its DICOM series."""

    name: str
    files: tuple[Path, ...]
    is_series: bool = False


class Series:
    """The DICOM series of folders, looked for once: as long as a folder changes and has other files it is not."""

    def __init__(self):
        self._known: dict[Path, tuple[tuple, list[Found]]] = {}

    def of(self, folder: Path, files: list[Path]) -> Generator[None, None, list[Found]]:
        """The series among a folder's files; gives Slicer turns."""
        stamp = (_changed(folder), tuple(files))
        known = self._known.get(folder)
        if known is None or known[0] != stamp:
            known = self._known[folder] = (stamp, (yield from _series(folder, files)))
        return list(known[1])

    def forget(self) -> None:
        """Look again: a file may have been written anew in its place."""
        self._known.clear()


def after(
    folder: Path, current: Path | None, again: bool = False, series: Series | None = None
) -> Generator[None, None, Found | None]:
    """Find the image after the one of the file `current`, or the first; None at the end. Gives Slicer turns.

    With `again` it is that one itself, if it is still there. `series` remembers what was found before.
    Images come by name, a folder's files first, then its DICOM series, then the folders in it; files that hold labels
    are passed over, see `images_among`. Only the folder of the current image and those after it are looked into, as far
    as needed. `ImageError` when it is no folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; choose the one with the images.")
    series = series or Series()
    here = current.parent if current is not None and current.is_relative_to(folder) else None
    for place in _folders(folder, here):
        files = sorted(Path(entry.path) for entry in _entries(place) if entry.is_file())
        found = [Found(path.name, (path,)) for path in images_among(files)]
        known = found if again else found[:-1]
        is_next_a_file = any(current in one.files for one in known) if place == here else bool(found)
        if not is_next_a_file:
            found += yield from series.of(place, files)
        following = _following(found, current, again)
        if following is not None:
            return following
        yield
    return None


def _following(found: list[Found], current: Path | None, again: bool) -> Found | None:
    """The image after the one with this file, or that one; the first when there is none."""
    place = next((number for number, one in enumerate(found) if current in one.files), -1)
    place = place if again and place >= 0 else place + 1
    return found[place] if place < len(found) else None


def _folders(folder: Path, here: Path | None) -> Iterator[Path]:
    """A folder and those in it by name, from `here` on; on Windows case does not count, as paths are compared there."""
    if here is None or folder >= here:
        yield folder
    for inner in sorted(Path(entry.path) for entry in _entries(folder) if entry.is_dir(follow_symlinks=False)):
        if here is None or here.is_relative_to(inner) or inner >= here:
            yield from _folders(inner, here)


def _entries(folder: Path) -> list[os.DirEntry]:
    """What is in a folder; nothing of one that may not be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry for entry in entries if not entry.name.startswith(".")]
    except OSError:
        return []


def _changed(folder: Path) -> int:
    """When something came into a folder or went from it; 0 of one that may not be read."""
    try:
        return folder.stat().st_mtime_ns
    except OSError:
        return 0


def _series(folder: Path, files: list[Path]) -> Generator[None, None, list[Found]]:
    from aiassist.imaging.dicom_listing import listing_series  # needs what Slicer's console does not load otherwise

    listed = yield from listing_series(path for path in files if not path.name.lower().endswith(ENDINGS))
    names = (f"{folder.name} {series.name}".strip() for series in listed)
    return [Found(name, one.files, True) for name, one in zip(names, listed, strict=True)]
