"""The native API: studies and masks that clients send."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress

from fastapi import APIRouter, HTTPException, Request, Response
from fastapi.responses import JSONResponse
from starlette.requests import ClientDisconnect

from aiassist.errors import PatchError, UploadError
from aiassist.imaging import MaskPatch
from aiassist.protocol.messages import OFFSET, PIECE, RECEIVED, SERIES, error_to_json
from aiassist.server.arriving import OffsetError, Upload
from aiassist.server.bodies import MASK_BYTES, Study, StudyBody
from aiassist.server.exchange import admin_of, body_of, fails, pieces_of
from aiassist.server.service import Service

#: Bytes of an upload that are written at once.
WRITE = 2**22
#: How OpenAPI says "bytes".
BYTES = {"schema": {"type": "string", "format": "binary"}}


def upload_routes(service: Service) -> APIRouter:
    """The routes under /api/studies."""
    routes = APIRouter(prefix="/api", tags=["studies"])
    thread = asyncio.to_thread

    @routes.head(
        "/studies/{study}",
        summary="Whether a study's voxels are here",
        description=f"The header `{SERIES}` tells its DICOM headers from others; without it, there are none.",
        responses=fails(404),
    )
    async def study_is_here(study: Study) -> Response:
        if await thread(service.has_study, study):
            identity = await thread(service.series_identity, study)
            return Response(headers={SERIES: identity} if identity is not None else None)
        return Response(status_code=404, headers={RECEIVED: str(await thread(service.spool.received, study) or 0)})

    @routes.put("/studies/{study}", summary="Begin an upload, or go on with it", responses=fails(507))
    async def announce(study: Study, body: StudyBody) -> dict:
        received, whole = await thread(service.announce, study, body.model_dump(exclude_none=True))
        return {"received": received, "whole": whole}

    @routes.patch(
        "/studies/{study}/voxels",
        summary="Send a piece of the voxels, at most 64 MiB",
        description=f"The header `{OFFSET}` says where it begins. `Content-Encoding: deflate` is unpacked. After a 409 "
        f"the header `{RECEIVED}` says where to go on.",
        openapi_extra={
            "requestBody": {"content": {"application/octet-stream": BYTES}},
            "parameters": [
                {"name": OFFSET, "in": "header", "required": True, "schema": {"type": "integer", "minimum": 0}}
            ],
        },
        responses=fails(404, 409, 507),
    )
    async def receive(study: Study, request: Request) -> Response:
        offset = request.headers.get(OFFSET, "")
        if not (offset.isascii() and offset.isdigit() and len(offset) < 16):
            raise UploadError(f"The header {OFFSET} must say where the piece begins, in bytes.")
        pieces, received = pieces_of(request, PIECE), int(offset)
        try:
            if study not in service.spool:  # another window has sent it meanwhile
                received = await _keep(service.spool.upload(study), received, pieces)
        except OffsetError as error:
            async for _ in pieces:  # a client that still sends would not hear the answer
                pass
            return JSONResponse(error_to_json(error), 409, {RECEIVED: str(error.received)})
        return JSONResponse({"received": received, "whole": await thread(service.finish, study)})

    @routes.delete("/studies/{study}", summary="Remove an uploaded study, for an admin", responses=fails(403, 404))
    async def forget(study: Study, request: Request) -> dict:
        await thread(service.forget_study, study, admin_of(request))
        return {}

    @routes.post(
        "/studies/{study}/masks",
        summary="Make a mask known, as the base of corrections",
        openapi_extra={"requestBody": {"content": {"application/octet-stream": BYTES}}},
        responses=fails(404),
    )
    async def put_mask(study: Study, request: Request) -> dict:
        data = await body_of(request, MASK_BYTES)
        return {"version": await thread(_put_mask, service, study, data)}

    return routes


async def _keep(upload: Upload, offset: int, pieces: AsyncIterator[bytes]) -> int:
    """Write and hash an upload's body while more of it comes; returns the bytes that arrived.

    A body that turns out to be wrong leaves nothing behind; one that is cut off leaves what came.
    """
    before, writing = upload.received, None
    try:
        async for block in _blocks(pieces):
            offset = await writing if writing is not None else offset
            writing = asyncio.create_task(asyncio.to_thread(upload.append, offset, block))
        return await writing
    except (UploadError, HTTPException) as error:
        if writing is not None:
            await asyncio.wait((writing,))
        if not isinstance(error, OffsetError):
            await asyncio.to_thread(upload.rewind, before)
        raise


async def _blocks(pieces: AsyncIterator[bytes]) -> AsyncIterator[list[bytes]]:
    """The pieces in blocks of `WRITE` bytes or a little more; the last block is shorter."""
    block, size = [], 0
    with suppress(ClientDisconnect):  # what came is kept
        async for piece in pieces:
            block.append(piece)
            size += len(piece)
            if size >= WRITE:
                yield block
                block, size = [], 0
    yield block


def _put_mask(service: Service, study: str, data: bytes) -> str:
    voxels = math.prod(service.studies.geometry(study).shape)
    patch = MaskPatch.from_bytes(data, voxels)
    if patch.kind != "bits":
        raise PatchError(f"A mask to correct is one structure, bits, not {patch.kind}.")
    return service.backend.put_mask(study, patch)
