"""A thorax made of simple shapes, on any grid: what is where is known in patient coordinates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from aiassist.imaging import Geometry, Volume

#: Values of the truth.
LEFT, RIGHT, TRACHEA, BOWEL_GAS, MATTRESS = 1, 2, 3, 4, 5


@dataclass(frozen=True)
class Thorax:
    """Sizes in mm; coordinates are LPS with the middle of the chest at the origin.

    ``gap`` is the mediastinum between the lungs; below zero they meet at a thin bright line. ``without`` names
    lungs that hold water.
    """

    gap: float = 36.0
    without: tuple[int, ...] = ()
    noise: float = 20.0

    def scan(self, geometry: Geometry) -> tuple[Volume, np.ndarray]:
        """The CT, int16 in Hounsfield units, and the truth, uint8, both ``(k, j, i)``."""
        k, j, i = np.meshgrid(*[np.arange(n) for n in geometry.shape], indexing="ij")
        points = geometry.to_lps(np.stack([i, j, k], axis=-1).reshape(-1, 3))
        left, back, up = (points[:, axis].reshape(geometry.shape) for axis in range(3))
        truth = self._truth(left, back, up)
        values = np.full(geometry.shape, -1000.0)
        values[(left / 175) ** 2 + (back / 115) ** 2 <= 1] = 40  # the body goes on upwards and downwards
        values[np.hypot(left, back - 80) < 15] = 400  # spine
        for value, hounsfield in ((LEFT, -850), (RIGHT, -850), (TRACHEA, -1000), (BOWEL_GAS, -1000), (MATTRESS, -880)):
            values[truth == value] = hounsfield
        vessels = np.hypot((left + 30) % 60 - 30, (back + 25) % 50 - 25) < 3
        values[vessels & np.isin(truth, (LEFT, RIGHT))] = 40
        if self.gap < 0:
            values[(np.abs(left) < 2) & np.isin(truth, (LEFT, RIGHT))] = -600
        for lung in self.without:
            values[truth == lung] = 10
            truth[truth == lung] = 0
        rng = np.random.default_rng(0)
        return Volume(np.round(values + rng.normal(0, self.noise, values.shape)).astype(np.int16), geometry), truth

    def _truth(self, left, back, up) -> np.ndarray:
        truth = np.zeros(left.shape, np.uint8)
        for value, towards, wide in ((LEFT, 1, 58), (RIGHT, -1, 62)):
            middle = towards * (wide + self.gap / 2)
            inside = ((left - middle) / wide) ** 2 + (back / 82) ** 2 + (up / 115) ** 2 <= 1
            truth[inside & (left * towards > 0)] = value
        truth[(np.hypot(left, back) < 9) & (up > 20) & (truth == 0)] = TRACHEA
        truth[(left - 60) ** 2 + back**2 + (up + 155) ** 2 < 28**2] = BOWEL_GAS
        truth[(np.abs(left) < 150) & (np.abs(back - 150) < 20)] = MATTRESS
        return truth


def grid(spacing=(4.0, 4.0, 4.0), direction=None, mm=(400.0, 350.0, 380.0), centre=(0.0, 10.0, -10.0)) -> Geometry:
    """A grid around the thorax.

    ``spacing`` is in order of ``(i, j, k)``, ``direction`` (3x3) holds its axes as columns; ``mm`` is the size along
    left, back and up, which each axis takes as it lies nearest to one of them.
    """
    direction = np.eye(3) if direction is None else np.asarray(direction, float)
    along = [mm[int(np.argmax(np.abs(direction[:, axis])))] for axis in range(3)]
    size = np.ceil(np.divide(along, spacing)).astype(int)
    steps = direction * spacing
    origin = np.asarray(centre) - steps @ ((size - 1) / 2)
    return Geometry.from_spacing(tuple(size[::-1]), spacing, origin, direction)
