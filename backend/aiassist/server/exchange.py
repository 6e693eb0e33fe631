"""What all routes share: who asks, what they sent, waiting for a job, and what may go wrong."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Generator

from fastapi import HTTPException, Request
from starlette.requests import ClientDisconnect

from aiassist.engine import Job
from aiassist.engine.job import Result, Turn
from aiassist.engine.worker import Worker
from aiassist.errors import AccessError, UploadError
from aiassist.protocol.messages import PATCH_TYPE
from aiassist.segmenters.base import Step
from aiassist.server.bodies import Failure
from aiassist.server.tokens import Person

#: The documented reply of a route that answers with a patch.
A_PATCH = {200: {"content": {PATCH_TYPE: {"schema": {"type": "string", "format": "binary"}}}, "description": "A patch"}}


def fails(*statuses: int) -> dict:
    """The documented errors of a route: those that any route may answer, and these."""
    said = {
        400: "The body is no JSON, or no form",
        401: "No token, or an unknown one",
        403: "Needs the role admin, or another token",
        404: "The study, mask, job or model is not known here",
        408: "The request stopped in its middle, or took too long",
        409: "Cancelled or overtaken; of uploads: the piece does not begin where the last one ended; of DICOM headers: "
        "those of another series are kept; of reviews: another version is the newest",
        413: "Too large",
        422: "Something in the request is wrong",
        429: "Too many requests",
        440: "The session is over; send the image again",
        500: "The server failed at this, or its own files are damaged; its administrator must see to it",
        503: "The queue is full",
        507: "No room on the disk or in memory",
    }
    of_all = (400, 401, 408, 413, 422, 429, 500)
    return {status: {"model": Failure, "description": said[status]} for status in (*of_all, *statuses)}


def person_of(request: Request) -> Person:
    """Who asks."""
    return request.scope["state"]["person"]


def admin_of(request: Request) -> Person:
    """Who asks, an admin; `AccessError` otherwise."""
    person = person_of(request)
    if not person.is_admin:
        raise AccessError(f"{person.name} is an annotator; this needs an admin.")
    return person


async def pieces_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it comes, unpacked when it is compressed; `HTTPException` 413 beyond `limit` bytes."""
    unpack, size = None, 0
    encoding = request.headers.get("content-encoding", "identity")
    if encoding not in ("identity", "deflate"):
        raise UploadError("Only deflate is unpacked here; send the body as it is.")
    if encoding == "deflate":
        unpack = zlib.decompressobj()
    async for piece in request.stream():
        if unpack is not None:
            if unpack.eof and piece:
                raise UploadError("The compressed body goes on after its end; send it again.")
            try:
                piece = unpack.decompress(piece, limit - size + 1)
            except zlib.error:
                raise UploadError("The compressed body is damaged; send it again.") from None
        size += len(piece)
        if size > limit or (unpack is not None and unpack.unconsumed_tail):
            raise HTTPException(413, f"A body may have {limit:,} bytes here.")
        yield piece
    if unpack is not None and not unpack.eof:
        raise UploadError("The compressed body was cut off; send it again.")


async def body_of(request: Request, limit: int) -> bytes:
    """The whole body; see `pieces_of`."""
    return b"".join([piece async for piece in pieces_of(request, limit)])


async def outcome(job: Job) -> None:
    """Wait for a job's outcome, whatever the client does."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    job.when_finished(lambda: loop.call_soon_threadsafe(done.set))
    await done.wait()


async def finished(job: Job, request: Request) -> bool:
    """Wait for a job's outcome; False when the client went away first."""
    gone = asyncio.create_task(_disconnected(request))
    waiting = asyncio.create_task(outcome(job))
    await asyncio.wait((gone, waiting), return_when=asyncio.FIRST_COMPLETED)
    gone.cancel()
    waiting.cancel()
    return job.finished


async def in_turn(
    worker: Worker, work: Generator[Step, None, Result], request: Request, turn: Turn = Turn.FIRST
) -> Result:
    """What work comes to that is done when the turn of who asks has come; `ClientDisconnect` when they went away.

    When this ends, no step of it runs any more, so that a file that it reads may be closed.
    """
    job = Job(work, sharer=person_of(request).name, turn=turn)
    worker.add(job)
    try:
        if not await finished(job, request):
            raise ClientDisconnect
    finally:
        worker.cancel(job)
        await outcome(job)
    return job.result(0)


async def to_the_end(worker: Worker, work: Generator[Step, None, Result], request: Request, turn: Turn) -> Result:
    """As `in_turn`, of work that must not be done by halves: it goes on when who asked for it goes away."""
    job = Job(work, sharer=person_of(request).name, turn=turn)
    worker.add(job)
    await outcome(job)
    return job.result(0)


async def at_once(worker: Worker, do: Callable[[], Result], request: Request) -> Result:
    """As `in_turn`, of work that has no steps."""

    def work() -> Generator[Step, None, Result]:
        yield Step("work", 0.0)
        return do()

    return await in_turn(worker, work(), request)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
