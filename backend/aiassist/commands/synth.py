"""``aiassist synth``"""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

from aiassist.commands.long import Enough, Progress
from aiassist.commands.shared import check_picture
from aiassist.errors import AIAssistError, MissingExtraError


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("synth", help="look at the synthetic world; train the promptable network on it")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    preview = actions.add_parser("preview", help="a contact sheet of synthetic examples")
    preview.add_argument("-o", "--output", type=Path, default=Path("synthetic.png"), help="default: %(default)s")
    preview.add_argument("--seed", type=int, default=0)
    preview.add_argument("--count", type=int, default=48)
    preview.set_defaults(run=draw_preview)

    train = actions.add_parser("train", help="train in a folder; the same command again goes on where it stopped")
    train.add_argument("folder", type=Path, help="the run's folder")
    train.add_argument("--steps", type=int, default=3000, help="length of the schedule (default: %(default)s)")
    train.add_argument("--batch", type=int, default=8, help="examples a step (default: %(default)s)")
    train.add_argument("--fresh", type=int, default=4, help="new examples in each batch (default: %(default)s)")
    train.add_argument("--cells", type=int, default=48, help="cells along each side of the cube")
    train.add_argument("--widths", type=int, nargs="+", default=[24, 48, 96, 192], help="channels, fine to coarse")
    train.add_argument("--rate", type=float, default=2e-3, help="highest learning rate")
    train.add_argument(
        "--optimiser", choices=("muon", "adamw"), default="muon", help="of the convolutions (default: %(default)s)"
    )
    train.add_argument("--seed", type=int, default=0, help="of world and weights (default: 0)")
    train.add_argument("--start", type=Path, metavar="WEIGHTS", help="begin a new run from these weights")
    train.add_argument("--corrects", type=Path, metavar="MODEL", help="learn to correct the answers of this model")
    train.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it trains (default: cpu)")
    train.add_argument("--workers", type=int, default=1, help="processes that make examples")
    train.add_argument("--world", choices=("cpu", "cuda"), default="cpu", help="device that makes the examples")
    train.add_argument("--probe", metavar="CASES", help="look at the dev split of these cases now and then")
    train.add_argument("--probe-every", type=int, default=1000, metavar="STEPS", help="default: %(default)s")
    train.add_argument("--minutes", type=float, default=math.inf, help="stop, saved, after this long")
    train.add_argument("--save-every", type=int, default=250, metavar="STEPS", help="default: %(default)s")
    train.set_defaults(run=train_network)

    export = actions.add_parser("export", help="make a model of a finished run: weights for ONNX Runtime and a card")
    export.add_argument("folder", type=Path, help="the run's folder")
    export.add_argument("-o", "--output", type=Path, required=True, help="the model's folder")
    export.add_argument("--corrections", type=Path, metavar="FOLDER", help="a finished run on corrections")
    export.add_argument("--mean-with", type=Path, metavar="WEIGHTS", help="mean with the weights it began from")
    export.add_argument(
        "--mean-share", type=float, metavar="SHARE", help="how much those of --mean-with count (default: 0.5)"
    )
    export.add_argument("--name", default="network", help="of the model (default: %(default)s)")
    export.add_argument("--model-version", required=True, metavar="V")
    export.add_argument("--machine", required=True, help="what it was trained on, in words")
    export.add_argument("--results", type=Path, metavar="JSON", help="what aiassist evaluate --json measured")
    export.set_defaults(run=export_model)


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("torch", "learning", "The synthetic world") from error


def draw_preview(options) -> None:
    """Draw the contact sheet."""
    _need_torch()
    from aiassist.synthesis.preview import contact_sheet

    if options.count < 1:
        raise AIAssistError(f"--count is {options.count}; use 1 or more.")
    check_picture(options.output)
    contact_sheet(options.output, options.seed, options.count)
    print(options.output)


def train_network(options) -> None:
    """Train, showing the loss; leaves ``weights.safetensors`` in the folder."""
    _need_torch()
    import torch

    from aiassist.segmenters.registry import load_network_folder
    from aiassist.synthesis.training import Settings, Trainer

    if "cuda" in (options.device, options.world) and not torch.cuda.is_available():
        raise AIAssistError("There is no CUDA device here; leave out --device and --world to train on the CPU.")
    _check_numbers(options)
    if options.corrects is not None:
        _ = load_network_folder(options.corrects, threads=1).runner  # says so when there is none
    if len(options.widths) < 2 or any(w < 4 or w % 4 for w in options.widths):
        raise AIAssistError(f"--widths {options.widths}: give two or more multiples of 4, fine to coarse.")
    if options.cells % 2 ** len(options.widths):
        raise AIAssistError(f"--cells {options.cells} cannot be halved {len(options.widths)} times.")
    settings = Settings(
        steps=options.steps,
        batch=options.batch,
        fresh=min(options.fresh, options.batch),
        cells=options.cells,
        widths=tuple(options.widths),
        rate=options.rate,
        second=0.5 if options.corrects is None else 0.0,
        corrections=options.corrects is not None,
        seed=options.seed,
        optimiser=options.optimiser,
    )
    trainer = Trainer(
        options.folder, settings, options.device, options.workers, options.world, options.start, options.corrects
    )
    structures = _dev_structures(options.probe) if options.probe else []
    enough = Enough(options.minutes)
    with Progress() as progress, enough.held():
        show_step = progress.steps("training", settings.steps)

        def show(step: int, numbers: dict) -> None:
            show_step(step, numbers)
            if structures and (step % options.probe_every == 0 or step == settings.steps):
                from aiassist.synthesis.probe import probe

                numbers = probe(trainer, structures)
                trainer.log(numbers)
                print(f"step {step}: " + ", ".join(f"{k} {v:.4f}" for k, v in numbers.items()), file=sys.stderr)

        remaking = progress.phase("making the latest examples again")
        trainer.run(
            save_every=options.save_every,
            on_step=show,
            enough=enough,
            on_remade=remaking,
            broken_off=lambda: enough.interrupted,
        )
    enough.check()
    print(options.folder / "weights.safetensors")


def _check_numbers(options) -> None:
    """Refuse numbers that no run can have."""
    least = dict.fromkeys(("steps", "batch", "fresh", "cells", "save_every", "probe_every"), 1)
    for name, lowest in {**least, "workers": 0}.items():
        if getattr(options, name) < lowest:
            raise AIAssistError(f"--{name.replace('_', '-')} is {getattr(options, name)}; use {lowest} or more.")
    if not 0 < options.rate < math.inf:
        raise AIAssistError(f"--rate is {options.rate}; use a number above 0, as 0.002.")
    if not options.minutes >= 0:
        raise AIAssistError(f"--minutes is {options.minutes}; use 0 or more.")


def export_model(options) -> None:
    """Write ``weights.onnx`` and ``card.json``."""
    if options.mean_share is not None and options.mean_with is None:
        raise AIAssistError("--mean-share says how much the weights of --mean-with count; give --mean-with, too.")
    share = 0.5 if options.mean_share is None else options.mean_share
    if not 0 < share < 1:
        raise AIAssistError(f"--mean-share is {share}; use more than 0 and less than 1.")
    _need_torch()
    from aiassist.synthesis.export import export_folder

    results = _read_results(options.results, options.name) if options.results else None
    export_folder(
        options.folder / "weights.safetensors",
        options.output,
        name=options.name,
        version=options.model_version,
        machine=options.machine,
        results=results,
        corrections=options.corrections / "weights.safetensors" if options.corrections else None,
        mean_with=options.mean_with,
        mean_share=share,
    )
    print(options.output)


def _read_results(path: Path, name: str) -> dict:
    """The summary of model `name` in what ``aiassist evaluate --json`` wrote."""
    try:
        models = json.loads(path.read_text(encoding="utf8"))["models"]
        found = {model: models[model]["all"] for model in models}
    except OSError as error:
        raise AIAssistError(f"{path} cannot be read: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise AIAssistError(f"{path} is not what aiassist evaluate --json writes.") from error
    if name not in found:
        raise AIAssistError(f"The results in {path} are of {', '.join(found)}, not of {name!r}.")
    return found[name]


def _dev_structures(cases: str):
    from aiassist.evaluation.cases import find_structures
    from aiassist.evaluation.metrics import need_surface_distance

    need_surface_distance()
    found = [s for s in find_structures(cases) if s.split in ("dev", "all")]
    if not found:
        raise AIAssistError(f"{cases} has no structures of the dev split to look at.")
    return found
