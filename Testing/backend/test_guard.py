"""What stands before every route: limits, rates, clients that stop, strange headers."""

from __future__ import annotations

import asyncio

import pytest

from aiassist.server.app import make_app
from aiassist.server.guard import Guard, Limits
from aiassist.server.service import Service, Settings
from aiassist.server.tokens import Person, Tokens


def guarded(limits: Limits, messages: list[dict] | None = None, path: str = "/api/models", length: bytes = b"5"):
    """What the guard answers a person whose body comes in these messages, the last one never."""
    replies = []

    async def app(scope, receive, send):
        while (await receive()).get("more_body"):
            pass
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def ask(guard):
        waiting = list(messages or [{"type": "http.request", "body": b"", "more_body": False}])

        async def receive():
            return waiting.pop(0) if waiting else await asyncio.sleep(3600)

        async def send(message):
            replies.append(message)

        headers = [(b"authorization", b"Bearer secret"), (b"content-length", length)]
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "client": ("10.0.0.1", 1)}
        await guard(scope, receive, send)
        return next(m["status"] for m in replies[::-1] if m["type"] == "http.response.start")

    guard = Guard(app, Tokens(own=(Person("me", "admin"), "secret")), limits)
    return guard, ask


def test_a_client_that_stops_in_the_middle_is_given_up():
    guard, ask = guarded(Limits(wait=0.05), [{"type": "http.request", "body": b"ab", "more_body": True}])
    assert asyncio.run(ask(guard)) == 408


@pytest.mark.parametrize(("pieces", "status"), [(2, 200), (10**6, 408)])
def test_a_client_that_trickles_is_given_up(pieces, status):
    guard, ask = guarded(Limits(wait=20, whole=0.3))
    came: list[int] = []

    async def trickled(scope, _receive, send):
        async def receive():
            await asyncio.sleep(0.01)
            came.append(1)
            return {"type": "http.request", "body": b"", "more_body": len(came) < pieces}

        await guard(scope, receive, send)

    assert asyncio.run(ask(trickled)) == status


@pytest.mark.parametrize("size", [5, 2**20])
def test_a_client_that_never_reads_is_given_up(size):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": bytes(size)})
        finished.append(True)

    async def send(message):
        if message["type"] == "http.response.body":
            await asyncio.sleep(3600)

    finished = []
    guard = Guard(app, Tokens(own=(Person("me", "admin"), "secret")), Limits(wait=0.05))
    headers = [(b"authorization", b"Bearer secret")]
    scope = {"type": "http", "method": "GET", "path": "/api/models", "headers": headers, "client": ("10.0.0.1", 1)}
    asyncio.run(asyncio.wait_for(guard(scope, None, send), 5))
    assert not finished


def test_too_many_requests_wait():
    guard, ask = guarded(Limits(rate=1, burst=3))

    async def several():
        return [await ask(guard) for _ in range(5)]

    assert asyncio.run(several()) == [200, 200, 200, 429, 429]


@pytest.mark.parametrize("length", [b"99999999", b"-1", b"1e9", b"\xff"])
def test_a_body_beyond_the_limit_is_refused_before_it_is_read(length):
    guard, ask = guarded(Limits(body=1000), length=length)
    assert asyncio.run(ask(guard)) == 413


def test_a_body_without_a_length_is_counted_as_it_comes():
    pieces = [{"type": "http.request", "body": bytes(600), "more_body": True}] * 3
    guard, ask = guarded(Limits(small=1000), pieces, path="/api/annotate", length=b"0")
    assert asyncio.run(ask(guard)) == 413


@pytest.mark.parametrize("path", ["/api/truth/next", "/infer/network"])
def test_a_route_that_reads_json_says_too_large_as_well(tmp_path, path):
    service, replies = Service(Settings(tmp_path)), []
    app = make_app(service, Tokens(own=(Person("me", "admin"), "secret")), Limits(small=1000, body=1000))

    async def receive():
        return {"type": "http.request", "body": b" " * 600, "more_body": True}

    async def send(message):
        replies.append(message)

    headers = [(b"authorization", b"Bearer secret"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    service.close()
    assert replies[0]["status"] == 413 and b"A request may have 1,000 bytes here." in replies[1]["body"]


@pytest.mark.parametrize(
    "path", ["/api/annotate", "/api/segment", "/api/contour", "/api/truth/a/b", "/api/studies/a", "/train/"]
)
def test_what_holds_no_image_is_small(path):
    guard, ask = guarded(Limits(), path=path, length=b"9000000")
    assert asyncio.run(ask(guard)) == 413


@pytest.mark.parametrize(
    "path", ["/api/studies/a/voxels", "/api/studies/a/masks", "/session/", "/datastore/", "/v1/dextr3d", "/infer/a"]
)
def test_what_holds_an_image_may_be_large(path):
    guard, ask = guarded(Limits(), path=path, length=b"9000000")
    assert asyncio.run(ask(guard)) == 200


@pytest.mark.parametrize("header", [b"Basic \xe9", b"Basic !!!", b"Bearer", b"\xff\xfe", b""])
def test_a_strange_header_is_no_token(header):
    replies = []

    async def send(message):
        replies.append(message)

    guard = Guard(None, Tokens(own=(Person("me", "admin"), "secret")), Limits())
    scope = {"type": "http", "method": "GET", "path": "/api/models", "headers": [(b"authorization", header)]}
    asyncio.run(guard(scope, None, send))
    assert replies[0]["status"] == 401
