"""The segmenter around a network, whatever its weights."""

from __future__ import annotations

import numpy as np
import pytest
from synth_helpers import Watcher, scene

from aiassist.imaging import MaskPatch
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Promptable, run
from aiassist.segmenters.network_input import CHANNELS
from aiassist.segmenters.promptable import PromptableNetwork
from aiassist.segmenters.torch_runner import TorchRunner


def segmenter(weights):
    return PromptableNetwork(
        lambda: TorchRunner.from_weights(weights), ModelCard("network", "0", "promptable", "A test.")
    )


def test_network_segmenter_follows_the_protocol_and_honours_clicks(weights):
    volume, _, points = scene()
    network = segmenter(weights)
    assert isinstance(network, Promptable)
    prompts = Prompts(extreme_points=points, positive=[[20, 20, 10], [2, 2, 1]], negative=[[20, 12, 9]])
    mask = run(network.annotate(volume, prompts)).to_mask(volume.shape)
    assert mask[10, 20, 20] and mask[1, 2, 2] and not mask[9, 12, 20]


def test_a_click_that_an_earlier_one_satisfied_takes_no_pass_and_the_corrector_sees_its_own_cells():
    volume, truth, _ = scene()
    corrector = Watcher()
    corrector.cells = 24
    network = PromptableNetwork(Watcher, ModelCard("watcher", "0", "promptable", "A test."), lambda: corrector)
    prompts = Prompts(prior=MaskPatch.of_mask(truth), negative=[[20, 20, 10], [21, 20, 10]])
    after = run(network.annotate(volume, prompts)).over(prompts.prior).to_mask(volume.shape)
    assert not after[10, 20, 20] and not after[10, 20, 21]
    assert [seen.shape for seen in corrector.shown] == [(len(CHANNELS), 24, 24, 24)]


@pytest.mark.parametrize("positive", [True, False])
def test_network_corrections_are_one_sided_and_local(weights, positive):
    volume, truth, points = scene()
    before = truth.copy()
    before[:, :, 20:] = not positive
    click = [[28, 20, 10]] if positive else [[38, 4, 3]]
    side = {"positive": click} if positive else {"negative": click}
    prior = MaskPatch.of_mask(before)
    prompts = Prompts(extreme_points=points, prior=prior, **side)
    patch = run(segmenter(weights).annotate(volume, prompts))
    after = patch.over(prior).to_mask(volume.shape)
    place = tuple(int(c) for c in click[0][::-1])
    assert after[place] == positive
    assert not ((before & ~after) if positive else (after & ~before)).any()
    changed = np.argwhere(after != before)
    distance = np.linalg.norm((changed - place) * np.array(volume.geometry.spacing_kji), axis=1)
    assert distance.max() <= 30.0
