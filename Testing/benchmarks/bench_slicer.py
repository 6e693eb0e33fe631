"""What the extension adds to the model's own time inside Slicer, on a volume of 512x512x300 voxels.

    python Testing/benchmarks/bench_slicer.py

Real MRML, slice views and mouse events on the headless Slicer of ``Testing/slicer``; the backend is the process
that the extension starts. The volume is the bundled case enlarged. Every figure is the median and the 95th (99th for
gaps) percentile of what is said beside it.
"""
# ruff: noqa: E402 - the shell comes before what imports Slicer

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "Testing" / "slicer"), str(ROOT / "SlicerAIAssist"), str(Path(__file__).parent)]

import numpy as np

from shell import pythonqt, widgets

pythonqt.install()
widgets.install()
import qt
import slicer
from bench_server import large

from shell import editor, network, scripted, views
from shell.application import Application

#: Clicks, drags and accepts that are timed.
ROUNDS = 20


class Bench:
    """A started Slicer over the enlarged case, with the heartbeat of its event loop."""

    def __init__(self, folder: Path):
        pythonqt.application()
        scripted.install()
        editor.install()
        network.install()
        self.application = Application(folder)
        self.application.load_module(ROOT / "SlicerAIAssist" / "AIAssist.py")
        self.application.open_window()
        self.application.start()
        self.beats: list[float] = []
        self._heart = qt.QTimer()
        self._heart.setInterval(1)
        self._heart.connect("timeout()", lambda: self.beats.append(time.perf_counter()))
        self._heart.start()
        from helpers import Case

        self.case = Case()
        self.volume, self.labels = large(self.case.volume, self.case.labels)
        slicer.mrmlScene.RemoveNode(self.case.node)
        to_ras = self.volume.geometry.affine_ras
        self.node = slicer.util.addVolumeFromArray(self.volume.voxels.copy(), ijkToRAS=to_ras, name="large")
        self.node.CreateDefaultDisplayNodes()
        self.views = views.open_views(self.application, 512)

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

    def ends(self, name: str) -> np.ndarray:
        """Its six ends in the world."""
        from aiassist.prompts import extreme_points

        ijk = extreme_points(self.mask(name), np.random.default_rng(0))
        matrix = self.volume.geometry.affine_ras
        return ijk @ matrix[:3, :3].T + matrix[:3, 3]

    def until(self, done) -> None:
        """Let the event loop run, as Slicer's does; its heart beats every millisecond."""
        while not done():
            qt.QApplication.processEvents(qt.QEventLoop.WaitForMoreEvents)

    def answered(self) -> None:
        """Wait for the model."""
        self.until(lambda: not self.points.session.busy)
        if self.points.session.failed:
            raise SystemExit(self.points.session.text)


def figures(name: str, seconds, share: float = 95) -> None:
    """Print a line."""
    print(f"{name:58s} {1000 * np.median(seconds):8.1f} {1000 * np.percentile(seconds, share):8.1f} ms")


def first_preview(bench: Bench) -> None:
    """Module opened to the first preview, the process not running; then the same again with all warm."""
    began = time.perf_counter()
    bench.open()
    mark(bench, bench.ends("liver"))
    bench.answered()
    print(f"module opened to first preview, cold (process, upload)     {time.perf_counter() - began:8.1f} s")
    bench.points.ui.resetButton.click()
    began = time.perf_counter()
    mark(bench, bench.ends("liver"))
    bench.answered()
    print(f"six clicks to preview, warm                                {time.perf_counter() - began:8.2f} s")


def mark(bench: Bench, ends) -> None:
    """Click the six ends."""
    view = bench.views["Green"]
    for world in ends:
        place = view.xy(world)
        bench.beats.append(time.perf_counter())
        view.click(place)
        bench.beats.append(time.perf_counter())


def clicks(bench: Bench) -> None:
    """From the sixth click to the preview, without the model's own time; the heartbeat meanwhile."""
    rest, gaps, here = [], [], []
    session = bench.points.session
    answered = session._answered

    def timed(outcome) -> None:
        began = time.perf_counter()
        answered(outcome)
        here.append(time.perf_counter() - began)

    session._answered = timed
    for _round in range(ROUNDS):
        bench.points.ui.resetButton.click()
        ends = bench.ends("liver")
        mark(bench, ends[:5])
        place = bench.views["Green"].xy(ends[5])
        bench.beats = [time.perf_counter()]
        began = time.perf_counter()
        bench.views["Green"].click(place)
        bench.beats.append(time.perf_counter())
        bench.answered()
        rest.append(time.perf_counter() - began - sum(bench.panel.logic.assistant.last.seconds.values()))
        gaps += list(np.diff(bench.beats))
    session._answered = answered
    figures("sixth click to preview, less the engine's own time", rest)
    figures("of it in Slicer, from the answer to the preview", here)
    figures("gap in the event loop while clicking (50 and 99 %)", gaps, 99)
    print(f"{'the longest of these gaps':58s} {1000 * max(gaps):8.1f} ms")


def drags(bench: Bench) -> None:
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
    gaps = np.diff(bench.beats)
    bench.answered()
    figures("gap in the event loop while dragging (50 and 99 %)", gaps, 99)
    print(f"{'the longest of these gaps':58s} {1000 * max(gaps):8.1f} ms")


def accepts(bench: Bench, surface: bool) -> None:
    """Writing the preview into the segment, with and without its surface in 3D."""
    seconds = []
    for _round in range(5):
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
    print(f"{'first outline of a segment':58s} {1000 * (time.perf_counter() - began):8.1f} ms")
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
    print(f"{'last release, written into the segment':58s} {1000 * (time.perf_counter() - began):8.1f} ms")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        try:
            first_preview(bench)
            print(f"{'':58s} {'median':>8s} {'95 %':>8s}")
            clicks(bench)
            drags(bench)
            accepts(bench, surface=False)
            accepts(bench, surface=True)
            contours(bench)
        finally:
            bench.widget.exit()
            bench.application.stop()
        print(f"errors in slots: {pythonqt.slot_errors or 'none'}", flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)  # slicer-core and PySide6 do not take each other down in good order
