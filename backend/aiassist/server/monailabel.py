"""The API of MONAI Label, for its clients in Slicer, OHIF and Python.

Routes and messages follow MONAI Label 0.8 (https://github.com/Project-MONAI/MONAILabel, Apache-2.0).
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Annotated, Literal

import numpy as np
from fastapi import APIRouter, Form, Query, Request
from fastapi.responses import JSONResponse, Response

from aiassist import __version__
from aiassist.errors import AccessError, ModelError, PromptError, UploadError
from aiassist.groundtruth.records import Newest, StudyRecord
from aiassist.imaging import Geometry, MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.segmenters.base import ModelCard
from aiassist.server.adapters import LegacyApi, points_of
from aiassist.server.exchange import at_once, fails, person_of
from aiassist.server.forms import form_of, form_reply, form_with, image_bytes, name_of_file
from aiassist.server.monailabel_labels import check_grid, label_info, labelmap_file, saving
from aiassist.server.monailabel_training import train_stats, trainers, training_routes
from aiassist.server.tokens import Tokens

#: What parameters of an inference are called that are no structure with its clicks.
_NO_STRUCTURE = {"label", "foreground", "background", "roi", "model", "image", "client_id", "points", "extreme_points"}


def monailabel_routes(api: LegacyApi, tokens: Tokens) -> APIRouter:
    """The routes of MONAI Label."""
    routes = APIRouter(tags=["MONAI Label"])
    service, thread = api.service, asyncio.to_thread

    @routes.get("/auth/", summary="Says that a token is needed; needs none itself", responses=fails())
    async def auth() -> dict:
        return {"enabled": True, "client_id": "aiassist", "realm": "aiassist"}

    @routes.post("/auth/token", summary="Exchange name and token for a token", responses=fails(403))
    async def token(password: Annotated[str, Form(max_length=200)], username: Annotated[str, Form()] = "") -> dict:
        if tokens.person(password) is None:
            await asyncio.sleep(1)  # guessing takes its time
            raise AccessError(f"This is no token of {username[:64] or 'anybody'}; the token is the password.")
        return {"access_token": password, "token_type": "bearer"}

    @routes.get("/auth/token/valid", summary="Whether the token is known", responses=fails())
    async def valid(request: Request) -> dict:
        return {"username": person_of(request).name}

    @routes.get("/info/", summary="Models, labels and images", responses=fails())
    async def info() -> dict:
        cards = await thread(service.backend.models)
        saved = await thread(service.store.structures)
        names = sorted({one.structure for labels in saved.values() for one in labels}) or ["structure"]
        found = {label.name for card in cards for label in card.labels}
        return {
            "name": "AIAssist",
            "description": "AI-assisted annotation",
            "version": __version__,
            "labels": [*names, *sorted(found - set(names))],
            "models": {card.name: _model(card, names) for card in cards},
            "trainers": await thread(trainers, service),
            "strategies": {"first": {"description": "The oldest image without a label that nobody else works on"}},
            "scoring": {},
            "train_stats": train_stats(service),
            "datastore": {"total": len(await thread(service.store.studies)), "completed": len(saved)},
        }

    @routes.post("/activelearning/{strategy}", summary="The next image to annotate", responses=fails())
    async def next_image(strategy: str, request: Request) -> dict:
        saved, studies = await thread(service.store.structures), await thread(service.store.studies)
        free = [study.id for study in studies if study.id not in saved]
        study = service.take_first(person_of(request), free)
        if study is None:
            return {}
        file_name = f"{study}.nrrd"  # in the cache of MONAI Label's plugin in Slicer, which fetches no known name again
        return {"id": study, "name": file_name, "path": "", "strategy": strategy[:100]}

    _datastore_routes(routes, api)
    _infer_routes(routes, api)

    routes.include_router(training_routes(service))
    return routes


def _model(card: ModelCard, names: list[str]) -> dict:
    """A card as MONAI Label lists it: with labels of its own, or those that people have drawn so far."""
    automatic = card.kind == "automatic"
    return {
        "type": "segmentation" if automatic else "deepgrow",
        "labels": {label.name: label.value for label in card.labels} if automatic else names,
        "dimension": 3,
        "description": card.description,
        "config": {},
    }


def _datastore_routes(routes: APIRouter, api: LegacyApi) -> None:
    service, thread = api.service, asyncio.to_thread

    @routes.get("/datastore/", summary="All images and labels", responses=fails())
    async def datastore(output: str = "stats") -> dict | list:
        saved, studies = await thread(service.store.structures), await thread(service.store.studies)
        if output == "all":
            objects = {study.id: _object(study, saved.get(study.id, [])) for study in studies}
            return {"name": "AIAssist", "objects": objects}
        if output == "train":
            return [{"image": study.id, "label": study.id} for study in studies if study.id in saved]
        return {"total": len(studies), "completed": len(saved)}

    @routes.put("/datastore/", summary="Add an image", responses=fails(503, 507), openapi_extra=form_with("file"))
    @routes.put("/datastore/image", include_in_schema=False)
    async def add_image(request: Request, image: Annotated[str, Query(max_length=200)] = "") -> dict:
        person = person_of(request)
        async with form_of(request) as form:
            if form.image is None:
                raise UploadError("There is no image in the request; send it as the part file.")
            name = image or name_of_file(form.image)
            return {"image": await api.of_image(request, form.image, lambda sent: api.keep(person, sent, name))}

    @routes.get("/datastore/image", summary="An image as NRRD", response_class=Response, responses=fails(404, 503))
    async def get_image(request: Request, image: Annotated[str, Query(max_length=200)]) -> Response:
        study = await thread(api.find, person_of(request), image)

        def written() -> bytes:
            volume = service.studies.volume(study)
            return image_bytes(volume.voxels, volume.geometry, {}, ".nrrd")[0]

        data = await at_once(service.exports, written, request)
        await thread(service.fetched, person_of(request), study)
        return _attached(data, f"{study}.nrrd")

    @routes.put(
        "/datastore/label",
        summary="Save a labelmap: a version of each structure",
        responses=fails(404, 503, 507),
        openapi_extra=form_with("label"),
    )
    async def save_label(
        request: Request, image: Annotated[str, Query(max_length=200)], tag: Annotated[str, Query(max_length=200)] = ""
    ) -> dict:
        person, comment = person_of(request), f"MONAI Label tag {tag}" if tag else ""
        async with form_of(request) as form:
            if "label" not in form.files:
                raise UploadError("There is no labelmap in the request; send it as the part label.")
            study = await thread(api.find, person, image)
            saved = await api.in_steps(
                request, form.files["label"], lambda label: saving(service, person, study, label, form.params, comment)
            )
        return {"image": study, "label": study, "tag": tag or "final", "saved": saved}

    @routes.get(
        "/datastore/label", summary="The newest labels as NRRD", response_class=Response, responses=fails(404, 503)
    )
    async def get_label(request: Request, label: Annotated[str, Query(max_length=200)], tag: str = "final") -> Response:
        person = person_of(request)
        study = await thread(api.find, person, label)
        data = await at_once(service.exports, lambda: labelmap_file(service, person, study), request)
        return _attached(data, f"{study}.nrrd")


def _object(study: StudyRecord, labels: list[Newest]) -> dict:
    """An image and its labels as MONAI Label lists them."""
    image = {"ext": ".nrrd", "info": {"name": study.name}}
    if not labels:
        return {"image": image, "labels": {}}
    last = max(label.made for label in labels)
    info = {"ts": int(last.timestamp()), "params": {"label_info": label_info(labels)}}
    return {"image": image, "labels": {"final": {"ext": ".nrrd", "info": info}}}


def _infer_routes(routes: APIRouter, api: LegacyApi) -> None:
    @routes.post(
        "/infer/{model}",
        summary="A mask from clicks, or all that an automatic model finds",
        response_class=Response,
        responses=fails(404, 440, 503, 507),
        openapi_extra=form_with("file", "label"),
        description="`params` may say `result_extension`, `result_dtype` and `result_compress` of the file. Of an "
        "automatic model, `label` (a name, or several) or `label_prompt` (values) choose what is wanted. The part "
        "`label` is a mask on the image's grid that clicks correct.",
    )
    async def infer(
        model: str,
        request: Request,
        image: Annotated[str, Query(max_length=200)] = "",
        session_id: Annotated[str, Query(max_length=200)] = "",
        output: Literal["all", "image", "json"] = "all",
    ) -> Response:
        async with form_of(request) as form:
            study, prior = await api.study(request, form, session_id, image), None
            card = await api.automatic(model)
            if card is None and "label" in form.files:
                prior = await api.of_image(
                    request, form.files["label"], lambda label: _prior(api.service, study, label)
                )
        if card is not None:
            names = chosen(card, form.params)
            mask = await api.labelmap(request, study, model)
        else:
            names = {_name_of(form.params): 1}
            geometry = await asyncio.to_thread(api.service.studies.geometry, study)
            mask = await api.mask(request, study, within(prompts_of(form.params, prior), geometry), model)
        if mask is None:
            return Response(status_code=499)
        if card is not None and len(names) < len(card.labels):
            mask = await asyncio.to_thread(lambda: np.where(np.isin(mask, list(names.values())), mask, 0))
        told = {"label_names": names, "latencies": {}}
        if output == "json":
            return JSONResponse({**told, "centroids": []})
        file = await api.file(request, study, mask, form.params, ".nrrd")
        if output == "image":
            return _attached(file[0], f"result{file[1]}")
        return form_reply(told, file)


def chosen(card: ModelCard, params: dict) -> dict[str, int]:
    """The labels of an automatic model that a client wants, and their values.

    ``label`` names one, or several in a list; ``label_prompt``, of OHIF, lists values. Without either, all are wanted.
    """
    names, values = params.get("label") or [], params.get("label_prompt") or []
    names = names if isinstance(names, list) else [names]
    values = values if isinstance(values, list) else [values]
    known = {label.name: label.value for label in card.labels}
    unknown = [one for one in names if one not in list(known)] + [one for one in values if one not in known.values()]
    if unknown:
        listed = ", ".join(f"{name} ({value})" for name, value in known.items())
        raise ModelError(f"The model {card.name!r} finds {listed}, not {str(unknown[0])[:80]!r}.")
    if not names and not values:
        return known
    return {name: value for name, value in known.items() if name in names or value in values}


def _prior(service, study: str, label: Volume) -> MaskPatch:
    """The mask that comes with clicks, which correct it."""
    check_grid(label, service.studies.geometry(study))
    return MaskPatch.of_mask(label.voxels != 0)


def prompts_of(params: dict, prior: MaskPatch | None = None) -> Prompts:
    """The prompts of an inference.

    ``{foreground, background[, roi]}`` of deepgrow, or DeepEdit's ``{name: points, ..., "label": name}``, where other
    structures' points are outside of the one that is meant.
    """
    extreme = points_of(params, "extreme_points", "points")
    inside, outside = points_of(params, "foreground"), points_of(params, "background")
    meant = params.get("label")
    if isinstance(meant, str) and meant and not inside:
        inside = points_of(params, meant)
        for name, value in params.items():
            if name not in _NO_STRUCTURE and name != meant and _are_points(value):
                outside = outside + value
    roi, box = params.get("roi"), None
    if isinstance(roi, list) and len(roi) == 6 and all(isinstance(one, int | float) for one in roi):
        box = np.reshape(roi, (3, 2)).T.tolist()
    if not (extreme or inside or box or (prior is not None and outside)):
        raise PromptError("There is no click inside the structure; send foreground points as [[i, j, k], ...].")
    return Prompts(extreme_points=extreme, positive=inside, negative=outside, box=box, prior=prior)


def within(prompts: Prompts, geometry: Geometry) -> Prompts:
    """Prompts whose box is cut to the image, beyond which that of MONAI Label's plugin may reach."""
    if prompts.box is None:
        return prompts
    low, high, last = prompts.box.min(axis=0), prompts.box.max(axis=0), np.array(geometry.size) - 1
    if (high < 0).any() or (low > last).any():
        raise PromptError(
            f"The roi from {low.tolist()} to {high.tolist()} lies outside the image, whose indices (i, j, k) run from "
            f"0 to {last.tolist()}."
        )
    return replace(prompts, box=np.clip(prompts.box, 0, last))


def _name_of(params: dict) -> str:
    """The structure's name, the first of several, as text that can be sent."""
    label = params.get("label") or "structure"
    return str(label[0] if isinstance(label, list) else label).encode("utf8", "replace").decode()


def _are_points(value) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(p, list) and len(p) == 3 for p in value)


def _attached(data: bytes, name: str) -> Response:
    headers = {"content-disposition": f'attachment; filename="{name}"'}
    return Response(data, media_type="application/octet-stream", headers=headers)
