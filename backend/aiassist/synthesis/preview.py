"""A contact sheet of synthetic examples, to be looked at beside real cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aiassist.evaluation.pictures import pyplot
from aiassist.synthesis.example import example


def contact_sheet(path: Path, seed: int = 0, count: int = 48, cells: int = 64) -> None:
    """Write a picture of the middle slices of `count` examples, with the truth, points and clicks."""
    plots, columns = pyplot(), 12
    rows = -(-count // columns)
    figure, axes = plots.subplots(rows, columns, figsize=(1.7 * columns, 1.9 * rows), facecolor="black")
    for number, axis in enumerate(axes.flat):
        axis.set_axis_off()
        if number >= count:
            continue
        made = example(seed + number, cells)
        truth = made.truth.numpy()
        plane = int(np.argmax((truth > 0.5).sum(axis=(1, 2))))
        grey = made.channels[number % 3, plane].numpy()
        axis.imshow(grey, cmap="gray", vmin=-1, vmax=1)
        if (truth[plane] > 0.5).any():
            axis.contour(truth[plane], [0.5], colors="#40ff40", linewidths=0.8)
        for channel, colour in ((4, "#ffd040"), (5, "#40a0ff"), (6, "#ff4040")):
            marks = made.channels[channel].numpy().max(axis=0)
            if marks.max() > 0.5:
                axis.contour(marks, [0.6], colors=colour, linewidths=0.8)
        axis.set_title(f"{made.family}, {made.kind}", color="white", fontsize=7, pad=2)
    figure.tight_layout(pad=0.3)
    figure.savefig(path, dpi=80, facecolor="black")
    plots.close(figure)
