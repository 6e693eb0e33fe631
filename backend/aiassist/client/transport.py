"""Carries requests to a server by the package requests."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol
from urllib.parse import SplitResult, urlsplit

import requests
from requests.adapters import HTTPAdapter

from aiassist.errors import AccessError, Cancelled, ConnectionLostError
from aiassist.protocol import Reply, Request
from aiassist.protocol.wire import AGAIN, LATER, is_loopback, retry_after

#: Seconds to wait for a connection.
CONNECT = 6.0


class Transport(Protocol):
    """Sends a request and returns the reply, whatever its status."""

    #: Whether the server is on this computer, so that compressing what is sent never pays.
    local: bool

    def send(self, request: Request) -> Reply:
        """`ConnectionLostError` when no reply came."""
        ...


class RequestsTransport:
    """HTTP and HTTPS.

    Proxies and certificates of the institution are honoured (the environment's ``HTTPS_PROXY`` and
    ``REQUESTS_CA_BUNDLE``), except for this computer itself.

    Parameters
    ----------
    url : str
        ``https://server:8000``, or ``http://127.0.0.1:8000`` for this computer.
    token : str, optional
        Proves who asks.
    verify : bool or str
        False trusts any certificate; a path names a file of certificates to trust.
    plain : bool
        Allow a token to travel unencrypted to another computer.
    sleep : callable
        Waits between tries.

    Raises
    ------
    ConnectionLostError
        For what is no address of a server.
    AccessError
        For a token over plain HTTP to another computer or of odd characters, and certificates that are not there.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        verify: bool | str = True,
        plain: bool = False,
        sleep: Callable[[float], None] = time.sleep,
    ):
        token = token.strip() if token else None  # a file's newline is none of it
        if token and not (token.isascii() and token.isprintable()):
            raise AccessError("The token holds characters that no token has; copy it once more.")
        if isinstance(verify, str | Path) and not Path(verify).exists():
            raise AccessError(f"There is no file of certificates {verify}; check the spelling.")
        parts = _parts_of(url)
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        self.local = is_loopback(parts.hostname)
        if token and parts.scheme == "http" and not self.local and not plain:
            raise AccessError(f"{self.url} is not encrypted, so its token could be read on the way; use https.")
        self._sleep = sleep
        self._session = requests.Session()
        self._session.trust_env = not self.local
        self._verify = verify
        self._session.auth = _Bearer(token)
        self._session.mount(self.url, HTTPAdapter(pool_maxsize=16))

    def send(self, request: Request) -> Reply:
        """See `Transport.send`; what may be repeated is sent again when the connection broke or the server was busy."""
        waits = AGAIN if request.repeatable else ()
        for wait in (*waits, None):
            if not request.wanted():
                raise Cancelled("The work was cancelled.")
            try:
                reply = self._once(request)
                if reply.status not in LATER or wait is None:
                    return reply
                wait = max(wait, retry_after(reply))
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                final = self._without_tls(error)
                if final is not None or wait is None:
                    raise ConnectionLostError(final or self._broken_off(error)) from error
            except requests.RequestException as error:
                raise ConnectionLostError(f"The server {self.url} cannot be used: {error}.") from error
            self._sleep(wait)
        raise AssertionError("the last try returns or raises")

    def _without_tls(self, error: Exception) -> str | None:
        """What keeps TLS from beginning, which another try would meet as well; None of a connection that broke."""
        if not isinstance(error, requests.exceptions.SSLError):
            return None
        if "certificate" in str(error).lower():
            return f"The certificate of {self.url} is not trusted; give your institution's file of certificates."
        if any(said in str(error) for said in ("WRONG_VERSION_NUMBER", "HTTP_REQUEST", "record layer failure")):
            return f"The server {self.url} does not answer by TLS; check whether its address begins with http://."
        return None

    def _broken_off(self, error: Exception) -> str:
        if isinstance(error, requests.exceptions.SSLError):
            return f"TLS with {self.url} breaks off; try again, and ask its administrator."
        return f"The server {self.url} does not answer; check that it runs and that the address is right."

    def _once(self, request: Request) -> Reply:
        answer = self._session.request(
            request.method,
            self.url + request.path,
            data=request.body if len(request.body) else None,
            headers=request.headers,
            timeout=(CONNECT, request.seconds),
            allow_redirects=False,
            verify=None if self._verify is True else self._verify,  # named here, it comes before REQUESTS_CA_BUNDLE
        )
        return Reply(answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.content)

    def close(self) -> None:
        """Close the connections."""
        self._session.close()


def _parts_of(url: str) -> SplitResult:
    """The parts of a server's address; `ConnectionLostError` when it is none."""
    try:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:  # half an IPv6 address, a port beyond 65535
        is_address = False
    if not is_address:
        raise ConnectionLostError(f"{url!r} is no address of a server; write it as https://server:8000.")
    return parts


class _Bearer(requests.auth.AuthBase):
    """Sets the token; being set, it also keeps requests from looking for passwords in .netrc."""

    def __init__(self, token: str | None):
        self.token = token

    def __call__(self, request):
        if self.token:
            request.headers["Authorization"] = f"Bearer {self.token}"
        return request
