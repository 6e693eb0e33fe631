"""A scene: tissues everywhere, objects among them, and one target."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from aiassist.synthesis.fields import Draw, largest, smooth_noise, warp
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
    everything beyond a body is air. In a soft scene, as of organs in fat, tissues are alike and some objects of the
    target's own tissue; layers of fat, open in places, part what lies side by side there, and in some other scenes.
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
        self.is_soft = draw.chance(0.4)
        self._fat = draw.log_uniform(0.01, 0.06) if self.is_soft or draw.chance(0.2) else 0.0
        self._open = draw.uniform(-2.0, 0.5)
        self._kin = [placed for placed in self.objects if self.is_soft and draw.chance(0.4)]
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
        pairs = [(p.first + twin - 1, p.first + original - 1) for p in placed for twin, original in p.shape.alike]
        own = self.target_labels
        for kin in self._kin:
            pairs += [(kin.first + n, own[min(n, len(own) - 1)]) for n in range(kin.shape.count)]
        return pairs

    def labels(self, points: torch.Tensor) -> torch.Tensor:
        """Label of each point, shape (k, j, i)."""
        draw = Draw(self._seed, self.device)
        fields = smooth_noise(draw, points, self._knots, self.tissues)
        labels = largest(fields)
        moved = warp(draw, points, *self._warp)
        order = [
            (placed, offset, size)
            for placed, offset, size in zip(self.objects, self._offsets, self._sizes, strict=True)
        ]
        order.insert(self._rank, (self.target, torch.zeros(3, device=self.device), 1.0))
        for placed, offset, size in order:
            parts = placed.shape.parts((moved - offset.view(3, 1, 1, 1)) / size)
            labels = torch.where(parts > 0, placed.first + parts - 1, labels)
        if self._fat:
            labels = self._parted(draw, points, labels)
        if self._body is not None:
            labels = torch.where(points.square().sum(0) > self._body**2 * 1.5, self.air, labels)
        return labels

    def _parted(self, draw: Draw, points: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The labels with fat, the first tissue, where two objects meet, on this side of the target's border."""
        owners = [0] * self.tissues
        for number, placed in enumerate((self.target, *self.objects), 1):
            owners += [number] * placed.shape.count
        owner = torch.tensor([*owners, 0], device=self.device)[labels].float()[None, None]
        steps = [
            float(points[axis].amax() - points[axis].amin()) / max(1, n - 1) for axis, n in enumerate(labels.shape)
        ]
        # at least a voxel wide, but not across thick slices
        reach = [max(min(4, round(self._fat / step)), int(step < 1.5 * min(steps))) for step in steps]
        size = [2 * n + 1 for n in reach]
        borders = F.max_pool3d(owner, size, 1, reach) != -F.max_pool3d(-owner, size, 1, reach)
        shut = smooth_noise(draw, points, 6)[0] > self._open
        return torch.where(borders[0, 0] & shut & ~self.is_target(labels), 0, labels)

    def is_target(self, labels: torch.Tensor) -> torch.Tensor:
        """Bool of the labels' shape: where the target is."""
        return torch.isin(labels, torch.tensor(self.target_labels, device=labels.device))
