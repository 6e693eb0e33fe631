"""Which studies teach and which ones judge: decided once for each patient, and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from aiassist.errors import ModelError, StoreError
from aiassist.files import whole_file
from aiassist.groundtruth import GroundTruthStore

#: Share of the patients whose labels judge, and are never learned from.
SHARE = 0.2
FILE = "splits.json"
#: Beside a version's weights: what was asked of its training, and by which labels it was taught and judged.
LEARNED_FROM = "learned-from.json"


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

    def judging(self, store: GroundTruthStore, studies: Iterable[str]) -> set[str]:
        """Those of some studies, by id, that judge; new patients are given a side, in the order of the studies.

        The first one judges, then each time as soon as fewer than `SHARE` of all would. With DICOM headers a patient is
        told by the Patient ID; an image without is a patient of its own, and stays one when its headers come later.

        Raises
        ------
        StoreError
            When these studies are not of two patients, one to teach and one to judge.
        ModelError
            When the file is damaged.
        """
        sides, patients = self._read()
        chosen = {}
        for study in studies:
            patient = chosen[study] = patients.get(study) or _patient(store, study)
            patients[study] = patient
            if patient not in sides:
                sides[patient] = sum(sides.values()) < SHARE * (len(sides) + 1)
        self._check_both(store, {patient: sides[patient] for patient in chosen.values()})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(self.path) as temporary:
            temporary.write_text(json.dumps({"judges": sides, "patients": patients}, indent=1) + "\n", encoding="utf8")
        return {study for study, patient in chosen.items() if sides[patient]}

    def _check_both(self, store: GroundTruthStore, sides: dict[str, bool]) -> None:
        if len(sides) == 1:
            raise StoreError(
                f"All labels in {store.folder} to learn from are of one patient; add another's, which then judges the "
                "model."
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
        except FileNotFoundError:
            return {}, {}
        except (ValueError, TypeError, KeyError):
            sides, patients = {"": None}, {}
        if not all(isinstance(side, bool) for side in sides.values()) or not set(patients.values()) <= set(sides):
            raise ModelError(f"{self.path} is damaged; restore it from a backup: it says which labels never teach.")
        return sides, patients


def _patient(store: GroundTruthStore, study: str) -> str:
    """A name for a study's patient that tells nobody who it is."""
    series = store.series(study)
    said = series.patient_id if series is not None and series.patient_id else study
    return hashlib.sha256(said.encode()).hexdigest()[:16]
