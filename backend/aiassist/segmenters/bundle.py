"""A MONAI bundle as an automatic model: its own transforms, network and inferer, run by MONAI and torch.

See https://monai.readthedocs.io/en/stable/mb_specification.html for what a bundle is.
"""

from __future__ import annotations

import importlib
import sys
import threading
import warnings
from collections.abc import Callable
from contextlib import closing, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from aiassist.errors import AIAssistError, Cancelled, DeviceMemoryError, MissingExtraError, ModelError
from aiassist.imaging import Geometry, MaskPatch, Region, Volume, finite
from aiassist.segmenters.base import ModelCard, Step, Work
from aiassist.segmenters.bundle_metadata import METADATA, channels_of, first_value
from aiassist.segmenters.pieces import in_pieces
from aiassist.segmenters.recipe import read_config, read_recipe

#: File in a bundle's folder that says that whoever imported it trusts its makers.
TRUSTED = "trusted"
#: Calls of the network after which half of its work seems done.
HALFWAY = 20
_BUILDING = threading.Lock()


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
        self._folder, self._device = folder.resolve(), device

    @cached_property
    def _pipeline(self) -> _Pipeline:
        for package in ("torch", "monai"):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise MissingExtraError(error.name or package, "bundles", "This model") from error
        with self._told("be built by this MONAI"):
            return _Pipeline.of(self._folder, self._device, self.card)

    def segment(self, volume: Volume) -> Work:
        """See `aiassist.segmenters.base.Automatic.segment`; each call of the network is a step.

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
            answer = yield from self._infer(pipeline, seen)
        yield Step("paste", 0.9)
        with self._told():
            labelmap = pipeline.postprocess(seen, answer, volume.geometry)
            self._check_values(labelmap)
        region = Region.of_mask(labelmap)
        return MaskPatch(region, np.ascontiguousarray(labelmap[region.slices]), "labels")

    def _infer(self, pipeline: _Pipeline, seen: dict):
        """Yields at each call of the network; how many there will be, only its inferer knows."""
        number = 0
        with closing(in_pieces(lambda pause: pipeline.infer(seen, pause))) as calls:
            while True:
                try:
                    next(calls)
                except StopIteration as end:
                    return end.value
                number += 1
                yield Step("pass", 0.9 - 0.8 * HALFWAY / (HALFWAY + number))

    def _check_values(self, labelmap: np.ndarray) -> None:
        unknown = set(np.unique(labelmap).tolist()) - {0, *(label.value for label in self.card.labels)}
        if unknown:
            raise ValueError(f"it found the value {min(unknown)}, which its metadata does not name")

    @contextmanager
    def _told(self, what: str = "segment this image"):
        """Whatever MONAI, torch or the bundle's own classes raise becomes one sentence: they leave open what it is."""
        import torch

        try:
            yield
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise DeviceMemoryError(f"The {self._device} has too little memory for {self.card.name!r} now.") from error
        except (AIAssistError, Cancelled):
            raise
        except Exception as error:
            raise ModelError(f"The bundle {self.card.name!r} cannot {what}: {_cause(error)}.") from error


@dataclass(frozen=True)
class _Pipeline:
    """What the recipe's parts have become.

    ``image_key`` is the name that its transforms have for the image, ``channels`` what the answer's stand for, and
    ``first`` the value of the first, see `first_value`.
    """

    image_key: str
    channels: dict[int, str]
    first: int
    preprocessing: Any
    network: Any
    inferer: Any
    postprocessing: Any
    device: str

    @classmethod
    def of(cls, folder: Path, device: str, card: ModelCard) -> _Pipeline:
        """Build them; weights are read as numbers only."""
        from monai.bundle import ConfigParser

        warnings.filterwarnings("ignore", module="monai")  # they are for those who write bundles
        is_trusted = (folder / TRUSTED).exists()
        parser = ConfigParser(read_recipe(folder).config(device, is_trusted))
        with _own_classes(folder) if is_trusted else nullcontext():
            parts = {name: parser.get_parsed_content(name) for name in ("preprocessing", "inferer", "postprocessing")}
            weights = Path(str(parser.get_parsed_content("weights")))
            network = _load(folder, weights, lambda: parser.get_parsed_content("network"), device, is_trusted)
        channels = channels_of(read_config(folder / METADATA))
        first = first_value(channels, card.labels)
        return cls(_image_key(parts["preprocessing"]), channels, first, **parts, network=network, device=device)

    def preprocess(self, volume: Volume) -> dict:
        """The image as the network sees it, as the bundle's transforms make it."""
        import torch
        from monai.data import MetaTensor

        geometry = volume.geometry
        voxels = torch.from_numpy(np.ascontiguousarray(finite(volume.voxels).transpose(2, 1, 0)))
        affine = torch.from_numpy(np.asarray(geometry.affine_ras, dtype=np.float64))
        meta = {"original_channel_dim": float("nan"), "original_affine": affine, "filename_or_obj": "image"}
        meta |= {"spatial_shape": np.array(voxels.shape), "space": "RAS"}
        with torch.inference_mode():
            return self.preprocessing({self.image_key: MetaTensor(voxels, affine=affine, meta=meta)})

    def infer(self, seen: dict, pause: Callable[[], None]):
        """The network's answer (channels, i, j, k), on the grid of what it saw; `pause` is called before each call."""
        import torch

        def network(*arguments, **options):
            pause()
            return self.network(*arguments, **options)

        with torch.inference_mode():
            image = seen[self.image_key].to(self.device)
            return self.inferer(image[None].float(), network)[0].cpu()

    def postprocess(self, seen: dict, answer, geometry: Geometry) -> np.ndarray:
        """The labelmap (k, j, i) of the whole volume."""
        import torch
        from monai.data import MetaTensor

        self._check_channels(len(answer))
        image, shape = seen[self.image_key], geometry.shape[::-1]
        pred = MetaTensor(answer, meta=image.meta, applied_operations=image.applied_operations)
        with torch.inference_mode():
            done = self.postprocessing({**seen, "pred": pred})["pred"]
            affine = self._affine_of(done, image, geometry.affine_ras)
            voxels = torch.as_tensor(done).cpu().numpy()
            is_moved = not _is_same(affine, geometry.affine_ras)
            if is_moved and answer.shape[1:] != image.shape[1:]:
                sizes = f"{_size(answer)} voxels to an image of {_size(image)}"
                raise ValueError(f"its network answers in {sizes}, so where its answer lies is not known")
            if voxels.ndim != 4 or (voxels.shape[1:] != shape and not is_moved):
                raise ValueError(f"its answer has the shape {voxels.shape}, not that of the image, {shape}")
            labels = self._labels(voxels, len(answer)).astype(np.uint16)
            return (_on_grid(labels, affine, geometry) if is_moved else labels).transpose(2, 1, 0)

    def _affine_of(self, done, image, affine_ras: np.ndarray):
        """From the voxels of what the transforms made to the patient, as MONAI's SaveImage takes it."""
        from monai.data import MetaTensor
        from monai.transforms import Invertd

        if isinstance(done, MetaTensor) and "original_affine" in done.meta:  # else it was lost on the way
            return done.affine
        is_inverted = any(isinstance(one, Invertd) for one in self.postprocessing.flatten().transforms)
        if not is_inverted and not _is_same(image.affine, affine_ras):
            raise ValueError("its transforms turn the image and lose where the answer lies; have Invertd turn it back")
        return affine_ras

    def _labels(self, done: np.ndarray, count: int) -> np.ndarray:
        """The values (i, j, k) of what the transforms made of an answer in `count` channels."""
        if len(done) not in (1, count):
            raise ValueError(f"its transforms make {len(done)} channels of {count}, so their names are not known")
        if len(done) == 1:  # one mask, or the number of the likeliest channel
            return np.rint(done[0]) + (self.first if count > 1 else 0)
        if not ((done == 0) | (done == 1)).all():
            if self.first:
                raise ValueError("its transforms do not say where its masks end")
            return done.argmax(axis=0)
        labels = np.zeros(done.shape[1:], np.uint16)
        # The larger first, so that what lies in another, and is smaller, is whole; the background is what is left.
        for channel in sorted(range(1 - self.first, len(done)), key=lambda n: -np.count_nonzero(done[n])):
            labels[done[channel] == 1] = self.first + channel
        return labels

    def _check_channels(self, count: int) -> None:
        """Nothing that the network finds may be left out for want of a name."""
        named = len(self.channels) if self.first else 1 + max(self.channels)
        if named != count and not (count == 1 and named == 2):
            names = ", ".join(self.channels.values())
            raise ValueError(f"its network answers in {count} channels, but its metadata names {named} ({names})")


def _is_same(affine, affine_ras: np.ndarray) -> bool:
    """Whether two affines put voxels in the same places, but for what `Invertd` loses by rounding."""
    return np.allclose(np.asarray(affine), affine_ras, rtol=0, atol=1e-4)


def _on_grid(labels: np.ndarray, affine, geometry: Geometry) -> np.ndarray:
    """Labels (i, j, k) on another grid brought onto the image's own, as MONAI's SaveImage does."""
    import torch
    from monai.data import MetaTensor
    from monai.transforms import SpatialResample

    there = MetaTensor(torch.from_numpy(labels[None].astype(np.float32)), affine=torch.as_tensor(affine))
    # Outside of what the network saw nothing was found; SaveImage would repeat the outermost voxels there.
    resample = SpatialResample(mode="nearest", padding_mode="zeros", dtype=torch.float32)
    target = torch.from_numpy(np.asarray(geometry.affine_ras, dtype=np.float64))
    return resample(there, dst_affine=target, spatial_size=geometry.shape[::-1])[0].numpy().astype(np.uint16)


def _size(voxels) -> str:
    return " x ".join(map(str, voxels.shape[1:]))


@contextmanager
def _own_classes(folder: Path):
    """While a bundle that is trusted is built, its package ``scripts`` can be imported, and nobody else's."""
    with _BUILDING:
        _forget_scripts()
        sys.path.insert(0, str(folder))
        importlib.invalidate_caches()
        try:
            yield
        finally:
            sys.path.remove(str(folder))
            _forget_scripts()


def _forget_scripts() -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "scripts"]:
        del sys.modules[name]


def _cause(error: BaseException) -> str:
    """What went wrong at the bottom: MONAI says of each layer which transform it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())[:200].removesuffix(".") or type(error).__name__


def _image_key(preprocessing) -> str:
    """The name that the transforms have for the image: what the first one of them reads."""
    keys = next((one.keys for one in preprocessing.transforms if getattr(one, "keys", None)), ("image",))
    if len(keys) != 1:
        raise ValueError(f"it wants {len(keys)} images ({', '.join(map(str, keys))}); models here get one.")
    return str(keys[0])


def _load(folder: Path, weights: Path, build: Callable[[], Any], device: str, is_trusted: bool):
    """The network with its weights, or the one that TorchScript holds."""
    import torch

    path = folder / weights
    if not path.resolve().is_relative_to(folder):
        raise ModelError(f"The bundle's weights {weights} lie outside of it.")
    if not path.exists() and path.with_suffix(".ts").exists():
        path = path.with_suffix(".ts")
    name = path.relative_to(folder).as_posix()
    if path.suffix == ".ts" and not is_trusted:
        raise ModelError(
            f"The bundle's network is a program, {name} (TorchScript), which could write any file; whoever trusts its "
            "makers can import it with --trust."
        )
    try:
        if path.suffix == ".ts":
            return torch.jit.load(str(path), map_location=device).eval()
        held = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise ModelError(f"The bundle's {name} is missing; download the weights as the bundle's page says.") from error
    except Exception as error:  # torch leaves open what damaged or foreign files raise
        raise ModelError(f"The bundle's {name} is damaged, or holds more than numbers.") from error
    held = held if isinstance(held, dict) else {}
    held = next((held[key] for key in ("model", "state_dict", "network") if isinstance(held.get(key), dict)), held)
    network = build()
    try:
        network.load_state_dict(held)
    except RuntimeError as error:
        raise ModelError(f"The bundle's {name} does not fit the network that the bundle describes.") from error
    return network.to(device).eval()
