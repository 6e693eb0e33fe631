"""What a person says of one structure."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace

import numpy as np

from aiassist.errors import PatchError, PromptError
from aiassist.imaging import Geometry, MaskPatch, Region

#: Radius that is assumed of a structure of which only clicks are known: this many mm,
CLICK_RADIUS = 15.0
#: but not more than this many voxels, so that a mouse's organs are not taken for a man's.
CLICK_RADIUS_VOXELS = 20.0
#: Ends of a structure less than this many voxels apart do not say how thick it is.
FLAT = 2.0
NOWHERE = (
    "The prior mask is empty and nothing else says where the structure is; add extreme points, a line, a box or a "
    "positive click."
)


def _points(values, what: str) -> np.ndarray:
    """A read-only float array (n, 3), or `PromptError` naming the value that is not a point."""
    try:
        points = np.array(values, dtype=float)
    except (TypeError, ValueError, OverflowError):
        for value in values if isinstance(values, list | tuple) else ():
            if np.size(np.array(value, dtype=object)) != 3:
                raise PromptError(f"The {what} {value!r} is not a point; write it as [i, j, k].") from None
        raise PromptError(f"The {what}s {values!r} are not points; write each as [i, j, k].") from None
    if points.size == 0:
        points = points.reshape(0, 3)
    if points.ndim != 2 or points.shape[1] != 3:
        raise PromptError(f"The {what}s {values!r} are not points; write each as [i, j, k].")
    bad = ~np.isfinite(points).all(axis=1)
    if bad.any():
        raise PromptError(f"The {what} {points[bad][0].tolist()} is not finite.")
    points.flags.writeable = False
    return points


@dataclass(frozen=True, eq=False)
class Scribble:
    """A stroke: a polyline of voxel indices ``(i, j, k)``, shape (n, 3), inside or outside."""

    points: np.ndarray
    positive: bool = True

    def __post_init__(self):
        object.__setattr__(self, "points", _points(self.points, "scribble point"))


@dataclass(frozen=True, eq=False)
class Prompts:
    """Everything a person said of one structure. Immutable.

    All points are continuous voxel indices ``(i, j, k)`` of one volume, voxel centres at whole
    numbers, shape (n, 3).

    Parameters
    ----------
    extreme_points : array_like
        Points on the structure's border where it ends; six (both ends of each axis) are best,
        any number from two will do.
    line : array_like, optional
        Two points: the longest diameter of a lesion.
    box : array_like, optional
        Two opposite corners of a box around the structure.
    positive, negative : array_like
        Points that lie inside and outside the structure.
    scribbles : sequence of Scribble
    prior : MaskPatch, optional
        The mask that these prompts correct.

    Raises
    ------
    PromptError
        When a value is no point, is not finite, or the number of points is wrong.
    """

    extreme_points: np.ndarray = field(default=())
    line: np.ndarray | None = None
    box: np.ndarray | None = None
    positive: np.ndarray = field(default=())
    negative: np.ndarray = field(default=())
    scribbles: tuple[Scribble, ...] = ()
    prior: MaskPatch | None = None

    def __post_init__(self):
        names = {
            "extreme_points": "extreme point",
            "positive": "positive point",
            "negative": "negative point",
            "line": "line end",
            "box": "box corner",
        }
        for attribute, what in names.items():
            values = getattr(self, attribute)
            if values is not None or attribute not in ("line", "box"):
                object.__setattr__(self, attribute, _points(values, what))
        for attribute in ("line", "box"):
            values = getattr(self, attribute)
            if values is not None and len(values) != 2:
                raise PromptError(f"A {attribute} has two points, not {len(values)}.")
        if len(self.extreme_points) == 1:
            raise PromptError(
                f"A single extreme point {self.extreme_points[0].tolist()} does not say how large the structure "
                "is; give two or more (six are best), or a positive click."
            )
        object.__setattr__(self, "scribbles", tuple(self.scribbles))

    @classmethod
    def from_lps(cls, geometry: Geometry, **points) -> Prompts:
        """Prompts whose points are given in LPS mm; `geometry` is the volume's."""
        converted = {}
        for name, values in points.items():
            if name in ("extreme_points", "positive", "negative", "line", "box") and values is not None:
                values = geometry.to_ijk(_points(values, name.replace("_", " ").rstrip("s")))
            elif name == "scribbles":
                values = tuple(replace(s, points=geometry.to_ijk(s.points)) for s in values)
            converted[name] = values
        return cls(**converted)

    @property
    def has_clicks(self) -> bool:
        """Whether there are clicks or scribbles."""
        return bool(len(self.positive) or len(self.negative) or self.scribbles)

    def without_empty_prior(self) -> Prompts:
        """The same prompts; a prior mask that holds nothing says nothing, and is left out."""
        return replace(self, prior=None) if self.prior is not None and not self.prior.mask.any() else self

    @property
    def outline_points(self) -> np.ndarray:
        """The points that say how large the structure is: extreme points, line ends, box corners."""
        parts = [self.extreme_points, *(p for p in (self.line, self.box) if p is not None)]
        return np.concatenate(parts)

    def check(self, geometry: Geometry) -> None:
        """Raise `PromptError` unless the prompts can start or correct a mask of this volume.

        Clicks outside the volume, equal extreme points, and prompts that say nothing are refused
        with the value that is wrong.
        """
        for what, points in self._named_points():
            outside = ~geometry.contains(points)
            if outside.any():
                raise PromptError(
                    f"The {what} {np.round(points[outside][0], 2).tolist()} lies outside the volume, whose indices "
                    f"(i, j, k) run from 0 to {[n - 1 for n in geometry.size]}."
                )
        for what, points in (("extreme points", self.extreme_points), ("line ends", self.line)):
            if points is not None and len(points) and np.ptp(points, axis=0).max() < 0.5:
                raise PromptError(
                    f"All {len(points)} {what} are at {points[0].tolist()}; they must lie apart, on the border."
                )
        seeds = len(self.positive) + sum(s.positive and len(s.points) > 0 for s in self.scribbles)
        if not len(self.outline_points) and not seeds:
            if self.prior is None:
                raise PromptError("There is no usable prompt; give extreme points, a line, a box or a positive click.")
            if not self.prior.mask.any():
                raise PromptError(NOWHERE)
        if self.prior is not None and self.prior.region.clip(geometry.shape) != self.prior.region:
            raise PromptError(f"The prior mask reaches to {self.prior.region.stop[::-1]} (i, j, k), beyond the volume.")

    def _named_points(self):
        yield "extreme point", self.extreme_points
        yield "positive point", self.positive
        yield "negative point", self.negative
        for name, points in (("line end", self.line), ("box corner", self.box)):
            if points is not None:
                yield name, points
        for scribble in self.scribbles:
            yield "scribble point", scribble.points

    def box_ijk(self, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
        """The box that the prompts say the structure fills: corners (i, j, k), border to border.

        From extreme points and box corners it is their own; an axis along which they say nothing is given the
        mean extent of the others: six points or box corners that lie in a plane (those on a line are a thin tube's),
        fewer points that span less than a tenth of their longest extent. A line is a ball's diameter; a prior mask is
        its own box; clicks alone are a ball of `CLICK_RADIUS`. Half a voxel is added on each side, since points mark
        voxel centres. `PromptError` when nothing says where.
        """
        spacing = np.asarray(geometry.spacing)
        if len(self.extreme_points) or self.box is not None:
            low, high = self._stated_box(spacing)
        elif self.line is not None:
            radius = _ball(geometry, np.linalg.norm(geometry.affine[:3, :3] @ (self.line[1] - self.line[0])) / 2)
            low, high = self.line.mean(axis=0) - radius, self.line.mean(axis=0) + radius
        elif self.prior is not None and self.prior.mask.any():
            extent = Region.of_mask(self.prior.mask).shift(self.prior.region.start)
            low = np.array(extent.start[::-1], dtype=float)
            high = np.array(extent.stop[::-1], dtype=float) - 1
        else:
            seeds = [self.positive, *(s.points for s in self.scribbles if s.positive)]
            seeds = np.concatenate(seeds)
            if not len(seeds):
                raise PromptError(NOWHERE)
            radius = _ball(geometry, min(CLICK_RADIUS, CLICK_RADIUS_VOXELS * spacing.min()))
            low, high = seeds.min(axis=0) - radius, seeds.max(axis=0) + radius
        limit = np.asarray(geometry.size) - 0.5
        return np.clip(low - 0.5, -0.5, limit), np.clip(high + 0.5, -0.5, limit)

    def _stated_box(self, spacing: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        points = self.extreme_points if self.box is None else np.concatenate([self.extreme_points, self.box])
        low, high = points.min(axis=0), points.max(axis=0)
        extent = (high - low) * spacing
        flat = extent < 0.1 * extent.max()
        if len(self.extreme_points) >= 6 or self.box is not None:  # a long, thin structure's ends are its own
            flat &= high - low < FLAT
            flat &= flat.sum() < 2  # along two axes it is a tube as thin as that, along one it was not said
        if flat.any():
            grow = (extent[~flat].mean() - extent[flat]) / 2 / spacing[flat]
            low[flat] -= grow
            high[flat] += grow
        return low, high

    def to_json(self) -> dict:
        """The prompts as JSON; all indices are ``[i, j, k]``, a prior mask is base64 of its bytes."""
        data = {"points": self.extreme_points.tolist()} if len(self.extreme_points) else {}
        for name in ("positive", "negative"):
            if len(getattr(self, name)):
                data[name] = getattr(self, name).tolist()
        for name in ("line", "box"):
            if getattr(self, name) is not None:
                data[name] = getattr(self, name).tolist()
        if self.scribbles:
            data["scribbles"] = [{"points": s.points.tolist(), "positive": s.positive} for s in self.scribbles]
        if self.prior is not None:
            data["prior"] = base64.b64encode(self.prior.to_bytes()).decode()
        return data

    @classmethod
    def from_json(cls, data: dict) -> Prompts:
        """Read what `to_json` wrote, or a points file ``{"points": [[i, j, k], ...]}``."""
        if not isinstance(data, dict):
            raise PromptError('Prompts are a JSON object such as {"points": [[i, j, k], ...]}.')
        known = {"points", "positive", "negative", "line", "box", "scribbles", "prior"}
        if unknown := sorted(set(data) - known):
            raise PromptError(f"{unknown[0]!r} is no prompt; the prompts are {', '.join(sorted(known))}.")
        try:
            scribbles = tuple(map(_scribble, data.get("scribbles", ())))
            prior = data.get("prior")
            prior = MaskPatch.from_bytes(base64.b64decode(prior, validate=True)) if prior is not None else None
        except (PromptError, PatchError):
            raise
        except (KeyError, TypeError, AttributeError, ValueError, OverflowError) as error:
            raise PromptError("The scribbles or the prior mask in these prompts are malformed.") from error
        return cls(
            extreme_points=data.get("points", ()),
            line=data.get("line"),
            box=data.get("box"),
            positive=data.get("positive", ()),
            negative=data.get("negative", ()),
            scribbles=scribbles,
            prior=prior,
        )


def _ball(geometry: Geometry, radius: float) -> np.ndarray:
    """How far a ball of a radius in mm reaches along i, j and k, in voxels; in a sheared grid farther than straight."""
    return radius * np.linalg.norm(np.linalg.inv(geometry.affine[:3, :3]), axis=1)


def _scribble(data: dict) -> Scribble:
    if unknown := sorted(set(data) - {"points", "positive"}):
        raise PromptError(f"{unknown[0]!r} is nothing that scribbles have; they have points and positive.")
    positive = data.get("positive", True)
    if not isinstance(positive, bool):
        raise PromptError(f"Whether a scribble is positive is true or false, not {positive!r}.")
    return Scribble(data["points"], positive)


def extreme_points(mask: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The extreme points of a mask: where it ends along each axis, ties drawn by `rng`.

    Parameters
    ----------
    mask : numpy.ndarray
        Bool ``(k, j, i)``, not empty.
    rng : numpy.random.Generator

    Returns
    -------
    numpy.ndarray
        Six points (6, 3) as ``(i, j, k)``: low i, high i, low j, high j, low k, high k.
    """
    points = []
    for axis in (2, 1, 0):
        held = mask.any(axis=tuple(other for other in range(3) if other != axis)).nonzero()[0]
        for end in (held[0], held[-1]):
            candidates = np.argwhere(mask.take(end, axis))
            points.append(np.insert(candidates[rng.integers(len(candidates))], axis, end)[::-1])
    return np.array(points, dtype=float)
