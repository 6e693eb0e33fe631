"""One request and its reply, whoever carries them."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Callable
from dataclasses import dataclass, field

from aiassist.errors import ConnectionLostError

#: Seconds to wait before each new try of a repeatable request.
AGAIN = (0.2, 1.0, 3.0)
#: Statuses after which it is sent again: of a server that is busy, and of a proxy whose server does not run now.
LATER = (408, 429, 502, 503)
#: The longest wait that a server may ask for, in seconds.
LONGEST = 10.0


@dataclass(frozen=True)
class Request:
    """What is to be sent.

    Parameters
    ----------
    method, path : str
        The path begins with a slash and may hold a query.
    body : bytes-like
    headers : dict
        Lower-case names.
    repeatable : bool
        Whether sending it twice does no harm, so that it may be sent again when no reply came.
    seconds : float
        Longest wait for the reply.
    wanted : callable
        Says whether the reply is still wanted; asked before the request is sent, and before it is sent again.
    """

    method: str
    path: str
    body: bytes | memoryview = b""
    headers: dict[str, str] = field(default_factory=dict)
    repeatable: bool = True
    seconds: float = 60.0
    wanted: Callable[[], bool] = field(default=lambda: True, repr=False)

    @classmethod
    def of_json(cls, method: str, path: str, data, **more) -> Request:
        """A request whose body is JSON."""
        body = json.dumps(data, allow_nan=False).encode()
        return cls(method, path, body, {"content-type": "application/json"}, **more)


@dataclass(frozen=True)
class Reply:
    """What came back; header names are lower-case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self):
        """The body as JSON; `ConnectionLostError` when it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            raise ConnectionLostError(
                "The answer is not what an AIAssist server says; is the address right, or a proxy in between?"
            ) from None


def is_loopback(host: str) -> bool:
    """Whether an address or name is this computer's own."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def retry_after(reply: Reply) -> float:
    """How many seconds a busy server asks to wait."""
    try:
        return min(float(reply.headers.get("retry-after", 0)), LONGEST)
    except ValueError:
        return 0.0
