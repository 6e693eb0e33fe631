"""Files that are exported: what lies beside them, and what they may take the place of."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import qt
import slicer

from aiassist.imaging import read_volume
from AIAssistLib.label_files import legend_of
from helpers import add_segment, said

FORMATS = [".seg.nrrd", ".nii.gz", ".nrrd"]


@pytest.fixture
def choose(panel, monkeypatch, tmp_path):
    """Called with a name and a format: the person exports to it; what was asked then, and answered so."""

    def export(name: str, ending: str, answer: bool = True) -> list[str]:
        asked = []
        monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or answer)
        monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / name) if name else "")
        panel.ui.exportCombo.setCurrentIndex(FORMATS.index(ending))
        panel.ui.exportButton.click()
        return asked

    return export


def question(path: Path) -> str:
    return f"{path} is there already. Replace it?"


@pytest.mark.parametrize("ending", [".nii.gz", ".nrrd"])
def test_the_legend_of_a_labelmap_names_each_value_as_slicers_own_export_does(panel, case, tmp_path, ending):
    names = ["left kidney", "spleen", "cyst"]
    case.segmentation.GetSegmentation().RemoveSegment(case.liver)
    for name, of in zip(names, ("kidney_left", "spleen", "gallbladder"), strict=True):
        add_segment(case, name, case.mask(of))
    panel.exporting.export_to(tmp_path / f"torso{ending}")
    legend = tmp_path / "torso.labels.csv"
    assert said(panel.ui.saveLabel) == (
        f"Written: {tmp_path / f'torso{ending}'}, and beside it torso.labels.csv, which says what each value is."
    )
    rows = list(csv.DictReader(legend.open(encoding="utf8")))
    assert [row["Name"] for row in rows] == names and rows[1]["Type_CodeMeaning"] == "Spleen"
    voxels = read_volume(tmp_path / f"torso{ending}").voxels
    for row, of in zip(rows, ("kidney_left", "spleen", "gallbladder"), strict=True):
        assert np.array_equal(voxels == int(row["LabelValue"]), case.mask(of))


def test_slicer_reads_a_labelmap_with_its_legend_as_the_same_segments(panel, case, tmp_path):
    add_segment(case, "left kidney", case.mask("kidney_left"))
    panel.exporting.export_to(tmp_path / "torso.nii.gz")
    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableNode")
    storage = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLColorTableStorageNode")
    storage.SetFileName(str(tmp_path / "torso.labels.csv"))
    assert storage.ReadData(table)
    logic = slicer.modules.segmentations.logic()
    loaded = logic.LoadSegmentationFromFile(str(tmp_path / "torso.nii.gz"), True, "again", table).GetSegmentation()
    assert [loaded.GetNthSegment(n).GetName() for n in range(loaded.GetNumberOfSegments())] == ["left kidney"]


def test_a_slicer_segmentation_has_its_names_itself(panel, case, tmp_path):
    add_segment(case, "spleen", case.mask("spleen"))
    panel.exporting.export_to(tmp_path / "torso.seg.nrrd")
    assert [path.name for path in tmp_path.iterdir()] == ["torso.seg.nrrd"]


@pytest.mark.parametrize("answer", [False, True])
def test_a_file_that_only_the_ending_leads_to_is_replaced_after_a_question(choose, case, tmp_path, answer):
    add_segment(case, "spleen", case.mask("spleen"))
    for name in ("labels.nii.gz", "labels.labels.csv"):
        (tmp_path / name).write_bytes(b"mine")
    assert choose("labels", ".nii.gz", answer) == [question(tmp_path / "labels.nii.gz")]
    assert ((tmp_path / "labels.nii.gz").read_bytes() == b"mine") is not answer
    assert ((tmp_path / "labels.labels.csv").read_bytes() == b"mine") is not answer


def test_what_the_file_dialog_asked_about_is_not_asked_again(choose, case, tmp_path):
    add_segment(case, "spleen", case.mask("spleen"))
    assert choose("labels", ".seg.nrrd") == []
    written = (tmp_path / "labels.seg.nrrd").read_bytes()
    (tmp_path / "labels.seg.nrrd").write_bytes(b"mine")
    assert choose("labels.seg.nrrd", ".seg.nrrd") == []
    assert len((tmp_path / "labels.seg.nrrd").read_bytes()) == len(written)
    assert choose("", ".seg.nrrd") == []  # nothing was chosen


@pytest.mark.parametrize("answer", [False, True])
def test_the_legend_of_another_labelmap_is_replaced_after_a_question(choose, case, tmp_path, answer):
    add_segment(case, "spleen", case.mask("spleen"))
    choose("labels.nii.gz", ".nii.gz")
    (tmp_path / "labels.labels.csv").write_bytes(b"mine")
    assert choose("labels.nrrd", ".nrrd", answer) == [question(tmp_path / "labels.labels.csv")]
    assert (tmp_path / "labels.nrrd").exists() is answer
    assert ((tmp_path / "labels.labels.csv").read_bytes() == b"mine") is not answer


@pytest.mark.parametrize("answer", [False, True])
def test_the_table_of_measurements_gets_its_ending_and_replaces_nothing_unasked(
    panel, case, tmp_path, monkeypatch, answer
):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda text, **_: asked.append(text) or answer)
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "lesions"))
    add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.lesionsGroup.collapsed = False
    panel.ui.measureButton.click()
    panel.ui.csvButton.click()
    assert [path.name for path in tmp_path.iterdir()] == ["lesions.csv"] and asked == []
    (tmp_path / "lesions.csv").write_text("mine")
    panel.ui.csvButton.click()
    assert asked == [question(tmp_path / "lesions.csv")]
    assert ((tmp_path / "lesions.csv").read_text() == "mine") is not answer


@pytest.mark.parametrize("name", ["torso.nii.gz", "torso.NII.GZ", "torso.nrrd", "torso.mha", "torso.odd"])
def test_the_legend_has_the_name_of_its_labelmap(name):
    assert legend_of(Path("folder") / name) == Path("folder") / "torso.labels.csv"
