"""The bundled CT, read once."""

from __future__ import annotations

from functools import cache

import numpy as np

from aiassist.imaging import Volume, read_labelmap, read_volume
from aiassist.resources import resource

#: Structures of the bundled CT with a slice that shows them well.
STRUCTURES = {"spleen": 1, "kidney_right": 2, "liver": 5, "stomach": 6, "urinary_bladder": 21}


@cache
def torso() -> tuple[Volume, np.ndarray]:
    """The bundled CT and its labelmap."""
    volume = read_volume(resource("SampleData", "ts_ct_torso", "image.nii.gz"))
    return volume, read_labelmap(resource("SampleData", "ts_ct_torso", "label.nii.gz"), like=volume).voxels
