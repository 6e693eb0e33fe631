"""Measures inside the installed Slicer; run by ``bench_slicer.py``.

    inside_slicer.py cold|warm|patient|all MODULES HOME WHEELS

Real MRML, slice views and mouse events on the headless Slicer of ``Testing/slicer``. The volume is the bundled case
enlarged. Every figure is the median and the 95th (99th for gaps) percentile of what is said beside it.
"""

from __future__ import annotations

import os
import sys
import time
from functools import cache
from pathlib import Path

from shell.start import start  # isort: skip - before what imports Slicer

import numpy as np
import qt
import slicer

from shell import pythonqt, views

#: Clicks, drags and accepts that are timed.
ROUNDS = 20
#: Seconds that a person takes to look for an organ and click its six ends.
PATIENCE = 10.0
#: What is measured, each in a Slicer of its own and with an image that the backend has not seen.
RUNS = ("cold", "warm", "patient", "all")


class Bench:
    """A started Slicer over the enlarged case, with the heartbeat of its event loop."""

    def __init__(self, what: str, modules: Path, home: Path, wheels: Path):
        self.home = home
        self.application = start(home / "run", modules, home)
        self._install_packages(slicer.modules.AIAssistInstance.logic, wheels)
        self.beats: list[float] = []
        self._heart = qt.QTimer()
        self._heart.setInterval(1)
        self._heart.connect("timeout()", lambda: self.beats.append(time.perf_counter()))
        self._heart.start()
        from large_case import large

        from helpers import Case

        self.case = Case()
        self.volume, self.labels = large(self.case.volume, self.case.labels, RUNS.index(what))
        slicer.mrmlScene.RemoveNode(self.case.node)
        to_ras = self.volume.geometry.affine_ras
        self.node = slicer.util.addVolumeFromArray(self.volume.voxels.copy(), ijkToRAS=to_ras, name="large")
        self.node.CreateDefaultDisplayNodes()
        self.views = views.open_views(self.application, 512)

    def _install_packages(self, logic, wheels: Path) -> None:
        """Install as the module does, but start nothing afterwards."""
        from AIAssistLib.installer_qt import Installer

        logic.packages.requirements = wheels / "requirements.txt"
        if logic.packages.missing():
            ended = []
            installer = Installer(logic.python, logic.packages, lambda line: None, ended.append)
            installer.start(wheels)
            self.until(lambda: ended)

    def open(self) -> None:
        """Open the module over the volume with an empty segment."""
        from aiassist.imaging import describe_structure
        from AIAssistLib.console import new_segmentation
        from AIAssistLib.structures import new_segment

        self.widget = self.application.modules["AIAssist"].widgetRepresentation().self()
        self.widget.enter()
        panel = self.panel = self.widget.panel
        self.segmentation = new_segmentation(self.node)
        panel.editor.setSegmentationNode(self.segmentation)
        panel.editor.setSourceVolumeNode(self.node)
        self.segment = new_segment(self.segmentation, describe_structure("liver"))
        panel.editor.setCurrentSegmentID(self.segment)
        for view in self.views.values():
            view.show(self.node)
            view.enter()
        panel.points()
        self.points = panel.editor.activeEffect().self()

    def mask(self, name: str) -> np.ndarray:
        """Bool ``(k, j, i)`` of a structure in the enlarged volume."""
        return self.labels == next(value for value, known in self.case.names.items() if known == name)

    @cache  # noqa: B019 - it takes a second, and there is one of us
    def ends(self, name: str) -> np.ndarray:
        """Six ends of a structure in the world."""
        from aiassist.prompts import extreme_points

        ijk = extreme_points(self.mask(name), np.random.default_rng(0))
        matrix = self.volume.geometry.affine_ras
        return ijk @ matrix[:3, :3].T + matrix[:3, 3]

    def until(self, done) -> None:
        """Let the event loop run, as Slicer's does; its heart beats every millisecond."""
        while not done():
            qt.QApplication.processEvents(qt.QEventLoop.WaitForMoreEvents)

    def shown(self) -> None:
        """Wait for the first answer."""
        self.until(lambda: not self.points.session.busy)
        if self.points.session.failed:
            raise SystemExit(self.points.session.text)

    def answered(self) -> None:
        """Wait for the last answer."""
        self.shown()
        self.until(lambda: not self.points.session.looks_closer)


def figures(name: str, seconds, share: float = 95) -> None:
    """Print a line."""
    print(f"{name:66s} {1000 * np.median(seconds):8.1f} {1000 * np.percentile(seconds, share):8.1f} ms")


def say(name: str, value: float, unit: str) -> None:
    """Print a line with one figure."""
    print(f"{name:66s} {value:8.{2 if unit == 's' else 1}f} {unit}")


def gaps(name: str, seconds) -> None:
    """Print how long the event loop was kept from its next turn."""
    figures(f"{name}: gap in the event loop (50 and 99 %)", seconds, 99)
    say("the longest of these gaps", 1000 * max(seconds), "ms")


def first_preview(bench: Bench, what: str) -> None:
    """Module opened to the first preview, the process not running before."""
    ends = bench.ends("liver")
    bench.beats = [time.perf_counter()]
    began = time.perf_counter()
    bench.open()
    mark(bench, ends[:5])
    if what == "patient":
        bench.until(lambda: time.perf_counter() > began + PATIENCE)
        name, clicked = f"sixth click to first preview, made after {PATIENCE:.0f} s", time.perf_counter()
    else:
        name, clicked = f"module opened to first preview, clicks at once, {what}", began
    mark(bench, ends[5:])
    bench.shown()
    say(name, time.perf_counter() - clicked, "s")
    gaps("meanwhile", np.diff(bench.beats))


def mark(bench: Bench, ends) -> None:
    """Click the six ends."""
    view = bench.views["Green"]
    for world in ends:
        place = view.xy(world)
        bench.beats.append(time.perf_counter())
        view.click(place)
        bench.beats.append(time.perf_counter())


def clicks(bench: Bench, home: str) -> None:
    """From the sixth click to the preview, without the model's own time; the heartbeat meanwhile."""
    rest, pauses, here = [], [], []
    asking = bench.points.session._asking
    answered = asking._answered

    def timed(outcome, is_stale: bool) -> None:
        began = time.perf_counter()
        answered(outcome, is_stale)
        here.append(time.perf_counter() - began)

    asking._answered = timed
    for _round in range(ROUNDS):
        bench.points.ui.resetButton.click()
        ends = bench.ends("liver")
        mark(bench, ends[:5])
        place = bench.views["Green"].xy(ends[5])
        bench.beats = [time.perf_counter()]
        began = time.perf_counter()
        bench.views["Green"].click(place)
        bench.beats.append(time.perf_counter())
        bench.shown()
        rest.append(time.perf_counter() - began - sum(bench.panel.logic.assistant.last.seconds.values()))
        pauses += list(np.diff(bench.beats))
    asking._answered = answered
    figures(f"{home}: sixth click to preview, less the engine's own time", rest)
    figures("of it in Slicer, from the answer to the preview", here)
    gaps(f"{home}, clicking", pauses)


def drags(bench: Bench, home: str) -> None:
    """A point is dragged while answers come; the heartbeat meanwhile."""
    view, start = bench.views["Green"], bench.views["Green"].xy(bench.ends("liver")[0])
    view.event("MouseMoveEvent", start)
    view.event("LeftButtonPressEvent", start)
    bench.beats = [time.perf_counter()]
    for step in range(120):
        view.event("MouseMoveEvent", (start[0] + 20 * np.sin(step / 10), start[1]))
        next_move = time.perf_counter() + 0.008
        bench.until(lambda moment=next_move: time.perf_counter() > moment)
    view.event("LeftButtonReleaseEvent", start)
    pauses = np.diff(bench.beats)
    bench.answered()
    gaps(f"{home}, dragging", pauses)


def accepts(bench: Bench, surface: bool) -> None:
    """Writing the preview into the segment, with and without its surface in 3D."""
    seconds = []
    for _round in range(ROUNDS):
        bench.points.ui.resetButton.click()
        mark(bench, bench.ends("liver"))
        bench.answered()
        began = time.perf_counter()
        bench.points.ui.acceptButton.click()
        if surface:
            bench.segmentation.CreateClosedSurfaceRepresentation()
        seconds.append(time.perf_counter() - began)
        bench.segmentation.RemoveClosedSurfaceRepresentation()
        bench.panel.editor.undo()
    figures(f"accept, 3D {'on' if surface else 'off'}", seconds)


def contours(bench: Bench) -> None:
    """A vertex is dragged: from the mouse move to the outline that is to be drawn."""
    from aiassist.imaging import MaskPatch
    from AIAssistLib.segments import write_plainly

    truth = bench.mask("liver")
    write_plainly(MaskPatch.of_mask(truth), bench.node, bench.segmentation, bench.segment)
    bench.panel.contour()
    effect, view = bench.panel.editor.activeEffect().self(), bench.views["Red"]
    k = int(truth.sum(axis=(1, 2)).argmax())
    matrix = bench.volume.geometry.affine_ras
    middle = matrix @ [*np.argwhere(truth[k]).mean(axis=0)[::-1], k, 1.0]
    place = view.xy(middle[:3])
    began = time.perf_counter()
    view.event("MouseMoveEvent", place)
    print(f"{'first outline of a segment':66s} {1000 * (time.perf_counter() - began):8.1f} ms")
    ring = max(effect.contour.rings(view.node), key=len)
    seconds = []
    for number in range(0, len(ring), max(1, len(ring) // 8)):
        start = ring[number]
        view.event("MouseMoveEvent", start)
        view.event("LeftButtonPressEvent", start)
        for step in range(1, 15):
            began = time.perf_counter()
            view.event("MouseMoveEvent", start + step * np.array([1.5, 1.0]))
            seconds.append(time.perf_counter() - began)
        began = time.perf_counter()
        view.event("LeftButtonReleaseEvent", start)
    figures(f"mouse move to new outline ({len(ring)} vertices)", seconds)
    print(f"{'last release, written into the segment':66s} {1000 * (time.perf_counter() - began):8.1f} ms")


def both_homes(bench: Bench) -> None:
    """Clicks and drags with the process that the extension starts, then with a server, which has a token."""
    from homes import Homes

    logic = bench.panel.logic
    clicks(bench, "this computer")
    drags(bench, "this computer")
    homes = Homes(bench.home / "homes", logic.python, logic.packages.folder)
    own = logic.assistant.home
    homes.use(logic.assistant, "server")
    bench.points.ui.resetButton.click()
    mark(bench, bench.ends("liver"))
    bench.answered()  # the image is there
    clicks(bench, "a server")
    drags(bench, "a server")
    logic.assistant.home = own
    homes.close()


def main(what: str, modules: Path, home: Path, wheels: Path) -> None:
    bench = Bench(what, modules, home, wheels)
    if what != "all":
        first_preview(bench, what)
    else:
        bench.open()
        mark(bench, bench.ends("liver"))
        bench.answered()
        print(f"{'':66s} {'median':>8s} {'95 %':>8s}")
        both_homes(bench)
        bench.points.ui.resetButton.click()
        accepts(bench, surface=False)
        accepts(bench, surface=True)
        contours(bench)
    bench.widget.exit()
    bench.application.stop()
    if pythonqt.slot_errors:
        print(f"errors in slots: {pythonqt.slot_errors}")


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
    sys.stdout.flush()
    os._exit(0)  # slicer-core and PySide6 do not take each other down in good order
