"""Names, values, colours and terminology codes of structures."""

from __future__ import annotations

import colorsys
import json
import re
import zlib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from aiassist.errors import AIAssistError


@dataclass(frozen=True)
class Code:
    """A coded concept: value, coding scheme ("SCT" is SNOMED CT) and meaning."""

    value: str
    meaning: str
    scheme: str = "SCT"


RIGHT = Code("24028007", "Right")
LEFT = Code("7771000", "Left")
#: Categories of structures, by the names that Slicer gives them, and what one is that has no code.
ANATOMY = Code("123037004", "Anatomical Structure")
ALTERED = Code("49755003", "Morphologically Altered Structure")
TISSUE = Code("85756007", "Tissue")


@dataclass(frozen=True)
class Label:
    """One structure of a labelmap.

    Parameters
    ----------
    name : str
        As people write it, "kidney_right".
    value : int
        Voxel value in a labelmap, from 1.
    colour : tuple of int
        Red, green, blue, 0 to 255.
    code : Code, optional
        SNOMED CT code of the anatomy or finding, where known.
    side : Code, optional
        Laterality, where the name says it.
    """

    name: str
    value: int = 1
    colour: tuple[int, int, int] = (128, 174, 128)
    code: Code | None = None
    side: Code | None = None

    def __post_init__(self):
        if not self.name or not self.name.strip():
            raise AIAssistError("A label needs a name; give one such as spleen.")
        if not 1 <= self.value <= 65535:
            raise AIAssistError(f"The label {self.name!r} has the value {self.value}; use 1 to 65535.")


@cache
def _terminology() -> dict[str, dict]:
    text = files("aiassist.imaging").joinpath("terminology.json").read_text(encoding="utf8")
    table = {}
    for entry in json.loads(text)["structures"]:
        for name in entry["names"]:
            table[name] = entry
    return table


def category_of(code: Code | None) -> Code:
    """The category of a structure's code: an anatomical structure unless the table says otherwise."""
    if code is None:
        return TISSUE
    is_altered = code.scheme == "SCT" and code.value in _altered()
    return ALTERED if is_altered else ANATOMY


@cache
def _altered() -> set[str]:
    """Codes of the table's morphologically altered structures."""
    return {entry["code"] for entry in _terminology().values() if entry.get("category") == ALTERED.value}


def describe_structure(name: str, value: int = 1) -> Label:
    """The label of a structure by its everyday name: colour, code and side where we know them.

    Case, underscores and the place of "left" and "right" do not matter. An unknown name gets a
    colour that depends on the name alone, and no code.
    """
    words = re.sub(r"[^\w]+|_", " ", name.casefold()).split()
    entry = _terminology().get(" ".join(words))
    if entry is not None:  # a side that belongs to the name, as in "left ventricle", is in the code
        return Label(name, value, tuple(entry["colour"]), Code(entry["code"], entry["meaning"]))
    side = RIGHT if "right" in words else LEFT if "left" in words else None
    bare = " ".join(w for w in words if w not in ("left", "right"))
    entry = _terminology().get(bare) or _terminology().get(re.sub(r" [a-z]?\d+$", "", bare))
    if entry is None:
        return Label(name, value, _colour_of(name), side=side)
    return Label(name, value, tuple(entry["colour"]), Code(entry["code"], entry["meaning"]), side)


def _colour_of(name: str) -> tuple[int, int, int]:
    hue = (zlib.crc32(name.encode()) % 1000) / 1000
    return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(hue, 0.45, 0.85))


def terminology_entry(label: Label) -> str:
    """Slicer's text form of a label's codes; see vtkSlicerTerminologiesModuleLogic."""
    context = "Segmentation category and type - 3D Slicer General Anatomy list"
    category, kind = _entry(category_of(label.code)), _entry(label.code or TISSUE)
    side = _entry(label.side) if label.code is not None and label.side is not None else "^^"
    return f"{context}~{category}~{kind}~{side}~~^^~^^"


def _entry(code: Code) -> str:
    return f"{code.scheme}^{code.value}^{code.meaning}"
