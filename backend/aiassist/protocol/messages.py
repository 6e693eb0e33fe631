"""What the messages of the native API say, as JSON and bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from urllib.parse import quote

import numpy as np

from aiassist import errors
from aiassist.engine.backend import AnnotateRequest, Annotation, Answer, Segmentation, SegmentRequest
from aiassist.errors import AIAssistError, Cancelled, ConnectionLostError, UploadError
from aiassist.imaging import Geometry, MaskPatch, Volume
from aiassist.prompts import Prompts
from aiassist.protocol.wire import Reply

#: Content type of `MaskPatch.to_bytes`.
PATCH_TYPE = "application/vnd.aiassist.patch"
#: Header with all that an answer says beside its patch, as JSON.
ANSWER = "aiassist-answer"
#: Header with the number of bytes of a study that have arrived.
RECEIVED = "aiassist-received"
#: Header with the place of an upload's piece among the study's bytes.
OFFSET = "aiassist-offset"
#: Header with the identity of the DICOM headers that are kept of a study; absent when there are none.
SERIES = "aiassist-series"
#: Most bytes of a piece of an upload, as it lies in memory.
PIECE = 64 * 2**20
#: Types of voxels that travel.
DTYPES = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float32", "float64")

_STATUS = {
    errors.UnknownStudyError: 404,
    errors.UnknownMaskError: 404,
    errors.UnknownModelError: 404,
    errors.NotStoredError: 404,
    errors.NotNewestError: 409,
    errors.BrokenStoreError: 500,
    errors.BusyError: 503,
    errors.DeviceMemoryError: 507,
    errors.RoomError: 507,
    errors.AccessError: 403,
    errors.SeriesError: 409,
    Cancelled: 409,
}
#: What a proxy answers for a server that it cannot reach, or that does not answer in time.
_OF_PROXIES = (502, 503, 504)


# Addresses


def in_path(name: str) -> str:
    """A structure's name as a part of an address.

    Servers take ``%2F`` in an address for a slash before they look where the parts end, so a slash is escaped twice,
    and so are the dots of ``.`` and ``..``, which mean folders wherever an address is read.
    """
    escaped = name.replace("%", "%25").replace("/", "%2F")
    return quote(escaped.replace(".", "%2E") if name in (".", "..") else escaped, safe="")


def from_path(part: str) -> str:
    """The name of which `in_path` made a part of an address, as servers see it."""
    for escaped, character in (("%2F", "/"), ("%2f", "/"), ("%2E", "."), ("%2e", "."), ("%25", "%")):
        part = part.replace(escaped, character)
    return part


# Errors


def status_of(error: Exception) -> int:
    """The HTTP status that tells of an error."""
    return next((status for kind, status in _STATUS.items() if isinstance(error, kind)), 422)


def error_to_json(error: Exception) -> dict:
    """An error as the body of a reply."""
    return {"error": type(error).__name__, "message": str(error)}


def check(reply: Reply) -> Reply:
    """The reply, when it is good; else raise the error that it tells of."""
    if reply.status < 300:
        return reply
    try:
        data = reply.json()
        name, message = str(data["error"]), str(data["message"])
    except (ValueError, KeyError, TypeError):
        raise ConnectionLostError(_said_by_others(reply.status)) from None
    if name == "Cancelled":
        raise Cancelled(message)
    kind = getattr(errors, name, None)
    known = isinstance(kind, type) and issubclass(kind, AIAssistError) and kind is not errors.MissingExtraError
    raise (kind if known else AIAssistError)(message)


def _said_by_others(status: int) -> str:
    """What a reply means that no AIAssist server made."""
    if status in _OF_PROXIES:
        return (
            f"The proxy before the server answered {status}: the server does not run, or takes too long; "
            "try again later, and ask its administrator."
        )
    return f"The server answered {status} without saying why; is its address that of an AIAssist server?"


# Studies


def study_to_json(volume: Volume) -> dict:
    """Size, type and place of a volume's voxels; `UploadError` for a type of voxel that does not travel."""
    if volume.voxels.dtype.name not in DTYPES:
        raise UploadError(f"Voxels of type {volume.voxels.dtype} do not travel; make them float32 first.")
    return {
        "shape": list(volume.shape),
        "dtype": volume.voxels.dtype.name,
        "affine": volume.geometry.affine.tolist(),
    }


def study_bytes(data: Mapping) -> int:
    """How many bytes of voxels follow; `UploadError` for shapes and types that no study has."""
    shape, dtype = data["shape"], data["dtype"]
    if dtype not in DTYPES:
        raise UploadError(f"Voxels of type {dtype!r} do not travel; use one of {', '.join(DTYPES)}.")
    if len(shape) != 3 or min(shape) < 1:
        raise UploadError(f"A study has three axes of one voxel or more, not the shape {list(shape)}.")
    return int(np.prod([int(n) for n in shape], dtype=object)) * np.dtype(dtype).itemsize


def voxels_as_bytes(volume: Volume) -> memoryview:
    """The voxels in C order ``(k, j, i)``, little-endian; no copy where they lie so already."""
    little = np.ascontiguousarray(volume.voxels, volume.voxels.dtype.newbyteorder("<"))
    return memoryview(little.reshape(-1)).cast("B")


def geometry_from(data: Mapping) -> Geometry:
    """The geometry of `study_to_json`."""
    return Geometry(tuple(data["shape"]), np.array(data["affine"], dtype=float))


def volume_from(data: Mapping, voxels: np.ndarray) -> Volume:
    """The volume of `study_to_json` and its bytes (an array of uint8)."""
    array = voxels.view(np.dtype(data["dtype"]).newbyteorder("<")).reshape(data["shape"])
    return Volume(array, geometry_from(data))


# Annotation and segmentation


def request_to_json(request: AnnotateRequest) -> dict:
    """An annotation request as JSON."""
    data = {name: getattr(request, name) for name in ("study", "base", "structure", "model", "client")}
    return {**{k: v for k, v in data.items() if v is not None}, "prompts": request.prompts.to_json()}


def request_from_json(data: Mapping) -> AnnotateRequest:
    """Read what `request_to_json` wrote."""
    named = {name: data[name] for name in ("study", "base", "structure", "model", "client") if data.get(name)}
    return AnnotateRequest(prompts=Prompts.from_json(data["prompts"]), **named)


def segment_request_to_json(request: SegmentRequest) -> dict:
    """A segmentation request as JSON."""
    return asdict(request)


def segment_request_from_json(data: Mapping) -> SegmentRequest:
    """Read what `segment_request_to_json` wrote."""
    return SegmentRequest(data["study"], data["model"], data.get("client", ""))


def answer_to_wire(answer: Answer) -> tuple[dict[str, str], bytes]:
    """Headers and body of an answer."""
    said = {name: getattr(answer, name) for name in answer.__dataclass_fields__ if name != "patch"}
    said["seconds"] = {phase: round(seconds, 6) for phase, seconds in said["seconds"].items()}
    return {"content-type": PATCH_TYPE, ANSWER: json.dumps(said)}, answer.patch.to_bytes()


def annotation_from_wire(reply: Reply) -> Annotation:
    """Read what `answer_to_wire` wrote of an annotation."""
    return _answer_from_wire(reply, Annotation)


def segmentation_from_wire(reply: Reply) -> Segmentation:
    """Read what `answer_to_wire` wrote of a segmentation."""
    return _answer_from_wire(reply, Segmentation)


def _answer_from_wire(reply: Reply, kind: type[Answer]) -> Answer:
    said = answer_of(reply)
    known = {name: said[name] for name in kind.__dataclass_fields__ if name in said}
    return kind(patch=MaskPatch.from_bytes(reply.body), **known)


def answer_of(reply: Reply) -> dict:
    """What an answer says beside its patch; `ConnectionLostError` when it says nothing."""
    check(reply)
    try:
        return json.loads(reply.headers[ANSWER])
    except (KeyError, ValueError):
        raise ConnectionLostError(
            "The answer holds no mask; a proxy between here and the server may have changed it."
        ) from None
