"""Work that calls back, in pieces."""

from __future__ import annotations

import threading

import pytest

from aiassist.errors import Cancelled
from aiassist.segmenters.pieces import in_pieces


def counting(log: list, calls: int = 3):
    def work(pause):
        for number in range(calls):
            pause()
            log.append(number)
        return sum(log)

    return work


def outcome(pieces):
    while True:
        try:
            next(pieces)
        except StopIteration as end:
            return end.value


def test_it_pauses_at_each_call_and_never_runs_ahead():
    log: list[int] = []
    pieces = in_pieces(counting(log))
    for number in range(3):
        next(pieces)
        assert log == list(range(number))
    assert outcome(pieces) == 3


def test_what_is_closed_ends_where_it_is():
    log: list[int] = []
    pieces = in_pieces(counting(log))
    next(pieces)
    next(pieces)
    threads = threading.active_count()
    pieces.close()
    assert (log, threading.active_count()) == ([0], threads - 1)


def test_an_error_comes_to_whoever_advances_it():
    def work(pause):
        pause()
        raise ValueError("no room")

    pieces = in_pieces(work)
    next(pieces)
    with pytest.raises(ValueError, match="no room"):
        next(pieces)


def test_what_swallows_that_it_is_cancelled_is_told_again():
    told = []

    def work(pause):
        for _ in range(3):
            try:
                pause()
            except Cancelled:
                told.append("cancelled")

    pieces = in_pieces(work)
    next(pieces)
    pieces.close()
    assert told == ["cancelled"] * 3
