"""Fine-tune a promptable network: it sees crops of the labels as people prompt them, and synthetic scans among them."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

from aiassist.errors import StoreError
from aiassist.files import whole_file
from aiassist.learning.crops import write_crop
from aiassist.learning.examples import SYNTHETIC, CorrectionExamples, LabelExamples
from aiassist.learning.judge import load
from aiassist.learning.run import LearningRun
from aiassist.learning.samples import Sample, targets
from aiassist.segmenters.torch_runner import load_network
from aiassist.synthesis.export import export_onnx
from aiassist.synthesis.training import Settings, Trainer

#: Examples of a step.
BATCH = 8
CORRECTIONS = "corrections.onnx"
RATE = 2e-3
#: The network that corrects takes a third of the steps, of which each takes longer.
FEWER = 3
#: Fewest steps of a run, however few the labels.
LEAST = 60


class FineTuning(LearningRun):
    """A run that fine-tunes the network of its base."""

    kind = "promptable"
    weights = "weights.onnx"

    def _write_data(
        self, teaching: list[Sample], progress: Callable[[int, int], None]
    ) -> tuple[list[Sample], dict[str, list[str]]]:
        taught: list[Sample] = []
        crops: dict[str, list[str]] = {}
        for number, (volume, sample, label) in enumerate(load(self.store, teaching)):
            for part, mask in enumerate(targets(label)):
                crop = f"{number:05d}-{part}.npz"
                write_crop(self.data / crop, volume, mask)
                crops.setdefault(sample.structure, []).append(crop)
                taught += [sample] if part == 0 else []
            progress(number + 1, len(teaching))
        if not crops:
            raise StoreError("The labels to learn from hold no structure of 30 voxels or more.")
        return taught, crops

    @property
    def steps(self) -> int:
        """See `LearningRun.steps`."""
        examples = sum(map(len, self.plan["files"].values())) * self.config.epochs / (1 - SYNTHETIC)
        return max(LEAST, math.ceil(examples / BATCH))

    def trainers(self, device: str = "cpu", workers: int = 1) -> Iterator[Trainer]:
        """See `LearningRun.trainers`: the network, and then, of its mistakes, the one that corrects."""
        start = self.base / "weights.onnx"
        settings = self._settings(start, fresh=BATCH // 2)
        examples = LabelExamples(self._crops(), settings.cells)
        yield Trainer(self.folder, settings, device, workers, start=start, examples=examples)
        start = self.base / CORRECTIONS
        if start.exists():
            first, folder = self._first_looks(), self.folder / "corrections"
            more = {"steps": self.steps // FEWER, "fresh": BATCH // 4, "rate": RATE / 2, "seed": 1}
            settings = self._settings(start, **more, second=0.0, corrections=True)
            examples = CorrectionExamples(self._crops(), settings.cells, first)
            yield Trainer(folder, settings, device, workers, start=start, corrects=first, examples=examples)

    def export(self, folder: Path) -> None:
        """See `LearningRun.export`."""
        super().export(folder)
        weights = self.folder / "corrections" / "weights.safetensors"
        if weights.exists():
            export_onnx(weights, folder / CORRECTIONS, eight_bits=True)

    def _crops(self) -> dict[str, list[Path]]:
        return {s: [self.data / crop for crop in files] for s, files in self.plan["files"].items()}

    def _settings(self, start: Path, **more) -> Settings:
        net, cells = load_network(start)
        usual = {"steps": self.steps, "rate": RATE, "warmup": min(20, self.steps // 4)}
        return Settings(batch=BATCH, cells=cells, **asdict(net.shape), **{**usual, **more})

    def _first_looks(self) -> Path:
        """A folder with the model whose mistakes are corrected: what was trained first."""
        folder = self.folder / "first"
        if not (folder / "card.json").exists():
            folder.mkdir(exist_ok=True)
            super().export(folder)
            with whole_file(folder / "card.json") as temporary:  # it says that the folder is whole
                shutil.copyfile(self.base / "card.json", temporary)
        return folder

    def description(self) -> str:
        """See `LearningRun.description`."""
        more = " and others" if len(self.structures) > 6 else ""
        return f"From a few points; has learned {', '.join(self.structures[:6])}{more} from the labels here."
