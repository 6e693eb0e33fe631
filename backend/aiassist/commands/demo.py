"""``aiassist demo``"""

from __future__ import annotations

import time
from pathlib import Path

from aiassist.commands.shared import console


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser("demo", help="annotate six organs of the bundled CT, save them, draw them")
    parser.add_argument("-o", "--output", type=Path, default=Path("demo-output"), help="folder (default: %(default)s)")
    parser.add_argument("--model", metavar="M", help="which model; see: aiassist models list")
    parser.set_defaults(run=run)


def run(options) -> None:
    """Run the demo and print its table."""
    from rich.table import Table

    from aiassist.demo import run_demo

    began = time.perf_counter()
    options.output.mkdir(parents=True, exist_ok=True)
    organs, versions, picture = run_demo(options.output, options.model)
    table = Table(title="Six points an organ, on the bundled CT")
    for name in ("organ", "Dice", "ellipsoid", "ms", "saved as"):
        table.add_column(name, justify="left" if name in ("organ", "saved as") else "right", overflow="fold")
    for organ, saved in zip(organs, versions, strict=True):
        where = f"{saved.path.parent.name}/{saved.path.name}"
        table.add_row(organ.name, f"{organ.dice:.3f}", f"{organ.baseline_dice:.3f}", f"{organ.milliseconds:.0f}", where)
    out = console()
    out.print(table)
    out.print(f"Ground truth: {options.output / 'studies'}", highlight=False, soft_wrap=True)
    out.print(f"Picture:      {picture}", highlight=False, soft_wrap=True)
    out.print(f"All in {time.perf_counter() - began:.1f} s.", highlight=False)
