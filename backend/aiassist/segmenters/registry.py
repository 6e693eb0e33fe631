"""Which segmenters there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from aiassist.errors import MissingExtraError, ModelError, UnknownModelError
from aiassist.resources import resource
from aiassist.segmenters.base import ModelCard, Segmenter
from aiassist.segmenters.ellipsoid import Ellipsoid
from aiassist.segmenters.geodesic import Geodesic
from aiassist.segmenters.lungs import LungsCT
from aiassist.segmenters.onnx_runner import OnnxRunner
from aiassist.segmenters.promptable import PromptableNetwork, Runner

DEFAULT = "network"


class Registry:
    """Segmenters by name; each is made when first asked for, and kept."""

    def __init__(self):
        self._makers: dict[str, Callable[[], Segmenter]] = {}
        self._made: dict[str, Segmenter] = {}

    def add(self, name: str, maker: Callable[[], Segmenter]) -> None:
        """Register a segmenter under `name`, replacing an earlier one."""
        self._makers[name] = maker
        self._made.pop(name, None)

    def get(self, name: str) -> Segmenter:
        """The segmenter called `name`; `UnknownModelError` when there is none."""
        if name not in self._makers:
            raise UnknownModelError(f"There is no model {name!r}; the models are {', '.join(self._makers)}.")
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def cards(self) -> Iterator[ModelCard]:
        """The cards of all segmenters."""
        return (self.get(name).card for name in self._makers)


def bundled(device: str = "cpu", threads: int = 0) -> Registry:
    """The segmenters that ship with this package.

    Parameters
    ----------
    device : str
        "cpu" or "cuda": what the network will run on.
    threads : int
        Threads of the network on the CPU; 0 lets ONNX Runtime choose.
    """
    registry = Registry()
    registry.add("network", lambda: load_network_folder(resource("Models", "network"), device, threads))
    registry.add("geodesic", Geodesic)
    registry.add("ellipsoid", Ellipsoid)
    registry.add("lungs-ct", LungsCT)
    return registry


def load_network_folder(folder: Path, device: str = "cpu", threads: int = 0) -> PromptableNetwork:
    """The promptable network of a folder with ``card.json`` and ``weights.onnx``; its weights load at the first use.

    With ``corrections.onnx`` beside them, corrections run by those weights.

    Raises
    ------
    ModelError
        When the card is missing or is none. Missing or damaged weights are said at the first use.
    """
    try:
        card = ModelCard(**json.loads((folder / "card.json").read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{folder / 'card.json'} is missing or no model card; reinstall the model.") from error

    def runner(weights: Path) -> Callable[[], Runner]:
        return lambda: OnnxRunner(weights, threads) if device == "cpu" else _torch_runner(weights, device)

    corrections = folder / "corrections.onnx"
    return PromptableNetwork(
        runner(folder / "weights.onnx"), card, runner(corrections) if corrections.exists() else None
    )


def _torch_runner(weights: Path, device: str) -> Runner:
    try:
        import onnx  # noqa: F401 - reads the weights
        import torch
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "learning", f"Running on {device}") from error
    if not torch.cuda.is_available():
        raise ModelError(f"There is no {device} device that torch could use here; run on the cpu.")
    from aiassist.segmenters.torch_runner import TorchRunner

    return TorchRunner.from_weights(weights, device)
