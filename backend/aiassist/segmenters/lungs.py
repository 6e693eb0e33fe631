"""Left and right lung in CT of the chest, by thresholds and morphology."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from aiassist.errors import ModelError
from aiassist.imaging import MaskPatch, Region, Volume, describe_structure, finite
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.cell_grid import CellGrid

#: Hounsfield units. Below `AIR` is air or lung: halfway between lung and chest wall. Air that is mostly below `GAS`
#: is gas alone, as in the bowel: lung holds vessels.
AIR, GAS, LOWEST, HIGHEST = -400.0, -950.0, -1024.0, 1000.0
#: Of muscle and fat.
SOFT = (-150.0, 300.0)
#: Share of the image that must be soft tissue.
LEAST_TISSUE = 0.02
#: Width of a cell in mm.
CELL = 2.5
#: Half the width in mm of passages (nostrils, gaps between arm and chest) that outside air does not get through.
PASSAGE = 5.0
#: Most of a lung's surface lies deeper than this under the skin, in mm; that of a mattress does not.
WALL = 12.0
#: Half the width in mm that no airway has and every lung has somewhere.
AIRWAY = 13.0
#: A lung that is whole has this many ml; less is taken for one where the edge of the image cuts it, if it holds
#: little that is as light as gas.
WHOLE = 300.0
#: Least piece of a lung, in ml and as a share of the largest.
PIECE, SHARE = 10.0, 0.02
#: Two lungs that touch: their middles lie this far apart from left to right, in mm, and the smaller holds this share.
APART, SMALLER = 60.0, 0.1
#: How much brighter than the lungs, in Hounsfield units, the line is at which they touch.
LINE = 150.0
#: A distance that stands for infinity, in mm.
FAR = 1e6
#: Radius in mm of the ball that rolls along the outside of a lung: vessels and nodules narrower than it are inside.
ROLL = 8.0


class LungsCT:
    """Finds both lungs without weights.

    After Hu, Hoffman and Reinhardt 2001 (IEEE Trans Med Imaging 20:490-498, doi:10.1109/42.929615): threshold,
    take away the air around the patient and the airways, separate left from right, close the border. Where they
    go slice by slice, this works in space and in mm, on cells of about 2.5 mm: airways are what is too narrow
    for a ball that every lung holds; touching lungs are parted by a watershed (Meyer 1994,
    doi:10.1016/0165-1684(94)90060-4) along the bright line between them; a ball rolled along the outside takes
    in vessels and nodules (Armato and Sensakovic 2004, doi:10.1016/j.acra.2004.06.005). Voxels are looked at in
    the border only. Left and right come from patient coordinates. Consolidated lung, which is as dense as
    muscle, is not found.
    """

    card = ModelCard(
        name="lungs-ct",
        version="1",
        kind="automatic",
        description="Left and right lung in CT of the chest, also where the image cuts them; no consolidated lung.",
        modalities=("CT",),
        labels=(describe_structure("lung_left", 1), describe_structure("lung_right", 2)),
        metrics={"Dice lung_left, cip_ct64_lung": 0.985, "Dice lung_right, cip_ct64_lung": 0.985},
        provenance="Thresholds and morphology after Hu et al. 2001, doi:10.1109/42.929615; no training.",
    )

    def segment(self, volume: Volume) -> Work:
        """See `aiassist.segmenters.base.Automatic.segment`.

        Raises
        ------
        ModelError
            When the values are not Hounsfield units, or no air has the size and density of a lung.
        """
        yield Step("coarse", 0.0)
        chest = _Chest.of(volume)
        yield Step("pass", 0.15)
        enclosed = chest.enclosed_air()
        yield Step("pass", 0.3)
        airways = chest.airways(enclosed)
        yield Step("pass", 0.5)
        pieces = chest.lung_pieces(enclosed & ~airways)
        yield Step("pass", 0.6)
        sides = chest.sides(pieces, airways)
        yield Step("pass", 0.7)
        closed = chest.close(sides, airways)
        yield Step("border", 0.85)
        return _settle(volume, chest, sides, closed)


@dataclass
class _Chest:
    """Hounsfield units of the cells, and where the cells lie in the patient."""

    grid: CellGrid
    hounsfield: np.ndarray

    @classmethod
    def of(cls, volume: Volume) -> _Chest:
        grid = CellGrid.of_size(volume.geometry, CELL)
        hounsfield = grid.average(volume.voxels, LOWEST, HIGHEST)
        tissue = (hounsfield > SOFT[0]) & (hounsfield < SOFT[1])
        if hounsfield.min() > AIR or tissue.mean() < LEAST_TISSUE:
            grey = finite(volume.voxels)
            raise ModelError(
                f"The values of this image, {grey.min():g} to {grey.max():g}, are not those of a chest in Hounsfield "
                "units (air about -1000, muscle about 50); lungs-ct needs a CT of the chest."
            )
        return cls(grid, hounsfield)

    @cached_property
    def air(self) -> np.ndarray:
        return self.hounsfield < AIR

    @cached_property
    def left(self) -> np.ndarray:
        """How far to the patient's left each cell lies, in mm."""
        return self.grid.along(0)

    @cached_property
    def depth(self) -> np.ndarray:
        """Distance in mm of each cell to the air around the patient; `FAR` where none is seen.

        That air reaches the sides of the image through passages that are not narrow. Top and bottom do not count as
        sides: an image ends in the middle of the lungs as often as not.
        """
        wide, sizes = _parts(_distance(self.air, self.grid.spacing) > PASSAGE)
        upwards = int(np.argmax(np.abs(self.grid.geometry.direction[2, ::-1])))
        sides = [wide.take((0, -1), axis) for axis in range(3) if axis != upwards]
        outside = np.zeros(len(sizes), bool)
        outside[np.unique(np.concatenate([side.ravel() for side in sides]))] = True
        outside[0] = False
        return np.maximum(_distance(~outside[wide], self.grid.spacing) - PASSAGE, 0)

    def enclosed_air(self) -> np.ndarray:
        """Air that is not around the patient."""
        return self.air & (self.depth > self.grid.spacing.max())

    def airways(self, enclosed: np.ndarray) -> np.ndarray:
        """Trachea and main bronchi: tall and narrow air near the midline, as light as gas."""
        core = _distance(enclosed, self.grid.spacing) > AIRWAY
        wide = _distance(~core, self.grid.spacing) <= AIRWAY if core.any() else core
        parts, sizes = _parts(enclosed & ~wide & (self.hounsfield < GAS + 50))
        height = self.grid.along(2)
        found = np.zeros(enclosed.shape, bool)
        for part in np.flatnonzero(sizes * self.grid.millilitres > 2.0):
            cells = parts == part
            if np.ptp(height[cells]) > 30 and abs(self.left[cells].mean() - self._middle) < 50:
                found |= cells
        return ndimage.binary_dilation(found, np.ones((3, 3, 3))) & enclosed

    @cached_property
    def _middle(self) -> float:
        """Where the body's middle lies from right to left, in mm."""
        inside = self.depth > WALL
        return float(self.left[inside if inside.any() else ...].mean())

    def lung_pieces(self, air: np.ndarray) -> list[np.ndarray]:
        """Bool masks of the pieces of lung, the largest first; `ModelError` when there is none."""
        parts, sizes = _parts(air)
        millilitres = sizes * self.grid.millilitres
        found: list[np.ndarray] = []
        largest = 0.0
        for part in np.argsort(-sizes, kind="stable"):
            least = max(PIECE, SHARE * largest)
            if millilitres[part] < least:
                break
            cells = parts == part
            whole = max(largest, millilitres[part]) >= WHOLE
            if (whole or _touches_edge(cells)) and self._is_lung(cells, share_of_gas=75 if whole else 25):
                found.append(cells)
                largest = max(largest, millilitres[part])
        if not found:
            raise ModelError(
                "This CT shows no air of the size and density of a lung (the largest pocket inside the body holds "
                f"{millilitres.max():.0f} ml); lungs-ct needs a CT of the chest."
            )
        return found

    def _is_lung(self, cells: np.ndarray, share_of_gas: float) -> bool:
        """Whether air lies under a chest wall, and less than this share of it, in percent, is as light as gas."""
        box = Region.of_mask(cells).grow(1, (1, 1, 1)).clip(cells.shape)
        cells = cells[box.slices]
        surface = ndimage.binary_dilation(cells) & ~cells
        inner = ndimage.binary_erosion(cells, border_value=1)
        light = self.hounsfield[box.slices][inner if inner.any() else cells]
        covered = np.percentile(self.depth[box.slices][surface], 25) > WALL
        return bool(covered and np.percentile(light, share_of_gas) > GAS)

    def sides(self, pieces: list[np.ndarray], airways: np.ndarray) -> np.ndarray:
        """The label of each cell of the pieces: 1 left, 2 right, 0 elsewhere."""
        pieces = [part for piece in pieces for part in self._apart(piece)]
        places = [float(self.left[piece].mean()) for piece in pieces]
        sizes = [int(piece.sum()) for piece in pieces]
        first, *others = np.argsort(sizes)[::-1]
        middle = float(self.left[airways].mean()) if airways.any() else self._middle
        for other in others:  # both lungs are seen: the middle lies between them
            if sizes[other] > SMALLER * sizes[first] and abs(places[other] - places[first]) > APART:
                middle = (places[first] + places[other]) / 2
                break
        labels = np.zeros(self.air.shape, np.uint8)
        for piece, place in zip(pieces, places, strict=True):
            labels[piece] = 1 if place > middle else 2
        return labels

    def _apart(self, piece: np.ndarray) -> list[np.ndarray]:
        """The two lungs of a piece in which they touch, or the piece itself.

        What is as light as most of it is eroded until it falls into two of comparable size, one left of the other.
        """
        box = Region.of_mask(piece)
        inside, left, hounsfield = piece[box.slices], self.left[box.slices], self.hounsfield[box.slices]
        depth = _distance(inside & (hounsfield < np.median(hounsfield[inside]) + LINE), self.grid.spacing)
        for radius in np.arange(CELL, min(float(depth.max()), 40.0), CELL):
            parts, sizes = _parts(depth > radius)
            if len(sizes) < 3:
                continue
            first, second = np.argsort(-sizes, kind="stable")[:2]
            places = [float(left[parts == part].mean()) for part in (first, second)]
            if sizes[second] > SMALLER * sizes[first] and abs(places[0] - places[1]) > APART:
                markers = (parts == first) + 2 * (parts == second).astype(np.int32)
                basins = _watershed(ndimage.gaussian_filter(hounsfield, 0.5), markers, inside)
                return [_placed(basins == side, box, piece.shape) for side in (1, 2)]
        return [piece]

    def close(self, sides: np.ndarray, airways: np.ndarray) -> np.ndarray:
        """The labels after a ball was rolled along the outside of each lung, and holes were filled."""
        closed = np.zeros_like(sides)
        both = np.zeros(sides.shape, bool)
        for side in (1, 2):
            if not (sides == side).any():
                continue
            box = Region.of_mask(sides == side).grow(2 * ROLL, self.grid.spacing).clip(sides.shape)
            lung = sides[box.slices] == side
            rolled = _distance(_distance(~lung, self.grid.spacing) <= ROLL, self.grid.spacing) > ROLL
            lung = ndimage.binary_fill_holes(lung | rolled)
            both[box.slices] |= lung & (closed[box.slices] > 0)
            closed[box.slices][lung] = side
        closed[both | airways | (self.air & (sides == 0))] = 0
        return np.where(sides > 0, sides, closed)


def _watershed(heights: np.ndarray, markers: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The basin of each voxel; the import takes as long as many a click, and only lungs that touch need it."""
    from skimage.segmentation import watershed

    return watershed(heights, markers, mask=inside)


def _settle(volume: Volume, chest: _Chest, sides: np.ndarray, closed: np.ndarray) -> MaskPatch:
    """The labels at the voxels: cells inside a lung as they are, those at its border by each voxel's value."""
    full = np.ones((3, 3, 3), bool)
    box = Region.of_mask(closed).grow(chest.grid.spacing, chest.grid.spacing).clip(closed.shape)
    closed, sides, air = closed[box.slices], sides[box.slices], chest.air[box.slices]
    certain, possible = np.zeros_like(closed), np.zeros_like(closed)
    for side in (1, 2):
        lung = closed == side
        inner = ndimage.binary_erosion(lung, full, border_value=1)
        certain[inner | (lung & (sides == 0))] = side
        possible[ndimage.binary_dilation(lung, full) & (lung | ~air) & (closed != 3 - side)] = side
    region, thick = chest.grid.voxel_region(box), chest.grid.voxels_a_cell[0]
    labels = np.empty(region.shape, np.uint8)
    for k in range(box.shape[0]):
        here = slice(k * thick, (k + 1) * thick)
        sure, maybe = chest.grid.spread(certain, k, box), chest.grid.spread(possible, k, box)
        light = volume.voxels[region.slices][here] < AIR
        labels[here] = np.where(sure > 0, sure, maybe * light)
    tight = Region.of_mask(labels)
    return MaskPatch(tight.shift(region.start), np.ascontiguousarray(labels[tight.slices]), "labels")


def _distance(mask: np.ndarray, spacing: np.ndarray) -> np.ndarray:
    """Distance in mm from each true cell to the nearest false one; `FAR` where there is none."""
    if mask.all():
        return np.full(mask.shape, FAR)
    return ndimage.distance_transform_edt(mask, sampling=tuple(spacing))


def _parts(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Face-connected parts numbered from 1, and the cells of each; that of 0, the rest, counts as none."""
    parts, _ = ndimage.label(mask)
    sizes = np.bincount(parts.ravel())
    sizes[0] = 0
    return parts, sizes


def _touches_edge(cells: np.ndarray) -> bool:
    return any(cells.take((0, -1), axis).any() for axis in range(3))


def _placed(part: np.ndarray, box: Region, shape) -> np.ndarray:
    whole = np.zeros(shape, bool)
    whole[box.slices] = part
    return whole
