"""The native API: annotation, segmentation, contours, and the jobs that they are."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, HTTPException, Request, Response

from aiassist.engine import Job
from aiassist.engine.backend import Request as Asked
from aiassist.protocol.messages import (
    ANSWER,
    PATCH_TYPE,
    answer_to_wire,
    request_from_json,
    segment_request_from_json,
)
from aiassist.server.asked import Pull
from aiassist.server.bodies import AnnotateBody, ContourBody, JobId, JobPart, SegmentBody, Strict
from aiassist.server.exchange import A_PATCH, fails, finished, in_turn, person_of
from aiassist.server.service import Service

_TURNS = itertools.count(1)
#: What the routes of long work share.
LONG = {"responses": {**A_PATCH, **fails(404, 409, 503, 507)}, "response_class": Response}


def annotation_routes(service: Service) -> APIRouter:
    """The routes /api/annotate, /api/segment, /api/contour and /api/jobs."""
    routes = APIRouter(prefix="/api", tags=["annotation"])

    @routes.post(
        "/annotate",
        summary="Segment one structure from prompts",
        description=f"Answers with a patch; the header `{ANSWER}` holds version, base, model, device, seconds as JSON. "
        "A newer request of the same client, study and structure overtakes this one (409).",
        **LONG,
    )
    async def annotate(body: AnnotateBody, request: Request, job: JobId) -> Response:
        return await _answered(service, request, job, body, request_from_json)

    @routes.post(
        "/segment",
        summary="Segment all structures that an automatic model finds",
        description=f"Answers with a patch of labels, whose values the model's card explains; the header `{ANSWER}` "
        "holds model, device, seconds as JSON. A newer request of the same client, study and model overtakes this one.",
        **LONG,
    )
    async def segment(body: SegmentBody, request: Request, job: JobId) -> Response:
        return await _answered(service, request, job, body, segment_request_from_json)

    @routes.post(
        "/contour",
        summary="Pull one vertex of an outline; its neighbours settle on the border",
        description="Waits for no model. People take turns.",
        responses={**A_PATCH, **fails(404, 503)},
        response_class=Response,
    )
    async def contour(body: ContourBody, request: Request) -> Response:
        pull = Pull(**body.model_dump(exclude={"study", "base"}))
        patch, said = await in_turn(service.outlines, service.contour(body.study, body.base, pull), request)
        data = await asyncio.to_thread(patch.to_bytes)
        return Response(data, headers={ANSWER: json.dumps(said)}, media_type=PATCH_TYPE)

    _job_routes(routes, service)
    return routes


async def _answered(
    service: Service, request: Request, job: str, body: Strict, read: Callable[[dict[str, Any]], Asked]
) -> Response:
    """The answer of a job, once it is done; a client that goes away cancels it when nobody else waits."""
    person = person_of(request)

    turn = next(_TURNS)  # here, in the order in which the requests came; threads may change it

    def ask() -> Job[tuple[dict[str, str], bytes]]:
        return service.ask(person, job, read(body.model_dump(exclude_none=True)), answer_to_wire, turn)

    work = await asyncio.to_thread(ask)
    try:
        if not await finished(work, request):
            return Response(status_code=499)
    finally:
        service.jobs.leave(person, job)
    headers, data = work.result(0)
    return Response(data, headers=headers)


def _job_routes(routes: APIRouter, service: Service) -> None:
    def job_of(request: Request, name: str) -> Job:
        found = service.jobs.get(person_of(request), name)
        if found is None:
            raise HTTPException(404, f"There is no job {name}; it may be long done.")
        return found

    @routes.get("/jobs/{job}", summary="Where a job stands", responses=fails(404))
    async def job_state(job: JobPart, request: Request) -> dict:
        found = job_of(request, job)
        return {
            "state": found.state.value,
            "position": service.jobs.position(found),
            "phase": found.last_step.phase,
            "fraction": found.last_step.fraction,
        }

    @routes.delete("/jobs/{job}", summary="Cancel a job", responses=fails(404))
    async def cancel(job: JobPart, request: Request) -> dict:
        await asyncio.to_thread(service.jobs.cancel, job_of(request, job))
        return {}
