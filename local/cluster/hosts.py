"""Hosts of their own for the nodes of the stores: network namespaces on one bridge. Needs Linux, root and `ip`."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Final, Self

_HERE: Final = 254
"""The number of this machine among the hosts."""
_NOWHERE: Final = "02:00:00:00:00:01"
"""An Ethernet address that no host has."""


class Hosts:
    """`count` hosts, numbered from 1. As a context manager it makes them and takes them away.

    Two of them, or one and this machine, can stop hearing each other: a permanent wrong entry among the neighbours of
    the sender has each of its packets end nowhere, and neither side is told. So a partition looks in a real network.
    """

    def __init__(self, count: int = 3) -> None:
        self._numbers = range(1, count + 1)
        self._mark = os.getpid()
        self.network = f"10.203.{self._mark % 256}"
        """The first three numbers of the hosts' addresses; the last one is the host's."""

    @staticmethod
    def why_not() -> str | None:
        """Why there can be none here; None if there can."""
        if shutil.which("ip") is None or shutil.which("nsenter") is None:
            return "the commands ip and nsenter are missing"
        return None if os.geteuid() == 0 else "network namespaces need root"

    def __enter__(self) -> Self:
        try:
            _ip("link", "add", self._bridge, "type", "bridge")
            _ip("address", "add", f"{self.network}.{_HERE}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
            for number in self._numbers:
                self._make(number)
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._remove()

    def inside(self, number: int) -> tuple[str, ...]:
        """What a command line begins with, to run on the host."""
        return ("nsenter", f"--net=/run/netns/{self._namespace(number)}")

    @contextmanager
    def mute(self, number: int) -> Iterator[None]:
        """Nobody hears the host; it hears the others."""
        with self._lost((number, other) for other in self._others(number)):
            yield

    @contextmanager
    def deaf(self, number: int) -> Iterator[None]:
        """The host hears nobody; the others hear it."""
        with self._lost((other, number) for other in self._others(number)):
            yield

    @contextmanager
    def cut_off(self, number: int) -> Iterator[None]:
        """Both."""
        with self.mute(number), self.deaf(number):
            yield

    @contextmanager
    def _lost(self, pairs: Iterable[tuple[int, int]]) -> Iterator[None]:
        with ExitStack() as found_again:
            for sender, receiver in pairs:
                where = (f"{self.network}.{receiver}", "dev", self._bridge if sender == _HERE else "eth0")
                self._on(sender, "neigh", "replace", *where, "lladdr", _NOWHERE, "nud", "permanent")
                found_again.callback(self._on, sender, "neigh", "del", *where)
            yield

    def _make(self, number: int) -> None:
        namespace, link = self._namespace(number), f"ov{self._mark}n{number}"
        _ip("netns", "add", namespace)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        _ip("link", "set", link, "master", self._bridge, "up")
        self._on(number, "address", "add", f"{self.network}.{number}/24", "dev", "eth0")
        for device in ("lo", "eth0"):
            self._on(number, "link", "set", device, "up")

    def _remove(self) -> None:
        for number in self._numbers:
            _ip("netns", "del", self._namespace(number), check=False)
        _ip("link", "del", self._bridge, check=False)

    def _others(self, number: int) -> list[int]:
        return [n for n in (*self._numbers, _HERE) if n != number]

    def _on(self, number: int, *command: str) -> None:
        _ip(*(() if number == _HERE else ("-n", self._namespace(number))), *command)

    @property
    def _bridge(self) -> str:
        return f"ob{self._mark}"

    def _namespace(self, number: int) -> str:
        return f"ownership-{self._mark}-{number}"


def _ip(*command: str, check: bool = True) -> None:
    """Raises RuntimeError, with its words, when it fails."""
    done = subprocess.run(("ip", *command), capture_output=True, text=True, timeout=10, check=False)
    if check and done.returncode:
        raise RuntimeError(f"`ip {' '.join(command)}` failed: {done.stderr.strip()}")
