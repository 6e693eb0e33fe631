"""What a click needs imports nothing heavy, and arrows between packages point down only."""

from __future__ import annotations

import ast
import pkgutil
from pathlib import Path

import pytest

import aiassist

PACKAGE = Path(aiassist.__file__).parent

#: Must stay out of a process that only annotates.
HEAVY = ("torch", "monai", "fastapi", "matplotlib", "rich", "highdicom")

#: The network in torch, imported only where a GPU is asked for, or for training.
BY_TORCH = {"aiassist.segmenters.network", "aiassist.segmenters.torch_runner"}

#: The layers below the commands, and what of aiassist each may import besides itself.
ALLOWED = {
    "imaging": {"errors", "files", "words"},
    "prompts": {"imaging", "errors"},
    "contour": {"imaging", "prompts", "errors"},
    "segmenters": {"imaging", "prompts", "errors", "files", "resources"},
    "engine": {"segmenters", "imaging", "prompts", "errors"},
    "protocol": {"engine", "segmenters", "imaging", "prompts", "errors", "words"},
    "client": {"protocol", "engine", "segmenters", "imaging", "errors"},
    "groundtruth": {"imaging", "prompts", "errors", "files"},
    "learning": {
        *("synthesis", "evaluation", "groundtruth", "segmenters", "imaging", "prompts", "errors", "files", "resources"),
    },
    "server": {
        *("protocol", "engine", "segmenters", "groundtruth", "contour", "imaging", "prompts"),
        *("errors", "files", "lifeline"),
    },
    "lifeline": set(),
    "resources": {"errors"},
    "errors": set(),
    "files": {"errors"},
    "words": set(),
}

#: What the engine must not know.
ABOVE_THE_ENGINE = {"groundtruth", "evaluation", "commands", "cli", "demo", "server", "client", "learning", "synthesis"}

BLOCKED = """
import importlib, sys
heavy = set(sys.argv[1].split(","))

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in heavy:
            raise AssertionError(f"{name} was imported")

sys.meta_path.insert(0, Refuse())
for module in sys.argv[2:]:
    importlib.import_module(module)
print(",".join(sorted(heavy & set(sys.modules))) or "none")
"""


def modules_of(part: str) -> list[str]:
    """The modules of a package, or the module of that name."""
    folder = PACKAGE / part
    if not folder.is_dir():
        return [f"aiassist.{part}"]
    inner = pkgutil.walk_packages([str(folder)], f"aiassist.{part}.")
    return [f"aiassist.{part}", *(m.name for m in inner)]


def source_of(module: str) -> Path:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def imported_by(source: str) -> set[str]:
    """The parts of aiassist that a source imports, at any depth of its functions."""
    parts = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute, so that they can be checked"
            names = [f"{node.module}.{a.name}" for a in node.names] if node.module == "aiassist" else [node.module]
        elif isinstance(node, ast.Import):
            names = [a.name for a in node.names]
        else:
            continue
        parts |= {name.split(".")[1] for name in names if name.startswith("aiassist.") and "__" not in name}
    return parts


def test_the_parts_that_a_click_needs_import_nothing_heavy(run_python):
    parts = ("imaging", "prompts", "contour", "segmenters", "engine", "protocol", "client", "errors", "files")
    modules = ["aiassist", *(m for part in parts for m in modules_of(part) if m not in BY_TORCH)]
    assert len(modules) > 25
    outcome = run_python("-c", BLOCKED, ",".join(HEAVY), *modules)
    assert (outcome.returncode, outcome.stdout.strip()) == (0, "none"), outcome.stderr


@pytest.mark.parametrize("module", ["aiassist.evaluation.pictures", "rich.console"])
def test_the_block_notices_what_is_heavy(run_python, module):
    outcome = run_python("-c", BLOCKED + "\nimport matplotlib", ",".join(HEAVY), module)
    assert outcome.returncode == 1
    assert "was imported" in outcome.stderr


@pytest.mark.parametrize("part", [part for part in ALLOWED if source_of(f"aiassist.{part}").exists()])
def test_arrows_point_down_only(part):
    for module in modules_of(part):
        upward = imported_by(source_of(module).read_text(encoding="utf8")) - ALLOWED[part] - {part}
        assert not upward, f"{module} imports {upward}"


def test_the_engine_does_not_know_what_stands_on_it():
    for module in modules_of("engine"):
        upward = imported_by(source_of(module).read_text(encoding="utf8")) & ABOVE_THE_ENGINE
        assert not upward, f"{module} imports {upward}"


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        ("import aiassist.engine.job", {"engine"}),
        ("from aiassist import engine, prompts", {"engine", "prompts"}),
        ("def f():\n    from aiassist.commands.shared import point", {"commands"}),
        ("import numpy", set()),
    ],
)
def test_every_way_of_importing_is_seen(source, parts):
    assert imported_by(source) == parts
