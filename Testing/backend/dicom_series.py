"""Synthetic DICOM series: uncompressed, little endian, one file a slice, names in shuffled order."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid


def write_series(
    folder: Path, stored: np.ndarray, affine: np.ndarray, slopes=1.0, intercept: float = 0.0, prefix: str = "slice"
) -> dict[str, str]:
    """Write int16 voxels ``(k, j, i)``, whose rescale slopes may differ by slice; returns the UIDs."""
    folder.mkdir(parents=True, exist_ok=True)
    uids = {name: generate_uid() for name in ("study", "series", "frame")}
    names = np.random.default_rng(5).permutation(len(stored))
    for k, (plane, slope) in enumerate(zip(stored, np.broadcast_to(slopes, len(stored)), strict=True)):
        dataset = _header(plane, affine, k, uids)
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope:g}", f"{intercept:g}"
        dataset.save_as(folder / f"{prefix}{names[k]:03}.dcm", enforce_file_format=True)
    return uids


def _header(plane: np.ndarray, affine: np.ndarray, k: int, uids: dict[str, str]) -> Dataset:
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = generate_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uids["study"], uids["series"]
    dataset.FrameOfReferenceUID = uids["frame"]
    dataset.PatientID, dataset.PatientName, dataset.Modality = "P-17", "Doe^Jane", "CT"
    dataset.InstanceNumber, dataset.SliceThickness = 1, f"{spacing[2]:.10g}"
    dataset.PixelSpacing = [f"{spacing[1]:.10g}", f"{spacing[0]:.10g}"]
    dataset.ImageOrientationPatient = [f"{x:.12f}" for n in (0, 1) for x in affine[:3, n] / spacing[n]]
    dataset.ImagePositionPatient = [f"{x:.8f}" for x in affine[:3, 3] + k * affine[:3, 2]]
    dataset.Rows, dataset.Columns = plane.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PixelRepresentation = 1, "MONOCHROME2", 1
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.PixelData = plane.astype("<i2").tobytes()
    return dataset


def write_frames(folder: Path, file: Path, prefix: str = "slice") -> Dataset:
    """Make one multi-frame file of a written series, with its frames in any order."""
    slices = [pydicom.dcmread(path) for path in sorted(folder.glob(f"{prefix}*"))]
    empty = ("PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate", "StudyTime")
    for dataset in slices:
        dataset.update(dict.fromkeys((*empty, "ReferringPhysicianName", "PositionReferenceIndicator")))
        dataset.ImageType, dataset.RescaleType = ["ORIGINAL", "PRIMARY", "AXIAL"], "HU"
    uids = {"series_instance_uid": generate_uid(), "sop_instance_uid": generate_uid()}
    made = LegacyConvertedEnhancedCTImage(slices, series_number=9, instance_number=1, **uids)
    order = np.random.default_rng(6).permutation(len(slices))
    groups, size = list(made.PerFrameFunctionalGroupsSequence), len(made.PixelData) // len(slices)
    made.PerFrameFunctionalGroupsSequence = [groups[n] for n in order]
    made.PixelData = b"".join(made.PixelData[n * size : (n + 1) * size] for n in order)
    made.save_as(file)
    return made
