"""What the promptable network sees."""

from __future__ import annotations

import numpy as np
from synth_helpers import Watcher, scene

from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, run
from aiassist.segmenters.cube import Cube
from aiassist.segmenters.geodesic import solve
from aiassist.segmenters.grey_channels import window
from aiassist.segmenters.marks import Marks, blobs
from aiassist.segmenters.network_input import (
    CHANNELS,
    EVIDENCE,
    GREY,
    GUESS_CELLS,
    INSIDE,
    WIDE,
    channels,
    sample_guess,
    show_prior,
)
from aiassist.segmenters.promptable import PromptableNetwork
from aiassist.segmenters.settle import Borders


def test_a_click_shows_the_network_what_training_would():
    """Training crops from a whole scan, a click from a region of the study; the cells must be the same."""
    volume, _, points = scene()
    watcher = Watcher()
    run(
        PromptableNetwork(lambda: watcher, ModelCard("watcher", "0", "promptable", "A test.")).annotate(
            volume, Prompts(extreme_points=points)
        )
    )
    prompts = Prompts(extreme_points=points)
    low, high = (corner[::-1] for corner in prompts.box_ijk(volume.geometry))
    cube = Cube.around(low, high, volume.shape, volume.geometry.spacing_kji, watcher.cells)
    (cells, valid), marks = cube.sample(volume.voxels), Marks.of(prompts, cube)
    limits = window(cells, valid, marks)
    guess = sample_guess(cube, *run(solve(volume, prompts, GUESS_CELLS, limits)))
    expected = channels(np.clip(cells, *limits), valid, cube, marks, None, guess)
    first, second = watcher.shown
    assert np.abs(first - expected).max() < 1e-4
    guess = expected[CHANNELS.index("guess of the classical segmenter")]
    answer = Borders(expected[WIDE], expected[INSIDE] > 0).settle(8 * guess)
    show_prior(expected, (answer > 0).astype(np.float32))
    assert np.abs(second - expected).max() < 1e-3


def test_the_guess_lies_where_the_structure_lies():
    volume, truth, points = scene()
    watcher = Watcher()
    network = PromptableNetwork(lambda: watcher, ModelCard("watcher", "0", "promptable", "A test."))
    mask = run(network.annotate(volume, Prompts(extreme_points=points))).to_mask(volume.shape)
    assert 2 * (mask & truth).sum() / (mask.sum() + truth.sum()) > 0.93


def test_cells_beyond_the_volume_are_not_valid():
    cube = Cube.around([-5, 2, 2], [5, 12, 12], (20, 20, 20), (1, 1, 1), 20)
    cells, valid = cube.sample(np.ones((20, 20, 20), np.float32))
    assert not valid[:8].any() and valid[10:].all()
    assert np.allclose(cells[valid], 1) and not cells[~valid].any()


def test_averaging_fewer_voxels_of_large_structures_changes_little():
    k, j, i = np.meshgrid(*[np.linspace(0, 6, 200)] * 3, indexing="ij")
    voxels = (np.sin(k) + np.cos(j + i)).astype(np.float32)
    cube = Cube.around([10, 20, 30], [190, 180, 170], voxels.shape, (1, 1, 1), 32)
    thin, few = cube.thinned()
    assert voxels[few].size < voxels.size / 6
    (whole, valid), (part, still_valid) = cube.sample(voxels), thin.sample(voxels[few])
    assert np.mean(valid != still_valid) < 0.02
    assert np.abs(whole - part)[valid & still_valid].max() < 0.06


def test_marks_are_gaussians_at_their_places_and_may_lie_beyond_the_cube():
    marks = blobs(np.array([[10.0, 12.5, 3.0], [-2.0, 5.0, 5.0], [90.0, 5.0, 5.0]]), 32)
    k, j, i = np.indices(marks.shape)
    near = np.exp(-0.5 * ((k - 10) ** 2 + (j - 12.5) ** 2 + (i - 3) ** 2) / 1.5**2)
    beyond = np.exp(-0.5 * ((k + 2) ** 2 + (j - 5) ** 2 + (i - 5) ** 2) / 1.5**2)
    assert np.abs(marks - np.maximum(near, beyond)).max() < 1e-3


def block():
    """A bright block in noise, the cube over it, and its ends in cells."""
    voxels = np.random.default_rng(0).normal(0, 1, (40, 40, 40)).astype(np.float32)
    voxels[10:30, 10:30, 10:30] += 10
    cube = Cube.around([9.5] * 3, [29.5] * 3, voxels.shape, (1, 1, 1), 32)
    ends = [[10, 20, 20], [29, 20, 20], [20, 10, 20], [20, 29, 20], [20, 20, 10], [20, 20, 29]]
    return voxels, cube, Marks(extreme=cube.to_cells(ends))


def test_marks_on_finer_cells_are_those_of_the_finer_cube():
    voxels = np.zeros((30, 40, 50), np.float32)
    prompts = Prompts(extreme_points=[[5, 5, 5], [30, 25, 20]], positive=[[9, 8, 7]], negative=[[1, 2, 3], [4, 5, 6]])
    cubes = [Cube.around((5, 5, 5), (20, 25, 30), voxels.shape, (2, 1, 1), cells) for cells in (48, 64)]
    coarse, fine = (Marks.of(prompts, cube) for cube in cubes)
    moved = coarse.on(64 / 48)
    for name in ("extreme", "positive", "negative", "box"):
        assert np.allclose(getattr(moved, name), getattr(fine, name))
    assert Marks().on(2).box is None


def test_local_grey_is_near_zero_inside_and_evidence_is_high():
    voxels, cube, marks = block()
    seen = channels(*cube.sample(voxels), cube, marks)
    inside = (slice(8, 24),) * 3
    assert abs(seen[0][inside]).mean() < 0.55 < 0.9 < abs(seen[0][:2]).mean()
    assert seen[2][inside].mean() > 0.6 > -0.1 > seen[2][:2].mean()


def test_with_a_prior_its_grey_levels_are_the_evidence_but_not_around_clicks_that_contradict_it():
    voxels, cube, _ = block()
    prior = np.zeros_like(voxels)
    prior[10:30, 10:30, 10:20] = 1  # half the block
    marks = Marks(positive=cube.to_cells([[20, 20, 25]]))
    seen = channels(*cube.sample(voxels), cube, marks, cube.sample(prior)[0])
    assert seen[2][8:24, 8:24, 8:24].mean() > 0.3 > -0.5 > seen[2][:2].mean()


def test_the_window_holds_the_organ_and_its_neighbours_but_not_the_air():
    voxels, cube, marks = block()
    voxels[:, :5], voxels[:, 35:] = -1000, 3000  # air and metal
    low, high = window(*cube.sample(voxels), marks)
    assert -100 < low < -3 and 13 < high < 120
    prior = np.zeros_like(voxels)
    prior[10:30, 10:30, 10:30] = 1
    low, high = window(*cube.sample(voxels), Marks(), cube.sample(prior)[0])
    assert -100 < low < -3 and 13 < high < 120


def test_air_in_the_crop_does_not_use_up_the_scale():
    voxels, cube, marks = block()
    cells, valid = cube.sample(voxels)
    plain = channels(np.clip(cells, *window(cells, valid, marks)), valid, cube, marks)
    voxels[:, :8] = -1000
    cells, valid = cube.sample(voxels)
    airy = channels(np.clip(cells, *window(cells, valid, marks)), valid, cube, marks)
    inside, beside = (slice(8, 24),) * 3, (slice(8, 24), slice(8, 24), slice(0, 3))
    for seen in (plain, airy):
        assert abs(abs(seen[GREY][inside]).mean() - abs(seen[GREY][beside]).mean()) > 0.4
        assert seen[EVIDENCE][inside].mean() - seen[EVIDENCE][beside].mean() > 0.7


def test_a_volume_of_one_grey_level_stays_as_it_is():
    _, cube, marks = block()
    cells, valid = cube.sample(np.full((40, 40, 40), 7, np.float32))
    assert np.array_equal(np.clip(cells, *window(cells, valid, marks))[valid], cells[valid])
