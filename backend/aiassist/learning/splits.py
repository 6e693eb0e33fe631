"""Which studies teach and which ones judge: decided once for each patient, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from aiassist.errors import BusyError, ModelError, StoreError
from aiassist.files import locked, whole_file
from aiassist.groundtruth import GroundTruthStore
from aiassist.segmenters.model_store import BUNDLE, LEARNED_FROM, PLAN, RUN, ModelStore, read_plan
from aiassist.segmenters.registry import DEFAULT

#: Share of the patients whose labels judge, and are never learned from.
SHARE = 0.2
FILE = "splits.json"


class Splits:
    """The judging patients of a studies folder, in ``splits.json`` beside its models.

    A patient who was given a side keeps it whatever is added later, so that all versions of a model are judged by
    labels that none of them learned from.

    Parameters
    ----------
    folder : Path
        Of the models.
    """

    def __init__(self, folder: Path):
        self.path = Path(folder) / FILE

    def judging(self, store: GroundTruthStore, studies: Iterable[str], taught: Iterable[str] = ()) -> set[str]:
        """Those of some studies, by id, that judge; new patients are given a side, in the order of the studies.

        The first one judges, then each time as soon as fewer than `SHARE` of all would. With DICOM headers a patient is
        told by the Patient ID, or the Study Instance UID where that is blank; an image without is a patient of its own.
        All studies follow their headers when those come or change; a patient joined by one who taught never judges.

        Parameters
        ----------
        store : GroundTruthStore
        studies : iterable of str
        taught : iterable of str
            Studies whose patients judge nothing now, whatever their side.

        Raises
        ------
        StoreError
            When these studies are not of two patients, one to teach and one to judge.
        ModelError
            When the file is damaged.
        """
        with self._held():
            sides, patients = self._read() if self.path.exists() else self._recall(store)
            _follow_headers(store, sides, patients)
            chosen = {study: self._give_side(store, study, sides, patients) for study in studies}
            self._check_both(store, {patient: sides[patient] for patient in chosen.values()})
            self._write(sides, patients)
        known = {patients.get(study) or _patient(store, study, _hash(study)) for study in taught}
        return {study for study, patient in chosen.items() if sides[patient] and patient not in known}

    def forget(self, study: str) -> None:
        """Forget a study, and its patient when it was the only one; `ModelError` when the file is damaged."""
        if not self.path.exists():
            return
        with self._held():
            sides, patients = self._read()
            patient = patients.pop(study, None)
            if patient is not None and patient not in patients.values():
                del sides[patient]
            self._write(sides, patients)

    def _held(self):
        busy = BusyError("Another training or publishing decides now which patients judge; try again in a moment.")
        return locked(self.path.with_name(f".{FILE}.lock"), busy)

    def _write(self, sides: dict[str, bool], patients: dict[str, str]) -> None:
        with whole_file(self.path) as temporary:
            said = {"judges": sides, "patients": patients}
            temporary.write_text(json.dumps(said, indent=1) + "\n", encoding="utf8")

    def _recall(self, store: GroundTruthStore) -> tuple[dict[str, bool], dict[str, str]]:
        """As `_read`, of a file that is not there (yet, or any more): by what taught and judged the versions here."""
        sides: dict[str, bool] = {}
        patients: dict[str, str] = {}
        plans = _plans(ModelStore(self.path.parent))[0].values()
        for part, judges in (("judging", True), ("teaching", False)):  # who taught anything never judges
            for study in {sample["study"] for plan in plans for sample in plan[part]}:
                patients[study] = _patient(store, study, _hash(study))
                sides[patients[study]] = judges
        return sides, patients

    def _give_side(self, store: GroundTruthStore, study: str, sides: dict[str, bool], patients: dict[str, str]) -> str:
        """The patient of a study, who has a side now."""
        if study not in patients:
            patients[study] = _patient(store, study)
        patient = patients[study]
        if patient not in sides:
            sides[patient] = sum(sides.values()) < SHARE * (len(sides) + 1)
        return patient

    def _check_both(self, store: GroundTruthStore, sides: dict[str, bool]) -> None:
        if len(sides) == 1:
            raise StoreError(
                f"All labels in {store.folder} to learn from are of one patient, or have the same Patient ID; add "
                "another's, which then judges the model."
            )
        if len(set(sides.values())) == 1:
            does = "judge" if all(sides.values()) else "teach"
            raise StoreError(
                f"All patients with these labels in {store.folder} {does} already; label some more images, of which "
                f"every {round(1 / SHARE)}th judges."
            )

    def _read(self) -> tuple[dict[str, bool], dict[str, str]]:
        """Whether each patient judges, and the patient of each study."""
        try:
            held = json.loads(self.path.read_text(encoding="utf8"))
            sides, patients = dict(held["judges"]), dict(held["patients"])
        except (ValueError, TypeError, KeyError):
            sides, patients = {"": None}, {}
        if not all(isinstance(side, bool) for side in sides.values()) or not set(patients.values()) <= set(sides):
            raise ModelError(f"{self.path} is damaged; restore it from a backup: it says which labels never teach.")
        return sides, patients


def taught_by(models: ModelStore, study: str) -> tuple[list[Path], list[Path]]:
    """Which versions of models, and unfinished trainings, a study taught, and which ones it may have taught.

    What began from a network that it taught, it taught, too. It may have taught those of which nobody can read any more
    what they, or the networks that they began from, learned from.

    Returns
    -------
    list of Path, list of Path
        Their folders.
    """
    plans, unsure = _plans(models)
    bases = {folder: _base(models, plan["config"]) for folder, plan in plans.items()}
    unsure |= {folder for folder, base in bases.items() if base is not None and not base.is_dir()}
    taught = {folder for folder, plan in plans.items() if any(one["study"] == study for one in plan["teaching"])}
    for found in (taught, unsure):
        while began := {folder for folder, base in bases.items() if base in found} - found:
            found.update(began)
    return sorted(taught), sorted(unsure - taught)


def _plans(models: ModelStore) -> tuple[dict[Path, dict], set[Path]]:
    """What each version and each unfinished training learned from, by its folder; folders that do not say so."""
    plans, unsure = {}, set()
    for folder in (path for name in models.names() for path in (models.folder / name).iterdir() if path.is_dir()):
        said = folder / (PLAN if folder.name == RUN else LEARNED_FROM)
        try:
            if said.exists():
                plans[folder] = read_plan(said)
            elif not (folder / BUNDLE).is_dir():  # it was broken off, or somebody removed the file
                unsure.add(folder)
        except (ModelError, OSError):
            unsure.add(folder)
    return plans, unsure


def _base(models: ModelStore, config: dict) -> Path | None:
    """Where the network lies, or lay, that a training began from; None of the one that ships."""
    return None if config["base"] == DEFAULT else models.folder / str(config["base"]) / str(config["base_version"])


def _follow_headers(store: GroundTruthStore, sides: dict[str, bool], patients: dict[str, str]) -> None:
    """Tell the patient of each study anew, in place; who taught once never judges."""
    for study, before in patients.items():
        patients[study] = patient = _patient(store, study, before)
        if patient != before:
            sides[patient] = sides[before] and sides.get(patient, True)


def _patient(store: GroundTruthStore, study: str, before: str | None = None) -> str:
    """A short name for a study's patient: a hash of the Patient ID, else of the Study Instance UID, else of the study.

    It is the one `before`, if any, when the study is gone or its headers are damaged.
    """
    try:
        series = store.series(study)
    except StoreError:
        if before is None:
            raise
        return before
    told = (series.patient_id.strip(), series.study_uid.strip()) if series is not None else ()
    return _hash(next(filter(None, told), study))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
