"""The native API: whether the server runs, and its models."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter

from aiassist import __version__
from aiassist.server.exchange import fails
from aiassist.server.service import Service


def native_routes(service: Service) -> APIRouter:
    """The routes /api/health and /api/models."""
    routes = APIRouter(prefix="/api")
    thread = asyncio.to_thread

    @routes.get("/health", tags=["server"], summary="Whether the server runs; needs no token", responses=fails())
    async def health() -> dict:
        return {"status": "ok", "version": __version__}

    @routes.get("/models", tags=["models"], summary="The cards of all models, the default first", responses=fails())
    async def models() -> dict:
        cards = await thread(service.backend.models)
        return {"models": [card.to_json() for card in cards], "device": service.backend.worker.name}

    return routes
