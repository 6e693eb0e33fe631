"""A real server in this process, so that a test can hold up what runs in it."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import uvicorn
from server_helpers import Server

from aiassist.engine import LocalBackend
from aiassist.server.app import make_app
from aiassist.server.service import Service, Settings
from aiassist.server.tokens import Person, Tokens, new_token


class Here(Server):
    """A server on a free port in a thread of this process, with a backend of the test's, until the block ends."""

    def __init__(self, studies: Path, backend: LocalBackend):
        super().__init__(studies)
        self.service = Service(Settings(studies), backend)

    def start(self) -> None:
        """Listen from now on."""
        token, listener = new_token(), socket.create_server(("127.0.0.1", 0))
        app = make_app(self.service, Tokens(own=(Person("me", "admin", is_alone=True), token)))
        self._web = uvicorn.Server(uvicorn.Config(app, log_level="warning", http="h11"))
        self._thread = threading.Thread(target=self._web.run, args=([listener],))
        self._thread.start()
        self.ready = {"url": f"http://127.0.0.1:{listener.getsockname()[1]}", "token": token}

    def stop(self) -> None:
        """Stop, and wait for what runs."""
        self._web.should_exit = True
        self._thread.join()

    def knows(self, name: str) -> bool:
        """Whether a job was asked for, and somebody waits for it or may fetch its answer."""
        return self.service.jobs.get(Person("me", "admin"), name) is not None
