"""What Qt does while a Python thread starves. ``test_interpreter_lock.py`` runs these in a process of their own.

In a process that has run other tests a thread might free what those left behind of Qt and VTK, which ends Python.
"""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import time

import pytest

#: Milliseconds that Qt waits; a thread that may run gets a turn in nearly each of them.
WAIT = 200


class Counter:
    """A Python thread that counts how often it gets a turn."""

    def __init__(self):
        self.turns, self._wanted = 0, True
        self._thread = threading.Thread(target=self._count)
        self._thread.start()

    def _count(self) -> None:
        while self._wanted:
            self.turns += 1
            time.sleep(0.001)

    def stop(self) -> None:
        self._wanted = False
        self._thread.join()


@pytest.fixture
def counter():
    """A thread that counts, until the test ends."""
    counter = Counter()
    yield counter
    counter.stop()


@pytest.fixture
def server(tmp_path):
    """The address of a web server, a process of its own, that has a page."""
    (tmp_path / "page").write_text("a page")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    port = process.stdout.readline().split(" port ")[1].split()[0]
    yield f"http://127.0.0.1:{port}"
    process.kill()
    process.communicate()


def test_slots_timers_processes_and_the_network_go_on_while_threads_starve(qt, shell, server, counter):
    said, beats, loop = [], [], qt.QEventLoop()
    process, heart, manager = qt.QProcess(), qt.QTimer(), qt.QNetworkAccessManager()
    manager.setProxy(qt.QNetworkProxy(qt.QNetworkProxy.NoProxy))
    reply = manager.get(qt.QNetworkRequest(qt.QUrl(f"{server}/page")))

    def heard(what: bytes) -> None:
        said.append(what)
        if len(said) == 2:
            qt.QTimer.singleShot(WAIT, loop, "quit()")

    reply.connect("finished()", lambda: heard(reply.readAll().data()))
    process.connect("finished(int,QProcess::ExitStatus)", lambda: heard(process.readAll().data()))
    process.start("echo", ["a process"])
    heart.connect("timeout()", lambda: beats.append(1))
    heart.start(10)
    with shell.interpreter_lock.starving_threads(60):
        before = counter.turns
        loop.exec_()
        assert counter.turns <= before + 1
    assert sorted(said) == [b"a page", b"a process\n"] and len(beats) > 3


def test_a_test_that_waits_lets_no_thread_run(counter):
    from helpers import wait

    end, before = time.monotonic() + WAIT / 1000, counter.turns
    wait(lambda: time.monotonic() > end)
    assert counter.turns <= before + 1


def test_a_wait_leaves_no_running_timer_to_the_thread_that_collects_an_error(shell, capfd):
    from helpers import wait

    kept = []

    def until() -> bool:
        with pytest.raises(KeyError) as kept_error:
            {}["an error keeps the frames of all who called"]
        kept.append(kept_error)
        return True

    wait(until)
    kept.clear()
    collecting = threading.Thread(target=gc.collect)
    collecting.start()
    collecting.join()
    shell.app.processEvents()
    assert "another thread" not in capfd.readouterr().err


def test_what_python_itself_waits_for_lets_threads_run(shell, counter):
    with shell.interpreter_lock.starving_threads(60):
        before = counter.turns
        time.sleep(WAIT / 1000)
        assert counter.turns > before + 10
    assert sys.getswitchinterval() < 1
