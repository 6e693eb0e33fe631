"""The one interface to where segmenters run: in this process, in a child process, or on a server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from aiassist.engine.job import Job
from aiassist.imaging import MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step


@dataclass(frozen=True)
class AnnotateRequest:
    """Ask for the mask of one structure.

    Requests are stateless: everything the answer depends on is named here.

    Parameters
    ----------
    study : str
        Id of an open study (`Volume.study_id`).
    prompts : Prompts
        All prompts of the structure that count.
    base : str, optional
        Version of the mask that the prompts correct; the backend must know it, from an answer of
        its own or from `Backend.put_mask`. Takes the place of ``prompts.prior``.
    structure : str
        A name of the caller's; a newer request for the same client, study and structure overtakes
        an older one.
    model : str, optional
        Which segmenter; the backend's default when absent.
    client : str
        Who asks; keeps several windows apart.
    """

    study: str
    prompts: Prompts
    base: str | None = None
    structure: str = "structure"
    model: str | None = None
    client: str = ""

    @property
    def slot(self) -> tuple[str, ...]:
        """A newer request in the same slot overtakes an older one."""
        return "annotate", self.client, self.study, self.structure


@dataclass(frozen=True)
class Annotation:
    """The answer to an `AnnotateRequest`.

    ``patch`` replaces its region in the mask of version ``base`` (an empty mask when None) and so
    makes the mask of ``version``. ``seconds`` is the time spent by phase; "pass" is the model's.
    """

    patch: MaskPatch
    study: str
    structure: str
    base: str | None
    version: str
    model: str
    model_version: str
    device: str
    seconds: dict[str, float]


@dataclass(frozen=True)
class SegmentRequest:
    """Ask an automatic model for all structures that it finds in a study.

    Parameters
    ----------
    study : str
        Id of an open study (`Volume.study_id`).
    model : str
        Which segmenter; its card is of the kind "automatic".
    client : str
        Who asks; a newer request for the same client, study and model overtakes an older one.
    """

    study: str
    model: str
    client: str = ""

    @property
    def slot(self) -> tuple[str, ...]:
        """A newer request in the same slot overtakes an older one; never one for an annotation."""
        return "segment", self.client, self.study, self.model


@dataclass(frozen=True)
class Segmentation:
    """The answer to a `SegmentRequest`.

    ``patch`` is of the kind "labels"; the card of ``model`` says what its values mean. Outside of its region there is
    nothing. ``seconds`` is the time spent by phase; "pass" is the model's.
    """

    patch: MaskPatch
    study: str
    model: str
    model_version: str
    device: str
    seconds: dict[str, float]


Request = AnnotateRequest | SegmentRequest
Answer = Annotation | Segmentation


class Backend(Protocol):
    """Where segmenters run."""

    def models(self) -> list[ModelCard]:
        """The cards of all models, the default first."""
        ...

    def open_study(self, volume: Volume) -> str:
        """Make a volume ready for annotation and return its study id; opening it again is free."""
        ...

    def close_study(self, study: str) -> None:
        """Forget a study and its masks; its id is unknown afterwards."""
        ...

    def put_mask(self, study: str, patch: MaskPatch) -> str:
        """Make a mask known, so that requests can name it as their base; returns its version."""
        ...

    def submit(self, request: Request, progress: Callable[[Step], None] | None = None) -> Job[Answer]:
        """Queue a request behind all others; overtakes older ones in the same slot."""
        ...

    def annotate(self, request: AnnotateRequest, progress: Callable[[Step], None] | None = None) -> Annotation:
        """Submit and wait for the answer."""
        ...

    def segment(self, request: SegmentRequest, progress: Callable[[Step], None] | None = None) -> Segmentation:
        """Submit and wait for the answer."""
        ...

    def close(self) -> None:
        """Cancel what is running and stop."""
        ...
