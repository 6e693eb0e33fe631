"""Draws the icons of the panel's and the effects' buttons.

python Testing/slicer/draw_icons.py SlicerAIAssist/Resources/Icons

Each is drawn on a field of 24 units in colours that stand out on light and on dark ground alike.
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

#: Pixels of an icon's side, how much larger it is drawn first, and units of its side.
SIDE, FINER, UNITS = 48, 8, 24
BLUE, GREEN, RED, ORANGE, GREY = "#2f86d6", "#2fa45a", "#dc4b3e", "#e08a1e", "#7d8790"
#: Width of a stroke.
STROKE = 2.6


class Pen:
    """Draws in units, round ends included."""

    def __init__(self):
        self.image = Image.new("RGBA", (SIDE * FINER, SIDE * FINER), (0, 0, 0, 0))
        self._draw, self._scale = ImageDraw.Draw(self.image), SIDE * FINER / UNITS

    def _at(self, points):
        return [(x * self._scale, y * self._scale) for x, y in points]

    def line(self, colour, *points, width=STROKE, closed=False):
        """A stroke through some points."""
        points = [*points, points[0]] if closed else points
        self._draw.line(self._at(points), colour, round(width * self._scale), "curve")
        for point in points:
            self.dot(colour, point, width / 2)

    def dot(self, colour, middle, radius):
        """A filled circle."""
        (x, y), r = middle, radius
        self._draw.ellipse(self._at([(x - r, y - r), (x + r, y + r)]), colour)

    def ring(self, colour, middle, radius, start=0, stop=360, width=STROKE):
        """An arc; degrees go clockwise from three o'clock."""
        (x, y), r = middle, radius + width / 2
        self._draw.arc(self._at([(x - r, y - r), (x + r, y + r)]), start, stop, colour, round(width * self._scale))

    def fill(self, colour, *points):
        """A filled polygon."""
        self._draw.polygon(self._at(points), colour)

    def box(self, colour, x0, y0, x1, y1, width=STROKE):
        """The outline of a box."""
        self.line(colour, (x0, y0), (x1, y0), (x1, y1), (x0, y1), width=width, closed=True)


def accept(pen):
    pen.line(GREEN, (4, 13), (9.5, 18.5), (20, 6.5), width=3.4)


def cancel(pen):
    pen.line(RED, (6, 6), (18, 18), width=3.2)
    pen.line(RED, (18, 6), (6, 18), width=3.2)


def run(pen):
    pen.fill(GREEN, (6, 3.5), (20.5, 12), (6, 20.5))


def take_back(pen):
    pen.ring(BLUE, (13, 14), 6.2, 200, 90)
    pen.fill(BLUE, (2, 13.6), (10.4, 13.6), (5, 6.2))


def reset(pen):
    pen.ring(ORANGE, (12, 12.5), 7.2, 330, 270)
    pen.fill(ORANGE, (11.4, 1), (11.4, 10), (17.4, 5.5))


def look(pen):
    pen.ring(BLUE, (12, 19), 12.2, 217, 323)
    pen.ring(BLUE, (12, 5), 12.2, 37, 143)
    pen.dot(BLUE, (12, 12), 3.2)


def add(pen):
    pen.line(GREEN, (12, 4), (12, 20), width=3.4)
    pen.line(GREEN, (4, 12), (20, 12), width=3.4)


def next_structure(pen):
    pen.line(BLUE, (4, 5), (10.5, 12), (4, 19), width=3)
    pen.line(BLUE, (12.5, 5), (19, 12), (12.5, 19), width=3)


def _picture(pen, x0, y0, x1, y1):
    pen.box(GREY, x0, y0, x1, y1, width=2)
    pen.dot(GREY, (x0 + 3.6, y0 + 3.8), 1.5)
    pen.fill(GREY, (x0 + 1, y1 - 1), (x0 + 5, y1 - 6), (x0 + 7.5, y1 - 3.5), (x0 + 9, y1 - 5), (x1 - 1, y1 - 1))


def next_image(pen):
    _picture(pen, 2, 4, 14.5, 17)
    pen.line(BLUE, (14.5, 8), (20.5, 14.5), (14.5, 21), width=3)


def _disk(pen, shift=0.0):
    pen.line(BLUE, (4, 4), (16, 4), (20, 8), (20, 20), (4, 20), closed=True)
    pen.fill(BLUE, (8, 4), (15, 4), (15, 9.5), (8, 9.5))
    pen.fill(BLUE, (8, 20), (8, 14), (16, 14), (16, 20))


def save(pen):
    _disk(pen)


def save_next(pen):
    pen.line(BLUE, (3, 4), (11, 4), (14, 7), (14, 19), (3, 19), closed=True, width=2.2)
    pen.fill(BLUE, (6, 4), (10.5, 4), (10.5, 8), (6, 8))
    pen.fill(BLUE, (6, 19), (6, 13.5), (11, 13.5), (11, 19))
    pen.line(GREEN, (17, 7), (21.5, 12), (17, 17), width=2.8)


def history(pen):
    pen.ring(BLUE, (12, 12), 8.2)
    pen.line(BLUE, (12, 7), (12, 12.4), (15.8, 14.6), width=2.2)


def bring_back(pen):
    pen.ring(BLUE, (13, 12.5), 7, 215, 150)
    pen.fill(BLUE, (2.2, 10.8), (10.6, 10.8), (6, 3.4))
    pen.line(BLUE, (13, 8.6), (13, 12.8), (16, 14.4), width=2)


def export(pen):
    pen.line(GREY, (5, 11), (5, 20), (19, 20), (19, 11))
    pen.line(BLUE, (12, 15), (12, 6), width=3)
    pen.fill(BLUE, (6.8, 8.6), (17.2, 8.6), (12, 2))


def install(pen):
    pen.line(GREY, (5, 14), (5, 20), (19, 20), (19, 14))
    pen.line(GREEN, (12, 3.5), (12, 10), width=3)
    pen.fill(GREEN, (6.8, 9), (17.2, 9), (12, 16))


def learn(pen):
    pen.line(GREY, (4, 4), (4, 20), (20, 20), width=1.8)
    pen.line(GREEN, (7, 16), (11, 11.5), (14.5, 13.5), (18.5, 6), width=2.6)
    pen.fill(GREEN, (14.4, 6.6), (20.6, 9.6), (20.6, 2.6))


def folder(pen):
    pen.fill(ORANGE, (2.5, 5), (9.5, 5), (11.5, 7.5), (21.5, 7.5), (21.5, 19.5), (2.5, 19.5))


def remove(pen):
    pen.line(RED, (4, 6.5), (20, 6.5))
    pen.line(RED, (9.5, 4), (14.5, 4))
    pen.line(RED, (6.5, 7), (7.6, 20), (16.4, 20), (17.5, 7))
    pen.line(RED, (12, 10.5), (12, 16.5), width=2)


def connect(pen):
    pen.line(GREY, (2.5, 12), (7, 12))
    pen.line(GREY, (17, 12), (21.5, 12))
    pen.fill(GREEN, (6.5, 6), (11.2, 6), (11.2, 18), (6.5, 18))
    pen.fill(BLUE, (12.8, 6), (17.5, 6), (17.5, 18), (12.8, 18))


def measure(pen):
    pen.line(BLUE, (4, 20), (20, 4), width=2.2)
    for x, y in ((4, 20), (20, 4)):
        pen.line(BLUE, (x - 2, y - 2), (x + 2, y + 2), width=2.2)
    for share in (0.33, 0.66):
        x, y = 4 + 16 * share, 20 - 16 * share
        pen.line(BLUE, (x, y), (x + 2.2, y + 2.2), width=1.8)


def six_points(pen):
    pen.ring(GREY, (12, 12), 6.8, width=1.8)
    for place in ((12, 3.6), (20.4, 12), (12, 20.4), (3.6, 12), (6.4, 6), (17.6, 18)):
        pen.dot(GREEN, place, 2.5)


def box(pen):
    pen.box(GREY, 4.5, 5.5, 19.5, 18.5, width=1.8)
    for place in ((4.5, 5.5), (19.5, 18.5)):
        pen.dot(GREEN, place, 3)


def line(pen):
    pen.ring(GREY, (12, 12), 8.2, width=1.8)
    pen.line(GREEN, (5.8, 17), (18.2, 7), width=2)
    for place in ((5.8, 17), (18.2, 7)):
        pen.dot(GREEN, place, 2.8)


def clicks(pen):
    pen.dot(GREEN, (8, 8.5), 6)
    pen.dot(RED, (16.5, 16), 6)
    pen.line("white", (8, 5.2), (8, 11.8), width=1.8)
    pen.line("white", (4.7, 8.5), (11.3, 8.5), width=1.8)
    pen.line("white", (13.2, 16), (19.8, 16), width=1.8)


def propagate(pen):
    for y in (5, 12, 19):
        pen.line(GREY if y != 12 else GREEN, (3, y), (13, y), width=2.4)
    for tip, base in ((2.5, 8.5), (21.5, 15.5)):
        pen.line(BLUE, (18, 12), (18, base), width=2.2)
        pen.fill(BLUE, (14.4, base), (21.6, base), (18, tip))


ICONS = (
    accept, add, box, bring_back, cancel, clicks, connect, export, folder, history, install, learn, line, look, measure,
    next_image, next_structure, propagate, remove, reset, run, save, save_next, six_points, take_back,
)  # fmt: skip


def draw(icon) -> Image.Image:
    """The picture of one icon."""
    pen = Pen()
    icon(pen)
    return pen.image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)


def main(out: Path) -> None:
    """Draw them all."""
    for icon in ICONS:
        draw(icon).save(out / f"{icon.__name__}.png", optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
