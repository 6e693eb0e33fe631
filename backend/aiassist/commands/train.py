"""``aiassist train``"""

from __future__ import annotations

import math
import os
import sys
import time
from pathlib import Path

from aiassist.commands.shared import check_studies, progress_bar
from aiassist.errors import AIAssistError, MissingExtraError, ModelError


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "train", help="teach a model on the labels of a studies folder; the same command goes on where it stopped"
    )
    parser.add_argument("model", metavar="M", help="its name; a version of it is added")
    parser.add_argument("--studies", metavar="DIR", type=Path, required=True, help="the studies folder")
    parser.add_argument(
        "--from",
        metavar="M0",
        dest="base",
        help="network to begin from, by which an automatic model looks closer (default: M's published version if it "
        "is one that needs prompts, else the network that ships)",
    )
    parser.add_argument("--automatic", action="store_true", help="a model that needs no prompts")
    parser.add_argument("--epochs", metavar="N", type=int, default=30, help="times each label is shown (default: 30)")
    parser.add_argument("--structure", metavar="S", action="append", default=[], help="only this; may be repeated")
    parser.add_argument(
        "--drafts", action="store_true", help="learn from drafts, too, not only from what was submitted"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that make examples (default: 1)")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop, saved, after this long")
    parser.set_defaults(run=run)


def run(options) -> None:
    """Train, judge, and add the version; what is published stays as it is."""
    _need_training()
    from aiassist.groundtruth import GroundTruthStore
    from aiassist.learning.finder import FinderTraining
    from aiassist.learning.finetune import FineTuning
    from aiassist.learning.networks import check_own_name
    from aiassist.segmenters.model_store import MODELS, ModelStore

    _check_options(options)
    kind = FinderTraining if options.automatic else FineTuning
    models = ModelStore(options.studies / MODELS)
    check_own_name(models, options.model, kind.kind)
    with models.held(options.model, "training"), GroundTruthStore(options.studies) as store:
        base = _base(options, models, kind)
        wish = _wish(options, kind, base)
        learning = kind(store, models, options.model, wish, base)
        with progress_bar() as bar:
            _prepare(learning, bar)
            if not _train(learning, options, bar):
                print(f"Stopped after {options.minutes:g} minutes; the same command goes on.")
                return
            number, verdicts = _finish(learning, options, bar)
    _tell(options, number, learning, verdicts)


def _base(options, models, kind) -> Path:
    """The network to begin from: what was said, or what an unfinished run began from, whatever is published since."""
    from aiassist.learning.networks import base_of, folder_of
    from aiassist.learning.run import begun_from

    begun = begun_from(models, options.model) if options.base is None else None
    return base_of(models, options.model, kind.kind, options.base) if begun is None else folder_of(models, *begun)


def _wish(options, kind, base: Path):
    from aiassist.groundtruth.names import key_of
    from aiassist.learning.networks import card_of
    from aiassist.learning.run import Wish

    card, structures = card_of(base), tuple(sorted(set(map(key_of, options.structure))))
    return Wish(card.name, card.version, options.epochs, structures, options.drafts)


def _need_training() -> None:
    for package in ("torch", "safetensors", "onnx"):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(package, "learning", "Training") from error


def _check_options(options) -> None:
    check_studies(options.studies)
    for name, least in (("epochs", 1), ("workers", 0)):
        if getattr(options, name) < least:
            raise AIAssistError(f"--{name} is {getattr(options, name)}; use {least} or more.")
    if not options.minutes > 0:
        raise AIAssistError(f"--minutes is {options.minutes:g}; use more than 0.")
    if options.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ModelError("There is no CUDA device here; leave out --device to train on the CPU.")


def _prepare(learning, bar) -> None:
    task = bar.add_task("reading the labels", total=None)
    learning.prepare(lambda done, total: bar.update(task, completed=done, total=total))
    bar.remove_task(task)


def _train(learning, options, bar) -> bool:
    """Whether the run has come to its end."""
    end = time.monotonic() + 60 * options.minutes
    for trainer in learning.trainers(options.device, options.workers):
        steps = trainer.settings.steps
        task = bar.add_task("training", total=steps, completed=trainer.step)

        def show(step: int, numbers: dict, task=task, settings=trainer.settings) -> None:
            what = "corrections, " if settings.corrections else ""
            text = f"{what}loss {numbers['loss']:.3f}, Dice {numbers['dice']:.3f}"
            bar.update(task, completed=step, description=text)
            if step % 50 == 0 and not sys.stderr.isatty():
                print(f"step {step} of {settings.steps}: {text}", file=sys.stderr)

        trainer.run(save_every=50, on_step=show, max_seconds=end - time.monotonic())
        bar.remove_task(task)
        if trainer.step < steps:
            return False
    return True


def _finish(learning, options, bar):
    from aiassist.learning.judge import judge
    from aiassist.learning.networks import rival_of
    from aiassist.segmenters.registry import load_network_folder

    task = bar.add_task("judging", total=len(learning.judging))

    def judged(folder: Path):
        rival = rival_of(learning.models, learning.name, learning.kind)
        pair = [None if place is None else load_network_folder(place) for place in (folder, rival)]
        return judge(learning.store, learning.judging, pair, lambda: bar.advance(task))

    number, *verdicts = learning.finish(judged, _machine(options.device))
    return number, verdicts


def _machine(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores"


def _tell(options, number: int, learning, verdicts) -> None:
    now, before = verdicts
    studies = len({lesson.study for lesson in learning.teaching})
    print(
        f"{options.model} version {number} learned from {len(learning.teaching)} labels of {studies} studies; "
        f"Dice by {len(learning.judging)} other labels, before and now:"
    )
    for course in now.dice:
        print(f"  {course:16} {before.mean(course):.3f}  {now.mean(course):.3f}")
    unjudged = sorted({x.structure for x in learning.teaching} - {x.structure for x in learning.judging})
    if unjudged:
        print(f"Nothing judges what it learned of {', '.join(unjudged)}: no patient who judges has such a label.")
    if now.is_better(before):
        print(f"It is better. To use it: aiassist models publish {options.model} --studies {options.studies}")
    else:
        print("It is not better, so there is no reason to publish it; what is used stays as it is.")
