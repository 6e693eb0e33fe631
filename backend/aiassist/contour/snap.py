"""Pull one vertex: its neighbours follow, then settle on the border."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from aiassist.contour.evidence import Window, evidence, inside_window, signed_depth
from aiassist.contour.ring import is_simple, segment_lengths, signed_area

#: Places along an arc at which the border is looked for, at most, and steps across it on each side.
ALONG, ACROSS = 48, 14
#: Weight of the evidence of a pixel, whose neighbours say much the same.
EVIDENCE = 0.3
#: Weight of leaving the smooth curve by a pixel, squared.
STAY = 0.01
#: Weight of the slope of what is found against the smooth curve, squared.
BEND = 3.0
#: Mean agreement of the evidence with the pull, in logits, from which it is trusted fully.
TRUST = 0.6
#: A border may go this many pixels against the pull; cost of each pixel more.
BACK, STRAY = 1.0, 5.0
#: The border found may not run more steeply than this against the smooth curve.
SLOPE = 1.5
#: How often the grey levels are learned anew from what was found.
ROUNDS = 2
#: Share of the ring that may follow without a look at the grey values, on each side.
FOLLOWING = 0.15
#: The person is sure of this many pixels beside the pull, and of this much more for each pixel pulled.
SURE, SURER = 3.0, 1.5
#: Pixels around an arc that are looked at.
MARGIN = 14
#: Cost of a pixel that changes against the smoothly moved ring, and of a pixel's length of outline.
LEAVE, LENGTH = 0.25, 0.3
#: Cost of a pixel that changes against the pull: that leaves when the outline is pulled out, or joins.
CONTRARY = 0.15
#: Evidence (cost saved a pixel) from which leaving the smooth falloff is trusted; with less, mean distance in pixels.
BORNE_OUT, UNPROVEN = 0.5, 0.5
#: Placed vertices within this share of the reach follow all the same: who pulls right beside one means it, too.
BESIDE = 0.25
#: Shares of the radius within which neighbours follow, and over which arcs forget the old outline.
FOLLOW, BRIDGE = (1.0, 0.5, 0.2), (1.0, 0.5)


@dataclass(frozen=True, eq=False)
class Pull:
    """One vertex of a ring that is put somewhere else. All lengths in mm.

    Parameters
    ----------
    points : numpy.ndarray
        The ring's vertices (n, 2).
    vertex : int
        Which one is pulled.
    target : numpy.ndarray
        Where to (2,).
    radius : float
        Vertices nearer than this along the ring may follow.
    pinned : bool
        Whether the vertex stays exactly on the target, or settles like its neighbours.
    placed : numpy.ndarray, optional
        Bool (n,): vertices that the person put where they are. None farther than the next of them moves.
    """

    points: np.ndarray
    vertex: int
    target: np.ndarray
    radius: float
    pinned: bool = True
    placed: np.ndarray | None = None

    @cached_property
    def away(self) -> np.ndarray:
        """Signed way (n,) of each vertex from the pulled one along the ring, the shorter way round."""
        lengths = np.roll(segment_lengths(self.points), -self.vertex)
        forward = np.concatenate([[0.0], np.cumsum(lengths)[:-1]])
        signed = np.where(forward <= lengths.sum() / 2, forward, forward - lengths.sum())
        return np.roll(signed, self.vertex)

    @cached_property
    def reach(self) -> float:
        """The radius, but never so much that no vertex would stay."""
        return float(min(self.radius, np.abs(self.away).max()))

    @cached_property
    def sides(self) -> tuple[float, float]:
        """How far vertices before and after the pulled one may follow: to the reach, or to the next placed one."""
        if self.placed is None:
            return self.reach, self.reach
        gaps = [sign * self.away[self.placed & (sign * self.away > BESIDE * self.reach)] for sign in (-1, 1)]
        return tuple(float(gap.min(initial=self.reach)) for gap in gaps)

    @cached_property
    def length(self) -> float:
        """How far the vertex is pulled."""
        return float(np.linalg.norm(self.target - self.points[self.vertex]))

    @property
    def share_of_ring(self) -> float:
        """Share of the reach within which neighbours may follow blindly: no ring is dragged along as a whole."""
        return min(1.0, FOLLOWING * float(segment_lengths(self.points).sum()) / max(self.reach, 1e-9))

    @cached_property
    def moves(self) -> np.ndarray:
        """Bool (n,): the vertices that may move."""
        before, after = self.sides
        chosen = (self.away > -before) & (self.away < after)
        chosen[self.vertex] = True
        return chosen

    @cached_property
    def arc(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Vertices of the arc with its anchors in the order of their way, their ways, and which of them are members."""
        count, away = len(self.points), self.away
        order = (self.vertex + np.arange(-count, count + 1)) % count
        lengths = segment_lengths(self.points)
        total = lengths.sum()
        way = np.where(np.arange(-count, count + 1) == 0, 0.0, away[order])
        way[:count] = np.where(way[:count] > 0, way[:count] - total, way[:count])
        way[count + 1 :] = np.where(way[count + 1 :] <= 0, way[count + 1 :] + total, way[count + 1 :])
        back = count - 1
        while -way[back] < self.sides[0] and back > 0:
            back -= 1
        ahead = count + 1
        while way[ahead] < self.sides[1] and ahead < 2 * count:
            ahead += 1
        chosen = slice(back, ahead + 1)
        return order[chosen], way[chosen], self.moves[order[chosen]]


def follow(pull: Pull, share: float = 1.0) -> np.ndarray:
    """The ring after the neighbours moved along with the vertex, less the farther they are; no grey values."""
    reach = share * np.where(pull.away < 0, *pull.sides)
    weight = np.cos(np.clip(np.abs(pull.away) / np.maximum(reach, 1e-9), 0, 1) * np.pi / 2) ** 2
    weight[pull.vertex] = 1.0
    return pull.points + weight[:, np.newaxis] * (pull.target - pull.points[pull.vertex])


def snap(pull: Pull, grey: np.ndarray, corner, spacing, strength: float = 1.0) -> np.ndarray:
    """The ring after the neighbours followed and settled on the border.

    Several smooth curves through the target are proposed: the neighbours that follow by more or less, and
    arcs that forget the old outline between two of its vertices. Each settles on the border within
    its reach by dynamic programming over offsets along its normals, where evidence from grey-level
    histograms on both sides of the outline (region and edge at once) is weighed against smoothness
    and against leaving the curve. The one that explains the pixels best is taken. Unless it explains them
    clearly better than neighbours that just follow, it stays close to those.

    Parameters
    ----------
    pull : Pull
    grey : numpy.ndarray
        Finite grey values (rows, columns) of a window of the slice that surrounds the arc.
    corner, spacing : array_like
        The window's first pixel ``(x, y)``, and the size of pixels in mm.
    strength : float
        0 moves smoothly, 1 settles fully.

    Returns
    -------
    numpy.ndarray
        Vertices (n, 2) in mm. The pulled one lies on the target; those beyond the radius, or beyond a placed one,
        are as they were.
    """
    smooth = follow(pull, pull.share_of_ring)
    if strength <= 0 or pull.moves.sum() < 3:
        return smooth
    pixel = float(np.sqrt(np.prod(spacing)))
    rings = [follow(pull, share) for share in FOLLOW]
    arcs = [_arc(pull, ring, pixel) for ring in rings]
    arcs += [arc for share in BRIDGE if (arc := _bridged(pull, share, pixel)) is not None]
    best = follow(pull, min(1.0, (SURE * pixel + SURER * pull.length) / max(pull.reach, 1e-9)))
    for _ in range(ROUNDS):
        view = _View.of(pull, best, grey, corner, spacing)
        proposals = [smooth, *_settle(arcs, view, pull)]
        proposals.sort(key=lambda points: _cost(points, smooth, pull, view))
        best = next((points for points in proposals if is_simple(points, pull.moves)), smooth)
        arcs = [_arc(pull, points, pixel) for points in (best, smooth)]
    best = _hedged(best, smooth, pull, view)
    return smooth + strength * (best - smooth)


def _hedged(best: np.ndarray, smooth: np.ndarray, pull: Pull, view: _View) -> np.ndarray:
    """The best ring, drawn close to the one whose neighbours just follow if the evidence for leaving that is weak.

    Close is a mean distance of `UNPROVEN` pixels: then a wrong guess costs no more than that.
    """
    plain = follow(pull)
    apart = float(np.linalg.norm(best - plain, axis=1)[pull.moves].mean()) / view.pixel
    if apart <= UNPROVEN:
        return best
    saved = _cost(plain, smooth, pull, view) - _cost(best, smooth, pull, view)
    if saved >= BORNE_OUT * _between(best, plain, pull, view).sum():
        return best
    close = (plain + share * UNPROVEN / apart * (best - plain) for share in (1.0, 0.5, 0.0))
    return next((points for points in close if is_simple(points, pull.moves)), smooth)


@dataclass(frozen=True)
class _Arc:
    """A dense curve (m, 2) from anchor to anchor through the target; `way` (m,) along the old ring, 0 at the target.

    ``places`` (k,) says at which way each moving vertex ``members`` (k,) sits.
    """

    dense: np.ndarray
    way: np.ndarray
    members: np.ndarray
    places: np.ndarray

    @property
    def middle(self) -> int:
        """Index of the target."""
        return int(np.searchsorted(self.way, 0.0))


def _ways(way: np.ndarray, step: float) -> np.ndarray:
    """Places along an arc: from its first to its last way, with one at 0, about `step` apart."""
    per_mm = min(1 / step, (ALONG - 4) / (way[-1] - way[0]))
    before = np.linspace(way[0], 0, max(int(-way[0] * per_mm), 2) + 1)
    return np.concatenate([before, np.linspace(0, way[-1], max(int(way[-1] * per_mm), 2) + 1)[1:]])


def _curve(places: np.ndarray, way: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points at places along a polyline that is parametrised by way."""
    return np.column_stack([np.interp(places, way, points[:, axis]) for axis in range(2)])


def _arc(pull: Pull, ring: np.ndarray, step: float) -> _Arc:
    """The arc of a ring whose vertices beyond the radius lie where they were."""
    order, way, member = pull.arc
    dense_way = _ways(way, step)
    return _Arc(_curve(dense_way, way, ring[order]), dense_way, order[member], way[member])


def _bridged(pull: Pull, share: float, step: float) -> _Arc | None:
    """A smooth bridge over the target that forgets the old outline within a share of the radius."""
    order, way, member = pull.arc
    old = pull.points[order]
    dense_way = _ways(way, step)
    dense = _curve(dense_way, way, old)
    ends = np.array([max(-share * pull.reach, way[0]), min(share * pull.reach, way[-1])])
    a, b = _curve(ends, way, old)
    if np.linalg.norm(b - a) < 1e-6:
        return None
    lean = 0.15 * (ends[1] - ends[0])
    before, after = _curve(np.clip(ends - lean, way[0], way[-1]), way, old), _curve(ends, way, old)
    leave = _unit(after[0] - before[0])
    arrive = _unit(_curve(np.clip(ends[1:] + lean, way[0], way[-1]), way, old)[0] - b)
    through = _unit(b - a)
    left, right = (dense_way >= ends[0]) & (dense_way <= 0), (dense_way >= 0) & (dense_way <= ends[1])
    dense[left] = _hermite(a, leave, pull.target, through, (dense_way[left] - ends[0]) / -ends[0])
    dense[right] = _hermite(pull.target, through, b, arrive, dense_way[right] / ends[1])
    return _Arc(dense, dense_way, order[member], way[member])


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / max(float(np.linalg.norm(vector)), 1e-9)


def _hermite(start, leave, stop, arrive, share: np.ndarray) -> np.ndarray:
    """Cubic from `start` to `stop` with unit directions at its ends, at shares 0 to 1."""
    s, length = share[:, np.newaxis], np.linalg.norm(stop - start)
    h = 2 * s**3 - 3 * s**2 + 1, s**3 - 2 * s**2 + s, -2 * s**3 + 3 * s**2, s**3 - s**2
    return h[0] * start + h[1] * length * leave + h[2] * stop + h[3] * length * arrive


@dataclass(frozen=True)
class _View:
    """What is known of a window of the slice: evidence, where the border may not go, and how far to trust."""

    seen: Window
    strayed: Window
    old: np.ndarray
    outward: bool
    trust: float

    @classmethod
    def of(cls, pull: Pull, believed: np.ndarray, grey: np.ndarray, corner, spacing) -> _View:
        """The ring `believed` is taken as the mask; where it differs from the old one, nothing near it is sure."""
        pixel, drag = float(np.sqrt(np.prod(spacing))), pull.length
        old, inside = (inside_window(ring / spacing, grey.shape, corner) for ring in (pull.points, believed))
        step = np.asarray(spacing)[::-1]
        depth, depth_old = (signed_depth(mask, step) for mask in (inside, old))
        doubt = (np.abs(depth) < 0.35 * drag + pixel) & (np.abs(depth - depth_old) > 0.25 * pixel)
        logits = evidence(grey, depth, doubt, pixel)
        seen = Window(logits, np.asarray(corner, dtype=float), np.asarray(spacing, dtype=float))
        outward = bool(seen.replaced(depth_old).at(pull.target[np.newaxis])[0] < 0)
        strayed = seen.replaced(_strayed(depth_old, outward, pixel, drag))
        return cls(seen, strayed, old, outward, _trust(old ^ inside, inside, logits))

    @property
    def pixel(self) -> float:
        """Side of a square as large as a pixel, in mm."""
        return float(np.sqrt(np.prod(self.seen.spacing)))


def _strayed(depth: np.ndarray, outward: bool, pixel: float, drag: float) -> np.ndarray:
    """How many pixels each place lies beyond where a pull may bring the border: 0 within.

    The border goes from the old outline the way that the vertex was pulled, hardly back, and not much
    farther than the vertex.
    """
    ahead = -depth if outward else depth
    return (np.maximum(-BACK * pixel - ahead, 0) + np.maximum(ahead - 1.25 * drag - BACK * pixel, 0)) / pixel


def _trust(turned: np.ndarray, inside: np.ndarray, logits: np.ndarray) -> float:
    """How far, 0 to 1, the evidence bears out what the person just said: that the pixels pulled over changed sides."""
    if turned.sum() < 4:
        return 0.5
    agreement = float(np.where(inside, logits, -logits)[turned].mean())
    return float(np.clip(agreement / TRUST, 0, 1))


def _settle(arcs: list[_Arc], view: _View, pull: Pull) -> list[np.ndarray]:
    """The rings whose arcs went along their normals to where the evidence changes sides."""
    width = float(np.clip(1.2 * pull.length, 3 * view.pixel, max(0.6 * pull.reach, 3 * view.pixel)))
    offsets = np.linspace(-width, width, 2 * ACROSS + 1)
    dense = np.stack([arc.dense for arc in arcs])
    outward = np.stack([_normals(arc.dense) for arc in arcs]) * np.sign(signed_area(pull.points))
    places = dense[:, :, np.newaxis] + offsets[:, np.newaxis] * outward[:, :, np.newaxis]
    cost = _offset_costs(view, places, offsets, arcs[0].way, pull.pinned)
    chosen = offsets[_cheapest(cost, offsets, arcs[0].way, view.pixel)]
    found = []
    for arc, offset, normals in zip(arcs, chosen, outward, strict=True):
        curve = arc.dense + _calmed(offset, arc.middle)[:, np.newaxis] * normals
        points = pull.points.copy()
        points[arc.members] = _curve(arc.places, arc.way, curve)
        if pull.pinned:
            points[pull.vertex] = pull.target
        found.append(points)
    return found


def _normals(dense: np.ndarray) -> np.ndarray:
    """Unit normals (m, 2) of a curve, smoothed; outward where the ring runs from x towards y."""
    calm = ndimage.gaussian_filter1d(dense, 3.0, axis=0, mode="nearest")
    along = np.gradient(calm, axis=0)
    along /= np.maximum(np.linalg.norm(along, axis=1, keepdims=True), 1e-9)
    return np.column_stack([along[:, 1], -along[:, 0]])


def _offset_costs(view: _View, places: np.ndarray, offsets: np.ndarray, way: np.ndarray, pinned: bool) -> np.ndarray:
    """Cost (arcs, m, offsets) of the border lying at an offset; infinite beyond the reach, 0 at the fixed points."""
    across, along = (offsets[1] - offsets[0]) / view.pixel, np.gradient(way) / view.pixel
    logits = view.seen.at(places)
    explained = np.cumsum(logits, axis=-1) - logits / 2
    explained -= explained[..., len(offsets) // 2, np.newaxis]
    cost = -2 * across * EVIDENCE * explained + STAY * (offsets / view.pixel) ** 2 + STRAY * view.strayed.at(places)
    cost *= along[:, np.newaxis]
    free = np.minimum(way - way[0], way[-1] - way)
    free = np.minimum(free, np.abs(way)) if pinned else free
    cost[:, np.abs(offsets) > free[:, np.newaxis] * SLOPE + 1e-9] = np.inf
    return cost


def _cheapest(cost: np.ndarray, offsets: np.ndarray, way: np.ndarray, pixel: float) -> np.ndarray:
    """Index of the offset, for each arc and place along it, that makes the cheapest smooth border."""
    arcs, count, width = cost.shape
    step = offsets[1] - offsets[0]
    gaps = np.diff(way)[:, np.newaxis]
    allowed = np.clip(np.ceil(SLOPE * gaps / step), 1, 6)
    most = int(allowed.max())
    moves = np.arange(-most, most + 1)
    bend = np.where(np.abs(moves) <= allowed, BEND * (moves * step / gaps) ** 2 * gaps / pixel, np.inf)
    padded = np.full((arcs, width + 2 * most), np.inf)
    best = padded[:, most : most + width]
    reachable = sliding_window_view(padded, 2 * most + 1, axis=1)
    best[...] = cost[:, 0]
    origin = np.zeros((count, arcs, width), np.intp)
    for place in range(1, count):
        options = reachable + bend[place - 1]
        options.argmin(axis=2, out=origin[place])
        np.add(options.min(axis=2), cost[:, place], out=best)
    origin -= most
    chosen = np.empty((arcs, count), int)
    chosen[:, -1] = np.argmin(best, axis=1)
    rows = np.arange(arcs)
    for place in range(count - 1, 0, -1):
        chosen[:, place - 1] = chosen[:, place] + origin[place, rows, chosen[:, place]]
    return chosen


def _calmed(offsets: np.ndarray, middle: int) -> np.ndarray:
    """Offsets smoothed a little on each side of the target, which stays."""
    calm = offsets.copy()
    for part in (slice(0, middle + 1), slice(middle, len(offsets))):
        calm[part] = ndimage.gaussian_filter1d(offsets[part], 1.5, mode="nearest")
        share = np.linspace(0, 1, len(calm[part]))
        ends = offsets[part][[0, -1]] - calm[part][[0, -1]]
        calm[part] += ends[0] * np.exp(-share * 8) + ends[1] * np.exp(-(1 - share) * 8)
    return calm


def _cost(points: np.ndarray, smooth: np.ndarray, pull: Pull, view: _View) -> float:
    """How badly a ring explains the evidence."""
    changed = _between(points, pull.points, pull, view)
    gain = np.where(view.old, -view.seen.values, view.seen.values)[changed].sum()
    length = segment_lengths(points).sum() - segment_lengths(pull.points).sum()
    left = LEAVE * (1 - view.trust) * _between(points, smooth, pull, view).sum()
    contrary = CONTRARY * (view.old[changed] == view.outward).sum()
    return float(-2 * EVIDENCE * view.trust * gain + left + contrary + LENGTH * length / view.pixel)


def _between(first: np.ndarray, second: np.ndarray, pull: Pull, view: _View) -> np.ndarray:
    """Bool, the pixels of the window between the arcs of two rings that differ there only."""
    order = pull.arc[0]
    loop = np.concatenate([first[order], second[order[::-1]]])
    return inside_window(loop / view.seen.spacing, view.old.shape, view.seen.corner)


def drag(pull: Pull, grey: np.ndarray, spacing, strength: float = 1.0) -> np.ndarray:
    """`snap` on a whole slice: looks at a window around the arc only."""
    spacing = np.asarray(spacing, dtype=float)
    places = np.vstack([pull.points[pull.moves], pull.target]) / spacing
    margin = MARGIN * float(np.sqrt(np.prod(spacing))) / spacing
    size = np.array(grey.shape)[::-1]
    low = np.clip(np.floor(places.min(axis=0) - margin), 0, np.maximum(size - 2, 0)).astype(int)
    high = np.clip(np.ceil(places.max(axis=0) + margin), low + 2, size).astype(int)
    return snap(pull, grey[low[1] : high[1], low[0] : high[0]], low, spacing, strength)
