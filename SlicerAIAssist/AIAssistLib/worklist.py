"""The images of a folder, one after the other."""

from __future__ import annotations

from pathlib import Path

from aiassist.errors import ImageError

#: Endings of image files that Slicer loads as volumes.
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")


def images(folder: Path) -> list[Path]:
    """The images of a folder by name; segmentations are left out. `ImageError` when it is no folder."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ImageError(f"{folder} is no folder; choose the one with the images.")
    found = (path for path in folder.iterdir() if path.name.lower().endswith(ENDINGS))
    return sorted(path for path in found if ".seg." not in path.name.lower() and not path.name.startswith("."))


def after(folder: Path, current: Path | None) -> Path | None:
    """The image after `current`, or the first; None at the end."""
    found = images(folder)
    if current is None or current not in found:
        return found[0] if found else None
    following = found[found.index(current) + 1 :]
    return following[0] if following else None
