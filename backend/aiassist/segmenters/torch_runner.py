"""The promptable network by torch, on the CPU or a GPU."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from aiassist.errors import DeviceMemoryError, ModelError
from aiassist.segmenters.network import SEEING, PromptableNet, Shape
from aiassist.segmenters.network_input import FORMER
from aiassist.segmenters.onnx_runner import BYTES, HALF, SCALE


class TorchRunner:
    """Runs a network in torch; see `aiassist.segmenters.promptable.Runner`.

    Parameters
    ----------
    net : PromptableNet
    cells : int
        Cells along each side that it was trained for.
    device : str
    """

    def __init__(self, net: PromptableNet, cells: int, device: str = "cpu"):
        self.net = net.eval().to(device, memory_format=torch.channels_last_3d)
        self.inputs, self.cells, self.takes_any = net.shape.inputs, cells, True
        self.device = torch.device(device)

    @classmethod
    def from_weights(cls, path: Path, device: str = "cpu") -> TorchRunner:
        """The network of a file that training wrote; see `load_network`."""
        return cls(*load_network(path), device)

    @torch.no_grad()
    def __call__(self, channels: np.ndarray) -> np.ndarray:
        try:
            x = torch.from_numpy(channels)[None].to(self.device).contiguous(memory_format=torch.channels_last_3d)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
                return self.net(x)[0, 0].float().cpu().numpy()
        except torch.OutOfMemoryError as error:
            raise DeviceMemoryError(f"The {self.device} has too little memory for the network now.") from error


def load_network(path: Path, shape: Shape | None = None) -> tuple[PromptableNet, int]:
    """The network and its cells from a ``.safetensors`` or ``.onnx`` that training wrote.

    With `shape`, which may have more inputs than the file's network: it answers the same, whatever the others say.

    Raises
    ------
    ModelError
        When the file is missing, damaged, or of something else; with `shape` also when it is of a network of another.
    """
    state, settings = _read_onnx(path) if Path(path).suffix == ".onnx" else _read_safetensors(path)
    if not settings:
        raise ModelError(f"The weights {path} were not written by aiassist synth train.")
    sizes = tuple(settings["widths"]), settings["blocks"], settings["fine"]
    own = Shape(*sizes, settings.get("inputs", FORMER), settings.get("outputs", 1))
    if shape is not None and (replace(shape, inputs=own.inputs) != own or shape.inputs < own.inputs):
        raise ModelError(f"The weights {path} are those of a network of {own}, not of {shape}.")
    net = PromptableNet(shape or own)
    if net.shape.inputs > own.inputs:  # blind to the others until training opens its eyes
        more = (0, 0, 0, 0, 0, 0, 0, net.shape.inputs - own.inputs)
        state |= {name: F.pad(state[name], more) for name in SEEING if name in state}
    # The head at half resolution serves training only; an ONNX file does not hold it.
    state = {**{n: t for n, t in net.state_dict().items() if n.startswith("half_head")}, **state}
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"The weights {path} do not fit the network that they name.") from error
    return net, settings["cells"]


def _read_safetensors(path: Path) -> tuple[dict, dict | None]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {}).get("settings", "null"))
            return {name: file.get_tensor(name).float() for name in file.keys()}, settings  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"The weights {path} cannot be read; they are missing or damaged.") from error


def _read_onnx(path: Path) -> tuple[dict, dict | None]:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path))
    except (DecodeError, OSError, ValueError) as error:
        raise ModelError(f"The weights {path} cannot be read; they are missing or damaged.") from error
    meta = {entry.key: entry.value for entry in model.metadata_props}
    arrays = {t.name: onnx.numpy_helper.to_array(t).astype(np.float32) for t in model.graph.initializer}
    kept = {name.removesuffix(HALF): array for name, array in arrays.items() if name.endswith(HALF)}
    for name, scale in arrays.items():
        if name.endswith(SCALE):
            kept[name.removesuffix(SCALE)] = arrays[name.removesuffix(SCALE) + BYTES] * scale
    state = {name: torch.from_numpy(array) for name, array in kept.items()}
    return state, json.loads(meta.get("settings", "null"))
