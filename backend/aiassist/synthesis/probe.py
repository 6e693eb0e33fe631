"""Look at real cases during training: for the eye and the log only, never for the gradient."""

from __future__ import annotations

import torch

from aiassist.engine import LocalBackend
from aiassist.evaluation.cases import Structure
from aiassist.evaluation.measure import Plan, measure
from aiassist.evaluation.summary import macro
from aiassist.segmenters.base import ModelCard
from aiassist.segmenters.network import PromptableNet, Shape
from aiassist.segmenters.promptable import PromptableNetwork
from aiassist.segmenters.registry import bundled, load_network_folder
from aiassist.segmenters.torch_runner import TorchRunner
from aiassist.synthesis.training import Trainer


def probe(trainer: Trainer, structures: list[Structure], clicks: int = 1, seed: int = 0) -> dict[str, float]:
    """Macro Dice of the run's EMA on real structures, after the points and after some clicks.

    Parameters
    ----------
    trainer : Trainer
    structures : list of Structure
        Those of the dev split, usually.
    clicks : int
    seed : int

    Returns
    -------
    dict
        ``probe/dice`` and ``probe/dice N clicks``.
    """
    settings = trainer.settings
    net = PromptableNet(Shape(settings.widths, settings.blocks, settings.fine, settings.inputs))
    net.load_state_dict(trainer.ema)
    device = str(trainer.device)
    card = ModelCard("probe", str(trainer.step), "promptable", "The run's present average.", devices=("cpu",))
    registry = bundled()
    runner = TorchRunner(net, settings.cells, device)
    if trainer.corrects is None:
        probed = PromptableNetwork(lambda: runner, card)
    else:  # clicks correct what the other model finds
        first = load_network_folder(trainer.corrects)
        probed = PromptableNetwork(lambda: first.runner, card, lambda: runner)
    registry.add("probe", lambda: probed)
    plan = Plan(("probe",), clicks=clicks, draws=1, seed=seed, other_starts=False)
    with LocalBackend(registry, threaded=False) as backend, torch.no_grad():
        results = [result for structure in structures for result in measure(structure, plan, backend)]
    return {
        "probe/dice": macro(results, lambda r: r.mean_dice()),
        f"probe/dice {clicks} clicks": macro(results, lambda r: r.mean_dice(clicks)),
    }
