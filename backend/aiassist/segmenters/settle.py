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
        total = np.full(grey.size, 1e-3, np.float32)
        for step, weight in self._links:
            total[:-step] += weight
            total[step:] += weight
        self._share = np.where(valid.ravel(), np.float32(STRENGTH) / total, np.float32(0))

    def settle(self, logits: np.ndarray) -> np.ndarray:
        """The logits (k, j, i), float32 and above zero inside, moved to the borders."""
        start = logits.ravel()
        settled, product = start, np.empty_like(start)
        for _ in range(ROUNDS):
            belief = np.tanh(settled * np.float32(0.5))
            agreement = np.zeros_like(start)
            for step, weight in self._links:
                agreement[:-step] += np.multiply(weight, belief[step:], out=product[:-step])
                agreement[step:] += np.multiply(weight, belief[:-step], out=product[:-step])
            settled = start + self._share * agreement
        return settled.reshape(logits.shape)


def _links(grey: np.ndarray, valid: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """For each neighbour: how many cells on it lies in memory, and the weight of the link of each cell to it.

    Rows without gaps are summed several times as fast as boxes cut out of a grid.
    """
    levels = grey / np.float32(ALIKE * grey[valid].std() + 1e-6)
    links = []
    for step in NEIGHBOURS:
        here = tuple(slice(max(-n, 0), -n if n > 0 else None) for n in step)
        there = tuple(slice(max(n, 0), n if n < 0 else None) for n in step)
        unlike = np.square(levels[here] - levels[there]) + np.float32(sum(n * n for n in step) / DISTANCE**2)
        weight = np.zeros(grey.shape, np.float32)
        weight[here] = np.exp(np.float32(-0.5) * unlike) * (valid[here] & valid[there])
        away = int(np.dot(step, (grey.shape[1] * grey.shape[2], grey.shape[2], 1)))
        links.append((away, weight.ravel()[:-away]))
    return links
