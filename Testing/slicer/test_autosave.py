"""What is kept of unsaved work, and what of it is offered later."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import slicer

from aiassist.imaging import MaskPatch
from AIAssistLib import autosave
from AIAssistLib.autosave import LOCK, Autosave
from AIAssistLib.console import new_segmentation
from AIAssistLib.geometry import study_of
from AIAssistLib.segments import read_mask, write_plainly
from helpers import add_segment

STUDY = "study"


@pytest.fixture
def kept(tmp_path) -> Autosave:
    return Autosave(tmp_path)


def draw(case, segment: str, name: str) -> str:
    """Let a segment hold a structure; returns the version of the mask."""
    write_plainly(MaskPatch.of_mask(case.mask(name)), case.node, case.segmentation, segment)
    return read_mask(case.segmentation, segment, case.node).version


def keep(kept: Autosave, case, saved=()) -> list[str]:
    """The names that were kept, one after the other."""
    names = []
    while (name := kept.keep_one(STUDY, case.segmentation, case.node, is_saved=lambda v: v in saved)) is not None:
        names.append(name)
    return names


def test_what_was_corrected_and_saved_between_two_looks_is_not_offered(kept, case):
    segment = add_segment(case, "spleen", case.mask("liver"))
    assert keep(kept, case) == ["spleen"]
    version = draw(case, segment, "spleen")
    kept.saved(STUDY, {version})
    assert keep(kept, case, {version}) == []
    kept.begin_run()
    assert kept.found(STUDY) == []


def test_what_an_earlier_run_kept_goes_when_it_is_saved(kept, case):
    segment = add_segment(case, "spleen", case.mask("spleen"))
    keep(kept, case)
    kept.begin_run()
    kept.saved(STUDY, {read_mask(case.segmentation, segment, case.node).version})
    assert kept.found(STUDY) == [] and not list((kept._folder / STUDY).iterdir())


def test_versions_that_are_loaded_hide_no_unsaved_work(kept, case):
    segment = add_segment(case, "spleen", case.mask("spleen"))
    assert keep(kept, case) == ["spleen"]
    kept.begin_run()
    loaded = draw(case, segment, "liver")
    assert keep(kept, case, {loaded}) == []
    kept.begin_run()
    (offered,) = kept.found(STUDY)
    assert offered.mask.mask.sum() == case.mask("spleen").sum()


def test_what_was_not_offered_is_not_deleted_with_what_was(kept, case):
    segment = add_segment(case, "spleen", case.mask("spleen"))
    keep(kept, case)
    kept.begin_run()
    draw(case, segment, "liver")
    keep(kept, case)
    kept.begin_run()
    for name in ("liver", "spleen"):
        (offered,) = kept.found(STUDY)
        assert offered.mask.mask.sum() == case.mask(name).sum()
        kept.forget([offered])
    assert kept.found(STUDY) == [] and not list((kept._folder / STUDY).iterdir())


def test_many_segments_are_looked_at_in_several_turns(kept, case, monkeypatch):
    """Segments that share a layer all seem changed when one is."""
    names = [f"structure {n}" for n in range(6)]
    for name in names:
        add_segment(case, name, case.mask("spleen"))
    monkeypatch.setattr(autosave, "PATIENCE", -1.0)
    assert kept.keep_one(STUDY, case.segmentation, case.node) == ""
    monkeypatch.setattr(autosave, "PATIENCE", 60.0)
    assert sorted(keep(kept, case)) == names


def test_what_another_slicer_keeps_that_still_runs_is_not_offered(kept, case, tmp_path):
    add_segment(case, "spleen", case.mask("spleen"))
    keep(kept, case)
    other = Autosave(tmp_path)
    assert other.found(STUDY) == []
    other.saved(STUDY, {MaskPatch.of_mask(case.mask("spleen")).version})
    kept.begin_run()  # as when it crashes, the lock is let go
    (offered,) = other.found(STUDY)
    assert offered.name == "spleen"


ANOTHER = """
import sys
from aiassist.errors import BusyError
from aiassist.files import locked
with locked(sys.argv[1], BusyError("held")):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_what_a_slicer_kept_that_crashed_is_offered(kept, tmp_path):
    home = tmp_path / STUDY / "run"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", ANOTHER, str(home / LOCK)], **pipes, encoding="utf8") as process:
        assert process.stdout.readline() == "locked\n"
        (home / "0.patch").write_bytes(MaskPatch.of_mask(np.ones((2, 2, 2), bool)).to_bytes())
        (home / "0.json").write_text('{"name": "spleen"}')
        assert kept.found(STUDY) == []
        process.kill()
    (offered,) = kept.found(STUDY)
    assert offered.name == "spleen"
    kept.forget([offered])
    assert not home.exists()


def test_all_that_changed_is_kept_when_another_segmentation_or_image_is_chosen(panel, case, tmp_path):
    panel.recovery.autosave = kept = Autosave(tmp_path)
    panel.recovery.stop()
    panel.editor.setSegmentationNode(case.segmentation)
    study = panel.logic.assistant.studies.of(case.node).study_id
    for name in ("spleen", "gallbladder"):
        add_segment(case, name, case.mask(name))
    panel.editor.setSegmentationNode(new_segmentation(case.node))
    add_segment(case, "kidney", case.mask("kidney_right"))  # in what is not in the panel any more
    panel.editor.setSegmentationNode(case.segmentation)
    other = slicer.util.addVolumeFromArray(case.volume.voxels + 1, ijkToRAS=case.to_world, name="other")
    panel.editor.setSourceVolumeNode(other)
    kept.begin_run()
    assert {one.name for one in kept.found(study)} == {"spleen", "gallbladder", "kidney"}
    assert kept.found(study_of(other).study_id) == []
