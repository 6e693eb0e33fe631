"""What the documentation tells people to type works as it stands."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

from aiassist import cli
from aiassist.contour import ContourSession
from aiassist.evaluation.metrics import dice
from aiassist.imaging import read_labelmap
from aiassist.segmenters.registry import bundled

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "Resources/SampleData/ts_ct_torso"


def commands(page):
    """The lines that start with ``aiassist`` in a page's code blocks, except the demo."""
    blocks = re.findall(r"^```\n(.*?)^```", (ROOT / page).read_text(encoding="utf8"), re.M | re.S)
    return [line for block in blocks for line in block.splitlines() if line.startswith("aiassist ")]


def test_tutorial_commands_run_in_order(tmp_path, monkeypatch, capsys):
    shutil.copy(SAMPLE / "image.nii.gz", tmp_path / "ct.nii.gz")
    monkeypatch.chdir(tmp_path)
    lines = commands("docs/tutorial.md")
    assert len(lines) >= 6
    for line in lines:
        assert cli.main(shlex.split(line)[1:]) == 0, (line, capsys.readouterr().err)
        if "--prior" in line:
            assert re.search(r"; [1-9][0-9,]* voxels added, [1-9][0-9,]* removed", capsys.readouterr().out)
    assert Path("spleen.seg.nrrd").stat().st_size > 1000
    history = next(line for line in lines if "history" in line)
    capsys.readouterr()
    cli.main(shlex.split(history)[1:])
    first, second = capsys.readouterr().out.splitlines()
    made_by = f"from network {bundled().get('network').card.version}"
    assert first.startswith("spleen v1 draft") and made_by in first
    assert second.startswith("spleen v2 submitted") and made_by in second and second.endswith("three places by click")


@pytest.fixture
def ct(tmp_path, monkeypatch):
    """The bundled CT as ``ct.nii.gz`` in the present folder."""
    shutil.copy(SAMPLE / "image.nii.gz", tmp_path / "ct.nii.gz")
    monkeypatch.chdir(tmp_path)


def run_snippet(page: str, **changes) -> dict:
    """Run a page's first Python with some texts put in the place of others, and return its names."""
    code = re.search(r"^```python\n(.*?)^```", (ROOT / page).read_text(encoding="utf8"), re.M | re.S)[1]
    for old, new in changes.items():
        code = code.replace(old, new)
    names = {}
    exec(compile(code, page, "exec"), names)
    return names


def test_the_page_for_writers_of_clients_runs(ct, server):
    Path("token.txt").write_text(f"{server.token}\n")
    names = run_snippet("docs/clients.md", **{"http://127.0.0.1:8000": server.url})
    versions = server.ask("GET", f"/api/truth/{names['study']}").json()["versions"]
    (version,) = (one for one in versions if one["comment"] == "six points")
    assert (version["structure"], version["model"]) == ("spleen", "network")
    assert len(version["prompts"]["points"]) == 6


def test_the_page_on_the_smart_contour_pulls_the_tutorials_spleen_nearer_to_the_truth(ct):
    annotate = next(line for line in commands("docs/tutorial.md") if "-o spleen.nii.gz" in line)
    assert cli.main(shlex.split(annotate)[1:]) == 0
    names = run_snippet("docs/contour.md")
    truth = read_labelmap(SAMPLE / "label.nii.gz", like=names["volume"]).voxels == 1
    before, after = names["mask"], names["patch"].over(names["mask"])
    rings = ContourSession(names["volume"], before).open(axis=0, index=95)
    away = min(np.hypot(*(ring.points - (names["x"], names["y"])).T).min() for ring in rings)
    assert away < 1
    assert dice(truth, after.to_mask(truth.shape)) > dice(truth, before.to_mask(truth.shape)) + 0.002


def test_python_page_runs(ct):
    names = run_snippet("docs/python.md")
    assert names["mask"].sum() > 1000
    assert Path("spleen.nii.gz").exists()


@pytest.mark.parametrize(
    "page", [p.relative_to(ROOT).as_posix() for p in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")]]
)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf8")
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        if "://" not in target:
            assert (ROOT / page).parent.joinpath(target).exists(), f"{page} links to {target}"
