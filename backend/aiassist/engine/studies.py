"""What a backend holds in memory of the studies that are open."""

from __future__ import annotations

import threading
from collections import Counter, OrderedDict
from collections.abc import Callable

import numpy as np

from aiassist.errors import UnknownMaskError, UnknownStudyError
from aiassist.imaging import Geometry, MaskPatch, Region, Volume

#: Bytes of masks remembered, all studies together, a bit a voxel, and the part of a budget of voxels that they may take
#: beside it where that is more; older ones must be sent again.
MASKS, MASKS_OF_BUDGET = 48 * 2**20, 1 / 16


class Studies:
    """The open studies by id, and the latest masks of them by version. Only a cache.

    Parameters
    ----------
    budget : int, optional
        Bytes of voxels to hold; beyond it the volume used least recently goes. No limit when absent.
    load : callable, optional
        Brings back a volume that went, by its id; raises `UnknownStudyError` when it cannot.
    used : callable, optional
        Told the id of each study whose volume is asked for and held, so that what `load` brings back is kept as well.
    """

    def __init__(
        self,
        budget: int | None = None,
        load: Callable[[str], Volume] | None = None,
        used: Callable[[str], None] = lambda study: None,
    ):
        self._budget, self._load, self._used = budget, load, used
        self.mask_budget = max(MASKS, int((budget or 0) * MASKS_OF_BUDGET))
        self._volumes: OrderedDict[str, Volume] = OrderedDict()
        self._geometries: dict[str, Geometry] = {}
        self._sizes: dict[str, int] = {}
        self._masks: OrderedDict[tuple[str, str], tuple[Region, np.ndarray]] = OrderedDict()
        self._lock = threading.Lock()
        self._loading: dict[str, threading.Lock] = {}

    def open(self, volume: Volume) -> str:
        """Keep a volume and return its id."""
        study = volume.study_id
        with self._lock:
            self._geometries[study], self._sizes[study] = volume.geometry, volume.voxels.nbytes
            if study not in self._volumes:
                self._make_room(volume.voxels.nbytes)
                self._volumes[study] = volume
            self._volumes.move_to_end(study)
        return study

    def _make_room(self, need: int) -> None:
        """Let the volumes used least recently go until `need` bytes are free, or all are gone."""
        while self._budget is not None and self._volumes and self.bytes + need > self._budget:
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
            self._geometries.pop(study, None)
            self._sizes.pop(study, None)
            for key in [key for key in self._masks if key[0] == study]:
                del self._masks[key]

    def volume(self, study: str) -> Volume:
        """The volume of an open study; `UnknownStudyError` when it is not open and cannot be brought back."""
        volume = self._held(study)
        if volume is not None:
            self._used(study)
            return volume
        if self._load is None:
            raise UnknownStudyError(f"The study {study} is not open here; open it first.")
        with self._lock:
            lock = self._loading.setdefault(study, threading.Lock())
        with lock:  # several requests for one study read it once
            volume = self._held(study)
            if volume is None:
                with self._lock:
                    self._make_room(self._sizes.get(study, 0))
                volume = self._load(study)
                self.open(volume)
        return volume

    def geometry(self, study: str) -> Geometry:
        """The grid of an open study; known without its voxels once it was open."""
        with self._lock:
            known = self._geometries.get(study)
        return known if known is not None else self.volume(study).geometry

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
            self._masks[study, version] = whole.region, np.packbits(whole.mask)
            self._masks.move_to_end((study, version))
            self._forget_masks((study, version))
        return version

    def _forget_masks(self, latest: tuple[str, str]) -> None:
        """Let the oldest masks of the study that holds most go, until the rest fits; the latest of all stays."""
        held: Counter[str] = Counter()
        for (study, _), (_, bits) in self._masks.items():
            held[study] += bits.nbytes
        while held.total() > self.mask_budget and len(self._masks) > 1:
            oldest = max((key for key in self._masks if key != latest), key=lambda key: held[key[0]])
            held[oldest[0]] -= self._masks.pop(oldest)[1].nbytes

    def mask(self, study: str, version: str) -> MaskPatch:
        """The mask of a version; `UnknownMaskError` when it was never known or is forgotten."""
        with self._lock:
            found = self._masks.get((study, version))
        if found is None:
            raise UnknownMaskError(f"The mask {version} of the study {study} is not known here; send it again.")
        region, bits = found
        return MaskPatch(region, np.unpackbits(bits, count=region.voxels).view(bool).reshape(region.shape))
