"""The native API: what models can learn from here, what they learned, learning itself, and models from elsewhere."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Request
from pydantic import Field

from aiassist.errors import ModelError
from aiassist.groundtruth.names import key_of
from aiassist.segmenters.registry import load_network_folder
from aiassist.server.bodies import Strict
from aiassist.server.exchange import admin_of, fails, person_of
from aiassist.server.service import Service
from aiassist.server.training import EPOCHS, NEEDED_BY_BUNDLES, Options

log = logging.getLogger("aiassist.server")

ModelName = Annotated[
    str,
    Field(min_length=1, max_length=64, description="Letters, digits, hyphens and underscores", examples=["liver"]),
]


class TrainBody(Strict):
    """Have a model learn from the submitted labels."""

    model: ModelName
    automatic: bool = Field(False, description="A model that needs no prompts")
    base: ModelName | None = Field(None, description="The network to begin from")
    epochs: int = Field(EPOCHS, ge=1, le=10_000, description="Times each label is shown")
    structures: list[Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f]*$")]] = Field(
        [], max_length=100, description="Only these; all when empty"
    )
    drafts: bool = Field(False, description="Learn from drafts, too")
    publish: bool = Field(False, description="Use the version from then on, if it is better")


class VersionBody(Strict):
    """A version of a trained model."""

    model: ModelName
    version: int = Field(ge=1, le=10**9)


class BundleBody(Strict):
    """A bundle of MONAI's model zoo. Programs in it are never run; who trusts them takes it on the command line."""

    bundle: str = Field(
        min_length=1, max_length=96, description="As the zoo has it", examples=["spleen_ct_segmentation"]
    )
    version: str | None = Field(
        None,
        min_length=1,
        max_length=64,
        pattern=r"^\w[\w.-]*$",
        description="As the zoo has it; the newest when absent",
    )
    name: ModelName | None = Field(None, description="Of the model; made of the bundle's when absent")


class ModelBody(Strict):
    """A trained model."""

    model: ModelName


def learning_routes(service: Service) -> APIRouter:
    """The routes under /api/learning."""
    routes = APIRouter(prefix="/api/learning", tags=["learning"])
    thread = asyncio.to_thread

    @routes.get(
        "",
        summary="What there is to learn from, what was learned, and the latest training",
        description="`missing` names the packages that the server lacks to train, `missing_for_bundles` those that it "
        "lacks to run models of MONAI's zoo; `allowed` says whether who asks may train, publish and fetch. "
        "`structures` says of how many studies each has a submitted or approved label. `unfinished` of a model is what "
        "a training of it was asked that was stopped; asked the same again, it goes on.",
        responses=fails(),
    )
    async def everything(request: Request) -> dict:
        labels, models = await thread(_labels, service), await thread(_models, service)
        missing = {
            "missing": await thread(service.training.missing),
            "missing_for_bundles": await thread(service.training.missing, NEEDED_BY_BUNDLES),
        }
        allowed = person_of(request).is_admin
        return {**missing, "allowed": allowed, **labels, "models": models, "task": _task(service)}

    @routes.get("/task", summary="The latest training or publishing, as it stands", responses=fails())
    async def task() -> dict:
        return {"task": _task(service)}

    @routes.post("/train", summary="Train a version of a model, for an admin", responses=fails(403, 503))
    async def train(body: TrainBody, request: Request) -> dict:
        asked = body.model_dump(exclude={"model"})
        options = Options(**{**asked, "structures": tuple(body.structures)})
        return {"task": (await thread(service.train, admin_of(request), body.model, options)).to_json()}

    @routes.post("/publish", summary="Publish a version if it is better, for an admin", responses=fails(403, 404, 503))
    async def publish(body: VersionBody, request: Request) -> dict:
        return {"task": (await thread(service.publish, admin_of(request), body.model, body.version)).to_json()}

    @routes.post(
        "/pull", summary="Fetch a bundle of MONAI's model zoo and use it, for an admin", responses=fails(403, 503)
    )
    async def pull(body: BundleBody, request: Request) -> dict:
        asked = (body.bundle, body.version, body.name)
        return {"task": (await thread(service.pull, admin_of(request), *asked)).to_json()}

    @routes.post(
        "/discard", summary="Remove a model's unfinished training, for an admin", responses=fails(403, 404, 503)
    )
    async def discard(body: ModelBody, request: Request) -> dict:
        await thread(service.discard, admin_of(request), body.model)
        return {"model": body.model}

    @routes.post("/rollback", summary="Take back what was published last, for an admin", responses=fails(403, 404, 503))
    async def rollback(body: ModelBody, request: Request) -> dict:
        return {"published": await thread(service.rollback, admin_of(request), body.model)}

    @routes.delete("/task", summary="Stop the training, which is saved, for an admin", responses=fails(403))
    async def stop(request: Request) -> dict:
        await thread(service.stop_training, admin_of(request))
        return {"task": _task(service)}

    return routes


def _task(service: Service) -> dict | None:
    task = service.training.task
    return task.to_json() if task is not None else None


def _labels(service: Service) -> dict:
    """How many labels of how many studies can be learned from, and how many of each structure."""
    found = [[v for v in versions if v.voxels] for versions in service.store.accepted().values()]
    names = {key_of(v.structure): v.structure for versions in found for v in versions}
    counts = Counter(key_of(v.structure) for versions in found for v in versions)
    structures = {names[key]: counts[key] for key in sorted(counts)}
    return {"labels": sum(counts.values()), "studies": sum(map(bool, found)), "structures": structures}


def _models(service: Service) -> list[dict]:
    """The trained models, their versions and what is published; of damaged ones a sentence on that."""
    told = []
    for name in service.models.names():
        try:
            told.append(_model(service, name))
        except (ModelError, OSError):
            log.warning("The model %s is damaged.", name, exc_info=True)
            told.append({"name": name, "message": f"The files of {name!r} are damaged; the server's log says more."})
    return told


def _model(service: Service, name: str) -> dict:
    models = service.models
    cards = [load_network_folder(models.folder_of(name, number)).card for number in models.versions(name)]
    return {
        "name": name,
        "kind": service.kind_of(name),
        "versions": [{key: asdict(card)[key] for key in ("version", "description", "metrics")} for card in cards],
        "published": models.published(name),
        "history": models.history(name),
        "unfinished": models.unfinished(name),
    }
