"""The masks that led to a preview, so that a click corrects the one before it and can be taken back."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from slicer.i18n import tr as _

from aiassist.imaging import Geometry, MaskPatch
from aiassist.prompts import Prompts


@dataclass(frozen=True)
class Answer:
    """The mask after so many clicks; its version is None while the backend does not know it.

    ``prompts`` and ``model`` made it; None and empty for what the segment held before. ``change`` is what it changed
    of the mask that it corrects.
    """

    clicks: int
    mask: MaskPatch
    version: str | None = None
    prompts: Prompts | None = None
    model: str = ""
    change: MaskPatch | None = None


def change(patch: MaskPatch, before: MaskPatch) -> MaskPatch:
    """The voxels of a patch that differ from the mask before it."""
    return MaskPatch(patch.region, patch.mask ^ before.within(patch.region))


def same(one: Prompts, other: Prompts) -> bool:
    """Whether two prompts have the same points."""
    parts = ("extreme_points", "line", "box", "positive", "negative")
    pairs = [(getattr(one, part), getattr(other, part)) for part in parts]
    return all(a is b or (np.shape(a) == np.shape(b) and np.allclose(a, b)) for a, b in pairs)


def told(answer: Answer, geometry: Geometry, held: MaskPatch | None = None, adds: bool = False) -> str:
    """The volume of a mask; of a correction also what came and went, of a new outline what becomes of `held`."""
    voxel = abs(np.linalg.det(geometry.affine[:3, :3])) / 1000
    text = f"{rounded(np.count_nonzero(answer.mask.mask) * voxel)} ml"
    if answer.change is None:
        if held is None:
            return text
        what = (
            _("{now}, added to the {before} ml of the segment")
            if adds
            else _("{now}, in place of the {before} ml before")
        )
        return what.format(now=text, before=rounded(np.count_nonzero(held.mask) * voxel))
    differs, now = answer.change.mask, answer.mask.within(answer.change.region)
    came, went = np.count_nonzero(differs & now), np.count_nonzero(differs & ~now)
    return f"{text} (+{rounded(came * voxel)}, -{rounded(went * voxel)})"


def rounded(millilitres: float) -> str:
    """A volume in words."""
    return f"{millilitres:.0f}" if millilitres >= 99.5 else f"{millilitres:.2g}"


class Answers:
    """Answers in the order of their clicks."""

    def __init__(self):
        self._held: list[Answer] = []

    def __bool__(self) -> bool:
        return bool(self._held)

    @property
    def last(self) -> Answer | None:
        """The newest answer."""
        return self._held[-1] if self._held else None

    @property
    def held(self) -> int | None:
        """After how many clicks comes what the segment holds; None when nothing corrects it."""
        return next((answer.clicks for answer in self._held if answer.prompts is None), None)

    def begin_with(self, answer: Answer | None) -> None:
        """Forget all; clicks correct this one from now on."""
        self._held = [answer] if answer is not None else []

    def add(self, answer: Answer) -> None:
        """Keep an answer; those of as many clicks or more are forgotten."""
        self._held = [held for held in self._held if held.clicks < answer.clicks] + [answer]

    def keep(self, clicks: int) -> None:
        """Forget the answers of more clicks than these."""
        self._held = [held for held in self._held if held.clicks <= clicks]

    def unknown(self) -> None:
        """The backend is another one: it knows none of these masks."""
        self._held = [replace(held, version=None) for held in self._held]

    def base(self, clicks: int) -> Answer | None:
        """What the newest of so many clicks corrects; None without clicks: the outline is to be answered afresh."""
        earlier = [held for held in self._held if held.clicks < clicks]
        return earlier[-1] if earlier else None
