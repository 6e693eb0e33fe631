"""Draws the outlines of a slice and some of their vertices in a view, as one actor."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import vtk
from vtk.util import numpy_support

#: Colours of a line, of a vertex, and of the vertex that is held.
LINE, VERTEX, HELD = (255, 220, 60), (255, 255, 255), (255, 60, 60)


class ContourActor:
    """A 2D actor in the pixels of a view.

    Attributes
    ----------
    actor : vtkActor2D
        To be added to the view's renderer.
    """

    def __init__(self):
        self._data = vtk.vtkPolyData()
        mapper = vtk.vtkPolyDataMapper2D()
        mapper.SetInputData(self._data)
        mapper.SetScalarModeToUseCellData()
        self.actor = vtk.vtkActor2D()
        self.actor.SetMapper(mapper)
        self.actor.GetProperty().SetPointSize(6)
        self.actor.GetProperty().SetLineWidth(2)

    def show(
        self,
        rings: Sequence[np.ndarray],
        dots: Sequence[np.ndarray],
        held: tuple[int, int] | None = None,
        scale: float = 1.0,
    ) -> None:
        """Show closed rings of pixels ``(x, y)``.

        `dots` are the numbers of the vertices to draw of each ring, `held` is the ring and vertex to stress, `scale`
        how many pixels look like one on an ordinary screen.
        """
        self.actor.GetProperty().SetPointSize(6 * scale)
        self.actor.GetProperty().SetLineWidth(2 * scale)
        points, lines, vertices = vtk.vtkPoints(), vtk.vtkCellArray(), vtk.vtkCellArray()
        start, shown = 0, []
        for ring, drawn in zip(rings, dots, strict=True):
            numbers = np.arange(start, start + len(ring))
            lines.InsertNextCell(len(ring) + 1)
            for number in (*numbers, start):
                lines.InsertCellPoint(int(number))
            shown += [int(n) for n in numbers[drawn]]
            start += len(ring)
        if held is not None:
            shown.append(sum(len(ring) for ring in rings[: held[0]]) + held[1])
        flat = np.concatenate(rings) if rings else np.zeros((0, 2))
        flat = np.column_stack([flat, np.zeros(len(flat))])
        points.SetData(numpy_support.numpy_to_vtk(np.ascontiguousarray(flat), deep=True))
        for number in shown:
            vertices.InsertNextCell(1, [number])
        colours = np.array([VERTEX] * len(shown) + [LINE] * len(rings), np.uint8).reshape(-1, 3)
        if held is not None:
            colours[len(shown) - 1] = HELD
        self._data.Initialize()
        self._data.SetPoints(points)
        self._data.SetVerts(vertices)
        self._data.SetLines(lines)
        scalars = numpy_support.numpy_to_vtk(colours, deep=True)
        self._data.GetCellData().SetScalars(scalars)
        self.actor.SetVisibility(bool(rings))
