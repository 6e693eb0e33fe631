"""Python threads starve while Qt runs or waits, and all that is Qt's own goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

SHELL = Path(__file__).parents[1]
#: Milliseconds that Qt waits; a thread that may run gets a turn in nearly each of them.
WAIT = 200
#: Tells how many turns a thread gets in each way of waiting: with PySide6 as it comes, and with what the shell does.
COUNT_TURNS = f"""
import json, threading, time
from PySide6.QtCore import SLOT, QEventLoop, QProcess, QTimer
from PySide6.QtWidgets import QApplication, QDialog, QMenu
from shell import interpreter_lock

def count():
    global turns
    while True:
        turns += 1
        time.sleep(0.001)

def run_loop():
    loop = QEventLoop()
    QTimer.singleShot({WAIT}, loop, SLOT("quit()"))
    loop.exec()

def run_application():
    QTimer.singleShot({WAIT}, application, SLOT("quit()"))
    application.exec()

def wait_for_one_event():
    QApplication.processEvents()
    QTimer.singleShot({WAIT}, application, SLOT("quit()"))
    QApplication.processEvents(QEventLoop.ProcessEventsFlag.WaitForMoreEvents)

def show_dialog():
    dialog = QDialog()
    QTimer.singleShot({WAIT}, dialog, SLOT("accept()"))
    dialog.exec()

def show_menu():
    menu = QMenu()
    menu.addAction("one")
    QTimer.singleShot({WAIT}, menu, SLOT("close()"))
    menu.exec()

def wait_for_process():
    process = QProcess()
    process.start("sleep", ["{WAIT / 1000}"])
    assert process.waitForStarted() and process.waitForFinished()

def turns_of(way):
    before = turns
    way()
    return turns - before

application, turns = QApplication([]), 0
threading.Thread(target=count, daemon=True).start()
ways = (run_loop, run_application, wait_for_one_event, show_dialog, show_menu, wait_for_process)
free = {{way.__name__: turns_of(way) for way in ways}}
interpreter_lock.hold()
print(json.dumps([free, {{way.__name__: turns_of(way) for way in ways}}]))
"""


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


def test_threads_starve_however_qt_waits_and_do_not_with_pyside_as_it_comes():
    done = subprocess.run([sys.executable, "-c", COUNT_TURNS], cwd=SHELL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    free, held = json.loads(done.stdout)
    assert len(free) == len(held) == 6
    assert min(free.values()) > 10, free
    assert max(held.values()) <= 3, held  # between two lines of Python a thread gets a turn, in Slicer, too


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


def test_what_python_itself_waits_for_lets_threads_run(shell, counter):
    with shell.interpreter_lock.starving_threads(60):
        before = counter.turns
        time.sleep(WAIT / 1000)
        assert counter.turns > before + 10
    assert sys.getswitchinterval() < 1


def test_a_system_or_a_build_of_which_nothing_is_known_is_refused(shell, monkeypatch):
    with monkeypatch.context() as other, pytest.raises(RuntimeError, match="on 64-bit Linux only"):
        other.setattr(sys, "platform", "win32")
        shell.interpreter_lock.hold()
    monkeypatch.setattr(shell.interpreter_lock, "INSTEAD", {b"PyEval_Other": "PyThreadState_Get"})
    with pytest.raises(RuntimeError, match=r"PySide6\.QtCore, .* threads might run that starve in Slicer"):
        shell.interpreter_lock.hold()
