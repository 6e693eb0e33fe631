"""Where the voxels of a grid lie in the patient."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from aiassist.errors import ImageError
from aiassist.imaging.region import Region

#: Turns LPS coordinates into RAS ones and back.
LPS_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])

#: An affine is refused as singular when the volume spanned by its unit axes is below this.
SINGULAR = 1e-6


@dataclass(frozen=True, eq=False)
class Geometry:
    """A voxel grid in patient space. Immutable.

    Parameters
    ----------
    shape : tuple of int
        Number of voxels ``(k, j, i)``.
    affine : numpy.ndarray
        4x4 matrix that maps ``(i, j, k, 1)`` to LPS coordinates in mm. May be oblique, flipped,
        anisotropic, left-handed or sheared.

    Raises
    ------
    ImageError
        When an axis is empty, or the affine is not finite or is singular.
    """

    shape: tuple[int, int, int]
    affine: np.ndarray

    def __post_init__(self):
        shape = tuple(int(n) for n in self.shape)
        if len(shape) != 3 or min(shape) < 1:
            raise ImageError(f"A volume needs three axes of at least one voxel, not {list(shape)[::-1]}.")
        affine = np.array(self.affine, dtype=float)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise ImageError(f"The affine must be a finite 4x4 matrix, not {affine.tolist()}.")
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        if lengths.min() <= 0 or abs(np.linalg.det(affine[:3, :3] / lengths)) < SINGULAR:
            raise ImageError(
                f"The affine {affine[:3].tolist()} is singular: two voxel axes coincide or one has no length."
            )
        affine.flags.writeable = False
        object.__setattr__(self, "shape", shape)
        object.__setattr__(self, "affine", affine)

    @classmethod
    def from_spacing(cls, shape, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None) -> Geometry:
        """Geometry from ITK's terms: spacing and origin ``(i, j, k)`` in mm, direction 3x3 in LPS."""
        affine = np.eye(4)
        axes = np.eye(3) if direction is None else np.asarray(direction, dtype=float).reshape(3, 3)
        affine[:3, :3] = axes * np.asarray(spacing, dtype=float)
        affine[:3, 3] = origin
        return cls(shape, affine)

    @cached_property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along i, j, k, in mm."""
        return tuple(float(x) for x in np.linalg.norm(self.affine[:3, :3], axis=0))

    @cached_property
    def spacing_kji(self) -> tuple[float, float, float]:
        """The spacing in array order, in mm."""
        return self.spacing[::-1]

    @cached_property
    def direction(self) -> np.ndarray:
        """3x3; column n is the unit vector (LPS) along voxel axis n of (i, j, k)."""
        return self.affine[:3, :3] / np.asarray(self.spacing)

    @property
    def origin(self) -> tuple[float, float, float]:
        """LPS coordinates of voxel (0, 0, 0) in mm."""
        return tuple(float(x) for x in self.affine[:3, 3])

    @property
    def size(self) -> tuple[int, int, int]:
        """Number of voxels along ``(i, j, k)``."""
        return self.shape[::-1]

    @property
    def is_orthogonal(self) -> bool:
        """Whether the voxel axes are at right angles (no shear); what most file formats demand."""
        return bool(np.allclose(self.direction.T @ self.direction, np.eye(3), atol=1e-4))

    @property
    def affine_ras(self) -> np.ndarray:
        """4x4 matrix from ``(i, j, k, 1)`` to RAS mm: the convention of NIfTI and of Slicer."""
        return LPS_RAS @ self.affine

    @property
    def whole(self) -> Region:
        """The region that covers the grid."""
        return Region((0, 0, 0), self.shape)

    def to_lps(self, points_ijk) -> np.ndarray:
        """LPS coordinates (n, 3) in mm of continuous voxel indices (n, 3)."""
        points = np.asarray(points_ijk, dtype=float).reshape(-1, 3)
        return points @ self.affine[:3, :3].T + self.affine[:3, 3]

    def to_ijk(self, points_lps) -> np.ndarray:
        """Continuous voxel indices (n, 3) of LPS coordinates (n, 3) in mm."""
        points = np.asarray(points_lps, dtype=float).reshape(-1, 3)
        return np.linalg.solve(self.affine[:3, :3], (points - self.affine[:3, 3]).T).T

    def contains(self, points_ijk) -> np.ndarray:
        """Which continuous voxel indices (n, 3) lie in some voxel of the grid."""
        points = np.asarray(points_ijk, dtype=float).reshape(-1, 3)
        return ((points >= -0.5) & (points <= np.asarray(self.size) - 0.5)).all(axis=1)

    def crop(self, region: Region) -> Geometry:
        """The geometry of the part of the grid inside `region`."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_lps(region.start[::-1])[0]
        return Geometry(region.shape, affine)

    def same_grid(self, other: Geometry, tolerance: float = 1e-3) -> bool:
        """Whether both grids have the same shape and all corners agree within `tolerance` voxels.

        What 32-bit affines, as NIfTI's, are rounded by is allowed besides: it shows where voxels are a few micrometres.
        """
        if self.shape != other.shape:
            return False
        off = np.abs(other.to_ijk(self.to_lps(self.corners)) - self.corners)
        rounded = np.abs(np.linalg.inv(other.affine[:3, :3])) @ (self._rounding + other._rounding)
        return bool((off <= tolerance + rounded).all())

    @property
    def corners(self) -> np.ndarray:
        """Indices ``(i, j, k)`` of the eight voxels at the corners."""
        return np.array(np.meshgrid(*[(0, n - 1) for n in self.size])).reshape(3, -1).T

    @property
    def _rounding(self) -> np.ndarray:
        """How far a corner moves along x, y and z at most, in mm, when the affine is rounded to 32 bits."""
        return np.abs(self.affine[:3]) @ [*np.subtract(self.size, 1), 1] * np.finfo(np.float32).eps / 2

    def describe(self) -> str:
        """Size and spacing in words, for messages."""
        size = "x".join(str(n) for n in self.size)
        return f"{size} voxels of {'x'.join(f'{s:.4g}' for s in self.spacing)} mm"

    def difference(self, other: Geometry) -> str:
        """How this grid differs from another, in words, for messages."""
        if self.shape != other.shape or not np.allclose(self.spacing, other.spacing, rtol=1e-3):
            return f"{self.describe()}, not {other.describe()}"
        if not np.allclose(self.direction, other.direction, atol=1e-3):
            return "its axes point in other directions"
        away = np.linalg.norm(self.to_lps(self.corners) - other.to_lps(self.corners), axis=1).max()
        return f"its corners lie up to {away:.3g} mm away"
