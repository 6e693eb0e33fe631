"""A hub of models as Hugging Face's is, on this computer."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlsplit

from bundle_helpers import make_bundle

COMMIT = "0123456789" * 4


def hub_of(folder: Path):
    """A handler that has the files of a folder as MONAI/tissues, version 0.3.1 and newest."""

    class Hub(BaseHTTPRequestHandler):
        asked: ClassVar[list[str]] = []
        pause: ClassVar[float] = 0.0  # seconds after each MiB

        def do_GET(self):
            path = urlsplit(self.path).path
            self.asked.append(path)
            api, files = "/api/models/MONAI/tissues", f"/MONAI/tissues/resolve/{COMMIT}/"
            if path in (f"{api}/revision/main", f"{api}/revision/0.3.1"):
                self.answer(json.dumps({"id": "MONAI/tissues", "sha": COMMIT, "siblings": []}).encode())
            elif path == f"{api}/tree/{COMMIT}":
                self.answer(
                    json.dumps([described(file) for file in sorted(folder.rglob("*")) if file.is_file()]).encode()
                )
            elif path.startswith(files):
                self.answer((folder / path.removeprefix(files)).read_bytes())
            else:
                known = path.startswith(api)
                self.send_response(404)
                self.send_header("X-Error-Code", "RevisionNotFound" if known else "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        do_HEAD = do_GET

        def answer(self, body: bytes):
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if self.command == "GET":
                for start in range(0, len(body), 2**20):
                    with suppress(ConnectionError):  # whoever asked has given up
                        self.wfile.write(body[start : start + 2**20])
                    time.sleep(self.pause)

        def log_message(self, *_arguments):
            pass

    def described(file: Path) -> dict:
        content = file.read_bytes()
        name = file.relative_to(folder).as_posix()
        return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}

    return Hub


@contextmanager
def served(handler):
    """Its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def make_tissues(folder: Path) -> Path:
    """A bundle that holds more than a model needs."""
    bundle = make_bundle(folder)
    (bundle / "large_files.yml").write_text("large_files: []")
    (bundle / "scripts").mkdir()
    (bundle / "scripts" / "own.py").write_text("raise SystemExit('a program ran')")
    return bundle


if __name__ == "__main__":  # as a process of its own, until standard input closes
    with served(hub_of(Path(sys.argv[1]))) as place:
        print(place, flush=True)
        sys.stdin.read()
