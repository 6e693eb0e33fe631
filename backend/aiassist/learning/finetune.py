"""Fine-tune a promptable network on the labels of a studies folder; a run goes on where it stopped."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

from aiassist.errors import AIAssistError, StoreError
from aiassist.files import whole_file
from aiassist.groundtruth import GroundTruthStore
from aiassist.learning.crops import write_crop
from aiassist.learning.examples import SYNTHETIC, LabelExamples
from aiassist.learning.judge import Verdict, load
from aiassist.learning.lessons import Lesson, find_lessons, targets
from aiassist.learning.publish import LEARNED_FROM
from aiassist.learning.splits import Splits
from aiassist.segmenters.base import ModelCard
from aiassist.segmenters.model_store import ModelStore
from aiassist.segmenters.torch_runner import load_network
from aiassist.synthesis.export import export_onnx
from aiassist.synthesis.training import Settings, Trainer

#: Examples of a step.
BATCH = 8
RATE = 5e-4
#: Fewest steps of a run, however few the labels.
LEAST = 60
#: Where a model's unfinished run lies, among its versions.
RUN = ".training"


@dataclass(frozen=True)
class Wish:
    """What a run is asked for.

    ``base`` names the model whose weights it begins from, ``base_version`` its version; each label is shown about
    ``epochs`` times; of ``structures`` only (all when empty), ``drafts`` too.
    """

    base: str
    base_version: str
    epochs: int = 10
    structures: tuple[str, ...] = ()
    drafts: bool = False
    seed: int = 0


class FineTuning:
    """One run, in the folder of the model that it makes a version of.

    Parameters
    ----------
    store : GroundTruthStore
    models : ModelStore
    name : str
        Of the model.
    wish : Wish
    base : Path
        Folder of the model that it begins from.

    Raises
    ------
    AIAssistError
        When a run of another wish is unfinished.
    """

    def __init__(self, store: GroundTruthStore, models: ModelStore, name: str, wish: Wish, base: Path):
        self.store, self.models, self.name, self.wish, self.base = store, models, name, wish, base
        self.folder = models.folder / name / RUN
        self._plan_path = self.folder / "plan.json"
        if self.is_begun and self._plan["wish"] != json.loads(json.dumps(asdict(wish))):
            raise AIAssistError(
                f"An unfinished run of {name!r} was begun otherwise ({_in_words(self._plan['wish'])}); give the same "
                f"options to go on with it, or remove {self.folder}."
            )

    @property
    def is_begun(self) -> bool:
        """Whether an earlier run was prepared here and not finished."""
        return self._plan_path.exists()

    @cached_property
    def _plan(self) -> dict:
        try:
            return json.loads(self._plan_path.read_text(encoding="utf8"))
        except ValueError as error:
            raise AIAssistError(f"{self._plan_path} is damaged; remove {self.folder} to begin anew.") from error

    @cached_property
    def teaching(self) -> list[Lesson]:
        """The labels that it learns from."""
        return [Lesson(**lesson) for lesson in self._plan["teaching"]]

    @cached_property
    def judging(self) -> list[Lesson]:
        """The labels that it is judged by."""
        return [Lesson(**lesson) for lesson in self._plan["judging"]]

    def prepare(self, progress: Callable[[int, int], None] = lambda done, total: None) -> None:
        """Decide what teaches and what judges, and cut the former out of their images; once for a run.

        Raises
        ------
        StoreError
            When there is nothing to learn from or to be judged by.
        """
        if self.is_begun:
            return
        lessons = find_lessons(self.store, self.wish.structures, self.wish.drafts)
        studies = list(dict.fromkeys(lesson.study for lesson in lessons))
        judges = Splits(self.models.folder).judging(self.store, studies)
        teaching, judging = ([x for x in lessons if (x.study in judges) == side] for side in (False, True))
        shutil.rmtree(self.folder, ignore_errors=True)  # what a preparation left that was broken off
        (self.folder / "crops").mkdir(parents=True)
        crops: dict[str, list[str]] = {}
        for number, (volume, lesson, label) in enumerate(load(self.store, teaching)):
            for part, mask in enumerate(targets(label)):
                crop = f"{number:05d}-{part}.npz"
                write_crop(self.folder / "crops" / crop, volume, mask)
                crops.setdefault(lesson.structure, []).append(crop)
            progress(number + 1, len(teaching))
        if not crops:
            raise StoreError("The labels to learn from hold no structure of 30 voxels or more.")
        plan = {"wish": asdict(self.wish), "crops": crops}
        plan |= {"teaching": [asdict(x) for x in teaching], "judging": [asdict(x) for x in judging]}
        with whole_file(self._plan_path) as temporary:
            temporary.write_text(json.dumps(plan), encoding="utf8")

    @cached_property
    def steps(self) -> int:
        """Length of the run."""
        examples = sum(map(len, self._plan["crops"].values())) * self.wish.epochs / (1 - SYNTHETIC)
        return max(LEAST, math.ceil(examples / BATCH))

    def trainer(self, device: str = "cpu", workers: int = 1) -> Trainer:
        """What trains, begun or going on."""
        net, cells = load_network(self.base / "weights.onnx")
        shape = net.shape
        crops = {s: [self.folder / "crops" / crop for crop in files] for s, files in self._plan["crops"].items()}
        settings = Settings(
            steps=self.steps,
            batch=BATCH,
            fresh=BATCH // 2,
            cells=cells,
            inputs=shape.inputs,
            widths=shape.widths,
            blocks=shape.blocks,
            fine=shape.fine,
            rate=RATE,
            warmup=min(20, self.steps // 4),
            seed=self.wish.seed,
        )
        examples = LabelExamples(crops, cells)
        return Trainer(self.folder, settings, device, workers, start=self.base / "weights.onnx", examples=examples)

    def finish(self, judged: Callable[[Path], tuple[Verdict, Verdict]], machine: str) -> tuple[int, Verdict, Verdict]:
        """Make a version of the finished run: weights, card, and what it learned from; the run is removed.

        Parameters
        ----------
        judged : callable
            Given the folder of the new model, the verdicts on that and on the one before.
        machine : str
            What it was trained on, in words.

        Returns
        -------
        int
            The version.
        Verdict, Verdict
            On it, and on the model before.
        """
        with self.models.new_version(self.name) as (folder, number):
            export_onnx(self.folder / "weights.safetensors", folder / "weights.onnx")
            if (self.base / "corrections.onnx").exists():
                shutil.copyfile(self.base / "corrections.onnx", folder / "corrections.onnx")
            _write_json(folder / "card.json", self._card(number, {}, machine))
            now, before = judged(folder)
            metrics = now.metrics() | {f"before, {key}": value for key, value in before.metrics().items()}
            _write_json(folder / "card.json", self._card(number, metrics, machine))
            _write_json(folder / LEARNED_FROM, {part: self._plan[part] for part in ("wish", "teaching", "judging")})
        shutil.rmtree(self.folder)
        return number, now, before

    def _card(self, number: int, metrics: dict[str, float], machine: str) -> dict:
        structures = sorted({lesson.structure for lesson in self.teaching})
        card = ModelCard(
            name=self.name,
            version=str(number),
            kind="promptable",
            description=f"From a few points; has learned {', '.join(structures[:6])}"
            f"{' and others' if len(structures) > 6 else ''} from the labels of this place.",
            licence="LicenseRef-local",
            metrics={"steps": self.steps, "labels": len(self.teaching), "judging labels": len(self.judging), **metrics},
            provenance=f"Fine-tuned by aiassist train from {self.wish.base} {self.wish.base_version} on {machine}; has "
            "learned from patients, so ask before the weights leave this place.",
            devices=("cpu", "cuda"),
        )
        return asdict(card)


def _write_json(path: Path, content: dict) -> None:
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf8")


def _in_words(wish: dict) -> str:
    structures = ", ".join(wish["structures"]) or "all structures"
    drafts = ", drafts too" if wish["drafts"] else ""
    return f"from {wish['base']} {wish['base_version']}, {wish['epochs']} epochs of {structures}{drafts}"
