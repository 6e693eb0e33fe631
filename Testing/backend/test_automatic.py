"""Trained automatic models: how they see the whole, and what becomes of what their network says."""

from __future__ import annotations

import numpy as np
import pytest
from learning_helpers import ellipsoid_scan
from test_lungs import ORIENTATIONS

from aiassist.imaging import Geometry, Volume, describe_structure
from aiassist.segmenters.automatic import AutomaticNetwork
from aiassist.segmenters.base import ModelCard, Step
from aiassist.segmenters.overview import Overview


@pytest.mark.parametrize("direction", ORIENTATIONS[::5], ids=lambda d: "".join(map(str, d.astype(int).ravel())))
def test_an_overview_shows_the_patient_alike_however_the_array_lies(direction):
    image, mask = ellipsoid_scan(3)
    straight = Overview.of(image.geometry, 32)
    turned_image, turned_mask = lying(image, mask, direction)
    turned = Overview.of(turned_image.geometry, 32)
    np.testing.assert_allclose(turned.see(turned_image), straight.see(image), atol=1e-4)
    np.testing.assert_allclose(turned.sample(turned_mask), straight.sample(mask), atol=1e-4)
    field = straight.sample(mask) - 0.5
    assert np.array_equal(turned.turn(turned.to_voxels(field)), straight.turn(straight.to_voxels(field)))
    back = straight.to_voxels(field)
    assert 2 * (back & mask).sum() / (back.sum() + mask.sum()) > 0.9


def lying(image: Volume, mask: np.ndarray, direction: np.ndarray) -> tuple[Volume, np.ndarray]:
    """The same patient on an array whose axes (i, j, k) run along the columns of a signed permutation."""
    axes, signs = np.argmax(np.abs(direction), axis=0), direction.sum(axis=0)  # of the patient, for i, j and k
    order = [2 - axes[n] for n in (2, 1, 0)]
    flips = [n for n, sign in enumerate(signs[::-1]) if sign < 0]
    voxels, turned = (np.flip(a.transpose(order), flips) for a in (image.voxels, mask))
    size = np.array(image.geometry.size)
    affine = np.eye(4)
    affine[:3, :3] = direction * np.array(image.geometry.spacing)[axes]
    first = [size[axis] - 1 if sign < 0 else 0 for axis, sign in zip(axes, signs, strict=True)]
    corner = np.zeros(3)
    corner[axes] = first
    affine[:3, 3] = image.geometry.to_lps([corner])[0]
    return Volume(np.ascontiguousarray(voxels), Geometry(voxels.shape, affine)), turned


# What becomes of what the network says


class Telling:
    """A finder that knows the shares of some masks."""

    def __init__(self, volume: Volume, masks, cells: int):
        self.cells = cells
        overview = Overview.of(volume.geometry, cells)
        self._logits = np.stack([overview.sample(mask) - 0.5 for mask in masks])

    def all(self, channels: np.ndarray) -> np.ndarray:
        assert channels.shape == (6, self.cells, self.cells, self.cells)
        return self._logits


class Closer:
    """Looks closer by giving back what was found; keeps what it was asked."""

    def __init__(self):
        self.asked = []

    def annotate(self, volume, prompts):
        self.asked.append(prompts)
        yield Step("pass", 0.5)
        return prompts.prior


def segmented(volume: Volume, masks, cells: int) -> tuple[np.ndarray, Closer]:
    labels = tuple(describe_structure(name, value) for name, value in (("liver", 3), ("cyst", 7)))[: len(masks)]
    card, closer = ModelCard("auto", "1", "automatic", "For tests.", labels=labels), Closer()
    model = AutomaticNetwork(lambda: Telling(volume, masks, cells), closer, card)
    steps = []
    work = model.segment(volume)
    while True:
        try:
            steps.append(next(work).fraction)
        except StopIteration as end:
            assert steps == sorted(steps) and steps[0] >= 0 and steps[-1] <= 1
            return end.value.to_labelmap(volume.shape), closer


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def test_where_cells_are_as_fine_as_voxels_what_was_found_stays():
    volume, mask = ellipsoid_scan(1)
    labelmap, closer = segmented(volume, [mask], cells=32)
    assert dice(labelmap == 3, mask) > 0.93
    assert closer.asked == []


def test_what_was_found_on_coarse_cells_is_looked_at_closer_from_its_ends_and_its_mask():
    volume, mask = ellipsoid_scan(1)
    labelmap, closer = segmented(volume, [mask], cells=12)
    (prompts,) = closer.asked
    assert dice(labelmap == 3, mask) > 0.85
    ends = np.argwhere(labelmap == 3)[:, ::-1]
    np.testing.assert_array_equal(prompts.extreme_points.min(axis=0), ends.min(axis=0))
    np.testing.assert_array_equal(prompts.extreme_points.max(axis=0), ends.max(axis=0))
    assert int(prompts.prior.mask.sum()) == (labelmap == 3).sum()


def test_the_smaller_of_two_that_overlap_is_whole_and_specks_are_dropped():
    volume, mask = ellipsoid_scan(1)
    small = np.zeros_like(mask)
    k, j, i = np.argwhere(mask).mean(axis=0).astype(int)
    small[k - 1 : k + 2, j - 3 : j + 3, i - 3 : i + 3] = True
    speck = np.zeros_like(mask)
    speck[0:2, 0:3, 0:3] = True
    labelmap, _ = segmented(volume, [mask | speck, small], cells=32)
    assert dice(labelmap == 7, small) > 0.8
    assert dice(labelmap != 0, mask) > 0.93
    assert not labelmap[:2, :3, :3].any()


def test_nothing_found_is_an_empty_answer():
    volume, mask = ellipsoid_scan(1)
    labelmap, closer = segmented(volume, [np.zeros_like(mask)], cells=12)
    assert not labelmap.any()
    assert closer.asked == []


@pytest.mark.parametrize("shape", [(1, 40, 30), (40, 1, 30), (30, 40, 1)])
def test_an_image_of_one_slice_is_segmented(shape):
    volume = Volume(
        np.random.default_rng(0).normal(0, 9, shape).astype(np.float32), Geometry.from_spacing(shape, (0.5, 0.5, 0.5))
    )
    mask = np.ones(shape, bool)
    for axis, n in enumerate(shape):
        if n > 1:
            mask &= np.isin(np.indices(shape)[axis], range(n // 4, 3 * n // 4))
    labelmap, _ = segmented(volume, [mask], cells=64)
    assert dice(labelmap == 3, mask) > 0.9
