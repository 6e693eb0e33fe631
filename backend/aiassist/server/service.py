"""What the server does, without HTTP: studies, jobs, ground truth, and who changed what."""

from __future__ import annotations

import json
import logging
import math
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

from aiassist.contour import ContourSession
from aiassist.engine import Job, LocalBackend
from aiassist.engine.backend import Answer, Request
from aiassist.engine.job import Result
from aiassist.engine.studies import Studies
from aiassist.engine.worker import Worker
from aiassist.errors import ContourError, ImageError, SeriesError, StoreError, UnknownModelError, UnknownStudyError
from aiassist.files import sync
from aiassist.groundtruth.export import export
from aiassist.groundtruth.index import State
from aiassist.groundtruth.records import LabelVersion
from aiassist.groundtruth.store import GroundTruthStore
from aiassist.groundtruth.studies import OTHER_SERIES
from aiassist.imaging import DicomSeries, MaskPatch, Volume
from aiassist.protocol.dicom_lines import series_from_lines
from aiassist.protocol.messages import voxels_as_bytes
from aiassist.segmenters.base import Step
from aiassist.segmenters.model_store import MODELS, ModelStore
from aiassist.segmenters.registry import load_network_folder
from aiassist.server.asked import NewVersion, Pull
from aiassist.server.assignments import Assignments
from aiassist.server.jobs import Jobs
from aiassist.server.spool import STUDY_ID, UPLOADS, Spool
from aiassist.server.tokens import Person
from aiassist.server.training import Options, Task, Training

log = logging.getLogger("aiassist.server")

#: Of the requests that may wait, how many may be one person's: one in this many.
SHARE = 4


@dataclass(frozen=True)
class Settings:
    """What a server is given.

    ``memory`` bytes of voxels are held open, ``disk`` bytes of uploads are kept, ``queue`` requests may wait, and of
    one person one in `SHARE` of them. With ``named`` a person is whose token it is; else, each client.
    """

    studies: Path
    device: str = "cpu"
    memory: int = 4 * 2**30
    disk: int = 50 * 2**30
    queue: int = 64
    named: bool = False


class Service:
    """One server's work. Its methods block; call them from threads.

    Parameters
    ----------
    settings : Settings
    backend : LocalBackend, optional
        Runs the segmenters; one of the settings' device when absent.
    """

    def __init__(self, settings: Settings, backend: LocalBackend | None = None):
        self.settings = settings = replace(settings, studies=settings.studies.absolute())
        self.store = GroundTruthStore(settings.studies)
        self.spool = Spool(settings.studies / UPLOADS, settings.disk)
        self.studies = Studies(settings.memory, self._load, self.spool.touch)
        share = max(2, settings.queue // SHARE)
        #: Outlines are pulled beside the device, by one thread, in which people take turns as they do there.
        self.outlines = Worker("outlines", limit=settings.queue, share=share)
        #: Images that clients send as files are read by another.
        self.reader = Worker("reader", limit=settings.queue, share=share)
        #: Masks become the files that clients of AIAA and MONAI Label asked for,
        self.files = Worker("files", limit=settings.queue, share=share)
        #: and images and labels those that are downloaded, which may take seconds each.
        self.exports = Worker("exports", limit=settings.queue, share=share)
        self.backend = backend or LocalBackend(
            device=settings.device,
            studies=self.studies,
            queue=settings.queue,
            share=share,
            models=settings.studies / MODELS,
        )
        self.backend.studies = self.studies
        self.jobs = Jobs(self.backend, settings.named)
        self.models = ModelStore(settings.studies / MODELS)
        self.training = Training(settings.studies, settings.device)
        self._damaged: set[str] = set()  # studies whose images in the ground truth turned out to be
        self._fetched: dict[tuple[str, str], int] = {}  # where the latest piece ended, by who fetched of which study
        self._assignments = Assignments()
        self._audit = threading.Lock()

    def close(self) -> None:
        """Stop the work and let go of the files."""
        self.training.close()
        for worker in (self.outlines, self.reader, self.files, self.exports):
            worker.stop()
        self.backend.close()
        self.store.close()

    # Studies

    def _load(self, study: str) -> Volume:
        """A volume from the disk: an upload, or an image of the ground truth."""
        try:
            return self.spool.load(study) if study in self.spool else self._load_kept(study)
        except UnknownStudyError:
            self.studies.close(study)  # what is left of it would keep clients from sending it again
            raise

    def _load_kept(self, study: str) -> Volume:
        try:
            volume = self.store.volume(study)
        except StoreError:
            raise UnknownStudyError(f"The study {study} is not open here; open it first.") from None
        except (ImageError, OSError) as error:
            log.warning("The image of the study %s cannot be read: %s", study, error)
            volume = None
        if volume is None or volume.study_id != study:
            self._damaged.add(study)
            raise UnknownStudyError(f"The image of the study {study} was damaged on the server's disk; open it again.")
        return volume

    def has_study(self, study: str) -> bool:
        """Whether the voxels are here."""
        return self.studies.holds(study) or study in self.spool or self._keeps_image(study)

    def _keeps_image(self, study: str) -> bool:
        """Whether the image is in the ground truth, and not known to be damaged."""
        return study not in self._damaged and self.store.has_image(study)

    def announce(self, study: str, data: Mapping) -> tuple[int, bool]:
        """Begin or go on with an upload: the bytes that arrived, and whether that is all."""
        with self.spool.lock(study):
            if self.has_study(study):
                return 0, True
            upload = self.spool.begin(study, data)
            return upload.received, self._finish(study)

    def finish(self, study: str) -> bool:
        """Whether all of an upload has arrived; it is open then."""
        with self.spool.lock(study):
            return study in self.spool or self._finish(study)

    def _finish(self, study: str) -> bool:
        volume = self.spool.finish(study)
        if volume is not None:
            self._heal(volume)
            self.studies.open(volume)
        return volume is not None

    def _heal(self, volume: Volume) -> None:
        """Give the ground truth an image that it lost. Call with the lock held."""
        study = volume.study_id
        if self.store.has(study) and not self._keeps_image(study):
            self._add_to_truth(volume, "")
            log.warning("The image of the study %s was lost or damaged; somebody sent it again.", study)

    def open_volume(self, volume: Volume) -> str:
        """Make a volume known that came as a file; returns its id."""
        study = volume.study_id
        with self.spool.lock(study):
            if not self.has_study(study):
                self.spool.put(volume)
                self._heal(volume)
        return self.studies.open(volume)

    def keep_study(self, person: Person, volume: Volume, name: str) -> str:
        """Add an image to the ground truth's studies; returns its id."""
        with self.spool.lock(volume.study_id):
            self._add_to_truth(volume, name, volume.dicom)
        self.note(person, "add study", study=volume.study_id)
        return self.studies.open(volume)

    def _add_to_truth(self, volume: Volume, name: str, dicom: DicomSeries | None = None) -> None:
        """Add an image to the ground truth with the DICOM headers that came first. Call with the lock held.

        `dicom` are those that come with it now, after all that were sent before.
        """
        study = volume.study_id
        volume = volume.with_dicom(self.spool.series(study) or dicom)
        self.store.add_study(volume, name or study[:8], check=study in self._damaged)
        self._damaged.discard(study)

    def find_study(self, name_or_id: str) -> str:
        """The id of a study that is here, by its id or its name; `UnknownStudyError` unless exactly one is.

        The beginning of an id is none: images may be called by numbers, which others' ids begin with.
        """
        if STUDY_ID.fullmatch(name_or_id) and self.has_study(name_or_id):
            return name_or_id
        named = [study.id for study in self.store.studies() if study.name == name_or_id]
        if not named:
            raise UnknownStudyError(f"There is no image {name_or_id[:80]!r} here; send it first.")
        if len(named) > 1:
            raise UnknownStudyError(f"Several images here are called {name_or_id[:80]!r}; give the id of one.")
        return named[0]

    def fetch_voxels(self, person: Person, study: str, start: int, size: int) -> bytes:
        """A piece of a study's voxels; noted, unless it lies after the latest one that this person fetched."""
        piece = bytes(voxels_as_bytes(self.studies.volume(study))[start : start + size])
        if start < self._fetched.get((person.name, study), math.inf):
            self.fetched(person, study)
        self._fetched[person.name, study] = start + len(piece)
        return piece

    def fetched(self, person: Person, study: str) -> None:
        """Note that somebody fetched a study, and works on it from now on."""
        self.note(person, "fetch study", study=study)
        self._assignments.take(person.name, study)

    def worklist(self, person: Person) -> list[dict]:
        """The studies of the ground truth, see `GroundTruthStore.worklist`; ``with`` names who else works on one."""
        others = self._assignments.by_others(person.name)
        return [{**one, "with": others.get(one["id"])} for one in self.store.worklist()]

    def next_study(self, person: Person, current: str | None) -> str | None:
        """Give somebody the next study to do, passed over for everybody else from now on; None if there is none.

        It is the first after the `current` one that is not done and with nobody else, beginning anew at the end.
        """
        listed = self.store.worklist()
        ids = [one["id"] for one in listed]
        first = ids.index(current) + 1 if current in ids else 0
        turned = [one for one in listed[first:] + listed[:first] if one["state"] != "done" and one["id"] != current]
        return self.take_first(person, [one["id"] for one in turned])

    def take_first(self, person: Person, studies: list[str]) -> str | None:
        """Give somebody the first of some studies that nobody else works on; see `Assignments.take_first`."""
        return self._assignments.take_first(person.name, studies)

    def forget_study(self, study: str, person: Person) -> None:
        """Remove an uploaded study; what the ground truth holds of it stays. `UnknownStudyError` without one."""
        with self.spool.lock(study):
            if study not in self.spool:
                raise UnknownStudyError(f"There is no upload of the study {study} here.")
            self.spool.remove(study)
            self.studies.close(study)
        self.note(person, "forget study", study=study)

    # DICOM headers

    def series(self, study: str) -> DicomSeries | None:
        """The DICOM headers that are kept of a study; None when there are none."""
        known = self.store.series(study) if self.store.has(study) else None
        return known or self.spool.series(study)

    def fetch_series(self, person: Person, study: str) -> DicomSeries | None:
        """The DICOM headers of a study for somebody; noted when there are some."""
        series = self.series(study)
        if series is not None:
            self.note(person, "fetch series", study=study)
        return series

    def series_identity(self, study: str) -> str | None:
        """What tells the DICOM headers of a study from others; see `DicomSeries.identity`."""
        known = self.store.series_file(study) if self.store.has(study) else None
        path = known or self.spool.series_file(study)
        try:
            said = path.stat()
            return _identity(path, said.st_mtime_ns, said.st_size)
        except (FileNotFoundError, StoreError):  # damaged ones are none: who sends others hears of it
            return None

    def keep_series(self, person: Person, study: str, data: bytes) -> str:
        """Keep the DICOM headers of a study that has none, as they travel; returns their identity.

        `SeriesError` when it has those of another series: they stay, and the try is noted.
        """
        series = series_from_lines(data, self.studies.geometry(study))
        with self.spool.lock(study):
            known = self.series_identity(study)
            if known is None and self.store.has(study):
                self.store.add_series(study, series)
            elif known is None:
                self.spool.keep_series(study, series)
        if known not in (None, series.identity):
            self.note(person, "another series refused", study=study)
            raise SeriesError(OTHER_SERIES)
        if known is None:
            self.note(person, "keep series", study=study)
        return series.identity

    def drop_series(self, person: Person, study: str) -> None:
        """Forget the DICOM headers of a study, so that others can be sent. `UnknownStudyError` without any."""
        with self.spool.lock(study):
            kept = self.store.series_file(study) if self.store.has(study) else None
            if kept is None and not self.spool.series_file(study).exists():
                raise UnknownStudyError(f"No DICOM headers of the study {study} are kept here.")
            self.spool.drop_series(study)
            if self.store.has(study):
                self.store.drop_series(study)
        self.note(person, "forget series", study=study)

    # Jobs

    def ask(
        self,
        person: Person,
        name: str,
        request: Request,
        then: Callable[[Answer], Result] | None = None,
        turn: int | None = None,
    ) -> Job[Answer | Result]:
        """The job of a request for a study that is here; see `Jobs.ask`."""
        self.studies.geometry(request.study)
        return self.jobs.ask(person, name, request, then, turn)

    # Contour

    def contour(self, study: str, base: str, pull: Pull) -> Generator[Step, None, tuple[MaskPatch, dict]]:
        """The work of pulling a vertex of a mask's outline, for `outlines`; the patch, and what was done."""
        yield Step("pull", 0.0)
        volume, mask = self.studies.volume(study), self.studies.mask(study, base)
        if not 0 <= pull.index < volume.shape[pull.axis]:
            raise ContourError(
                f"There is no slice {pull.index} across axis {pull.axis}, which has {volume.shape[pull.axis]}."
            )
        session = ContourSession(volume, mask)
        session.open(pull.axis, pull.index)
        if session.press(pull.start) is None:
            raise ContourError(f"The slice {pull.index} has no outline to pull; open one that shows the structure.")
        session.drag(pull.stop, pull.radius, pull.strength)
        edits = [session.release()]
        if pull.propagate and edits[0] is not None:
            yield Step("propagate", 0.1)
            edits.append(session.propagate(pull.propagate, pull.radius, pull.strength))
        patch = session.result()
        slices = sorted({k for edit in edits if edit is not None for k in edit.slices})
        return patch, {"base": base, "version": self.studies.remember(study, patch.over(mask)), "slices": slices}

    # Ground truth

    def save(self, person: Person, study: str, structure: str, new: NewVersion) -> LabelVersion:
        """Save a mask as a new version; saving the same once more returns the version that is there.

        It is of the person's name; only who is alone may name another author, see `Person.author`.
        """
        author = replace(person, name=person.author(new.author))
        volume = None if self._keeps_image(study) else self.studies.volume(study)
        with self.spool.lock(study):  # equal saves at once are one, and DICOM headers that come meanwhile are not lost
            again = self._saved_already(author, study, structure, new) if self.store.has(study) else None
            if again is not None:
                return again
            mask = self.studies.mask(study, new.mask) if isinstance(new.mask, str) else new.mask
            if volume is not None:
                self._add_to_truth(volume, new.name)
            elif self.store.series_file(study) is None and (series := self.spool.series(study)) is not None:
                self.store.add_series(study, series)  # `truth add` brought the image alone meanwhile
            version = self.store.add(
                study,
                structure,
                mask,
                author=author.name,
                model=new.model,
                model_version=new.model_version,
                prompts=new.prompts,
                seconds=new.seconds,
                edits=new.edits,
                comment=new.comment,
                state=new.state,
                parent=new.parent,
            )
        self._assignments.take(person.name, study)
        self.note(author, "save", study=study, structure=version.structure, version=version.number)
        return version

    def _saved_already(self, person: Person, study: str, structure: str, new: NewVersion) -> LabelVersion | None:
        """The version that an earlier try of the same request made, whose answer was lost."""
        if new.parent is None:
            return None
        wanted = (new.parent, new.mask_version, person.name, new.comment, new.state)
        for version in reversed(self.store.history(study, structure)):
            if (version.parent or 0, version.mask, version.author, version.comment, version.state) == wanted:
                return version
        return None

    def saved_mask(self, study: str, structure: str, number: int) -> MaskPatch:
        """The mask of a saved version; it can be the base of corrections from now on."""
        mask = self.store.mask(self.store.version(study, structure, number))
        self.studies.remember(study, mask)
        return mask

    def restore(self, person: Person, study: str, structure: str, number: int) -> LabelVersion:
        """Make an old version the newest again."""
        version = self.store.restore(study, structure, number, person.name)
        self.note(person, "restore", study=study, structure=version.structure, version=number, made=version.number)
        return version

    def review(
        self, person: Person, study: str, structure: str, number: int, state: State, comment: str, author: str | None
    ) -> LabelVersion:
        """Approve or reject the newest version of a label, which must be this one; for `author` see `save`."""
        reviewer = replace(person, name=person.author(author))
        version = self.store.review(study, structure, state, reviewer.name, comment, number)
        self.note(reviewer, state.value, study=study, structure=version.structure, version=number, made=version.number)
        return version

    def exported(self, person: Person, study: str, ending: str, structures: list[str]) -> bytes:
        """A file of the newest versions."""
        if not self.store.has(study):
            raise UnknownStudyError(f"There is no ground truth of the study {study} here.")
        record = self.store.study(study)
        latest = self.store.latest(study)
        names = structures or list(latest)
        versions = [self.store.version(study, name) for name in names]
        with tempfile.TemporaryDirectory(prefix="aiassist-") as folder:
            path = Path(folder) / f"labels{ending}"
            export(self.store, record, versions, path)
            data = path.read_bytes()
        self.note(person, "export", study=study, ending=ending)
        return data

    # Learning

    def train(self, person: Person, model: str, options: Options) -> Task:
        """Have a model learn."""
        task = self.training.train(person.name, model, options)
        self.note(person, "train", model=model, **asdict(options))
        return task

    def kind_of(self, model: str) -> str | None:
        """What kind a model is that was trained here, or was begun to be: "promptable" or "automatic"."""
        versions = self.models.versions(model)
        if versions:
            return load_network_folder(self.models.folder_of(model, versions[-1])).card.kind
        return (self.models.unfinished(model) or {}).get("kind")

    def discard(self, person: Person, model: str) -> None:
        """Remove a model's unfinished training; `UnknownModelError` when nothing is here of the model."""
        self._check_here(model)
        self.models.discard_unfinished(model)
        self.note(person, "discard training", model=model)

    def publish(self, person: Person, model: str, version: int) -> Task:
        """Have a version judged by the labels of today, and published if it is better."""
        self.models.folder_of(model, version)
        task = self.training.publish(person.name, model, version)
        self.note(person, "publish", model=model, version=version)
        return task

    def pull(self, person: Person, bundle: str, version: str | None, name: str | None) -> Task:
        """Have a bundle of MONAI's model zoo fetched, which is used from then on."""
        task = self.training.pull(person.name, bundle, version, name)
        self.note(person, "pull", bundle=bundle, version=version, name=name)
        return task

    def rollback(self, person: Person, model: str) -> int | None:
        """Take back what was published last of a model; the version that is used now, if any.

        `UnknownModelError` when nothing is here of the model.
        """
        self._check_here(model)
        with self.models.held(model, "publishing"):
            version = self.models.rollback(model, person.name)
        self.note(person, "rollback", model=model, used=version)
        return version

    def _check_here(self, model: str) -> None:
        names = self.models.names()
        if model not in names:  # before its lock, which would leave a file of that name
            raise UnknownModelError(f"There is no model {model!r} here, but {', '.join(names) or 'none yet'}.")

    def stop_training(self, person: Person) -> None:
        """Tell the training that runs to save and stop."""
        self.training.stop()
        self.note(person, "stop training")

    # Who did what

    def note(self, person: Person, what: str, **details) -> None:
        """Add a line to the audit log, which is on the disk when this returns, or to the server's log."""
        line = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "who": person.name, "what": what, **details}
        path = self.settings.studies / "audit.jsonl"
        try:
            with self._audit:
                with path.open("a", encoding="utf8") as audit:
                    audit.write(json.dumps(line) + "\n")
                sync(path)
        except OSError as error:  # what was done is done, and the store itself says by whom
            log.error("the audit log cannot be written (%s): %s", error.strerror, line)


@lru_cache(1024)
def _identity(path: Path, _changed: int, _size: int) -> str:
    """The identity of the DICOM headers in a file, read again when the file was changed."""
    return DicomSeries.from_bytes(path.read_bytes()).identity
