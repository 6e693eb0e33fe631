"""Families of shapes. Each is drawn once and then answers, for points, which part they belong to.

A part is a whole number: 0 outside, 1 and up for the tissues of the shape (wall and contents, shell and
core). ``target`` names the parts that a person would take as the structure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from aiassist.synthesis.fields import (
    Draw,
    blob,
    curve,
    distance_to_curve,
    grid_points,
    largest,
    local,
    loops,
    smooth_noise,
)

Parts = Callable[[torch.Tensor], torch.Tensor]


@dataclass
class Shape:
    """A drawn shape: its family, its parts as a function of points (3, k, j, i), and its target parts.

    ``alike`` pairs parts that are of one tissue: (part, the part whose grey level it has).
    """

    family: str
    parts: Parts
    target: tuple[int, ...]
    count: int
    alike: tuple[tuple[int, int], ...] = ()


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
    """A vessel, cord, rib or gut loop, sometimes with a wall, branching, or beside others of its kind or a muscle."""
    centre = draw.vector(-0.2, 0.2)
    curves = _tree(draw, draw.choice((1, 1, 1, 2, 3)))
    radius = draw.log_uniform(0.02, 0.05) if draw.chance(0.4) else draw.log_uniform(0.05, 0.2)
    taper = draw.uniform(0, 0.6)
    wall = draw.uniform(0.6, 0.9) if draw.chance(0.3) else 0.0
    rough = _rough(draw, 0.2 * radius * draw.uniform(0, 1), 8)
    beside = [_beside(draw, curves[0], radius) for _ in range(draw.choice((0, 0, 1, 2)))]
    muscle = _muscle(draw, curves[0], radius) if draw.chance(0.6 if radius < 0.05 else 0.4) else None

    def parts(points):
        moved = points - centre.view(3, 1, 1, 1)
        own = _relative(moved, curves, radius, taper) + rough(points) / radius
        inside = (own <= 1).long() + (own <= wall).long()
        other = _relative(moved, beside, radius, 0.0) if beside else torch.full_like(own, torch.inf)
        found = torch.where((inside == 0) & (other <= 1), 3, inside)
        if muscle is None:
            return found
        belly, half, fat = muscle
        away = _relative(moved, [belly], 1.0, 0.0) - half
        found = torch.where((found == 0) & (away <= 0), 4, found)
        return torch.where((found == 0) & (torch.minimum(away, (own - 1) * radius) <= fat), 5, found)

    target = (1, 2) if draw.chance(0.7) or not wall else (2,)
    alike = ((3, target[0]),) if draw.chance(0.6) else ()
    return Shape("tube", parts, target, 5, (*alike, (4, target[0])))


def _tree(draw: Draw, count: int) -> list[torch.Tensor]:
    """Curves: a trunk, and branches that leave it forwards."""
    trunk = curve(draw, draw.uniform(0.4, 0.9), draw.log_uniform(0.03, 0.6))
    found = [trunk]
    for _ in range(count - 1):
        at = draw.integer(4, len(trunk) - 5)
        branch = curve(draw, draw.uniform(0.15, 0.45), draw.uniform(0.05, 0.3))
        branch = branch - branch[0]
        found.append(trunk[at] + branch * torch.sign(branch[-1] @ (trunk[at + 1] - trunk[at - 1])))
    return found


def _muscle(draw: Draw, knots: torch.Tensor, radius: float):
    """A thick belly that touches a curve's tube, or nearly; its half width, and that of the fat around both."""
    half = min(0.5, radius * draw.log_uniform(2, 6))
    aside = torch.nn.functional.normalize(draw.normal(3), dim=0) * (half + radius * draw.uniform(0.9, 1.5))
    belly = (knots + aside + curve(draw, 0.0, draw.uniform(0.5, 2) * radius))[::2]
    return belly, half, radius * draw.uniform(1.0, 2.5) if draw.chance(0.7) else 0.0


def _beside(draw: Draw, knots: torch.Tensor, radius: float) -> torch.Tensor:
    """A curve that runs along another at about two radii: the vein of an artery."""
    aside = torch.nn.functional.normalize(draw.normal(3), dim=0) * radius * draw.uniform(2.0, 3.0)
    return (knots + aside + curve(draw, 0.0, draw.uniform(0, 1.5) * radius))[::2]


def _relative(points, curves, radius: float, taper: float) -> torch.Tensor:
    """Distance to the nearest of some curves, in radii; these shrink along a curve by the share `taper`."""
    nearest = torch.full(points.shape[1:], torch.inf, device=points.device)
    for knots in curves:
        distance, along = distance_to_curve(points, knots)
        nearest = torch.minimum(nearest, distance / (radius * (1 - taper * along)))
    return nearest


def coil(draw: Draw) -> Shape:
    """A long tube in loops, with pouches, often hollow, and often another among its loops: bowel."""
    knots = loops(draw, draw.uniform(0.4, 0.8))
    centre = draw.vector(-0.1, 0.1)
    radius = draw.log_uniform(0.06, 0.15)
    pouches, deep = draw.integer(6, 24), draw.uniform(0.0, 0.2)
    wall = draw.uniform(0.7, 0.92) if draw.chance(0.7) else 0.0
    rough = _rough(draw, 0.2 * draw.uniform(0, 1), 8)
    other = loops(draw, draw.uniform(0.4, 0.9)) if draw.chance(0.5) else None
    width = radius * draw.uniform(0.5, 1.2)

    def parts(points):
        moved = points - centre.view(3, 1, 1, 1)
        distance, along = distance_to_curve(moved, knots)
        own = distance / (radius * (1 + deep * torch.sin(6.3 * pouches * along))) + rough(points)
        inside = (own <= 1).long() + (own <= wall).long()
        if other is None:
            return inside
        away = distance_to_curve(moved, other)[0] / width + rough(points)
        return torch.where((inside == 0) & (away <= 1), 3 + (away <= wall).long(), inside)

    return Shape("coil", parts, (1, 2), 4, ((3, 1), (4, 2)))


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
    """A shell around a core: kidney, bone, flat bone, myocardium and its blood pool, stomach and its contents."""
    outer = draw.choice((compact, bent, lobed, sheet))(draw)
    share = draw.uniform(0.55, 0.92)
    shift = draw.vector(-0.05, 0.05)

    def parts(points):
        whole = outer.parts(points)
        core = outer.parts((points - shift.view(3, 1, 1, 1)) / share)
        return whole + (whole * core).clamp(0, 1)

    return Shape("shelled", parts, draw.choice(((1, 2), (1, 2), (1,), (2,))), 2)


def repeated(draw: Draw) -> Shape:
    """A body with an arch and processes, repeated along an axis with touching copies: vertebrae.

    The target is one copy, or several grown together, as a sacrum's are. Where one copy ends and the next begins
    follows a wavy surface, as facets do.
    """
    rotation = draw.rotation() if draw.chance(0.5) else torch.eye(3, device=draw.device)
    span = draw.choice((1, 2, 4), (0.7, 0.15, 0.15))
    period = draw.uniform(0.4, 0.7) / max(1, 0.6 * span)
    gap = draw.choice((0.0, draw.uniform(0.0, 0.12), draw.uniform(0.15, 0.35))) if span == 1 else 0.0
    body = period * draw.uniform(0.4, 0.76), period * draw.uniform(0.4, 0.76)
    canal = draw.uniform(0.3, 0.5) * body[0]
    thick = draw.uniform(0.05, 0.1)
    spine, wings = draw.uniform(0.2, 0.55), draw.uniform(0.2, 0.5)
    slope = draw.uniform(-0.5, 0.8)
    joints = draw.uniform(0.3, 1.0) * period, draw.uniform(0.05, 0.1)
    rough = _rough(draw, draw.uniform(0.0, 0.2), 6)
    wave = _rough(draw, draw.uniform(0.0, 0.15) * period, 5)
    core = draw.uniform(0.7, 0.92)

    def parts(points):
        turned = torch.einsum("ab,bkji->akji", rotation, points)
        cell = torch.floor((turned[0] + wave(points)) / period + 0.5)
        z = turned[0] - cell * period
        y, x = turned[1], turned[2]
        half = period / 2 * (1 - gap)
        behind = y - body[0] - canal
        ring = (torch.hypot(behind, x) - canal).abs()
        solids = (
            blob(torch.stack([z / half, y / body[0], x / body[1]]), 3.0) + rough(points),
            torch.maximum(ring / thick, (z / (0.6 * half)).abs()),
            _bar(x / thick, (z + slope * behind.clamp_min(0)) / (0.5 * half), (behind - canal) / spine),
            _bar(behind / thick, z / (0.35 * half), x.abs() / (wings + canal)),
            torch.hypot(behind / joints[1], (x.abs() - 1.1 * canal) / joints[1]).maximum((z / joints[0]).abs()),
        )
        nearest = torch.stack(solids).amin(0)
        inside = nearest <= 1
        hollow = inside & ((solids[0] <= core) | (nearest <= 0.5 * core))
        near = torch.where((cell >= 0) & (cell < span), 0, 2)
        return torch.where(inside, 1 + hollow.long() + near, 0)

    return Shape("repeated", parts, (1, 2), 4, ((3, 1), (4, 2)) if draw.chance(0.8) else ())


def _bar(across, through, along) -> torch.Tensor:
    """Distance that is 1 on the surface of a bar from 0 to 1 along its length."""
    ends = torch.where(along < -0.1, torch.inf, along.abs())
    return torch.maximum(torch.maximum(across.abs(), through.abs()), ends)


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

    one_tissue = draw.chance(0.4 if thin > 0.015 else 0.1)
    others = [n + 1 for n in range(cells) if n + 1 != target[0]]
    return Shape("packed", parts, target, cells, tuple((n, target[0]) for n in others) if one_tissue else ())


def mottled(draw: Draw, shape: Shape) -> Shape:
    """The shape with one of its target's tissues replaced in places: dead parts of a tumour, air in a gut."""
    where, more = draw.choice(shape.target), draw.integer(1, 2)
    frozen, knots = draw.integer(0, 2**31 - 1), draw.integer(4, 10)

    def parts(points):
        inner = shape.parts(points)
        kind = largest(smooth_noise(Draw(frozen, draw.device), points, knots, more + 1))
        return torch.where((inner == where) & (kind > 0), shape.count + kind, inner)

    added = tuple(range(shape.count + 1, shape.count + more + 1))
    return Shape(shape.family, parts, (*shape.target, *added), shape.count + more, shape.alike)


def severed(draw: Draw, shape: Shape) -> Shape:
    """The shape with its target ended by a plane beyond which the same tissue goes on.

    An artery from one branching to the next, a third of a lung, bones grown together.
    """
    look = grid_points(torch.full((3,), -1.0), torch.full((3,), 1.0), (20,) * 3).to(draw.device)
    places = look[:, torch.isin(shape.parts(look), torch.tensor(shape.target, device=draw.device))]
    if places.shape[1] < 8:
        return shape
    axis = torch.nn.functional.normalize(draw.normal(3), dim=0)
    if draw.chance(0.6):
        axis = torch.linalg.eigh(torch.cov(places)).eigenvectors[:, -1] * (1 if draw.chance(0.5) else -1)
    start = torch.quantile(axis @ places, draw.uniform(0.15, 0.7))
    wave = _rough(draw, draw.choice((0.0, 0.0, 0.1)), 4)

    def parts(points):
        inner = shape.parts(points)
        beyond = torch.einsum("a,akji->kji", axis, points) + wave(points) < start
        return torch.where(beyond & (inner > 0), inner + shape.count, inner)

    twins = tuple((part + shape.count, part) for part in range(1, shape.count + 1))
    return Shape(shape.family, parts, shape.target, 2 * shape.count, shape.alike + twins)


FAMILIES = {
    compact: 4.0,
    lobed: 2.0,
    bent: 3.0,
    tube: 8.0,
    coil: 3.0,
    sheet: 3.0,
    shelled: 3.0,
    repeated: 2.0,
    packed: 2.5,
}


def random_shape(draw: Draw) -> Shape:
    """A shape of a random family."""
    return draw.choice(list(FAMILIES), list(FAMILIES.values()))(draw)


def random_target(draw: Draw) -> Shape:
    """A shape of a random family, now and then of mixed tissues, and now and then one end of something longer."""
    shape = random_shape(draw)
    if draw.chance(0.6 if shape.family == "coil" else 0.12):
        shape = mottled(draw, shape)
    if draw.chance(0.1):
        shape = severed(draw, shape)
    return shape
