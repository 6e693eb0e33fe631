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


@pytest.mark.parametrize(
    ("limits", "status", "said"),
    [
        (Limits(small=1000, body=1000), 413, b"A request may have 1,000 bytes here."),
        (Limits(unanswered=1000), 429, b"600 bytes of requests of yours are not answered yet, of 1,000 at most"),
    ],
    ids=["large", "much"],
)
@pytest.mark.parametrize("path", ["/api/truth/next", "/infer/network"])
def test_a_route_that_reads_json_says_too_large_or_too_much_as_well(tmp_path, path, limits, status, said):
    service, replies = Service(Settings(tmp_path)), []
    app = make_app(service, Tokens(own=(Person("me", "admin"), "secret")), limits)

    async def receive():
        return {"type": "http.request", "body": b" " * 600, "more_body": True}

    async def send(message):
        replies.append(message)

    headers = [(b"authorization", b"Bearer secret"), (b"content-type", b"application/json")]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b""}
    asyncio.run(app(scope, receive, send))
    service.close()
    assert replies[0]["status"] == status and said in replies[1]["body"]


def statuses(guard: Guard, bodies: list[dict], path: str, headers: tuple = ()) -> list[int]:
    """What is answered to requests whose bodies these are, each sent when the ones before wait for their ends."""
    replies = []

    async def ask(body):
        pieces, end = [body], asyncio.Event()
        ends.append(end)

        async def receive():
            if not pieces:
                await end.wait()
            return pieces.pop() if pieces else {"type": "http.request", "body": b"", "more_body": False}

        async def send(message):
            if message["type"] == "http.response.start":
                replies.append(message["status"])

        said = [(b"authorization", b"Bearer secret"), *headers]
        await guard({"type": "http", "method": "POST", "path": path, "headers": said}, receive, send)

    async def all_of_them():
        asked = []
        for body in bodies:
            asked.append(asyncio.create_task(ask(body)))
            await asyncio.sleep(0.01)
        for end in ends:
            end.set()
        await asyncio.gather(*asked)

    ends: list[asyncio.Event] = []
    asyncio.run(all_of_them())
    return replies


FORM = (b"content-type", b"multipart/form-data; boundary=x")


@pytest.mark.parametrize(
    ("path", "headers", "refused"),
    [
        ("/api/studies/a/masks", (), 1),
        ("/api/annotate", (), 1),
        ("/infer/a", (), 1),
        ("/infer/a", (FORM,), 2),  # on the disk, of which there is more
        ("/api/studies/a/voxels", (), 0),  # written as they come
        ("/api/studies/a/masks", ((b"content-encoding", b"deflate"),), 4),  # each may become 64 MiB
    ],
)
def test_of_one_persons_bodies_only_so_many_bytes_are_held_at_once(path, headers, refused):
    guard, _ = guarded(Limits(unanswered=3500, files=2500))
    body = {"type": "http.request", "body": bytes(1000), "more_body": True}
    for _ in range(2):  # all are answered then, so that as many may come again
        assert statuses(guard, [body] * 4, path, headers) == [429] * refused + [200] * (4 - refused)


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
