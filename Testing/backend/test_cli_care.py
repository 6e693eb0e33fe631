"""The command line takes care of people's files, says what it changed, and stops when told to."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from dicom_series import write_series

from aiassist import cli
from aiassist.commands.shared import check_output
from aiassist.engine import LocalBackend
from aiassist.errors import PromptError
from aiassist.imaging import Geometry, Volume, read_labelmap, read_volume, write_volume

SAMPLE = Path(__file__).parents[2] / "Resources" / "SampleData" / "ts_ct_torso"
IMAGE, LABEL = str(SAMPLE / "image.nii.gz"), str(SAMPLE / "label.nii.gz")


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["--value", "1", "--point", "10,46,102", "43,44,110"], "--value 1"),
        (["--from-label", LABEL, "--value", "1", "--seed", "-3"], "--seed is -3"),
        (["--prior-value", "1", "--point", "10,46,102", "43,44,110"], "--prior-value 1"),
        (["--from-label", LABEL], "holds 61 values from 1 to 117; say which by --value."),
        (["--prior", LABEL, "--positive", "24,40,100"], "holds 61 values from 1 to 117; say which by --prior-value."),
        (["--prior", LABEL, "--prior-value", "250", "--positive", "24,40,100"], "does not hold the value 250"),
        (
            ["--prior", LABEL, "--prior-value", "0", "--positive", "24,40,100"],
            "--prior-value is 0, which is no structure",
        ),
        (["--from-label", LABEL, "--value", "0"], "--value is 0, which is no structure"),
        (["--prior", "", "--point", "10,46,102", "43,44,110"], "--prior is empty"),
        (["--model=", "--point", "10,46,102", "43,44,110"], "--model is empty"),
    ],
)
def test_options_that_would_be_ignored_are_refused(tmp_path, capsys, extra, said):
    assert cli.main(["annotate", IMAGE, "-o", str(tmp_path / "mask.nii.gz"), *extra]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({"positive": [[1e300, 1, 1]]}, "lies outside the volume"),
        ({"points": [[10, 46, 102]], "prior": "aGVs"}, "prompts.json: These 3 bytes are not a mask patch"),
    ],
)
def test_faulty_prompts_of_a_file_are_one_sentence(tmp_path, capsys, prompts, said):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(prompts), encoding="utf8")
    assert cli.main(["annotate", IMAGE, "-o", str(tmp_path / "mask.nii.gz"), "--points", str(path)]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_contour_is_pulled_on_the_slice_that_its_place_lies_in(tmp_path, capsys):
    for place, said in (("1,1,10.5", "slice 10"), ("1,1,11.5", "slice 11"), ("1,1,-0.5", "slice 0")):
        pull = ["--value", "1", "--from", place, "--to", place, "-o", str(tmp_path / "mask.nii.gz")]
        assert cli.main(["contour", "snap", IMAGE, LABEL, *pull]) == 2
        assert f"The axial {said} holds no outline to pull" in capsys.readouterr().err
    pull = ["--value", "1", "--from", "1,1,111.5", "--to", "1,1,111", "-o", str(tmp_path / "mask.nii.gz")]
    assert cli.main(["contour", "snap", IMAGE, LABEL, *pull]) == 2
    assert "from the nearest outline" in capsys.readouterr().err  # slice 111 holds the spleen


def test_one_structure_of_several_can_be_corrected(tmp_path, capsys):
    out = tmp_path / "out.nii.gz"
    options = ["--prior", LABEL, "--prior-value", "1", "--negative", "24,40,100"]
    assert cli.main(["annotate", IMAGE, "-o", str(out), *options]) == 0
    spleen, left = read_labelmap(LABEL).voxels == 1, read_labelmap(out).voxels != 0
    assert not left[100, 40, 24] and 0 < (spleen & ~left).sum() < spleen.sum() / 4 and not (left & ~spleen).any()


@pytest.mark.parametrize("command", [["serve", "--studies"], ["demo", "-o"], ["evaluate"]])
def test_a_file_where_a_folder_is_needed_is_said(tmp_path, capsys, command):
    (tmp_path / "file").touch()
    assert cli.main([*command, str(tmp_path / "file")]) == 2
    assert capsys.readouterr().err == f"aiassist: {tmp_path / 'file'} is a file, where a folder is needed.\n"


def test_a_server_is_not_started_for_a_device_that_is_not_there(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cli.main(["serve", "--studies", str(tmp_path), "--port", "0", "--device", "cuda"]) == 2
    assert capsys.readouterr().err == "aiassist: There is no cuda device that torch could use here; run on the cpu.\n"


def test_an_input_is_never_overwritten(tmp_path, capsys):
    image = tmp_path / "mine.nii.gz"
    image.write_bytes(Path(IMAGE).read_bytes())
    before = image.read_bytes()
    assert cli.main(["annotate", str(image), "-o", str(image), "--from-label", LABEL, "--value", "4"]) == 2
    assert "would be lost" in capsys.readouterr().err
    assert image.read_bytes() == before


def test_nothing_is_written_into_a_studies_folder(tmp_path, capsys):
    studies, out = tmp_path / "studies", tmp_path / "studies" / "out.nii.gz"
    assert cli.main(["truth", "add", "--studies", str(studies), IMAGE, LABEL, "--names", "1=spleen"]) == 0
    (version,) = studies.rglob("v0001.seg.nrrd")
    before = {path: path.read_bytes() for path in studies.rglob("*.*") if path.is_file()}
    (tmp_path / "link").symlink_to(version.parent)
    export = ["truth", "export", "--studies", str(studies), "ts_ct_torso", "-o"]
    assert cli.main([*export, str(studies / ".." / "beside.nrrd")]) == 0
    annotate = ["annotate", IMAGE, "--positive", "24,40,100", "-o"]
    segment = ["segment", IMAGE, "--model", "lungs-ct", "-o"]
    evaluate = ["evaluate", str(SAMPLE.parent), "--json"]
    linked = tmp_path / "link" / version.name
    wanted = [(one, path) for one in (export, segment) for path in (version, linked)]
    wanted += [(one, out) for one in (export, annotate, segment)]
    for command, path in [*wanted, ([*SNAP, "-o"], out), (evaluate, studies / "report.json")]:
        assert cli.main([*command, str(path)]) == 2
        assert f"lies in the studies folder {studies}, whose files must not change" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in studies.rglob("*.*") if path.is_file()} == before


def test_an_image_of_a_folder_of_its_own_is_called_as_the_folder(tmp_path, capsys):
    case = tmp_path / "case7"
    shutil.copytree(SAMPLE, case)
    assert cli.main(["truth", "add", "--studies", str(tmp_path / "studies"), str(case / "image.nii.gz")]) == 0
    assert capsys.readouterr().out.startswith("case7: kept")


def test_a_demo_that_cannot_be_leaves_no_studies(tmp_path, capsys):
    assert cli.main(["demo", "--model", "nope", "-o", str(tmp_path)]) == 2
    assert "There is no model 'nope'" in capsys.readouterr().err and not list(tmp_path.iterdir())


def test_who_has_read_enough_hears_nothing_more():
    command = f"{sys.executable} -m aiassist.cli models list | true"
    made = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, timeout=60)
    assert made.stderr == "" and made.returncode in (0, 141)


def test_what_the_system_refuses_is_a_sentence(tmp_path, capsys, monkeypatch):
    real = Path.open

    def refused(self, *args, **more):
        if self.name == "image.nii.gz":
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(self))
        return real(self, *args, **more)

    monkeypatch.setattr(Path, "open", refused)
    assert cli.main(["annotate", IMAGE, "--positive", "24,40,100", "-o", str(tmp_path / "a.nii.gz")]) == 2
    assert capsys.readouterr().err == (
        f"aiassist: {IMAGE} may not be read or written by this user, or is in use; change that, or take another.\n"
    )


def test_a_file_in_a_folder_that_is_an_input_is_never_overwritten(tmp_path, capsys):
    write_series(tmp_path / "series", np.zeros((2, 4, 5), np.int16), np.eye(4))
    case = tmp_path / "cases" / "one"
    shutil.copytree(SAMPLE, case)
    slice_, label = tmp_path / "series" / "slice000.dcm", case / "label.nii.gz"
    before = slice_.read_bytes(), label.read_bytes()
    folder = str(tmp_path / "series")
    for command in (
        ["segment", folder, "-o", str(slice_), "--model", "lungs-ct"],
        ["annotate", folder, "-o", f"{folder}/../series/old.nrrd", "--positive", "1,1,1"],
        ["evaluate", str(tmp_path / "cases"), "--json", str(label)],
    ):
        (tmp_path / "series" / "old.nrrd").write_bytes(b"kept")
        assert cli.main(command) == 2
        error = capsys.readouterr().err
        assert "would be lost" in error and error.count("\n") == 1
    assert (slice_.read_bytes(), label.read_bytes()) == before


def test_a_new_file_may_be_written_beside_an_input_and_into_a_folder_of_inputs(tmp_path):
    for name in ("series", "beside"):
        (tmp_path / name).mkdir()
    (tmp_path / "beside" / "old.nrrd").touch()
    folder = str(tmp_path / "series")
    check_output(tmp_path / "series" / "new.nrrd", folder)
    check_output(tmp_path / "series" / ".." / "beside" / "old.nrrd", folder)
    (tmp_path / "series" / "new.nrrd").touch()  # the next time it is an input itself
    with pytest.raises(PromptError, match=r"new\.nrrd is there already"):
        check_output(tmp_path / "series" / "new.nrrd", folder)


SNAP = ["contour", "snap", IMAGE, LABEL, "--value", "1", "--from", "1,1,90", "--to", "2,2,90"]


@pytest.mark.parametrize("command", [["annotate", IMAGE, "--from-label", LABEL, "--value", "4"], SNAP])
def test_a_segmentation_ending_is_not_written_as_a_plain_mask(tmp_path, capsys, command):
    out = tmp_path / "mask.seg.nrrd"
    assert cli.main([*command, "-o", str(out)]) == 2
    assert "truth export" in capsys.readouterr().err and not out.exists()


def test_a_correction_says_what_it_changed(tmp_path, capsys):
    first, second = tmp_path / "first.nii.gz", tmp_path / "second.nii.gz"
    assert cli.main(["annotate", IMAGE, "-o", str(first), "--from-label", LABEL, "--value", "1"]) == 0
    capsys.readouterr()
    missed = (read_labelmap(LABEL).voxels == 1) & (read_volume(first).voxels == 0)
    click = ["--positive", ",".join(str(n) for n in np.argwhere(missed)[missed.sum() // 2][::-1])]
    assert cli.main(["annotate", IMAGE, "-o", str(second), "--prior", str(first), *click]) == 0
    said = capsys.readouterr().out
    grown = int(read_volume(second).voxels.sum()) - int(read_volume(first).voxels.sum())
    assert grown > 0 and f"; {grown:,} voxels added, 0 removed" in said
    assert cli.main(["annotate", IMAGE, "-o", str(second), "--prior", str(second), *click]) == 2
    corrected = tmp_path / "third.nii.gz"
    capsys.readouterr()
    assert cli.main(["annotate", IMAGE, "-o", str(corrected), "--prior", str(second), *click]) == 0
    assert "nothing changed" in capsys.readouterr().out


@pytest.mark.parametrize("extra", [["--state", "approved"], ["--comment", "mine"], ["--edits", "3"], ["--model", "x"]])
def test_what_is_said_of_labels_is_refused_without_labels(tmp_path, capsys, extra):
    assert cli.main(["truth", "add", "--studies", str(tmp_path / "s"), IMAGE, *extra]) == 2
    assert f"{extra[0]} says something of labels" in capsys.readouterr().err


def test_a_file_that_cannot_hold_the_mask_is_refused_before_the_work(tmp_path, capsys, monkeypatch):
    sheared, mask = tmp_path / "tilted.nrrd", np.zeros((9, 20, 30), np.uint8)
    mask[3:6, 5:15, 5:15] = 1
    affine = np.eye(4)
    affine[1, 2] = 0.3
    write_volume(sheared, Volume(mask, Geometry(mask.shape, affine)))
    monkeypatch.setattr(LocalBackend, "annotate", None)  # never called
    monkeypatch.setattr(LocalBackend, "segment", None)
    for image, name, said in ((IMAGE, "mask.png", "has 112 slices"), (str(sheared), "mask.mha", "a sheared grid")):
        out = tmp_path / name
        assert cli.main(["annotate", image, "--positive", "9,9,4", "-o", str(out)]) == 2
        assert said in capsys.readouterr().err and not out.exists()
    pull = ["--from", "5,9,4", "--to", "6,9,4", "-o", str(tmp_path / "mask.mha")]
    assert cli.main(["contour", "snap", str(sheared), str(sheared), *pull]) == 2
    assert "a sheared grid" in capsys.readouterr().err
    assert cli.main(["segment", str(sheared), "--model", "lungs-ct", "-o", str(tmp_path / "lungs.mha")]) == 2
    assert "a sheared grid" in capsys.readouterr().err


def test_a_mask_is_not_written_as_a_picture_that_loses_where_it_lies(tmp_path, capsys):
    geometry = Geometry.from_spacing((1, 20, 30), (0.5, 0.5, 3.0), (7, 8, 9))
    write_volume(tmp_path / "slice.nrrd", Volume(np.eye(20, 30, dtype=np.uint8)[np.newaxis], geometry))
    command = ["annotate", str(tmp_path / "slice.nrrd"), "--positive", "9,9,0", "--model", "ellipsoid"]
    assert cli.main([*command, "-o", str(tmp_path / "mask.png")]) == 2
    assert "mask.png is a picture" in capsys.readouterr().err and not (tmp_path / "mask.png").exists()


def test_what_a_terminal_cannot_show_is_printed_as_escapes(tmp_path, monkeypatch):
    add = ["truth", "add", "--studies", str(tmp_path / "s"), IMAGE, "--study-name", "M\u00fcnster"]
    for command, said in ((add, b"M\\xfcnster: kept"), (["models", "info", "M\u00fcnster"], b"'M\\xfcnster'")):
        streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
        for name, stream in streams.items():
            monkeypatch.setattr(sys, name, stream)
        cli.main(command)
        monkeypatch.undo()
        for stream in streams.values():
            stream.flush()
        assert said in streams["stdout"].buffer.getvalue() + streams["stderr"].buffer.getvalue()


def test_a_comment_may_be_empty_and_a_folder_not(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["truth", "add", "--studies", "", IMAGE]) == 2 and not list(tmp_path.iterdir())
    assert "--studies is empty" in capsys.readouterr().err
    assert cli.main(["truth", "add", "--studies", "s", IMAGE, LABEL, "--names", "1=spleen", "--comment", ""]) == 0


def test_evaluate_takes_no_seed_below_zero(tmp_path, capsys):
    assert cli.main(["evaluate", str(Path(IMAGE).parents[1]), "--seed", "-1"]) == 2
    assert "--seed is -1" in capsys.readouterr().err


def test_ground_truth_refuses_two_ways_of_naming(tmp_path, capsys):
    add = ["truth", "add", "--studies", str(tmp_path / "s"), IMAGE, LABEL, "--name", "spleen", "--names", "1=liver"]
    assert cli.main(add) == 2
    assert "contradict" in capsys.readouterr().err


def _hears_ctrl_c() -> None:
    """As in a terminal; what a shell starts in the background ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _workers(process: psutil.Process) -> list[float]:
    """The seconds of a core that each worker of a pool has used."""
    return [sum(child.cpu_times()[:2]) for child in process.children() if "spawn_main" in " ".join(child.cmdline())]


@pytest.mark.parametrize("seconds", [0, 4], ids=["workers start", "workers work"])
def test_ctrl_c_stops_with_one_word_and_no_traceback(seconds):
    """It comes when the workers have used this many seconds of a core."""
    command = [sys.executable, "-m", "aiassist.cli", "evaluate", str(SAMPLE), "--clicks", "5", "--workers", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    running = subprocess.Popen(command, start_new_session=True, preexec_fn=_hears_ctrl_c, **pipes)
    try:
        started = psutil.Process(running.pid)
        while not (found := _workers(started)) or sum(found) < seconds:
            time.sleep(0.01)
        os.killpg(running.pid, signal.SIGINT)
        out, error = running.communicate(timeout=30)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 130, error
    assert error.strip().splitlines()[-1] == "aiassist: Stopped."
    assert "Traceback" not in error
    assert out == ""
