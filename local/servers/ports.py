"""Free TCP ports, the same ones for a server that is started again."""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import tempfile
import threading
from functools import cache
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 10_240
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_drawn: set[int] = set()
"""Ports of all books of this process."""


def _highest() -> int:
    """The last port below the range from which the kernel serves outgoing connections.

    While a server is down, any client's outgoing connection can take a port of that range (binding to port 0
    gives one of them), and a client that keeps dialling it can even connect to itself.
    """
    try:
        return max(int(_EPHEMERAL_RANGE.read_text().split()[0]) - 1, _LOWEST + 1000)
    except (OSError, ValueError):
        return 32_767


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: ignore connections in TIME_WAIT, which the last run left.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def host_and_port(address: str) -> tuple[str, int]:
    """The parts of `host:port`."""
    host, _, port = address.rpartition(":")
    return host, int(port)


def accepts(port: int, host: str = HOST, timeout_s: float = 1.0) -> bool:
    """Whether something accepts TCP connections there within `timeout_s` seconds."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


@cache
def _reservations() -> int:
    """A file of which a process locks the byte of each port that it has drawn, until it ends."""
    return os.open(
        Path(tempfile.gettempdir()) / f"ownership-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT, 0o600
    )


def _reserve(port: int) -> bool:
    """Whether no other process has drawn `port`: its server may not listen yet, or be down for a while."""
    try:
        fcntl.lockf(_reservations(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


class PortBook:
    """Hands out free ports by name, and remembers them: a name gets the same port next time if it is still free.

    No two books draw the same port, also those of other processes of this user. An address in a browser or a shell stays valid after `make down` and `make up`. Thread-safe.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        self._handed_out: dict[str, int] = {}

    def port(self, name: str) -> int:
        """The port of `name`, which was free at the first call. Raises RuntimeError when no port is free."""
        with self._lock:
            if name in self._handed_out:
                return self._handed_out[name]
            known = self._ports.get(name)
            if known is None or not is_free(known) or not _reserve(known):
                known = self._fresh()
                self._ports[name] = known
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.write_text(json.dumps(self._ports, indent=1) + "\n")
            self._handed_out[name] = known
            _drawn.add(known)
            return known

    def _fresh(self) -> int:
        taken = _drawn | set(self._ports.values())
        for _ in range(1000):
            candidate = random.randint(_LOWEST, _highest())
            if candidate not in taken and is_free(candidate) and _reserve(candidate):
                return candidate
        raise RuntimeError(f"No free TCP port between {_LOWEST} and {_highest()}; stop something first.")
