"""kill -9 in the middle of saving ground truth: what was acknowledged is there, what is there is whole."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pytest
from groundtruth_helpers import check_whole, random_mask, random_patch, start_python

from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import Geometry, Volume, write_volume

SHAPE = (24, 48, 48)
STRUCTURES = ("spleen", "脾臓")
STORES = 5
#: How many versions a process saved, at least, when it is killed; 0 is while it opens the store.
KILLED_AFTER = (0, 0, 0, 0, 1, 1, 2, 2, 3, 4, 5, 6)
#: Longest waits before a kill, in seconds: about as long as opening the store takes, and saving a version.
OPENING, SAVING = 0.08, 0.02
CLI_KILLS = 8

#: Forks a child for each line it reads, so that a child need not import anything again. The child
#: saves versions until it is killed, to a new study and to all others in turn, and writes each one
#: down once `add` has returned.
NURSERY = """
import json, os, tempfile
import numpy as np
from groundtruth_helpers import random_patch
from aiassist.groundtruth import GroundTruthStore
from aiassist.imaging import Geometry, Volume

def save(folder, seed, structures, shape):
    volume = Volume(np.random.default_rng(seed // 1000).integers(0, 99, shape, np.int16), Geometry.from_spacing(shape))
    store = GroundTruthStore(folder)
    for study in (store.add_study(volume, f"study {seed // 1000}").id, *(s.id for s in store.studies())) * 1000:
        for structure in structures:
            seed += 1
            version = store.add(study, structure, random_patch(seed, shape), author="ann")
            os.write(1, (json.dumps([study, structure, version.number, seed]) + "\\n").encode())

with tempfile.TemporaryDirectory() as folder, GroundTruthStore(folder) as store:
    store.studies()  # what SQLAlchemy prepares on first use, a child need not prepare again

for line in sys.stdin:
    child = os.fork()
    if child == 0:
        try:
            save(*json.loads(line))
        finally:
            os._exit(1)
    os.write(1, f"child {child}\\n".encode())
    status = os.waitpid(child, 0)[1]
    os.write(1, f"dead {os.WTERMSIG(status) if os.WIFSIGNALED(status) else -1}\\n".encode())
"""


@pytest.fixture(scope="module")
def nursery():
    process = start_python(NURSERY, stdin=subprocess.PIPE)
    yield process
    process.stdin.close()
    process.wait(timeout=30)


def save_and_kill(nursery, folder, seed: int, count: int, delay: float) -> list[tuple[str, str, int, int]]:
    """Kill a child that saves, `delay` after `count` versions; those it wrote down: study, structure, number, seed."""
    nursery.stdin.write(json.dumps([str(folder), seed, STRUCTURES, SHAPE]) + "\n")
    nursery.stdin.flush()
    child = int(nursery.stdout.readline().removeprefix("child "))
    acknowledged = [tuple(json.loads(nursery.stdout.readline())) for _ in range(count)]
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    for line in iter(nursery.stdout.readline, ""):
        if line.startswith("dead"):
            assert line == f"dead {int(signal.SIGKILL)}\n", nursery.stderr.read()
            return acknowledged
        acknowledged.append(tuple(json.loads(line)))
    raise AssertionError(nursery.stderr.read())


def check_after_kill(folder, acknowledged, shape) -> int:
    """Assert that a fresh store opens, holds all that was acknowledged, and takes more; returns its versions."""
    with GroundTruthStore(folder) as store:
        count = check_whole(store)
        assert count >= len(acknowledged)
        for study, structure, number, seed in acknowledged:
            version = store.version(study, structure, number)
            assert version.mask == random_patch(seed, shape).version
        if acknowledged:
            study, structure, number, seed = acknowledged[-1]
            mask = store.mask(store.version(study, structure, number)).to_mask(shape)
            assert np.array_equal(mask, random_mask(seed, shape))
        studies = store.studies()
        if studies:
            before = store.history(studies[0].id, STRUCTURES[0])
            added = store.add(studies[0].id, STRUCTURES[0], random_patch(count, shape), author="after the kill")
            assert added.number > max((version.number for version in before), default=0)
            assert np.array_equal(store.mask(added).to_mask(shape), random_mask(count, shape))
    return count


@pytest.mark.parametrize("number", range(STORES))
def test_a_kill_at_any_moment_loses_no_acknowledged_version(nursery, tmp_path, number):
    rng = random.Random(number)
    acknowledged = []
    for n, count in enumerate(rng.sample(KILLED_AFTER, len(KILLED_AFTER))):
        delay = rng.random() * (SAVING if count else OPENING)
        acknowledged += save_and_kill(nursery, tmp_path, 1000 * (1 + n // 4), count, delay)
        check_after_kill(tmp_path, acknowledged, SHAPE)


SMALL = (10, 20, 20)


def truth_add(folder, label) -> subprocess.Popen:
    """Start ``aiassist truth add`` with lines that are not held back."""
    arguments = ("truth", "add", "--studies", folder / "studies", folder / "torso.nii.gz", label, "--name", "spleen")
    command = [sys.executable, "-u", "-m", "aiassist.cli", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, encoding="utf8")


def test_a_kill_of_the_command_line_loses_no_acknowledged_version(tmp_path):
    grid = Geometry.from_spacing(SMALL)
    write_volume(tmp_path / "torso.nii.gz", Volume(np.arange(4000, dtype=np.int16).reshape(SMALL), grid))
    labels = [tmp_path / f"label{seed}.nii.gz" for seed in range(CLI_KILLS + 1)]
    for seed, label in enumerate(labels):
        write_volume(label, Volume(random_mask(seed, SMALL).astype(np.uint8), grid))
    began = time.perf_counter()
    out, err = truth_add(tmp_path, labels[0]).communicate(timeout=60)
    duration = time.perf_counter() - began
    assert "spleen v1" in out, err
    with GroundTruthStore(tmp_path / "studies") as store:
        study = store.study("torso").id
    acknowledged = [(study, "spleen", 1, 0)]
    rng = random.Random(0)
    for n in range(CLI_KILLS):  # from its start on, closer together near the end, where it writes
        seed = n + 1
        process = truth_add(tmp_path, labels[seed])
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=1.1 * duration * ((n + rng.random()) / CLI_KILLS) ** 0.3)
        process.kill()
        out, err = process.communicate(timeout=60)
        assert err == ""
        for number in re.findall(r"spleen v(\d+)", out):
            acknowledged.append((study, "spleen", int(number), seed))
        check_after_kill(tmp_path / "studies", acknowledged, SMALL)
