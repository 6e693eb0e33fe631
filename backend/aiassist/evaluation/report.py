"""Tables for people and JSON for scripts."""

from __future__ import annotations

import platform
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import aiassist
from aiassist.evaluation.measure import BASELINE, Plan, Result
from aiassist.evaluation.summary import by_stratum, summarise
from aiassist.words import counted


def groups(results: list[Result]) -> dict[str, list[Result]]:
    """All results, then those of each split and each kind of truth, where there are several."""
    found = {}
    for attribute in ("split", "truth"):
        values = sorted({getattr(r, attribute) for r in results})
        if len(values) > 1:
            found |= {value: [r for r in results if getattr(r, attribute) == value] for value in values}
    return {"all": results, **{name: part for name, part in found.items() if name != "all"}}


def as_json(results: list[Result], plan: Plan) -> dict:
    """Everything measured, for scripts: the plan, the summary by model and group, each structure."""
    models = {}
    for model in plan.models:
        mine = [r for r in results if r.model == model]
        models[model] = {group: summarise(part, plan.clicks) for group, part in groups(mine).items()}
        models[model]["strata"] = by_stratum(mine, lambda r: r.mean_dice())
    return {
        "aiassist": aiassist.__version__,
        "machine": platform.processor() or platform.machine(),
        "plan": asdict(plan),
        "models": models,
        "structures": [asdict(r) for r in results],
    }


def print_report(console: Console, results: list[Result], plan: Plan) -> None:
    """The tables: Dice by stratum, then the summary of each model."""
    console.print(_strata_table(results, plan))
    for model in plan.models:
        console.print(_summary_table(model, [r for r in results if r.model == model], plan))


def _strata_table(results: list[Result], plan: Plan) -> Table:
    table = Table(title="Dice after the extreme points, and after clicks (macro means)")
    table.add_column("stratum")
    table.add_column("structures", justify="right")
    table.add_column(BASELINE, justify="right")
    columns: list[tuple[str, str, Callable[[Result], float]]] = []
    for model in plan.models:
        columns.append((model, model, lambda r: r.mean_dice()))
        if plan.clicks:
            columns.append((model, f"{model}, {counted(plan.clicks, 'click')}", lambda r: r.mean_dice(plan.clicks)))
    for _, title, _value in columns:
        table.add_column(title, justify="right")
    first = [r for r in results if r.model == plan.models[0]]
    baseline = by_stratum(first, lambda r: float(np.mean(r.baseline)))
    values = [by_stratum([r for r in results if r.model == m], value) for m, _, value in columns]
    for stratum in baseline:
        count = sum(r.stratum == stratum for r in first)
        table.add_row(stratum, str(count), _number(baseline[stratum]), *[_number(v[stratum]) for v in values])
    table.add_section()
    means = [float(np.mean(list(v.values()))) for v in (baseline, *values)]
    table.add_row("mean over strata", str(len(first)), *map(_number, means))
    medians = [float(np.median([np.mean(r.baseline) for r in first]))]
    medians += [float(np.median([value(r) for r in results if r.model == m])) for m, _, value in columns]
    table.add_row("median structure", "", *map(_number, medians))
    return table


_ROWS = {
    "reach_dice_90": ("courses that reach Dice .90", "share"),
    "clicks_to_dice_90": ("clicks to Dice .90 (of those), median", "count"),
    "error_removed_per_click": ("error volume removed per click, median", "share"),
    "clicks_that_hurt": ("clicks that lower Dice by more than .02", "share"),
    "clicks_that_hurt_large": ("... in structures of 1,000 voxels or more", "share"),
    "clicks_with_far_changes": ("clicks that change voxels farther than 30 mm", "share"),
    "far_voxels_per_click": ("voxels changed farther than 30 mm, per click", "count"),
}


def _summary_table(model: str, results: list[Result], plan: Plan) -> Table:
    parts = {group: summarise(part, plan.clicks) for group, part in groups(results).items()}
    table = Table(title=f"{model}{', jittered points' if plan.jitter else ''}")
    table.add_column("")
    for group in parts:
        table.add_column(group, justify="right")

    def row(title: str, value: Callable[[dict], float | None], kind: str = "score") -> None:
        table.add_row(title, *[_number(value(part), kind) for part in parts.values()])

    row("structures", lambda p: p["structures"], "count")
    row("worse than the ellipsoid", lambda p: p["worse_than_baseline"], "share")
    for course in [c for c in ("oracle", "sloppy") if c in parts["all"]]:
        table.add_section()
        for milestone in parts["all"][course]["dice"]:
            after = f"{course}: after {counted(milestone, 'click')}"
            row(f"{after}, Dice", lambda p, c=course, m=milestone: p[c]["dice"][m])
            row(f"{after}, Dice, median", lambda p, c=course, m=milestone: p[c]["dice_median"][m])
            row(f"{after}, NSD", lambda p, c=course, m=milestone: p[c]["nsd"][m])
        for name, (title, kind) in _ROWS.items() if plan.clicks else ():
            row(f"{course}: {title}", lambda p, c=course, n=name: p[c][n], kind)
    table.add_section()
    for start in parts["all"]["starts"]:
        row(f"Dice from {start}", lambda p, s=start: p["starts"].get(s))
    table.add_section()
    for name, title in (("call", "a call"), ("pass", "the model's pass"), ("around", "everything around it")):
        for quantile in ("p50", "p95"):
            row(f"ms, {title}, {quantile}", lambda p, n=name, q=quantile: p["milliseconds"][n][q], "ms")
    return table


def _number(value: float | None, kind: str = "score") -> str:
    if value is None:
        return "-"
    if kind == "share":
        return f"{100 * value:.1f} %"
    if kind == "count":
        return f"{value:,.1f}".removesuffix(".0")
    return f"{value:.1f}" if kind == "ms" else f"{value:.3f}".replace("0.", ".", 1)


def write_pictures(folder: Path, results: list[Result], structures, plan: Plan, count: int = 6) -> list[Path]:
    """Pictures of the best and worst structures of each model; returns their paths."""
    from aiassist.evaluation.pictures import picture_of_structure

    folder.mkdir(parents=True, exist_ok=True)
    measured = {(s.case, s.value, s.component): s for s in structures}
    written = []
    for model in plan.models:
        ranked = sorted((r for r in results if r.model == model), key=lambda r: r.mean_dice())
        chosen = {f"worst-{n + 1}": r for n, r in enumerate(ranked[:count])}
        chosen |= {f"best-{n + 1}": r for n, r in enumerate(reversed(ranked[-count:]))}
        for place, result in chosen.items():
            path = folder / f"{model}-{place}.png"
            picture_of_structure(path, measured[result.case, result.value, result.component], model, plan)
            written.append(path)
    return written
