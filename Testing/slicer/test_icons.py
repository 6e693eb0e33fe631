"""The icons of the buttons: each has one that is there and can be seen on light and on dark ground."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import qt
from PIL import Image

from draw_icons import ICONS, draw

FOLDER = Path(__file__).parents[2] / "SlicerAIAssist" / "Resources" / "Icons"
BUTTONS = (qt.QPushButton, qt.QToolButton)


def buttons_of(ui) -> dict:
    """The buttons of a ``.ui`` file by name, without those inside of Slicer's own widgets."""
    return {n: w for n, w in vars(ui).items() if isinstance(w, BUTTONS) and not n.startswith("qt_")}


@pytest.mark.parametrize("where", ["panel", "AI Points", "Smart Contour"])
def test_every_button_has_an_icon_and_a_tooltip(where, panel):
    if where != "panel":
        panel.editor.setActiveEffectByName(where)
    buttons = buttons_of(panel.ui if where == "panel" else panel.editor.activeEffect().self().ui)
    assert buttons
    bare = [name for name, button in buttons.items() if button.icon.isNull() or not button.icon.availableSizes()]
    assert bare == []
    assert [name for name, button in buttons.items() if not button.toolTip] == []


def contrast(colours: np.ndarray, ground: int) -> np.ndarray:
    """WCAG's contrast of colours (n, 3) with a grey ground."""

    def luminance(rgb):
        share = np.asarray(rgb, float) / 255
        return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4) @ [0.2126, 0.7152, 0.0722]

    pair = np.stack([luminance(colours), np.full(len(colours), luminance([ground] * 3))]) + 0.05
    return pair.max(axis=0) / pair.min(axis=0)


@pytest.mark.parametrize("icon", ICONS, ids=lambda icon: icon.__name__)
def test_an_icon_is_seen_on_light_and_on_dark_ground_and_is_the_one_that_is_drawn(icon):
    picture = Image.open(FOLDER / f"{icon.__name__}.png").convert("RGBA")
    assert np.array_equal(np.asarray(picture), np.asarray(draw(icon)))
    small = np.asarray(picture.resize((16, 16), Image.Resampling.BOX))
    solid = small[small[..., 3] > 200][:, :3]
    for ground in (240, 50):
        assert (contrast(solid, ground) > 2).sum() >= 15  # pixels, of 256


def test_no_picture_is_there_that_nobody_draws():
    ours = {path.stem for path in FOLDER.glob("*.png") if path.stem[0].islower()}
    assert ours == {icon.__name__ for icon in ICONS}
