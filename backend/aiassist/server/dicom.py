"""The native API: the DICOM headers of studies."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, HTTPException, Request, Response

from aiassist.protocol.dicom_lines import LINE, LINES, LINES_TYPE, line_of
from aiassist.protocol.messages import SERIES
from aiassist.server.bodies import Study
from aiassist.server.exchange import admin_of, body_of, fails, person_of
from aiassist.server.service import Service

#: How OpenAPI says "bytes".
A_SERIES = {LINES_TYPE: {"schema": {"type": "string", "format": "binary"}}}


def dicom_routes(service: Service) -> APIRouter:
    """The route /api/studies/{study}/dicom."""
    routes = APIRouter(prefix="/api/studies/{study}/dicom", tags=["DICOM headers"])
    thread = asyncio.to_thread

    @routes.put(
        "",
        summary="Send the DICOM headers of a study",
        description="One DICOM JSON object (PS3.18 F) a line and a slice, in any order, told by where they lie, or one "
        "line of a multi-frame file; at "
        f"most {LINE // 2**20} MiB a line and {LINES // 2**20} MiB in all. `Content-Encoding: deflate` is unpacked. "
        "Private fields and bulk data are left out. Headers of another series than the one that is kept are refused.",
        openapi_extra={"requestBody": {"content": A_SERIES}},
        responses=fails(404, 409, 507),
    )
    async def send(study: Study, request: Request) -> dict:
        data = await body_of(request, LINES)
        return {"series": await thread(service.keep_series, person_of(request), study, data)}

    @routes.get(
        "",
        summary="The DICOM headers of a study, one a line and a slice, in order",
        responses={200: {"content": A_SERIES, "description": "The headers"}, **fails(404)},
        response_class=Response,
    )
    async def read(study: Study, request: Request) -> Response:
        series = await thread(service.fetch_series, person_of(request), study)
        if series is None:
            raise HTTPException(404, "There are no DICOM headers of this study here.")
        data = await thread(lambda: b"".join(map(line_of, series.headers)))
        return Response(data, media_type=LINES_TYPE, headers={SERIES: series.identity})

    @routes.delete("", summary="Forget the DICOM headers of a study, for an admin", responses=fails(403, 404))
    async def forget(study: Study, request: Request) -> dict:
        await thread(service.drop_series, admin_of(request), study)
        return {}

    return routes
