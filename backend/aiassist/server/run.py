"""Start the server: address, token, TLS, ready line."""

from __future__ import annotations

import asyncio
import errno
import gc
import json
import logging
import shutil
import socket
import ssl
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

import uvicorn

from aiassist.engine import LocalBackend
from aiassist.errors import AccessError, AIAssistError
from aiassist.lifeline import when_stdin_closes
from aiassist.protocol.wire import is_loopback
from aiassist.server.app import make_app
from aiassist.server.guard import Limits
from aiassist.server.service import Service, Settings
from aiassist.server.tokens import Person, Tokens, new_token

log = logging.getLogger(__name__)

#: Of a studies folder, where files lie as long as the request that brought them, and seconds after which those go that
#: a server left which was killed.
TEMPORARY, STALE = "tmp", 24 * 3600


@dataclass(frozen=True)
class Address:
    """Where the server listens, and by what it proves itself.

    Raises
    ------
    AccessError
        For an address that others can reach without a token file, or for TLS files that are not a pair.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None

    def __post_init__(self):
        if not is_loopback(self.host) and self.token_file is None:
            raise AccessError(
                f"{self.host} can be reached by others, so a token file is needed; make one with: "
                "aiassist tokens add NAME --file tokens.txt, then add --token-file tokens.txt"
            )
        if (self.certificate is None) != (self.key is None):
            raise AccessError("--tls-cert and --tls-key belong together; give both.")
        if self.certificate is not None:
            self._check_pair()

    def _check_pair(self) -> None:
        for path in (self.certificate, self.key):
            if not path.is_file():
                raise AccessError(f"There is no file {path}; --tls-cert and --tls-key name PEM files.")
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(self.certificate, self.key)
        except (ssl.SSLError, OSError) as error:
            raise AccessError(
                f"{self.certificate} and {self.key} are no certificate and its key in PEM ({error.strerror or error}); "
                "check both files."
            ) from error

    @property
    def scheme(self) -> str:
        """https with a certificate, else http."""
        return "https" if self.certificate else "http"


def serve(
    settings: Settings,
    address: Address,
    until_stdin_closes: bool = False,
    author: str = "me",
    warm_up: bool = False,
    limits: Limits | None = None,
) -> None:
    """Run until stopped.

    When the server is ready, a line of JSON goes to standard output: ``ready``, ``url``, and, without a
    token file, ``token``, the way to be `author`. With `until_stdin_closes` the server stops when its standard input
    does, as it does when the program that started it is gone. With `warm_up` the default model is loaded meanwhile.
    `limits` are those of each person; the usual ones when absent.
    """
    own = None if address.token_file is not None else (Person(author, "admin", is_alone=True), new_token())
    tokens = Tokens(address.token_file, own)
    limits = limits or Limits()
    listener = _listen(address, limits.wait)
    service = Service(replace(settings, named=own is None))
    tempfile.tempdir = str(temporary_folder(settings.studies))  # the system's own may be memory
    config = uvicorn.Config(
        make_app(service, tokens, limits),
        log_level="warning",
        http="h11",  # which limits the size of headers, whatever else is installed
        access_log=False,  # it would show paths, which may hold patients' names
        server_header=False,
        proxy_headers=False,  # a client's own X-Forwarded-For must not hide it
        timeout_keep_alive=30,
        ssl_certfile=address.certificate,
        ssl_keyfile=address.key,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    _log_to_stderr()
    if not is_loopback(address.host) and address.certificate is None:
        log.warning("Images and tokens travel unencrypted, which clients refuse: give --tls-cert, or use a TLS proxy.")
    port = listener.getsockname()[1]
    host = f"[{address.host}]" if ":" in address.host else address.host
    ready = {"ready": True, "url": f"{address.scheme}://{host}:{port}"}
    if own is not None:
        ready["token"] = own[1]
    if until_stdin_closes:
        when_stdin_closes(lambda: setattr(server, "should_exit", True))
    asyncio.run(_run(server, listener, ready, service.backend if warm_up else None))


def temporary_folder(studies: Path) -> Path:
    """A folder for the files of requests, on the disk of the studies."""
    folder = studies.absolute() / TEMPORARY
    folder.mkdir(parents=True, exist_ok=True)
    for left in folder.iterdir():
        if time.time() - left.stat().st_mtime > STALE:
            shutil.rmtree(left) if left.is_dir() else left.unlink()
    return folder


async def _run(server: uvicorn.Server, listener: socket.socket, ready: dict, cold: LocalBackend | None) -> None:
    running = asyncio.create_task(server.serve(sockets=[listener]))
    while not server.started and not running.done():
        await asyncio.sleep(0.01)
    if server.started:
        gc.collect()
        gc.freeze()  # what is loaded now stays: walking through it would stop all threads for tens of milliseconds
        print(json.dumps(ready), flush=True)
        if cold is not None:
            cold.warm_up()
    await running


def _log_to_stderr() -> None:
    """Warnings and errors go where a journal finds them; the rest is kept in memory, see ``/logs/``."""
    ours = logging.getLogger("aiassist")
    ours.setLevel(logging.INFO)
    handler = logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    ours.addHandler(handler)


def _listen(address: Address, wait: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    # With the protocol named, asyncio turns off Nagle's algorithm, which costs 40 ms a small reply.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux: what nobody reads for so long goes, with its connection
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * wait))
    if sys.platform != "win32":  # there it would let two servers share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address.host, address.port))
    except OSError as error:
        listener.close()
        is_unknown = isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL
        option = "--host" if is_unknown else "--port"
        raise AIAssistError(
            f"The address {address.host}:{address.port} cannot be used ({error.strerror}); choose another {option}."
        ) from error
    return listener
