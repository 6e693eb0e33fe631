"""The native API: studies that clients fetch."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from aiassist.protocol.messages import PIECE, study_to_json
from aiassist.server.bodies import Study
from aiassist.server.exchange import fails, person_of
from aiassist.server.service import Service

#: The documented reply of a route that answers with bytes.
BYTES = {
    200: {
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        "description": "The bytes; fewer at the end",
    }
}


def download_routes(service: Service) -> APIRouter:
    """The routes that give studies away."""
    routes = APIRouter(prefix="/api/studies/{study}", tags=["studies"])
    thread = asyncio.to_thread

    @routes.get("", summary="Shape, type and affine of a study's voxels", responses=fails(404))
    async def describe(study: Study) -> dict:
        return study_to_json(await thread(service.studies.volume, study))

    @routes.get(
        "/voxels",
        summary="A piece of the voxels, at most 64 MiB",
        description="In C order (k, j, i), little-endian: as they are sent.",
        responses={**BYTES, **fails(404)},
        response_class=Response,
    )
    async def voxels(
        study: Study,
        request: Request,
        start: Annotated[int, Query(ge=0, le=2**62, description="First byte")] = 0,
        size: Annotated[int, Query(ge=1, le=PIECE, description="Bytes at most")] = PIECE,
    ) -> Response:
        data = await thread(service.fetch_voxels, person_of(request), study, start, size)
        return Response(data, media_type="application/octet-stream")

    return routes
