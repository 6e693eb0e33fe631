"""Stories of Smart Contour."""

from __future__ import annotations

import numpy as np

from aiassist.evaluation.metrics import dice
from AIAssistLib.stories.stage import Stage, expect

#: In voxels: the radius of the bite out of the organ, and how far from it nothing may change.
BITE, FAR = 5, 15
#: In mm along the outline: how far the neighbours of a pulled vertex follow.
RADIUS = 20.0


def a_wrong_stretch_is_pulled_right_and_the_rest_stays(stage: Stage) -> None:
    """One vertex pulled over a bite out of the spleen mends half of it on its slice, and touches nothing else."""
    truth = stage.truth("spleen")
    (k, j, i), bite = _bite(truth)
    segment, effect = stage.choose("spleen", truth & ~bite), stage.effect("Smart Contour")
    effect.ui.radiusSlider.value, effect.ui.strengthSlider.value = RADIUS, 1.0
    before, view = stage.mask(segment), stage.views[0]
    place = view.pixel(stage.world([i, j, k])[0])
    view.move(place)
    expect(effect.ui.statusLabel.text == "", f"Smart Contour works; it says: {effect.ui.statusLabel.text}")
    vertices = np.concatenate(effect.contour.rings(view.node))
    view.drag(vertices[np.linalg.norm(vertices - place, axis=1).argmin()], place)
    after = stage.mask(segment)
    slices = np.flatnonzero((before != after).any(axis=(1, 2)))
    expect(slices.tolist() == [k], "exactly the slice that was pulled changes")
    wrong = 1 - dice(before[k], truth[k]), 1 - dice(after[k], truth[k])
    expect(wrong[1] < wrong[0] / 2, "more than half of the wrong stretch is right now")
    far = np.hypot(*(np.indices(truth[k].shape) - np.array([j, i])[:, None, None])) > FAR
    expect(np.array_equal(after[k][far], before[k][far]), "the outline far from the pull stays")


def _bite(truth: np.ndarray) -> tuple[tuple[int, int, int], np.ndarray]:
    """A place on the truth's border in its largest slice, and a ball around it on a few slices."""
    k = int(truth.sum(axis=(1, 2)).argmax())
    inside = np.argwhere(truth[k])
    j, i = inside[inside[:, 0].argmax()].tolist()
    kk, jj, ii = np.indices(truth.shape)
    return (k, j, i), ((jj - j) ** 2 + (ii - i) ** 2 < BITE**2) & (abs(kk - k) <= 2)
