"""The application: routes, guard, and how errors are told."""

from __future__ import annotations

import asyncio
import errno
import logging
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from aiassist import __version__
from aiassist.errors import AIAssistError, Cancelled
from aiassist.protocol.messages import error_to_json, status_of
from aiassist.server.adapters import EXPIRED, LegacyApi, session_routes
from aiassist.server.aiaa import aiaa_routes
from aiassist.server.annotation import annotation_routes
from aiassist.server.dicom import dicom_routes
from aiassist.server.downloads import download_routes
from aiassist.server.exchange import admin_of, fails
from aiassist.server.guard import PUBLIC, Guard, Limits
from aiassist.server.learning import learning_routes
from aiassist.server.monailabel import monailabel_routes
from aiassist.server.native import native_routes
from aiassist.server.page import api_page
from aiassist.server.paths import without_paths
from aiassist.server.service import Service
from aiassist.server.sessions import SessionExpired, Sessions
from aiassist.server.tokens import Tokens
from aiassist.server.truth import truth_routes
from aiassist.server.uploads import upload_routes

log = logging.getLogger("aiassist.server")

ABOUT = """
Annotate medical images by prompts: open a study (its id is a hash of its voxels, so it travels once), ask for
a mask, correct it by clicks, save it as ground truth.

All indices are continuous voxel indices `[i, j, k]`; masks travel as *patches* that replace a region (magic `AAMP`,
JSON header, zlib-compressed bits, CRC-32; see `docs/clients.md`). Every route needs `Authorization: Bearer TOKEN`,
but those that say they are open to all. What goes wrong is told as `{"error": kind, "message": sentence}`.
"""
#: How OpenAPI says "by a token", so that programs that read it send one.
TOKEN = {"token": {"type": "http", "scheme": "bearer", "description": "Of `aiassist tokens add`, or the ready line"}}
#: Lines of the log that can be asked for.
LINES = 2000
#: Threads for work that blocks.
THREADS = 16


def make_app(service: Service, tokens: Tokens, limits: Limits | None = None) -> FastAPI:
    """The application of a service."""

    kept, keeper = _keep_log()

    @asynccontextmanager
    async def life(_app):
        logging.getLogger("uvicorn.error").addHandler(keeper)  # not before: uvicorn's own set-up removes it
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(THREADS, thread_name_prefix="aiassist"))
        yield
        await asyncio.to_thread(service.close)

    app = FastAPI(
        title="AIAssist",
        version=__version__,
        description=ABOUT,
        lifespan=life,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # the guard finds the route; a redirect would lose the token in the path, and https
    )
    app.add_middleware(Guard, tokens=tokens, limits=limits or Limits())
    for routes in (native_routes, upload_routes, download_routes, dicom_routes, annotation_routes, truth_routes):
        app.include_router(routes(service))
    app.include_router(learning_routes(service))
    api = LegacyApi(service, Sessions())
    app.include_router(session_routes(api))
    app.include_router(monailabel_routes(api, tokens))
    app.include_router(aiaa_routes(api))
    _tell_errors(app, service.settings.studies)
    _describe_access(app)

    @app.get("/docs", include_in_schema=False)
    async def page() -> Response:
        policy = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}
        return HTMLResponse(api_page(app.openapi()), headers=policy)

    @app.get("/", include_in_schema=False)
    async def front() -> Response:
        return RedirectResponse("docs")

    @app.get(
        "/logs/",
        tags=["server"],
        summary="The latest lines of the server's log, for an admin",
        response_class=PlainTextResponse,
        responses=fails(403),
    )
    async def logs(request: Request, lines: int = 300) -> str:
        admin_of(request)
        return "\n".join(list(kept)[-max(1, min(lines, LINES)) :])

    return app


def _describe_access(app: FastAPI) -> None:
    """Let the description say of each route what the guard holds: a token, or nothing."""
    plain = app.openapi

    def described() -> dict:
        if app.openapi_schema is None:
            schema = plain()
            schema["components"]["securitySchemes"] = TOKEN
            for path, methods in schema["paths"].items():
                for route in methods.values():
                    route["security"] = [] if path in PUBLIC else [{name: []} for name in TOKEN]
        return app.openapi_schema

    app.openapi = described


def _tell_errors(app: FastAPI, studies: Path) -> None:
    @app.exception_handler(AIAssistError)
    @app.exception_handler(Cancelled)
    async def known(_request: Request, error: Exception):
        headers = {"retry-after": "1"} if status_of(error) == 503 else None
        said = error_to_json(error)
        told = without_paths(said, studies)
        if told != said:
            log.warning("%s", error)
        return JSONResponse(told, status_of(error), headers)

    @app.exception_handler(SessionExpired)
    async def over(_request: Request, error: SessionExpired):
        return JSONResponse(error_to_json(error), EXPIRED)

    @app.exception_handler(HTTPException)
    async def of_http(_request: Request, error: HTTPException):
        nowhere = error.status_code == 404 and error.detail == "Not Found"
        said = "There is nothing at this address; the page /docs lists what there is." if nowhere else str(error.detail)
        return JSONResponse({"error": "HTTPError", "message": said}, error.status_code, error.headers)

    @app.exception_handler(ClientDisconnect)
    async def gone(_request: Request, _error: ClientDisconnect):
        return Response(status_code=499)

    @app.exception_handler(RequestValidationError)
    async def of_form(_request: Request, error: RequestValidationError):
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"][1:]) or first["loc"][0]
        return JSONResponse({"error": "RequestError", "message": f"{place}: {first['msg']}."}, 422)

    @app.exception_handler(OSError)
    async def of_system(_request: Request, error: OSError):
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            message = "The server's disk is full; nothing was changed. Tell its administrator."
            return JSONResponse({"error": "StoreError", "message": message}, 507)
        log.exception("a file could not be used", exc_info=error)
        return JSONResponse({"error": "StoreError", "message": "The server cannot use its files; see its log."}, 500)

    @app.exception_handler(MemoryError)
    async def of_memory(_request: Request, _error: MemoryError):
        message = "The server has too little memory for this now; try again later."
        return JSONResponse({"error": "DeviceMemoryError", "message": message}, 507)

    @app.exception_handler(Exception)
    async def of_ours(_request: Request, _error: Exception):  # uvicorn logs it, with its traceback
        return JSONResponse({"error": "ServerError", "message": "The server failed at this; its log says why."}, 500)


def _keep_log() -> tuple[deque[str], logging.Handler]:
    """The latest lines of this package's log, and what keeps those of others."""
    lines: deque[str] = deque(maxlen=LINES)

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Keep()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logging.getLogger("aiassist").addHandler(handler)
    return lines, handler
