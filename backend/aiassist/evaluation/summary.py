"""From results to numbers: macro means, medians, shares."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable

import numpy as np

from aiassist.evaluation.measure import HURT, MILESTONES, Result

#: Structures of at least this many voxels enter "clicks that hurt, large structures".
LARGE = 1000


def macro(results: Iterable[Result], value: Callable[[Result], float]) -> float:
    """Mean over the labels of a case, then over the cases of a stratum, then over strata."""
    strata = by_stratum(results, value)
    return float(np.mean(list(strata.values()))) if strata else float("nan")


def by_stratum(results: Iterable[Result], value: Callable[[Result], float]) -> dict[str, float]:
    """Mean over the labels of a case, then over the cases, for each stratum."""
    cases = defaultdict(lambda: defaultdict(list))
    for result in results:
        cases[result.stratum][result.case].append(value(result))
    return {s: float(np.mean([np.mean(v) for v in cases[s].values()])) for s in sorted(cases)}


def summarise(results: list[Result], clicks: int) -> dict:
    """All reported numbers of one model's results.

    Parameters
    ----------
    results : list of Result
        Of one model.
    clicks : int
        How many clicks were given at most.
    """
    if not results:
        return {"structures": 0}
    milestones = [m for m in MILESTONES if m <= clicks]
    numbers = {"structures": len(results), "starts": _starts(results)}
    for course in ("oracle", "sloppy"):
        if getattr(results[0], course):
            numbers[course] = _course(results, course, milestones)
    numbers["baseline_dice"] = macro(results, lambda r: float(np.mean(r.baseline)))
    numbers["worse_than_baseline"] = float(np.mean([r.mean_dice() < np.mean(r.baseline) for r in results]))
    numbers["milliseconds"] = _times(results)
    return numbers


def _course(results: list[Result], course: str, milestones: list[int]) -> dict:
    trails = [(result, trail) for result in results for trail in getattr(result, course)]
    removed = [x for _, trail in trails for x in trail.removed]
    # Once a mask is exact no click is given, and Dice is only noted again.
    hurts = [(r.voxels, t.dice[n + 1] - t.dice[n] < -HURT) for r, t in trails for n in range(len(t.removed))]
    far = [x for _, trail in trails for x in trail.far_voxels]
    reached = [next((n for n, d in enumerate(t.dice) if d >= 0.9), None) for _, t in trails]
    return {
        "dice": {m: macro(results, lambda r, m=m: r.mean_dice(m, course)) for m in milestones},
        "dice_median": {m: float(np.median([r.mean_dice(m, course) for r in results])) for m in milestones},
        "nsd": {m: macro(results, lambda r, m=m: _mean_nsd(r, m, course)) for m in milestones},
        "reach_dice_90": _share([n is not None for n in reached]),
        "clicks_to_dice_90": _median([n for n in reached if n is not None]),
        "clicks_that_hurt": _share([hurt for _, hurt in hurts]),
        "clicks_that_hurt_large": _share([hurt for voxels, hurt in hurts if voxels >= LARGE]),
        "error_removed_per_click": _median(removed),
        "far_voxels_per_click": float(np.mean(far)) if far else None,
        "clicks_with_far_changes": _share([x > 0 for x in far]),
    }


def _mean_nsd(result: Result, clicks: int, course: str) -> float:
    return float(np.mean([trail.nsd[clicks] for trail in getattr(result, course)]))


def _starts(results: list[Result]) -> dict[str, float]:
    """Mean Dice of each way to begin, over the results that have it."""
    found = {}
    for name in dict.fromkeys(name for result in results for name in result.starts):
        those = [result for result in results if name in result.starts]
        found[name] = macro(those, lambda r, name=name: float(np.mean(r.starts[name])))
    return found


def _times(results: list[Result]) -> dict:
    total = np.concatenate([r.milliseconds for r in results])
    model = np.concatenate([r.pass_milliseconds for r in results])
    around = total - model
    return {
        name: {"p50": float(np.percentile(values, 50)), "p95": float(np.percentile(values, 95))}
        for name, values in (("call", total), ("pass", model), ("around", around))
    }


def _share(flags: list[bool]) -> float | None:
    return float(np.mean(flags)) if flags else None


def _median(values: list[float]) -> float | None:
    return float(np.median(values)) if values else None
