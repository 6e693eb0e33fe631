"""The backend in this process: jobs in order, latest wins, cancel, errors at submit, versions of masks."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from dataclasses import replace

import numpy as np
import pytest
from engine_helpers import BALL, CARD, SHAPE, WAIT, Broken, Steps, Whole, make_volume
from threadpoolctl import ThreadpoolController

from aiassist.engine import AnnotateRequest, Job, JobState, LocalBackend, SegmentRequest
from aiassist.engine.studies import Studies
from aiassist.engine.worker import Worker
from aiassist.errors import (
    AIAssistError,
    BusyError,
    Cancelled,
    DeviceMemoryError,
    ModelError,
    PromptError,
    StudyError,
    UnknownStudyError,
)
from aiassist.imaging import MaskPatch, Region
from aiassist.prompts import Prompts
from aiassist.segmenters.base import Promptable, Step
from aiassist.segmenters.ellipsoid import Ellipsoid
from aiassist.segmenters.model_store import ModelStore
from aiassist.segmenters.registry import Registry, bundled


@pytest.fixture
def steps():
    segmenter = Steps()
    yield segmenter
    segmenter.go.set()


@pytest.fixture
def registry(steps):
    registry = bundled()
    registry.add("steps", lambda: steps)
    registry.add("broken", Broken)
    return registry


@pytest.fixture
def backend(registry, steps):
    backend = LocalBackend(registry)
    yield backend
    steps.go.set()
    backend.close()


@pytest.fixture
def manual(registry, steps):
    """A backend without a thread, whose segmenters never wait."""
    steps.go.set()
    with LocalBackend(registry, threaded=False) as backend:
        yield backend


@pytest.fixture
def study(backend):
    return backend.open_study(make_volume())


def click(i: float) -> Prompts:
    return Prompts(positive=[[i, 12, 10]])


def request(study: str, i: float = 14, **more) -> AnnotateRequest:
    return AnnotateRequest(study, click(i), **{"model": "steps"} | more)


# One study, many annotations


def test_a_study_is_opened_once_and_annotated_many_times(backend):
    study = backend.open_study(make_volume())
    assert study == make_volume().study_id
    assert backend.open_study(make_volume()) == study
    answers = [backend.annotate(AnnotateRequest(study, BALL)) for _ in range(3)]
    axes = np.ix_(*[np.arange(n) - n / 2 for n in SHAPE])
    ball = sum((a / 6) ** 2 for a in axes) <= 1
    mask = answers[0].patch.to_mask(SHAPE)
    assert 2 * (mask & ball).sum() / (mask.sum() + ball.sum()) > 0.9
    assert {a.version for a in answers} == {answers[0].patch.version}
    assert {a.patch.to_bytes() for a in answers} == {answers[0].patch.to_bytes()}


def test_an_answer_says_what_made_it(backend, study, steps):
    steps.go.set()
    answer = backend.annotate(request(study, structure="spleen", client="window 1"))
    assert (answer.study, answer.structure, answer.base) == (study, "spleen", None)
    assert (answer.model, answer.model_version, answer.device) == ("steps", "3", "cpu")
    assert answer.version == answer.patch.version
    assert set(answer.seconds) == {"open", "pass", "version"} and min(answer.seconds.values()) >= 0
    assert isinstance(steps, Promptable)


def test_the_same_inputs_give_the_same_result_in_another_backend(backend, study):
    first = backend.annotate(AnnotateRequest(study, BALL))
    with LocalBackend() as other:
        second = other.annotate(AnnotateRequest(other.open_study(make_volume()), BALL))
    assert first.patch.to_bytes() == second.patch.to_bytes()


def test_the_default_model_comes_first_and_answers(backend, study, registry):
    assert backend.models()[0].name == "network"
    assert backend.annotate(AnnotateRequest(study, BALL)).model == "network"
    with LocalBackend(registry, default="ellipsoid") as other:
        assert other.models()[0].name == "ellipsoid"
        assert other.annotate(AnnotateRequest(other.open_study(make_volume()), BALL)).model == "ellipsoid"


# Errors at submit


def test_an_unknown_study_is_refused_at_submit(backend):
    with pytest.raises(StudyError, match="study beef is not open here; open it first"):
        backend.submit(request("beef"))


def test_a_closed_study_is_unknown(backend, study):
    backend.close_study(study)
    with pytest.raises(StudyError, match=study):
        backend.submit(request(study))
    with pytest.raises(StudyError, match=study):
        backend.put_mask(study, MaskPatch.empty())


def test_an_unknown_base_is_refused_at_submit(backend, study):
    with pytest.raises(StudyError, match=r"mask cafe of the study .* send it again"):
        backend.submit(request(study, base="cafe"))


def test_an_unknown_model_is_refused_at_submit(backend, study):
    with pytest.raises(ModelError, match=r"no model 'oracle'; the models are .*geodesic"):
        backend.submit(request(study, model="oracle"))


def test_a_model_that_cannot_run_on_the_device_is_refused_at_submit(registry, steps):
    steps.card = replace(CARD, devices=("cuda",))
    with LocalBackend(registry) as backend, pytest.raises(ModelError, match="'steps' runs on cuda, not on cpu"):
        backend.submit(request(backend.open_study(make_volume())))


def test_a_model_that_knows_only_the_cpu_runs_there_beside_a_better_device_and_says_so(registry):
    with LocalBackend(registry, device="cuda") as backend:
        study = backend.open_study(make_volume())
        answer = backend.annotate(AnnotateRequest(study, BALL, model="geodesic"))
    assert answer.device == "cpu" and answer.patch.mask.any()


def test_an_automatic_model_takes_no_prompts(backend, study, registry):
    automatic = Steps()
    automatic.card = replace(CARD, name="organs", kind="automatic")
    registry.add("organs", lambda: automatic)
    with pytest.raises(ModelError, match="'organs' takes no prompts"):
        backend.submit(request(study, model="organs"))


def test_a_click_outside_the_volume_is_refused_at_submit(backend, study):
    with pytest.raises(PromptError, match=r"\[99\.0, 12\.0, 10\.0\] lies outside"):
        backend.submit(request(study, 99))


def test_a_refused_request_does_not_overtake_a_running_one(backend, study, steps):
    job = backend.submit(request(study))
    with pytest.raises(PromptError):
        backend.submit(request(study, 99))
    steps.go.set()
    assert job.result(WAIT).patch.voxels.all()


# The queue


def test_a_newer_request_overtakes_the_older_of_the_same_structure(backend, study, steps):
    older = backend.submit(request(study, 1))
    assert steps.entered.wait(WAIT)
    newer = backend.submit(request(study, 2))
    steps.go.set()
    with pytest.raises(Cancelled):
        older.result(WAIT)
    assert newer.result(WAIT).patch.region.start == (10, 12, 2)
    assert (older.state, newer.state) == (JobState.CANCELLED, JobState.DONE)
    assert steps.closed == 1


def test_a_request_that_waits_is_overtaken_before_it_begins(backend, study, steps):
    running = backend.submit(request(study, 1, structure="other"))
    waiting = [backend.submit(request(study, i)) for i in (2, 3, 4)]
    steps.go.set()
    assert waiting[-1].result(WAIT).patch.region.start == (10, 12, 4)
    for job in waiting[:-1]:
        with pytest.raises(Cancelled):
            job.result(WAIT)
    assert running.result(WAIT)
    assert steps.order == [1, 4]


def test_other_structures_clients_and_studies_are_left_alone(backend, study, steps):
    other = backend.open_study(make_volume(1))
    jobs = [
        backend.submit(request(study, 1)),
        backend.submit(request(study, 2, structure="liver")),
        backend.submit(request(study, 3, client="another")),
        backend.submit(request(other, 4)),
    ]
    steps.go.set()
    assert [job.result(WAIT).patch.region.start[2] for job in jobs] == [1, 2, 3, 4]
    assert steps.order == [1, 2, 3, 4]


def test_jobs_run_in_the_order_in_which_they_came(backend, study, steps):
    jobs = [backend.submit(request(study, i, structure=str(i))) for i in range(8)]
    assert steps.entered.wait(WAIT)
    assert [backend.worker.position(job) for job in jobs] == list(range(8))
    assert jobs[0].state is JobState.RUNNING and {j.state for j in jobs[1:]} == {JobState.QUEUED}
    steps.go.set()
    for job in jobs:
        job.result(WAIT)
    assert steps.order == list(range(8))


def test_who_asks_for_much_lets_the_others_in_between(backend, study, steps):
    def ask(sharer, i):
        return backend.submit(request(study, i, structure=str(i)), sharer=sharer)

    flood = [ask("ann", i) for i in range(5)]
    assert steps.entered.wait(WAIT)
    bob, eve = [ask("bob", i) for i in (10, 11)], ask("eve", 12)
    assert [backend.worker.position(job) for job in (*flood, *bob, eve)] == [0, 3, 5, 6, 7, 1, 4, 2]
    backend.worker.cancel(bob[0])
    steps.go.set()
    for job in (*flood, bob[1], eve):
        job.result(WAIT)
    assert steps.order == [0, 12, 11, 1, 2, 3, 4]


def test_who_comes_later_does_not_keep_the_flood_from_going_on(manual):
    study = manual.open_study(make_volume())
    flood = [manual.submit(request(study, i, structure=str(i), model="ellipsoid"), sharer="ann") for i in range(3)]
    done = 0
    for i in range(10, 16):  # each asks when the one before was served
        other = manual.submit(request(study, i, structure=str(i), model="ellipsoid"), sharer=str(i))
        while not other.finished:
            manual.step()
        done = sum(job.finished for job in flood)
        assert done == min(i - 9, 3)


def test_clicks_come_between_the_steps_of_a_segmentation(manual, registry):
    registry.add("whole", Whole)
    study = manual.open_study(make_volume())
    whole = manual.submit(SegmentRequest(study, "whole"))
    for _ in range(4):
        manual.step()
    reached = whole.last_step
    clicks = [manual.submit(request(study, i, structure=str(i))) for i in (3, 4)]
    assert [manual.worker.position(job) for job in (*clicks, whole)] == [0, 1, 2]
    time.sleep(0.5)
    while not clicks[1].finished:
        manual.step()
    assert clicks[0].finished and whole.state is JobState.RUNNING and whole.last_step is reached
    while not whole.finished:
        manual.step()
    assert whole.result().patch.voxels.all()
    assert whole.seconds["pass"] < 0.5  # the clicks' time, and what nobody used, are not its own


def test_a_segmentation_that_was_cancelled_ends_before_the_next_click(manual, registry):
    registry.add("whole", Whole)
    study = manual.open_study(make_volume())
    whole = manual.submit(SegmentRequest(study, "whole"))
    manual.step(), manual.step()
    clicks = [manual.submit(request(study, i, structure=str(i))) for i in (3, 4)]
    manual.worker.cancel(whole)
    assert [manual.worker.position(job) for job in (whole, *clicks)] == [0, 1, 2]
    manual.step()
    assert whole.state is JobState.CANCELLED and not any(job.finished for job in clicks)
    while manual.step():
        pass
    assert all(job.result().patch.voxels.all() for job in clicks)


def test_one_segmentation_is_open_at_a_time_and_delays_nobodys_clicks(manual, registry):
    registry.add("whole", Whole)
    study = manual.open_study(make_volume())
    anns = [manual.submit(SegmentRequest(study, "whole", client=str(n)), sharer="ann") for n in range(2)]
    manual.step(), manual.step()
    bob = manual.submit(SegmentRequest(study, "whole", client="3"), sharer="bob")
    clicks = [manual.submit(request(study, i, structure=str(i)), sharer=name) for i, name in ((3, "bob"), (4, "ann"))]
    assert [manual.worker.position(job) for job in (*clicks, *anns, bob)] == [0, 1, 2, 4, 3]


def test_who_looks_closer_lets_first_answers_and_corrections_in_between_and_goes_before_segmentations(manual, registry):
    class Closer(Steps):
        card = replace(CARD, name="closer", quick="steps")

    registry.add("closer", Closer)
    registry.get("closer").go.set()
    registry.add("whole", Whole)
    study = manual.open_study(make_volume())
    whole = manual.submit(SegmentRequest(study, "whole"), sharer="eve")
    closer = manual.submit(request(study, 3, structure="3", model="closer"), sharer="ann")
    manual.step(), manual.step()
    assert closer.state is JobState.RUNNING and whole.state is JobState.QUEUED
    first = manual.submit(request(study, 4, structure="4"), sharer="bob")
    corrects = manual.submit(request(study, 5, structure="5", model="closer", base=known(manual, study)), sharer="cleo")
    assert [manual.worker.position(job) for job in (first, corrects, closer, whole)] == [0, 1, 2, 3]
    while manual.step():
        pass
    assert {job.state for job in (first, corrects, closer, whole)} == {JobState.DONE}


def known(backend: LocalBackend, study: str) -> str:
    """A version of a mask of one voxel that the backend knows."""
    return backend.put_mask(study, MaskPatch(Region((1, 1, 1), (2, 2, 2)), np.ones((1, 1, 1), bool)))


def test_work_that_fails_while_it_is_cancelled_ends_its_own_job_only():
    class Stubborn(Whole):
        def segment(self, volume):
            try:
                yield from super().segment(volume)
            finally:
                raise OSError("the disk is gone")

    stubborn = Job(Stubborn().segment(make_volume()))
    stubborn.step()
    stubborn.cancel()
    assert not stubborn.step() and stubborn.state is JobState.CANCELLED


def test_a_job_that_waits_and_is_cancelled_leaves_the_queue_at_once(backend, study, steps):
    running, waiting, last = (backend.submit(request(study, i, structure=str(i))) for i in range(3))
    assert steps.entered.wait(WAIT)
    backend.worker.cancel(waiting)
    assert waiting.state is JobState.CANCELLED and backend.worker.position(last) == 1
    backend.worker.cancel(running)
    assert running.state is JobState.RUNNING  # it ends between two of its steps
    steps.go.set()
    with pytest.raises(Cancelled):
        running.result(WAIT)
    assert last.result(WAIT) and steps.order == [0, 2]


def test_a_running_job_is_cancelled_between_its_steps(backend, study, steps):
    job = backend.submit(request(study))
    assert steps.entered.wait(WAIT)
    job.cancel()
    assert not job.finished
    steps.go.set()
    with pytest.raises(Cancelled):
        job.result(WAIT)
    assert job.state is JobState.CANCELLED
    assert steps.closed == 1
    assert job.last_step.fraction < 0.9
    assert backend.annotate(request(study)).patch.voxels.all()


def test_cancelling_a_finished_job_changes_nothing(backend, study, steps):
    steps.go.set()
    job = backend.submit(request(study))
    answer = job.result(WAIT)
    job.cancel()
    assert job.result() is answer and job.state is JobState.DONE


def test_waiting_for_a_result_can_time_out(backend, study):
    with pytest.raises(TimeoutError, match=r"after 0\.01 seconds"):
        backend.submit(request(study)).result(0.01)


def test_progress_reports_phases_with_a_fraction_that_never_falls(backend, study):
    prior = backend.annotate(AnnotateRequest(study, BALL))
    clicks = Prompts(positive=[[2, 2, 2]], negative=[[14, 12, 10]])
    for wanted in (AnnotateRequest(study, BALL), AnnotateRequest(study, clicks, base=prior.version)):
        seen: list[Step] = []
        answer = backend.annotate(wanted, seen.append)
        fractions = [step.fraction for step in seen]
        assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] == 1
        phases = list(dict.fromkeys(step.phase for step in seen))
        assert [p for p in phases if p not in ("open", "guess", "prior")] == [
            "crop",
            "pass",
            "settle",
            "paste",
            "version",
        ]
        assert phases == list(answer.seconds)


def test_warming_up_runs_the_default_model_and_what_fails_then_fails_no_request(registry, steps):
    weights = []
    with LocalBackend(bundled()) as backend:
        network = backend.registry.get("network")
        make, network._make_runner = network._make_runner, lambda: weights.append(1) or make()
        assert 3500 < backend.warm_up().result(60).mask.sum() < 4800  # a ball of radius 10 has 4169
        assert weights == [1] and "runner" in network.__dict__
    with LocalBackend(registry, default="missing") as backend:
        with pytest.raises(ModelError, match="missing"):
            backend.warm_up().result(5)
        study = backend.open_study(make_volume())
        assert backend.annotate(request(study, model="ellipsoid")).patch.mask.any()


def test_a_segmenter_that_fails_fails_its_own_job_only(backend, study, steps):
    steps.go.set()
    jobs = [backend.submit(request(study, structure=m, model=m)) for m in ("steps", "broken", "ellipsoid")]
    with pytest.raises(RuntimeError, match="on fire"):
        jobs[1].result(WAIT)
    assert jobs[1].state is JobState.FAILED
    assert jobs[0].result(WAIT).model == "steps"
    assert jobs[2].result(WAIT).model == "ellipsoid"


class Picky(Exception):
    """Cannot be made anew from what it says."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


@pytest.mark.parametrize(
    "error", [RuntimeError("on fire"), Picky("hot", "cold"), ModelError("no weights"), Cancelled("stop")]
)
def test_a_failed_job_keeps_neither_the_image_nor_what_those_who_wait_hold(registry, monkeypatch, error):
    class Failing(Broken):
        def annotate(self, volume, prompts):
            yield Step("pass", 0.0)
            try:
                raise KeyError("before")
            except KeyError as before:
                raise error from before

    def hear(job, mine):
        with pytest.raises(type(error), match=str(error)):
            job.result(WAIT)
        return weakref.ref(mine)

    registry.add("broken", Failing)
    monkeypatch.setattr(logging.getLogger("aiassist.engine.job"), "disabled", True)  # pytest keeps what is logged
    with LocalBackend(registry, threaded=False) as backend:
        volume = make_volume()
        study = backend.open_study(volume)
        job = backend.submit(request(study, model="broken"))
        while backend.step():
            pass
        backend.close_study(study)
        held = [weakref.ref(volume), *(hear(job, make_volume(number)) for number in range(3))]
        del volume
        gc.collect()
        alive = [ref() is not None for ref in held]
    assert alive == [False] * 3 + [type(error) is Picky]  # which is one error for all: it holds the last one's frames


def test_what_nobody_foresaw_is_logged_with_where_it_went_wrong(manual, caplog):
    job = manual.submit(request(manual.open_study(make_volume()), model="broken"))
    while manual.step():
        pass
    assert job.state is JobState.FAILED
    assert "in annotate" in caplog.text and "RuntimeError: the network is on fire" in caplog.text


def test_each_who_waits_for_a_failed_job_gets_an_error_of_their_own(manual):
    job = manual.submit(request(manual.open_study(make_volume()), model="broken"))
    while manual.step():
        pass
    caught = []
    for _ in range(3):
        with pytest.raises(RuntimeError, match="on fire") as one:
            job.result()
        caught.append(one)
    assert len({id(one.value) for one in caught}) == 3 and len({len(one.traceback) for one in caught}) == 1


# Without a thread


def test_without_a_thread_jobs_advance_only_by_step(manual):
    study = manual.open_study(make_volume())
    job = manual.submit(request(study))
    assert job.state is JobState.QUEUED
    count = 0
    while manual.step():
        count += 1
    assert count == 12  # one to open the study, ten steps, one to name the version
    assert job.result(0).patch.region.start == (10, 12, 14)
    assert manual.step() is False


def test_matrices_are_multiplied_by_one_thread_in_a_step_and_by_all_between_steps():
    blas = ThreadpoolController().select(user_api="blas")

    def threads() -> set[int]:
        return {pool["num_threads"] for pool in blas.info()}

    def work():
        seen.append(threads())
        yield Step("pass", 0.0)
        seen.append(threads())
        raise PromptError("It fails.")

    seen, worker = [], Worker("cpu", threaded=False)
    with blas.limit(limits=3):
        if threads() != {3}:
            pytest.skip("numpy's BLAS here has no threads to limit")
        worker.add(Job(work()))
        assert worker.step() and threads() == {3}
        assert not worker.step() and threads() == {3}
    assert seen == [{1}, {1}]


def test_without_a_thread_annotate_still_waits_for_its_answer(manual):
    study = manual.open_study(make_volume())
    first = manual.submit(request(study, 1, structure="first"))
    assert manual.annotate(request(study, 2)).patch.region.start == (10, 12, 2)
    assert first.finished


def test_both_kinds_of_worker_give_the_same_mask(backend, study, manual):
    other = manual.open_study(make_volume())
    wanted = AnnotateRequest(study, BALL)
    assert manual.annotate(replace(wanted, study=other)).version == backend.annotate(wanted).version


# Masks by version


def test_correcting_a_version_by_its_hash_is_correcting_the_mask_itself(backend, study):
    first = backend.annotate(AnnotateRequest(study, BALL))
    clicks = Prompts(negative=[[14, 12, 15]], positive=[[3, 12, 10]])
    by_hash = backend.annotate(AnnotateRequest(study, clicks, base=first.version))
    by_mask = backend.annotate(AnnotateRequest(study, replace(clicks, prior=first.patch)))
    assert by_hash.base == by_mask.base == first.version
    assert by_hash.version == by_mask.version != first.version
    assert by_hash.patch.to_bytes() == by_mask.patch.to_bytes()
    whole = first.patch.to_mask(SHAPE)
    by_hash.patch.paste(whole)
    assert MaskPatch.of_mask(whole).version == by_hash.version
    assert whole[10, 12, 3] and not whole[15, 12, 14]


def test_a_chain_of_corrections_names_each_base(backend, study):
    version = backend.annotate(AnnotateRequest(study, BALL)).version
    whole = backend.annotate(AnnotateRequest(study, BALL)).patch.to_mask(SHAPE)
    for i in (3, 24, 5):
        answer = backend.annotate(AnnotateRequest(study, click(i), base=version))
        assert answer.base == version
        answer.patch.paste(whole)
        version = answer.version
        assert MaskPatch.of_mask(whole).version == version


def test_the_base_takes_the_place_of_a_prior(backend, study):
    base = backend.put_mask(study, MaskPatch.of_mask(make_volume().voxels > 100))
    other = MaskPatch.of_mask(make_volume().voxels > 1000)
    answer = backend.annotate(AnnotateRequest(study, replace(click(14), prior=other), base=base))
    assert (answer.base, answer.version) == (base, base)


def test_a_mask_that_is_put_is_known_by_its_hash(backend, study):
    mask = make_volume().voxels > 100
    loose = MaskPatch(Region((0, 0, 0), SHAPE), mask)
    version = backend.put_mask(study, loose)
    assert version == MaskPatch.of_mask(mask).version == loose.version
    with pytest.raises(PromptError, match="beyond the volume"):
        backend.put_mask(study, MaskPatch(Region((0, 0, 0), (21, 1, 1)), np.ones((21, 1, 1), bool)))


def test_masks_beyond_the_limit_must_be_sent_again(backend, study, steps, monkeypatch):
    monkeypatch.setattr(backend.studies, "mask_budget", 5)  # bytes; each mask here has one voxel
    steps.go.set()
    patches = []
    for n in range(6):
        voxel = np.zeros(SHAPE, bool)
        voxel[np.unravel_index(n, SHAPE)] = True
        patches.append(MaskPatch.of_mask(voxel))
        backend.put_mask(study, patches[-1])
    with pytest.raises(StudyError, match=f"{patches[0].version}.*send it again"):
        backend.submit(request(study, base=patches[0].version))
    assert backend.annotate(request(study, base=patches[1].version)).base == patches[1].version
    backend.put_mask(study, patches[0])
    assert backend.annotate(request(study, base=patches[0].version)).base == patches[0].version


def test_the_masks_of_who_remembers_much_do_not_push_out_those_of_others():
    studies, masks = Studies(), [np.zeros(SHAPE, bool) for _ in range(4)]
    for n, mask in enumerate(masks):
        mask[0, 0, n] = mask[-1, -1, -1] = True
    patches = [MaskPatch.of_mask(mask) for mask in masks]
    one = len(np.packbits(patches[0].mask))
    studies.mask_budget = 3 * one
    others = studies.remember("other", patches[0])
    versions = [studies.remember("much", patch) for patch in patches]
    assert studies.mask("other", others).version == others  # the oldest, but the only one of its study
    assert [studies.mask("much", version).version for version in versions[2:]] == versions[2:]
    for version in versions[:2]:
        with pytest.raises(StudyError, match="send it again"):
            studies.mask("much", version)


def test_a_server_of_more_memory_remembers_more_masks():
    assert Studies().mask_budget == Studies(2**20).mask_budget == 48 * 2**20
    assert Studies(4 * 2**30).mask_budget == 256 * 2**20


def test_volumes_beyond_the_budget_go_and_come_back_by_themselves():
    volumes = {v.study_id: v for v in (make_volume(n) for n in range(3))}
    read = []

    def load(study):
        read.append(study)
        if study not in volumes:
            raise UnknownStudyError(f"no {study}")
        return volumes[study]

    first, second, _ = volumes
    studies = Studies(2 * volumes[first].voxels.nbytes, load)
    for volume in volumes.values():
        studies.open(volume)
    assert studies.bytes == 2 * volumes[first].voxels.nbytes
    assert studies.volume(second) is volumes[second] and not read  # the first went
    assert studies.volume(first) is volumes[first] and read == [first]
    assert studies.volume(second) is volumes[second] and read == [first]  # now the third went
    with pytest.raises(UnknownStudyError, match="beef"):
        studies.volume("beef")


def test_a_full_queue_refuses_and_takes_again_later(steps):
    registry = Registry()
    registry.add("steps", lambda: steps)
    with LocalBackend(registry, default="steps", queue=2) as backend:
        study = backend.open_study(make_volume())
        jobs = [backend.submit(request(study, structure=str(n))) for n in range(2)]
        with pytest.raises(BusyError, match="2 requests wait for the cpu"):
            backend.submit(request(study, structure="3"))
        steps.go.set()
        for job in jobs:
            job.result(10)
        assert backend.annotate(request(study, structure="3")).study == study


def test_one_sharer_cannot_fill_the_queue_but_still_overtakes_its_own(steps):
    registry = Registry()
    registry.add("steps", lambda: steps)
    with LocalBackend(registry, default="steps", queue=4, share=2) as backend:
        study = backend.open_study(make_volume())
        jobs = [backend.submit(request(study, structure=str(n)), sharer="ann") for n in range(2)]
        with pytest.raises(BusyError, match="2 requests of yours wait for the cpu"):
            backend.submit(request(study, structure="3"), sharer="ann")
        newer = backend.submit(request(study, structure="1"), sharer="ann")
        other = backend.submit(request(study, structure="4"), sharer="bob")
        steps.go.set()
        assert jobs[0].result(10) and newer.result(10) and other.result(10)
        with pytest.raises(Cancelled):
            jobs[1].result(10)


class Hungry(Ellipsoid):
    """A segmenter that finds its device full."""

    card = replace(Ellipsoid.card, devices=("cpu", "cuda"))

    def annotate(self, volume, prompts):
        yield Step("pass", 0.0)
        raise DeviceMemoryError("The cuda has too little memory for the network now.")


def test_when_the_device_is_full_the_cpu_takes_over_and_says_so():
    registry = Registry()
    registry.add("ellipsoid", Hungry)
    with LocalBackend(registry, default="ellipsoid", device="cuda") as backend:
        study = backend.open_study(make_volume())
        answer = backend.annotate(AnnotateRequest(study, BALL))
        assert answer.device == "cpu" and answer.patch.mask.any()
        backend.fallback = None
        with pytest.raises(DeviceMemoryError):
            backend.annotate(AnnotateRequest(study, BALL))


@pytest.mark.parametrize("meanwhile", ["published", "taken back"])
def test_the_version_that_was_asked_for_takes_over_on_the_cpu_and_is_named(tmp_path, meanwhile):
    models, ran = ModelStore(tmp_path), []

    class Version(Ellipsoid):
        def __init__(self, folder):
            self.card = replace(Ellipsoid.card, name="mine", version=folder.name)

        def annotate(self, volume, prompts):
            ran.append(self.card.version)
            return super().annotate(volume, prompts)

    class HungryVersion(Version):
        def __init__(self, folder):
            super().__init__(folder)
            self.card = replace(self.card, devices=Hungry.card.devices)

        annotate = Hungry.annotate

    for _ in range(2):
        with models.new_version("mine"):
            pass
    models.publish("mine", 1, "ann")
    with LocalBackend(Registry(models, HungryVersion), default="mine", device="cuda", threaded=False) as backend:
        backend.fallback = Registry(models, Version)
        job = backend.submit(AnnotateRequest(backend.open_study(make_volume()), BALL))
        models.publish("mine", 2, "ann") if meanwhile == "published" else models.rollback("mine", "ann")
        while backend.step():
            pass
    answer = job.result()
    assert (ran, answer.model_version, answer.device) == (["1"], "1", "cpu")


def test_a_model_that_nothing_can_take_over_from_says_that_the_device_is_full():
    class Own(Hungry):
        card = replace(Hungry.card, name="own")

    registry = Registry()
    registry.add("own", Own)
    with LocalBackend(registry, default="own", device="cuda") as backend:
        study = backend.open_study(make_volume())
        with pytest.raises(DeviceMemoryError):
            backend.annotate(AnnotateRequest(study, BALL))


def test_masks_of_one_study_are_not_known_in_another(backend, study):
    other = backend.open_study(make_volume(1))
    version = backend.put_mask(study, MaskPatch.of_mask(make_volume().voxels > 100))
    with pytest.raises(StudyError, match=version):
        backend.submit(request(other, base=version))


# The end


def test_closing_stops_the_thread_and_cancels_what_waits(registry, steps):
    backend = LocalBackend(registry)
    study = backend.open_study(make_volume())
    jobs = [backend.submit(request(study, i, structure=str(i))) for i in range(4)]
    assert steps.entered.wait(WAIT)
    threading.Timer(0.05, steps.go.set).start()
    backend.close()
    for job in jobs:
        with pytest.raises(Cancelled):
            job.result(WAIT)
    assert steps.order in ([], [0.0])
    assert not [t for t in threading.enumerate() if t is backend.worker._thread]


def test_closing_without_a_thread_cancels_what_waits(manual):
    study = manual.open_study(make_volume())
    jobs = [manual.submit(request(study, i, structure=str(i))) for i in range(3)]
    manual.step()
    manual.close()
    assert [job.state for job in jobs] == [JobState.CANCELLED] * 3


@pytest.mark.parametrize("threaded", [True, False])
def test_a_closed_backend_refuses_work_instead_of_letting_it_wait_for_ever(threaded):
    backend = LocalBackend(threaded=threaded)
    study = backend.open_study(make_volume())
    backend.close()
    backend.close()
    with pytest.raises(AIAssistError, match="closed"):
        backend.submit(AnnotateRequest(study, BALL))
