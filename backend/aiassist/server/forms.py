"""The multipart forms that AIAA and MONAI Label clients send and expect."""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fastapi import Request, Response
from starlette.datastructures import UploadFile

from aiassist.errors import ImageError, UploadError
from aiassist.imaging import Geometry, Volume, read_volume, write_volume
from aiassist.imaging.limits import at_most
from aiassist.server.exchange import body_of
from aiassist.server.untrusted import check_untrusted

#: Endings of images that are taken; whatever else a client calls its file is read as NIfTI.
_ENDING = re.compile(r"(\.nii\.gz|\.nii|\.seg\.nrrd|\.nrrd|\.mha|\.png|\.jpe?g|\.tiff?|\.dcm)$", re.IGNORECASE)
#: Types of voxels a mask may be asked for in.
_DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")
#: Bytes of a form's text part.
TEXT = 16 * 2**20


@dataclass
class Form:
    """A form's JSON parameters and its files, see `read_image`."""

    params: dict = field(default_factory=dict)
    files: dict[str, UploadFile] = field(default_factory=dict)

    @property
    def image(self) -> UploadFile | None:
        """The image that is no label; clients call it datapoint, image, file, files or image0."""
        return next((file for name, file in self.files.items() if name != "label"), None)


def form_with(*files: str) -> dict:
    """What OpenAPI is told of a form with parameters and files."""
    image = {"type": "string", "format": "binary", "description": "An image; its name's ending says of what kind"}
    parts = {"params": {"type": "string", "description": "A JSON object"}, **dict.fromkeys(files, image)}
    content = {"multipart/form-data": {"schema": {"type": "object", "properties": parts}}}
    return {"requestBody": {"content": content}}


@asynccontextmanager
async def form_of(request: Request) -> AsyncIterator[Form]:
    """A form, whose files are there until the block ends.

    `UploadError` when its parameters are no JSON object, or several files have one name.
    """
    if "multipart/form-data" not in request.headers.get("content-type", "").lower():
        yield Form(await asyncio.to_thread(_params, await body_of(request, TEXT)))
        return
    found = Form()
    async with request.form(max_files=4, max_fields=16, max_part_size=TEXT) as parts:
        for name, part in parts.multi_items():
            if isinstance(part, UploadFile) and name in found.files:
                raise UploadError(
                    f"There are several files {name[:40]!r} in the request; send a series as one file (NIfTI, NRRD)."
                )
            if isinstance(part, UploadFile):
                found.files[name] = part
            elif name == "params":
                found.params = await asyncio.to_thread(_params, part.encode())
        yield found


def _params(text: bytes) -> dict:
    try:
        params = json.loads(text or b"{}")
    except (ValueError, RecursionError):
        raise UploadError("The part params is no JSON.") from None
    if not isinstance(params, dict):
        raise UploadError(f"The part params is {type(params).__name__}, not a JSON object.")
    return params


def read_image(part: UploadFile, most: int) -> Volume:
    """The image of a file, of at most so many bytes once it is unpacked; `UploadError` when it is none.

    Of the name that the client gives it only a known ending is used.
    """
    ending = _ENDING.search(part.filename or "")
    with tempfile.TemporaryDirectory(prefix="aiassist-") as folder:
        path = Path(folder) / f"image{ending.group().lower() if ending else '.nii.gz'}"
        with path.open("wb") as file:
            while piece := part.file.read(2**22):
                file.write(piece)
        check_untrusted(path)
        try:
            with at_most(most):
                return read_volume(path)
        except ImageError as error:
            raise UploadError(str(error).replace(str(path), "The image")) from error


def name_of_file(part: UploadFile) -> str:
    """What a client calls an image that it gives no other name: its file's name, without folders and ending."""
    name = re.split(r"[/\\\\]", part.filename or "")[-1]
    return _ENDING.sub("", name)[:200]


def image_bytes(voxels: np.ndarray, geometry: Geometry, params: dict, default: str) -> tuple[bytes, str]:
    """A mask or image as the file that the client asked for, and its ending.

    The client's parameters are ``result_extension``, ``result_dtype`` and ``result_compress``. What is not said to stay
    as it is, is compressed: all clients that do not say read that, and it is far less.
    """
    ending = str(params.get("result_extension") or default)
    flat = len(voxels) == 1
    if ending.lower() not in (".nii.gz", ".nii", ".nrrd", ".mha", *((".png", ".tif") if flat else ())):
        raise UploadError(f"The result cannot be a {ending[:20]!r}; ask for .nrrd, .nii.gz or .mha.")
    voxels, compress = _as_type(voxels, params), _flag(params, "result_compress", True)
    with tempfile.TemporaryDirectory(prefix="aiassist-") as folder:
        path = Path(folder) / f"result{ending.lower()}"
        try:
            write_volume(path, Volume(voxels, geometry), compress)
        except ImageError as error:
            raise UploadError(str(error).replace(str(path), "The result")) from error
        return path.read_bytes(), ending.lower()


def _as_type(voxels: np.ndarray, params: dict) -> np.ndarray:
    """The voxels in the type that the client asked for; `UploadError` when it cannot hold them."""
    name = str(params.get("result_dtype") or "")
    if not name:
        return voxels
    if name not in _DTYPES:
        raise UploadError(f"The result cannot have voxels of type {name[:20]!r}; ask for one of {', '.join(_DTYPES)}.")
    made = voxels.astype(name)
    if not np.array_equal(made, voxels):
        raise UploadError(f"The result has values up to {voxels.max()}, which {name} cannot hold; ask for int32.")
    return made


def _flag(params: dict, name: str, usual: bool) -> bool:
    """A yes or no of JSON, or of an address, where it is text."""
    value = params.get(name)
    said = {None: usual, "true": True, "false": False}
    key = str(value).lower() if value is not None else None
    if key not in said:
        raise UploadError(f"The parameter {name} is {str(value)[:20]!r}; it is true or false.")
    return said[key]


def form_reply(params: dict, file: tuple[bytes, str] | None, name: str = "result") -> Response:
    """Parameters and a file as multipart/form-data, of a known length."""
    limit = uuid.uuid4().hex
    parts = [b'Content-Disposition: form-data; name="params"\r\n\r\n' + json.dumps(params).encode()]
    if file is not None:
        head = f'Content-Disposition: form-data; name="file"; filename="{name}{file[1]}"\r\n'
        parts.append(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode() + file[0])
    body = b"".join(b"--%s\r\n%s\r\n" % (limit.encode(), part) for part in parts) + b"--%s--\r\n" % limit.encode()
    return Response(body, media_type=f"multipart/form-data; boundary={limit}")
