"""What a client asks of the service, once the HTTP edge has checked it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from aiassist.groundtruth.index import State
from aiassist.imaging import MaskPatch
from aiassist.prompts import Prompts


@dataclass(frozen=True)
class NewVersion:
    """A mask that is to become a new version of a structure's label; see `GroundTruthStore.add`.

    ``mask`` is the mask, or the version of one that the service knows; ``name`` that of the study, when it is new to
    the store; ``author`` another than who asks. With a ``parent`` asking once more saves nothing twice.
    """

    mask: MaskPatch | str
    name: str = ""
    model: str | None = None
    model_version: str | None = None
    prompts: Prompts | None = None
    seconds: float | None = None
    edits: int | None = None
    comment: str = ""
    state: State = State.DRAFT
    author: str | None = None
    parent: int | None = None

    @property
    def mask_version(self) -> str:
        """The version of the mask."""
        return self.mask if isinstance(self.mask, str) else self.mask.version


@dataclass(frozen=True)
class Pull:
    """The vertex nearest to ``start`` goes to ``stop``, on a slice; see `aiassist.contour.ContourSession`."""

    axis: int
    index: int
    start: Sequence[float]
    stop: Sequence[float]
    radius: float
    strength: float
    propagate: int
