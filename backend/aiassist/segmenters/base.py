"""The protocol that every segmenter follows."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal, Protocol, runtime_checkable

from aiassist.imaging import Code, Label, MaskPatch, Volume
from aiassist.prompts import Prompts


@dataclass(frozen=True)
class ModelCard:
    """What a model says of itself.

    Parameters
    ----------
    name, version : str
        Together they identify what made a mask.
    kind : {"promptable", "automatic"}
        Whether it needs prompts.
    description : str
        One sentence for the person who chooses.
    licence : str
        SPDX identifier of what the model (code or weights) may be used under.
    modalities : tuple of str
        DICOM modalities it was made for; empty means any.
    labels : tuple of Label
        What an automatic model finds; empty for a promptable one, which finds anything.
    metrics : dict
        Measured results, name to number.
    provenance : str
        What it learned from, or the method's source.
    devices : tuple of str
        Where it can run: "cpu", "cuda".
    quick : str
        Name of a model that answers to the same prompts sooner and a little worse, to be shown meanwhile; mostly none.
    """

    name: str
    version: str
    kind: Literal["promptable", "automatic"]
    description: str
    licence: str = "Apache-2.0"
    modalities: tuple[str, ...] = ()
    labels: tuple[Label, ...] = ()
    metrics: dict[str, float] = field(default_factory=dict)
    provenance: str = ""
    devices: tuple[str, ...] = ("cpu",)
    quick: str = ""

    def __post_init__(self):
        for name in ("modalities", "labels", "devices"):  # lists, when they come from JSON
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def to_json(self) -> dict:
        """The card as JSON."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping) -> ModelCard:
        """Read what `to_json` wrote; fields of newer versions are left out.

        Raises
        ------
        KeyError, TypeError, AttributeError
            When it is no card.
        """
        known = {name: data[name] for name in cls.__dataclass_fields__ if name in data}
        return cls(**{**known, "labels": tuple(_label(label) for label in data.get("labels", ()))})


def _label(data: Mapping) -> Label:
    codes = {name: Code(**data[name]) if data.get(name) else None for name in ("code", "side")}
    return Label(data["name"], data["value"], tuple(data["colour"]), **codes)


@dataclass(frozen=True)
class Step:
    """Announces the work that comes next.

    ``phase`` is its name ("crop", "pass", "paste"); time spent in phases called "pass" is the
    model's own, all else is overhead. ``fraction`` is the share of the work already done, 0 to 1.
    """

    phase: str
    fraction: float


#: Yields a `Step` before each piece of work, returns the result. Closing it cancels.
Work = Generator[Step, None, MaskPatch]


@runtime_checkable
class Promptable(Protocol):
    """A segmenter for annotation: prompts in, one structure out."""

    card: ModelCard

    def annotate(self, volume: Volume, prompts: Prompts) -> Work:
        """Segment the structure that `prompts` describe.

        The caller advances the generator, one step at a time, from whatever thread or timer it
        likes, and may stop between any two steps. The prompts have passed `Prompts.check`.

        Returns
        -------
        MaskPatch
            Bits; what they replace in the prior mask (if any) is all that changes.
        """
        ...


@runtime_checkable
class Automatic(Protocol):
    """A segmenter that needs no prompts: a volume in, all structures that its card names out."""

    card: ModelCard

    def segment(self, volume: Volume) -> Work:
        """Segment every structure of ``card.labels`` that the volume shows.

        The caller advances the generator as that of `Promptable.annotate`.

        Returns
        -------
        MaskPatch
            Labels; the values are those of ``card.labels``, 0 is none of them.

        Raises
        ------
        ModelError
            When the volume is not what the model was made for.
        """
        ...


Segmenter = Promptable | Automatic


def run(work: Work) -> MaskPatch:
    """Advance `work` to its end and return the result."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value
