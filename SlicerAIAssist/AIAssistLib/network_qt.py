"""Carries requests by Qt's network manager, so that Slicer goes on while they travel."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import qt
import slicer

from aiassist.errors import AccessError, ConnectionLostError
from aiassist.protocol import Reply, Request
from aiassist.protocol.messages import ANSWER, RECEIVED, SERIES
from aiassist.protocol.wire import AGAIN, LATER, is_loopback, retry_after

#: Headers of replies that somebody reads.
HEADERS = (ANSWER, RECEIVED, SERIES, "retry-after", "content-type")


class EventLoop:
    """Calls functions between Slicer's own events."""

    def after(self, milliseconds: int, function: Callable[[], None]) -> Callable[[], None]:
        """Call a function after a while; returns what prevents it.

        Slicer's own `qt.QTimer.singleShot` keeps its timer and its function for ever.
        """
        timer, wanted = qt.QTimer(slicer.app.moduleManager()), [function]
        timer.setSingleShot(True)

        def fire() -> None:
            timer.deleteLater()
            if wanted:
                wanted.pop()()

        def prevent() -> None:
            if wanted:
                wanted.clear()
                timer.stop()
                timer.deleteLater()

        timer.connect("timeout()", fire)
        timer.start(milliseconds)
        return prevent

    def later(self, function: Callable[[], None]) -> Callable[[], None]:
        """See `AIAssistLib.talks.Carrier.later`."""
        return self.after(0, function)


class NetworkCarrier(EventLoop):
    """HTTP and HTTPS. Implements `AIAssistLib.talks.Carrier`.

    Slicer's certificates and the system's proxies are honoured; there is no proxy to this computer itself.

    Parameters
    ----------
    url : str
        ``https://server:8000``.
    token : str, optional
        Proves who asks; never travels unencrypted to another computer.
    """

    def __init__(self, url: str, token: str | None = None):
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConnectionLostError(f"{url!r} is no address of a server; write it as https://server:8000.")
        local = is_loopback(parts.hostname)
        if token and parts.scheme == "http" and not local:
            raise AccessError(f"{url} is not encrypted, so its token could be read on the way; use https.")
        self.url = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
        self._token = token
        self._manager = qt.QNetworkAccessManager()
        if local:
            self._manager.setProxy(qt.QNetworkProxy(qt.QNetworkProxy.NoProxy))

    def carry(self, request: Request, replied: Callable[[Reply | Exception], None]) -> Callable[[], None]:
        """See `AIAssistLib.talks.Carrier.carry`; what may be repeated is sent again when no reply came."""
        return _Sending(self, request, replied).abort

    def send(self, request: Request):
        """The ``QNetworkReply`` of a request that is on its way."""
        message = qt.QNetworkRequest(qt.QUrl(self.url + request.path))
        message.setTransferTimeout(int(1000 * request.seconds))
        message.setAttribute(qt.QNetworkRequest.RedirectPolicyAttribute, qt.QNetworkRequest.ManualRedirectPolicy)
        for name, value in request.headers.items():
            message.setRawHeader(name.encode(), value.encode())
        if self._token:
            message.setRawHeader(b"authorization", f"Bearer {self._token}".encode())
        verb = qt.QByteArray(request.method.encode())
        return self._manager.sendCustomRequest(message, verb, qt.QByteArray(bytes(request.body)))


class _Sending:
    """One request on its way, sent again after a while when no reply came or the server was busy."""

    def __init__(self, carrier: NetworkCarrier, request: Request, replied: Callable[[Reply | Exception], None]):
        self._carrier, self._request, self._replied = carrier, request, replied
        self._waits = list(AGAIN) if request.repeatable else []
        self._reply = None
        self._prevent: Callable[[], None] | None = None
        self._send()

    def abort(self) -> None:
        """Send no more, and drop what comes back."""
        if self._prevent is not None:
            self._prevent()
        reply, self._reply = self._reply, None
        if reply is not None:
            reply.disconnect("finished()", self._finished)
            reply.abort()
            reply.deleteLater()

    def _send(self) -> None:
        self._prevent = None
        self._reply = self._carrier.send(self._request)
        self._reply.connect("finished()", self._finished)

    def _finished(self) -> None:
        reply, self._reply = self._reply, None
        status = reply.attribute(qt.QNetworkRequest.HttpStatusCodeAttribute)
        lost = status is None or _is_cut(reply, int(status))
        outcome = self._lost(reply) if lost else _reply_of(reply, int(status))
        reply.deleteLater()
        busy = not lost and outcome.status in LATER
        if self._waits and (busy or lost):
            wait = max(self._waits.pop(0), retry_after(outcome) if busy else 0.0)
            self._prevent = self._carrier.after(int(1000 * wait), self._send)
        else:
            self._replied(outcome)

    def _lost(self, reply) -> ConnectionLostError:
        return ConnectionLostError(
            f"The server {self._carrier.url} does not answer ({reply.errorString()}); check that it runs and that "
            "the address is right."
        )


def _is_cut(reply, status: int) -> bool:
    """Whether a reply that began well broke off, or took too long: its status comes before its body."""
    return status < 300 and reply.error() != qt.QNetworkReply.NoError


def _reply_of(reply, status: int) -> Reply:
    headers = {}
    for name in HEADERS:
        value = reply.rawHeader(name).data()  # bytes would be taken by their repr() since Qt 6.7
        if value:
            headers[name] = bytes(value).decode("latin-1")
    return Reply(status, headers, bytes(reply.readAll().data()))
