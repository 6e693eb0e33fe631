"""The extension as CMake installs it, and what it asks pip for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import sysconfig
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from slicer_home import size

ROOT = Path(__file__).resolve().parents[2]
EXTENSION = ROOT / "SlicerAIAssist"
REQUIREMENTS = EXTENSION / "Resources" / "requirements.txt"
#: Bytes that extension and wheels may take, and that the wheels take at most (132.3 MB unpacked, of four platforms).
LARGEST, LARGEST_WHEELS = 150_000_000, 133_000_000

#: What Slicer 5.12 and later ship with, of what ours depend on (its SuperBuild/External_python-*.cmake).
SHIPPED = {"idna", "numpy", "packaging", "pillow", "scipy", "typing-extensions"}
#: What dependencies of ours ask for and never import in what the backend does with them.
NEVER_IMPORTED = {"colorama", "flatbuffers", "imageio", "networkx", "protobuf", "tifffile"}
#: Held back to what works with the typing_extensions that Slicer ships; `pydantic-core` goes with `pydantic`.
HELD_BACK = {"anyio", "pydantic", "pydantic-core"}

#: What is in no Slicer, nor in what we install into one: training there must not want it.
NOT_IN_SLICER = ("rich", "monai", "matplotlib", "tensorboard", "onnxscript", "surface_distance", "pandas")
WITHOUT = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in sys.argv[1].split(","):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Refuse())
import aiassist.commands.train, aiassist.learning.finder, aiassist.learning.finetune, aiassist.learning.publish
from aiassist.commands.long import Progress
with Progress(as_json=True) as progress:
    progress.tell("learning", 1, 2)
"""


def run_installed(installed: Path, code: str) -> str:
    """What Python prints that finds the installed modules and this environment's packages, but not the checkout."""
    paths = [str(installed), sysconfig.get_path("purelib"), sysconfig.get_path("platlib")]
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", code],
        capture_output=True,
        encoding="utf8",
        cwd=installed.anchor,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def files_below(folder: Path, *patterns: str) -> set[str]:
    """Files that match, as paths relative to the folder."""
    return {path.relative_to(folder).as_posix() for pattern in patterns for path in folder.glob(pattern)}


def required(marker: dict[str, str] | None = None, file: Path = REQUIREMENTS) -> dict[str, Requirement]:
    """The requirements of a file by name; on a computer as `marker` tells, by default this one."""
    lines = [line.split("#")[0].strip() for line in file.read_text(encoding="utf8").splitlines()]
    wanted = [Requirement(line) for line in lines if line]
    return {canonicalize_name(r.name): r for r in wanted if r.marker is None or r.marker.evaluate(marker)}


def constrained(marker: dict[str, str] | None = None) -> dict[str, Requirement]:
    """The versions of constraints.txt by name."""
    return required(marker, ROOT / "constraints.txt")


# What is installed


def test_every_file_of_the_modules_is_installed(installed):
    wanted = files_below(EXTENSION, "*.py", "AIAssist*/**/*.py", "Resources/**/*.*")
    assert "AIAssistLib/__init__.py" in wanted and "Resources/requirements.txt" in wanted
    assert wanted <= files_below(installed, "*.*", "**/*.*")
    for name in wanted:
        assert (installed / name).read_bytes() == (EXTENSION / name).read_bytes()


def test_the_whole_package_is_installed_and_nothing_else(installed):
    wanted = files_below(ROOT / "backend" / "aiassist", "**/*.py", "**/*.json")
    got = files_below(installed / "aiassist", "**/*.*") - files_below(
        installed / "aiassist", "**/*.pyc", "_resources/**/*"
    )
    assert "imaging/terminology.json" in wanted and got == wanted


@pytest.mark.parametrize("folder", ["Models", "SampleData"])
def test_models_and_sample_case_lie_in_the_package(installed, folder):
    wanted = files_below(ROOT / "Resources" / folder, "**/*.*")
    assert wanted and wanted == files_below(installed / "aiassist" / "_resources" / folder, "**/*.*")


def test_with_what_pip_adds_it_stays_within_150_megabytes(installed):
    extension = size(installed.parents[2])
    print(f"extension {extension / 1e6:.1f} MB, wheels at most {LARGEST_WHEELS / 1e6:.0f} MB")
    assert extension + LARGEST_WHEELS <= LARGEST


# That it runs


def test_the_package_runs_from_the_installed_tree_alone(installed):
    found = run_installed(
        installed,
        "import aiassist; from aiassist.resources import resource; print(aiassist.__file__);"
        "print(resource('Models', 'network')); print(resource('SampleData', 'ts_ct_torso', 'image.nii.gz'))",
    )
    package = installed / "aiassist"
    bundled = package / "_resources"
    assert [Path(line) for line in found.splitlines()] == [
        package / "__init__.py",
        bundled / "Models" / "network",
        bundled / "SampleData" / "ts_ct_torso" / "image.nii.gz",
    ]


def test_the_bundled_network_runs_from_the_installed_tree(installed, tmp_path):
    points = json.dumps(
        {"points": [[60, 60, 30], [80, 60, 30], [70, 50, 30], [70, 70, 30], [70, 60, 25], [70, 60, 35]]}
    )
    (tmp_path / "points.json").write_text(points, encoding="utf8")
    arguments = ["annotate", "IMAGE", "-o", str(tmp_path / "mask.nii.gz"), "--points", str(tmp_path / "points.json")]
    code = (
        "import sys; from aiassist.cli import main; from aiassist.resources import resource;"
        "image = str(resource('SampleData', 'ts_ct_torso', 'image.nii.gz'));"
        f"sys.exit(main([image if a == 'IMAGE' else a for a in {arguments!r}]))"
    )
    run_installed(installed, code)
    assert (tmp_path / "mask.nii.gz").stat().st_size > 0


# What pip is asked for


def needed_by(names) -> set[str]:
    """What installed packages of these names say that they need in Slicer's Python."""
    slicer = {"python_version": "3.12", "python_full_version": "3.12.10", "extra": ""}
    return {
        canonicalize_name(one.name)
        for name in names
        for one in map(Requirement, requires(name) or [])
        if one.marker is None or one.marker.evaluate(slicer)
    }


def test_versions_are_the_tested_ones_but_for_those_held_back():
    ours, pins = required(), constrained()
    assert set(ours) >= HELD_BACK
    assert {n: str(r.specifier) for n, r in ours.items() if n not in HELD_BACK} == {
        n: str(pins[n].specifier) for n in ours if n not in HELD_BACK
    }


def test_what_learning_needs_is_listed_but_for_torch_and_goes_behind_what_slicer_ships():
    more, pins = required(file=REQUIREMENTS.with_name("requirements-learning.txt")), constrained()
    assert {n: str(r.specifier) for n, r in more.items()} == {n: str(pins[n].specifier) for n in more}
    assert set(more) == {"onnx", "safetensors", "protobuf", "ml-dtypes"}
    assert needed_by(more) - set(more) <= SHIPPED
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, ",".join(NOT_IN_SLICER)], capture_output=True, encoding="utf8", timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_what_models_of_the_zoo_need_is_listed_but_for_torch():
    more, pins = required(file=REQUIREMENTS.with_name("requirements-bundles.txt")), constrained()
    assert {n: str(r.specifier) for n, r in more.items()} == {n: str(pins[n].specifier) for n in more}
    needed = needed_by(more)
    assert {"monai", "einops", "huggingface-hub", "pyyaml"} <= set(more)
    assert needed - set(more) - set(required()) <= SHIPPED | {"torch"}


def test_a_mac_with_an_intel_processor_gets_the_last_onnx_runtime_that_was_made_for_it():
    mac = required({"sys_platform": "darwin", "platform_machine": "x86_64"})
    assert str(mac["onnxruntime"].specifier) == "==1.23.2" and set(mac) == set(required())
    pins = constrained({"sys_platform": "darwin", "platform_machine": "x86_64"})
    assert str(pins["onnxruntime"].specifier) == "==1.23.2" and set(pins) == set(constrained())


def test_the_list_is_complete_and_shadows_nothing_that_slicer_ships():
    ours = required()
    needed = needed_by(ours)
    assert needed - set(ours) <= SHIPPED | NEVER_IMPORTED
    assert not set(ours) & (SHIPPED | NEVER_IMPORTED | {"torch"})


# What the Extensions Index reads


def test_the_index_entry_and_the_build_agree():
    entry = json.loads((ROOT / "Resources" / "ExtensionIndex" / "AIAssist.json").read_text(encoding="utf8"))
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf8")
    assert re.search(r"project\s*\(\s*([^\s)]+)", text).group(1) == "AIAssist"
    assert f'set(EXTENSION_CATEGORY "{entry["category"]}")' in text
    homepage = re.search(r'set\(EXTENSION_HOMEPAGE "([^"]+)"\)', text).group(1)
    assert entry["scm_url"] == f"{homepage}.git" and entry["build_dependencies"] == []


def test_every_picture_that_the_index_shows_is_in_the_repository():
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf8")
    urls = re.findall(r'set\(EXTENSION_(?:ICONURL|SCREENSHOTURLS) "([^"]+)"\)', text)
    base = "https://raw.githubusercontent.com/SlicerAIAssist/SlicerAIAssist/main/"
    pictures = [url.removeprefix(base) for url in " ".join(urls).split()]
    assert len(pictures) >= 2 and all((ROOT / picture).is_file() for picture in pictures), pictures
