"""Lungs in CT: on a thorax whose truth is known, however it lies; on the bundled CT; on shared data where it is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from thorax import BOWEL_GAS, LEFT, MATTRESS, RIGHT, TRACHEA, Thorax, grid

from aiassist.errors import ModelError
from aiassist.imaging import Geometry, MaskPatch, Volume, read_labelmap, read_volume
from aiassist.segmenters.base import Automatic, run
from aiassist.segmenters.cell_grid import CellGrid
from aiassist.segmenters.lungs import LungsCT
from conftest import ROOT

CASES = ROOT.parent / "shared" / "data" / "cases"
#: Axes of the array along those of the patient, in every order and direction.
ORIENTATIONS = [
    np.eye(3)[:, order] * signs
    for order in itertools.permutations(range(3))
    for signs in itertools.product((1, -1), repeat=3)
]


def lungs_of(volume: Volume) -> np.ndarray:
    """The labelmap of a volume."""
    return run(LungsCT().segment(volume)).to_labelmap(volume.shape)


def dice(labelmap: np.ndarray, truth: np.ndarray, value: int) -> float:
    found, true = labelmap == value, truth == value
    return 2 * (found & true).sum() / (found.sum() + true.sum())


def rotation(degrees: float, axis: int) -> np.ndarray:
    """Turns about an axis of the patient."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    turn = np.eye(3)
    turn[np.ix_(*[[a for a in range(3) if a != axis]] * 2)] = [[c, -s], [s, c]]
    return turn


def test_the_card_names_both_lungs_with_their_codes():
    segmenter = LungsCT()
    assert isinstance(segmenter, Automatic) and segmenter.card.kind == "automatic"
    told = [(label.name, label.value, label.code.value, label.side.meaning) for label in segmenter.card.labels]
    assert told == [("lung_left", 1, "39607008", "Left"), ("lung_right", 2, "39607008", "Right")]


# A thorax whose truth is known


@pytest.mark.parametrize("direction", ORIENTATIONS[::5], ids=lambda d: "".join(map(str, d.astype(int).ravel())))
def test_left_is_the_patients_left_however_the_array_lies(direction):
    volume, truth = Thorax().scan(grid((5, 5, 5), direction))
    labelmap = lungs_of(volume)
    assert dice(labelmap, truth, LEFT) > 0.96 and dice(labelmap, truth, RIGHT) > 0.96


@pytest.mark.parametrize(
    ("spacing", "direction"),
    [
        ((4, 4, 4), rotation(25, 0)),  # gantry tilt
        ((4, 4, 4), rotation(20, 2) @ rotation(15, 1)),
        ((2, 2, 5), None),
        ((5, 2, 3), rotation(-10, 1) @ np.diag([-1, -1, 1])),
        ((3, 3, 10), None),
    ],
)
def test_oblique_and_anisotropic_grids(spacing, direction):
    volume, truth = Thorax().scan(grid(spacing, direction))
    labelmap = lungs_of(volume)
    assert dice(labelmap, truth, LEFT) > 0.96 and dice(labelmap, truth, RIGHT) > 0.96


def test_what_is_no_lung_stays_out_and_vessels_are_inside():
    volume, truth = Thorax().scan(grid((3, 3, 3)))
    labelmap = lungs_of(volume)
    assert dice(labelmap, truth, LEFT) > 0.98 and dice(labelmap, truth, RIGHT) > 0.98
    assert not labelmap[np.isin(truth, (TRACHEA, BOWEL_GAS, MATTRESS))].any()
    vessels = np.isin(truth, (LEFT, RIGHT)) & (volume.voxels > -200)
    assert vessels.sum() > 1000 and (labelmap[vessels] > 0).mean() > 0.9


@pytest.mark.parametrize("gap", [-2.0, -10.0])
def test_lungs_that_touch_are_parted_where_they_meet(gap):
    volume, truth = Thorax(gap=gap).scan(grid((3, 3, 3)))
    labelmap = lungs_of(volume)
    assert dice(labelmap, truth, LEFT) > 0.97 and dice(labelmap, truth, RIGHT) > 0.97


@pytest.mark.parametrize(("missing", "left_over"), [(LEFT, RIGHT), (RIGHT, LEFT)])
def test_a_single_lung_keeps_its_side(missing, left_over):
    volume, truth = Thorax(without=(missing,)).scan(grid())
    labelmap = lungs_of(volume)
    assert dice(labelmap, truth, left_over) > 0.96 and not (labelmap == missing).any()


@pytest.mark.parametrize(("low", "high"), [(-130, -70), (-20, 20), (75, 130)])
def test_lungs_that_the_image_cuts_are_found(low, high):
    """The bases in a CT of the abdomen, a slab, the tips in a CT of the neck."""
    part = grid((3, 3, 3), mm=(400, 350, high - low), centre=(0, 10, (low + high) / 2))
    volume, truth = Thorax().scan(part)
    labelmap = lungs_of(volume)
    assert dice(labelmap, truth, LEFT) > 0.95 and dice(labelmap, truth, RIGHT) > 0.95


def test_a_single_slice_is_enough():
    volume, truth = Thorax().scan(grid((3, 3, 5), mm=(400, 350, 5), centre=(0, 10, 0)))
    assert volume.shape[0] == 1
    labelmap = lungs_of(volume)
    assert dice(labelmap, truth, LEFT) > 0.95 and dice(labelmap, truth, RIGHT) > 0.95


def test_the_same_voxels_give_the_same_labels_in_any_type():
    volume, _ = Thorax().scan(grid())
    patches = [run(LungsCT().segment(Volume(v, volume.geometry))) for v in (volume.voxels, volume.voxels.astype("f8"))]
    assert patches[0].to_bytes() == patches[1].to_bytes() == run(LungsCT().segment(volume)).to_bytes()
    assert patches[0].kind == "labels" and patches[0].voxels.dtype == np.uint8


def test_what_a_scanner_fills_up_with_is_outside():
    """Beyond the round field of view: a value that is no measurement."""
    volume, truth = Thorax().scan(grid())
    rows, columns = np.ogrid[: volume.shape[1], : volume.shape[2]]
    beyond = np.hypot(rows - volume.shape[1] / 2, columns - volume.shape[2] / 2) > 49
    assert beyond.mean() > 0.1 and not np.isin(truth[:, beyond], (LEFT, RIGHT)).any()
    for filler in (-3024, np.nan, -np.inf):
        voxels = np.where(beyond, filler, volume.voxels.astype(np.float32))
        labelmap = lungs_of(Volume(voxels, volume.geometry))
        assert dice(labelmap, truth, LEFT) > 0.96 and dice(labelmap, truth, RIGHT) > 0.96


def test_its_progress_never_falls():
    volume, _ = Thorax().scan(grid((6, 6, 6)))
    fractions = [step.fraction for step in LungsCT().segment(volume)]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] < 1


# Images that show no lung


@pytest.mark.parametrize(
    ("scale", "shift", "said"),
    [(1, 1024, "Hounsfield units"), (0.001, 0, "Hounsfield units"), (0, 0, "0 to 0, are not")],
)
def test_values_that_are_no_hounsfield_units_are_refused(scale, shift, said):
    volume, _ = Thorax(noise=0).scan(grid((6, 6, 6)))
    other = Volume((volume.voxels * scale + shift).astype(np.float32), volume.geometry)
    with pytest.raises(ModelError, match=f"{said}.*needs a CT of the chest"):
        lungs_of(other)


@pytest.mark.parametrize("voxels", [np.zeros((4, 5, 6), bool), np.full((4, 5, 6), np.nan), np.zeros((1, 1, 1))])
def test_images_of_nothing_are_refused(voxels):
    with pytest.raises(ModelError, match="0 to 0, are not"):
        lungs_of(Volume(voxels, Geometry.from_spacing(voxels.shape)))


def test_a_ct_without_lungs_is_refused():
    volume, _ = Thorax(without=(LEFT, RIGHT)).scan(grid())
    with pytest.raises(ModelError, match=r"no air of the size and density of a lung \(the largest .* \d+ ml\)"):
        lungs_of(volume)


def test_bowel_gas_at_the_edge_of_an_abdomen_is_no_lung(volume):
    abdomen = Geometry((90, *volume.shape[1:]), volume.geometry.affine)
    with pytest.raises(ModelError, match="no air of the size and density of a lung"):
        lungs_of(Volume(volume.voxels[:90], abdomen))


# Real patients


def test_the_lung_bases_of_the_bundled_ct(volume, labelmap):
    """Silver labels: 41 and 70 ml, below which lies more gas in the bowel than there is lung."""
    truth = np.isin(labelmap.voxels, (10, 11)) * LEFT + (labelmap.voxels == 14) * RIGHT
    found = lungs_of(volume)
    assert dice(found, truth, LEFT) > 0.94 and dice(found, truth, RIGHT) > 0.94
    assert not found[np.isin(labelmap.voxels, (6, 18, 20))].any()  # stomach and bowel


@pytest.mark.skipif(not (CASES / "cip_ct64_lung").is_dir(), reason="../shared/data/cases is not here")
def test_the_lungs_of_a_whole_chest():
    folder = CASES / "cip_ct64_lung"
    volume = read_volume(folder / "image.nii.gz")
    regions = read_labelmap(folder / "label.nii.gz", like=volume).voxels & 255  # the upper byte says airway or vessel
    truth = np.isin(regions, (9, 10, 11)) * LEFT + np.isin(regions, (12, 13, 14)) * RIGHT
    found = lungs_of(volume)
    assert dice(found, truth, LEFT) > 0.98 and dice(found, truth, RIGHT) > 0.98


# Cells


@pytest.mark.parametrize("shape", [(7, 10, 9), (4, 4, 4), (1, 3, 11)])
def test_cells_average_the_voxels_that_they_cover(shape):
    geometry = Geometry.from_spacing(shape, (1.0, 1.0, 2.0), origin=(5, -7, 11))
    cells = CellGrid.of_size(geometry, 3.0)
    assert cells.voxels_a_cell == (2, 3, 3)
    voxels = np.random.default_rng(0).integers(-500, 500, shape).astype(np.int16)
    averaged = cells.average(voxels, -1000, 1000)
    assert averaged.shape == cells.shape
    assert averaged[0, 0, 0] == pytest.approx(voxels[:2, :3, :3].mean(), abs=1e-3)
    assert cells.along(0)[0, 0, 0] == 6 and cells.along(2)[0, 0, 0] == 12
    assert cells.millilitres == pytest.approx(18 * 2 / 1000)
    whole = MaskPatch.of_mask(np.ones(cells.shape, bool)).region
    assert cells.voxel_region(whole).shape == shape
    spread = cells.spread(averaged, 0, whole)
    assert spread.shape == shape[1:] and spread[2, 2] == averaged[0, 0, 0]
