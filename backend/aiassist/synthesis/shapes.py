"""Families of shapes. Each is drawn once and then answers, for points, which part they belong to.

A part is a whole number: 0 outside, 1 and up for the tissues of the shape (wall and contents, shell and
core). ``target`` names the parts that a person would take as the structure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from aiassist.synthesis.fields import Draw, blob, curve, distance_to_curve, local, smooth_noise

Parts = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Shape:
    """A drawn shape: its family, its parts as a function of points (3, k, j, i), and its target parts."""

    family: str
    parts: Parts
    target: tuple[int, ...]
    count: int


def _frame(draw: Draw, size: float, flat: float):
    centre = draw.vector(-0.35, 0.35)
    scale = size * torch.exp(draw.vector(-flat, flat))
    return centre, draw.rotation(), scale


def _rough(draw: Draw, amount: float, knots: int):
    """A frozen noise field as a function of points."""
    frozen = draw.integer(0, 2**31 - 1)

    def field(points: torch.Tensor) -> torch.Tensor:
        return amount * smooth_noise(Draw(frozen, draw.device), points, knots)[0]

    return field


def compact(draw: Draw) -> Shape:
    """One rounded body: organs, tumours, nodules."""
    centre, rotation, scale = _frame(draw, draw.uniform(0.3, 0.6), 0.5)
    power = draw.uniform(1.6, 4.0)
    rough = _rough(draw, draw.uniform(0, 0.25), draw.integer(3, 8))

    def parts(points):
        return (blob(local(points, centre, rotation, scale), power) + rough(points) <= 1).long()

    return Shape("compact", parts, (1,), 1)


def lobed(draw: Draw) -> Shape:
    """Several bodies grown together: liver, lobulated tumours."""
    pieces = [compact(draw) for _ in range(draw.integer(2, 4))]

    def parts(points):
        return torch.stack([piece.parts(points) for piece in pieces]).amax(0)

    return Shape("lobed", parts, (1,), 1)


def bent(draw: Draw) -> Shape:
    """A long body along a curve, thicker in the middle: spleen, hippocampus, pancreas, muscle bellies."""
    knots = curve(draw, draw.uniform(0.35, 0.7), draw.uniform(0.1, 0.45))
    width = draw.uniform(0.1, 0.25)
    squeeze = torch.exp(draw.vector(-0.5, 0.5))
    rough = _rough(draw, draw.uniform(0, 0.04), draw.integer(3, 8))
    centre, rotation = draw.vector(-0.2, 0.2), draw.rotation()

    def parts(points):
        moved = local(points, centre, rotation, squeeze)
        distance, along = distance_to_curve(moved, knots)
        return (distance + rough(points) <= width * (1 - 0.85 * (2 * along - 1).square())).long()

    return Shape("bent", parts, (1,), 1)


def tube(draw: Draw) -> Shape:
    """A vessel, cord, rib or gut loop, sometimes with a wall and sometimes branching."""
    centre = draw.vector(-0.2, 0.2)
    curves = [curve(draw, draw.uniform(0.4, 0.9), draw.uniform(0.05, 0.6)) for _ in range(draw.choice((1, 1, 1, 2, 3)))]
    radius = draw.log_uniform(0.025, 0.2)
    taper = draw.uniform(0, 0.6)
    wall = draw.uniform(0.6, 0.9) if draw.chance(0.3) else 0.0
    rough = _rough(draw, 0.2 * radius * draw.uniform(0, 1), 8)

    def parts(points):
        moved = points - centre.view(3, 1, 1, 1)
        relative = torch.full(points.shape[1:], torch.inf, device=points.device)
        for knots in curves:
            distance, along = distance_to_curve(moved, knots)
            relative = torch.minimum(relative, (distance + rough(points)) / (radius * (1 - taper * along)))
        return (relative <= 1).long() + (relative <= wall).long()

    return Shape("tube", parts, (1, 2) if draw.chance(0.7) or not wall else (2,), 2)


def sheet(draw: Draw) -> Shape:
    """A bent plate: flat muscles, cartilage, cortex."""
    centre, rotation, scale = _frame(draw, draw.uniform(0.45, 0.75), 0.2)
    half = draw.log_uniform(0.04, 0.18)
    wave = _rough(draw, draw.uniform(0.1, 0.5), draw.integer(3, 5))

    def parts(points):
        moved = local(points, centre, rotation, scale)
        plate = (moved[0] - wave(points)).abs() * scale[0]
        return ((blob(moved, 2.0) <= 1) & (plate <= half)).long()

    return Shape("sheet", parts, (1,), 1)


def shelled(draw: Draw) -> Shape:
    """A shell around a core: kidney, bone, myocardium and its blood pool, stomach and its contents."""
    outer = draw.choice((compact, bent, lobed))(draw)
    share = draw.uniform(0.55, 0.92)
    shift = draw.vector(-0.05, 0.05)

    def parts(points):
        whole = outer.parts(points)
        core = outer.parts((points - shift.view(3, 1, 1, 1)) / share)
        return whole + (whole * core).clamp(0, 1)

    return Shape("shelled", parts, draw.choice(((1, 2), (1, 2), (1,), (2,))), 2)


def repeated(draw: Draw) -> Shape:
    """A body with processes, repeated along an axis with touching copies: vertebrae. The target is one copy."""
    rotation = draw.rotation() if draw.chance(0.5) else torch.eye(3, device=draw.device)
    period = draw.uniform(0.4, 0.7)
    gap = draw.uniform(0.0, 0.12)
    body = torch.stack([draw.vector(0.3, 0.5)[0], *draw.vector(0.2, 0.38)[:2]]) * period
    spine = draw.uniform(0.25, 0.55)
    wings = draw.uniform(0.2, 0.5)
    thick = draw.uniform(0.05, 0.1)
    rough = _rough(draw, draw.uniform(0.0, 0.15), 6)
    core = draw.uniform(0.7, 0.92)

    def parts(points):
        turned = torch.einsum("ab,bkji->akji", rotation, points)
        cell = torch.floor(turned[0] / period + 0.5)
        z = turned[0] - cell * period
        y, x = turned[1], turned[2]
        half = period / 2 * (1 - gap)
        main = blob(torch.stack([z / half, y / (2 * body[1]), x / (2 * body[2])]), 3.0) + rough(points)
        back = torch.maximum((x / thick).abs(), (z / (0.7 * half)).abs())
        back = torch.maximum(back, ((y - body[1] - spine / 2) / (spine / 2 + 0.08)).abs())
        side = torch.maximum((z / (0.4 * half)).abs(), ((y - 1.6 * body[1]) / thick).abs())
        side = torch.maximum(side, (x / wings).abs())
        inside = (main <= 1) | (back <= 1) | (side <= 1)
        hollow = (main <= core) & inside
        near = torch.where(cell == 0, 0, 2)
        return torch.where(inside, 1 + hollow.long() + near, 0)

    return Shape("repeated", parts, (1, 2), 4)


def packed(draw: Draw) -> Shape:
    """A cluster of cells that touch: lobes, nuclei, packed bowel. The target is one cell or a few."""
    cells = draw.integer(5, 24)
    seeds = torch.stack([draw.vector(-0.8, 0.8) for _ in range(cells)])
    seeds[0] *= 0.3
    stretch = torch.exp(draw.vector(-0.4, 0.4))
    thin = draw.uniform(0.0, 0.05) if draw.chance(0.5) else -1.0
    rough = _rough(draw, 0.2, draw.integer(4, 8))
    order = torch.argsort((seeds - seeds[0]).square().sum(1))
    target = tuple(int(n) + 1 for n in order[: draw.choice((1, 1, 1, 2, 3))])

    def parts(points):
        moved = points + 0.5 * rough(points)
        distances = torch.stack(
            [((moved - s.view(3, 1, 1, 1)) * stretch.view(3, 1, 1, 1)).square().sum(0) for s in seeds]
        )
        nearest, which = distances.sqrt().topk(2, dim=0, largest=False)
        return torch.where(nearest[1] - nearest[0] < thin, 0, which[0] + 1)

    return Shape("packed", parts, target, cells)


FAMILIES = {
    compact: 4.0,
    lobed: 2.0,
    bent: 3.0,
    tube: 6.0,
    sheet: 3.5,
    shelled: 2.5,
    repeated: 1.5,
    packed: 2.5,
}


def random_shape(draw: Draw) -> Shape:
    """A shape of a random family."""
    return draw.choice(list(FAMILIES), list(FAMILIES.values()))(draw)
