"""Filters by matrix products are scipy's."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from aiassist.segmenters.blurring import blurred, steepness


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 9, 30), (24, 24, 24)])
@pytest.mark.parametrize("sigma", [0.7, 1.0])
def test_they_are_those_of_scipy(shape, sigma):
    cells = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    assert np.allclose(blurred(cells, sigma), ndimage.gaussian_filter(cells, sigma), atol=1e-5)
    assert np.allclose(steepness(cells, sigma), ndimage.gaussian_gradient_magnitude(cells, sigma), atol=1e-5)
