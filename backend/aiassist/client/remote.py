"""The backend behind an address."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from aiassist.client.conversations import Conversation, Conversations, Outcome, carry_out
from aiassist.client.transport import RequestsTransport, Transport
from aiassist.engine.backend import AnnotateRequest, Annotation, Answer, Request, Segmentation, SegmentRequest
from aiassist.engine.job import Job
from aiassist.errors import AIAssistError, Cancelled
from aiassist.imaging import MaskPatch, Volume
from aiassist.segmenters.base import ModelCard, Step


class RemoteBackend:
    """Asks a server. Implements `aiassist.engine.backend.Backend`.

    Parameters
    ----------
    transport : Transport or str
        What carries the messages, or the server's address.
    token : str, optional
        Proves who asks, when an address is given.
    """

    def __init__(self, transport: Transport | str, token: str | None = None):
        self.transport = RequestsTransport(transport, token) if isinstance(transport, str) else transport
        self.conversations = Conversations(uuid.uuid4().hex, compress=not self.transport.local)
        self._threads = ThreadPoolExecutor(4, thread_name_prefix="aiassist-remote")
        #: Segmentations take long, so that they would keep clicks waiting here.
        self._long = ThreadPoolExecutor(4, thread_name_prefix="aiassist-remote-long")
        self._latest: dict[tuple[str, ...], _RemoteJob] = {}

    def run(self, conversation: Conversation[Outcome]) -> Outcome:
        """Carry a conversation to its end."""
        return carry_out(conversation, self.transport.send)

    def models(self) -> list[ModelCard]:
        """See `Backend.models`."""
        return self.run(self.conversations.models())

    def open_study(self, volume: Volume, progress: Callable[[float], None] | None = None) -> str:
        """See `Backend.open_study`; `progress` is told the share of the voxels that was sent."""
        return self.run(self.conversations.open_study(volume, progress))

    def close_study(self, study: str) -> None:
        """See `Backend.close_study`."""
        self.run(self.conversations.close_study(study))

    def put_mask(self, study: str, patch: MaskPatch) -> str:
        """See `Backend.put_mask`."""
        return self.run(self.conversations.put_mask(study, patch))

    def submit(self, request: Request, progress: Callable[[Step], None] | None = None) -> Job[Answer]:
        """See `Backend.submit`; what is wrong with the request is raised by the job's `result`."""
        job = _RemoteJob(self, request, progress)
        if request.slot in self._latest:
            self._latest[request.slot].overtake()
        self._latest = {slot: j for slot, j in self._latest.items() if not j.finished} | {request.slot: job}
        threads = self._long if isinstance(request, SegmentRequest) else self._threads
        threads.submit(_finish, job)
        return job

    def annotate(self, request: AnnotateRequest, progress: Callable[[Step], None] | None = None) -> Annotation:
        """See `Backend.annotate`."""
        return self._now(request, progress)

    def segment(self, request: SegmentRequest, progress: Callable[[Step], None] | None = None) -> Segmentation:
        """See `Backend.segment`."""
        return self._now(request, progress)

    def _now(self, request: Request, progress) -> Answer:
        job = _RemoteJob(self, request, progress)
        _finish(job)
        return job.result()

    def close(self) -> None:
        """See `Backend.close`."""
        for job in self._latest.values():
            if not job.finished:
                job.cancel()  # the server is told, so that what waits for its answer has it soon
        for threads in (self._threads, self._long):
            threads.shutdown(cancel_futures=True)
        if isinstance(self.transport, RequestsTransport):
            self.transport.close()

    def __enter__(self) -> RemoteBackend:
        return self

    def __exit__(self, *_) -> None:
        self.close()


class _RemoteJob(Job[Answer]):
    """A job on the server; cancelling it here cancels it there."""

    def __init__(self, backend: RemoteBackend, request: Request, progress):
        self.id = uuid.uuid4().hex
        self._backend = backend
        self._request = request
        super().__init__(self._ask(), progress)

    def _ask(self) -> Generator[Step, None, Answer]:
        yield Step("sent", 0.0)
        talks = self._backend.conversations
        talk = talks.segment if isinstance(self._request, SegmentRequest) else talks.annotate
        answer = self._backend.run(talk(self._request, self.id, lambda: not self.is_cancelled))
        yield Step("received", 1.0)
        return answer

    def overtake(self) -> None:
        """Send it no more: a newer job, which the server knows of or will, takes its place."""
        super().cancel()

    def cancel(self) -> None:
        """See `Job.cancel`; waits for the server to hear of it."""
        super().cancel()
        with suppress(AIAssistError, Cancelled):  # it may be done, or the server gone: then there is nothing to stop
            self._backend.run(self._backend.conversations.cancel(self.id))

    def where(self) -> dict:
        """Where the job stands on the server: ``state``, ``position``, ``phase``, ``fraction``."""
        return self._backend.run(self._backend.conversations.progress(self.id))


def _finish(job: Job) -> None:
    while job.step():
        pass
