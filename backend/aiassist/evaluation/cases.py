"""Cases with ground truth, and which of their structures to measure on."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
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
        """The image and the bool mask ``(k, j, i)`` of the truth."""
        volume, labelmap = load_case(self.folder)
        mask = labelmap == self.value
        if self.component:
            mask = components(mask)[0] == self.component
        return volume, mask


@lru_cache(maxsize=1)
def load_case(folder: Path) -> tuple[Volume, np.ndarray]:
    """Image and labelmap of a case; the last one is kept."""
    volume = read_volume(folder / "image.nii.gz")
    return volume, read_labelmap(folder / "label.nii.gz", like=volume).voxels


def components(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """26-connected parts of a mask, numbered from 1, and the voxels of each."""
    parts, count = ndimage.label(mask, structure=np.ones((3, 3, 3)))
    return parts, np.bincount(parts.ravel(), minlength=count + 1)[1:]


def find_structures(cases: str | Path) -> list[Structure]:
    """The structures of a folder of cases, or of a single case.

    A case is a folder with ``image.nii.gz`` and ``label.nii.gz`` (and ``meta.json`` for names). A
    ``manifest.json`` in the folder, or beside it, says which structures count; without one it is
    every label of 100 voxels of which 90 % hang together.

    Raises
    ------
    ImageError
        When there is no case.
    """
    cases = Path(cases)
    if not cases.exists():
        raise FileNotFoundError(f"There is no folder {cases}; name one with cases in it.")
    folders = [cases] if _is_case(cases) else sorted(p for p in cases.iterdir() if _is_case(p))
    if not folders:
        raise ImageError(f"{cases} holds no cases: folders with image.nii.gz and label.nii.gz.")
    manifest = _manifest(cases)
    found = []
    for folder in folders:
        entries = [entry for entry in manifest if entry["case"] == folder.name]
        found += _from_manifest(folder, entries) if entries else _from_labels(folder)
    return found


def _is_case(folder: Path) -> bool:
    return (folder / "image.nii.gz").is_file() and (folder / "label.nii.gz").is_file()


def _manifest(cases: Path) -> list[dict]:
    for place in (cases, cases.parent, cases.parent.parent):
        path = place / "manifest.json"
        if path.is_file():
            try:
                return json.loads(path.read_text(encoding="utf8"))
            except ValueError as error:
                raise ImageError(f"{path} is not valid JSON: {error}.") from error
    return []


def _from_manifest(folder: Path, entries: list[dict]) -> list[Structure]:
    found = []
    for entry in entries:
        parts = [0] if entry["single"] else []
        if entry["per_component"]:
            _, sizes = components(load_case(folder)[1] == entry["value"])
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
    meta = _meta(folder)
    found = []
    for value in np.unique(labelmap)[1:].tolist():
        _, sizes = components(labelmap == value)
        if sizes.sum() < MIN_VOXELS or sizes.max() < MIN_SHARE * sizes.sum():
            continue
        name = meta.get("labels", {}).get(str(value), [f"label {value}"])[0]
        found.append(
            Structure(folder, value, name, meta.get("modality", "all"), default_tolerance(volume.geometry.spacing))
        )
    return found


def _meta(folder: Path) -> dict:
    path = folder / "meta.json"
    return json.loads(path.read_text(encoding="utf8")) if path.is_file() else {}


def default_tolerance(spacing) -> float:
    """NSD tolerance in mm where no manifest gives one: the coarsest spacing, at least 2 mm for people."""
    coarsest = max(spacing)
    return coarsest if coarsest < 0.5 else max(coarsest, 2.0)
