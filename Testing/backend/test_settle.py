"""Logits settle on the borders of the grey levels."""

from __future__ import annotations

import numpy as np

from aiassist.segmenters.settle import Borders

SIZE = 24


def distance() -> np.ndarray:
    """Of each cell from the centre."""
    axes = np.ogrid[:SIZE, :SIZE, :SIZE]
    return np.sqrt(sum((a - SIZE / 2) ** 2 for a in axes))


def ball(radius: float) -> np.ndarray:
    return distance() < radius


def everywhere() -> np.ndarray:
    return np.ones((SIZE,) * 3, bool)


def unsure(radius: float) -> np.ndarray:
    """Logits of a ball, weak near its border, as a network gives them."""
    return (0.5 * (radius - distance())).astype(np.float32)


def test_a_mask_that_ends_too_early_and_one_too_late_end_at_the_grey_border():
    body = ball(8)
    grey = np.where(body, 1.0, 0.0).astype(np.float32)
    for radius in (7, 9):
        before = ball(radius)
        after = Borders(grey, everywhere()).settle(unsure(radius)) > 0
        assert (before != body).sum() > 400
        assert (after != body).sum() < 0.1 * (before != body).sum()


def test_without_a_grey_border_the_mask_stays_within_a_cell():
    grey = np.zeros((SIZE,) * 3, np.float32)
    after = Borders(grey, everywhere()).settle(unsure(8)) > 0
    assert not (after & ~ball(9)).any()
    assert not (ball(7) & ~after).any()


def test_a_sure_answer_outweighs_its_neighbours():
    logits = unsure(8)
    logits[12, 12, 12] = -20
    assert Borders(np.zeros((SIZE,) * 3, np.float32), everywhere()).settle(logits)[12, 12, 12] < 0


def test_cells_beyond_the_volume_have_no_say_and_keep_theirs():
    valid = everywhere()
    valid[:, :, 12:] = False
    grey = np.where(ball(8), 1.0, 0.0).astype(np.float32)
    logits = unsure(7)
    wild = np.where(valid, logits, 50.0).astype(np.float32)
    settled = Borders(grey, valid).settle(logits)
    assert np.allclose(Borders(grey, valid).settle(wild)[valid], settled[valid], atol=1e-4)
    assert np.array_equal(settled[~valid], logits[~valid])
    assert np.array_equal(Borders(grey, ~everywhere()).settle(logits), logits)


def test_neither_scale_nor_offset_of_the_grey_levels_matters():
    grey = np.where(ball(8), 1.0, 0.0).astype(np.float32)
    once = Borders(grey, everywhere()).settle(unsure(9))
    assert np.allclose(Borders(300 * grey - 70, everywhere()).settle(unsure(9)), once, atol=1e-2)
