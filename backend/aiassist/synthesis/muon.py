"""Muon, an optimiser for the convolutions of a network.

A step is the momentum of the gradient, made orthogonal: all directions that it holds count alike (Jordan et al. 2024,
https://kellerjordan.github.io/posts/muon/). Scaled as in Liu et al. 2025 (arXiv:2502.16982), it takes AdamW's rates.
PyTorch's own takes matrices only; here a kernel is one, with a row for each first index.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

MOMENTUM = 0.95
#: Newton-Schulz steps towards an orthogonal matrix, and their quintic.
STEPS, QUINTIC = 5, (3.4445, -4.7750, 2.0315)
#: Root mean square of AdamW's usual steps.
USUAL = 0.2
#: Weights lose so many times as much in a step as AdamW's.
DECAY = 10.0
#: Beginnings of the names of what is no convolution within the network: AdamW's.
ENDS = ("stem", "half_head", "head", "detail", "expand")


class Muon(torch.optim.Optimizer):
    """Moves weights by orthogonal steps.

    Parameters
    ----------
    weights : iterable of torch.nn.Parameter
        Of two dimensions or more.
    rate : float
        As for AdamW.
    decay : float
        As for AdamW.
    half : bool
        Whether matrices are multiplied in bfloat16, which is enough where it is fast.
    """

    def __init__(self, weights: Iterable[torch.nn.Parameter], rate: float, decay: float, half: bool):
        super().__init__(weights, {"lr": rate, "decay": DECAY * decay})
        self._kind = torch.bfloat16 if half else torch.float32

    @torch.no_grad()
    def step(self, closure=None):
        """One step; `closure` is not called."""
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(weight)
                held = state["momentum"]
                held.mul_(MOMENTUM).add_(weight.grad)
                matrix = weight.grad.add(held, alpha=MOMENTUM).flatten(1)
                size = USUAL * math.sqrt(max(matrix.shape))
                weight.mul_(1 - group["lr"] * group["decay"])
                weight.sub_(orthogonal(matrix.to(self._kind)).reshape(weight.shape), alpha=group["lr"] * size)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """About the nearest matrix (n, m) of orthogonal rows or columns, float32: its singular values are near 1."""
    is_tall = matrix.size(0) > matrix.size(1)
    found = (matrix.T if is_tall else matrix) / (matrix.norm() + 1e-7)
    one, three, five = QUINTIC
    for _ in range(STEPS):
        square = found @ found.T
        found = one * found + (three * square + five * square @ square) @ found
    return (found.T if is_tall else found).float()


def optimisers(net: torch.nn.Module, name: str, rate: float, decay: float, half: bool) -> list[torch.optim.Optimizer]:
    """AdamW ("adamw"), or Muon for the convolutions within the network and AdamW for the rest ("muon")."""
    if name == "adamw":
        return [torch.optim.AdamW(net.parameters(), rate, weight_decay=decay)]
    if name != "muon":
        raise ValueError(f"There is no optimiser {name!r}; use adamw or muon.")
    inner = [p for key, p in net.named_parameters() if p.ndim > 2 and not key.startswith(ENDS)]
    rest = [p for key, p in net.named_parameters() if p.ndim <= 2 or key.startswith(ENDS)]
    return [Muon(inner, rate, decay, half), torch.optim.AdamW(rest, rate, weight_decay=decay)]
