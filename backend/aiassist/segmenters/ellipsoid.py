"""The baseline: the ellipsoid that fills the box of the prompts."""

from __future__ import annotations

import numpy as np

from aiassist.imaging import Geometry, MaskPatch, Region, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.correction import without_older_clicks
from aiassist.segmenters.strokes import force_clicks

#: A corrective click moves a ball with this share of the box's mean half side, at least a voxel.
CLICK_SHARE = 0.25


class Ellipsoid:
    """Fills the box of the prompts with an ellipsoid; clicks add or remove a ball.

    It never looks at the image: what it scores, any model must beat.
    """

    card = ModelCard(
        name="ellipsoid",
        version="1",
        kind="promptable",
        description="The ellipsoid through the extreme points, blind to the image: the baseline of all tables.",
        provenance="Geometry only.",
    )

    def annotate(self, volume: Volume, prompts: Prompts) -> Work:
        """See `aiassist.segmenters.base.Promptable.annotate`."""
        yield Step("pass", 0.0)
        prompts = without_older_clicks(prompts)
        low, high = prompts.box_ijk(volume.geometry)
        ball = CLICK_SHARE * float(np.mean((high - low) * volume.geometry.spacing)) / 2
        region = self._region(volume.geometry, prompts, low, high, ball)
        if prompts.prior is not None:
            mask = prompts.prior.within(region)
        else:
            mask = ellipsoid(region, (low + high) / 2, (high - low) / 2)
        spacing = np.asarray(volume.geometry.spacing)
        semi_axes = np.maximum(ball / spacing, 0.5)
        for points, inside in ((prompts.positive, True), (prompts.negative, False), *_strokes(prompts)):
            for point in points:
                mask[ellipsoid(region, point, semi_axes)] = inside
        force_clicks(mask, region, prompts)
        return MaskPatch(region, mask)

    @staticmethod
    def _region(geometry: Geometry, prompts: Prompts, low, high, ball: float) -> Region:
        clicks = [prompts.positive, prompts.negative, *(s.points for s in prompts.scribbles)]
        around = np.concatenate([[low, high], *clicks])
        region = Region.of_points(np.clip(around, 0, np.asarray(geometry.size) - 1))
        region = region.grow(ball if prompts.has_clicks else 0, geometry.spacing_kji).clip(geometry.shape)
        return region if prompts.prior is None else region.union(prompts.prior.region)


def _strokes(prompts: Prompts):
    return ((scribble.points, scribble.positive) for scribble in prompts.scribbles)


def ellipsoid(region: Region, centre_ijk, semi_axes) -> np.ndarray:
    """Bool array of the region's shape: voxels whose centres lie in an axis-aligned ellipsoid.

    Parameters
    ----------
    region : Region
    centre_ijk, semi_axes : array_like
        In voxels, ``(i, j, k)``; semi-axes below half a voxel are taken as half.
    """
    terms = []
    for axis in range(3):
        centre, semi = centre_ijk[2 - axis], max(float(semi_axes[2 - axis]), 0.5)
        terms.append(((np.arange(region.start[axis], region.stop[axis]) - centre) / semi) ** 2)
    k, j, i = np.ix_(*terms)
    return k + j + i <= 1.0
