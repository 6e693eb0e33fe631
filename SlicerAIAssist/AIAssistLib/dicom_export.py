"""Segmentations as DICOM SEG."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from aiassist.errors import StoreError
from aiassist.imaging import Volume
from aiassist.imaging.dicom_seg import Segment, write_dicom_seg
from AIAssistLib.segments import read_mask
from AIAssistLib.structures import terminology_of
from AIAssistLib.tags import MODEL, tag_of
from AIAssistLib.talks import Conversation


def export_dicom(segmentation_node, volume_node, image: Volume, path: Path) -> Conversation[None]:
    """Write all segments that are not empty as one DICOM SEG file, one segment a turn and then the file.

    ``image`` is the volume's study with its DICOM headers. `StoreError` when there is nothing to write, or the headers
    lack what the file must say.
    """
    segmentation = segmentation_node.GetSegmentation()
    segments, now = [], datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%f")
    for number in range(segmentation.GetNumberOfSegments()):
        mask = read_mask(segmentation_node, segmentation.GetNthSegmentID(number), volume_node)
        if not mask.region.is_empty:
            tracking = f"{now} {number} {segmentation.GetNthSegment(number).GetName()}"  # cut at the end when too long
            segments.append(_segment(segmentation.GetNthSegment(number), mask, tracking))
        yield
    if not segments:
        raise StoreError("All segments are empty; annotate something before you export.")
    write_dicom_seg(path, image, segments)


def _segment(segment, mask, tracking: str) -> Segment:
    coded = terminology_of(segment)
    model, _, version = tag_of(segment, MODEL).partition(" ")
    origin = "semiautomatic" if model else "manual"
    return Segment(coded.label, mask, tracking, origin, model, version, coded.category, coded.region)
