"""What a client and the server say to each other, without sending anything.

A conversation is a generator: it yields a `Request`, is sent the `Reply`, and returns its outcome.
Whoever carries the messages (requests here, Qt's network manager inside Slicer) drives it.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Generator
from dataclasses import replace
from typing import TypeVar

import numpy as np

from aiassist.engine.backend import AnnotateRequest, Annotation, Segmentation, SegmentRequest
from aiassist.errors import AIAssistError, ConnectionLostError, UnknownMaskError, UnknownStudyError, UploadError
from aiassist.imaging import DicomSeries, Geometry, MaskPatch, Volume
from aiassist.protocol import Reply, Request
from aiassist.protocol.dicom_lines import LINES_TYPE, line_of, series_from_lines
from aiassist.protocol.messages import (
    OFFSET,
    PATCH_TYPE,
    PIECE,
    RECEIVED,
    SERIES,
    annotation_from_wire,
    answer_of,
    check,
    geometry_from,
    in_path,
    request_to_json,
    segment_request_to_json,
    segmentation_from_wire,
    study_bytes,
    study_to_json,
    volume_from,
    voxels_as_bytes,
)
from aiassist.segmenters.base import ModelCard

Outcome = TypeVar("Outcome")
#: Yields requests, or None to pause.
Conversation = Generator[Request | None, Reply | None, Outcome]

#: Seconds that an automatic model may take, its place in the queue included.
LONG = 6 * 3600
#: Masks remembered, and their bytes, so that they can be sent again to a server that forgot them.
MASKS, MASK_MEMORY = 64, 2**28
#: The first piece of an upload; later ones are as long as takes this many seconds.
FIRST, PACE = 2**20, 0.5
#: Pieces in a row that bring no progress, until the upload is given up.
STUCK = 20
#: What a server answers to a series that it will never take.
FINAL = (409, 422)
#: Share of a piece that is compressed to find out whether that pays.
SAMPLE = 2**18


def carry_out(conversation: Conversation[Outcome], send: Callable[[Request], Reply]) -> Outcome:
    """Carry a conversation to its end while the caller waits; `None` among its requests is a pause."""
    try:
        asked = next(conversation)
        while True:
            asked = conversation.send(None if asked is None else send(asked))
    except StopIteration as end:
        return end.value


class Conversations:
    """Everything that can be asked of a server, and what must be remembered for it.

    Parameters
    ----------
    client : str
        Names this window; requests of the same client and structure overtake each other.
    piece : int
        Most bytes of an upload to send at once; less keeps a window that must not wait responsive.
    compress : bool
        Whether voxels may be compressed on the way where that is faster; never so on one computer.
    """

    def __init__(self, client: str, piece: int = PIECE, compress: bool = True):
        self.client = client
        self._pace = lambda: Pace(piece, compress)
        self._volumes: dict[str, Volume] = {}
        #: Why a study's series was not taken, for good, or "" where it was, by how the caller names the series.
        self._series: dict[str, dict[str, str]] = {}
        self._masks: OrderedDict[str, tuple[str | None, MaskPatch]] = OrderedDict()
        self._lock = threading.RLock()  # of the masks: `RemoteBackend` asks from several threads

    def models(self) -> Conversation[list[ModelCard]]:
        """The cards of the server's models, the default first."""
        reply = yield Request("GET", "/api/models")
        return [ModelCard.from_json(card) for card in check(reply).json()["models"]]

    # Studies

    @property
    def open_studies(self) -> list[str]:
        """The studies that were opened and not closed since, whose voxels are held here."""
        return [*self._volumes]

    def knows(self, study: str) -> bool:
        """Whether a study was opened; should the server have forgotten it, it is opened again where needed."""
        return study in self._volumes

    def open_study(self, volume: Volume, progress: Callable[[float], None] | None = None) -> Conversation[str]:
        """Make a volume known to the server, and its DICOM headers; sends what is not there yet.

        An upload that broke off goes on where it stopped. `progress` is told the share sent.
        """
        yield from self._tell(volume, progress)
        self._volumes[volume.study_id] = volume
        return volume.study_id

    def _tell(self, volume: Volume, progress: Callable[[float], None] | None = None) -> Conversation[tuple[str, bool]]:
        """As `open_study`, without remembering it; why the headers were not taken, and whether that is final."""
        study = volume.study_id
        reply = yield Request("HEAD", f"/api/studies/{study}")
        if reply.status != 200:
            yield from self._upload(study, volume, progress)
        if volume.dicom is not None and reply.headers.get(SERIES) != volume.dicom.identity:
            return (yield from self._send_series(study, volume.dicom))
        return "", True

    def said_of_series(self, study: str, name: str) -> str | None:
        """What `give_series` returned for a series, and would again; None when it is worth asking."""
        return self._series.get(study, {}).get(name)

    def note_series(self, study: str, name: str, said: str) -> None:
        """Remember what is said of a series, as long as the study is open."""
        if study in self._volumes:
            self._series.setdefault(study, {})[name] = said

    def give_series(self, volume: Volume, name: str) -> Conversation[str]:
        """Make the DICOM headers of an opened study known; returns why the server did not take them, or nothing.

        Labels can be saved all the same. A study that was closed meanwhile stays closed. `name` is any name of the
        series, by which `said_of_series` knows the answer if it is final.
        """
        study = volume.study_id
        refused, is_final = yield from self._tell(volume)
        if not refused and study in self._volumes:
            self._volumes[study] = volume
        if is_final:
            self.note_series(study, name, refused)
        return refused

    def _send_series(self, study: str, series: DicomSeries) -> Conversation[tuple[str, bool]]:
        packing, parts = zlib.compressobj(1), []
        for header in series.headers:
            parts.append(packing.compress(line_of(header)))
            yield None  # a window that must not wait goes on
        parts.append(packing.flush())
        headers = {"content-type": LINES_TYPE, "content-encoding": "deflate"}
        reply = yield Request("PUT", f"/api/studies/{study}/dicom", b"".join(parts), headers, seconds=300)
        try:
            check(reply)
        except ConnectionLostError:
            raise
        except AIAssistError as error:
            return str(error), reply.status in FINAL
        return "", True

    def series(self, study: str, geometry: Geometry) -> Conversation[DicomSeries | None]:
        """The DICOM headers that the server keeps of a study; None when it has none."""
        reply = yield Request("GET", f"/api/studies/{study}/dicom", seconds=300)
        return series_from_lines(check(reply).body, geometry) if reply.status != 404 else None

    def _upload(self, study: str, volume: Volume, progress) -> Conversation[None]:
        voxels, pace, stuck = voxels_as_bytes(volume), self._pace(), 0
        told = yield from self._announce(study, volume)
        while not told["whole"]:
            received = told["received"]
            piece = voxels[received : received + pace.size]
            body, headers = pace.pack(piece)
            began = time.perf_counter()
            headers |= {OFFSET: str(received), "content-type": "application/octet-stream"}
            reply = yield Request("PATCH", f"/api/studies/{study}/voxels", body, headers, seconds=300)
            pace.sent(len(piece), len(body), time.perf_counter() - began)
            if _unknown_study(reply):  # the server was restarted, or made room
                told = yield from self._announce(study, volume)
            elif reply.status == 409 and RECEIVED in reply.headers:  # another window sends it too
                told = {"received": int(reply.headers[RECEIVED]), "whole": False}
            else:
                told = check(reply).json()
            stuck = stuck + 1 if told["received"] <= received and not told["whole"] else 0
            if stuck > STUCK:
                raise UploadError(f"The upload stays at {received} of {len(voxels)} bytes; try again later.")
            if progress is not None:
                progress(1.0 if told["whole"] else told["received"] / len(voxels))

    def _announce(self, study: str, volume: Volume) -> Conversation[dict]:
        """How many bytes of a study the server has, and whether that is all."""
        reply = yield Request.of_json("PUT", f"/api/studies/{study}", study_to_json(volume))
        return check(reply).json()

    def fetch_study(self, study: str, progress: Callable[[float], None] | None = None) -> Conversation[Volume]:
        """Get a study that the server has, without its DICOM headers; `progress` is told the share received.

        `ConnectionLostError` when what arrives is not that study.
        """
        said = check((yield Request("GET", f"/api/studies/{study}"))).json()
        voxels, pace, received = _room_for(said), self._pace(), 0
        while received < len(voxels):
            began = time.perf_counter()
            query = f"start={received}&size={pace.size}"
            piece = check((yield Request("GET", f"/api/studies/{study}/voxels?{query}", seconds=300))).body
            if not 0 < len(piece) <= min(pace.size, len(voxels) - received):
                raise ConnectionLostError(f"The download broke off at {received} of {len(voxels)} bytes; try again.")
            voxels[received : received + len(piece)] = np.frombuffer(piece, np.uint8)
            received += len(piece)
            pace.sent(len(piece), len(piece), time.perf_counter() - began)
            if progress is not None:
                progress(received / len(voxels))
        volume = volume_from(said, voxels)
        if (yield from volume.hashing()) != study:
            raise ConnectionLostError(f"What arrived is not the study {study}; try again.")
        return volume

    def close_study(self, study: str) -> Conversation[None]:
        """Forget a study here; the server's own cache does what it likes."""
        self._volumes.pop(study, None)
        self._series.pop(study, None)
        return
        yield

    def put_mask(self, study: str, patch: MaskPatch, volume: Volume | None = None) -> Conversation[str]:
        """Make a mask known to the server; returns its version. `volume` is for a study that was closed meanwhile."""
        headers = {"content-type": PATCH_TYPE}
        message = Request("POST", f"/api/studies/{study}/masks", patch.to_bytes(), headers)
        reply = yield from self._ask(message, study, volume)
        version = check(reply).json()["version"]
        self._remember(version, None, patch)
        return version

    # Annotation and segmentation

    def annotate(
        self, request: AnnotateRequest, job: str, wanted: Callable[[], bool] = lambda: True
    ) -> Conversation[Annotation]:
        """Ask for a mask. A server that forgot the study or the base is told them once more."""
        if request.prompts.prior is not None:
            base = yield from self.put_mask(request.study, request.prompts.prior)
            request = replace(request, base=base, prompts=replace(request.prompts, prior=None))
        body = {**request_to_json(request), "client": request.client or self.client}
        message = Request.of_json("POST", f"/api/annotate?job={job}", body, seconds=600, wanted=wanted)
        reply = yield from self._ask(message, request.study)
        if _error_name(reply) == UnknownMaskError.__name__ and request.base in self._masks:
            yield from self.put_mask(request.study, self._whole(request.base))
            reply = yield message
        annotation = annotation_from_wire(check(reply))
        self._remember(annotation.version, annotation.base, annotation.patch)
        return annotation

    def segment(
        self, request: SegmentRequest, job: str, wanted: Callable[[], bool] = lambda: True
    ) -> Conversation[Segmentation]:
        """Ask for all that an automatic model finds. A server that forgot the study is told it once more."""
        body = {**segment_request_to_json(request), "client": request.client or self.client}
        message = Request.of_json("POST", f"/api/segment?job={job}", body, seconds=LONG, wanted=wanted)
        return segmentation_from_wire((yield from self._ask(message, request.study)))

    def _ask(self, message: Request, study: str, volume: Volume | None = None) -> Conversation[Reply]:
        """The reply; a server that forgot the study is told it once more."""
        volume = self._volumes.get(study, volume)
        reply = yield message
        if _unknown_study(reply) and volume is not None:
            yield from self._tell(volume)
            reply = yield message
        return reply

    def progress(self, job: str) -> Conversation[dict]:
        """Where a job stands: ``state``, ``position`` in the queue, ``phase`` and ``fraction``."""
        reply = yield Request("GET", f"/api/jobs/{job}")
        return check(reply).json()

    def cancel(self, job: str) -> Conversation[None]:
        """Stop a job before its next step."""
        check((yield Request("DELETE", f"/api/jobs/{job}")))

    def _remember(self, version: str, base: str | None, patch: MaskPatch) -> None:
        with self._lock:
            if version == base and version not in self._masks:
                return  # a click that changed nothing, on a mask that is not known here
            if base is not None:
                if base not in self._masks:
                    return  # it could not be put together again
                self._masks.move_to_end(base)
            self._masks.setdefault(version, (base, patch))  # one that led back to a mask leaves it the way it was made
            self._masks.move_to_end(version)
            while len(self._masks) > MASKS or (len(self._masks) > 1 and self._bytes() > MASK_MEMORY):
                oldest = next(iter(self._masks))
                whole = self._whole(oldest)
                del self._masks[oldest]
                for later, (its_base, its_patch) in self._masks.items():
                    if its_base == oldest:  # it needs its root no longer
                        self._masks[later] = (None, its_patch.over(whole))

    def _bytes(self) -> int:
        return sum(patch.voxels.nbytes for _base, patch in self._masks.values())

    def _whole(self, version: str) -> MaskPatch:
        """The mask of a version, put together from the patches that led to it."""
        chain = []
        with self._lock:
            while version is not None:
                if version not in self._masks:
                    raise UnknownMaskError(f"The mask {version} is forgotten here too; start the structure anew.")
                version, patch = self._masks[version]
                chain.append(patch)
        whole = None
        for patch in reversed(chain):
            whole = patch.over(whole)
        return whole

    # Contour and ground truth

    def contour(self, study: str, base: str, **pull) -> Conversation[tuple[MaskPatch, dict]]:
        """Pull a vertex of a mask's outline on the server; the patch, and what was done. See the API's page."""
        message = Request.of_json("POST", "/api/contour", {"study": study, "base": base, **pull})
        reply = yield from self._ask(message, study)
        if _error_name(reply) == UnknownMaskError.__name__ and base in self._masks:
            yield from self.put_mask(study, self._whole(base))
            reply = yield message
        said = answer_of(reply)
        patch = MaskPatch.from_bytes(reply.body)
        self._remember(said["version"], base, patch)
        return patch, said

    def truth(self, study: str | None = None) -> Conversation[list[dict]]:
        """The studies of the store, or all label versions of one."""
        reply = yield Request("GET", "/api/truth" if study is None else f"/api/truth/{study}")
        return check(reply).json()["studies" if study is None else "versions"]

    def next_study(self, current: str | None) -> Conversation[str | None]:
        """Be given the next study to do, which nobody else is given then; its id, or None when there is none."""
        reply = yield Request.of_json("POST", "/api/truth/next", {"current": current})
        return check(reply).json()["study"]

    @property
    def keeper(self) -> Conversations:
        """Whoever ground truth is saved with; in Slicer's own process that is another."""
        return self

    def save(
        self, study: str, structure: str, mask: MaskPatch, volume: Volume | None = None, **details
    ) -> Conversation[dict]:
        """Save a mask as ground truth; returns the new version. With `volume` also of a study that was closed.

        Details: ``name`` of the study when it is new, ``model``, ``model_version``, ``prompts``, ``seconds``,
        ``edits``, ``comment``, ``state``, ``author`` (only where nobody but the caller may use the server), ``parent``
        (number of the version it was made from, 0 for the first: with it,
        a save whose answer was lost is tried again and saved once).
        """
        version = yield from self.put_mask(study, mask, volume)
        path, again = f"/api/truth/{study}/{in_path(structure)}", details.get("parent") is not None
        said = {name: value for name, value in details.items() if value is not None}
        message = Request.of_json("POST", path, {**said, "mask": version}, seconds=300, repeatable=again)
        reply = yield message
        if _error_name(reply) in (UnknownMaskError.__name__, UnknownStudyError.__name__):  # the server was restarted
            yield from self.put_mask(study, mask, volume)
            reply = yield message
        return check(reply).json()

    def saved(self, study: str, structure: str, number: int) -> Conversation[MaskPatch]:
        """The mask of a saved version."""
        reply = yield Request("GET", f"/api/truth/{study}/{in_path(structure)}/{number}", seconds=300)
        return MaskPatch.from_bytes(check(reply).body)

    def restore(self, study: str, structure: str, number: int) -> Conversation[dict]:
        """Make an old version the newest again."""
        path = f"/api/truth/{study}/{in_path(structure)}/{number}/restore"
        reply = yield Request("POST", path, repeatable=False, seconds=300)
        return check(reply).json()

    def review(
        self, study: str, structure: str, number: int, state: str, comment: str = "", author: str | None = None
    ) -> Conversation[dict]:
        """Approve or reject the newest version of a label, for an admin; ``state`` is "approved" or "rejected".

        `author` is who reviews, only where nobody but the caller may use the server.
        """
        path = f"/api/truth/{study}/{in_path(structure)}/{number}/review"
        body = {"state": state, "comment": comment} | ({"author": author} if author is not None else {})
        return check((yield Request.of_json("POST", path, body, repeatable=False))).json()


class Pace:
    """How long the pieces of an upload are, and whether compressing them is faster than sending them."""

    def __init__(self, most: int = PIECE, compress: bool = True):
        self.size = min(FIRST, most)
        self._most, self._compress = most, compress
        self._bytes_per_second = 0.0

    def pack(self, piece: memoryview) -> tuple[bytes | memoryview, dict[str, str]]:
        """The body of a piece and its headers."""
        if len(piece) and self._compress and self._bytes_per_second and self._pays(piece):
            return zlib.compress(piece, 1), {"content-encoding": "deflate"}
        return piece, {}

    def _pays(self, piece: memoryview) -> bool:
        sample = piece[:SAMPLE]
        began = time.perf_counter()
        share = len(zlib.compress(sample, 1)) / len(sample)
        compressing = (time.perf_counter() - began) / len(sample)
        return compressing + share / self._bytes_per_second < 1 / self._bytes_per_second

    def sent(self, held: int, travelled: int, seconds: float) -> None:
        """Learn from a piece that was sent."""
        seconds = max(seconds, 1e-4)
        self._bytes_per_second = travelled / seconds
        self.size = min(max(FIRST // 4, int(held / seconds * PACE)), self._most)


def _room_for(said: dict) -> np.ndarray:
    """An array for the bytes of a study as a server describes it."""
    try:
        due = study_bytes(said)
        geometry_from(said)
        return np.empty(due, np.uint8)
    except (KeyError, TypeError, ValueError) as error:
        raise ConnectionLostError("The server describes the study in a way that is none; try again.") from error
    except MemoryError as error:
        raise ConnectionLostError(f"The study has {due:,} bytes, too many for this computer's memory.") from error


def _error_name(reply: Reply) -> str | None:
    if reply.status < 400:
        return None
    try:
        return reply.json().get("error")
    except (AIAssistError, AttributeError):
        return None


def _unknown_study(reply: Reply) -> bool:
    return _error_name(reply) == UnknownStudyError.__name__
