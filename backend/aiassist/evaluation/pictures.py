"""Contours over slices, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment
from skimage.measure import find_contours

from aiassist.engine import AnnotateRequest, LocalBackend
from aiassist.errors import MissingExtraError
from aiassist.evaluation.annotator import jitter
from aiassist.evaluation.baselines import comparable
from aiassist.evaluation.cases import Structure
from aiassist.evaluation.measure import BASELINE, Plan
from aiassist.evaluation.metrics import dice
from aiassist.imaging import Geometry, MaskPatch, Region, Volume, finite
from aiassist.prompts import Prompts, extreme_points

#: Views as (title, axis of the (k, j, i) array that is cut).
VIEWS = (("axial", 0), ("coronal", 1), ("sagittal", 2))
#: A view is at most this many times as wide as high, or as high as wide; thinner slabs leave the rest of it empty.
WIDEST = 4.0


@dataclass(frozen=True)
class Outline:
    """A mask to draw: its patch, colour (matplotlib), name and line style."""

    patch: MaskPatch
    colour: str | tuple[float, float, float]
    name: str
    style: str = "-"


def pyplot():
    """matplotlib's pyplot, without a screen; `MissingExtraError` where it is not installed."""
    try:
        import matplotlib
    except ImportError as error:
        raise MissingExtraError("matplotlib", "evaluate", "Drawing pictures") from error
    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot


class Upright:
    """Turns arrays of a volume so that patients are seen as radiologists do.

    Axes become ``(S, P, L)``: in an axial slice the patient's right is on the left and the nose is
    up. Oblique volumes are turned to the nearest axes.
    """

    def __init__(self, geometry: Geometry):
        axes, columns = linear_sum_assignment(-np.abs(geometry.direction))
        voxel_axis = dict(zip(axes, columns, strict=True))  # patient axis L, P, S -> voxel axis i, j, k
        self._order = [2 - voxel_axis[patient] for patient in (2, 1, 0)]
        self._flip = [a for a, p in enumerate((2, 1, 0)) if geometry.direction[p, voxel_axis[p]] < 0]
        self.spacing = [geometry.spacing_kji[axis] for axis in self._order]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        """The turned array; a view."""
        return np.flip(array.transpose(self._order), self._flip)


def grey_window(volume: Volume, region: Region) -> tuple[float, float]:
    """Grey levels shown black and white: soft tissue for CT, percentiles of the region otherwise."""
    grey = finite(volume.voxels[region.slices])
    if volume.voxels.min() <= -900 and volume.voxels.max() > 200:
        return -160.0, 240.0
    low, high = np.percentile(grey, [1, 99])
    return float(low), float(max(high, low + 1e-6))


def draw_slices(path: Path, volume: Volume, outlines: Sequence[Outline], title: str, crop_mm: float | None) -> None:
    """Write one picture: axial, coronal and sagittal slices with the outlines of masks.

    Parameters
    ----------
    path : Path
        Where; the ending says the format.
    volume : Volume
    outlines : sequence of Outline
        What to draw; those sharing a name share a place in the legend.
    title : str
    crop_mm : float, optional
        Show only this much around the masks; everything when None.
    """
    plots = pyplot()
    region = volume.geometry.whole
    if crop_mm is not None:
        around = Region((0, 0, 0), (0, 0, 0))
        for outline in outlines:
            around = around.union(outline.patch.over(None).region)
        region = around.grow(crop_mm, volume.geometry.spacing_kji).clip(volume.shape) if not around.is_empty else region
    upright = Upright(volume.geometry)
    grey = upright(finite(volume.voxels[region.slices]))
    masks = [upright(outline.patch.within(region)) for outline in outlines]
    low, high = grey_window(volume, region)
    sizes = np.array(grey.shape) * upright.spacing
    shapes = [(sizes[1], sizes[2]), (sizes[0], sizes[2]), (sizes[0], sizes[1])]
    height = 4.6
    widths = [height * float(np.clip(w / h, 1 / WIDEST, WIDEST)) for h, w in shapes]
    figure, axes = plots.subplots(
        1,
        3,
        figsize=(sum(widths) + 0.4, height + 1.1),
        facecolor="black",
        width_ratios=widths,
        layout="constrained",
    )
    for axis, (view, cut) in zip(axes, VIEWS, strict=True):
        place = _busiest(masks, cut)
        _draw_view(axis, grey, masks, outlines, cut, place, upright.spacing, (low, high))
        axis.set_title(view, color="white", fontsize=10)
    figure.suptitle(title, color="white", fontsize=11)
    handles = {o.name: plots.Line2D([], [], color=o.colour, linestyle=o.style, linewidth=2) for o in outlines if o.name}
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=min(len(handles), 7),
        frameon=False,
        labelcolor="white",
        fontsize=9,
    )
    figure.savefig(path, dpi=130, facecolor="black")
    plots.close(figure)


def _busiest(masks: list[np.ndarray], cut: int) -> int:
    """The slice that shows the most masks well."""
    others = tuple(a for a in range(3) if a != cut)
    score = np.zeros(masks[0].shape[cut])
    for mask in masks:
        area = mask.sum(axis=others)
        score += np.sqrt(area / max(area.max(), 1))
    return int(np.argmax(score)) if score.any() else len(score) // 2


def _draw_view(axis, grey, masks, outlines, cut: int, place: int, spacing, limits) -> None:
    vertical, horizontal = (spacing[a] for a in range(3) if a != cut)
    plane = np.take(grey, place, axis=cut)
    extent = (-0.5 * horizontal, (plane.shape[1] - 0.5) * horizontal)
    vertical_extent = (-0.5 * vertical, (plane.shape[0] - 0.5) * vertical)
    upside = cut != 0  # coronal and sagittal rows run from feet to head
    axis.imshow(
        plane,
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        interpolation="bilinear",
        origin="lower" if upside else "upper",
        extent=(*extent, *(vertical_extent if upside else vertical_extent[::-1])),
    )
    for mask, outline in zip(masks, outlines, strict=True):
        shown = np.pad(np.take(mask, place, axis=cut), 1).astype(float)
        for ring in find_contours(shown, 0.5):
            axis.plot(
                (ring[:, 1] - 1) * horizontal,
                (ring[:, 0] - 1) * vertical,
                color=outline.colour,
                linestyle=outline.style,
                linewidth=1.5 if outline.style == "-" else 1.0,
            )
    axis.set_axis_off()


def picture_of_structure(path: Path, structure: Structure, model: str, plan: Plan) -> None:
    """Draw the truth, the model's mask and the ellipsoid of one structure, for the first draw of points."""
    volume, truth = structure.load()
    rng = np.random.default_rng([plan.seed, 0, structure.value])
    points = extreme_points(truth, rng)
    if plan.jitter:
        points = jitter(points, volume.geometry, rng)
    with LocalBackend(comparable(trained=plan.trained), threaded=False) as backend:
        study = backend.open_study(volume)
        masks = {
            name: backend.annotate(AnnotateRequest(study, Prompts(extreme_points=points), model=name)).patch
            for name in (model, BASELINE)
        }
    whole = MaskPatch.of_mask(truth)
    score = {name: dice(truth, patch.to_mask(volume.shape)) for name, patch in masks.items()}
    outlines = [
        Outline(whole, "#40ff40", "truth", "--"),
        Outline(masks[model], "#ff4040", model),
        Outline(masks[BASELINE], "#4090ff", BASELINE, ":"),
    ]
    title = f"{structure.title}   Dice {score[model]:.3f} ({BASELINE} {score[BASELINE]:.3f})"
    side = max(np.array(whole.region.shape) * volume.geometry.spacing_kji)
    draw_slices(path, volume, outlines, title, crop_mm=0.4 * float(side))
