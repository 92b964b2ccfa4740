"""Hosts of their own: what a partition lets through, and that nothing of them is left."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from local.cluster.hosts import Hosts

# Network namespaces need Linux, root and `ip`; where they cannot be, `make chaos CLUSTER=1` plays no partition either, and
# says so.
pytestmark = pytest.mark.skipif(Hosts.why_not() is not None, reason=str(Hosts.why_not()))

_ECHO = """
import socket, sys
here = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
here.bind((sys.argv[1], 9))
print("up", flush=True)
while True:
    said, where = here.recvfrom(9)
    print(said.decode(), flush=True)
    here.sendto(said, where)
"""
_ASK = """
import socket, sys
asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
asking.settimeout(0.3)
asking.sendto(sys.argv[2].encode(), (sys.argv[1], 9))
try:
    print("answered" if asking.recv(9) else "")
except TimeoutError:
    print("silence")
"""


@pytest.fixture(scope="module")
def hosts() -> Iterator[Hosts]:
    with Hosts(2) as made:
        yield made


@pytest.fixture(scope="module")
def listener(hosts: Hosts) -> Iterator[subprocess.Popen[str]]:
    """On host 1; prints what it hears and answers it."""
    command = (*hosts.inside(1), sys.executable, "-c", _ECHO, f"{hosts.network}.1")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "up\n"
        yield process
        process.kill()


def _ask(hosts: Hosts, word: str, *, inside: tuple[str, ...] = ()) -> str:
    command = (*inside, sys.executable, "-c", _ASK, f"{hosts.network}.1", word)
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.strip()


@pytest.mark.parametrize("other", [False, True], ids=["from this machine", "from another host"])
def test_a_partition_ends_as_it_began(hosts: Hosts, listener: subprocess.Popen[str], *, other: bool) -> None:
    inside = hosts.inside(2) if other else ()

    def ask(word: str) -> str:
        return _ask(hosts, word, inside=inside)

    assert ask("before") == "answered"
    with hosts.mute(1):
        assert ask("mute") == "silence"
    with hosts.deaf(1):
        assert ask("deaf") == "silence"
    with hosts.cut_off(1):
        assert ask("cut off") == "silence"
    assert ask("after") == "answered"
    assert listener.stdout
    assert [listener.stdout.readline().strip() for _ in range(3)] == ["before", "mute", "after"]


def test_nothing_is_left_of_them() -> None:
    def namespaces() -> set[str]:
        return set(
            subprocess.run(("ip", "netns", "list"), capture_output=True, text=True, check=True).stdout.split()
        )

    before = namespaces()
    other = Hosts(1)
    other._mark += 1  # beside those of this module
    with other:
        assert namespaces() > before
    assert namespaces() == before
