"""What a backend holds in memory of the studies that are open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from aiassist.errors import StudyError
from aiassist.imaging import MaskPatch, Volume

#: Masks remembered per study; older ones must be sent again.
MASKS = 64


@dataclass
class OpenStudy:
    """A volume under annotation and the latest masks of it, by version."""

    volume: Volume
    masks: OrderedDict[str, MaskPatch] = field(default_factory=OrderedDict)


class Studies:
    """The open studies by id. Only a cache: everything in it can be sent again."""

    def __init__(self):
        self._open: dict[str, OpenStudy] = {}
        self._lock = threading.Lock()

    def open(self, volume: Volume) -> str:
        """Keep a volume and return its id."""
        study = volume.study_id
        with self._lock:
            self._open.setdefault(study, OpenStudy(volume))
        return study

    def close(self, study: str) -> None:
        """Forget a study."""
        with self._lock:
            self._open.pop(study, None)

    def volume(self, study: str) -> Volume:
        """The volume of an open study; `StudyError` when it is not open."""
        return self._find(study).volume

    def remember(self, study: str, whole: MaskPatch) -> str:
        """Keep the mask of a whole structure; returns its version."""
        version = whole.version
        with self._lock:
            masks = self._find(study).masks
            masks[version] = whole
            masks.move_to_end(version)
            while len(masks) > MASKS:
                masks.popitem(last=False)
        return version

    def mask(self, study: str, version: str) -> MaskPatch:
        """The mask of a version; `StudyError` when it was never known or is forgotten."""
        mask = self._find(study).masks.get(version)
        if mask is None:
            raise StudyError(f"The mask {version} of the study {study} is not known here; send it again.")
        return mask

    def _find(self, study: str) -> OpenStudy:
        if study not in self._open:
            raise StudyError(f"The study {study} is not open here; open it first.")
        return self._open[study]
