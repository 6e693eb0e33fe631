"""The smart contour: outlines of a mask slice that can be pulled, and that settle on the organ's border.

Points of a ring are ``(x, y)`` in pixels of the slice, pixel centres at whole numbers, shape (n, 2);
``x`` counts columns and ``y`` rows. The spacing of a slice is ``(x, y)`` in mm. A ring is closed: its last
vertex joins its first. This package needs numpy, scipy and scikit-image only.
"""

from aiassist.contour.edit import delete_vertex, insert_vertex, pull_vertex
from aiassist.contour.plane import Plane
from aiassist.contour.rasterise import paint, rasterise
from aiassist.contour.ring import Ring
from aiassist.contour.session import ContourSession, Edit
from aiassist.contour.trace import trace

__all__ = [
    "ContourSession",
    "Edit",
    "Plane",
    "Ring",
    "delete_vertex",
    "insert_vertex",
    "paint",
    "pull_vertex",
    "rasterise",
    "trace",
]
