"""Draws the tutorial's pictures: the panel and the three views at each step, on the bundled CT.

python Testing/slicer/draw_tutorial.py docs/pictures
"""
# ruff: noqa: E402 - the shell comes before what imports Slicer

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

os.environ["LOGNAME"] = "ann"  # whose name stands at the labels
HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "SlicerAIAssist")]

import numpy as np
from PIL import Image
from scipy import ndimage

from shell.start import start  # isort: skip - before what imports Slicer

import qt

from shell import views

#: Pixels of a view's side, of the panel's width, and of the gaps between them.
SIDE, PANEL, GAP = 420, 510, 6


class Stage:
    """A Slicer with the panel and three views; takes pictures."""

    def __init__(self, folder: Path, out: Path):
        self.out = out
        self.application = start(folder, HERE.parents[1] / "SlicerAIAssist")
        from helpers import Case

        self.views = views.open_views(self.application, SIDE)
        self.case = Case()
        self.host = self.application.modules["AIAssist"].widgetRepresentation()
        self.panel = self.host.self().panel
        self.host.self().enter()
        self.panel.editor.setSegmentationNode(self.case.segmentation)
        self.panel.editor.setSourceVolumeNode(self.case.node)
        for view in self.views.values():
            view.show(self.case.node)
            view.enter()

    @property
    def effect(self):
        """The active effect."""
        return self.panel.editor.activeEffect().self()

    def show(self, *sections: str) -> None:
        """Open these sections of the panel and close the others."""
        for name in ("backendSection", "structuresSection", "autoSection", "saveSection", "learnSection"):
            getattr(self.panel.ui, name).collapsed = name not in sections

    def zoom(self, names, world, mm: float) -> None:
        """Show a place larger in some views."""
        for name in names:
            node = self.views[name].node
            node.JumpSliceByCentering(*world)
            node.SetFieldOfView(mm, mm, node.GetFieldOfView()[2])

    def lose_tip(self, name: str) -> np.ndarray:
        """Take the tip of the current segment away, by a structure's largest slice; where it was in the world."""
        from aiassist.imaging import MaskPatch
        from AIAssistLib.segments import write_plainly
        from helpers import mask_of

        case, segment = self.case, self.panel.editor.currentSegmentID()
        k = int(case.mask(name).sum(axis=(1, 2)).argmax())
        slice_places = case.world(np.insert(np.argwhere(case.mask(name)[k])[:, ::-1], 2, k, axis=1))
        tip = slice_places[np.linalg.norm(slice_places - slice_places.mean(axis=0), axis=1).argmax()]
        mask = mask_of(case, segment)
        voxels = np.argwhere(mask)
        near = np.linalg.norm(case.world(voxels[:, ::-1]) - tip, axis=1) < 18
        mask[tuple(voxels[near].T)] = False
        write_plainly(MaskPatch.of_mask(mask), case.node, case.segmentation, segment)
        return tip

    def picture(self, name: str, *shown: str) -> None:
        """Save the panel with some views beside it."""
        for _turn in range(5):
            qt.QApplication.processEvents()
        self.host.resize(PANEL, 100)
        height = max(self.host.sizeHint.height(), SIDE * -(-len(shown) // 2))
        self.host.resize(PANEL, height)
        self.host.show()
        qt.QApplication.processEvents()
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            self.host.grab().save(file.name)
            panel = Image.open(file.name).convert("RGB")
        rows = -(-len(shown) // 2) or 1
        columns = min(len(shown), 2)
        width = PANEL + columns * (SIDE + GAP)
        sheet = Image.new("RGB", (width, max(panel.height, rows * (SIDE + GAP) - GAP)), (60, 60, 60))
        sheet.paste(panel, (0, 0))
        for number, view in enumerate(shown):
            place = (PANEL + GAP + number % 2 * (SIDE + GAP), number // 2 * (SIDE + GAP))
            sheet.paste(Image.fromarray(self.views[view].picture()), place)
        sheet.quantize(255, Image.Quantize.MAXCOVERAGE).save(self.out / f"slicer-{name}.png", optimize=True)
        print(self.out / f"slicer-{name}.png")


def main(out: Path) -> None:
    """Go through the tutorial."""
    from helpers import answered, click_ends, wait

    with tempfile.TemporaryDirectory() as folder:
        stage = Stage(Path(folder), out)
        panel, case, red = stage.panel, stage.case, stage.views["Red"]
        wait(lambda: panel.logic.assistant.cards)
        stage.show("backendSection", "structuresSection")
        panel.ui.templateCombo.setCurrentIndex(panel.ui.templateCombo.findText("Abdomen CT"))
        stage.picture("1-start", "Red", "Yellow", "Green")
        panel.next_structure()
        stage.show("structuresSection")
        ends = case.ends("liver")
        for world in ends[:4]:
            stage.views["Green"].click(stage.views["Green"].xy(world))
        stage.views["Green"].xy(ends[1])
        stage.views["Red"].xy(ends[2])
        stage.picture("2-points", "Green", "Red")
        for world in ends[4:]:
            stage.views["Green"].click(stage.views["Green"].xy(world))
        answered(stage.effect)
        for view in stage.views.values():
            view.xy(case.middle("liver"))
        stage.picture("3-preview", "Red", "Yellow", "Green")
        preview = stage.effect.session.preview.mask.to_mask(case.labels.shape)
        deep = ndimage.distance_transform_edt(preview & ~case.mask("liver"))
        place = case.world(np.array(np.unravel_index(deep.argmax(), deep.shape))[::-1])[0]
        red.click(red.xy(place), control=True)
        answered(stage.effect)
        red.xy(place)
        stage.picture("4-correct", "Red", "Green")
        panel.next_structure()
        click_ends(stage.views, case.ends("spleen"))
        answered(stage.effect)
        stage.effect.accept()
        tip = stage.lose_tip("spleen")
        panel.contour()
        stage.zoom(["Red"], case.middle("spleen"), 130)
        end = np.array(red.xy(tip))
        red.event("MouseMoveEvent", end)
        ring = max(stage.effect.contour.rings(red.node), key=len)
        start = ring[np.linalg.norm(ring - end, axis=1).argmin()]
        red.event("MouseMoveEvent", start)
        red.event("LeftButtonPressEvent", start)
        for share in np.linspace(0.2, 1, 5):
            red.event("MouseMoveEvent", start + share * (end - start))
        stage.picture("5-contour", "Red", "Green")
        red.event("LeftButtonReleaseEvent", end)
        panel.editor.setActiveEffectByName("")
        stage.show("saveSection")
        panel.ui.historyGroup.collapsed = False
        panel.ui.commentEdit.setText("checked")
        panel.saving.save()
        wait(lambda: "Saved" in panel.ui.saveLabel.text and panel.ui.historyTable.rowCount > 0)
        for view in stage.views.values():
            view.show(case.node)
            view.xy(case.middle("liver"))
        stage.picture("6-save", "Red", "Green")
        stage.show("learnSection")
        wait(lambda: panel.learn.learning.known is not None)
        panel.ui.learnModelCombo.setEditText("liver")
        stage.picture("7-learn")
        stage.host.self().exit()
        stage.application.stop()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
    sys.stdout.flush()
    os._exit(0)  # slicer-core and PySide6 do not take each other down in good order
