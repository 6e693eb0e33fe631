"""Which image files hold labels, by their names and by what lies beside them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

#: Endings of image files that Slicer loads as volumes.
ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
#: Words in the name of a file that holds labels, as in ``case_3_seg.nii.gz`` and ``label0003.nii.gz``.
WORDS = frozenset(("label", "labels", "labelmap", "seg", "segmentation", "segmentations"))


def legend_of(path: Path) -> Path:
    """The colour table beside a labelmap, ``NAME.labels.csv`` as Slicer's own export calls it: what each value is."""
    return path.with_name(f"{_stem(path)}.labels.csv")


def is_segmentation(path: Path) -> bool:
    """Whether a file is a Slicer segmentation, which holds the names of its segments itself."""
    return path.name.lower().endswith(".seg.nrrd")


def images_among(files: list[Path]) -> list[Path]:
    """Those files of a folder that Slicer loads as images and that do not hold labels.

    Labels are what says so in its name, and what has a legend beside it; unless two files have the same legend, for
    then one of them may be the image of the other.
    """
    images = [path for path in files if path.name.lower().endswith(ENDINGS) and not WORDS & _words(path)]
    uses, there = Counter(legend_of(path) for path in images), set(files)
    return [path for path in images if legend_of(path) not in there or uses[legend_of(path)] > 1]


def _stem(path: Path) -> str:
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), path.suffix)
    return path.name[: len(path.name) - len(ending)]


def _words(path: Path) -> set[str]:
    return set(re.split(r"[^a-z]+", _stem(path).lower()))
