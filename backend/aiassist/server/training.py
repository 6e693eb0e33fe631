"""Training, publishing and fetching models: long work that another process does for the server, one at a time."""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Literal
from uuid import uuid4

from aiassist.errors import BusyError, ModelError
from aiassist.segmenters.model_store import check_model_name
from aiassist.segmenters.zoo import check_bundle_name
from aiassist.server.paths import Said, without_paths

log = logging.getLogger("aiassist.server")

#: What training needs beyond what the server does, and what bundles of MONAI's model zoo do.
NEEDED = ("torch", "safetensors", "onnx")
NEEDED_BY_BUNDLES = ("torch", "monai", "einops", "yaml", "huggingface_hub")
#: Seconds that the process has to save and end, when it is told to.
PATIENCE = 60
#: Processes that make examples for a GPU; the CPU makes them between its steps.
WORKERS = 8
#: Exit status of a command that was interrupted, and what it means.
INTERRUPTED = 130
STOPPED, SAVED = "It was stopped.", "It was stopped and saved; asked for again, the same training goes on."
#: How often each label is shown when nobody says.
EPOCHS = 30
#: The command line, with the modules that this process has, below the priority of those who wait for an answer.
_PROGRAM = """
import os, sys
sys.path[:] = {path!r}
if hasattr(os, "nice"):
    os.nice(10)
from aiassist.cli import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Options:
    """What a training is asked; they mean what the options of ``aiassist train`` do."""

    automatic: bool = False
    base: str | None = None
    epochs: int = EPOCHS
    structures: tuple[str, ...] = ()
    drafts: bool = False
    publish: bool = False

    def arguments(self) -> list[str]:
        """Them as arguments of the command line."""
        named = [f"--epochs={self.epochs}", *(f"--structure={name}" for name in self.structures)]
        named += [f"--from={self.base}"] if self.base is not None else []
        return named + [f"--{name}" for name in ("automatic", "drafts", "publish") if getattr(self, name)]


@dataclass
class Task:
    """One training, publishing or fetching of a model, as it stands.

    ``now`` has its ``phase``, of which ``done`` of ``total`` are done, and a ``text``. ``result`` is what the command
    printed, see `aiassist.commands.train` and `aiassist.commands.models`; ``message`` why there is none.
    """

    what: Literal["train", "publish", "pull"]
    model: str
    by: str
    id: str = field(default_factory=lambda: uuid4().hex)
    state: Literal["running", "done", "failed", "stopped"] = "running"
    now: dict = field(default_factory=lambda: {"phase": "starting", "done": 0, "total": None, "text": ""})
    began: str = field(default_factory=lambda: _now())
    ended: str | None = None
    result: dict | None = None
    message: str = ""

    def to_json(self) -> dict:
        """All of it as JSON, flat."""
        said = asdict(self)
        now = said.pop("now")
        return said | now


class Training:
    """Runs ``aiassist train``, ``aiassist models publish`` and ``aiassist models pull`` on a studies folder.

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
    def missing(needed: tuple[str, ...] = NEEDED) -> list[str]:
        """The packages that are needed, to train if nothing else is said, and that this Python lacks."""
        importlib.invalidate_caches()  # some may have been installed since
        return [name for name in needed if importlib.util.find_spec(name) is None]

    def train(self, by: str, model: str, options: Options) -> Task:
        """Begin to train a version of a model, or go on with it.

        Raises
        ------
        BusyError
            While another task runs.
        ModelError
            When this Python cannot train, or no model may be called so.
        """
        check_model_name(model)
        if options.base is not None:
            check_model_name(options.base)
        self._check(NEEDED, "train", "learning")
        workers = min(WORKERS, os.cpu_count() or 1) if self._device == "cuda" else 0
        where = [f"--device={self._device}", f"--workers={workers}"]
        return self._start(Task("train", model, by), ["train", model, *options.arguments(), *where])

    def publish(self, by: str, model: str, version: int) -> Task:
        """Begin to publish a version if it is better. `BusyError` while another task runs."""
        return self._start(Task("publish", model, by), ["models", "publish", model, "--version", str(version)])

    def pull(self, by: str, bundle: str, version: str | None = None, name: str | None = None) -> Task:
        """Begin to fetch a bundle of MONAI's model zoo, which is used from then on. Raises as `train` does."""
        check_bundle_name(bundle)
        if name is not None:
            check_model_name(name)
        self._check(NEEDED_BY_BUNDLES, "run MONAI's bundles", "bundles")
        more = [f"--{key}={value}" for key, value in (("version", version), ("name", name)) if value is not None]
        return self._start(Task("pull", bundle, by), ["models", "pull", bundle, *more])

    def _check(self, needed: tuple[str, ...], what: str, extra: str) -> None:
        """`ModelError` when this Python lacks something."""
        missing = self.missing(needed)
        if missing:
            raise ModelError(
                f"This server lacks {', '.join(missing)}, so it cannot {what}; its administrator can: pip install "
                f"'/path/to/SlicerAIAssist[{extra}]'."
            )

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
                raise BusyError(
                    f"{self.task.by} has {self.task.model!r} trained, published or fetched now; wait, or stop that."
                )
            # What it prints can be longer than a pipe, and is read at the end.
            printed = tempfile.TemporaryFile()  # noqa: SIM115 - closed by whoever follows
            self._process = subprocess.Popen(
                [sys.executable, "-X", "utf8", "-P", "-c", program, *command, *common],
                stdin=subprocess.PIPE,
                stdout=printed,
                stderr=subprocess.PIPE,
                encoding="utf8",
                errors="replace",
                **_apart(),
            )
            self.task = task
            self._thread = threading.Thread(target=self._follow, args=(self._process, printed, task), daemon=True)
            self._thread.start()
        return task

    def _follow(self, process: subprocess.Popen, printed: BinaryIO, task: Task) -> None:
        """Note what the process says, until it ends."""
        last = "it said nothing"
        for line in process.stderr:
            said = _json(line)
            if said is not None and said.keys() >= task.now.keys():
                task.now = {key: self._told(said[key]) for key in task.now}
            elif line.strip():
                last = line.strip().removeprefix("aiassist: ")
        status = process.wait()
        printed.seek(0)
        result = _json(printed.read().decode("utf8", "replace"))
        with self._lock:
            for stream in (process.stdin, process.stderr, printed):
                stream.close()
            task.ended = _now()
            if status == 0 and result is not None:
                task.result, task.state = self._told(result), "done"
            elif status == INTERRUPTED:
                task.message, task.state = SAVED if result is not None else STOPPED, "stopped"
            else:
                log.warning("%s of %s failed: %s", task.what, task.model, last)
                task.message, task.state = self._told(last), "failed"
        log.info("%s of %s by %s: %s", task.what, task.model, task.by, task.state)

    def _told(self, said: Said) -> Said:
        return without_paths(said, self._studies)


def _apart() -> dict:
    """Keep a process away from the interrupts of this one's terminal, and on Windows from its priority."""
    if sys.platform == "win32":
        return {"creationflags": subprocess.BELOW_NORMAL_PRIORITY_CLASS | subprocess.CREATE_NEW_PROCESS_GROUP}
    return {"start_new_session": True}


def _json(text: str) -> dict | None:
    try:
        found = json.loads(text)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
