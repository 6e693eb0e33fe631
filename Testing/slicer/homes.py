"""The backend's homes for tests: real processes, started once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

from aiassist.segmenters.model_store import MODELS
from aiassist.server.tokens import add_token
from AIAssistLib.homes_qt import Server, ThisComputer
from AIAssistLib.launch import backend_command
from AIAssistLib.this_slicer import ThisSlicer

NAMES = ("computer", "server", "slicer")


class Homes:
    """Homes by name, made when first asked for.

    Parameters
    ----------
    folder : Path
        Their studies folders lie here.
    python : str
        Runs the processes.
    packages : Path, optional
        What that Python lacks.
    """

    def __init__(self, folder: Path, python: str = sys.executable, packages: Path | None = None):
        self.folder = folder
        self._python, self._packages = python, packages or folder / "none"
        self._made: dict = {}
        self._process: subprocess.Popen | None = None

    def get(self, name: str):
        """A home: "computer", "server" or "slicer"."""
        if name not in self._made or getattr(self._made[name], "_closed", False):
            self._made[name] = getattr(self, f"_{name}")()
        return self._made[name]

    def use(self, assistant, name: str) -> None:
        """Let an assistant use a home, without stopping the one it had."""
        assistant.home, assistant.cards, assistant.chosen = self.get(name), [], None

    def _computer(self):
        return ThisComputer(*self._command("computer", author="Ann"))

    def _server(self):
        file = self.folder / "server.tokens"
        self.folder.mkdir(parents=True, exist_ok=True)
        token = add_token(file, "Bo", "admin")
        return Server(self._serve(file, port=0), token)

    def _serve(self, tokens: Path, port: int) -> str:
        """Start the server and wait until it is ready; its address."""
        program, arguments = self._command("server")
        more = ["--token-file", str(tokens), "--port", str(port)]
        self._process = subprocess.Popen([program, *arguments, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        return json.loads(self._process.stdout.readline())["url"]

    def lose(self, name: str) -> None:
        """Take away what a home's models or labels depend on, as a crash does; a server comes back at its address."""
        if name != "server":
            self.get(name).process.kill()
            return
        self._process.kill()
        self._process.communicate()
        self._serve(self.folder / "server.tokens", urlsplit(self.get("server").carrier.url).port)

    def _command(self, name: str, **options) -> tuple[str, list[str]]:
        return backend_command(self._python, self._packages, self.folder / name, **options)

    def _slicer(self):
        computer = ThisComputer(*self._command("slicer", author="Ann", has_models=False))
        return ThisSlicer(computer, models=self.folder / "slicer" / MODELS)

    def close(self) -> None:
        """Stop them all."""
        for home in self._made.values():
            home.close()
        if self._process is not None:
            self._process.stdin.close()
            self._process.wait(10)
