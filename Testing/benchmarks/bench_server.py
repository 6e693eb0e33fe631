"""What HTTP costs: time around a click, uploads beside plain sending, many clients at once.

    python Testing/benchmarks/bench_server.py [CASES]

Everything goes through loopback to a server process. The volume has 512x512x300 voxels: a case repeated to that size.
"""

from __future__ import annotations

import argparse
import json
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from large_case import large

from aiassist.client import RemoteBackend
from aiassist.engine import AnnotateRequest, LocalBackend
from aiassist.evaluation.cases import load_case
from aiassist.imaging import Volume
from aiassist.prompts import Prompts, extreme_points
from aiassist.protocol.messages import voxels_as_bytes

SAMPLE = Path(__file__).parents[2] / "Resources" / "SampleData" / "ts_ct_torso"


class Server:
    def __init__(self, folder, *options):
        command = [sys.executable, "-m", "aiassist.cli", "serve", "--studies", folder, "--port", "0"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.process = subprocess.Popen([*command, "--until-stdin-closes", *options], encoding="utf8", **pipes)
        ready = json.loads(self.process.stdout.readline())
        self.url, self.token = ready["url"], ready["token"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)

    @property
    def memory(self) -> int:
        return psutil.Process(self.process.pid).memory_info().rss


def clicks(server: Server, volume: Volume, labels: np.ndarray, model: str) -> None:
    """Time around the segmenter's own, and the size of patches."""
    around, whole, sizes = [], [], []
    with RemoteBackend(server.url, server.token) as backend:
        study = backend.open_study(volume)
        values = [v for v in np.unique(labels)[1:] if (labels == v).sum() > 2000][:12]
        for turn in range(3):
            for value in values:
                points = extreme_points(labels == value, np.random.default_rng(turn))
                began = time.perf_counter()
                answer = backend.annotate(AnnotateRequest(study, Prompts(extreme_points=points), model=model))
                took = time.perf_counter() - began
                if turn:  # the first one warms up
                    around.append(1000 * (took - sum(answer.seconds.values())))
                    whole.append(1000 * took)
                    sizes.append(len(answer.patch.to_bytes()))
    p50, p95 = np.percentile(around, [50, 95])
    print(
        f"{model}: click to mask p50 {np.median(whole):.0f} ms; around the segmenter p50 {p50:.1f} ms, "
        f"p95 {p95:.1f} ms; largest patch {max(sizes) / 1000:.0f} kB"
    )


def upload(server: Server, volume: Volume, turns: int = 7) -> None:
    """Bytes a second of uploads, each beside curl that sends the same bytes to servers that throw them away.

    What is stored needs new memory of the computer, whoever stores it: the time to write a new file says how much.
    """
    size, rows = volume.voxels.nbytes, []
    with tempfile.TemporaryDirectory() as folder, RemoteBackend(server.url, server.token) as backend:
        path = Path(folder) / "voxels"
        path.write_bytes(voxels_as_bytes(volume))
        for turn in range(turns):
            voxels = volume.voxels.copy()
            voxels[0, 0, 0] = turn
            fresh = Volume(voxels, volume.geometry)
            fresh.study_id  # noqa: B018 - hashed once, on opening the file
            ours = seconds_of(backend.open_study, fresh)
            web, bare = uvicorn_seconds(str(path)), curl_seconds(str(path))
            stored = seconds_of((Path(folder) / f"new {turn}").write_bytes, voxels_as_bytes(fresh))
            rows.append((ours, web, bare, stored))
        again = seconds_of(backend.open_study, fresh)
    ours, web, bare, stored = np.array(rows).T
    print(f"upload of {size / 1e6:.0f} MB, {turns} times: {_spread(size / 1e6 / ours, '.0f')} MB/s")
    print(f"  of what curl reaches to uvicorn that forgets it ({_spread(web, '.2f')} s): {_spread(web / ours, '.2f')}")
    print(f"  of what curl reaches to a bare socket ({_spread(bare, '.2f')} s): {_spread(bare / ours, '.2f')}")
    print(f"  the same bytes into a new file, without any server: {_spread(stored, '.2f')} s")
    print(f"  opening it again: {1000 * again:.1f} ms")


def seconds_of(work, *arguments) -> float:
    """How long something takes."""
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def _spread(values, form: str) -> str:
    """The median, and between which the values lie."""
    return f"{np.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"


FORGET = """
import socket, sys, uvicorn
async def app(scope, receive, send):
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
    await send({"type": "http.response.body", "body": b""})
listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config(app, http="h11", log_level="error", lifespan="off"))
server.run(sockets=[listener])
"""


def uvicorn_seconds(path: str) -> float:
    """Seconds of ``curl -T`` to the web server that ours runs on, with an application that forgets what it gets."""
    process = subprocess.Popen([sys.executable, "-c", FORGET], stdout=subprocess.PIPE, encoding="utf8")
    url = f"http://127.0.0.1:{process.stdout.readline().strip()}/"
    for _ in range(2):  # the first one wakes it up
        began = time.perf_counter()
        subprocess.run(["curl", "-s", "-H", "Expect:", "-T", path, url], check=True)
        took = time.perf_counter() - began
    process.kill()
    process.wait()
    return took


def curl_seconds(path: str) -> float:
    """Seconds of ``curl -T`` to a socket that reads and forgets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def swallow():
        line, _ = listener.accept()
        with line:
            head = b""
            while b"\r\n\r\n" not in head:
                head += line.recv(65536)
            left = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]) - len(head.split(b"\r\n\r\n", 1)[1])
            memory = bytearray(1 << 20)
            while left > 0:
                left -= line.recv_into(memory)
            line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    thread = threading.Thread(target=swallow)
    thread.start()
    began = time.perf_counter()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    subprocess.run(["curl", "-s", "-H", "Expect:", "-T", path, url], check=True)
    took = time.perf_counter() - began
    thread.join()
    listener.close()
    return took


def crowd(folder: Path, volume: Volume, labels: np.ndarray, model: str, each: int, people: int = 16) -> None:
    """Many clients at once on four studies: errors, order, fairness, memory."""
    cases = [large(volume, labels, seed) for seed in range(4)]
    budget = int(2.5 * cases[0][0].voxels.nbytes)  # so that studies must go and come back
    seconds, errors = [0.0] * people, []
    with Server(str(folder), "--memory", str(budget / 2**30)) as server:
        before, most, done = server.memory, [0], threading.Event()
        with RemoteBackend(server.url, server.token) as backend:
            for big, _ in cases:
                backend.open_study(big)

        def watch():
            while not done.wait(0.05):
                most[0] = max(most[0], server.memory)

        def work(number: int) -> None:
            big, wide = cases[number % 4]
            points = [extreme_points(wide == v, np.random.default_rng(number)) for v in (1, 2, 3, 4)]
            with RemoteBackend(server.url, server.token) as mine:
                began = time.perf_counter()
                for turn in range(each):
                    prompts = Prompts(extreme_points=points[turn % 4])
                    name = f"structure {turn}"
                    request = AnnotateRequest(big.study_id, prompts, structure=name, model=model)
                    try:
                        answer = mine.annotate(request)
                        if answer.structure != name:
                            errors.append(f"{answer.structure} instead of {name}")
                    except Exception as error:  # noqa: BLE001 - counted and shown
                        errors.append(repr(error))
                seconds[number] = time.perf_counter() - began

        watcher = threading.Thread(target=watch)
        watcher.start()
        threads = [threading.Thread(target=work, args=(n,)) for n in range(people)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        watcher.join()
    rate, spread = people * each / max(seconds), max(seconds) / min(seconds)
    print(
        f"{model}, {people} clients, {each} clicks each, 4 studies: {len(errors)} errors {errors[:2]}, "
        f"{rate:.0f} clicks/s, slowest {spread:.2f} times the fastest; "
        f"memory {most[0] / 1e6:.0f} MB at most ({before / 1e6:.0f} MB empty), budget {budget / 1e6:.0f} MB"
    )


def local_clicks(volume: Volume, labels: np.ndarray, model: str) -> None:
    """The same clicks in this process."""
    took = []
    with LocalBackend() as backend:
        study = backend.open_study(volume)
        values = [v for v in np.unique(labels)[1:] if (labels == v).sum() > 2000][:12]
        for turn in range(3):
            for value in values:
                points = extreme_points(labels == value, np.random.default_rng(turn))
                began = time.perf_counter()
                backend.annotate(AnnotateRequest(study, Prompts(extreme_points=points), model=model))
                if turn:
                    took.append(1000 * (time.perf_counter() - began))
    print(f"{model}: in this process, click to mask p50 {statistics.median(took):.0f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("case", nargs="?", type=Path, default=SAMPLE)
    options = parser.parse_args()
    volume, labels = load_case(options.case)
    big, wide = large(volume, labels)
    with tempfile.TemporaryDirectory() as folder:
        with Server(f"{folder}/one") as server:
            upload(server, big)
            for model in ("geodesic", "network"):
                clicks(server, big, wide, model)
                local_clicks(big, wide, model)
        crowd(Path(folder) / "many", volume, labels, "ellipsoid", 50)
        crowd(Path(folder) / "busy", volume, labels, "geodesic", 15)  # which looks at the voxels


if __name__ == "__main__":
    main()
