"""What is told of a save when something else happens meanwhile."""

from __future__ import annotations

import slicer

from aiassist.errors import ConnectionLostError
from aiassist.imaging import MaskPatch
from AIAssistLib.segments import write_plainly
from helpers import add_segment, wait


def changed_voxels(case, value: int) -> None:
    """A study that nobody saved labels of."""
    slicer.util.arrayFromVolume(case.node)[0, 0, 0] = value
    slicer.util.arrayFromVolumeModified(case.node)


def test_what_was_saved_is_told_though_the_server_does_not_list_it(panel, case, monkeypatch):
    changed_voxels(case, -2501)
    add_segment(case, "spleen", case.mask("spleen"))

    def lost(_volume):
        raise ConnectionLostError("The server does not answer.")
        yield

    panel.ui.saveButton.click()
    monkeypatch.setattr(panel.saving._truth, "history", lost)
    wait(lambda: panel.ui.saveButton.enabled)
    assert panel.ui.saveLabel.text == "Saved: spleen (version 1)"
    panel.ui.historyGroup.collapsed = False
    panel.ui.refreshButton.click()  # who asks is told
    wait(lambda: panel.ui.saveLabel.text == "The server does not answer.")


def test_when_another_image_is_chosen_meanwhile_nobody_is_told_of_drawing(panel, case):
    changed_voxels(case, -2502)
    add_segment(case, "spleen", case.mask("spleen"))
    other = slicer.util.addVolumeFromArray(case.volume.voxels + 1, ijkToRAS=case.to_world, name="other")
    panel.ui.saveNextButton.click()
    panel.editor.setSourceVolumeNode(other)
    wait(lambda: panel.ui.saveButton.enabled)
    assert panel.ui.saveLabel.text == "Saved: spleen (version 1). Another image is in the panel now, so it stays."
    assert panel.editor.sourceVolumeNode() is other


def test_when_segments_are_changed_meanwhile_it_is_told_what_was_saved_and_why_the_image_stays(panel, case):
    changed_voxels(case, -2503)
    segment = add_segment(case, "spleen", case.mask("spleen"))
    panel.ui.saveNextButton.click()
    write_plainly(MaskPatch.of_mask(case.mask("liver")), case.node, case.segmentation, segment)
    wait(lambda: panel.ui.saveButton.enabled)
    assert panel.ui.saveLabel.text == (
        "Saved: spleen (version 1). The segments were changed meanwhile, so this image stays."
    )
    assert panel.editor.sourceVolumeNode() is case.node
