"""A scene: tissues everywhere, objects among them, and one target."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from aiassist.synthesis.fields import Draw, smooth_noise, warp
from aiassist.synthesis.shapes import Shape, random_shape, random_target

#: Labels of the background partition begin at 0; objects follow.
MAX_TISSUES = 7


@dataclass
class Placed:
    """A shape, and the first label of its parts in the scene."""

    shape: Shape
    first: int


class Scene:
    """A drawn scene; ask `labels` what lies at points (3, k, j, i).

    A partition into tissues fills the world; objects of all families overwrite it and each other in a
    random order, so that neighbours cut into the target and the target into them; now and then
    everything beyond a body is air.
    """

    def __init__(self, draw: Draw):
        self._seed = draw.integer(0, 2**31 - 1)
        self.device = draw.device
        self.tissues = draw.integer(2, MAX_TISSUES)
        self._knots = draw.integer(3, 9)
        self._warp = (draw.uniform(0, 0.12), draw.integer(3, 6))
        self.target = Placed(random_target(draw), 0)
        self.objects = [Placed(random_shape(draw), 0) for _ in range(draw.integer(1, 5))]
        self._offsets = [draw.vector(-0.9, 0.9) for _ in self.objects]
        self._sizes = [draw.uniform(0.4, 1.2) for _ in self.objects]
        self._rank = draw.choice((0, len(self.objects), len(self.objects), draw.integer(0, len(self.objects))))
        self._body = draw.uniform(0.8, 1.3) if draw.chance(0.35) else None
        first = self.tissues
        for placed in (self.target, *self.objects):
            placed.first = first
            first += placed.shape.count
        self.air = first
        self.count = first + 1

    @property
    def target_labels(self) -> list[int]:
        """Labels that make up the structure to be segmented."""
        return [self.target.first + part - 1 for part in self.target.shape.target]

    @property
    def alike(self) -> list[tuple[int, int]]:
        """Pairs of labels of one tissue: (label, the label whose grey level it has)."""
        placed = (self.target, *self.objects)
        return [(p.first + twin - 1, p.first + original - 1) for p in placed for twin, original in p.shape.alike]

    def labels(self, points: torch.Tensor) -> torch.Tensor:
        """Label of each point, shape (k, j, i)."""
        draw = Draw(self._seed, self.device)
        fields = smooth_noise(draw, points, self._knots, self.tissues)
        labels = fields.argmax(0)
        moved = warp(draw, points, *self._warp)
        order = [
            (placed, offset, size)
            for placed, offset, size in zip(self.objects, self._offsets, self._sizes, strict=True)
        ]
        order.insert(self._rank, (self.target, torch.zeros(3, device=self.device), 1.0))
        for placed, offset, size in order:
            parts = placed.shape.parts((moved - offset.view(3, 1, 1, 1)) / size)
            labels = torch.where(parts > 0, placed.first + parts - 1, labels)
        if self._body is not None:
            labels = torch.where(points.square().sum(0) > self._body**2 * 1.5, self.air, labels)
        return labels

    def is_target(self, labels: torch.Tensor) -> torch.Tensor:
        """Bool of the labels' shape: where the target is."""
        return torch.isin(labels, torch.tensor(self.target_labels, device=labels.device))
