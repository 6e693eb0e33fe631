"""Python threads starve while Qt runs or waits, and all that is Qt's own goes on."""

from __future__ import annotations

import json
import subprocess
import sys
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


def test_threads_starve_however_qt_waits_and_do_not_with_pyside_as_it_comes():
    done = subprocess.run([sys.executable, "-c", COUNT_TURNS], cwd=SHELL, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    free, held = json.loads(done.stdout)
    assert len(free) == len(held) == 6
    assert min(free.values()) > 10, free
    # Between two lines of Python a thread gets a turn, in Slicer, too.
    assert 5 * max(held.values()) < min(free.values()), (held, free)


def test_all_that_is_qts_own_goes_on_while_threads_starve():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", Path(__file__).with_name("threads.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_a_system_or_a_build_of_which_nothing_is_known_is_refused(shell, monkeypatch):
    with monkeypatch.context() as other, pytest.raises(RuntimeError, match="on 64-bit Linux only"):
        other.setattr(sys, "platform", "win32")
        shell.interpreter_lock.hold()
    monkeypatch.setattr(shell.interpreter_lock, "INSTEAD", {b"PyEval_Other": "PyThreadState_Get"})
    with pytest.raises(RuntimeError, match=r"PySide6\.QtCore, .* threads might run that starve in Slicer"):
        shell.interpreter_lock.hold()
