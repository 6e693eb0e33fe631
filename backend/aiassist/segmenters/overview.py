"""A whole volume on a cube of equal cells, its axes turned to the patient's: what an automatic model looks at first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import linear_sum_assignment

from aiassist.imaging import Geometry, Region, Volume, finite
from aiassist.segmenters.cube import Cube
from aiassist.segmenters.working_grid import weigh

#: What the network sees of each cell.
CHANNELS = ("grey levels, all", "grey levels, around the median", "inside the volume", "place along k", "j", "i")


def patients_axes(geometry: Geometry) -> tuple[int, int, int]:
    """Which array axis runs along the patient's third, second and first axis, or nearest to it; each once."""
    along = np.abs(geometry.direction[::-1, ::-1])  # rows: the patient's axes k, j, i; columns: the array's
    return tuple(int(axis) for axis in linear_sum_assignment(-along)[1])


@dataclass(frozen=True)
class Overview:
    """The grid: how a volume's axes are turned, and the cube of cells over it.

    Parameters
    ----------
    order : tuple of int
        Which array axis runs along the patient's third, second and first axis (feet to head, front to back, right to
        left: LPS backwards).
    flips : tuple of int
        Axes, after that, which run the other way.
    cube : Cube
        Over the turned volume; its cells are cubes, so that organs keep their shape.
    """

    order: tuple[int, int, int]
    flips: tuple[int, ...]
    cube: Cube

    @classmethod
    def of(cls, geometry: Geometry, cells: int) -> Overview:
        """The grid of `cells` a side over a volume's whole grid."""
        order = patients_axes(geometry)
        signs = [geometry.direction[::-1, ::-1][axis, order[axis]] for axis in range(3)]
        flips = tuple(axis for axis in range(3) if signs[axis] < 0)
        shape = np.array([geometry.shape[axis] for axis in order])
        spacing = np.array([geometry.spacing_kji[axis] for axis in order])
        half = (shape * spacing).max() / 2 / spacing
        centre = (shape - 1) / 2
        cube = Cube(centre - half, centre + half, tuple(shape.tolist()), tuple(spacing.tolist()), cells)
        return cls(order, flips, cube)

    def turn(self, voxels: np.ndarray) -> np.ndarray:
        """A view of the volume's array with the patient's axes."""
        return np.flip(voxels.transpose(self.order), self.flips)

    def turn_back(self, voxels: np.ndarray) -> np.ndarray:
        """The opposite of `turn`."""
        return np.flip(voxels, self.flips).transpose(np.argsort(self.order))

    def see(self, volume: Volume) -> np.ndarray:
        """What the network sees (6, c, c, c), float32; see `CHANNELS`."""
        thin, few = self.cube.thinned()
        cells, valid = thin.sample(finite(self.turn(volume.voxels)[few]))
        return channels(cells, valid)

    def sample(self, mask: np.ndarray) -> np.ndarray:
        """The share (c, c, c) of each cell that a mask (k, j, i) of the volume covers."""
        turned = self.turn(mask)
        box = Region.of_mask(turned).slices
        rows = [row[:, part] for row, part in zip(self.cube.weights(), box, strict=True)]
        return weigh(turned[box].astype(np.float32), rows)

    def to_voxels(self, logits: np.ndarray) -> np.ndarray:
        """Where a field of the cells is above zero: bool (k, j, i) of the volume."""
        return self.turn_back(self.cube.positive(logits))


def channels(cells: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """The network's input of grey values (c, c, c) and which of them lie in the volume."""
    inside = valid.astype(np.float32)
    held = cells[valid] if valid.any() else cells.ravel()
    low, middle, high = np.quantile(held, (0.005, 0.5, 0.995))
    spread = np.median(np.abs(held - middle)) + 1e-6 + 1e-6 * abs(high)
    wide = np.clip((cells - low) / (high - low + 1e-6 + 1e-6 * abs(high)) * 2 - 1, -1.5, 1.5)
    near = np.tanh((cells - middle) / (4 * spread))
    places = np.meshgrid(*[np.linspace(-1, 1, n) for n in cells.shape], indexing="ij")
    return np.stack([wide * inside, near * inside, inside, *places]).astype(np.float32)
