"""The promptable network by torch, on the CPU or a GPU."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch

from aiassist.errors import ModelError
from aiassist.synthesis.network import PromptableNet, Shape


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
        self.cells = cells
        self.device = torch.device(device)

    @classmethod
    def from_weights(cls, path: Path, device: str = "cpu") -> TorchRunner:
        """The network of a ``weights.safetensors`` that training wrote."""
        return cls(*load_network(path), device)

    @torch.no_grad()
    def __call__(self, channels: np.ndarray) -> np.ndarray:
        x = torch.from_numpy(channels)[None].to(self.device).contiguous(memory_format=torch.channels_last_3d)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            return self.net(x)[0, 0].float().cpu().numpy()


def load_network(path: Path) -> tuple[PromptableNet, int]:
    """The network and its cells from weights that training wrote; `ModelError` when they are not that."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            settings = json.loads((file.metadata() or {}).get("settings", "null"))
            state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    except (SafetensorError, OSError, ValueError) as error:
        raise ModelError(f"The weights {path} cannot be read; they are missing or damaged.") from error
    if not settings:
        raise ModelError(f"The weights {path} were not written by aiassist synth train.")
    net = PromptableNet(Shape(tuple(settings["widths"]), settings["blocks"]))
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise ModelError(f"The weights {path} do not fit the network that they name.") from error
    return net, settings["cells"]


def export_onnx(weights: Path, path: Path) -> None:
    """Write the network of some weights as an ONNX file for `aiassist.segmenters.onnx_runner`."""
    net, cells = load_network(weights)
    sample = torch.zeros(1, net.shape.inputs, cells, cells, cells)
    torch.onnx.export(net.eval(), (sample,), str(path), input_names=["channels"], output_names=["logits"], dynamo=False)
