"""The studies that the backend keeps, one after the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import slicer

from aiassist.imaging import Volume
from AIAssistLib.talks import Conversation


@dataclass(frozen=True)
class Study:
    """A study that the backend keeps: its id, its name, how many structures have labels, and whether they are done.

    ``colleague`` is who else works on it, or nothing.
    """

    id: str
    name: str
    structures: int
    is_done: bool
    colleague: str = ""


def studies(conversations) -> Conversation[list[Study]]:
    """All studies, oldest first."""
    listed = yield from conversations.truth()
    return [Study(s["id"], s["name"], s["structures"], s["state"] == "done", s.get("with") or "") for s in listed]


def to_do_after(listed: list[Study], current: str | None) -> Study | None:
    """The first study after the current one that is not done and nobody else's, beginning anew at the end; or None."""
    ids = [study.id for study in listed]
    first = ids.index(current) + 1 if current in ids else 0
    turned = listed[first:] + listed[:first]
    return next((study for study in turned if not (study.is_done or study.colleague or study.id == current)), None)


def fetched(conversations, study: Study, progress: Callable[[float], None]) -> Conversation[object]:
    """Get a study's image as a volume node, named, at its place in the patient."""
    volume = yield from conversations.fetch_study(study.id, progress)
    yield
    return _node_of(volume, study.name)


def _node_of(volume: Volume, name: str):
    node = slicer.util.addVolumeFromArray(volume.voxels, ijkToRAS=volume.geometry.affine_ras, name=name)
    node.CreateDefaultDisplayNodes()
    return node


def show(volume_node) -> None:
    """Show an image in the slice views."""
    logic = slicer.app.applicationLogic()
    logic.GetSelectionNode().SetActiveVolumeID(volume_node.GetID())
    logic.PropagateVolumeSelection()
