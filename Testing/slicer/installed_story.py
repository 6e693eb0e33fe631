"""Goes from the installed extension to a preview as a person does, and prints what was seen as JSON.

    installed_story.py MODULES HOME FOLDER [WHEELS]

Run by ``test_installed.py`` in a Python that sees neither the checkout nor what Slicer lacks. Packages come
from the folder of wheels, or from the internet.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

from shell.start import start  # isort: skip - before what imports Slicer

import slicer

from shell import pythonqt, views
from slicer_home import size

#: That an installation from the internet may take.
SECONDS = 300.0


def main(modules: Path, home: Path, folder: Path, wheels: Path | None) -> dict:
    application = start(folder, modules, home)
    widget = application.modules["AIAssist"].widgetRepresentation().self()
    panel, packages = widget.panel, widget.logic.packages
    from helpers import wait

    seen = {"python": widget.logic.python, "packages": str(packages.folder), "missing before": packages.missing()}
    if wheels is not None:
        packages.requirements = wheels / "requirements.txt"
    widget.enter()
    panel.backend.install(wheels)
    wait(lambda: panel.backend._installer is None, SECONDS)
    seen["missing after"] = packages.missing()
    if seen["missing after"]:
        raise SystemExit(panel.ui.backendStatusLabel.text)
    seen["bytes"] = size(packages.folder)
    seen |= preview(application, panel, lambda number: os.kill(number, signal.SIGKILL))
    application.stop()
    seen["files"] = {name: sys.modules[name].__file__ for name in ("AIAssist", "AIAssistLib", "aiassist", "numpy")}
    seen["errors"] = [repr(error) for error in pythonqt.slot_errors]
    return seen


def preview(application, panel, kill) -> dict:
    """Six clicks, a preview; then the same after the launcher was killed, which leaves its child behind."""
    from helpers import Case, add_segment, answered, click_ends, dice, wait

    case = Case()
    panel.editor.setSegmentationNode(case.segmentation)
    panel.editor.setSourceVolumeNode(case.node)
    panel.editor.setCurrentSegmentID(add_segment(case, "spleen"))
    opened = views.open_views(application)
    for view in opened.values():
        view.show(case.node)
        view.enter()
    panel.points()
    effect = panel.editor.activeEffect().self()
    process = panel.logic.assistant.home.process
    seen = {"dice": [], "processes": []}
    for again in (False, True):
        if again:
            kill(process._process.processId())
            wait(lambda: not process.running)
            effect.ui.resetButton.click()
        click_ends(opened, case.ends("spleen"))
        answered(effect)
        mask = effect.session.preview.mask.to_mask(case.labels.shape)
        seen["dice"].append(dice(mask, case.mask("spleen")))
        seen["processes"].append(process._process.processId())
    panel.accept()
    seen["segment"] = int(
        slicer.util.arrayFromSegmentBinaryLabelmap(
            case.segmentation, case.segmentation.GetSegmentation().GetNthSegmentID(0), case.node
        ).sum()
    )
    seen["truth"] = int(case.mask("spleen").sum())
    return seen


if __name__ == "__main__":
    print(json.dumps(main(*map(Path, sys.argv[1:4]), Path(sys.argv[4]) if sys.argv[4:] else None)), flush=True)
    os._exit(0)  # slicer-core and PySide6 do not take each other down in good order
