"""Measure many structures, in parallel where cores allow."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager

import SimpleITK as sitk

from aiassist.engine import LocalBackend
from aiassist.errors import AIAssistError, MissingExtraError
from aiassist.evaluation.baselines import comparable
from aiassist.evaluation.cases import Structure
from aiassist.evaluation.measure import Plan, Result, measure

#: Windows waits for no more processes than this at once.
MOST_ON_WINDOWS = 61

_backend: LocalBackend | None = None


def evaluate(
    structures: list[Structure],
    plan: Plan,
    workers: int | None = None,
    progress: Callable[[int, int, str], None] = lambda done, total, title: None,
) -> list[Result]:
    """Results of every model of the plan on every structure, in the order of `structures`.

    Parameters
    ----------
    structures : list of Structure
    plan : Plan
    workers : int, optional
        Processes, each with one thread; one per core when absent. One means this process.
    progress : callable
        Called with the number done, the total, and the title of the structure just done.

    Raises
    ------
    AIAssistError
        When a structure cannot be measured, with its title, or when the system ends a process.
    """
    workers = _count(workers, len(structures))
    if workers == 1:
        found = _in_this_process(structures, plan, progress)
    else:
        found = _in_parallel(structures, plan, workers, progress)
    return [result for number in sorted(found) for result in found[number]]


def _count(workers: int | None, structures: int) -> int:
    """How many processes there should be."""
    workers = min(workers or os.cpu_count() or 1, max(structures, 1))
    return min(workers, MOST_ON_WINDOWS) if sys.platform == "win32" else workers


def _in_this_process(structures, plan, progress) -> dict[int, list[Result]]:
    threads = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    _start_worker(plan.trained)
    found = {}
    try:
        for number, structure in enumerate(structures):
            found[number] = _measure(structure, plan)
            progress(number + 1, len(structures), structure.title)
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(threads)
    return found


def _in_parallel(structures, plan, workers, progress) -> dict[int, list[Result]]:
    context, others = multiprocessing.get_context("spawn"), set(multiprocessing.active_children())
    found = {}
    with ProcessPoolExecutor(workers, context, _start_worker, (plan.trained,)) as pool:
        try:
            with _ctrl_c_held():
                tasks = {pool.submit(_measure, s, plan): n for n, s in enumerate(structures)}
            for task in as_completed(tasks):
                number = tasks[task]
                found[number] = task.result()
                progress(len(found), len(structures), structures[number].title)
        except BrokenProcessPool as error:
            raise AIAssistError(
                f"One of {workers} processes was ended from outside, most likely for want of memory; "
                f"use fewer, for example --workers {max(workers // 2, 1)}."
            ) from error
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in set(multiprocessing.active_children()) - others:
                worker.terminate()
            raise
    return found


@contextmanager
def _ctrl_c_held() -> Iterator[None]:
    """Ctrl+C comes afterwards. What starts meanwhile never hears it: it is the parent's to handle."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "pthread_sigmask"):
        yield  # nobody hears it here, or, on Windows, nothing can be done
        return
    came: list[int] = []
    handler = signal.signal(signal.SIGINT, lambda number, _frame: came.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # what starts inherits it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, handler)
        if came:
            signal.raise_signal(signal.SIGINT)


def _start_worker(trained: str | None) -> None:
    """Measure in this process, with one thread, so that times are the same however many processes there are."""
    global _backend
    if multiprocessing.parent_process() is not None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # on Windows it is heard until here
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    _backend = LocalBackend(comparable(threads=1, trained=trained), threaded=False)


def _measure(structure: Structure, plan: Plan) -> list[Result]:
    try:
        return measure(structure, plan, _backend)
    except MissingExtraError:
        raise
    except (AIAssistError, OSError) as error:
        raise AIAssistError(f"{structure.title} cannot be measured: {error}") from error
    except Exception as error:
        error.add_note(f"This happened while {structure.title} was measured.")
        raise
