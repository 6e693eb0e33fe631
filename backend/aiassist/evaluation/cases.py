"""Cases with ground truth, and which of their structures to measure on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from math import inf
from pathlib import Path

import numpy as np
from scipy import ndimage

from aiassist.errors import ImageError
from aiassist.imaging import Volume, read_labelmap, read_volume

#: Without a manifest, structures of at least this many voxels count,
MIN_VOXELS = 100
#: when at least this share of them hangs together.
MIN_SHARE = 0.9
#: Components of many-lesion labels count from this many voxels.
MIN_COMPONENT = 30
_TEXT = ("a text", lambda found: isinstance(found, str))
_FLAG = ("true or false", lambda found: isinstance(found, bool))
#: What each entry of a manifest says: in words, and whether something is that.
KEYS = {
    "case": _TEXT,
    "value": ("a whole number", lambda found: type(found) is int),
    "name": _TEXT,
    "stratum": _TEXT,
    "nsd_mm": ("a length above 0", lambda found: type(found) in (int, float) and 0 < found < inf),
    "split": _TEXT,
    "truth": _TEXT,
    "single": _FLAG,
    "per_component": _FLAG,
}


@dataclass(frozen=True)
class Structure:
    """One structure to measure on.

    ``component`` numbers the connected parts (from 1, in scan order) of a label whose parts are
    structures of their own; 0 means the whole label. ``nsd_mm`` is the tolerance of the NSD.
    """

    folder: Path
    value: int
    name: str
    stratum: str
    nsd_mm: float
    split: str = "all"
    truth: str = "unknown"
    component: int = 0

    @property
    def case(self) -> str:
        """Name of the case it belongs to."""
        return self.folder.name

    @property
    def title(self) -> str:
        """Case, name and component."""
        part = f" #{self.component}" if self.component else ""
        return f"{self.case}: {self.name}{part}"

    def load(self) -> tuple[Volume, np.ndarray]:
        """The image and the bool mask ``(k, j, i)`` of the truth; `ImageError` when the label does not hold it."""
        volume, labelmap = load_case(self.folder)
        mask = _mask_of(self.folder, labelmap, self.value, self.name)
        if self.component:
            mask = components(mask)[0] == self.component
        return volume, mask


@lru_cache(maxsize=1)
def load_case(folder: Path) -> tuple[Volume, np.ndarray]:
    """Image and labelmap of a case; the last one is kept."""
    volume = read_volume(folder / "image.nii.gz")
    return volume, read_labelmap(folder / "label.nii.gz", like=volume).voxels


def _mask_of(folder: Path, labelmap: np.ndarray, value: int, name: str) -> np.ndarray:
    mask = labelmap == value
    if not np.any(mask):
        label = folder / "label.nii.gz"
        raise ImageError(f"{label} does not hold the value {value!r} of {name!r}; leave it out of the manifest.")
    return mask


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """26-connected parts of a mask, numbered from 1, and the voxels of each."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return parts, np.bincount(parts.ravel(), minlength=count + 1)[1:]


def find_structures(cases: str | Path) -> list[Structure]:
    """The structures of a folder of cases, or of a single case.

    A case is a folder with ``image.nii.gz`` and ``label.nii.gz`` (and ``meta.json`` for names). A
    ``manifest.json`` in the folder, or beside it, says which cases and structures count; without one, or where it
    names none of the cases, it is every label of 100 voxels of which 90 % hang together. Another program's
    ``manifest.json``, which is no list of cases, does not count.

    Raises
    ------
    ImageError
        When there is no case, or a label does not lie on its image's grid, or a manifest or ``meta.json`` is damaged,
        or names what the label does not hold, or a manifest in the folder names a case that is not there.
    """
    cases = Path(cases)
    if not cases.exists():
        raise FileNotFoundError(f"There is no folder {cases}; name one with cases in it.")
    place = cases.resolve() if ".." in cases.parts else cases.absolute()  # a link keeps its own name and neighbours
    folders = [place] if _is_case(place) else sorted(p for p in place.iterdir() if _is_case(p))
    if not folders:
        raise ImageError(f"{cases} holds no cases: folders with image.nii.gz and label.nii.gz.")
    entries: dict[str, list[dict]] = {}
    for entry in _manifest(place, folders):
        entries.setdefault(entry["case"], []).append(entry)
    listed = [folder for folder in folders if folder.name in entries]
    if listed:
        return [one for folder in listed for one in _from_manifest(folder, entries[folder.name])]
    return [one for folder in folders for one in _from_labels(folder)]


def _is_case(folder: Path) -> bool:
    return (folder / "image.nii.gz").is_file() and (folder / "label.nii.gz").is_file()


def _manifest(cases: Path, folders: list[Path]) -> list[dict]:
    for place in (cases, cases.parent, cases.parent.parent):
        path = place / "manifest.json"
        if path.is_file() and _names_cases(entries := _read_json(path)):
            for number, entry in enumerate(entries, 1):
                _check_entry(path, number, entry)
            if place == cases and folders != [cases]:
                _check_present(path, entries, folders)
            return entries
    return []


def _check_present(path: Path, entries: list[dict], folders: list[Path]) -> None:
    present = {folder.name for folder in folders}
    for entry in entries:
        if entry["case"] not in present:
            raise ImageError(
                f"{path} names the case {entry['case']!r}, but beside it is no such folder with image.nii.gz and "
                "label.nii.gz; add it, or leave it out of the manifest."
            )


def _read_json(path: Path):
    try:
        return json.loads(path.read_text(encoding="utf8"))
    except ValueError as error:
        raise ImageError(f"{path} is not valid JSON: {error}.") from error


def _names_cases(entries) -> bool:
    return isinstance(entries, list) and any(isinstance(entry, dict) and "case" in entry for entry in entries)


def _check_entry(path: Path, number: int, entry) -> None:
    missing = [key for key in KEYS if not isinstance(entry, dict) or key not in entry]
    if missing:
        raise ImageError(f"Entry {number} of {path} lacks {missing[0]!r}; give each entry {', '.join(KEYS)}.")
    for key, (what, fits) in KEYS.items():
        if not fits(entry[key]):
            raise ImageError(f"Entry {number} of {path} has {json.dumps(entry[key])} for {key!r}; give {what}.")


def _from_manifest(folder: Path, entries: list[dict]) -> list[Structure]:
    _, labelmap = load_case(folder)
    found = []
    for entry in entries:
        mask = _mask_of(folder, labelmap, entry["value"], entry["name"])
        parts = [0] if entry["single"] else []
        if entry["per_component"]:
            _, sizes = components(mask)
            parts = [n + 1 for n, size in enumerate(sizes) if size >= MIN_COMPONENT]
        name = entry["name"] if entry["name"] != "?" else f"label {entry['value']}"
        for part in parts:
            found.append(
                Structure(
                    folder,
                    entry["value"],
                    name,
                    entry["stratum"],
                    entry["nsd_mm"],
                    entry["split"],
                    entry["truth"],
                    part,
                )
            )
    return found


def _from_labels(folder: Path) -> list[Structure]:
    volume, labelmap = load_case(folder)
    names, modality = _meta(folder)
    found = []
    for value in np.unique(labelmap[labelmap != 0]).tolist():
        _, sizes = components(labelmap == value)
        if sizes.sum() < MIN_VOXELS or sizes.max() < MIN_SHARE * sizes.sum():
            continue
        name = names.get(str(value), f"label {value}")
        found.append(Structure(folder, value, name, modality, default_tolerance(volume.geometry.spacing)))
    return found


def _meta(folder: Path) -> tuple[dict[str, str], str]:
    """Names of the label's values, and the modality; a value's name is a text, or the first of a list."""
    path = folder / "meta.json"
    meta = _read_json(path) if path.is_file() else {}
    labels = meta.get("labels", {}) if isinstance(meta, dict) else None
    if not isinstance(labels, dict):
        raise ImageError(f'{path} does not name the labels; write {{"labels": {{"1": "liver"}}}}, or remove it.')
    names = {value: name[0] if isinstance(name, list) and name else name for value, name in labels.items()}
    return {value: name for value, name in names.items() if isinstance(name, str)}, str(meta.get("modality") or "all")


def default_tolerance(spacing) -> float:
    """NSD tolerance in mm where no manifest gives one: the coarsest spacing, at least 2 mm for people."""
    coarsest = max(spacing)
    return coarsest if coarsest < 0.5 else max(coarsest, 2.0)
