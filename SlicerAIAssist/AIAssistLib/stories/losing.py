"""Stories of a backend that is lost."""

from __future__ import annotations

import numpy as np

from AIAssistLib.stories.keeping import newest, save
from AIAssistLib.stories.stage import UNDER_WAY, Stage, expect


def what_computes_is_lost_in_the_middle_of_a_click_and_comes_back(stage: Stage) -> None:
    """The click is answered all the same, as it was before: image and mask were told again."""
    truth = stage.truth("spleen")
    stage.choose("spleen")
    effect = stage.outline("spleen")
    missing = np.argwhere(truth & ~stage.shown(effect))
    place = stage.world(missing[len(missing) // 2][::-1])[0]
    stage.views[0].click(place)
    stage.answered(effect)
    undisturbed = stage.shown(effect)
    effect.ui.takeBackButton.click()
    stage.views[0].click(place)
    stage.pause(UNDER_WAY)
    expect(effect.session.busy, "the model is still at work when it is lost")
    stage.lose()
    stage.answered(effect)
    expect(np.array_equal(stage.shown(effect), undisturbed), "the answer is the same voxel by voxel")


def the_process_is_lost_in_the_middle_of_a_save_and_comes_back(stage: Stage) -> None:
    """The labels are saved once, and are those that the person saw.

    For this Slicer: its engine cannot be lost without Slicer, so what is lost is the process that keeps the labels.
    """
    truth = stage.truth("gallbladder")
    segment = stage.choose("gallbladder", truth)
    save(stage)
    before = newest(stage, "gallbladder")
    truth = truth | stage.truth("adrenal_gland_left")  # what is saved already would not be saved again
    stage.draw(segment, truth)
    stage.panel.saving.save()
    stage.pause(UNDER_WAY)
    expect(not stage.panel.ui.saveButton.enabled, "the labels are still being saved when the process is lost")
    stage.lose()
    stage.wait(lambda: stage.panel.ui.saveButton.enabled, "the labels are saved")
    after = newest(stage, "gallbladder")
    expect(after.number == before.number + 1, f"they are saved once; it says: {stage.panel.ui.saveLabel.text}")
    expect(np.array_equal(after.mask, truth), "what is saved is what the person saw, voxel by voxel")
