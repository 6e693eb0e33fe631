"""A real server process, and ways to talk to it that no good client would choose."""

from __future__ import annotations

import json
import re
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import requests

from aiassist.client import RemoteBackend, RequestsTransport
from aiassist.imaging import Geometry, Volume
from aiassist.prompts import Prompts, extreme_points
from aiassist.protocol import Request


class Server:
    """``aiassist serve`` on a free port, until the block ends."""

    def __init__(self, studies: Path, *options: str, largest_file: int | None = None):
        self.studies, self._options, self._largest = studies, options, largest_file
        self.process: subprocess.Popen | None = None
        self.ready: dict = {}

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Start, and wait for the ready line."""

        def full_disk():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (self._largest, self._largest))

        self.process = subprocess.Popen(
            self._command(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf8",
            preexec_fn=full_disk if self._largest is not None else None,
        )
        line = self.process.stdout.readline()
        assert line, f"the server ended with {self.process.wait(10)}"
        self.ready = json.loads(line)

    def _command(self) -> list[str]:
        where = ["--studies", str(self.studies), "--port", "0"]
        return [sys.executable, "-m", "aiassist.cli", "serve", *where, "--until-stdin-closes", *self._options]

    def kill(self) -> None:
        """As a power cut would."""
        self.process.kill()
        self._end()

    def stop(self) -> int:
        """Close its standard input; returns its exit status."""
        if self.process.poll() is None:
            self.process.stdin.close()
        return self._end()

    def _end(self) -> int:
        status = self.process.wait(20)
        self.process.stdout.close()
        return status

    @property
    def url(self) -> str:
        return self.ready["url"]

    @property
    def token(self) -> str | None:
        return self.ready.get("token")

    def backend(self, token: str | None = None) -> RemoteBackend:
        """A client of this server."""
        return RemoteBackend(self.url, token or self.token)

    def ask(self, method: str, path: str, token: str | None = "own", **more) -> requests.Response:
        """One plain request; without a token when that is None."""
        headers = dict(more.pop("headers", {}))
        if token is not None:
            headers["Authorization"] = f"Bearer {self.token if token == 'own' else token}"
        return requests.request(method, self.url + path, headers=headers, timeout=30, **more)

    def connection(self, buffer: int | None = None) -> socket.socket:
        """A bare connection; with a `buffer` of so many bytes, of which little is on its way at a time."""
        parts = urlsplit(self.url)
        line = socket.socket()
        line.settimeout(20)
        if buffer is not None:
            line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        line.connect((parts.hostname, parts.port))
        return line

    @property
    def connections(self) -> int:
        """How many connections are open or still hold what the process sent."""
        here = f":{urlsplit(self.url).port:04X}"
        lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
        is_open, empties = "01", "04"
        return sum(local.endswith(here) and state in (is_open, empties) for _, local, _, state, *_ in lines)

    @property
    def memory(self) -> int:
        """The most bytes of memory that the process ever had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status).group(1))


class Impatient(Server):
    """A server that gives clients up after a second, and lets 64 MiB of answers wait for one person."""

    def _command(self) -> list[str]:
        program = (
            "import sys; from pathlib import Path; from aiassist.server.guard import Limits; "
            "from aiassist.server.run import Address, serve; from aiassist.server.service import Settings; "
            "limits = Limits(wait=1.0, unread=64 * 2**20); "
            "serve(Settings(Path(sys.argv[1])), Address(port=0), until_stdin_closes=True, limits=limits)"
        )
        return [sys.executable, "-c", program, str(self.studies)]


class Broken(Server):
    """A server whose model `ellipsoid` has a fault that nobody foresaw."""

    def _command(self) -> list[str]:
        program = (
            "import sys; from pathlib import Path; from aiassist.segmenters.ellipsoid import Ellipsoid; "
            "from aiassist.server.run import Address, serve; from aiassist.server.service import Settings; "
            "Ellipsoid.annotate = lambda *_: 1 // 0; "
            "serve(Settings(Path(sys.argv[1])), Address(port=0), until_stdin_closes=True)"
        )
        return [sys.executable, "-c", program, str(self.studies)]


class Watched:
    """A transport that notes what is sent, and can break off."""

    def __init__(self, url: str, token: str):
        self._inner = RequestsTransport(url, token, sleep=lambda _: None)
        self.local = self._inner.local
        self.sent: list[Request] = []
        self.break_before: str | None = None

    def send(self, request: Request):
        """Send, unless it is the one to break off at."""
        if self.break_before is not None and request.path.startswith(self.break_before):
            self.break_before = None
            raise ConnectionResetError("the cable was pulled")
        self.sent.append(request)
        return self._inner.send(request)

    @property
    def bytes(self) -> int:
        """Bytes of all bodies."""
        return sum(len(request.body) for request in self.sent)


def ball(seed: int, shape=(24, 30, 36)) -> tuple[Volume, Prompts]:
    """A bright ball in noise, and its extreme points."""
    rng = np.random.default_rng(seed)
    axes = np.ix_(*[np.arange(n) - n // 2 for n in shape])
    inside = sum((a / 8) ** 2 for a in axes) <= 1
    volume = Volume((rng.normal(0, 10, shape) + 200 * inside).astype(np.int16), Geometry.from_spacing(shape))
    return volume, Prompts(extreme_points=extreme_points(inside, rng))


def noise(seed: int, shape=(24, 30, 36)) -> Volume:
    """A study of noise; each seed is another one."""
    return Volume(np.random.default_rng(seed).integers(-99, 99, shape, dtype=np.int16), Geometry.from_spacing(shape))


def wait_until(true, seconds: float = 20.0) -> None:
    """Wait for something to become true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)
