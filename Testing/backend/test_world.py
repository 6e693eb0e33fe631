"""The synthetic world: its shapes, scenes, examples, and corrections."""

from __future__ import annotations

from collections import Counter
from functools import cache

import numpy as np
import pytest
import torch
from synth_helpers import Watcher

from aiassist.segmenters.base import ModelCard
from aiassist.segmenters.network_input import CHANNELS, CLICKS, GUESS
from aiassist.segmenters.promptable import PromptableNetwork
from aiassist.synthesis.corrections import CLICKS as CLICKS_A_SCAN
from aiassist.synthesis.corrections import corrections
from aiassist.synthesis.example import STARTS, example
from aiassist.synthesis.example import examples as examples_of
from aiassist.synthesis.fields import Draw, distance_to_curve, grid_points
from aiassist.synthesis.scene import Scene
from aiassist.synthesis.shapes import FAMILIES, mottled, repeated, severed, tube


@cache
def examples():
    """Forty examples, once for all tests: every family and kind is among them."""
    return [example(seed, 24) for seed in range(40)]


def test_same_seed_gives_the_same_example_and_another_seed_another():
    again = example(3, 24)
    assert torch.equal(again.channels, examples()[3].channels)
    assert torch.equal(again.truth, examples()[3].truth)
    assert not torch.equal(again.channels, examples()[4].channels)


def test_examples_of_one_scan_differ_in_their_prompts_only():
    one, other = examples_of(3, 24, 2)
    assert torch.equal(one.channels, example(3, 24).channels)
    assert one.family == other.family and not torch.equal(one.channels, other.channels)
    inside = [float((made.truth * made.valid).sum()) for made in (one, other)]
    assert min(inside) > 0.2 * max(inside)  # the same structure, on a cube of another size


def test_every_family_and_every_kind_of_prompt_occurs():
    families, kinds = (Counter(getattr(e, name) for e in examples()) for name in ("family", "kind"))
    assert set(families) == {maker.__name__ for maker in FAMILIES}
    assert kinds["points"] > 20 and len(kinds) > 4
    assert set(kinds) <= set(STARTS)


def test_targets_are_in_sight_and_all_values_are_finite():
    shares = [float((e.truth > 0.5).float().mean()) for e in examples() if e.kind == "points"]
    assert min(shares) > 0 and np.mean(shares) < 0.5
    for made in examples():
        assert made.channels.shape == (len(CHANNELS), 24, 24, 24)
        assert torch.isfinite(made.channels).all()
        assert not (made.truth[~made.valid] > 0).any()


def test_some_targets_are_cut_by_the_volume_and_the_outside_is_marked():
    outside = [not bool(made.valid.all()) for made in examples()]
    assert 0.2 < np.mean(outside) < 0.95
    made = next(m for m, o in zip(examples(), outside, strict=True) if o)
    assert (made.channels[0][~made.valid] == 0).all()
    assert (made.channels[CHANNELS.index("inside the volume")] == made.valid).all()


def parts_of(shape):
    """The part at each of forty points an axis, and which of them are the target."""
    parts = shape.parts(grid_points(torch.full((3,), -1.0), torch.full((3,), 1.0), (40,) * 3))
    return parts, torch.isin(parts, torch.tensor(shape.target))


@pytest.mark.parametrize("maker", FAMILIES)
def test_shapes_have_the_parts_that_they_say(maker):
    for seed in range(12):
        shape = maker(Draw(seed))
        parts, target = parts_of(shape)
        assert shape.family == maker.__name__ and int(parts.max()) <= shape.count
        assert target.any() and not target.all()
        assert set(shape.target) <= set(range(1, shape.count + 1))
        assert all(1 <= part <= shape.count for pair in shape.alike for part in pair)


def test_the_distance_to_a_curve_is_that_to_its_nearest_place():
    knots = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 0.5], [0.0, 0.6, 0.5]])
    points = grid_points(torch.full((3,), -1.0), torch.full((3,), 1.0), (17, 19, 21))
    distance, along = distance_to_curve(points, knots)
    share = torch.linspace(0, 1, 801)[:, None]
    places = torch.cat([knots[0] + share * (knots[1] - knots[0]), knots[1] + share * (knots[2] - knots[1])])
    gaps, nearest = torch.cdist(points.flatten(1).T.contiguous(), places).min(1)
    assert torch.allclose(distance.flatten(), gaps, atol=1e-3)
    assert torch.allclose(along.flatten(), nearest / 1601, atol=2e-3)
    exact = distance_to_curve(knots.T[:, :, None, None], knots)
    assert torch.allclose(exact[0], torch.zeros(3, 1, 1), atol=1e-4)
    assert torch.allclose(exact[1].flatten(), torch.tensor([0.0, 0.5, 1.0]), atol=1e-4)


def test_a_severed_shape_goes_on_beyond_its_end_in_the_same_tissue():
    for seed in range(12):
        whole = repeated(Draw(seed))
        end = severed(Draw(100 + seed), whole)
        _, before = parts_of(whole)
        parts, target = parts_of(end)
        assert 0.2 < target.sum() / before.sum() < 0.95 and not (target & ~before).any()
        twins = dict(end.alike)
        beyond = set(parts[before & ~target].tolist())
        assert beyond and all(twins[part] == part - whole.count for part in beyond)


def test_a_mottled_shape_keeps_its_outline_and_has_more_tissues():
    for seed in range(12):
        plain = tube(Draw(seed))
        mixed = mottled(Draw(100 + seed), plain)
        _, before = parts_of(plain)
        _, target = parts_of(mixed)
        assert torch.equal(before, target) and len(mixed.target) > len(plain.target)


def test_tissues_that_are_alike_are_the_scenes_own_and_often_lie_beyond_the_target():
    scenes = [Scene(Draw(seed)) for seed in range(60)]
    for made in scenes:
        assert all(made.tissues <= label < made.air for pair in made.alike for label in pair)
    beyond = [any(a not in s.target_labels and b in s.target_labels for a, b in s.alike) for s in scenes]
    assert 0.4 < np.mean(beyond) < 0.8


@cache
def courses():
    """Corrections of the classical segmenter's and other faulty masks, and of a model that answers with its guess."""
    watched = PromptableNetwork(Watcher, ModelCard("watcher", "0", "promptable", "A test."))
    return [corrections(seed, 24, watched) for seed in range(8)]


def test_a_scan_gets_several_clicks_each_in_an_error_of_the_mask_it_shows():
    assert {len(course) for course in courses()} <= set(range(1, CLICKS_A_SCAN + 1))
    assert max(len(course) for course in courses()) == CLICKS_A_SCAN
    for course in courses():
        for made in course:
            assert made.kind == "correction" and made.channels[CHANNELS.index("has a prior mask")].min() == 1
            near = made.channels[GUESS]
            assert near.abs().max() > 0.5  # what hangs together with the click
            place = np.unravel_index(int(near.abs().argmax()), near.shape)
            assert float(made.channels[CLICKS][0 if near[place] > 0 else 1][place]) > 0.5


def test_corrections_of_a_seed_are_the_same_every_time():
    watched = PromptableNetwork(Watcher, ModelCard("watcher", "0", "promptable", "A test."))
    again = corrections(2, 24, watched)
    assert all(torch.equal(a.channels, b.channels) for a, b in zip(again, courses()[2], strict=True))
