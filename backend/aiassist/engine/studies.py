"""What a backend holds in memory of the studies that are open."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable

from aiassist.errors import UnknownMaskError, UnknownStudyError
from aiassist.imaging import MaskPatch, Volume

#: Bytes of masks remembered, all studies together; older ones must be sent again.
MASKS = 256 * 2**20


class Studies:
    """The open studies by id, and the latest masks of them by version. Only a cache.

    Parameters
    ----------
    budget : int, optional
        Bytes of voxels to hold; beyond it the volume used least recently goes. No limit when absent.
    load : callable, optional
        Brings back a volume that went, by its id; raises `UnknownStudyError` when it cannot.
    """

    def __init__(self, budget: int | None = None, load: Callable[[str], Volume] | None = None):
        self._budget, self._load = budget, load
        self._volumes: OrderedDict[str, Volume] = OrderedDict()
        self._masks: OrderedDict[tuple[str, str], MaskPatch] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def open(self, volume: Volume) -> str:
        """Keep a volume and return its id."""
        study = volume.study_id
        with self._lock:
            self._volumes.setdefault(study, volume)
            self._volumes.move_to_end(study)
            self._make_room()
        return study

    def _make_room(self) -> None:
        """Let the volumes used least recently go, but never the latest."""
        while self._budget is not None and len(self._volumes) > 1 and self.bytes > self._budget:
            self._volumes.popitem(last=False)

    @property
    def bytes(self) -> int:
        """Bytes of the voxels that are held."""
        return sum(volume.voxels.nbytes for volume in self._volumes.values())

    def holds(self, study: str) -> bool:
        """Whether the volume is in memory."""
        with self._lock:
            return study in self._volumes

    def close(self, study: str) -> None:
        """Forget a study and its masks."""
        with self._lock:
            self._volumes.pop(study, None)
            for key in [key for key in self._masks if key[0] == study]:
                del self._masks[key]

    def volume(self, study: str) -> Volume:
        """The volume of an open study; `UnknownStudyError` when it is not open and cannot be brought back."""
        volume = self._held(study)
        if volume is not None:
            return volume
        if self._load is None:
            raise UnknownStudyError(f"The study {study} is not open here; open it first.")
        with self._lock:
            lock = self._loading.setdefault(study, threading.Lock())
        with lock:  # several requests for one study read it once
            volume = self._held(study)
            if volume is None:
                volume = self._load(study)
                self.open(volume)
        return volume

    def _held(self, study: str) -> Volume | None:
        with self._lock:
            volume = self._volumes.get(study)
            if volume is not None:
                self._volumes.move_to_end(study)
            return volume

    def remember(self, study: str, whole: MaskPatch) -> str:
        """Keep the mask of a whole structure; returns its version."""
        version = whole.version
        with self._lock:
            self._masks[study, version] = whole
            self._masks.move_to_end((study, version))
            held = sum(mask.voxels.nbytes for mask in self._masks.values())
            while held > MASKS and len(self._masks) > 1:
                held -= self._masks.popitem(last=False)[1].voxels.nbytes
        return version

    def mask(self, study: str, version: str) -> MaskPatch:
        """The mask of a version; `UnknownMaskError` when it was never known or is forgotten."""
        with self._lock:
            mask = self._masks.get((study, version))
        if mask is None:
            raise UnknownMaskError(f"The mask {version} of the study {study} is not known here; send it again.")
        return mask
