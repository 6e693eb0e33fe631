"""Segmenters in Slicer's own process, for a GPU that Slicer can use.

Python threads starve inside Slicer, so the engine advances one step at a time between Slicer's own events.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path

from aiassist.engine.backend import AnnotateRequest, Annotation, Segmentation, SegmentRequest
from aiassist.engine.job import Job
from aiassist.errors import ModelError
from aiassist.imaging import MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard
from AIAssistLib.talks import Carrier, Conversation, Outcome


class ThisSlicer:
    """A home in this process. Implements `AIAssistLib.assistant.Home`.

    Parameters
    ----------
    carrier : Carrier
        Only its `later` is used.
    studies : Path
        The studies folder with the ground truth.
    author : str
        Whose labels are saved.
    device : str
        "cpu" or "cuda".
    """

    def __init__(self, carrier: Carrier, studies: Path, author: str, device: str = "cpu"):
        try:
            import onnxruntime  # noqa: F401

            from aiassist.engine.local import LocalBackend
        except ImportError as error:
            raise ModelError(f"This Slicer lacks {error.name}; press Install in the module AI Assist first.") from error
        self.name, self.near = "This Slicer", True
        self.carrier = carrier
        self.backend = LocalBackend(device=device, threaded=False)
        self.conversations = LocalConversations(self.backend, studies, author)

    def finish(self, conversation: Conversation[Outcome]) -> Outcome:
        """See `Home.finish`."""
        try:
            while True:
                next(conversation)
        except StopIteration as end:
            return end.value

    def close(self) -> None:
        """See `Home.close`."""
        self.backend.close()


class LocalConversations:
    """What the extension asks of the engine in this process: as `Conversations`, but nothing is sent."""

    def __init__(self, backend, studies: Path, author: str):
        self._backend = backend
        self._folder = studies
        self._author = author
        self._volumes: dict[str, Volume] = {}
        self._running: dict[str, Job] = {}

    def models(self) -> Conversation[list[ModelCard]]:
        """See `Conversations.models`."""
        return self._backend.models()
        yield

    def knows(self, study: str) -> bool:
        """See `Conversations.knows`."""
        return study in self._volumes

    def open_study(self, volume: Volume, progress: Callable[[float], None] | None = None) -> Conversation[str]:
        """See `Conversations.open_study`."""
        yield from volume.hashing()
        self._volumes[volume.study_id] = volume
        return self._backend.open_study(volume)

    def close_study(self, study: str) -> Conversation[None]:
        """See `Conversations.close_study`."""
        self._volumes.pop(study, None)
        self._backend.close_study(study)
        return
        yield

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
            job.cancel()
            del self._running[name]
        return job.result()

    # Ground truth

    def truth(self, study: str) -> Conversation[list[dict]]:
        """See `Conversations.truth`."""
        return [version.to_json() for version in self._store().history(study)]
        yield

    def save(self, study: str, structure: str, mask: MaskPatch, **details) -> Conversation[dict]:
        """See `Conversations.save`."""
        from aiassist.groundtruth import State

        store = self._store()
        yield
        if not store.has(study):
            store.add_study(self._volumes[study], details.get("name") or study[:8])
            yield
        prompts = details.pop("prompts", None)
        details = {k: v for k, v in details.items() if k != "name" and v is not None}
        state = State(details.pop("state", "draft"))
        prompts = Prompts.from_json(prompts) if prompts else None
        version = store.add(study, structure, mask, author=self._author, prompts=prompts, state=state, **details)
        return version.to_json()

    def saved(self, study: str, structure: str, number: int) -> Conversation[MaskPatch]:
        """See `Conversations.saved`."""
        store = self._store()
        yield
        return store.mask(store.version(study, structure, number))

    def _store(self):
        from aiassist.groundtruth import GroundTruthStore  # needs SQLAlchemy

        return GroundTruthStore(self._folder)
