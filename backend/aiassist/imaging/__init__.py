"""Volumes, regions, mask patches and labels; reading and writing them.

Arrays are indexed ``(k, j, i)``; points are ``(i, j, k)`` continuous voxel indices whose integer
values are voxel centres; patient coordinates are LPS in mm.
"""

from aiassist.imaging.dicom_series import DicomSeries
from aiassist.imaging.geometry import Geometry
from aiassist.imaging.labels import Code, Label, describe_structure
from aiassist.imaging.patch import MaskPatch
from aiassist.imaging.region import Region
from aiassist.imaging.volume import Volume, finite

__all__ = [
    "Code",
    "DicomSeries",
    "Geometry",
    "Label",
    "MaskPatch",
    "Region",
    "Volume",
    "describe_structure",
    "finite",
    "read_labelmap",
    "read_volume",
    "write_volume",
]

_FILES = ("read_labelmap", "read_volume", "write_volume")


def __getattr__(name: str):
    """Load the readers of files when they are first asked for: Slicer has its own and lacks what ours need."""
    if name not in _FILES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from aiassist.imaging import image_files

    return getattr(image_files, name)
