"""What the AIAA and MONAI Label routes share: whose image, from prompts to a mask, sessions."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import numpy as np
from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response
from starlette.datastructures import UploadFile

from aiassist.engine import AnnotateRequest, SegmentRequest
from aiassist.engine.backend import Request as Asked
from aiassist.engine.job import Result, Turn
from aiassist.errors import PromptError, UnknownStudyError, UploadError
from aiassist.imaging import MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.protocol.messages import error_to_json
from aiassist.segmenters.base import ModelCard, Step
from aiassist.server.exchange import at_once, fails, finished, person_of, to_the_end
from aiassist.server.forms import Form, form_of, form_with, image_bytes, read_image
from aiassist.server.service import Service
from aiassist.server.sessions import Session, SessionExpired, Sessions
from aiassist.server.spool import STUDY_ID
from aiassist.server.tokens import Person

#: Most points of one kind in a request.
POINTS = 10_000
#: Names of images that people sent which are remembered.
NAMES = 10_000
#: An expired session, as NVIDIA's clients know it.
EXPIRED = 440


@dataclass
class LegacyApi:
    """A service and its sessions, as the elder protocols see them."""

    service: Service
    sessions: Sessions
    _sent: OrderedDict[tuple[str, str], str] = field(default_factory=OrderedDict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, person: Person, volume: Volume, name: str) -> str:
        """Add an image that somebody sent to the ground truth's studies; returns its id.

        `UploadError` when its name is the id of another image here.
        """
        if STUDY_ID.fullmatch(name) and name != volume.study_id and self.service.has_study(name):
            raise UploadError(f"The name {name} is another image's id; rename the image, then send it.")
        study = self.service.keep_study(person, volume, name)
        with self._lock:
            self._sent[person.name, name] = study
            self._sent.move_to_end((person.name, name))
            while len(self._sent) > NAMES:
                self._sent.popitem(last=False)
        return study

    def find(self, person: Person, name_or_id: str) -> str:
        """The id of a study by its id or name. A name means the image that this person sent last by it, if any.

        MONAI Label's plugin in Slicer names an image after its node and asks by that name, whatever id it was told.
        """
        if STUDY_ID.fullmatch(name_or_id) and self.service.has_study(name_or_id):
            return name_or_id
        with self._lock:
            sent = self._sent.get((person.name, name_or_id))
        return sent if sent and self.service.has_study(sent) else self.service.find_study(name_or_id)

    def read(self, file: UploadFile) -> Volume:
        """The image of a file that a client sent, which may take as much memory as all that are held open."""
        return read_image(file, self.service.settings.memory)

    async def of_image(self, request: Request, file: UploadFile, use: Callable[[Volume], Result]) -> Result:
        """What `use` makes of an image that a client sent, of which one at a time is in memory."""
        return await at_once(self.service.reader, lambda: use(self.read(file)), request)

    async def in_steps(
        self, request: Request, file: UploadFile, use: Callable[[Volume], Generator[Step, None, Result]]
    ) -> Result:
        """As `of_image`, by a long `use` of many steps, before which and between which others' images are read.

        It comes to its end also when the client goes away: of labels all are saved, and found when they are sent again.
        """

        def work() -> Generator[Step, None, Result]:
            yield Step("read", 0.0)
            return (yield from use(self.read(file)))

        return await to_the_end(self.service.reader, work(), request, Turn.LONG)

    async def study(self, request: Request, form: Form, session: str = "", image: str = "") -> str:
        """The study that a request speaks of: of its session, an image it sends, or one that is here by name or id."""
        if session:
            study = self.sessions.get(session, person_of(request)).study
            if not await asyncio.to_thread(self.service.has_study, study):
                raise SessionExpired(f"The image of the session {session[:40]} is gone; send it again.")
            return study
        if form.image is not None:
            return await self.of_image(request, form.image, self.service.open_volume)
        if image:
            return await asyncio.to_thread(self.find, person_of(request), image)
        raise UnknownStudyError("There is no image: send one, or name a session or an image that is here.")

    async def automatic(self, model: str) -> ModelCard | None:
        """The card of an automatic model by its name, or None."""
        cards = await asyncio.to_thread(self.service.backend.models)
        return next((card for card in cards if card.name == model and card.kind == "automatic"), None)

    async def mask(self, request: Request, study: str, prompts: Prompts, model: str | None) -> np.ndarray | None:
        """The mask (k, j, i), uint8, that a model makes of prompts; None when the client went away."""
        job = uuid.uuid4().hex
        asked = AnnotateRequest(study, prompts, model=model, structure=job)
        return await self._voxels(request, job, asked, prompts.prior)

    async def labelmap(self, request: Request, study: str, model: str) -> np.ndarray | None:
        """The labelmap (k, j, i) that an automatic model makes; None when the client went away."""
        job = uuid.uuid4().hex
        return await self._voxels(request, job, SegmentRequest(study, model, client=job))

    async def _voxels(
        self, request: Request, job: str, asked: Asked, prior: MaskPatch | None = None
    ) -> np.ndarray | None:
        person, thread = person_of(request), asyncio.to_thread
        work = await thread(self.service.ask, person, job, asked)
        try:
            if not await finished(work, request):
                return None
        finally:
            self.service.jobs.leave(person, job, forget=True)
        geometry = await thread(self.service.studies.geometry, asked.study)
        patch = work.result(0).patch
        if prior is not None:
            patch = await thread(patch.over, prior)
        return await thread(patch.to_labelmap, geometry.shape)

    async def file(
        self, request: Request, study: str, voxels: np.ndarray, params: dict, default: str
    ) -> tuple[bytes, str]:
        """A mask of a study as the file that the client asked for."""
        geometry = await asyncio.to_thread(self.service.studies.geometry, study)
        return await at_once(self.service.files, lambda: image_bytes(voxels, geometry, params, default), request)


def points_of(params: dict, *names: str) -> list:
    """The first of these parameters that is there, as a list of points; a single point is a list of one."""
    for name in names:
        value = params.get(name)
        if value:
            if not isinstance(value, list):
                raise PromptError(f"The parameter {name} is {type(value).__name__}, not a list of points.")
            if len(value) > POINTS:
                raise PromptError(f"The parameter {name} has {len(value):,} points; at most {POINTS:,} are taken.")
            return value if isinstance(value[0], list) else [value]
    return []


def session_routes(api: LegacyApi) -> APIRouter:
    """The routes /session/ of both protocols."""
    routes = APIRouter(tags=["AIAA and MONAI Label: sessions"])

    @routes.put(
        "/session/", summary="Send an image once", responses=fails(404, 503, 507), openapi_extra=form_with("image")
    )
    async def make(request: Request, expiry: int = 0) -> dict:
        async with form_of(request) as form:
            study = await api.study(request, form)
        session = api.sessions.make(study, person_of(request), expiry)
        return _told(session)

    @routes.get("/session/{name}", summary="A session", responses=fails(404))
    async def get(name: str, request: Request) -> Response:
        try:
            return JSONResponse(_told(api.sessions.get(name, person_of(request))))
        except SessionExpired as error:
            return _over(error)

    @routes.delete("/session/{name}", summary="Close a session", responses=fails(404))
    async def end(name: str, request: Request) -> Response:
        try:
            api.sessions.end(name, person_of(request))
        except SessionExpired as error:
            return _over(error)
        return JSONResponse({})

    return routes


def _over(error: SessionExpired) -> Response:
    """Of a session itself it is told as its clients expect it: there is none."""
    return JSONResponse(error_to_json(error), 404)


def _told(session: Session) -> dict:
    return {"session_id": session.id, "image": session.study, "expiry": session.lives}
