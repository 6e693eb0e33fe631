"""The trained models of a folder: all versions of each, and which of them is published."""

from __future__ import annotations

import json
import logging
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from aiassist.errors import BusyError, ModelError, UnknownModelError
from aiassist.files import UNFINISHED, locked, sync, whole_file

log = logging.getLogger(__name__)

#: Of a studies folder, where its models lie.
MODELS = "models"
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_-]{0,62}[A-Za-z0-9])?")
#: Names that Windows keeps for itself.
_RESERVED = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)
_PUBLISHED = "published.json"
#: Of a model, the highest number that a version of it ever had.
_LAST = "last-version.txt"
#: Of a model, where its unfinished training lies among its versions, and the file there that says what it was asked.
RUN, PLAN = ".training", "plan.json"
#: Beside a version's weights: what was asked of its training, and by which labels it was taught and judged.
LEARNED_FROM = "learned-from.json"
#: What a training was asked; see `aiassist.learning.run.TrainingConfig`.
ASKED = ("kind", "base", "base_version", "epochs", "structures", "drafts")
#: Of a version, the folder that makes it a MONAI bundle.
BUNDLE = "bundle"


def check_model_name(name: str) -> str:
    """The name, when a model may be called so; else `ModelError`."""
    if not _NAME.fullmatch(name) or _RESERVED.fullmatch(name):
        raise ModelError(
            f"{name!r} is no name for a model; use 1 to 64 letters, digits, hyphens and underscores, beginning and "
            "ending with a letter or digit."
        )
    return name


def read_plan(path: Path) -> dict:
    """What a training was asked, and by which labels it is taught and judged, of `PLAN` or a version's `LEARNED_FROM`.

    Returns
    -------
    dict
        ``config``, which holds `ASKED`, and ``teaching`` and ``judging``, the labels, each with its ``study``.

    Raises
    ------
    ModelError
        When the file is damaged.
    OSError
        When it is not there, or cannot be read.
    """
    try:
        plan = json.loads(path.read_text(encoding="utf8"))
        config, samples = plan["config"], plan["teaching"] + plan["judging"]
        _ = [config[key] for key in ASKED] + [sample["study"] for sample in samples]
    except (ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{path} is damaged; restore it from a backup, or remove {path.parent}.") from error
    return plan


class ModelStore:
    """Versions of trained models, in a folder each.

    ``NAME/1``, ``NAME/2`` and so on hold a version (see `load_network_folder`) and never change once they are there.
    ``NAME/published.json`` says what was published and rolled back, in order, by whom and when. So publishing and
    rolling back move no weights, and nothing that was ever published is lost.

    Parameters
    ----------
    folder : Path
        Made when the first version is added.
    """

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self._warned: set[str] = set()

    def names(self) -> list[str]:
        """The models, in alphabetical order; one that was never trained to the end has no version."""
        if not self.folder.is_dir():
            return []
        return sorted(path.name for path in self.folder.iterdir() if _NAME.fullmatch(path.name) and path.is_dir())

    def versions(self, name: str) -> list[int]:
        """The versions of a model, oldest first; none when there is no such model."""
        return _versions(self.folder / check_model_name(name))

    def folder_of(self, name: str, version: int) -> Path:
        """Where a version lies; `UnknownModelError` when there is none."""
        known = self.versions(name)
        if not known:
            raise UnknownModelError(f"No model {name!r} was trained in {self.folder}; train it first.")
        if version not in known:
            versions = ", ".join(map(str, known))
            raise UnknownModelError(
                f"There is no version {version} of the model {name!r}; its versions are {versions}."
            )
        return self.folder / name / str(version)

    def is_imported(self, name: str) -> bool:
        """Whether a model is a bundle that was imported, and none that was trained here."""
        versions = self.versions(name)
        return bool(versions) and (self.folder_of(name, versions[-1]) / BUNDLE).is_dir()

    @contextmanager
    def new_version(self, name: str) -> Iterator[tuple[Path, int]]:
        """A folder to write the next version into, and its number; it counts once the block has ended well.

        No number is given twice, even when somebody removed the folder of a version. One process at a time may do so
        for a model.
        """
        home = self.folder / check_model_name(name)
        home.mkdir(parents=True, exist_ok=True)
        for left in home.glob(f"{UNFINISHED}*"):  # by a process that was killed
            shutil.rmtree(left, ignore_errors=True)
        known = [*_versions(home), _last_version(home)]
        with suppress(ModelError):  # of a damaged one nothing is published, and what was trained is not lost
            known += [entry["version"] for entry in self.history(name)]
        number = 1 + max(known, default=0)
        unfinished = home / f"{UNFINISHED}{uuid.uuid4().hex[:8]}"
        unfinished.mkdir()
        try:
            yield unfinished, number
            for path in (*unfinished.rglob("*"), unfinished):  # a loss of power must not leave empty weights
                sync(path)
            with whole_file(home / _LAST) as temporary:
                temporary.write_text(f"{number}\n", encoding="utf8")
            unfinished.rename(home / str(number))
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            with suppress(OSError):  # there is more
                home.rmdir()
            raise
        sync(home)

    def held(self, name: str, what: str) -> AbstractContextManager[None]:
        """A lock on a model for its "training" or its "publishing"; `BusyError` for a second one."""
        busy = BusyError(f"Somebody else's {what} of the model {name!r} is under way; try again when it is over.")
        return locked(self.folder / f".{check_model_name(name)}.{what}", busy)

    def published(self, name: str) -> int | None:
        """The version of a model that is published now."""
        stack = self._stack(name)
        return stack[-1] if stack else None

    def published_folders(self) -> dict[str, Path]:
        """Where the published version of each model lies, by the model's name."""
        found = {}
        for name in self.names():
            try:
                version = self.published(name)
                if version is not None:
                    found[name] = self.folder_of(name, version)
            except (ModelError, OSError) as error:  # one damaged model must not keep people from the others
                if str(error) not in self._warned:
                    self._warned.add(str(error))
                    log.warning("The model %s is left out: %s", name, error)
        return found

    def history(self, name: str) -> list[dict]:
        """What was published and rolled back, oldest first: ``action``, ``version``, ``by``, ``at``."""
        path = self.folder / check_model_name(name) / _PUBLISHED
        try:
            entries = json.loads(path.read_text(encoding="utf8"))
        except FileNotFoundError:
            return []
        except ValueError:
            entries = None
        if not isinstance(entries, list) or not all(map(_is_entry, entries)):
            raise ModelError(f"{path} is damaged; restore it from a backup, or remove it and publish again.")
        return entries

    def unfinished(self, name: str) -> dict | None:
        """What the model's unfinished training was asked, see `ASKED`; None without one.

        One whose version is there already was killed while it was removed, and is not unfinished.
        """
        try:
            plan = read_plan(self.folder / check_model_name(name) / RUN / PLAN)
        except FileNotFoundError:
            return None
        is_over = plan.get("version") in self.versions(name)
        return None if is_over else {key: plan["config"][key] for key in ASKED}

    def discard_unfinished(self, name: str) -> None:
        """Remove the model's unfinished training, with all that it did; `BusyError` while it goes on."""
        with self.held(name, "training"):
            self.remove_run(name)

    def remove_run(self, name: str) -> None:
        """As `discard_unfinished`, for who holds the lock; it is over whatever of its files cannot be removed now."""
        home = self.folder / check_model_name(name)
        (home / RUN / PLAN).unlink(missing_ok=True)
        shutil.rmtree(home / RUN, ignore_errors=True)
        with suppress(OSError):  # there is more
            home.rmdir()

    def publish(self, name: str, version: int, by: str) -> None:
        """Make a version the one that is used under the model's name."""
        self.folder_of(name, version)
        self._note(name, "publish", version, by)

    def rollback(self, name: str, by: str) -> int | None:
        """Take back what was published last; the version that was published before it, which is used again, if any."""
        stack = self._stack(name)
        if not stack:
            raise ModelError(f"No version of {name!r} is published in {self.folder}, so there is nothing to take back.")
        self._note(name, "rollback", stack[-1], by)
        return stack[-2] if len(stack) > 1 else None

    def _stack(self, name: str) -> list[int]:
        """What was published, not taken back since, and is still there."""
        known, stack = self.versions(name), []
        for entry in self.history(name):
            if entry["action"] == "publish":
                stack.append(entry["version"])
            elif entry["version"] in stack:  # what it took back was the last that was there then
                del stack[len(stack) - 1 - stack[::-1].index(entry["version"])]
        return [version for version in stack if version in known]

    def _note(self, name: str, action: str, version: int, by: str) -> None:
        at = datetime.now(UTC).isoformat(timespec="seconds")
        entries = [*self.history(name), {"action": action, "version": version, "by": by, "at": at}]
        with whole_file(self.folder / name / _PUBLISHED) as temporary:
            temporary.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf8")


def _is_entry(entry) -> bool:
    return isinstance(entry, dict) and isinstance(entry.get("version"), int) and "action" in entry


def _last_version(home: Path) -> int:
    """The highest number that a version ever had, as it was noted; 0 where nothing (or nothing readable) was."""
    try:
        noted = (home / _LAST).read_text(encoding="utf8", errors="replace").strip()
    except FileNotFoundError:
        return 0
    return int(noted) if noted.isdecimal() else 0  # what was trained is not lost for such a file


def _versions(home: Path) -> list[int]:
    if not home.is_dir():
        return []
    return sorted(int(path.name) for path in home.iterdir() if path.name.isdecimal() and path.is_dir())
