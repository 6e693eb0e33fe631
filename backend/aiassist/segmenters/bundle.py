"""A MONAI bundle as an automatic model: its own transforms, network and inferer, run by MONAI and torch.

See https://monai.readthedocs.io/en/stable/mb_specification.html for what a bundle is.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aiassist.errors import DeviceMemoryError, MissingExtraError, ModelError
from aiassist.imaging import MaskPatch, Region, Volume
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.recipe import read_recipe

#: File in a bundle's folder that says that whoever imported it trusts its makers.
TRUSTED = "trusted"


class BundleModel:
    """Segments what the bundle was made for.

    Parameters
    ----------
    folder : Path
        Of the bundle.
    card : ModelCard
    device : str
        "cpu" or "cuda".
    """

    def __init__(self, folder: Path, card: ModelCard, device: str = "cpu"):
        self.card = card
        self._folder, self._device = folder, device

    @cached_property
    def _pipeline(self) -> _Pipeline:
        return _Pipeline.of(self._folder, self._device)

    def segment(self, volume: Volume) -> Work:
        """See `aiassist.segmenters.base.Automatic.segment`; the pass is one piece of work, however long it takes.

        Raises
        ------
        ModelError
            When the bundle cannot be built, or its transforms or network cannot take the image.
        """
        yield Step("load", 0.0)
        pipeline = self._pipeline
        yield Step("crop", 0.05)
        with self._told():
            seen = pipeline.preprocess(volume)
        yield Step("pass", 0.1)
        with self._told():
            answer = pipeline.infer(seen)
        yield Step("paste", 0.9)
        with self._told():
            labelmap = pipeline.postprocess(seen, answer, volume.shape)
        known = [label.value for label in self.card.labels]
        labelmap[~np.isin(labelmap, known)] = 0
        region = Region.of_mask(labelmap)
        return MaskPatch(region, np.ascontiguousarray(labelmap[region.slices]), "labels")

    @contextmanager
    def _told(self):
        """Whatever MONAI, torch or the bundle's own classes raise becomes one sentence: they leave open what it is."""
        import torch

        try:
            with torch.inference_mode():
                yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise DeviceMemoryError(f"The {self._device} has too little memory for {self.card.name!r} now.") from error
        except ModelError:
            raise
        except Exception as error:
            why = _cause(error)
            raise ModelError(f"The bundle {self.card.name!r} cannot segment this image: {why}.") from error


@dataclass(frozen=True)
class _Pipeline:
    """What the recipe's parts have become; ``image_key`` is the name that its transforms have for the image."""

    image_key: str
    preprocessing: Any
    network: Any
    inferer: Any
    postprocessing: Any
    device: str

    @classmethod
    def of(cls, folder: Path, device: str) -> _Pipeline:
        """Build them; weights are read as numbers only."""
        try:
            from monai.bundle import ConfigParser
        except ImportError as error:
            raise MissingExtraError(error.name or "monai", "bundles", "This model") from error
        warnings.filterwarnings("ignore", module="monai")  # they are for those who write bundles
        is_trusted = (folder / TRUSTED).exists()
        config = read_recipe(folder).config(device, is_trusted)
        if is_trusted and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))  # where its own classes are
        parser = ConfigParser(config)
        try:
            parts = {name: parser.get_parsed_content(name) for name in ("preprocessing", "inferer", "postprocessing")}
            weights = parser.get_parsed_content("weights")
            network = _load(folder, Path(str(weights)), lambda: parser.get_parsed_content("network"), device)
        except ModelError:
            raise
        except Exception as error:
            why = _cause(error)
            raise ModelError(f"The bundle in {folder} cannot be built by this MONAI: {why}.") from error
        return cls(_image_key(parts["preprocessing"]), **parts, network=network, device=device)

    def preprocess(self, volume: Volume) -> dict:
        """The image as the network sees it, as the bundle's transforms make it."""
        import torch
        from monai.data import MetaTensor

        geometry = volume.geometry
        voxels = torch.from_numpy(np.ascontiguousarray(volume.voxels.transpose(2, 1, 0)).astype(np.float32))
        affine = torch.from_numpy(np.asarray(geometry.affine_ras, dtype=np.float64))
        meta = {"original_channel_dim": float("nan"), "original_affine": affine, "filename_or_obj": "image"}
        meta |= {"spatial_shape": np.array(voxels.shape), "space": "RAS"}
        return self.preprocessing({self.image_key: MetaTensor(voxels, affine=affine, meta=meta)})

    def infer(self, seen: dict):
        """The network's answer (channels, i, j, k), on the grid of what it saw."""
        image = seen[self.image_key].to(self.device)
        return self.inferer(image[None].float(), self.network)[0].cpu()

    def postprocess(self, seen: dict, answer, shape: tuple[int, int, int]) -> np.ndarray:
        """The labelmap (k, j, i) of the whole volume."""
        from monai.data import MetaTensor

        image = seen[self.image_key]
        pred = MetaTensor(answer, meta=image.meta, applied_operations=image.applied_operations)
        done = np.asarray(self.postprocessing({**seen, "pred": pred})["pred"])
        if done.shape[1:] != shape[::-1] or done.ndim != 4:
            raise ModelError(f"its answer has the shape {done.shape}, not that of the image, {shape[::-1]}")
        if len(done) == 1:
            labels = np.rint(done[0])
        else:  # several masks: each its own value, the later over the earlier
            labels = np.zeros(done.shape[1:], np.uint16)
            for value, mask in enumerate(done):
                labels[mask > 0.5] = value
        return labels.transpose(2, 1, 0).astype(np.uint16)


def _cause(error: BaseException) -> str:
    """What went wrong at the bottom: MONAI says of each layer which transform it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200].removesuffix(".") or type(error).__name__


def _image_key(preprocessing) -> str:
    """The name that the transforms have for the image: what the first one of them reads."""
    keys = next((one.keys for one in preprocessing.transforms if getattr(one, "keys", None)), ("image",))
    if len(keys) != 1:
        raise ModelError(f"The bundle wants {len(keys)} images ({', '.join(map(str, keys))}); models here get one.")
    return str(keys[0])


def _load(folder: Path, weights: Path, build, device: str):
    """The network with its weights, or the one that TorchScript holds."""
    import torch

    path = weights if weights.is_absolute() else folder / weights
    if not path.resolve().is_relative_to(folder.resolve()):
        raise ModelError(f"The bundle's weights {path} lie outside of it.")
    script = path.with_suffix(".ts")
    try:
        if path.suffix == ".ts" or (not path.exists() and script.exists()):
            return torch.jit.load(str(path if path.suffix == ".ts" else script), map_location=device).eval()
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"{path} is missing; download the weights as the bundle's page says.") from error
    except Exception as error:  # torch leaves open what damaged or foreign files raise
        raise ModelError(f"{path} is damaged, or holds more than numbers.") from error
    held = next((held[key] for key in ("model", "state_dict", "network") if isinstance(held.get(key), dict)), held)
    network = build()
    try:
        network.load_state_dict(held)
    except RuntimeError as error:
        raise ModelError(f"The weights {path} do not fit the network that the bundle describes.") from error
    return network.to(device).eval()
