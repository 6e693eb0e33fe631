"""Which segmenters there are."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from aiassist.errors import MissingExtraError, ModelError, UnknownModelError
from aiassist.resources import resource
from aiassist.segmenters.automatic import AutomaticNetwork
from aiassist.segmenters.base import ModelCard, Segmenter
from aiassist.segmenters.bundle import BundleModel
from aiassist.segmenters.ellipsoid import Ellipsoid
from aiassist.segmenters.geodesic import Geodesic
from aiassist.segmenters.lungs import LungsCT
from aiassist.segmenters.model_store import BUNDLE, ModelStore
from aiassist.segmenters.onnx_runner import OnnxRunner
from aiassist.segmenters.promptable import PromptableNetwork
from aiassist.segmenters.sight import Runner

log = logging.getLogger(__name__)

#: The network that ships, and the same with a last pass on finer cells.
DEFAULT, FINE = "network", "network-fine"
#: Names of the segmenters that ship with this package.
BUNDLED = (DEFAULT, FINE, "geodesic", "ellipsoid", "lungs-ct")


class Registry:
    """Segmenters by name; each is made when first asked for, and kept.

    Parameters
    ----------
    models : ModelStore, optional
        Its published versions are segmenters, too, from when they are published until they are taken back.
    load : callable, optional
        Makes the segmenter of a version's folder.
    """

    def __init__(self, models: ModelStore | None = None, load: Callable[[Path], Segmenter] | None = None):
        self._makers: dict[str, Callable[[], Segmenter]] = {}
        self._made: dict[str, Segmenter] = {}
        self._models, self._load = models, load
        self._published: dict[str, Path] = {}
        self._lock = threading.RLock()

    def add(self, name: str, maker: Callable[[], Segmenter]) -> None:
        """Register a segmenter under `name`, replacing an earlier one."""
        with self._lock:
            self._makers[name] = maker
            self._made.pop(name, None)

    def __contains__(self, name: str) -> bool:
        with self._lock:
            self._look()
            return name in self._makers

    def get(self, name: str) -> Segmenter:
        """The segmenter called `name`; `UnknownModelError` when there is none."""
        with self._lock:
            self._look()
            if name not in self._makers:
                raise UnknownModelError(f"There is no model {name!r}; the models are {', '.join(self._makers)}.")
            return self._make(name)

    def _make(self, name: str) -> Segmenter:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def cards(self) -> Iterator[ModelCard]:
        """The cards of all segmenters; a published one that is damaged is left out, and the log says so."""
        cards = []
        with self._lock:
            self._look()
            for name in self._makers:
                try:
                    cards.append(self._make(name).card)
                except ModelError as error:
                    if name not in self._published:
                        raise
                    log.warning("The model %s is left out: %s", name, error)
        return iter(cards)

    def _look(self) -> None:
        """Take notice of what was published or taken back since."""
        if self._models is None:
            return
        own = self._makers.keys() - self._published.keys()  # nothing takes the place of what ships
        published = {name: folder for name, folder in self._models.published_folders().items() if name not in own}
        for name in self._published.keys() - published.keys():
            self._makers.pop(name), self._made.pop(name, None)
        for name, folder in published.items():
            if self._published.get(name) != folder:
                self.add(name, partial(self._load, folder))
        self._published = published


def bundled(device: str = "cpu", threads: int = 0, models: ModelStore | None = None) -> Registry:
    """The segmenters that ship with this package, and those that are published in `models`.

    Parameters
    ----------
    device : str
        "cpu" or "cuda": what the network will run on.
    threads : int
        Threads of the network on the CPU; 0 lets ONNX Runtime choose.
    models : ModelStore, optional
    """
    registry = Registry(models, lambda folder: load_network_folder(folder, device, threads))
    registry.add(DEFAULT, lambda: load_network_folder(resource("Models", "network"), device, threads))
    registry.add(FINE, lambda: registry.get(DEFAULT).finer(FINE))
    registry.add("geodesic", Geodesic)
    registry.add("ellipsoid", Ellipsoid)
    registry.add("lungs-ct", LungsCT)
    return registry


def load_network_folder(folder: Path, device: str = "cpu", threads: int = 0) -> Segmenter:
    """The model of a folder with ``card.json`` and ``weights.onnx``; its weights load at the first use.

    With ``corrections.onnx`` beside them, corrections run by those weights. An automatic model also has
    ``finder.onnx``, which runs on the CPU, or it is a MONAI bundle in a folder ``bundle``.

    Raises
    ------
    ModelError
        When the card is missing or is none. Missing or damaged weights are said at the first use.
    """
    try:
        card = ModelCard.from_json(json.loads((folder / "card.json").read_text(encoding="utf8")))
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{folder / 'card.json'} is missing or no model card; reinstall the model.") from error

    def runner(weights: Path) -> Callable[[], Runner]:
        return lambda: OnnxRunner(weights, threads) if device == "cpu" else _torch_runner(weights, device)

    if (folder / BUNDLE).is_dir():
        return BundleModel(folder / BUNDLE, card, device)
    corrections = folder / "corrections.onnx"
    network = PromptableNetwork(
        runner(folder / "weights.onnx"), card, runner(corrections) if corrections.exists() else None
    )
    if card.kind == "promptable":
        return network
    return AutomaticNetwork(lambda: OnnxRunner(folder / "finder.onnx", threads), network, card)


def check_device(device: str) -> None:
    """`ModelError` when networks cannot run on a device here, `MissingExtraError` when packages lack for it."""
    if device == "cpu":
        return
    try:
        import onnx  # noqa: F401 - reads the weights
        import torch
    except ImportError as error:
        raise MissingExtraError(error.name or "torch", "learning", f"Running on {device}") from error
    if not torch.cuda.is_available():
        raise ModelError(f"There is no {device} device that torch could use here; run on the cpu.")


def _torch_runner(weights: Path, device: str) -> Runner:
    check_device(device)
    from aiassist.segmenters.torch_runner import TorchRunner

    return TorchRunner.from_weights(weights, device)
