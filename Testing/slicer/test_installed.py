"""The installed extension, run as a person's Slicer runs it: installed by CMake, packages by pip, six clicks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from slicer_home import HERE, ROOT, SlicerHome, size, wheels

pytestmark = pytest.mark.skipif(os.name != "posix", reason="the stand-in for PythonSlicer is a shell script")

#: What `aiassist evaluate` gives for the spleen of this case, less what the mouse's whole pixels cost.
FLOOR = 0.9
#: Bytes that extension and packages may take.
LARGEST = 150_000_000


def tell_story(installed: Path, home: SlicerHome, *arguments: Path) -> SimpleNamespace:
    """What was seen by the person's Slicer, and by each process that it started."""
    told = home.run_desktop(HERE / "installed_story.py", installed, home.folder, home.folder / "run", *arguments)
    seen = json.loads(told.splitlines()[-1])

    def said() -> dict[int, dict]:
        return {int(path.stem): json.loads(path.read_text()) for path in home.witness.glob("*.json")}

    def serving() -> dict[int, dict]:
        return {number: told for number, told in said().items() if "--until-stdin-closes" in told["arguments"]}

    wait_for(lambda: len(serving()) == len(seen["processes"]))
    return SimpleNamespace(installed=installed, home=home, seen=seen, said=said(), serving=serving())


def wait_for(until, seconds: float = 30.0) -> None:
    """Wait for other processes."""
    end = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def story(installed, tmp_path_factory) -> SimpleNamespace:
    """From the installed tree to a preview, without internet."""
    folder = tmp_path_factory.mktemp("person")
    home = SlicerHome(folder / "Slicer")
    home.ship()
    found = wheels(installed / "Resources" / "requirements.txt", folder / "wheels")
    return tell_story(installed, home, found)


def test_six_clicks_in_the_installed_extension_give_the_organ(story):
    assert min(story.seen["dice"]) >= FLOOR
    assert 0.8 <= story.seen["segment"] / story.seen["truth"] <= 1.2
    assert story.seen["errors"] == []


def test_the_packages_come_from_a_folder_of_wheels_through_slicers_own_python(story):
    names = [line.split("==")[0] for line in (story.installed / "Resources" / "requirements.txt").read_text().split()]
    assert set(story.seen["missing before"]) <= set(names) and len(story.seen["missing before"]) > 15
    assert story.seen["missing after"] == []
    assert story.seen["python"] == str(story.home.python)
    assert [told for told in story.said.values() if "install" in told["arguments"]]


def test_what_runs_is_the_installed_tree_and_never_the_checkout(story):
    for name in ("AIAssist", "AIAssistLib", "aiassist"):
        assert Path(story.seen["files"][name]).is_relative_to(story.installed)
    for told in story.serving.values():
        assert Path(told["files"]["aiassist"]) == story.installed / "aiassist" / "__init__.py"
    for told in story.said.values():
        assert not [path for path in told["files"].values() if Path(path).is_relative_to(ROOT)]


def test_the_process_takes_slicers_packages_first_and_the_rest_from_the_private_folder(story):
    private, slicers = Path(story.seen["packages"]), story.home.packages
    for told in story.serving.values():
        where = {name: Path(path) for name, path in told["files"].items()}
        for name in ("onnxruntime", "fastapi", "uvicorn", "sqlalchemy"):
            assert where[name].is_relative_to(private)
        for name in ("numpy", "scipy"):
            assert where[name].is_relative_to(slicers)


def test_a_process_whose_launcher_was_killed_ends_by_itself_as_the_last_one_does(story):
    launchers = story.seen["processes"]
    assert len(set(launchers)) == len(story.serving) == 2  # each wrote what it had seen, so neither was killed
    assert not set(launchers) & set(story.serving)  # the launcher is a process of its own
    wait_for(lambda: not [number for number in [*story.serving, *launchers] if Path(f"/proc/{number}").exists()])


def test_extension_and_packages_take_at_most_150_megabytes(story):
    extension = size(story.installed.parents[2])
    print(f"extension {extension / 1e6:.1f} MB, packages {story.seen['bytes'] / 1e6:.1f} MB")
    assert 50_000_000 < story.seen["bytes"] + extension <= LARGEST


@pytest.mark.heavy
def test_the_same_with_what_pip_downloads_in_slicers_versions(installed, tmp_path):
    home = SlicerHome(tmp_path / "Slicer", python_312())
    home.ship_from_the_internet()
    story = tell_story(installed, home)
    assert min(story.seen["dice"]) >= FLOOR
    assert size(installed.parents[2]) + story.seen["bytes"] <= LARGEST
    test_the_process_takes_slicers_packages_first_and_the_rest_from_the_private_folder(story)
    test_a_process_whose_launcher_was_killed_ends_by_itself_as_the_last_one_does(story)


def python_312() -> str:
    """An interpreter as Slicer's; where there is none, the one that runs this."""
    found = shutil.which("python3.12")
    if found and subprocess.run([found, "-c", ""], capture_output=True).returncode == 0:
        return found
    return sys.executable
