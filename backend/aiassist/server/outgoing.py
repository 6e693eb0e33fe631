"""Answers on their way to clients, who may read them slowly or never."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

#: Bytes of an answer that are handed over at once. The next ones follow when the client has read most of these.
PIECE = 2**18

Send = Callable[[dict], Awaitable[None]]


class CrowdedError(Exception):
    """A person does not read the answers that are on their way; nothing of this one was sent."""


class UnreadError(Exception):
    """A client does not read its answer; a part of it was sent."""


class Outgoing:
    """The answers on their way.

    A large answer leaves in pieces, none before the client has read the one before, so that only the answer itself lies
    in memory, and of those only so many bytes a person. Small answers always leave.

    Parameters
    ----------
    wait : float
        Seconds for a piece, after which the client is given up.
    most : int
        Bytes of large answers on their way to one person. The first one may have more.
    """

    def __init__(self, wait: float, most: int):
        self._wait, self._most = wait, most
        self._unread: Counter[str] = Counter()

    def sender(self, who: str, send: Send) -> Send:
        """`send` of ASGI for one answer to a person.

        It raises `CrowdedError` in the place of an answer's beginning, and `UnreadError` in its middle.
        """
        start = None

        async def in_pieces(message: dict) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                start = message  # goes with the body, whose size is not known yet
                return
            body = message.get("body", b"")
            large = len(body) if len(body) > PIECE else 0
            if start is not None and large and self._unread[who] and self._unread[who] + large > self._most:
                raise CrowdedError(f"{self._unread[who]:,} bytes of answers to you are not read yet; read them first.")
            self._unread[who] += large
            try:
                if start is not None:
                    await send(start)
                    start = None
                await self._send_body(send, message, memoryview(body))
            finally:
                self._unread[who] -= large
                if not self._unread[who]:
                    del self._unread[who]

        return in_pieces

    async def _send_body(self, send: Send, message: dict, body: memoryview) -> None:
        try:
            while len(body) > PIECE:
                async with asyncio.timeout(self._wait):
                    await send({**message, "body": body[:PIECE], "more_body": True})
                body = body[PIECE:]
            async with asyncio.timeout(self._wait):
                await send({**message, "body": bytes(body)})
        except TimeoutError:
            raise UnreadError from None
