"""Training in the API of MONAI Label: its clients start it, watch it, and stop it.

They know no versions, so what was trained is published at its end, if it is better.
"""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Body, Request
from fastapi.responses import JSONResponse, Response

from aiassist.errors import ModelError, PromptError, UnknownModelError
from aiassist.server.exchange import admin_of, fails
from aiassist.server.service import Service
from aiassist.server.training import EPOCHS, Options, Task

#: Names of the models that a client is offered to train before there are any, and whether they are automatic.
FIRST = {"learned": False, "learned-automatic": True}
_STATUS = {"running": "RUNNING", "done": "DONE", "failed": "ERROR", "stopped": "STOPPED"}


def trainers(service: Service) -> dict[str, dict]:
    """The models that can be trained, as ``/info/`` lists them; none where the server cannot train."""
    if service.training.missing():
        return {}
    return {name: _trainer(automatic) for name, automatic in _kinds(service).items()}


def _trainer(automatic: bool) -> dict:
    does = "Finds all structures on its own" if automatic else "Segments from clicks or points"
    description = f"{does}; learns from the submitted labels, and is used from then on if it is better"
    return {"description": description, "config": {"epochs": EPOCHS}}


def _kinds(service: Service) -> dict[str, bool]:
    """Whether each model that can be trained is automatic; those that are damaged, or were imported, cannot be."""
    kinds = dict(FIRST)
    for name in service.models.names():
        try:
            kind, can_learn = service.kind_of(name), not service.models.is_imported(name)
        except ModelError:
            can_learn = False
        if not can_learn:
            kinds.pop(name, None)
        elif kind is not None:
            kinds[name] = kind == "automatic"
    return kinds


def train_stats(service: Service) -> dict[str, dict]:
    """How far the latest training is, and how good it has become, as ``/info/`` tells it."""
    task = service.training.task
    if task is None or task.what != "train":
        return {}
    stats = {"epoch": task.now["done"], "total_epochs": max(1, task.now["total"] or 1), "start_ts": task.began}
    if task.result is not None:
        now = task.result.get("now", {}).values()
        took = datetime.fromisoformat(task.ended) - datetime.fromisoformat(task.began)
        stats |= {"total_time": took.total_seconds(), "best_metric": sum(now) / max(1, len(now))}
    return {task.model: stats}


def training_routes(service: Service) -> APIRouter:
    """The routes under /train."""
    routes = APIRouter(tags=["MONAI Label"])
    thread = asyncio.to_thread

    @routes.post(
        "/train/{model}",
        summary="Train a model of /info/, for an admin; it is used from then on if it is better",
        responses=fails(403, 404, 503),
    )
    async def train(model: str, request: Request, params: Annotated[dict | None, Body()] = None) -> dict:
        person = admin_of(request)
        kinds = await thread(_kinds, service)
        if model not in kinds:
            raise UnknownModelError(f"No model {model[:80]!r} can be trained here, but {', '.join(kinds)}.")
        options = Options(automatic=kinds[model], epochs=_epochs(params or {}), publish=True)
        return _told(await thread(service.train, person, model, options))

    @routes.post("/train/", include_in_schema=False)
    async def train_all() -> Response:
        raise ModelError("Models are trained one at a time here; name one of those that /info/ lists as trainers.")

    def latest(model: str) -> Task | None:
        """The latest training, of this model if it is named."""
        task = service.training.task
        return task if task is not None and task.what == "train" and model in ("", task.model) else None

    @routes.get(
        "/train/",
        summary="The latest training; 404 when there is none, or, with check_if_running, none that runs",
        responses=fails(404),
    )
    @routes.get("/train/{model}", include_in_schema=False)
    async def training(model: str = "", check_if_running: bool = False) -> Response:
        task = latest(model)
        if task is None or (check_if_running and task.state != "running"):
            return JSONResponse({"error": "ModelError", "message": "No training runs."}, 404)
        return JSONResponse(_told(task))

    @routes.delete("/train/", summary="Stop the training, which is saved, for an admin", responses=fails(403, 404))
    @routes.delete("/train/{model}", include_in_schema=False)
    async def stop(request: Request, model: str = "") -> Response:
        person = admin_of(request)
        if latest(model) is not None:
            await thread(service.stop_training, person)
        return await training(model)

    return routes


def _epochs(params: dict) -> int:
    epochs = params.get("epochs", params.get("max_epochs", EPOCHS))
    if type(epochs) is not int or not 1 <= epochs <= 10_000:
        raise PromptError(f"epochs is {epochs!r:.80}; send a whole number from 1 to 10,000.")
    return epochs


def _told(task: Task) -> dict:
    """A task as MONAI Label's clients read it."""
    said = {"id": task.id, "model": task.model, "status": _STATUS[task.state]}
    said |= {"start_ts": task.began, "end_ts": task.ended, "result": task.result}
    return {**said, "details": [task.message or task.now["text"] or task.now["phase"]]}
