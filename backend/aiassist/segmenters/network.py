"""The network: a residual U-Net at half the cube's resolution and below, with a thin full-resolution end."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from aiassist.segmenters.network_input import CHANNELS

#: Names of the weights that the input's channels go through.
SEEING = ("stem.weight", "detail.weight")


@dataclass(frozen=True)
class Shape:
    """Channels at each resolution from half the cube's to the coarsest, residual blocks at each, channels at full.

    ``inputs`` are what it sees, ``outputs`` the structures that it tells apart.
    """

    widths: tuple[int, ...] = (24, 48, 96, 192)
    blocks: int = 1
    fine: int = 8
    inputs: int = len(CHANNELS)
    outputs: int = 1


class Residual(nn.Module):
    """Two 3x3x3 convolutions with group norm, and a shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = nn.Conv3d(inputs, outputs, 3, padding=1, bias=False)
        self.second = nn.Conv3d(outputs, outputs, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(min(8, outputs // 4), outputs) for _ in range(2))
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv3d(inputs, outputs, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.silu(self.norms[0](self.first(x)))
        y = self.norms[1](self.second(y))
        return F.silu(y + self.shortcut(x))


class Rising(Residual):
    """A `Residual` over cells from below, each repeated twice along every axis, and a skip beside them.

    Convolving repeated cells is convolving them before, by other weights for each of the eight that a cell becomes
    (Odena et al. 2016, doi:10.23915/distill.00003): the same in a third of the arithmetic, and nothing to repeat.
    """

    def forward(self, below: torch.Tensor, skip: torch.Tensor) -> torch.Tensor:
        split = [below.shape[1], skip.shape[1]]
        rising, beside = self.first.weight.split(split, dim=1)
        y = F.conv_transpose3d(below, _repeated(rising), stride=2, padding=1) + F.conv3d(skip, beside, padding=1)
        y = self.norms[1](self.second(F.silu(self.norms[0](y))))
        rising, beside = self.shortcut.weight.split(split, dim=1)
        rising = rising.transpose(0, 1).expand(-1, -1, 2, 2, 2)
        return F.silu(y + F.conv_transpose3d(below, rising, stride=2) + F.conv3d(skip, beside))


def _repeated(weight: torch.Tensor) -> torch.Tensor:
    """Weights of a transposed convolution, stride 2, that does what 3x3x3 ones do to cells repeated twice."""
    for axis in (2, 3, 4):
        before, here, after = weight.unbind(axis)
        weight = torch.stack([after, here + after, before + here, before], axis)
    return weight.transpose(0, 1)


class PromptableNet(nn.Module):
    """Logits (n, outputs, c, c, c) from channels (n, inputs, c, c, c); in training also at half resolution.

    Full resolution is where a U-Net spends most of its time on a CPU and learns least: there, two thin
    convolutions join what the U-Net says with the input itself.
    """

    def __init__(self, shape: Shape = Shape()):
        super().__init__()
        self.shape = shape
        widths, fine = shape.widths, shape.fine
        self.stem = nn.Conv3d(shape.inputs, widths[0], 4, stride=2, padding=1)
        self.down = nn.ModuleList()
        for number, width in enumerate(widths):
            first = Residual(widths[max(number - 1, 0)], width)
            self.down.append(nn.Sequential(first, *[Residual(width, width) for _ in range(shape.blocks - 1)]))
        self.up = nn.ModuleList(
            Rising(wide + narrow, narrow) for narrow, wide in zip(widths[-2::-1], widths[:0:-1], strict=True)
        )
        self.half_head = nn.Conv3d(widths[0], shape.outputs, 1)
        self.expand = nn.ConvTranspose3d(widths[0], fine, 2, stride=2)
        self.detail = nn.Conv3d(shape.inputs, fine, 3, padding=1)
        self.join = nn.Conv3d(fine, fine, 3, padding=1)
        self.head = nn.Conv3d(fine, shape.outputs, 1)

    def forward(self, x: torch.Tensor):
        seen = x
        x = self.stem(x)
        skips = []
        for number, stage in enumerate(self.down):
            x = stage(x if number == 0 else F.max_pool3d(x, 2))
            skips.append(x)
        for stage, skip in zip(self.up, skips[-2::-1], strict=True):
            x = stage(x, skip)
        fine = F.silu(self.expand(x) + self.detail(seen))
        fine = F.silu(self.join(fine))
        logits = self.head(fine)
        return (logits, self.half_head(x)) if self.training else logits
