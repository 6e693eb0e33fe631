"""Stands before every route: who asks, how often, how much."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import unquote

from starlette.exceptions import HTTPException

from aiassist.server.incoming import FORMS, Incoming
from aiassist.server.outgoing import CrowdedError, Outgoing, UnreadError
from aiassist.server.tokens import Person, Tokens

log = logging.getLogger("aiassist.server")

#: Open to all: they say nothing of studies or people.
PUBLIC = {"/", "/api/health", "/docs", "/openapi.json", "/auth/", "/auth/token"}
#: Routes that end in a slash; no other does.
FOLDERS = {"/info", "/session", "/datastore", "/logs", "/auth", "/train"}
#: Clients that cannot send headers put their token here: /t/TOKEN/v1/models.
TOKEN_PATH = "/t/"
#: Routes to which images, masks and DICOM headers travel.
LARGE = re.compile(rf"/api/studies/[^/]+/(voxels|masks|dicom)$|{FORMS}")
#: Bytes of a request that needs no token.
PASSWORD = 2**14
#: Seconds added to an answer for each failed try of an address, at most, and how soon failures are forgotten.
SLOWER, SLOWEST, FORGET = 0.1, 5.0, 300.0
#: Addresses remembered.
ADDRESSES = 4096


@dataclass
class Limits:
    """What one person may ask for.

    ``body`` bytes of a request that may hold an image, ``small`` of all others, ``rate`` requests a second with
    ``burst`` at once, ``wait`` seconds between two pieces of a request's body or of an answer, ``whole`` seconds for
    all of a body, ``unread`` bytes of large answers on their way, ``unanswered`` bytes of requests' bodies in memory,
    and ``files`` bytes of them on the disk.
    """

    body: int = 2 * 2**30
    small: int = 8 * 2**20
    rate: float = 200.0
    burst: float = 400.0
    wait: float = 60.0
    whole: float = 3600.0
    unread: int = 256 * 2**20
    unanswered: int = 256 * 2**20
    files: int = 4 * 2**30


class _RevokedError(Exception):
    """A token was shut out while its request was answered; nothing of the answer was sent."""


@dataclass
class _Tries:
    failed: int = 0
    latest: float = 0.0


@dataclass
class _Bucket:
    left: float
    at: float = field(default_factory=time.monotonic)


class Guard:
    """ASGI middleware: lets in who shows a token, slows who fails, and writes one line of log a request.

    The log names the route and the person, never the path or the query, which may hold a patient's name.
    """

    def __init__(self, app, tokens: Tokens, limits: Limits):
        self.app, self.tokens, self.limits = app, tokens, limits
        self._tries: OrderedDict[str, _Tries] = OrderedDict()
        self._buckets: dict[str, _Bucket] = {}
        self._outgoing = Outgoing(limits.wait, limits.unread)
        self._incoming = Incoming(limits.unanswered, limits.files)

    async def __call__(self, scope, receive, send):
        """See the ASGI specification."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 0

        async def watched(message):
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        person = None
        try:
            scope, token = _split_token(scope)
            person = self.tokens.person(token) if token else None
            refusal = await self._refuse(scope, person, token)
            if refusal is not None:
                await _answer(watched, *refusal)
                return
            scope.setdefault("state", {})["person"] = person
            who = person.name if person else "-"
            sender = self._outgoing.sender(who, self._while_known(token, watched))
            with self._incoming.counted(who, scope) as count:
                async with asyncio.timeout(None) as clock:
                    await self.app(scope, self._patient(receive, clock, self._most(scope), count), sender)
        except HTTPException as error:  # of a body that came for too long, or while too much of others is here
            if status == 0:
                headers = [(name.encode(), value.encode()) for name, value in (error.headers or {}).items()]
                await _answer(watched, error.status_code, "HTTPError", error.detail, headers)
        except TimeoutError:
            if status == 0:
                await _answer(watched, 408, "UploadError", _STOPPED)
        except _RevokedError:
            await _answer(watched, *_UNKNOWN)
        except CrowdedError as error:
            await _answer(watched, 429, "BusyError", str(error), _LATER)
        except UnreadError:  # the web server closes a connection whose answer stays without an end
            log.warning("somebody read nothing of an answer for %.0f s and was given up", self.limits.wait)
        except Exception:  # a fault of ours, which is told and logged farther out
            status = status or 500
            raise
        finally:
            route = getattr(scope.get("route"), "path", "-")
            took = 1000 * (time.perf_counter() - began)
            log.info("%s %s %s %.0f ms %s", scope["method"], route, status, took, person.name if person else "-")

    async def _refuse(self, scope, person: Person | None, token: str | None):
        """Status, error, message and headers of a refusal; None for who may pass."""
        address = scope["client"][0] if scope.get("client") else "-"
        if person is None and token is not None:
            if not self._within_rate(f"wrong {address}"):
                return 429, "BusyError", "Too many requests; try again in a second.", _LATER
            await self._slow_down(address)
            return _UNKNOWN
        if person is None and scope["path"] not in PUBLIC:
            return 401, "AccessError", "This server needs a token: Authorization: Bearer TOKEN.", _ASK
        length = dict(scope["headers"]).get(b"content-length", b"0")
        most = self._most(scope)
        if not length.isdigit() or int(length) > most:
            return 413, "UploadError", _too_large(most), ()
        if not self._within_rate(person.name if person else address):
            return 429, "BusyError", "Too many requests; try again in a second.", _LATER
        return None

    def _while_known(self, token: str | None, send):
        """`send` that begins no answer to a token that was revoked since the request came."""

        async def checked(message):
            if message["type"] == "http.response.start" and self.tokens.person(token) is None:
                raise _RevokedError
            await send(message)

        return send if token is None else checked

    async def _slow_down(self, address: str) -> None:
        now = time.monotonic()
        tries = self._tries.setdefault(address, _Tries())
        self._tries.move_to_end(address)
        while len(self._tries) > ADDRESSES:
            self._tries.popitem(last=False)
        if now - tries.latest > FORGET:
            tries.failed = 0
        tries.failed, tries.latest = tries.failed + 1, now
        log.warning("a wrong token came from %s, try %d", address, tries.failed)
        await asyncio.sleep(min(SLOWER * 2 ** min(tries.failed, 10), SLOWEST))

    def _most(self, scope) -> int:
        """Bytes that the body of a request may have: images travel to few routes, a token to one."""
        if scope["path"] in PUBLIC:
            return PASSWORD
        return self.limits.body if LARGE.match(scope["path"]) else self.limits.small

    def _within_rate(self, who: str) -> bool:
        now = time.monotonic()
        bucket = self._buckets.setdefault(who, _Bucket(self.limits.burst))
        bucket.left = min(self.limits.burst, bucket.left + (now - bucket.at) * self.limits.rate)
        bucket.at = now
        if len(self._buckets) > ADDRESSES:
            self._buckets = {w: b for w, b in self._buckets.items() if now - b.at < 60}
        if bucket.left < 1:
            return False
        bucket.left -= 1
        return True

    def _patient(self, receive, clock: asyncio.Timeout, most: int, count: Callable[[int], None]):
        """`receive` that sets the clock on a client that stops in its body or trickles it, and counts its bytes.

        What it refuses is an `HTTPException`: routes let pass what has a status, and hide all else.
        """
        now = asyncio.get_running_loop().time

        async def next_piece():
            nonlocal waiting, left
            if waiting:
                clock.reschedule(min(now() + self.limits.wait, end))
            message = await receive()
            waiting = waiting and message.get("more_body", False)
            clock.reschedule(None)
            size = len(message.get("body", b""))
            left -= size
            if left < 0:
                raise HTTPException(413, _too_large(most))
            count(size)
            return message

        waiting, left, end = True, most, now() + self.limits.whole
        return next_piece


def _too_large(most: int) -> str:
    return f"A request may have {most:,} bytes here."


_STOPPED = "The request stopped in its middle, or took too long; send it again."
_LATER = ((b"retry-after", b"1"),)
_ASK = ((b"www-authenticate", b'Bearer realm="aiassist"'),)
_UNKNOWN = 401, "AccessError", "This token is not known here; ask the server's administrator for one.", _ASK


def _at(scope, path: str) -> dict:
    return dict(scope, path=path, raw_path=path.encode("utf8", "surrogateescape"))


def _routed(path: str) -> str:
    """A path with the slash at its end that its route has, whatever the client wrote: a redirect loses the token."""
    bare = path.rstrip("/")
    return f"{bare}/" if bare in FOLDERS or not bare else bare


def _split_token(scope) -> tuple[dict, str | None]:
    """The scope without a token in its path, and the token, from the path or the header."""
    path = scope["path"]
    if path.startswith(TOKEN_PATH):
        token, _, rest = path[len(TOKEN_PATH) :].partition("/")
        return _at(scope, _routed(f"/{rest}")), unquote(token)
    scope = _at(scope, _routed(path)) if _routed(path) != path else scope
    header = dict(scope["headers"]).get(b"authorization", b"").decode("latin-1")
    kind, _, value = header.partition(" ")
    if kind.lower() == "bearer":
        return scope, value.strip()
    if kind.lower() == "basic":  # the token is the password; the name is whatever the client wants it to be
        try:
            return scope, base64.b64decode(value, validate=True).decode("utf8").partition(":")[2]
        except ValueError:  # no base64, or no text
            return scope, ""
    return scope, None


async def _answer(send, status: int, error: str, message: str, headers=()) -> None:
    body = json.dumps({"error": error, "message": message}).encode()
    start = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *headers]
    await send({"type": "http.response.start", "status": status, "headers": start})
    await send({"type": "http.response.body", "body": body})
