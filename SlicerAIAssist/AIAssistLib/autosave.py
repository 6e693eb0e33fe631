"""Masks that are not saved as ground truth yet, kept on the disk so that a crash of Slicer loses nothing."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiassist.errors import AIAssistError, BusyError, PatchError
from aiassist.files import locked, whole_file
from aiassist.imaging import MaskPatch
from AIAssistLib.segments import read_mask
from AIAssistLib.tags import forget_maker, stamp_of, tags_of

#: Seconds that Slicer may wait while segments are looked at for changes.
PATIENCE = 0.1
#: File in the folder of a run that is locked while the run goes on.
LOCK = "lock"


@dataclass(frozen=True)
class Found:
    """A mask that an earlier Slicer did not save, its file, and what was kept with the segment."""

    name: str
    mask: MaskPatch
    file: Path
    tags: dict[str, str] = field(default_factory=dict)


class Autosave:
    """A folder with the masks of each study that nobody saved.

    Each run of Slicer, and each scene of one, writes into a folder of its own and never into another's. What is kept by
    one that still goes on is nobody else's business.

    Parameters
    ----------
    folder : Path
        Holds ``STUDY/RUN/NUMBER.patch`` and beside each ``NUMBER.json`` with the structure's name, prompts and model.
    """

    def __init__(self, folder: Path):
        self._folder = Path(folder)
        #: The version of the mask in each file that this Slicer wrote.
        self._written: dict[Path, str] = {}
        #: The folders that this run has locked.
        self._locks: dict[Path, ExitStack] = {}
        self._turn = 0
        self.begin_run()

    def begin_run(self) -> None:
        """What was kept until now is an earlier run's from now on: nothing overwrites it, and it is offered again.

        For a scene that closes: the next one's nodes and segments may have the same IDs.
        """
        for home, lock in self._locks.items():
            lock.close()
            _tidy(home)
        self._locks, self._run = {}, uuid.uuid4().hex
        #: What was seen of each segment, by the IDs of segmentation and segment: stamp, and version of the mask.
        self._seen: dict[tuple[str, str], tuple[int, str]] = {}
        #: IDs of the segmentations of which every segment was looked at.
        self._known: set[str] = set()
        self._files: dict[tuple[str, str, str], Path] = {}

    def knows(self, segmentation_node) -> bool:
        """Whether all segments were looked at: who changes one after that draws now."""
        return segmentation_node.GetID() in self._known

    def keep_one(
        self,
        study: str,
        segmentation_node,
        volume_node,
        first: str = "",
        is_saved: Callable[[str], bool] = lambda version: False,
        drawn: Callable[[], None] = lambda: None,
    ) -> str | None:
        """Write one segment that changed since it was written, `first` before all; its name, or None when none did.

        One at a time, since Slicer waits meanwhile: the name is empty when looking alone took `PATIENCE`, and there is
        more to look at. Masks whose version `is_saved` as ground truth are not kept; `drawn` is called at any that is
        new. `OSError` when one cannot be written; it is tried again then.
        """
        began = time.monotonic()
        segmentation = segmentation_node.GetSegmentation()
        numbers = range(segmentation.GetNumberOfSegments())
        ids = [segmentation.GetNthSegmentID(number) for number in numbers]
        self._turn += 1
        turned = [ids[(self._turn + n) % len(ids)] for n in numbers]
        for segment_id in sorted(turned, key=lambda one: one != first):
            key, segment = (study, segmentation_node.GetID(), segment_id), segmentation.GetSegment(segment_id)
            stamp = stamp_of(segment)
            seen_stamp, seen_version = self._seen.get(key[1:], (0, MaskPatch.empty().version))
            if seen_stamp == stamp:
                continue
            if time.monotonic() - began > PATIENCE:
                return ""
            mask = read_mask(segmentation_node, segment_id, volume_node)
            is_new = mask.version != seen_version
            is_safe = mask.region.is_empty or is_saved(mask.version)
            if mask.region.is_empty:
                forget_maker(segment)
            elif is_new:
                drawn()
            if is_new and not is_safe:
                self._write(key, segment, mask)
            elif is_new and key in self._files:
                _remove(self._files[key])  # older than what the segment holds now
            self._seen[key[1:]] = (stamp, mask.version)
            if is_new and not is_safe:
                return segment.GetName()
        self._known.add(segmentation_node.GetID())
        return None

    def _write(self, key: tuple[str, str, str], segment, mask: MaskPatch) -> None:
        home = self._folder / key[0] / self._run
        home.mkdir(parents=True, exist_ok=True)
        if home not in self._locks:
            self._locks[home] = ExitStack()
            with suppress(AIAssistError, OSError):  # a folder that cannot be locked keeps work as well
                self._locks[home].enter_context(_lock(home))
        file = self._files.setdefault(key, home / f"{len(self._files)}.patch")
        with whole_file(file) as temporary:
            temporary.write_bytes(mask.to_bytes())
        self._written[file] = mask.version
        with whole_file(file.with_suffix(".json")) as temporary:
            temporary.write_text(json.dumps({"name": segment.GetName(), "tags": tags_of(segment)}), encoding="utf8")

    def found(self, study: str) -> list[Found]:
        """What earlier runs did not save, the newest of each name; empty and damaged masks are left out."""
        newest: dict[str, Found] = {}
        runs = [home for home in (self._folder / study).glob("*/") if home.name != self._run and not _goes_on(home)]
        files = [file for home in runs for file in home.glob("*.patch")]
        for file in sorted(files, key=_age):
            try:
                mask = MaskPatch.from_bytes(file.read_bytes())
                said = json.loads(file.with_suffix(".json").read_text(encoding="utf8"))
                name, tags = str(said["name"]), {key: str(text) for key, text in said.get("tags", {}).items()}
            except (OSError, PatchError, ValueError, KeyError, TypeError, AttributeError):
                continue
            if not mask.region.is_empty:
                newest[name] = Found(name, mask, file, tags)
        return list(newest.values())

    def saved(self, study: str, versions: set[str]) -> None:
        """Masks of these versions are ground truth now: what this Slicer and earlier ones kept of them may go.

        A file that cannot be removed stays, and is offered later: that does no harm.
        """
        mine = [file for file, version in self._written.items() if version in versions]
        files = [file for file in mine if file.parent.parent.name == study]
        for file in [*files, *(one.file for one in self.found(study) if one.mask.version in versions)]:
            with suppress(OSError):
                _remove(file)

    def forget(self, found: list[Found]) -> None:
        """These are in segments again, or not wanted; an older mask of a name that an earlier run kept is next.

        `OSError` when one cannot be removed.
        """
        for one in found:
            _remove(one.file)


def _age(file: Path) -> float:
    """When a file was written; 0 of one that another Slicer removed meanwhile."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _remove(file: Path) -> None:
    """Remove a mask, what was kept beside it, and the run's folder when that was all and the run is over."""
    for one in (file, file.with_suffix(".json")):
        one.unlink(missing_ok=True)
    _tidy(file.parent)


def _tidy(home: Path) -> None:
    """Remove the folder of a run that is over when it holds nothing."""
    with suppress(OSError):  # somebody was faster
        if not any(home.glob("*.patch")) and not _goes_on(home):
            (home / LOCK).unlink(missing_ok=True)
            home.rmdir()


def _goes_on(home: Path) -> bool:
    """Whether the run that a folder is of still goes on, here or in another Slicer."""
    if not (home / LOCK).exists():
        return False
    try:
        with _lock(home):
            return False
    except BusyError:
        return True
    except (AIAssistError, OSError):  # a folder that cannot be locked
        return False


def _lock(home: Path) -> AbstractContextManager[None]:
    return locked(home / LOCK, BusyError(f"Another Slicer keeps its work in {home}."))
