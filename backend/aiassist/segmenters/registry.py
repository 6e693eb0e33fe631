"""Which segmenters there are."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from aiassist.errors import ModelError
from aiassist.resources import HOMES, resource
from aiassist.segmenters.base import ModelCard, Promptable
from aiassist.segmenters.ellipsoid import Ellipsoid
from aiassist.segmenters.geodesic import Geodesic
from aiassist.segmenters.onnx_runner import OnnxRunner
from aiassist.segmenters.promptable import PromptableNetwork, Runner

#: Whether this checkout holds the network's weights.
SHIPPED = any((home / "Models" / "network" / "weights.onnx").exists() for home in HOMES)
DEFAULT = "network" if SHIPPED else "geodesic"


class Registry:
    """Segmenters by name; each is made when first asked for, and kept."""

    def __init__(self):
        self._makers: dict[str, Callable[[], Promptable]] = {}
        self._made: dict[str, Promptable] = {}

    def add(self, name: str, maker: Callable[[], Promptable]) -> None:
        """Register a segmenter under `name`, replacing an earlier one."""
        self._makers[name] = maker
        self._made.pop(name, None)

    def get(self, name: str) -> Promptable:
        """The segmenter called `name`; `ModelError` when there is none."""
        if name not in self._makers:
            raise ModelError(f"There is no model {name!r}; the models are {', '.join(self._makers)}.")
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
    if SHIPPED:
        registry.add("network", lambda: _network(resource("Models", "network"), device, threads))
    registry.add("geodesic", Geodesic)
    registry.add("ellipsoid", Ellipsoid)
    return registry


def _network(folder: Path, device: str, threads: int) -> PromptableNetwork:
    """The promptable network of a folder with ``card.json`` and ``weights.onnx``, loaded at its first use."""
    card = ModelCard(**json.loads((folder / "card.json").read_text(encoding="utf8")))

    def runner() -> Runner:
        if device == "cpu":
            return OnnxRunner(folder / "weights.onnx", threads)
        from aiassist.segmenters.torch_runner import TorchRunner

        return TorchRunner.from_weights(folder / "weights.onnx", device)

    return PromptableNetwork(runner, card)
