"""What the promptable network sees: a cube of cells around the prompts, in channels; the same in training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aiassist.segmenters.cube import Cube
from aiassist.segmenters.flood import flood
from aiassist.segmenters.grey_channels import prior_grey, prompted_grey, wide_grey
from aiassist.segmenters.marks import Marks, blobs, box_mask
from aiassist.segmenters.nearness import nearness
from aiassist.segmenters.working_grid import WorkingGrid

#: Cells along the prompts' box in which the classical segmenter makes its guess.
GUESS_CELLS = 40

#: In a correction the guess is what hangs together with the click.
CHANNELS = (
    "grey, around the structure's level",
    "grey, whole crop",
    "evidence of the grey levels",
    "guess of the classical segmenter",
    "extreme points",
    "positive clicks and strokes",
    "negative clicks and strokes",
    "box",
    "prior mask",
    "has a prior mask",
    "inside the volume",
    "cell size along k",
    "cell size along j",
    "cell size along i",
    "near the tree that joins the prompts",
    "nearer to the prompts than to their box, through the grey levels",
    "near the prompts, through the grey levels",
)
#: Networks trained before there were more see only so many.
FORMER = 14
#: Places of some channels.
GREY = 0
WIDE = 1
EVIDENCE = 2
GUESS = 3
EXTREME = 4
CLICKS = slice(5, 7)
BOX = 7
PRIOR = 8
INSIDE = 10
SIZES = slice(11, 14)


def channels(
    cells: np.ndarray,
    valid: np.ndarray,
    cube: Cube,
    marks: Marks,
    prior=None,
    guess=None,
    count: int = len(CHANNELS),
    near: Sequence[np.ndarray] = (),
) -> np.ndarray:
    """The network's input (count, c, c, c), float32; see `CHANNELS`.

    Parameters
    ----------
    cells : numpy.ndarray
        Grey values (c, c, c), cut off at their `window`.
    valid : numpy.ndarray
        Which cells lie inside the volume.
    cube : Cube
    marks : Marks
    prior : numpy.ndarray, optional
        Share (c, c, c) of each cell that the prior mask covers.
    guess : numpy.ndarray, optional
        Probability (c, c, c) of each cell by the classical segmenter.
    count : int
        How many channels, `FORMER` or all.
    near : sequence of numpy.ndarray, optional
        The last three, where they are known.
    """
    inside = valid.astype(np.float32)
    grey, evidence = prompted_grey(cells, valid, marks) if prior is None else (cells, cells)
    size = np.log2(cube.cell * cube.spacing)
    seen = np.zeros((count, *cells.shape), np.float32)
    seen[GREY], seen[WIDE], seen[EVIDENCE] = grey, wide_grey(cells, valid), evidence
    if guess is not None:
        seen[GUESS] = 2 * guess - 1
    seen[: GUESS + 1] *= inside
    seen[EXTREME] = blobs(marks.extreme, len(cells))
    seen[CLICKS] = blobs(marks.positive, len(cells)), blobs(marks.negative, len(cells))
    seen[BOX], seen[INSIDE] = box_mask(marks.box, len(cells)), inside
    seen[SIZES] = (size - size.mean())[:, None, None, None]
    if count > FORMER:
        seen[FORMER:] = near if len(near) else nearness(seen[WIDE], valid, marks, cube.cell * cube.spacing)
    if prior is not None:
        show_prior(seen, prior)
    return seen


def show_prior(seen: np.ndarray, prior: np.ndarray) -> None:
    """Show the network a prior mask, in place: the mask, and grey levels inside it against those outside.

    Parameters
    ----------
    seen : numpy.ndarray
        The network's input (channels, c, c, c), changed in place.
    prior : numpy.ndarray
        Share (c, c, c) of each cell that the prior mask covers.
    """
    inside = seen[INSIDE]
    seen[PRIOR], seen[PRIOR + 1] = prior, 1.0
    grey, evidence = prior_grey(seen[WIDE], inside > 0, prior, *seen[CLICKS])
    seen[GREY], seen[EVIDENCE] = grey * inside, evidence * inside


def show_click(seen: np.ndarray, clicked: np.ndarray, inside: bool) -> None:
    """Show the network what hangs together with a click that the prior mask disobeys, in place.

    Parameters
    ----------
    seen : numpy.ndarray
        The network's input (channels, c, c, c), with a prior mask; changed in place.
    clicked : numpy.ndarray
        Cell coordinates (n, 3) of the click, or of the points of a stroke.
    inside : bool
        Whether it says that the structure is there.
    """
    side = (seen[PRIOR] < 0.5) == inside
    near = flood(seen[WIDE], side & (seen[INSIDE] > 0), clicked)
    seen[GUESS] = near if inside else -near


def sample_guess(cube: Cube, grid: WorkingGrid, probability: np.ndarray) -> np.ndarray:
    """A field of a working grid's cells as the cube's; 0 beyond the grid."""
    cells, valid = cube.on_grid(grid).sample(probability.astype(np.float32))
    return np.where(valid, cells, 0)
