"""Segmenters in Slicer's own process, for a GPU that Slicer can use.

Python threads starve inside Slicer, so the engine advances one step at a time between Slicer's own events.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

from aiassist.client.conversations import Conversations, carry_out
from aiassist.engine.backend import AnnotateRequest, Annotation, Segmentation, SegmentRequest
from aiassist.engine.job import Job
from aiassist.errors import ModelError
from aiassist.imaging import DicomSeries, Geometry, MaskPatch, Volume
from aiassist.protocol import Reply, Request
from aiassist.segmenters.base import ModelCard
from AIAssistLib.assistant import Home
from AIAssistLib.talks import Conversation, Outcome


class ThisSlicer:
    """A home in this process. Implements `AIAssistLib.assistant.Home`.

    Parameters
    ----------
    computer : Home
        The process on this computer; it keeps the ground truth, and is started when that is asked for.
    device : str
        "cpu" or "cuda".
    models : Path, optional
        Folder of the models that were trained here.

    Attributes
    ----------
    process : AIAssistLib.process_qt.BackendProcess
        What keeps the ground truth.
    """

    def __init__(self, computer: Home, device: str = "cpu", models: Path | None = None):
        try:
            import onnxruntime  # noqa: F401

            from aiassist.engine.local import LocalBackend
        except ImportError as error:
            raise ModelError(f"This Slicer lacks {error.name}; press Install in the module AI Assist first.") from error
        self.name, self.near = "This Slicer", True
        self.carrier, self.process = computer.carrier, computer.process
        self.backend = LocalBackend(device=device, threaded=False, models=models)
        self.conversations = LocalConversations(self.backend, computer.conversations)
        self._computer = computer

    def finish(self, conversation: Conversation[Outcome]) -> Outcome:
        """See `Home.finish`."""
        return carry_out(conversation, lambda request: self._computer.finish(_asking(request)))

    def close(self) -> None:
        """See `Home.close`."""
        self.backend.close()
        self._computer.close()


def device() -> str:
    """The device that Slicer can use: "cuda" where it has onnx, torch and a GPU for it, else "cpu"."""
    try:
        import onnx  # noqa: F401 - reads the weights for torch
        import torch
    except (ImportError, OSError):  # OSError: a library that torch needs is broken
        return "cpu"
    return "cuda" if torch.cuda.is_available() else "cpu"


def _asking(request: Request) -> Conversation[Reply]:
    """A conversation of one request."""
    return (yield request)


class LocalConversations:
    """What the extension asks of the engine in this process: as `Conversations`, but nothing is sent.

    Parameters
    ----------
    backend : LocalBackend
    process : Conversations
        With the process that keeps the ground truth.
    """

    def __init__(self, backend, process: Conversations):
        self._backend = backend
        self._process = process
        self._open: set[str] = set()
        self._running: dict[str, Job] = {}

    def models(self) -> Conversation[list[ModelCard]]:
        """See `Conversations.models`."""
        return self._backend.models()
        yield

    @property
    def open_studies(self) -> list[str]:
        """See `Conversations.open_studies`; those of the process, too."""
        return [*self._open.union(self._process.open_studies)]

    def knows(self, study: str) -> bool:
        """See `Conversations.knows`."""
        return study in self._open

    def open_study(self, volume: Volume, progress: Callable[[float], None] | None = None) -> Conversation[str]:
        """See `Conversations.open_study`."""
        yield from volume.hashing()
        self._open.add(volume.study_id)
        return self._backend.open_study(volume)

    def close_study(self, study: str) -> Conversation[None]:
        """See `Conversations.close_study`."""
        self._open.discard(study)
        self._backend.close_study(study)
        yield from self._process.close_study(study)

    def annotate(self, request: AnnotateRequest, job: str) -> Conversation[Annotation]:
        """See `Conversations.annotate`; one step of the work a turn."""
        return (yield from self._stepped(self._backend.submit(request), job))

    def segment(self, request: SegmentRequest, job: str) -> Conversation[Segmentation]:
        """See `Conversations.segment`; one step of the work a turn."""
        return (yield from self._stepped(self._backend.submit(request), job))

    def progress(self, job: str) -> Conversation[dict]:
        """See `Conversations.progress`."""
        if job not in self._running:
            raise ModelError(f"The job {job} does not run yet, or no longer.")
        step = self._running[job].last_step
        return {"state": "running", "phase": step.phase, "fraction": step.fraction}
        yield

    def cancel(self, job: str) -> Conversation[None]:
        """See `Conversations.cancel`; cancelling the conversation itself has done it."""
        return
        yield

    def _stepped(self, job, name: str) -> Generator[None, None, object]:
        self._running[name] = job
        try:
            while not job.finished:
                yield
                self._backend.step()
        finally:
            self._backend.worker.cancel(job)
            while not job.finished:  # what was cancelled comes first, and only ends
                self._backend.step()
            del self._running[name]
        return job.result()

    # Ground truth: what is written would hold Slicer up, so the process writes it

    @property
    def keeper(self) -> Conversations:
        """See `Conversations.keeper`."""
        return self._process

    def series(self, study: str, geometry: Geometry) -> Conversation[DicomSeries | None]:
        """See `Conversations.series`."""
        return self._process.series(study, geometry)

    def fetch_study(self, study: str, progress: Callable[[float], None] | None = None) -> Conversation[Volume]:
        """See `Conversations.fetch_study`."""
        return self._process.fetch_study(study, progress)

    def truth(self, study: str | None = None) -> Conversation[list[dict]]:
        """See `Conversations.truth`."""
        return self._process.truth(study)

    def next_study(self, current: str | None) -> Conversation[str | None]:
        """See `Conversations.next_study`."""
        return self._process.next_study(current)

    def saved(self, study: str, structure: str, number: int) -> Conversation[MaskPatch]:
        """See `Conversations.saved`."""
        return self._process.saved(study, structure, number)
