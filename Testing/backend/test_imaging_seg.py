"""Names of structures and models fit into DICOM SEG, and stay apart."""

from __future__ import annotations

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_series import write_series

from aiassist.imaging import Label, MaskPatch, read_volume
from aiassist.imaging.dicom_seg import Segment, write_dicom_seg

MASK = np.zeros((4, 8, 7), bool)
MASK[1:3, 2:5, 2:6] = True


@pytest.fixture
def written(tmp_path):
    """Write structures of some names, found by a model, and read them back as DICOM has them."""

    def write(names, model="network", version="7"):
        if not (tmp_path / "series").exists():
            write_series(tmp_path / "series", np.zeros(MASK.shape, np.int16), np.diag([0.7, 0.7, 2.0, 1.0]))
        mask = MaskPatch.of_mask(MASK)
        segments = [
            Segment(Label(name, n), mask, f"t{n}", "automatic", model, version) for n, name in enumerate(names, start=1)
        ]
        write_dicom_seg(tmp_path / "out.dcm", read_volume(tmp_path / "series"), segments)
        return pydicom.dcmread(tmp_path / "out.dcm").SegmentSequence

    return write


@pytest.mark.parametrize(
    ("model", "version", "name", "said"),
    [
        ("a\\b", "1\\2", "a/b", "1/2"),
        ("x" * 70, "9" * 70, "x" * 64, "9" * 64),
        ("", "", "unknown", "unknown"),
    ],
)
def test_models_are_named_by_one_value_that_fits(written, model, version, name, said):
    (segment,) = written(["spleen"], model, version)
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert (algorithm.AlgorithmName, algorithm.AlgorithmVersion) == (name, said)
    assert segment.SegmentAlgorithmName == name


@pytest.mark.parametrize("said", [None, ""])
def test_slices_that_do_not_say_how_thick_they_are_can_be_read_back(written, tmp_path, said):
    write_series(tmp_path / "series", np.zeros(MASK.shape, np.int16), np.diag([0.7, 0.7, 5 / 3, 1.0]))
    files = sorted((tmp_path / "series").iterdir())
    for path in files:
        dataset = pydicom.dcmread(path)
        del dataset.SliceThickness
        if said is not None:
            dataset.SliceThickness = said
        dataset.save_as(path)
    before = [path.read_bytes() for path in files]
    written(["spleen"])
    made = highdicom.seg.segread(tmp_path / "out.dcm")
    (measures,) = made.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert float(measures.SliceThickness) == pytest.approx(5 / 3)
    assert made.pixel_array.sum() == MASK.sum() and before == [path.read_bytes() for path in files]


def test_structures_whose_names_would_coincide_are_numbered(written):
    long = "lesion of the left lung beside the third rib, seen in the year of " + "x" * 20
    names = [long + "a", long + "b", "node", "node 2", "node", "a\\b", "a/b", long + "c"]
    labels = [segment.SegmentLabel for segment in written(names)]
    assert labels == [
        long[:64],
        long[:62] + " 2",
        "node",
        "node 2",
        "node 3",
        "a/b",
        "a/b 2",
        long[:62] + " 3",
    ]
