"""Training and publishing models: long work that another process does for the server, one at a time."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal
from uuid import uuid4

from aiassist.errors import BusyError, ModelError
from aiassist.segmenters.model_store import check_model_name

log = logging.getLogger("aiassist.server")

#: What training needs beyond what the server does.
NEEDED = ("torch", "safetensors", "onnx")
#: Seconds that the process has to save and end, when it is told to.
PATIENCE = 60
#: Processes that make examples for a GPU; the CPU makes them between its steps.
WORKERS = 8
#: Exit status of a command that was interrupted, and what it means.
INTERRUPTED, STOPPED = 130, "It was stopped and saved; asked for again, the same training goes on."
#: The command line, with the modules that this process has, below the priority of those who wait for an answer.
_PROGRAM = """
import os, sys
sys.path[:] = {path!r}
if hasattr(os, "nice"):
    os.nice(10)
from aiassist.cli import main
sys.exit(main())
"""


@dataclass
class Task:
    """One training or publishing, as it stands.

    ``phase`` says what it does now, of which ``done`` of ``total`` are done. ``result`` is what the command printed,
    see `aiassist.commands.train`; ``message`` why there is none.
    """

    what: Literal["train", "publish"]
    model: str
    by: str
    id: str = field(default_factory=lambda: uuid4().hex)
    state: Literal["running", "done", "failed", "stopped"] = "running"
    phase: str = "starting"
    done: int = 0
    total: int | None = None
    text: str = ""
    began: str = field(default_factory=lambda: _now())
    ended: str | None = None
    result: dict | None = None
    message: str = ""

    def to_json(self) -> dict:
        """All of it as JSON."""
        return asdict(self)


class Training:
    """Runs ``aiassist train`` and ``aiassist models publish`` on a studies folder.

    What such a process is asked to stop is saved and goes on when it is asked for again; it stops, too, when the
    server does, or is killed.

    Parameters
    ----------
    studies : Path
    device : str
        "cpu" or "cuda".
    """

    def __init__(self, studies: Path, device: str = "cpu"):
        self._studies, self._device = studies, device
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._thread: threading.Thread | None = None
        #: The latest task, which may be over.
        self.task: Task | None = None

    @staticmethod
    def missing() -> list[str]:
        """The packages that training needs and this Python lacks."""
        importlib.invalidate_caches()  # some may have been installed since
        return [name for name in NEEDED if importlib.util.find_spec(name) is None]

    def train(self, by: str, model: str, options: Mapping) -> Task:
        """Begin to train a version of a model, or go on with it.

        `options` has the entries ``automatic``, ``base``, ``epochs``, ``structures``, ``drafts`` and ``publish``, which
        mean what the options of ``aiassist train`` do.

        Raises
        ------
        BusyError
            While another task runs.
        ModelError
            When this Python cannot train, or no model may be called so.
        """
        check_model_name(model)
        if self.missing():
            raise ModelError(
                f"This server lacks {', '.join(self.missing())}, so it cannot train; its administrator can: pip "
                "install 'aiassist[learning]'."
            )
        command = ["train", model, "--epochs", str(options["epochs"]), "--device", self._device, "--workers"]
        command.append(str(min(WORKERS, os.cpu_count() or 1)) if self._device == "cuda" else "0")
        command += [f"--structure={name}" for name in options["structures"]]
        command += [f"--from={options['base']}"] if options.get("base") else []
        command += [f"--{name}" for name in ("automatic", "drafts", "publish") if options[name]]
        return self._start(Task("train", model, by), command)

    def publish(self, by: str, model: str, version: int) -> Task:
        """Begin to publish a version if it is better. `BusyError` while another task runs."""
        return self._start(Task("publish", model, by), ["models", "publish", model, "--version", str(version)])

    def stop(self) -> None:
        """Tell the task that runs to save and stop; it does so after its step."""
        with self._lock:
            if self._process is not None:
                self._process.stdin.close()

    def close(self) -> None:
        """Stop, and wait until it has; a process that does not come to an end is killed."""
        self.stop()
        process, thread = self._process, self._thread
        if process is not None and thread is not None:
            thread.join(PATIENCE)
            if thread.is_alive():
                process.kill()
                thread.join()

    def _start(self, task: Task, command: list[str]) -> Task:
        common = [f"--studies={self._studies}", f"--author={task.by}", "--json", "--until-stdin-closes"]
        program = _PROGRAM.format(path=sys.path)
        with self._lock:
            if self.task is not None and self.task.state == "running":
                raise BusyError(f"{self.task.by} has {self.task.model!r} trained or published now; wait, or stop that.")
            below = subprocess.BELOW_NORMAL_PRIORITY_CLASS if sys.platform == "win32" else 0
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", program, *command, *common],
                **{name: subprocess.PIPE for name in ("stdin", "stdout", "stderr")},
                encoding="utf8",
                errors="replace",
                creationflags=below,
            )
            self.task = task
            self._thread = threading.Thread(target=self._follow, args=(self._process, task), daemon=True)
            self._thread.start()
        return task

    def _follow(self, process: subprocess.Popen, task: Task) -> None:
        """Note what the process says, until it ends."""
        last: deque[str] = deque(["it said nothing"], maxlen=1)
        for line in process.stderr:
            said = _json(line)
            if said is not None and "phase" in said:
                task.phase, task.done, task.total, task.text = (said[k] for k in ("phase", "done", "total", "text"))
            elif line.strip():
                last.append(line.strip().removeprefix("aiassist: "))
                log.info("%s of %s: %s", task.what, task.model, line.rstrip())
        result, status = _json(process.stdout.read()), process.wait()
        with self._lock:
            for stream in (process.stdin, process.stdout, process.stderr):
                stream.close()
            task.ended = _now()
            if status == 0 and result is not None:
                task.result, task.state = result, "done"
            elif status == INTERRUPTED:
                task.message, task.state = STOPPED, "stopped"
            else:
                task.message, task.state = last[-1], "failed"
                log.warning("%s of %s failed: %s", task.what, task.model, task.message)


def _json(text: str) -> dict | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
