"""``aiassist train``"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

from aiassist.commands.long import Enough, Progress, add_for_programs
from aiassist.commands.shared import add_author, check_studies
from aiassist.errors import AIAssistError, MissingExtraError, ModelError, UnknownModelError
from aiassist.words import counted


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
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where it trains (default: cpu)")
    parser.add_argument("--workers", metavar="N", type=int, default=1, help="processes that make examples (default: 1)")
    parser.add_argument("--publish", action="store_true", help="use the version from now on, if it is better")
    add_author(parser, "who answers for publishing")
    add_for_programs(parser)
    parser.add_argument(
        "--minutes",
        type=float,
        default=math.inf,
        help="stop, saved, after this long; a run that goes on makes its latest examples again first, however long",
    )
    parser.set_defaults(run=run)


def run(options) -> None:
    """Train, judge, and add the version; what is published stays as it is, but for ``--publish``."""
    _need_training()
    from aiassist.groundtruth import GroundTruthStore
    from aiassist.groundtruth.names import check_said
    from aiassist.learning.finder import FinderTraining
    from aiassist.learning.finetune import FineTuning
    from aiassist.learning.networks import check_own_name
    from aiassist.segmenters.model_store import MODELS, ModelStore

    _check_options(options)
    check_said(options.author)
    enough = Enough(options.minutes, options.until_stdin_closes)
    kind = FinderTraining if options.automatic else FineTuning
    models = ModelStore(options.studies / MODELS)
    check_own_name(models, options.model, kind.kind)
    with GroundTruthStore(options.studies) as store, Progress(options.json) as progress:
        with models.held(options.model, "training"):
            base = _base(options, models, kind)
            config = _config(options, kind, base)
            learning = kind(store, models, options.model, config, base)
            learning.prepare(progress.phase("reading the labels"))
            if not _train(learning, options, progress, enough):
                _tell_stopped(options, enough)
                return
            outcome = _finish(learning, options, progress)
        if options.publish and outcome["better"]:
            outcome["kept back"] = _publish(store, models, outcome, options, progress)
    _tell(outcome, options)


def _base(options, models, kind) -> Path:
    """The network to begin from: what was said, or what an unfinished run began from, whatever is published since."""
    from aiassist.learning.networks import base_of, begun_from
    from aiassist.segmenters.model_store import RUN

    begun = models.unfinished(options.model)
    if begun is None:
        return base_of(models, options.model, kind.kind, options.base)
    try:
        base = begun_from(models, begun["base"], begun["base_version"])
    except UnknownModelError as error:
        raise ModelError(
            f"The unfinished training of {options.model!r} began from {begun['base']} {begun['base_version']}, which "
            f"is not here any more; remove {models.folder / options.model / RUN} to begin anew."
        ) from error
    return base if options.base is None else base_of(models, options.model, kind.kind, options.base)


def _config(options, kind, base: Path):
    from aiassist.groundtruth.names import key_of
    from aiassist.learning.networks import card_of
    from aiassist.learning.run import TrainingConfig

    card, structures = card_of(base), tuple(sorted(set(map(key_of, options.structure))))
    return TrainingConfig(card.name, card.version, options.epochs, structures, options.drafts)


def _need_training() -> None:
    from aiassist.server.training import NEEDED

    for package in NEEDED:
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


def _train(learning, options, progress: Progress, enough: Enough) -> bool:
    """Whether the run has come to its end."""
    with enough.held():
        for trainer in learning.trainers(options.device, options.workers):
            steps = trainer.settings.steps
            phase = "learning to correct" if trainer.settings.corrections else "learning"
            remaking = progress.phase("making the latest examples again")
            trainer.run(
                save_every=50,
                on_step=progress.steps(phase, steps),
                enough=enough,
                on_remade=remaking,
                broken_off=lambda: enough.interrupted,
            )
            if enough.interrupted or trainer.step < steps:
                return False
    return True


def _tell_stopped(options, enough: Enough) -> None:
    if options.json:
        print(json.dumps({"model": options.model, "version": None, "saved": True}), flush=True)
    enough.check()
    if not options.json:
        after = "1 minute" if options.minutes == 1 else f"{options.minutes:g} minutes"
        print(f"Stopped after {after}; the same command goes on.")


def _finish(learning, options, progress: Progress) -> dict:
    """Judge, and add the version; what there is to say of it.

    Where all labels that were to judge it were removed since, nothing judges it.
    """
    from aiassist.learning.judge import Scores, judge
    from aiassist.learning.networks import rival_of
    from aiassist.segmenters.registry import load_network_folder

    total = len(learning.judging)
    judged = iter(range(1, total + 1))

    def judge_both(folder: Path):
        if not total:
            return Scores(), Scores()
        rival = rival_of(learning.models, learning.name, learning.kind)
        pair = [None if place is None else load_network_folder(place) for place in (folder, rival)]
        return judge(learning.store, learning.judging, pair, lambda: progress.tell("judging", next(judged), total))

    progress.tell("judging", 0, total)
    number, now, before = learning.finish(judge_both, _machine(options.device))
    judged_of = {structure for found in now.dice.values() for structure in found}
    return {
        "model": learning.name,
        "version": number,
        "labels": len(learning.teaching),
        "studies": len({sample.study for sample in learning.teaching}),
        "judging labels": total,
        "before": before.means(),
        "now": now.means(),
        "unjudged": sorted(set(learning.structures) - judged_of),
        "better": now.is_better(before),
    }


def _machine(device: str) -> str:
    if device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    return f"{os.cpu_count()} CPU cores"


def _publish(store, models, outcome: dict, options, progress: Progress) -> str | None:
    """Publish the version that was made; why not, when it is kept back."""
    from aiassist.learning.publish import publish_if_better

    judging = progress.phase("judging by the labels of today")
    try:
        publish_if_better(store, models, outcome["model"], outcome["version"], options.author, judging)
    except (AIAssistError, OSError) as error:  # the version is there all the same
        return str(error)
    except KeyboardInterrupt:
        return f"{outcome['model']} version {outcome['version']} is there; it was stopped before it was published."
    return None


def _tell(outcome: dict, options) -> None:
    published = options.publish and outcome["better"] and outcome["kept back"] is None
    if options.json:
        print(json.dumps({**outcome, "published": published}))
        return
    learned = (
        f"{outcome['model']} version {outcome['version']} learned from {counted(outcome['labels'], 'label')} of "
        f"{outcome['studies']} studies"
    )
    if not outcome["judging labels"]:
        print(
            f"{learned}; all labels that were to judge it were removed meanwhile. aiassist models publish "
            f"{outcome['model']} --studies {options.studies} judges it by those of today."
        )
        return
    print(f"{learned}; Dice by {counted(outcome['judging labels'], 'other label')}, before and now:")
    for course, dice in outcome["now"].items():
        print(f"  {course:16} {outcome['before'][course]:.3f}  {dice:.3f}")
    if outcome["unjudged"]:
        unjudged = ", ".join(outcome["unjudged"])
        print(f"Nothing judges what it learned of {unjudged}: no patient who judges has one of 30 voxels or more.")
    if published:
        print("It is better, and used from now on.")
    elif outcome.get("kept back"):
        print(outcome["kept back"])
    elif outcome["better"]:
        print(f"It is better. To use it: aiassist models publish {outcome['model']} --studies {options.studies}")
    else:
        print("It is not clearly better, so there is no reason to publish it; what is used stays as it is.")
