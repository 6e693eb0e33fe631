"""Fine-tune a promptable network: it sees crops of the labels as people prompt them, and synthetic scans among them."""

from __future__ import annotations

import math
from collections.abc import Callable

from aiassist.errors import StoreError
from aiassist.learning.crops import write_crop
from aiassist.learning.examples import SYNTHETIC, LabelExamples
from aiassist.learning.judge import load
from aiassist.learning.lessons import Lesson, targets
from aiassist.learning.run import LearningRun, numbers, provenance
from aiassist.segmenters.base import ModelCard
from aiassist.segmenters.torch_runner import load_network
from aiassist.synthesis.training import Settings, Trainer

#: Examples of a step.
BATCH = 8
RATE = 2e-3
#: Fewest steps of a run, however few the labels.
LEAST = 60


class FineTuning(LearningRun):
    """A run that fine-tunes the network of its base."""

    kind = "promptable"
    weights = "weights.onnx"

    def _write_data(self, teaching: list[Lesson], progress: Callable[[int, int], None]) -> dict[str, list[str]]:
        crops: dict[str, list[str]] = {}
        for number, (volume, lesson, label) in enumerate(load(self.store, teaching)):
            for part, mask in enumerate(targets(label)):
                crop = f"{number:05d}-{part}.npz"
                write_crop(self.data / crop, volume, mask)
                crops.setdefault(lesson.structure, []).append(crop)
            progress(number + 1, len(teaching))
        if not crops:
            raise StoreError("The labels to learn from hold no structure of 30 voxels or more.")
        return crops

    @property
    def steps(self) -> int:
        """See `LearningRun.steps`."""
        examples = sum(map(len, self.plan["files"].values())) * self.wish.epochs / (1 - SYNTHETIC)
        return max(LEAST, math.ceil(examples / BATCH))

    def trainer(self, device: str = "cpu", workers: int = 1) -> Trainer:
        """See `LearningRun.trainer`; it begins from the base's weights."""
        start = self.base / "weights.onnx"
        net, cells = load_network(start)
        crops = {s: [self.data / crop for crop in files] for s, files in self.plan["files"].items()}
        settings = Settings(
            steps=self.steps,
            batch=BATCH,
            fresh=BATCH // 2,
            cells=cells,
            inputs=net.shape.inputs,
            widths=net.shape.widths,
            blocks=net.shape.blocks,
            fine=net.shape.fine,
            rate=RATE,
            warmup=min(20, self.steps // 4),
            seed=self.wish.seed,
        )
        return Trainer(self.folder, settings, device, workers, start=start, examples=LabelExamples(crops, cells))

    def card(self, number: int, machine: str) -> ModelCard:
        """See `LearningRun.card`."""
        more = " and others" if len(self.structures) > 6 else ""
        return ModelCard(
            name=self.name,
            version=str(number),
            kind="promptable",
            description=f"From a few points; has learned {', '.join(self.structures[:6])}{more} from the labels here.",
            licence="LicenseRef-local",
            metrics=numbers(self),
            provenance=provenance(self, machine),
            devices=("cpu", "cuda"),
        )
