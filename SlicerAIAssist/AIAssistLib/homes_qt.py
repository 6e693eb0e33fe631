"""The homes of the backend that are reached by HTTP: a process on this computer, and a server."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from aiassist.client.conversations import Conversations, carry_out
from aiassist.client.transport import RequestsTransport
from aiassist.errors import ConnectionLostError
from aiassist.protocol import Reply, Request
from AIAssistLib.network_qt import EventLoop, NetworkCarrier
from AIAssistLib.process_qt import BackendProcess
from AIAssistLib.talks import Conversation, Outcome

#: Bytes of an upload sent at once, to this computer and to a server: more would make Slicer stutter, since copying
#: them, and compressing those for a server, holds it up.
NEAR, FAR = 2**23, 2**21
#: Seconds that a caller who blocks waits for the process to be ready.
START = 60.0
#: Ends of the process without an answer in between, until it is not started again.
CRASHES = 3


class Server:
    """A server at an address. Implements `AIAssistLib.assistant.Home`."""

    near = False

    def __init__(self, url: str, token: str | None = None):
        self.carrier = NetworkCarrier(url, token)
        self.name = self.carrier.url
        self.conversations = Conversations(uuid.uuid4().hex, FAR)
        self._token = token

    def finish(self, conversation: Conversation[Outcome]) -> Outcome:
        """See `Home.finish`."""
        return _finish(conversation, RequestsTransport(self.carrier.url, self._token))

    def close(self) -> None:
        """See `Home.close`; the server goes on."""


class ThisComputer:
    """A process on this computer, started at the first question and again after a crash.

    Implements `AIAssistLib.assistant.Home`.

    Parameters
    ----------
    program : str
    arguments : list of str
        What to run, such as ``PythonSlicer`` and ``-m aiassist serve ...``.
    """

    name, near = "This computer", True

    def __init__(self, program: str, arguments: list[str]):
        self.conversations = Conversations(uuid.uuid4().hex, NEAR, compress=False)
        self.carrier = _WaitingCarrier(self)
        self.process = BackendProcess(program, arguments, self._started, self._ended)
        self._address: tuple[str, str] | None = None
        self._crashes = 0
        self._closed = False

    def ready(self) -> NetworkCarrier | None:
        """What carries requests to the process; None, and it is started, while it is not ready."""
        if self._closed:
            raise ConnectionLostError("The backend on this computer was stopped; ask again.")
        if self._address is None and not self.process.running:
            self.process.start()
        return self.carrier.network if self._address is not None else None

    def _started(self, url: str, token: str) -> None:
        self._address = (url, token)
        self.carrier.open(NetworkCarrier(url, token))

    def _ended(self, why: str) -> None:
        self._address = None
        self._crashes += 1
        self.carrier.lose(ConnectionLostError(why), again=self._crashes < CRASHES)

    def answered(self) -> None:
        """Note that it works."""
        self._crashes = 0

    def finish(self, conversation: Conversation[Outcome]) -> Outcome:
        """See `Home.finish`."""
        if self.ready() is None:
            self.process.wait(START)
        if self._address is None:
            raise ConnectionLostError("The backend on this computer could not be started; look at Slicer's log.")
        return _finish(conversation, RequestsTransport(*self._address))

    def close(self) -> None:
        """See `Home.close`; nothing starts it again."""
        self._closed = True
        self.process.stop()
        self._address = None
        self.carrier.lose(ConnectionLostError("The backend on this computer was stopped."), again=False)


class _WaitingCarrier(EventLoop):
    """Carries requests once the process is ready; those that a crash lost are carried again."""

    def __init__(self, home: ThisComputer):
        self._home = home
        self.network: NetworkCarrier | None = None
        self._waiting: list[_Parcel] = []

    def carry(self, request: Request, replied: Callable[[Reply | Exception], None]) -> Callable[[], None]:
        """See `AIAssistLib.talks.Carrier.carry`."""
        parcel = _Parcel(request, replied, self)
        self._waiting.append(parcel)
        try:
            network = self._home.ready()
        except ConnectionLostError:
            self.drop(parcel)
            raise
        if network is not None:
            parcel.go(network)
        return parcel.abort

    def open(self, network: NetworkCarrier) -> None:
        """Carry everything that waits."""
        self.network = network
        for parcel in list(self._waiting):
            parcel.go(network)

    def lose(self, error: ConnectionLostError, again: bool) -> None:
        """The process is gone: what may be repeated waits for the next one, the rest fails."""
        self.network = None
        parcels = list(self._waiting)
        for parcel in parcels:
            parcel.stop()
            if not (again and parcel.request.repeatable):
                self.drop(parcel)
                parcel.replied(error)
        if self._waiting and again:
            self._home.ready()

    def drop(self, parcel: _Parcel) -> None:
        """Forget a parcel."""
        if parcel in self._waiting:
            self._waiting.remove(parcel)

    def heard(self, parcel: _Parcel, reply: Reply | Exception) -> None:
        """A reply came, or the connection broke, as it does shortly before a crash is known of."""
        if isinstance(reply, Exception) and not self._home.process.running and parcel.request.repeatable:
            return
        self.drop(parcel)
        if isinstance(reply, Reply) and reply.status < 300 and parcel.request.method != "HEAD":
            self._home.answered()
        parcel.replied(reply)


class _Parcel:
    """A request that waits for the process, or is on its way to it."""

    def __init__(self, request: Request, replied: Callable[[Reply | Exception], None], carrier: _WaitingCarrier):
        self.request, self.replied = request, replied
        self._carrier = carrier
        self._abort: Callable[[], None] | None = None

    def go(self, network: NetworkCarrier) -> None:
        """Send it."""
        self._abort = network.carry(self.request, lambda reply: self._carrier.heard(self, reply))

    def stop(self) -> None:
        """Stop sending, to go again later."""
        if self._abort is not None:
            self._abort()
            self._abort = None

    def abort(self) -> None:
        """Stop for good."""
        self.stop()
        self._carrier.drop(self)


def _finish(conversation: Conversation[Outcome], transport: RequestsTransport) -> Outcome:
    try:
        return carry_out(conversation, transport.send)
    finally:
        transport.close()
