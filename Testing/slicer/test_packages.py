"""What Slicer lacks goes into a folder of its own, whole or not at all, and can be removed."""

from __future__ import annotations

import importlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import slicer

from aiassist.errors import AIAssistError
from AIAssistLib.installer_qt import Installer
from AIAssistLib.packages import Packages
from AIAssistLib.settings_qt import SERVER
from helpers import wait

REQUIREMENTS = Path(__file__).parents[2] / "SlicerAIAssist" / "Resources" / "requirements.txt"


def wheel(folder: Path, name: str, version: str = "1.0") -> Path:
    """A wheel with one module and its tests."""
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}/__init__.py", f"VERSION = {version!r}\n")
        archive.writestr(f"{name}/tests/test_it.py", "")
        info = f"{name}-{version}.dist-info"
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def packages(tmp_path):
    """A folder that lacks one package, and the wheels to install it from."""
    (tmp_path / "wheels").mkdir()
    wheel(tmp_path / "wheels", "aiassist_probe")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("# a comment\naiassist_probe==1.0 ; python_version >= '3'\n")
    packages = Packages(tmp_path / "home" / "packages-5.12-1", requirements)
    yield packages
    sys.modules.pop("aiassist_probe", None)
    if str(packages.folder) in sys.path:
        sys.path.remove(str(packages.folder))


def install(packages: Packages, wheels: Path) -> tuple[list[str], list]:
    """Install and wait; what pip said, and how it ended."""
    said, ended = [], []
    installer = Installer(sys.executable, packages, said.append, ended.append)
    installer.start(wheels)
    wait(lambda: ended)
    return said, ended


def test_the_list_names_what_the_backend_needs_and_nothing_that_slicer_ships():
    names = Packages(Path("nowhere"), REQUIREMENTS).names
    assert {"onnxruntime", "scikit-image", "fastapi", "SQLAlchemy"} <= set(names)
    assert not {"numpy", "scipy", "SimpleITK", "requests", "pydicom", "torch"} & set(names)
    assert len(names) == len(set(names))


def test_nothing_is_left_in_a_cache_that_removing_does_not_know():
    assert "--no-cache-dir" in Packages(Path("nowhere"), REQUIREMENTS).arguments()


def test_here_nothing_is_missing():
    assert Packages(Path("nowhere"), REQUIREMENTS).missing() == []
    assert Packages(Path("nowhere"), REQUIREMENTS.with_name("requirements-learning.txt")).missing() == []


def test_an_install_from_a_folder_of_wheels_without_internet(application, packages, tmp_path):
    assert packages.missing() == ["aiassist_probe"]
    said, ended = install(packages, tmp_path / "wheels")
    assert ended == [None]
    assert any("aiassist_probe" in line or "aiassist-probe" in line for line in said)
    assert packages.missing() == []
    assert importlib.import_module("aiassist_probe").VERSION == "1.0"
    assert not list(packages.folder.rglob("tests"))
    assert not packages.unfinished.exists()
    assert sys.path.index(str(packages.folder)) == len(sys.path) - 1  # Slicer's own packages go first


def test_an_install_that_fails_leaves_what_was_there(application, packages, tmp_path):
    (tmp_path / "none").mkdir()
    install(packages, tmp_path / "wheels")
    packages.requirements.write_text("no_such_package==9.9\n")
    _said, ended = install(packages, tmp_path / "none")
    assert str(ended[0]).startswith("The packages could not be installed: ")
    assert (packages.folder / "aiassist_probe" / "__init__.py").exists()


def test_cancelling_ends_pip_even_behind_a_launcher(application, packages, tmp_path):
    launcher, said = tmp_path / "PythonSlicer", tmp_path / "said"
    launcher.write_text(f'#!/bin/sh\n{sys.executable} "$@"\necho $? > {said}\n')
    launcher.chmod(0o755)
    big = wheel(tmp_path / "wheels", "aiassist_probe")
    with zipfile.ZipFile(big, "a") as archive:  # enough for pip not to be done at once
        for number in range(5000):
            archive.writestr(f"aiassist_probe/part{number}.py", "")
    lines = []
    installer = Installer(str(launcher), packages, lines.append, print)
    installer.start(tmp_path / "wheels")
    wait(lambda: lines)
    installer.cancel()
    assert said.read_text() == "1\n"
    assert not installer.running and not packages.folder.exists()


def test_removing_deletes_every_version_and_says_how_much(packages, tmp_path, application):
    install(packages, tmp_path / "wheels")
    old = packages.folder.with_name("packages-5.10-0")
    old.mkdir()
    (old / "file").write_bytes(bytes(1000))
    (packages.folder.parent / "studies").mkdir()
    freed = packages.remove()
    assert freed > 1000
    assert [path.name for path in packages.folder.parent.iterdir()] == ["studies"]
    assert str(packages.folder) not in sys.path


def test_a_pin_that_changed_is_installed_and_what_slicer_has_is_not(application, packages, tmp_path):
    install(packages, tmp_path / "wheels")
    assert packages.missing() == []
    packages.requirements.write_text("aiassist_probe==1.1\npytest==0.1\nno_such == 1; python_version < '3'\n")
    assert packages.missing() == ["aiassist_probe"]
    wheel(tmp_path / "wheels", "aiassist_probe", "1.1")
    packages.requirements.write_text("aiassist_probe==1.1\n")
    assert install(packages, tmp_path / "wheels")[1] == [None]
    assert packages.missing() == []


def test_what_only_this_slicer_used_goes_when_a_new_version_is_complete(application, packages, tmp_path):
    here, there, gone = sys.prefix, str(tmp_path / "other Slicer"), str(tmp_path / "removed Slicer")
    Path(there).mkdir()
    users = {
        "packages-5.12-0": [here],
        "packages-5.12-0.5": [here, gone],
        "packages-5.10-0": [there],
        "packages-5.11-0": [here, there],
        "packages-5.9-0": [],
        "packages-5.13-0.part": [],
        "packages-5.12-0-learning": [here],
        "packages-5.12-1-learning": [here],
    }
    for name, lines in users.items():
        folder = packages.folder.with_name(name)
        (folder / "inner").mkdir(parents=True)
        if lines:
            (folder / "used-by.txt").write_text("\n".join(lines))
    (packages.folder.parent / "studies").mkdir()
    install(packages, tmp_path / "wheels")
    left = {path.name for path in packages.folder.parent.iterdir()}
    assert left == {
        *("packages-5.12-1", "packages-5.10-0", "packages-5.11-0", "packages-5.9-0", "packages-5.13-0.part"),
        *("packages-5.12-1-learning", "studies"),
    }
    (packages.folder / "used-by.txt").write_text(there)
    install(packages, tmp_path / "wheels")  # again, and who used it before still does
    assert set((packages.folder / "used-by.txt").read_text().split("\n")) == {here, there}


def test_an_interpreter_that_is_not_there_is_said_in_one_sentence(application, packages):
    ended = []
    Installer("/nowhere/PythonSlicer", packages, print, ended.append).start()
    wait(lambda: ended)
    assert isinstance(ended[0], AIAssistError)
    assert "/nowhere/PythonSlicer could not be started" in str(ended[0])


def test_one_question_at_the_first_use_then_no_more(module, packages, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda question, **_: asked.append(question))
    monkeypatch.setattr(module.logic, "packages", packages)
    monkeypatch.setattr(slicer.app, "_testing", False)
    module.exit()
    module.panel.backend._asked = False
    for _visit in range(3):
        module.enter()
        slicer.app.processEvents()
        module.exit()
    module.enter()
    slicer.app.processEvents()
    assert len(asked) == 1
    assert "Slicer is not changed" in asked[0]
    ui = module.panel.ui
    assert not ui.packagesWidget.isHidden()
    assert ui.packagesLabel.text == "Missing packages: aiassist_probe"
    module.panel.backend.install(tmp_path / "wheels")
    wait(lambda: module.panel.backend._installer is None)
    assert ui.packagesWidget.isHidden()
    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", lambda question, **_: True)
    ui.removeButton.click()
    wait(lambda: "were deleted" in ui.backendStatusLabel.text)
    assert not packages.folder.exists()


def test_with_a_server_what_smart_contour_needs_can_be_installed(module, packages, tmp_path, monkeypatch):
    ui, logic = module.panel.ui, module.logic
    monkeypatch.setattr(logic, "packages", packages)
    home = logic.assistant.home
    monkeypatch.setattr(type(logic.settings), "where", property(lambda _settings: SERVER))
    module.panel.backend._show_home()
    assert not ui.packagesWidget.isHidden()
    assert ui.packagesLabel.text == "Smart Contour needs packages on this computer: aiassist_probe"
    logic.check_packages()  # AI Points asks the server
    module.panel.backend.install(tmp_path / "wheels")
    wait(lambda: module.panel.backend._installer is None)
    assert ui.packagesWidget.isHidden()
    assert logic.assistant.home is home
    monkeypatch.undo()
    module.panel.backend._show_home()


def test_smart_contour_without_its_packages_says_what_to_do(panel, monkeypatch):
    monkeypatch.delitem(sys.modules, "AIAssistLib.smart_contour", raising=False)
    for name in [name for name in sys.modules if name.startswith(("aiassist.contour", "skimage"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "skimage", None)
    monkeypatch.setattr(type(panel.logic.settings), "where", property(lambda _settings: SERVER))
    panel.contour()
    assert panel.editor.activeEffect().self().ui.statusLabel.text == (
        "Smart Contour needs packages that this Slicer lacks (skimage.measure); open the module AI Assist and press "
        "Install, then choose Smart Contour again."
    )


def test_the_console_says_what_is_missing(module, packages, case, monkeypatch):
    monkeypatch.setattr(module.logic, "packages", packages)
    with pytest.raises(AIAssistError, match="still needs 1 package; open the module AI Assist and press Install"):
        module.logic.annotate(case.node, case.ends("spleen"))


BARE = """
import importlib.abc, sys, types
lacking = {names!r}
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in lacking:
            raise ModuleNotFoundError(f"Slicer has no {{name}}", name=name)
sys.meta_path.insert(0, Refuse())
translation = sys.modules["slicer.i18n"] = types.ModuleType("slicer.i18n")  # Slicer's, which the wheel lacks
translation.tr = lambda text: text
sys.path.insert(0, {folder!r})
import AIAssistLib.{module}
"""


@pytest.mark.parametrize(
    "module", ["points", "console", "segments", "auto_segment", "ground_truth", "lesions", "export"]
)
def test_the_controllers_import_with_what_slicer_ships(module):
    lacking = [
        "skimage",
        "onnxruntime",
        "nibabel",
        "nrrd",
        "sqlalchemy",
        "fastapi",
        "torch",
        "monai",
        "rich",
        "qt",
        "ctk",
    ]
    folder = str(REQUIREMENTS.parents[1])
    done = subprocess.run(
        [sys.executable, "-P", "-c", BARE.format(names=lacking, folder=folder, module=module)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
