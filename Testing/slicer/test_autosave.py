"""What is kept of unsaved work, and what of it is offered later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import slicer

from aiassist.imaging import MaskPatch
from AIAssistLib import autosave
from AIAssistLib.autosave import LOCK, Autosave
from AIAssistLib.console import new_segmentation
from AIAssistLib.geometry import study_of
from AIAssistLib.segments import read_mask, write_plainly
from AIAssistLib.tags import Held, note_held, note_study, noted_studies
from helpers import add_segment, wait

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


@pytest.mark.parametrize("known", [True, False])
def test_work_is_kept_of_the_image_on_which_it_was_drawn_whichever_is_chosen(known, panel, case, tmp_path):
    panel.recovery.autosave = kept = Autosave(tmp_path)
    add_segment(case, "bone", case.mask("liver"))
    arterial, assistant = study_of(case.node).study_id, panel.logic.assistant
    if known:
        assert assistant.studies.of(case.node).study_id
    else:  # as in a scene that was loaded
        slicer.util.arrayFromVolumeModified(case.node)
    portal = slicer.util.addVolumeFromArray(case.volume.voxels + 1, ijkToRAS=case.to_world, name="portal")
    panel.editor.setSourceVolumeNode(portal)
    assert assistant.studies.of(portal).study_id
    wait(lambda: panel.recovery.keep() or kept._written)  # the ticks
    panel.recovery.stop()
    kept.begin_run()
    assert [one.name for one in kept.found(arterial)] == ["bone"]
    assert kept.found(study_of(portal).study_id) == []


def next_time_point(panel, case) -> str:
    """Let the image's node hold other voxels, and know which; the id of the study."""
    slicer.util.arrayFromVolume(case.node)[:] += 1
    slicer.util.arrayFromVolumeModified(case.node)
    return panel.logic.assistant.studies.of(case.node).study_id


def tick(panel) -> None:
    """As the timer, until there is nothing more to keep."""
    while panel.recovery.keep():
        pass


def test_segments_are_not_kept_under_a_time_point_that_is_only_shown(panel, case, tmp_path):
    panel.recovery.autosave = kept = Autosave(tmp_path)
    drawn = panel.logic.assistant.studies.of(case.node).study_id
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    tick(panel)
    assert noted_studies(case.segmentation) == (drawn,)
    shown = next_time_point(panel, case)
    tick(panel)
    assert not (tmp_path / shown).exists() and noted_studies(case.segmentation) == (drawn,)
    draw(case, spleen, "liver")  # on what is shown now
    tick(panel)
    assert noted_studies(case.segmentation) == (drawn, shown)
    kept.begin_run()
    for study, name in ((drawn, "spleen"), (shown, "liver")):
        (offered,) = kept.found(study)
        assert offered.mask.mask.sum() == case.mask(name).sum()


def test_what_was_drawn_just_before_the_time_point_changed_is_kept_of_it(panel, case, tmp_path):
    panel.recovery.autosave = kept = Autosave(tmp_path)
    drawn = panel.logic.assistant.studies.of(case.node).study_id
    panel.recovery.keep()
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    shown = next_time_point(panel, case)
    tick(panel)
    assert read_mask(case.segmentation, spleen, case.node).version in kept._written.values()
    kept.begin_run()
    assert [one.name for one in kept.found(drawn)] == ["spleen"] and kept.found(shown) == []


def test_segments_of_a_scene_that_shows_another_time_point_are_kept_of_their_own(panel, case, tmp_path):
    panel.recovery.autosave = kept = Autosave(tmp_path)
    studies = panel.logic.assistant.studies
    drawn = studies.of(case.node).study_id
    note_study(case.segmentation, studies.of(case.node))
    shown = next_time_point(panel, case)
    add_segment(case, "spleen", case.mask("spleen"))
    tick(panel)
    kept.begin_run()
    assert [one.name for one in kept.found(drawn)] == ["spleen"] and kept.found(shown) == []
    assert noted_studies(case.segmentation) == (drawn,)


def test_what_is_offered_and_what_cannot_be_kept_is_seen_though_the_section_was_collapsed(panel, case, monkeypatch):
    section, recovery = panel.ui.saveSection, panel.recovery
    segment = add_segment(case, "spleen", case.mask("spleen"))
    study = study_of(case.node).study_id
    recovery.autosave.keep_one(study, case.segmentation, case.node)
    recovery.autosave.begin_run()
    case.segmentation.GetSegmentation().RemoveSegment(segment)
    section.collapsed = True
    recovery.look()
    wait(lambda: not panel.ui.recoverButton.isHidden())
    assert not section.collapsed
    section.collapsed = True
    add_segment(case, "bone", case.mask("liver"))

    def full(*_given):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recovery.autosave, "_write", full)
    assert recovery.keep() is False
    assert panel.ui.saveLabel.text == "Unsaved work cannot be kept: No space left on device"
    assert not section.collapsed
    section.collapsed = True
    assert recovery.keep() is False
    assert section.collapsed  # who closes it after that has seen it


def refuse_to_remove(monkeypatch) -> None:
    """Files are held open by another program, as Windows has it."""

    def held(self, missing_ok=False):
        raise PermissionError(13, "It is used by another process", str(self))

    monkeypatch.setattr(Path, "unlink", held)


def test_labels_are_saved_though_what_was_kept_of_them_cannot_be_removed(panel, case, monkeypatch):
    slicer.util.arrayFromVolume(case.node)[0, 0, 0] = -2345  # a study that nobody saved labels of
    slicer.util.arrayFromVolumeModified(case.node)
    panel.recovery.look()
    wait(lambda: not panel.recovery._looking.active)
    add_segment(case, "spleen", case.mask("spleen"))
    assert panel.recovery.keep()
    refuse_to_remove(monkeypatch)
    panel.ui.saveButton.click()
    wait(lambda: panel.ui.saveButton.enabled)
    assert panel.ui.saveLabel.text == "Saved: spleen (version 1)"


def test_what_cannot_be_deleted_is_said_and_stays_offered(panel, case, monkeypatch):
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda *_text, **_: True)
    segment = add_segment(case, "spleen", case.mask("spleen"))
    recovery, study = panel.recovery, study_of(case.node).study_id
    recovery.autosave.keep_one(study, case.segmentation, case.node)
    recovery.autosave.begin_run()
    case.segmentation.GetSegmentation().RemoveSegment(segment)
    recovery.look()
    wait(lambda: not panel.ui.recoverButton.isHidden())
    with monkeypatch.context() as patch:
        refuse_to_remove(patch)
        panel.ui.discardButton.click()
    assert "It is used by another process" in panel.ui.saveLabel.text
    assert not panel.ui.recoverButton.isHidden()
    panel.ui.discardButton.click()
    assert panel.ui.recoverButton.isHidden() and recovery.autosave.found(study) == []


def test_what_another_slicer_removes_meanwhile_is_not_found(kept, case, monkeypatch):
    add_segment(case, "spleen", case.mask("spleen"))
    keep(kept, case)
    kept.begin_run()
    glob = Path.glob
    gone = kept._folder / STUDY / "run" / "0.patch"
    monkeypatch.setattr(Path, "glob", lambda self, what: [*glob(self, what), *([gone] if what == "*.patch" else [])])
    assert [one.name for one in kept.found(STUDY)] == ["spleen"]


def test_labels_that_were_saved_before_the_scene_was_are_not_kept_as_unsaved_work(panel, case, tmp_path):
    recovery, study = panel.recovery, study_of(case.node).study_id
    assert panel.logic.assistant.studies.of(case.node).study_id
    spleen = add_segment(case, "spleen", case.mask("spleen"))
    version = read_mask(case.segmentation, spleen, case.node).version
    note_held(case.segmentation, spleen, Held(study, "spleen", 1, version))
    recovery.autosave = Autosave(tmp_path)
    assert recovery.keep() is False
    draw(case, spleen, "liver")
    assert recovery.keep() is True
    recovery.autosave.begin_run()
    (offered,) = recovery.autosave.found(study)
    assert offered.mask.mask.sum() == case.mask("liver").sum()
    note_held(case.segmentation, spleen, Held("another study", "spleen", 1, offered.mask.version))
    assert recovery.keep() is True  # it is no label of this image
