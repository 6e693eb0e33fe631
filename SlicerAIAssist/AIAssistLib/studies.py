"""The studies of the volumes in the scene."""

from __future__ import annotations

from collections.abc import Callable, Generator

from aiassist.imaging import Volume
from AIAssistLib.geometry import ijk_to_ras, study_of
from AIAssistLib.talks import Conversation


class Studies:
    """Remembers the study of each volume node until its voxels or geometry change.

    Parameters
    ----------
    replaced : callable
        Called when a node no longer holds the study that it held.
    """

    def __init__(self, replaced: Callable[[], None] = lambda: None):
        self._known: dict[str, tuple[tuple, Volume]] = {}
        self._replaced = replaced

    def of(self, volume_node) -> Volume:
        """The study of a volume node; `ImageError` when it holds none."""
        image = volume_node.GetImageData()
        grid = tuple(ijk_to_ras(volume_node).ravel())
        stamp = (image.GetMTime() if image is not None else 0, grid)
        known = self._known.get(volume_node.GetID())
        if known is None or known[0] != stamp:
            before, known = known, (stamp, study_of(volume_node))
            self._known[volume_node.GetID()] = known
            if before is not None:
                self._replaced()
        return known[1]

    def holds(self, study: str) -> bool:
        """Whether a volume node is known to hold this study."""
        return any(vars(volume).get("study_id") == study for _stamp, volume in self._known.values())

    def forget(self, node_id: str) -> None:
        """Forget the study of a volume node that is removed."""
        self._known.pop(node_id, None)


def opened(conversations, volume: Volume, progress: Callable[[float], None] | None = None) -> Conversation[str]:
    """Make a study known to the backend unless it is; returns its id. Gives Slicer a turn while hashing."""
    study = yield from _identified(volume)
    if not conversations.knows(study):
        yield from conversations.open_study(volume, progress)
    return study


def _identified(volume: Volume) -> Generator[None, None, str]:
    yield from volume.hashing()
    return volume.study_id
