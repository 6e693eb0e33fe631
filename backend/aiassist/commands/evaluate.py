"""``aiassist evaluate``"""

from __future__ import annotations

import json
from pathlib import Path

from aiassist.commands.shared import add_studies, check_output, console, models_folder, progress_bar
from aiassist.errors import AIAssistError


def add_to(commands) -> None:
    """Add the command to the parser."""
    parser = commands.add_parser(
        "evaluate", help="measure models on cases with ground truth, with simulated prompts and clicks"
    )
    parser.add_argument("cases", help="a folder of cases (image.nii.gz, label.nii.gz), or one case")
    parser.add_argument(
        "--model",
        metavar="M",
        action="append",
        help="which model, or random-walker or grow-from-seeds to compare with; may be repeated",
    )
    add_studies(parser)
    parser.add_argument("--clicks", metavar="N", type=int, default=5, help="corrective clicks (default: 5)")
    parser.add_argument("--draws", metavar="N", type=int, default=3, help="draws of the points (default: 3)")
    parser.add_argument("--jitter", action="store_true", help="move the points as a hand would")
    parser.add_argument("--seed", type=int, default=0, help="of the draws (default: 0)")
    parser.add_argument("--split", help="only structures of this split of the manifest (dev, report)")
    parser.add_argument("--stratum", action="append", help="only this stratum; may be repeated")
    parser.add_argument(
        "--points-only", action="store_true", help="leave out the other ways to begin, and sloppy clicks"
    )
    parser.add_argument("--workers", type=int, help="processes (default: one per core)")
    parser.add_argument("--pictures", metavar="DIR", type=Path, help="draw the best and worst structures")
    parser.add_argument("--json", metavar="OUT", type=Path, help="write everything measured as JSON")
    parser.set_defaults(run=run)


def run(options) -> None:
    """Measure and report."""
    from aiassist.evaluation.baselines import comparable
    from aiassist.evaluation.cases import MIN_VOXELS, find_structures
    from aiassist.evaluation.measure import Plan
    from aiassist.evaluation.metrics import need_surface_distance
    from aiassist.evaluation.pictures import pyplot
    from aiassist.evaluation.report import as_json, print_report, write_pictures
    from aiassist.evaluation.run import evaluate
    from aiassist.files import check_writable, whole_file
    from aiassist.segmenters.registry import DEFAULT

    trained = models_folder(options)
    models = tuple(dict.fromkeys(options.model or [DEFAULT]))
    for model in models:
        comparable(trained=trained).get(model)
    _check_counts(options)
    need_surface_distance()
    if options.pictures:
        pyplot()  # says so now, not after all was measured
        _make_folder(options.pictures)
    if options.json:
        _check_report(options.json)
        check_writable(options.json)
    structures = [
        s
        for s in find_structures(options.cases)
        if options.split in (None, s.split) and (not options.stratum or s.stratum in options.stratum)
    ]
    if not structures:
        chosen = options.split is not None or options.stratum
        more = "leave out --split or --stratum to see all" if chosen else f"its labels hold none of {MIN_VOXELS} voxels"
        raise AIAssistError(f"No structure in {options.cases} fits; {more}.")
    plan = Plan(
        models,
        options.clicks,
        options.draws,
        options.jitter,
        options.seed,
        not options.points_only,
        None if trained is None else str(trained),
    )
    with progress_bar() as bar:
        task = bar.add_task("measuring", total=len(structures))
        results = evaluate(
            structures,
            plan,
            options.workers,
            lambda done, total, title: bar.update(task, completed=done, description=title),
        )
    if options.json:  # first: it holds all that was measured
        with whole_file(options.json) as temporary:
            temporary.write_text(json.dumps(as_json(results, plan), indent=1), encoding="utf8")
    print_report(console(), results, plan)
    if options.pictures:
        for path in write_pictures(options.pictures, results, structures, plan):
            console().print(str(path), highlight=False, soft_wrap=True)


def _check_report(path: Path) -> None:
    """Refuse to write over what is no report, as a label of a case."""
    check_output(path)
    if path.exists() and (path.suffix != ".json" or path.name in ("manifest.json", "meta.json")):
        raise AIAssistError(f"{path} is there already, is no report, and would be lost; give --json another name.")


def _make_folder(path: Path) -> None:
    from aiassist.files import check_writable

    if path.exists() and not path.is_dir():
        raise AIAssistError(f"{path} is a file; give --pictures a folder.")
    path.mkdir(parents=True, exist_ok=True)
    check_writable(path / "picture.png")


def _check_counts(options) -> None:
    for name, least in (("clicks", 0), ("draws", 1), ("workers", 1), ("seed", 0)):
        value = getattr(options, name)
        if value is not None and value < least:
            raise AIAssistError(f"--{name} is {value}; use {least} or more.")
