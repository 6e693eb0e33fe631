"""NVIDIA Clara AIAA, version 1, for its clients: Python, C++, MITK, OHIF and Slicer's old plugin.

Routes and messages follow those clients (https://github.com/NVIDIA/ai-assisted-annotation-client, BSD-3-Clause).
They send no token: their address is ``http://server:8000/t/TOKEN``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import Annotated

import numpy as np
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile

from aiassist.contour import Ring, pull_vertex, rasterise, trace
from aiassist.engine.job import Result, Turn
from aiassist.errors import ContourError, ModelError, PromptError, UploadError
from aiassist.imaging import Geometry, Region, Volume, finite
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard, Step
from aiassist.server.adapters import LegacyApi, points_of
from aiassist.server.exchange import admin_of, fails, in_turn
from aiassist.server.forms import form_of, form_reply, form_with, image_bytes

#: A model for extreme points is offered once more, for clicks, under this name.
CLICKS = "_deepgrow"
#: Most vertices of all outlines together.
VERTICES = 200_000
#: Most vertices of one of them, each of whose segments may be held against all others.
RING = 20_000
#: What the routes of a model share, and those of outlines.
LONG = {
    "response_class": Response,
    "responses": fails(404, 440, 503, 507),
    "openapi_extra": form_with("datapoint"),
}
SHORT = {"response_class": Response, "responses": fails(503), "openapi_extra": form_with("datapoint")}
Name = Annotated[str, Query(max_length=200)]


def aiaa_routes(api: LegacyApi) -> APIRouter:
    """The routes of AIAA; some clients say /v1/v1."""
    routes = APIRouter(tags=["NVIDIA AIAA v1"])
    for prefix in ("/v1", "/v1/v1"):
        routes.include_router(_annotation(api), prefix=prefix, include_in_schema=prefix == "/v1")
        routes.include_router(_polygons(api), prefix=prefix, include_in_schema=prefix == "/v1")
    routes.include_router(_admin(api))
    return routes


def _annotation(api: LegacyApi) -> APIRouter:
    routes = APIRouter()

    @routes.get("/models", summary="The models", responses=fails(404))
    async def models(model: Name = "", label: Name = "", type: Name = "") -> Response:
        cards = await asyncio.to_thread(api.service.backend.models)
        listed = [one for card in cards for one in _models_of(card)]
        if model:
            found = [one for one in listed if one["name"] == model]
            if not found:
                return JSONResponse({"error": "ModelError", "message": f"There is no model {model!r}."}, 404)
            return JSONResponse(found[0])
        listed = [one for one in listed if (not type or one["type"] == type)]
        return JSONResponse([one for one in listed if not label or not one["labels"] or label in one["labels"]])

    async def called(name: str) -> str | None:
        """The model that a client means, which may be called as one for clicks is; None for the default."""
        cards = await asyncio.to_thread(api.service.backend.models)
        return (name if any(card.name == name for card in cards) else name.removesuffix(CLICKS)) or None

    async def answer(request: Request, model: str, session: str, prompts_of, output: str) -> Response:
        async with form_of(request) as form:
            study = await api.study(request, form, session)
        if prompts_of is None:
            mask, told = await api.labelmap(request, study, model), {}
        else:
            prompts, told = prompts_of(form.params)
            prompts = _onto(prompts, await asyncio.to_thread(api.service.studies.geometry, study))
            mask = await api.mask(request, study, prompts, await called(model))
        if mask is None:
            return Response(status_code=499)
        told = told or {"points": await asyncio.to_thread(_ends, mask)}
        params = {**form.params, **dict(request.query_params)}
        file = await api.file(request, study, mask, params, ".nii.gz")
        if output == "image":
            return Response(file[0], media_type="application/octet-stream")
        return form_reply(told, file)

    @routes.post("/dextr3d", summary="A mask from extreme points", **LONG)
    async def dextr3d(request: Request, model: Name = "", session_id: Name = "", output: Name = "") -> Response:
        return await answer(request, model, session_id, extreme, output)

    @routes.post("/deepgrow", summary="A mask from clicks", **LONG)
    async def deepgrow(request: Request, model: Name = "", session_id: Name = "", output: Name = "") -> Response:
        return await answer(request, model, session_id, clicks, output)

    @routes.post("/inference", summary="A mask from what is sent", **LONG)
    async def inference(request: Request, model: Name = "", session_id: Name = "", output: Name = "") -> Response:
        def either(params: dict):
            return extreme(params) if points_of(params, "points", "extreme_points") else clicks(params)

        automatic = await api.automatic(model)
        return await answer(request, model, session_id, None if automatic else either, output)

    @routes.post("/segmentation", summary="All that an automatic model finds", **LONG)
    async def segmentation(request: Request, model: Name = "", session_id: Name = "", output: Name = "") -> Response:
        return await answer(request, model, session_id, None, output)

    return routes


def _models_of(card: ModelCard) -> list[dict]:
    """A card as AIAA lists it: an automatic model once, another for extreme points and, once more, for clicks."""
    common = {
        "labels": [label.name for label in card.labels],
        "description": card.description,
        "version": card.version,
        "internal name": card.name,
        "padding": 20,
        "roi": [128, 128, 128],
        "sigma": 3.0,
    }
    if card.kind == "automatic":
        return [{"name": card.name, "type": "segmentation", **common}]
    return [
        {"name": card.name, "type": "annotation", **common},
        {"name": card.name + CLICKS, "type": "deepgrow", **common},
    ]


def extreme(params: dict) -> tuple[Prompts, dict]:
    """Prompts of ``{"points": [[i, j, k], ...]}``, and what the answer says of them."""
    points = points_of(params, "points", "extreme_points")
    if not points:
        raise PromptError('There are no points; send {"points": [[i, j, k], ...]}, six are best.')
    return Prompts(extreme_points=points), {"points": points}


def clicks(params: dict) -> tuple[Prompts, dict]:
    """Prompts of ``{"foreground": ..., "background": ..., "current_point": ...}``."""
    inside, outside = points_of(params, "foreground"), points_of(params, "background")
    current = points_of(params, "current_point")
    inside = inside or [point for point in current if point not in outside]
    if not inside:
        raise PromptError('There is no click inside the structure; send {"foreground": [[i, j, k], ...]}.')
    return Prompts(positive=inside, negative=outside), {"points": inside}


def _ends(labelmap: np.ndarray) -> list[list[int]]:
    """The extreme points ``[i, j, k]`` of all that was found, which clients expect beside a segmentation."""
    region, points = Region.of_mask(labelmap), []
    for axis in () if region.is_empty else (2, 1, 0):
        for end in (region.start[axis], region.stop[axis] - 1):
            places = np.argwhere(labelmap.take(end, axis))
            points.append(np.insert(places[len(places) // 2], axis, end)[::-1].tolist())
    return points


def _onto(prompts: Prompts, geometry: Geometry) -> Prompts:
    """Prompts whose points beyond the volume by a voxel lie on its edge: clients that resample round so."""
    last = np.array(geometry.size) - 1
    names = ("extreme_points", "positive", "negative")
    moved = {name: np.clip(getattr(prompts, name), 0, last) for name in names}
    return replace(prompts, **{n: m for n, m in moved.items() if np.abs(m - getattr(prompts, n)).max(initial=0) <= 1})


# Polygons


def _polygons(api: LegacyApi) -> APIRouter:
    routes = APIRouter()

    async def outlined(request: Request, file: UploadFile, use: Callable[[Volume], Generator[Step, None, Result]]):
        """What `use` makes of an image, which is in memory from when its turn has come."""

        def work() -> Generator[Step, None, Result]:
            yield Step("read", 0.0)
            return (yield from use(api.read(file)))

        return await in_turn(api.service.outlines, work(), request, Turn.LONG)

    @routes.post("/mask2polygon", summary="The outlines of a mask, slice by slice", **SHORT)
    async def mask2polygon(request: Request) -> Response:
        async with form_of(request) as form:
            if form.image is None:
                raise UploadError("There is no mask in the request; send it as the part datapoint.")
            more = form.params.get("more_points", 10)
            if not isinstance(more, int | float) or not 0 <= more <= 1000:
                raise ContourError(f"more_points is {more!r}; give the pixels between two vertices, 0 to 1000.")
            return JSONResponse(await outlined(request, form.image, lambda mask: polygons_of(mask, float(more) + 1)))

    @routes.post("/fixpolygon", summary="Pull a vertex of an outline", **SHORT)
    async def fixpolygon(request: Request) -> Response:
        async with form_of(request) as form:
            if form.image is None:
                raise UploadError("There is no image in the request; send it as the part datapoint.")
            return form_reply(*await outlined(request, form.image, lambda image: fixed_file(image, form.params)))

    return routes


def polygons_of(mask: Volume, distance: float) -> Generator[Step, None, list]:
    """``[slice][polygon][vertex]``; vertices are ``[j, i]``, of a picture of one slice ``[x, y]``."""
    found = []
    for k, plane in enumerate(mask.voxels):
        yield Step("trace", k / len(mask.voxels))
        rings = [_spaced(ring.points, distance) for ring in trace(plane != 0, (1.0, 1.0), 1.0)]
        found.append([np.round(points if len(mask.voxels) == 1 else points[:, ::-1], 2).tolist() for points in rings])
    return found


def _spaced(points: np.ndarray, distance: float) -> np.ndarray:
    """Places on an outline at even distances, three or more."""
    closed = np.vstack([points, points[:1]])
    way = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(closed, axis=0), axis=1))])
    count = max(3, round(way[-1] / distance))
    places = np.linspace(0, way[-1], count, endpoint=False)
    return np.column_stack([np.interp(places, way, closed[:, axis]) for axis in range(2)])


def fixed_file(image: Volume, params: dict) -> Generator[Step, None, tuple[dict, tuple[bytes, str]]]:
    """What `fixed` makes, as parameters and a file."""
    polygons, mask = yield from fixed(image, params)
    default = ".nii.gz" if params.get("dimension", 3) == 3 else ".png"
    return {"poly": polygons}, image_bytes(mask, image.geometry, params, default)


def fixed(image: Volume, params: dict) -> Generator[Step, None, tuple[list, np.ndarray]]:
    """Outlines after a vertex was pulled and its neighbours settled on the border, and the mask they bound.

    In a volume the pull is carried to ``propagate_neighbor_3d`` slices on each side, fading with distance.
    """
    yield Step("check", 0.0)
    flat = params.get("dimension", 3) != 3
    try:
        stack = [params["poly"]] if flat and _depth(params["poly"]) == 3 else params["poly"]
        order = slice(None) if flat else slice(None, None, -1)
        if any(len(polygon) < 3 for plane in stack for polygon in plane):
            raise ValueError("polygons of three or more vertices")
        if any(len(polygon) > RING for plane in stack for polygon in plane):
            raise ValueError(f"polygons of at most {RING:,} vertices")
        rings = [[Ring(np.asarray(p, dtype=float)[:, order]) for p in plane] for plane in stack]
        k = 0 if flat else int(params["slice_index"])
        ring, vertex = int(params["polygon_index"]), int(params["vertex_index"])
        offset = np.asarray(params["vertex_offset"], dtype=float)[order]
        neighbours = int(np.clip(params.get("propagate_neighbor", 1), 0, VERTICES))
        slices = int(np.clip(params.get("propagate_neighbor_3d", 0), 0, len(rings)))
        place = rings[k][ring].points[vertex]
        if offset.shape != (2,) or min(k, ring, vertex) < 0 or sum(len(r) for plane in rings for r in plane) > VERTICES:
            raise ValueError("an offset of two numbers, indices from 0, and a reasonable number of vertices")
    except (KeyError, IndexError, TypeError, ValueError, OverflowError) as error:
        raise ContourError(f"poly, its indices or vertex_offset do not fit together ({error}).") from error
    if len(rings) != len(image.voxels):
        raise ContourError(f"There are outlines of {len(rings)} slices, but the image has {len(image.voxels)}.")
    spacing = np.asarray(image.geometry.spacing[:2])
    for away in range(-slices if not flat else 0, slices + 1 if not flat else 1):
        if 0 <= k + away < len(rings) and rings[k + away]:
            yield Step("pull", (slices + away) / (2 * slices + 1))
            share = 1 - abs(away) / (slices + 1)
            rings[k + away] = _pulled(
                image, rings, k + away, place, share * offset, neighbours, spacing, pinned=away == 0
            )
    yield Step("fill", 1.0)
    mask = np.stack([rasterise(plane, image.shape[1:]) for plane in rings]).astype(np.uint8)
    told = [[np.round(r.points[:, order], 2).tolist() for r in plane] for plane in rings]
    return told[0] if flat and _depth(params["poly"]) == 3 else told, mask


def _pulled(image: Volume, rings, k: int, place, step, neighbours: int, spacing, pinned: bool) -> list[Ring]:
    """The rings of a slice after the vertex nearest to a place was pulled by a step."""
    gaps = [np.linalg.norm((ring.points - place) * spacing, axis=1) for ring in rings[k]]
    ring = int(np.argmin([gap.min() for gap in gaps]))
    vertex, points = int(np.argmin(gaps[ring])), rings[k][ring].points
    length = np.linalg.norm((np.roll(points, -1, axis=0) - points) * spacing, axis=1).mean()
    radius = (max(neighbours, 0) + 0.5) * length
    grey = finite(image.voxels[k])
    return list(pull_vertex(rings[k], ring, vertex, points[vertex] + step, grey, spacing, radius, pinned=pinned))


def _depth(nested) -> int:
    depth = 0
    while isinstance(nested, list) and nested:
        nested, depth = nested[0], depth + 1
    return depth


# Administration


def _admin(api: LegacyApi) -> APIRouter:
    routes = APIRouter()

    @routes.get("/admin/model/{name}", summary="A model", responses=fails(403, 404))
    async def get_model(name: str, request: Request) -> Response:
        admin_of(request)
        for card in await asyncio.to_thread(api.service.backend.models):
            if card.name == name:
                return JSONResponse(_models_of(card)[0])
        return JSONResponse({"error": "ModelError", "message": f"There is no model {name[:100]!r}."}, 404)

    @routes.put("/admin/model/{name}", summary="Not here: models come with the server", responses=fails(403))
    @routes.delete("/admin/model/{name}", include_in_schema=False)
    async def change_model(name: str, request: Request) -> Response:
        admin_of(request)
        raise ModelError("Models cannot be sent to this server; install them on it.")

    return routes
