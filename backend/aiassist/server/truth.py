"""The native API: ground truth."""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response

from aiassist.groundtruth.index import State
from aiassist.prompts import Prompts
from aiassist.protocol.messages import PATCH_TYPE
from aiassist.server.asked import NewVersion
from aiassist.server.bodies import NextBody, Number, ReviewBody, SaveBody, Structure, Study
from aiassist.server.exchange import A_PATCH, admin_of, at_once, fails, person_of
from aiassist.server.service import Service


def truth_routes(service: Service) -> APIRouter:
    """The routes under /api/truth."""
    routes = APIRouter(prefix="/api", tags=["ground truth"])
    _add_studies(routes, service)
    _add_versions(routes, service)
    return routes


def _add_studies(routes: APIRouter, service: Service) -> None:
    """What is kept, what is next, and a study's labels as a file."""
    thread = asyncio.to_thread

    @routes.get(
        "/truth",
        summary="The studies that are kept, oldest first",
        description="`state` is `done` when a study has labels and the newest version of each is submitted or "
        "approved, else `todo`. `structures` is how many have a label. `with` names somebody else who was given or "
        "fetched the study or saved labels of it within the last hours, and took up no other since.",
        responses=fails(),
    )
    async def studies(request: Request) -> dict:
        return {"studies": await thread(service.worklist, person_of(request))}

    @routes.post(
        "/truth/next",
        summary="Be given the next study to do",
        description="`study` is the id of the first one after the current that is not done and with nobody else, or "
        "null. It is yours at once: whoever asks at the same time is given another. It is anybody's again when you "
        "are given, fetch or save another, or after some hours of silence.",
        responses=fails(),
    )
    async def next_study(body: NextBody, request: Request) -> dict:
        return {"study": await thread(service.next_study, person_of(request), body.current)}

    @routes.get(
        "/truth/{study}/export",
        summary="The newest labels as a file",
        responses={200: {"content": {"application/octet-stream": {}}, "description": "The file"}, **fails(404, 503)},
        response_class=Response,
    )
    async def exported(
        study: Study,
        request: Request,
        format: Literal["seg.nrrd", "nii.gz", "nrrd", "dcm"] = "seg.nrrd",
        structure: Annotated[list[str] | None, Query(max_length=1000)] = None,
    ) -> Response:
        person, names = person_of(request), structure or []
        data = await at_once(service.exports, lambda: service.exported(person, study, f".{format}", names), request)
        name = f'attachment; filename="{study[:8]}-labels.{format}"'
        return Response(data, media_type="application/octet-stream", headers={"content-disposition": name})


def _add_versions(routes: APIRouter, service: Service) -> None:
    """The versions of labels: listed, saved, fetched, restored, reviewed."""
    thread = asyncio.to_thread

    @routes.get("/truth/{study}", summary="All label versions of a study", responses=fails())
    async def history(study: Study) -> dict:
        return {"versions": [v.to_json() for v in await thread(service.store.history, study)]}

    @routes.post("/truth/{study}/{structure}", summary="Save a new version", responses=fails(404, 507))
    async def save(study: Study, structure: Structure, body: SaveBody, request: Request) -> dict:
        said = body.model_dump(exclude_none=True, exclude={"prompts", "state"})
        prompts = Prompts.from_json(body.prompts.model_dump(exclude_none=True)) if body.prompts is not None else None
        new = NewVersion(**said, prompts=prompts, state=State(body.state))
        return (await thread(service.save, person_of(request), study, structure, new)).to_json()

    @routes.get(
        "/truth/{study}/{structure}/{number}",
        summary="The mask of a version",
        responses={**A_PATCH, **fails(404)},
        response_class=Response,
    )
    async def saved(study: Study, structure: Structure, number: Number) -> Response:
        mask = await thread(service.saved_mask, study, structure, number)
        return Response(await thread(mask.to_bytes), media_type=PATCH_TYPE)

    @routes.post(
        "/truth/{study}/{structure}/{number}/restore",
        summary="Make an old version the newest again",
        responses=fails(404, 507),
    )
    async def restore(study: Study, structure: Structure, number: Number, request: Request) -> dict:
        return (await thread(service.restore, person_of(request), study, structure, number)).to_json()

    @routes.post(
        "/truth/{study}/{structure}/{number}/review",
        summary="Approve or reject the newest version, for an admin",
        description="It becomes a new version of the same voxels, by who reviews. When another version is the newest "
        "one, nothing is changed (409).",
        responses=fails(403, 404, 409, 507),
    )
    async def review(study: Study, structure: Structure, number: Number, body: ReviewBody, request: Request) -> dict:
        asked = (study, structure, number, State(body.state), body.comment, body.author)
        return (await thread(service.review, admin_of(request), *asked)).to_json()
