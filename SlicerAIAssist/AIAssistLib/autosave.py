"""Masks that are not saved as ground truth yet, kept on the disk so that a crash of Slicer loses nothing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from aiassist.errors import PatchError
from aiassist.files import whole_file
from aiassist.imaging import MaskPatch
from AIAssistLib.segments import read_mask
from AIAssistLib.tags import stamp_of


class Autosave:
    """A folder with the latest masks of each study that nobody saved.

    Parameters
    ----------
    folder : Path
        One folder in it for each study, named by its id: a mask for each structure, and ``names.json``.
    """

    def __init__(self, folder: Path):
        self._folder = Path(folder)
        self._stamps: dict[tuple[str, str], int] = {}

    def keep_one(self, study: str, segmentation_node, volume_node) -> str | None:
        """Write the first segment that changed since it was written; its name, or None when all are there.

        One at a time, since Slicer waits meanwhile.
        """
        segmentation = segmentation_node.GetSegmentation()
        for number in range(segmentation.GetNumberOfSegments()):
            segment, segment_id = segmentation.GetNthSegment(number), segmentation.GetNthSegmentID(number)
            key, stamp = (study, segment_id), stamp_of(segment)
            if self._stamps.get(key, 0) != stamp:
                self._stamps[key] = stamp
                self._write(study, segment_id, segment.GetName(), read_mask(segmentation_node, segment_id, volume_node))
                return segment.GetName()
        return None

    def _write(self, study: str, segment_id: str, name: str, mask: MaskPatch) -> None:
        home = self._folder / study
        home.mkdir(parents=True, exist_ok=True)
        names = self._names(study)
        number = next((int(n) for n, known in names.items() if known["id"] == segment_id), len(names))
        with whole_file(home / f"{number}.patch") as temporary:
            temporary.write_bytes(mask.to_bytes())
        names[str(number)] = {"id": segment_id, "name": name}
        with whole_file(home / "names.json") as temporary:
            temporary.write_text(json.dumps(names), encoding="utf8")

    def _names(self, study: str) -> dict[str, dict]:
        try:
            return json.loads((self._folder / study / "names.json").read_text(encoding="utf8"))
        except (OSError, ValueError):
            return {}

    def found(self, study: str) -> list[tuple[str, MaskPatch]]:
        """Names and masks of what was not saved; empty masks and damaged files are left out."""
        masks = []
        for number, known in self._names(study).items():
            try:
                mask = MaskPatch.from_bytes((self._folder / study / f"{number}.patch").read_bytes())
            except (OSError, PatchError):
                continue
            if not mask.region.is_empty:
                masks.append((known["name"], mask))
        return masks

    def forget(self, study: str) -> None:
        """What a study's masks were is saved elsewhere."""
        shutil.rmtree(self._folder / study, ignore_errors=True)

    def begin(self, study: str, segmentation_node) -> None:
        """Take the segments as they are for written: only what changes from now on is kept."""
        segmentation = segmentation_node.GetSegmentation()
        for number in range(segmentation.GetNumberOfSegments()):
            stamp = stamp_of(segmentation.GetNthSegment(number))
            self._stamps[study, segmentation.GetNthSegmentID(number)] = stamp
