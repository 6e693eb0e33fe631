"""An automatic model that was trained: a network finds structures in the whole volume; where its cells are coarse,
another looks closer at each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Protocol

import numpy as np
from scipy import ndimage

from aiassist.imaging import MaskPatch, Region, Volume
from aiassist.prompts import Prompts, extreme_points
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.correction import part
from aiassist.segmenters.overview import Overview
from aiassist.segmenters.promptable import PromptableNetwork

#: Pieces of a structure smaller than this share of its largest are dropped.
SMALL = 0.1
#: Cells of at most so many voxels a side show what the voxels show, and looking closer would only add another's faults.
FINE = 1.5


class Finder(Protocol):
    """Runs the network that sees the whole: channels (n, c, c, c) to logits (structures, c, c, c), float32."""

    cells: int

    def all(self, channels: np.ndarray) -> np.ndarray: ...


class AutomaticNetwork:
    """Segments the structures that it was trained for.

    Parameters
    ----------
    finder : callable
        Makes the `Finder` when it is first needed.
    closer : PromptableNetwork
        Looks closer at what was found on coarse cells, from its ends and its mask.
    card : ModelCard
    """

    def __init__(self, finder: Callable[[], Finder], closer: PromptableNetwork, card: ModelCard):
        self._make_finder, self._closer, self.card = finder, closer, card

    @cached_property
    def finder(self) -> Finder:
        """What runs the network that sees the whole."""
        return self._make_finder()

    def segment(self, volume: Volume) -> Work:
        """See `aiassist.segmenters.base.Automatic.segment`."""
        yield Step("crop", 0.0)
        overview = Overview.of(volume.geometry, self.finder.cells)
        seen = overview.see(volume)
        yield Step("pass", 0.1)
        logits = self.finder.all(seen)
        inside = seen[2] > 0
        found = {n: field for n, field in enumerate(logits) if ((field > 0) & inside).any()}
        labelmap = np.zeros(volume.shape, np.uint16)
        # The larger first, so that what lies in or at another, and is smaller, is whole.
        order = sorted(found, key=lambda n: -int(((found[n] > 0) & inside).sum()))
        for number, structure in enumerate(order):
            begin, share = 0.3 + 0.7 * number / len(order), 0.7 / len(order)
            mask = yield from part(self._look_closer(volume, overview, found[structure], inside), begin, share)
            labelmap[mask.region.slices][mask.mask] = self.card.labels[structure].value
        region = Region.of_mask(labelmap)
        return MaskPatch(region, labelmap[region.slices], "labels")

    def _look_closer(self, volume: Volume, overview: Overview, logits: np.ndarray, inside: np.ndarray):
        yield Step("paste", 0.0)
        coarse = overview.to_voxels(_main_pieces(logits, inside))
        found = MaskPatch.of_mask(coarse)
        if found.region.is_empty or overview.cube.cell.max() <= FINE:
            return found
        prompts = Prompts(extreme_points=extreme_points(coarse, np.random.default_rng(0)), prior=found)
        return (yield from part(self._closer.annotate(volume, prompts), 0.1, 0.9))


def _main_pieces(logits: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The logits (c, c, c) without small pieces and what lies beyond the volume."""
    parts, count = ndimage.label((logits > 0) & inside)
    sizes = np.bincount(parts.ravel(), minlength=count + 1)
    keep = sizes >= SMALL * sizes[1:].max(initial=0)
    keep[0] = True
    return np.where(inside & keep[parts], logits, -np.abs(logits))
