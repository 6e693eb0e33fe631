"""Segmenters that wait, or fail, and a bright ball."""

from __future__ import annotations

import threading
from dataclasses import replace

import numpy as np

from aiassist.imaging import Geometry, MaskPatch, Region, Volume, describe_structure
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step

SHAPE = (20, 24, 28)
WAIT = 20
CARD = ModelCard(name="steps", version="3", kind="promptable", description="Yields many steps.")
PROMPTS = Prompts(positive=[[14, 12, 10]])


class Steps:
    """A segmenter of many steps that waits at the first one until it is let go."""

    card = CARD

    def __init__(self):
        self.entered, self.go = threading.Event(), threading.Event()
        self.order: list[float] = []
        self.closed = 0

    def annotate(self, volume, prompts):
        """A mask of the clicked voxel, after ten steps."""
        i, j, k = prompts.positive[0].astype(int)
        try:
            for n in range(10):
                yield Step("pass", n / 10)
                self.entered.set()
                assert self.go.wait(WAIT)
                if n == 0:
                    self.order.append(float(i))
        except GeneratorExit:
            self.closed += 1
            raise
        return MaskPatch(Region((k, j, i), (k + 1, j + 1, i + 1)), np.ones((1, 1, 1), bool))


class Whole:
    """An automatic segmenter of ten steps."""

    card = replace(CARD, name="whole", kind="automatic", labels=(describe_structure("liver"),))

    def segment(self, volume):
        """All of the volume."""
        for n in range(10):
            yield Step("pass", n / 10)
        return MaskPatch(Region((0, 0, 0), volume.shape), np.ones(volume.shape, np.uint16), "labels")


class Broken:
    """A segmenter that fails in its second step."""

    card = replace(CARD, name="broken")

    def annotate(self, volume, prompts):
        """Fails."""
        yield Step("pass", 0.0)
        raise RuntimeError("the network is on fire")


def make_volume(seed=0) -> Volume:
    """A bright ball in noise."""
    rng = np.random.default_rng(seed)
    axes = np.ix_(*[np.arange(n) - n / 2 for n in SHAPE])
    voxels = rng.normal(0, 10, SHAPE) + 200 * (sum((a / 6) ** 2 for a in axes) <= 1)
    return Volume(voxels.astype(np.int16), Geometry.from_spacing(SHAPE, (1, 1, 1.5)))


BALL = Prompts(
    extreme_points=[[8, 12, 10], [20, 12, 10], [14, 6, 10], [14, 18, 10], [14, 12, 4], [14, 12, 16]],
)
