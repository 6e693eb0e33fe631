"""Draw the icons of the extension: ``python Resources/Icons/draw_icons.py``.

Each is drawn eight times too large and reduced, which smooths its edges, and is made to be told apart at 21 pixels,
on a light and on a dark background.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.interpolate import CubicSpline

SIZE, SCALE = 128, 8
ROOT = Path(__file__).resolve().parents[2]
MODULE_ICONS = ROOT / "SlicerAIAssist" / "Resources" / "Icons"

FILL, LINE = (158, 217, 219, 255), (20, 124, 138, 255)
MARK, RIM = (245, 116, 28, 255), (255, 255, 255, 255)

#: Where outlines pass, in an icon of 128 pixels: an organ, and the dots at its extremes.
ORGAN = np.array([(14, 60), (34, 26), (68, 15), (102, 28), (113, 60), (97, 84), (74, 92), (56, 113), (25, 99)], float)
EXTREMES = np.array([(14, 60), (48, 18), (102, 28), (103, 80), (57, 113), (21, 94)], float)
#: An outline with one vertex pulled out, the vertices that stay, the pulled one, and where it goes.
PULLED = np.array(
    [(14, 78), (24, 52), (46, 42), (68, 38), (86, 28), (95, 48), (103, 76), (91, 103), (58, 115), (27, 105)]
)
STAYING = np.array([(14, 78), (46, 42), (102, 76), (60, 115)], float)
VERTEX, TARGET = (79.0, 41.0), (115.0, 11.0)
#: A smaller organ that leaves a corner free, the dots on it, and the star in that corner.
CORNERED = np.array(
    [(14, 78), (24, 50), (50, 39), (78, 52), (107, 72), (98, 95), (73, 99), (54, 113), (25, 106)], float
)
CORNERED_DOTS = np.array([(14, 78), (45, 39), (107, 76), (55, 113)], float)
STAR, STAR_RADIUS = (94.0, 31.0), 27.0


class Canvas:
    """A transparent picture; lengths and places are in pixels of the finished icon."""

    def __init__(self):
        self.image = Image.new("RGBA", (SIZE * SCALE,) * 2, (0, 0, 0, 0))

    def _paint(self, draw) -> None:
        layer = Image.new("RGBA", self.image.size, (0, 0, 0, 0))
        draw(ImageDraw.Draw(layer))
        self.image = Image.alpha_composite(self.image, layer)

    def area(self, points, colour) -> None:
        """Fill a polygon."""
        self._paint(lambda pen: pen.polygon(_corners(points), colour))

    def line(self, points, width, colour) -> None:
        """Stroke a polyline with round ends and joints."""
        corners, radius = _corners(points), width * SCALE / 2

        def draw(pen):
            pen.line(corners, colour, round(2 * radius))
            for x, y in corners:
                pen.ellipse((x - radius, y - radius, x + radius, y + radius), colour)

        self._paint(draw)

    def dot(self, place, radius, colour=MARK, rim=3.5, edge=RIM) -> None:
        """A disc with a rim, which sets it off from what it lies on."""
        for r, c in ((radius + rim, edge), (radius, colour)):
            x, y, r = place[0] * SCALE, place[1] * SCALE, r * SCALE
            self._paint(lambda pen, box=(x - r, y - r, x + r, y + r), c=c: pen.ellipse(box, c))

    def save(self, *paths: Path) -> None:
        """Reduce and write."""
        icon = self.image.resize((SIZE, SIZE), Image.Resampling.LANCZOS)
        for path in paths:
            path.parent.mkdir(parents=True, exist_ok=True)
            icon.save(path, optimize=True)


def _corners(points) -> list[tuple[float, float]]:
    return [tuple(p) for p in (np.asarray(points, float) * SCALE).tolist()]


def smooth(points: np.ndarray) -> np.ndarray:
    """A smooth closed curve through points (n, 2)."""
    closed = np.vstack([points, points[:1]])
    along = np.concatenate([[0], np.cumsum(np.sqrt(np.linalg.norm(np.diff(closed, axis=0), axis=1)))])
    return CubicSpline(along, closed, bc_type="periodic")(np.linspace(0, along[-1], 400))


def organ(canvas: Canvas, points: np.ndarray) -> None:
    """A filled outline."""
    curve = smooth(points)
    canvas.area(curve, FILL)
    canvas.line(curve, 8, LINE)


def arrow(canvas: Canvas, start, stop, width=8.0, head=22.0) -> None:
    """An arrow with a light rim."""
    start, stop = np.asarray(start, float), np.asarray(stop, float)
    ahead = (stop - start) / np.linalg.norm(stop - start)
    aside = np.array([-ahead[1], ahead[0]])
    for grow, colour in ((4.0, RIM), (0.0, MARK)):
        neck = stop - ahead * head
        tip = [stop + ahead * 2 * grow, neck - ahead * grow + aside * (head * 0.6 + 1.6 * grow)]
        tip.append(neck - ahead * grow - aside * (head * 0.6 + 1.6 * grow))
        canvas.line([start, neck], width + 2 * grow, colour)
        canvas.area(tip, colour)


def star(canvas: Canvas, centre, radius) -> None:
    """A star of four points with a light rim."""
    angle = np.linspace(0, 2 * np.pi, 200)
    rays = np.stack([np.sign(f(angle)) * np.abs(f(angle)) ** 2.9 for f in (np.cos, np.sin)], axis=1)
    for size, stroke, colour in ((radius, 7.0, RIM), (radius, 1.0, MARK)):
        outline = np.asarray(centre) + rays * size
        canvas.line(outline, stroke, colour)
        canvas.area(outline, colour)


def ai_points() -> Canvas:
    """Six dots at the extremes of an organ."""
    canvas = Canvas()
    organ(canvas, ORGAN)
    for place in EXTREMES:
        canvas.dot(place, 9.5)
    return canvas


def smart_contour() -> Canvas:
    """An outline with vertices, one of which is being pulled out."""
    canvas = Canvas()
    organ(canvas, PULLED)
    for place in STAYING:
        canvas.dot(place, 5.5, RIM, rim=5, edge=LINE)
    arrow(canvas, VERTEX, TARGET)
    return canvas


def ai_assist() -> Canvas:
    """An organ with points on its outline, and the star that stands for what finds it."""
    canvas = Canvas()
    organ(canvas, CORNERED)
    for place in CORNERED_DOTS:
        canvas.dot(place, 9.5)
    star(canvas, STAR, STAR_RADIUS)
    return canvas


if __name__ == "__main__":
    ai_points().save(MODULE_ICONS / "SegmentEditorAIPoints.png")
    smart_contour().save(MODULE_ICONS / "SegmentEditorSmartContour.png")
    ai_assist().save(MODULE_ICONS / "AIAssist.png", ROOT / "Resources" / "Icons" / "AIAssist.png")
