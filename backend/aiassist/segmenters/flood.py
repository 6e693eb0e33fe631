"""What hangs together with a click by grey levels, on the side of the mask that the click contradicts."""

from __future__ import annotations

import numpy as np
from scipy import ndimage
from skimage.graph import MCP_Geometric

#: Cost of a step to a cell that looks like the clicked ones, and of one whose grey level is `UNLIKE` away.
STEP, STRANGE = 0.05, 1.0
#: A difference on the scale of `wide_grey`.
UNLIKE = 0.15
#: Cost at which nearness has fallen to 1/e.
SCALE = 2.5
#: The flood goes no farther than this many cells.
FAR = 20


def flood(grey: np.ndarray, open_cells: np.ndarray, clicked: np.ndarray) -> np.ndarray:
    """How near cells are to the clicked ones, by the cheapest path through alike grey levels.

    Parameters
    ----------
    grey : numpy.ndarray
        Grey levels (k, j, i) from about -1 to 1.
    open_cells : numpy.ndarray
        Bool, where the flood may go; it begins in any case.
    clicked : numpy.ndarray
        Cells (n, 3) where it begins; those beyond the grid are left out.

    Returns
    -------
    numpy.ndarray
        Float32 (k, j, i): about 1 at the clicked cells, falling to 0.
    """
    size = np.array(grey.shape)
    clicked = np.unique(np.rint(clicked).astype(int), axis=0)
    clicked = clicked[((clicked >= 0) & (clicked < size)).all(axis=1)]
    near = np.zeros(grey.shape, np.float32)
    if not len(clicked):
        return near
    low, high = np.maximum(clicked.min(axis=0) - FAR, 0), np.minimum(clicked.max(axis=0) + FAR + 1, size)
    box = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
    starts = clicked - low
    calm = ndimage.uniform_filter(grey[box], 3)
    cost = STEP + np.abs(calm - np.median(calm[tuple(starts.T)])) * STRANGE / UNLIKE
    cost[~open_cells[box]] = np.inf
    cost[tuple(starts.T)] = STEP
    paid, _ = MCP_Geometric(cost, fully_connected=False).find_costs([tuple(s) for s in starts])
    near[box] = np.exp(-paid / SCALE)
    return near
