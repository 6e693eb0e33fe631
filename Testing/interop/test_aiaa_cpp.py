"""NVIDIA's C++ client, which MITK is built on, against our server: its own tools, unchanged.

Set ``AIAA_CPP`` to the folder of the built tools; ``cpp/CMakeLists.txt`` says how to build them.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from overlap import dice

from aiassist.imaging import Geometry, Volume, read_volume, write_volume
from aiassist.prompts import extreme_points

TOOLS = os.environ.get("AIAA_CPP")
pytestmark = pytest.mark.skipif(not TOOLS, reason="AIAA_CPP names no folder with NVIDIA's C++ tools")


@pytest.fixture
def points(spleen) -> str:
    """Six points as the tools take them."""
    return json.dumps(extreme_points(spleen, np.random.default_rng(0)).astype(int).tolist())


@pytest.fixture
def tool(server, tmp_path):
    """A function that runs a tool against the server and gives what it printed."""

    def call(name: str, *options, code: int = 0) -> str:
        command = [Path(TOOLS).resolve() / f"nvidiaAIAA{name}", "-server", f"{server.url}/t/{server.token}"]
        done = subprocess.run([*command, *map(str, options)], capture_output=True, text=True, cwd=tmp_path, timeout=120)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def mask_of(path: Path, like: np.ndarray) -> np.ndarray:
    """The mask that a tool wrote."""
    found = read_volume(path).voxels
    assert found.shape == like.shape
    return found > 0


def test_it_lists_the_models(tool):
    kinds = {one["name"]: one["type"] for one in json.loads(tool("ListModels"))}
    assert kinds["network"] == "annotation" and kinds["network_deepgrow"] == "deepgrow"
    assert kinds["lungs-ct"] == "segmentation"


def test_six_points_give_the_spleen(tool, image_file, points, spleen, tmp_path):
    tool("DEXTR3D", "-model", "network", "-points", points, "-image", image_file, "-output", "out.nii.gz")
    assert dice(mask_of(tmp_path / "out.nii.gz", spleen), spleen) > 0.9


def test_an_image_that_the_client_crops_itself_is_answered(tool, image_file, points):
    # The client pads the answer into a temporary file and deletes that: with -crop it writes no output, whatever
    # the server. That it got as far means that its crop of 128 voxels a side was understood.
    asked = ("-model", "network", "-points", points, "-image", image_file, "-output", "out.nii.gz")
    assert "SUCCESS" in tool("DEXTR3D", *asked, "-crop")


def test_an_image_is_sent_once_in_a_session_and_a_closed_session_is_said(tool, image_file, points, spleen, tmp_path):
    session = tool("Session", "-op", "create", "-image", image_file).split()[-1]
    assert session in tool("Session", "-op", "get", "-session", session)
    asked = ("-model", "network", "-points", points, "-session", session, "-output", "out.nii.gz")
    tool("DEXTR3D", *asked)
    assert dice(mask_of(tmp_path / "out.nii.gz", spleen), spleen) > 0.9
    tool("Session", "-op", "delete", "-session", session)
    assert "AIAA Session Timeout" in tool("DEXTR3D", *asked, code=255)


def test_clicks_end_up_inside_and_outside(tool, image_file, spleen, tmp_path):
    inside = np.argwhere(spleen)[len(np.argwhere(spleen)) // 2][::-1].tolist()
    outside = [60, 60, 60]
    assert not spleen[tuple(outside[::-1])]
    clicks = ("-fpoints", json.dumps([inside]), "-bpoints", json.dumps([outside]))
    tool("Deepgrow", "-model", "network_deepgrow", *clicks, "-image", image_file, "-output", "out.nii.gz")
    found = mask_of(tmp_path / "out.nii.gz", spleen)
    assert found[tuple(inside[::-1])] and not found[tuple(outside[::-1])]


@pytest.mark.parametrize("name", ["Segmentation", "Inference"])
def test_the_lungs_are_found_without_points(tool, image_file, spleen, tmp_path, name):
    told = tool(name, "-model", "lungs-ct", "-image", image_file, "-output", "out.nii.gz")
    found = mask_of(tmp_path / "out.nii.gz", spleen)
    assert found.any() and not (found & spleen).any()
    ends = json.loads(told[told.index("[") : told.rindex("]") + 1])
    assert all(found[k, j, i] for i, j, k in ends) and len(ends) == 6


def test_outlines_are_traced_and_a_vertex_is_pulled(tool, mask_file, volume, spleen, tmp_path):
    tool("MaskPolygon", "-image", mask_file, "-ratio", 10, "-output", "outlines.json")
    k = int(np.argmax(spleen.sum(axis=(1, 2))))
    outlines = json.loads((tmp_path / "outlines.json").read_text())
    assert [bool(one) for one in outlines] == spleen.any(axis=(1, 2)).tolist()
    cut = Volume(volume.voxels[k : k + 1], Geometry.from_spacing((1, *spleen.shape[1:]), (3, 3, 3)))
    write_volume(tmp_path / "slice.nii.gz", cut)
    pulled = ("-poly", json.dumps(outlines[k]), "-pindex", 0, "-vindex", 1, "-xoffset", 3, "-yoffset", 2)
    told = tool("FixPolygon", "-dim", 2, *pulled, "-image", "slice.nii.gz", "-output", "fixed.png")
    before, after = np.array(outlines[k][0]), np.array(json.loads(told)[0])
    assert np.allclose(after[1], before[1] + [3, 2], atol=0.02) and len(after) == len(before)
    assert (tmp_path / "fixed.png").stat().st_size > 0


def test_what_cannot_be_is_said(tool, image_file, points):
    assert "exception" in tool(
        "DEXTR3D", "-model", "nope", "-points", points, "-image", image_file, "-output", "o.nii.gz", code=255
    )
    told = tool("Inference", "-model", "network", "-params", "{}", "-image", image_file, code=255)
    assert "PromptError" in told
