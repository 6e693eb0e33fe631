"""Train the promptable network on the synthetic world.

The same on CPU and GPU. A run is a folder: ``state.pt`` (everything needed to go on at the next step),
``log.jsonl``, TensorBoard events, and at the end ``weights.safetensors`` (the EMA). The seeds of the
examples follow from the step, so a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

import atexit
import io
import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset

from aiassist.errors import AIAssistError
from aiassist.files import whole_file
from aiassist.segmenters.network import PromptableNet, Shape
from aiassist.segmenters.network_input import CHANNELS, CLICKS, FORMER, SIZES, WIDE, show_prior
from aiassist.segmenters.registry import load_network_folder
from aiassist.segmenters.settle import Borders
from aiassist.segmenters.torch_runner import load_network
from aiassist.synthesis.corrections import CLICKS as CORRECTIONS_OF_A_SCAN
from aiassist.synthesis.corrections import corrections
from aiassist.synthesis.example import examples
from aiassist.synthesis.fields import Draw
from aiassist.synthesis.muon import optimisers

#: Scans whose examples are kept for another showing, flipped and turned: 4 GB.
BUFFER = 512
#: Examples that are made of a scan: the first is shown at once, the others among those that are kept.
OF_A_SCAN = 2


@dataclass(frozen=True)
class Settings:
    """What a run is; two runs of the same settings are the same on one machine.

    ``fresh`` scans of each ``batch`` are new, the other examples are shown again in another orientation.
    ``second`` is the share of steps that show the network its own answer as the prior. ``optimiser`` is "adamw", or
    "muon" for the convolutions (`aiassist.synthesis.muon`). With ``corrections``
    the examples are corrections of a network's answers, several a scan.
    """

    steps: int = 3000
    batch: int = 8
    fresh: int = 4
    cells: int = 48
    inputs: int = len(CHANNELS)
    outputs: int = 1
    widths: tuple[int, ...] = (24, 48, 96, 192)
    blocks: int = 1
    fine: int = 8
    rate: float = 2e-3
    warmup: int = 100
    decay: float = 1e-4
    ema: float = 0.999
    second: float = 0.5
    corrections: bool = False
    seed: int = 0
    optimiser: str = "adamw"


class Examples(Dataset):
    """Examples by seed, half precision, made on `device` and handed over on the CPU.

    Each item is a list of one or more. With a model folder `corrects` they are corrections of its answers.
    """

    def __init__(self, cells: int, device: str = "cpu", corrects: Path | None = None):
        self.cells = cells
        self.device = device
        self.corrects = corrects

    @cached_property
    def _network(self):
        return load_network_folder(self.corrects, threads=1)

    def __getitem__(self, seed: int) -> list[tuple]:
        if self.corrects is None:
            made = examples(seed, self.cells, OF_A_SCAN, self.device)
        else:
            made = corrections(seed, self.cells, self._network, self.device)
        return [(m.channels.half().cpu(), m.truth.half().cpu(), m.valid.cpu()) for m in made]


class Buffer:
    """The examples of the latest seeds, so many."""

    def __init__(self, seeds: int):
        self._seeds = seeds
        self._held: dict[int, list[tuple]] = {}

    def add(self, seed: int, made: list[tuple]) -> None:
        """Keep the examples of a seed and forget the oldest."""
        self._held[seed] = made
        self._held.pop(seed - self._seeds, None)

    def draw(self, draw: Draw, count: int) -> list[tuple]:
        """Some examples, each in a random orientation."""
        seeds = sorted(self._held)
        return [orient(self._one_of(draw, seeds), draw) for _ in range(count)]

    def _one_of(self, draw: Draw, seeds: list[int]) -> tuple:
        held = self._held[seeds[draw.integer(0, len(seeds) - 1)]]
        return held[draw.integer(0, len(held) - 1)] if len(held) > 1 else held[0]


def orient(made: tuple, draw: Draw) -> tuple:
    """The example with its axes swapped and flipped; the cell-size channels follow."""
    order = torch.randperm(3, generator=draw.generator).tolist()
    flips = [a for a in range(3) if draw.chance(0.5)]
    turned = [t.permute(*range(t.dim() - 3), *[o + t.dim() - 3 for o in order]) for t in made]
    turned = [t.flip([f + t.dim() - 3 for f in flips]) for t in turned]
    seen = turned[0]
    turned[0] = torch.cat([seen[: SIZES.start], seen[SIZES][order], seen[SIZES.stop :]])
    return tuple(turned)


def loss_of(logits: torch.Tensor, truth: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross-entropy plus soft Dice, both weighted; mean over the batch."""
    cross = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    cross = (cross * weight).flatten(1).sum(1) / weight.flatten(1).sum(1)
    p = torch.sigmoid(logits)
    valid = (weight > 0).float()
    both = (p * truth * valid).flatten(1).sum(1)
    total = ((p + truth) * valid).flatten(1).sum(1)
    return (cross + 1 - (2 * both + 1) / (total + 1)).mean()


def weights_of(channels: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Weight of each cell: 0 beyond the volume, three times near the border, five times around clicks."""
    inside = (truth > 0.5).float()
    border = _widened(inside) + _widened(1 - inside) - 1
    clicks = channels[:, CLICKS].amax(1, keepdim=True)
    return valid.float() * (1 + 2 * border + 4 * (clicks > 0.1).float())


def _widened(inside: torch.Tensor) -> torch.Tensor:
    """Largest value within two cells, axis by axis: a quarter of the time of all three at once."""
    for axis in range(3):
        size = [1 + 4 * (axis == n) for n in range(3)]
        inside = F.max_pool3d(inside, size, 1, [n // 2 for n in size])
    return inside


def answer_loss(answer: tuple[torch.Tensor, torch.Tensor], truth, weight) -> tuple[torch.Tensor, float]:
    """The loss of logits (n, 1, c, c, c) and of those at half the resolution, and the mean Dice of the former."""
    logits, half = answer
    loss = loss_of(logits, truth, weight)
    loss = loss + 0.3 * loss_of(half, F.avg_pool3d(truth, 2), F.max_pool3d(weight, 2))
    with torch.no_grad():
        hit, inside = (logits > 0) & (weight > 0), (truth > 0.5) & (weight > 0)
        both, sizes = (hit & inside).flatten(1).sum(1), hit.flatten(1).sum(1) + inside.flatten(1).sum(1)
        return loss, float((2 * both / sizes.clamp_min(1)).mean())


class Trainer:
    """One run.

    Parameters
    ----------
    folder : Path
        Where the run lives; when it holds a state, the run goes on from there.
    settings : Settings
    device : str
        "cpu" or "cuda".
    workers : int
        Processes that make examples; 0 makes them in this one.
    world : str
        Device on which the examples are made; with "cuda" each worker shares the GPU.
    start : Path, optional
        Weights to start a new run from, ``.safetensors`` or ``.onnx``; not looked at by a run that goes on.
    corrects : Path, optional
        Folder of the model whose answers are corrected; goes with the setting ``corrections``.
    examples : Dataset, optional
        Examples by seed, as `Examples`, of another kind than those of the synthetic world.

    Raises
    ------
    AIAssistError
        When the folder's state is damaged, or that of a run of other settings.
    """

    def __init__(
        self,
        folder: Path,
        settings: Settings,
        device: str = "cpu",
        workers: int = 1,
        world: str = "cpu",
        start: Path | None = None,
        corrects: Path | None = None,
        examples: Dataset | None = None,
    ):
        if settings.corrections != (corrects is not None):
            raise ValueError("A run on corrections, and only such a run, needs the model whose answers it corrects.")
        Path(folder).mkdir(parents=True, exist_ok=True)
        self.folder, self.settings, self.device, self.workers = Path(folder), settings, torch.device(device), workers
        self.corrects = corrects
        self._examples = examples if examples is not None else Examples(settings.cells, world, corrects)
        self._writer = _tensorboard(self.folder)
        torch.manual_seed(settings.seed)
        shape = Shape(settings.widths, settings.blocks, settings.fine, settings.inputs, settings.outputs)
        self.net = PromptableNet(shape).to(self.device, memory_format=torch.channels_last_3d)
        resumed = (self.folder / "state.pt").exists()
        if start is not None and not resumed:
            self.net.load_state_dict(load_network(start, shape)[0].state_dict())
        self.ema = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        half = halves(self.device)
        self.optimisers = optimisers(self.net, settings.optimiser, settings.rate, settings.decay, half)
        self.step = 0
        self.seconds = 0.0
        if resumed:
            self._resume()

    def _resume(self) -> None:
        path = self.folder / "state.pt"
        with _damage_said(path):
            state = torch.load(path, map_location=self.device, weights_only=True)
            # one from before a setting was there has its default
            begun = asdict(Settings()) | {"inputs": FORMER} | state["settings"]
        for name, value in asdict(self.settings).items():
            if name != "steps" and value != begun[name]:
                raise AIAssistError(
                    f"The run in {self.folder} was begun with {name} {begun[name]}, not {value}; "
                    "give the same settings, or another folder."
                )
        with _damage_said(path):
            self.net.load_state_dict(state["net"])
            held = state["optimisers"] if "optimisers" in state else [state["optimiser"]]  # of a run begun before
            for optimiser, kept in zip(self.optimisers, held, strict=True):
                optimiser.load_state_dict(kept)
            self.ema, self.step, self.seconds = state["ema"], state["step"], state["seconds"]

    def save(self) -> None:
        """Write the state, whole or not at all."""
        state = {
            "settings": asdict(self.settings),
            "net": self.net.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "ema": self.ema,
            "step": self.step,
            "seconds": self.seconds,
        }
        written = io.BytesIO()  # torch says of a full disk what no one expects
        torch.save(state, written)
        with whole_file(self.folder / "state.pt") as temporary:
            temporary.write_bytes(written.getbuffer())

    def write_weights(self, path: Path) -> None:
        """Write the EMA as safetensors, half precision, with the run's settings as metadata."""
        from safetensors.torch import save

        meta = {
            "settings": json.dumps(asdict(self.settings)),
            "step": str(self.step),
            "hours": f"{self.seconds / 3600:.3f}",
        }
        with whole_file(path) as temporary:
            temporary.write_bytes(save({name: value.half().contiguous() for name, value in self.ema.items()}, meta))

    def run(
        self,
        until: int | None = None,
        save_every: int = 250,
        on_step: Callable[[int, dict], None] = lambda step, numbers: None,
        enough: Callable[[], bool] = lambda: False,
        on_remade: Callable[[int, int], None] = lambda done, total: None,
        broken_off: Callable[[], bool] = lambda: False,
    ) -> None:
        """Train to step `until` (the settings' end when absent), or till a step after which it is `enough`.

        It saves as it goes, and at the end. A run that goes on makes the examples anew first that it shows again;
        `on_remade` is told how many are done, and of how many, and only what is `broken_off` ends there.
        """
        until = min(until or self.settings.steps, self.settings.steps)
        if self.step >= until:
            self.write_weights(self.folder / "weights.safetensors")
            return
        for batch in self._batches(until, broken_off, on_remade):
            tick = time.perf_counter()
            numbers = self.train_step(*batch)
            self.step += 1
            self.seconds += time.perf_counter() - tick
            self.log(numbers)
            stops = enough()
            if self.step % save_every == 0 or self.step == until or stops:
                self.save()
            on_step(self.step, numbers)
            if stops:
                break
        self.write_weights(self.folder / "weights.safetensors")

    def log(self, numbers: dict[str, float]) -> None:
        """Add numbers of the present step to ``log.jsonl`` and, where it is installed, to TensorBoard."""
        with (self.folder / "log.jsonl").open("a", encoding="utf8") as log:
            log.write(json.dumps({"step": self.step, **{k: round(v, 5) for k, v in numbers.items()}}) + "\n")
        if self._writer is not None:
            for name, value in numbers.items():
                self._writer.add_scalar(name, value, self.step)

    def _batches(self, until: int, broken_off, on_remade) -> Iterator[tuple[torch.Tensor, ...]]:
        """Batches from the current step on, as (channels, truth, valid)."""
        settings = self.settings
        base = settings.seed * 1_000_000_000
        first = self.step * settings.fresh
        kept = BUFFER // CORRECTIONS_OF_A_SCAN if settings.corrections else BUFFER
        replay = max(0, first - kept)
        seeds = range(base + replay, base + until * settings.fresh)
        loader = DataLoader(
            self._examples,
            sampler=seeds,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=8 if self.workers else None,
            worker_init_fn=_begin_work,
            multiprocessing_context="spawn" if self.workers else None,
        )
        buffer, fresh = Buffer(kept), []
        for seed, made in zip(seeds, loader, strict=True):
            buffer.add(seed, made)
            if seed < base + first:
                on_remade(seed - base - replay + 1, first - replay)
                if broken_off():
                    return
                continue
            fresh += made if settings.corrections else made[:1]
            if (seed - base + 1) % settings.fresh == 0:
                draw = Draw(base + 7_000_000 + seed)
                fresh = fresh[: settings.batch]
                group = fresh + buffer.draw(draw, settings.batch - len(fresh))
                yield self._collate(group)
                fresh = []

    def _collate(self, group: list[tuple]):
        channels, truth, valid = (torch.stack([made[n] for made in group]).to(self.device) for n in range(3))
        return channels[:, : self.settings.inputs].float(), truth.float().unsqueeze(1), valid.unsqueeze(1)

    def train_step(self, *examples: torch.Tensor) -> dict[str, float]:
        """One step on a batch; returns the loss, Dice and learning rate.

        Raises
        ------
        AIAssistError
            When the loss or its gradient is not finite; the weights are as they were.
        """
        loss, dice = self._loss(*examples)
        self.net.zero_grad(set_to_none=True)
        loss.backward()
        slope = torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        self._check_finite(loss, slope)
        for optimiser in self.optimisers:
            for group in optimiser.param_groups:
                group["lr"] = self._rate()
            optimiser.step()
        self._average()
        return {"loss": float(loss.detach()), "dice": dice, "rate": self._rate()}

    def _loss(self, channels, truth, valid) -> tuple[torch.Tensor, float]:
        """The loss of a batch, and its mean Dice."""
        self._show_answers(channels, valid)
        weight = weights_of(channels, truth, valid)
        return answer_loss(self._answer(channels), truth, weight)

    def _answer(self, channels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The network's logits (n, outputs, c, c, c), and those at half the resolution."""
        self.net.train()
        with half_precision(self.device):
            logits, half = self.net(channels.contiguous(memory_format=torch.channels_last_3d))
        return logits.float(), half.float()

    def _check_finite(self, loss: torch.Tensor, slope: torch.Tensor) -> None:
        if not torch.isfinite(loss + slope):
            raise AIAssistError(
                f"The loss of step {self.step + 1} is {float(loss.detach()):g}, its gradient {float(slope):g}, so the "
                f"run in {self.folder} stops, kept as it was saved last; going on would repeat the step, so begin "
                f"another, from other weights or, where the command offers it, with a lower rate than "
                f"{self.settings.rate:g}."
            )

    def _rate(self) -> float:
        settings = self.settings
        if self.step < settings.warmup:
            return settings.rate * (self.step + 1) / settings.warmup
        share = (self.step - settings.warmup) / max(1, settings.steps - settings.warmup)
        return settings.rate * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(share, 1.0))))

    @torch.no_grad()
    def _average(self) -> None:
        keep = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.net.state_dict().items():
            self.ema[name].lerp_(value, 1 - keep)

    @torch.no_grad()
    def _show_answers(self, channels, valid) -> None:
        """In some steps, show the network its own answer as the prior, in place."""
        draw = Draw(self.settings.seed * 1_000_003 + self.step)
        if self.step < self.settings.warmup or not draw.chance(self.settings.second):
            return
        self.net.eval()
        with half_precision(self.device):
            logits = self.net(channels.contiguous(memory_format=torch.channels_last_3d))
        logits, inside = logits[:, 0].float().cpu().numpy(), valid[:, 0].cpu().numpy()
        for n in range(len(channels)):
            seen = channels[n].cpu().numpy()
            answer = (Borders(seen[WIDE], inside[n]).settle(logits[n]) > 0) & inside[n]  # as inference shows it
            show_prior(seen, answer.astype(np.float32))
            channels[n] = torch.from_numpy(seen)


def halves(device: torch.device) -> bool:
    """Whether bfloat16 is fast: without units for its matrices a CPU takes twice as long with it, or forty times."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()  # older PyTorch names none
    return device.type != "cpu" or bool(capabilities.get("amx_bf16"))


def half_precision(device: torch.device) -> torch.autocast:
    """Arithmetic in bfloat16 where it is faster."""
    return torch.autocast(device.type, torch.bfloat16, enabled=halves(device))


@contextmanager
def _damage_said(path: Path) -> Iterator[None]:
    """Whatever a damaged state makes torch raise becomes one `AIAssistError`; torch leaves open what that may be."""
    try:
        yield
    except (OSError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        raise AIAssistError(
            f"{path} is damaged or not the state of such a run; restore it, or delete it to begin the run again."
        ) from error


def _begin_work(_worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal's Ctrl+C the one that trains makes something
    atexit.register(os._exit, 0)  # ONNX Runtime's threads would abort a process that ends in good order
    torch.set_num_threads(1)


def _tensorboard(folder: Path):
    """A TensorBoard writer, or None where the package is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder / "events"))
