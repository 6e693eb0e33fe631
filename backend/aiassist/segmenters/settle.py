"""Settle a field of logits on the borders of the grey levels.

A network that computes on coarse cells knows roughly where a structure ends; the grey levels know exactly.
Each cell's answer is weighed against those of its neighbours, the more the more their grey levels are alike:
mean-field inference of a conditional random field with Gaussian edge potentials (Krähenbühl and Koltun 2011,
arXiv:1210.5644), cut to a small neighbourhood (Teichmann and Cipolla 2018, arXiv:1805.04777).
"""

from __future__ import annotations

import itertools

import numpy as np

#: Weight of the neighbours' agreement, in logits.
STRENGTH = 8.0
#: Grey levels this share of their standard deviation apart are alike by exp(-1/2).
ALIKE = 0.2
#: Cells this far apart count by exp(-1/2) of what adjacent ones would.
DISTANCE = 2.0
ROUNDS = 5
#: One of each pair of opposite neighbours: those that share a face, and those two cells away along two axes.
NEIGHBOURS = [
    step
    for step in itertools.product((-2, -1, 0, 1, 2), repeat=3)
    if step > (0, 0, 0) and sorted(map(abs, step)) in ([0, 0, 1], [0, 2, 2])
]


class Borders:
    """Where the grey levels of a grid of cells change, to settle any number of answers on.

    Parameters
    ----------
    grey : numpy.ndarray
        Grey level (k, j, i) of each cell, float32.
    valid : numpy.ndarray
        Which cells lie in the volume; the others keep their logits and have no say.
    """

    def __init__(self, grey: np.ndarray, valid: np.ndarray):
        self._links = _links(grey, valid) if valid.any() else []
        total = np.full(grey.shape, 1e-3, np.float32)
        for here, there, weight in self._links:
            total[here] += weight
            total[there] += weight
        self._share = np.where(valid, np.float32(STRENGTH) / total, 0)

    def settle(self, logits: np.ndarray) -> np.ndarray:
        """The logits (k, j, i), float32 and above zero inside, moved to the borders."""
        settled = logits
        for _ in range(ROUNDS):
            belief = np.tanh(settled / 2)
            agreement = np.zeros_like(logits)
            for here, there, weight in self._links:
                agreement[here] += weight * belief[there]
                agreement[there] += weight * belief[here]
            settled = logits + self._share * agreement
        return settled


def _links(grey: np.ndarray, valid: np.ndarray):
    """For each step to a neighbour: the cells it starts from, those it leads to, and the weight of each link."""
    scale = ALIKE * grey[valid].std() + 1e-6
    links = []
    for step in NEIGHBOURS:
        here = tuple(slice(max(-n, 0), -n if n > 0 else None) for n in step)
        there = tuple(slice(max(n, 0), n if n < 0 else None) for n in step)
        weight = ((grey[here] - grey[there]) / scale) ** 2
        weight += sum(n * n for n in step) / DISTANCE**2
        weight = np.exp(-0.5 * weight) * (valid[here] & valid[there])
        links.append((here, there, weight.astype(np.float32)))
    return links
