"""Random smooth fields and shapes, as functions of position.

Positions are tensors (3, ...) in the world's own coordinates: the cube from -1 to 1. Everything is
drawn from a `torch.Generator` on the CPU, so that one seed gives one world on any device.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

#: Points whose distances to a curve are found at once on a CPU: what its cache holds.
PIECE = 4096


class Draw:
    """Random numbers of one world."""

    def __init__(self, seed: int, device: torch.device | str = "cpu"):
        self.generator = torch.Generator().manual_seed(seed)
        self.device = torch.device(device)

    def uniform(self, low: float, high: float) -> float:
        """A number between `low` and `high`."""
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def log_uniform(self, low: float, high: float) -> float:
        """A number whose logarithm is uniform."""
        return math.exp(self.uniform(math.log(low), math.log(high)))

    def chance(self, share: float) -> bool:
        """True in this share of draws."""
        return self.uniform(0, 1) < share

    def integer(self, low: int, high: int) -> int:
        """A whole number from `low` to `high`, both included."""
        return int(torch.randint(low, high + 1, (), generator=self.generator))

    def choice(self, options, weights=None):
        """One of the options."""
        if weights is None:
            return options[self.integer(0, len(options) - 1)]
        total, place = sum(weights), self.uniform(0, 1)
        for option, weight in zip(options, weights, strict=True):
            place -= weight / total
            if place < 0:
                return option
        return options[-1]

    def normal(self, *shape: int) -> torch.Tensor:
        """A tensor of standard normals."""
        return torch.randn(*shape, generator=self.generator).to(self.device)

    def vector(self, low: float, high: float) -> torch.Tensor:
        """Three numbers between `low` and `high`."""
        return (low + (high - low) * torch.rand(3, generator=self.generator)).to(self.device)

    def rotation(self) -> torch.Tensor:
        """A random rotation matrix."""
        q, r = torch.linalg.qr(torch.randn(3, 3, generator=self.generator))
        return (q * torch.sign(torch.diagonal(r))).to(self.device)


def grid_points(low: torch.Tensor, high: torch.Tensor, shape) -> torch.Tensor:
    """Centres (3, k, j, i) of the voxels that divide a box of world coordinates."""
    axes = [low[a] + (torch.arange(n, device=low.device) + 0.5) / n * (high[a] - low[a]) for a, n in enumerate(shape)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"))


def smooth_noise(draw: Draw, points: torch.Tensor, knots: int, count: int = 1) -> torch.Tensor:
    """`count` smooth random fields of about unit size at points (3, k, j, i); more knots, finer fields."""
    grid = draw.normal(1, count, knots, knots, knots)
    where = points.permute(1, 2, 3, 0).unsqueeze(0) * 0.9
    return 1.5 * F.grid_sample(grid, where, mode="bilinear", padding_mode="border", align_corners=True)[0]


def largest(fields: torch.Tensor) -> torch.Tensor:
    """Which of the fields (n, k, j, i) is the largest at each point; `argmax` takes ten times as long over these."""
    best, which = fields[0], torch.zeros(fields.shape[1:], dtype=torch.long, device=fields.device)
    for number, field in enumerate(fields[1:], 1):
        which = torch.where(field > best, number, which)
        best = torch.maximum(field, best)
    return which


def warp(draw: Draw, points: torch.Tensor, size: float, knots: int) -> torch.Tensor:
    """Points displaced smoothly by about `size`."""
    return points + size * smooth_noise(draw, points, knots, 3)


def local(points: torch.Tensor, centre, rotation, scale) -> torch.Tensor:
    """Points in the frame of a shape: centred, turned, and divided by its semi-axes."""
    moved = points - centre.view(3, 1, 1, 1)
    return torch.einsum("ab,bkji->akji", rotation, moved) / scale.view(3, 1, 1, 1)


def blob(points: torch.Tensor, power: float) -> torch.Tensor:
    """Radius of a superquadric: 1 on its surface; power 2 is an ellipsoid, more is boxier."""
    return points.abs().clamp_min(1e-6).pow(power).sum(0).pow(1 / power)


def curve(draw: Draw, length: float, wiggle: float, knots: int = 20) -> torch.Tensor:
    """Points (knots, 3) of a smooth random curve through the middle of the world; two in five along an axis, about."""
    steps = torch.cumsum(draw.normal(knots, 3), 0)
    steps = F.avg_pool1d(F.pad(steps.T.unsqueeze(0), (4, 4), mode="replicate"), 9, 1)[0].T
    direction = F.normalize(draw.normal(3), dim=0)
    if draw.chance(0.4):
        direction = F.normalize(torch.eye(3, device=draw.device)[draw.integer(0, 2)] + 0.12 * direction, dim=0)
    line = torch.linspace(-1, 1, knots, device=draw.device).unsqueeze(1) * direction * length
    bend = steps - steps.mean(0)
    return line + wiggle * bend / bend.abs().max().clamp_min(1e-6)


def loops(draw: Draw, size: float, knots: int = 40) -> torch.Tensor:
    """Points (knots, 3) of a long curve in loops about the middle of the world: a few random waves an axis."""
    waves = torch.arange(1, draw.integer(3, 6) + 1, device=draw.device)
    along = torch.linspace(0, 1, knots, device=draw.device).view(-1, 1, 1)
    angles = math.pi * along * waves.view(1, -1, 1) + draw.vector(0, 2 * math.pi)
    heights = torch.sin(angles + draw.normal(len(waves), 3))
    line = (heights * draw.normal(len(waves), 3) / waves.sqrt().view(-1, 1)).sum(1)
    line = line - line.mean(0)
    return size * line / line.abs().max().clamp_min(1e-6)


def distance_to_curve(points: torch.Tensor, knots: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Distance of points (3, ...) to a polyline (n, 3), and how far along it (0 to 1) the nearest place is."""
    starts, steps = knots[:-1], knots[1:] - knots[:-1]
    lengths = steps.square().sum(1, keepdim=True).clamp_min(1e-9)
    first, square = (starts * steps).sum(1, keepdim=True), starts.square().sum(1, keepdim=True)
    factors = torch.cat([steps, starts])
    distances, places = [], []
    flat = points.reshape(3, -1)
    for piece in flat.split(PIECE if flat.device.type == "cpu" else flat.shape[1], 1):
        ahead, towards = (factors @ piece).split(len(steps))
        ahead -= first
        share = (ahead / lengths).clamp(0, 1)
        away, number = (square - 2 * towards + share * (share * lengths - 2 * ahead)).min(0)
        distances.append((away + piece.square().sum(0)).clamp_min(0).sqrt())
        places.append((number + share.gather(0, number[None])[0]) / len(steps))
    return torch.cat(distances).view(points.shape[1:]), torch.cat(places).view(points.shape[1:])
