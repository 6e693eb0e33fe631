"""A run that makes a version of a model of the labels of a studies folder; it goes on where it stopped."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from aiassist.errors import AIAssistError
from aiassist.files import whole_file
from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import Label
from aiassist.learning.judge import Scores, check_can_judge
from aiassist.learning.samples import Sample, check_each, find_samples
from aiassist.learning.splits import Splits
from aiassist.segmenters.base import ModelCard
from aiassist.segmenters.model_store import LEARNED_FROM, PLAN, RUN, ModelStore, read_plan
from aiassist.synthesis.export import export_onnx
from aiassist.synthesis.training import Trainer

#: Files of the base that a version takes over, but for those that were trained.
BASE = ("weights.onnx", "corrections.onnx")


@dataclass(frozen=True)
class TrainingConfig:
    """What a run is asked for.

    ``base`` names the network that it begins from (an automatic model looks closer by it), ``base_version`` its
    version; each label is shown about ``epochs`` times; of ``structures`` only (all when empty), ``drafts`` too.
    """

    base: str
    base_version: str
    epochs: int
    structures: tuple[str, ...] = ()
    drafts: bool = False


class LearningRun(ABC):
    """One run, in the folder of the model that it makes a version of.

    Parameters
    ----------
    store : GroundTruthStore
    models : ModelStore
    name : str
        Of the model.
    config : TrainingConfig
    base : Path
        Folder of the network that it begins from.

    Raises
    ------
    AIAssistError
        When a run of another configuration is unfinished.
    """

    #: "promptable" or "automatic".
    kind: str
    #: File of a version that the trained weights become.
    weights: str

    def __init__(self, store: GroundTruthStore, models: ModelStore, name: str, config: TrainingConfig, base: Path):
        self.store, self.models, self.name, self.config, self.base = store, models, name, config, base
        self.folder = models.folder / name / RUN
        self._plan_path = self.folder / PLAN
        asked, begun = json.loads(json.dumps({"kind": self.kind, **asdict(config)})), models.unfinished(name)
        if begun not in (None, asked):
            raise AIAssistError(
                f"An unfinished run of {name!r} was begun otherwise ({_in_words(begun)}); give the same options to go "
                f"on with it, or remove {self.folder}."
            )

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run was prepared here and not finished."""
        return self.models.unfinished(self.name) is not None

    @cached_property
    def plan(self) -> dict:
        """What was decided when the run was prepared."""
        return read_plan(self._plan_path)

    @cached_property
    def teaching(self) -> list[Sample]:
        """The labels that it learns from."""
        return [Sample(**sample) for sample in self.plan["teaching"]]

    @cached_property
    def judging(self) -> list[Sample]:
        """The labels that it is judged by: those that were chosen, but for studies that were removed since."""
        chosen = (Sample(**sample) for sample in self.plan["judging"])
        return [one for one in chosen if one in map(Sample.of, self.store.history(one.study, one.structure))]

    @cached_property
    def structures(self) -> list[str]:
        """The keys of the structures that it learns, in alphabetical order."""
        return sorted({sample.structure for sample in self.teaching})

    def prepare(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Decide what teaches and what judges, and write what training reads of the former; once for a run.

        Where that is broken off, nothing is left of it.

        Raises
        ------
        StoreError
            When there is nothing to learn from or to be judged by, or no label of a structure that was asked for.
        """
        if self.is_begun:
            return
        samples = find_samples(self.store, self.config.structures, self.config.drafts, absent=self.kind == "automatic")
        check_each(self.store, samples, self.config.structures)
        studies = list(dict.fromkeys(sample.study for sample in samples))
        judges = Splits(self.models.folder).judging(self.store, studies)
        teaching, judging = ([x for x in samples if (x.study in judges) == side] for side in (False, True))
        if self.kind == "promptable":  # an automatic one is judged by whatever they hold
            check_can_judge(self.store, judging)
        self.models.remove_run(self.name)  # what one left that was killed
        self.data.mkdir(parents=True)
        try:
            taught, files = self._write_data(teaching, progress)
            plan = {"config": {"kind": self.kind, **asdict(self.config)}, "files": files}
            plan |= {"teaching": [asdict(x) for x in taught], "judging": [asdict(x) for x in judging]}
            write_json(self._plan_path, plan)
        except BaseException:  # nobody would know whose voxels lie there
            self.models.remove_run(self.name)
            raise

    @property
    def data(self) -> Path:
        """Where lies what training reads."""
        return self.folder / "data"

    @property
    @abstractmethod
    def steps(self) -> int:
        """Length of the run."""

    @abstractmethod
    def _write_data(self, teaching: list[Sample], progress: Callable[[int, int], None]) -> tuple[list[Sample], object]:
        """Write what training reads into `data`; the labels of which it is, and what `plan` keeps of it as "files"."""

    @abstractmethod
    def trainers(self, device: str = "cpu", workers: int = 1) -> Iterator[Trainer]:
        """What trains, begun or going on; one after the other, each once the one before is at its end."""

    def export(self, folder: Path) -> None:
        """Write the trained weights as a file of a version, in its folder."""
        export_onnx(self.folder / "weights.safetensors", folder / self.weights)

    @abstractmethod
    def description(self) -> str:
        """One sentence for the person who chooses a model."""

    def labels(self) -> tuple[Label, ...]:
        """What an automatic model finds, in the order of its network's answers."""
        return ()

    def card(self, number: int, machine: str) -> ModelCard:
        """The card of the version, without what judging says."""
        return ModelCard(
            name=self.name,
            version=str(number),
            kind=self.kind,
            description=self.description(),
            licence="LicenseRef-local",
            labels=self.labels(),
            metrics={"steps": self.steps, "labels": len(self.teaching), "judging labels": len(self.judging)},
            provenance=f"Trained by aiassist train, with {self.config.base} {self.config.base_version}, on {machine}; "
            "has learned from patients, so ask before the weights leave this place.",
            devices=("cpu", "cuda"),
        )

    def finish(self, judged: Callable[[Path], tuple[Scores, Scores]], machine: str) -> tuple[int, Scores, Scores]:
        """Make a version of the trained run: weights, card, and what it learned from; the run is removed.

        Parameters
        ----------
        judged : callable
            Given the folder of the new model, the scores of that and of the one before.
        machine : str
            What it was trained on, in words.

        Returns
        -------
        int
            The version.
        Scores, Scores
            On it, and on the model before.
        """
        with self.models.new_version(self.name) as (folder, number):
            self.export(folder)
            for file in BASE:
                if (self.base / file).exists() and not (folder / file).exists():
                    with whole_file(folder / file) as temporary:
                        shutil.copyfile(self.base / file, temporary)
            card = self.card(number, machine).to_json()
            write_json(folder / "card.json", card)
            now, before = judged(folder)
            card["metrics"] |= now.metrics() | {f"before, {key}": value for key, value in before.metrics().items()}
            write_json(folder / "card.json", card)
            learned_from = {part: self.plan[part] for part in ("config", "teaching")}
            write_json(folder / LEARNED_FROM, learned_from | {"judging": [asdict(x) for x in self.judging]})
            write_json(self._plan_path, self.plan | {"version": number})  # once that is there, the run is over
        self.models.remove_run(self.name)
        return number, now, before


def write_json(path: Path, content: dict) -> None:
    """Write JSON, whole or not at all."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf8")


def _in_words(config: dict) -> str:
    what = ", ".join(config["structures"]) or "all structures"
    drafts = ", drafts too" if config["drafts"] else ""
    return (
        f"{config['kind']}, from {config['base']} {config['base_version']}, {config['epochs']} epochs of {what}{drafts}"
    )
