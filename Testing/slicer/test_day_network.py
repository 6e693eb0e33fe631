"""Answers that break off on their way are none."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from aiassist.errors import ConnectionLostError
from aiassist.protocol import Reply, Request
from AIAssistLib import network_qt
from AIAssistLib.network_qt import NetworkCarrier
from helpers import wait

BODY = json.dumps({"text": "a whole answer"}).encode()
#: A server that sends so many bytes of its answers, one after the other, and breaks the connection off.
SERVER = """
import socket, sys
body, counts = sys.argv[1].encode(), [int(count) for count in sys.argv[2:]]
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
while True:
    connection, _ = listening.accept()
    connection.recv(65536)
    print("asked", flush=True)
    count = counts.pop(0) if len(counts) > 1 else counts[0]
    head = f"HTTP/1.1 200 OK\\r\\nContent-Length: {len(body)}\\r\\nConnection: close\\r\\n\\r\\n"
    connection.sendall(head.encode() + body[:count])
    connection.close()
"""


#: Managers of requests that must outlive their replies.
_held: list[NetworkCarrier] = []


class Breaking:
    """A server that breaks off, and the carrier that asks it."""

    def __init__(self, counts):
        command = [sys.executable, "-c", SERVER, BODY.decode(), *map(str, counts)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.carrier = NetworkCarrier(f"http://127.0.0.1:{int(self._process.stdout.readline())}")
        _held.append(self.carrier)

    def asked(self) -> int:
        """Stop it; how often it was asked."""
        self._process.kill()
        return self._process.communicate()[0].count("asked")


@pytest.fixture
def breaking(application, monkeypatch):
    """Called with how many bytes of each answer come before the connection breaks."""
    monkeypatch.setattr(network_qt, "AGAIN", (0.0, 0.0))
    return lambda *counts: Breaking(counts)


def carried(server: Breaking, repeatable: bool) -> Reply | Exception:
    """What comes of a request."""
    replies: list[Reply | Exception] = []
    server.carrier.carry(Request("GET", "/", repeatable=repeatable), replies.append)
    wait(lambda: replies)
    return replies[0]


def test_an_answer_that_breaks_off_is_asked_again(breaking):
    going = breaking(5, len(BODY))
    reply = carried(going, repeatable=True)
    assert (reply.status, reply.body, going.asked()) == (200, BODY, 2)


def test_an_answer_that_always_breaks_off_is_said_to_be_lost(breaking):
    going = breaking(5)
    error = carried(going, repeatable=True)
    assert isinstance(error, ConnectionLostError) and "does not answer" in str(error) and going.asked() == 3


def test_what_may_not_be_repeated_is_asked_once(breaking):
    going = breaking(5)
    assert isinstance(carried(going, repeatable=False), ConnectionLostError) and going.asked() == 1
