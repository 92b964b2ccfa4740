"""TCP ports that are free now, and stay the same for a server that is started again."""

from __future__ import annotations

import json
import random
import socket
import threading
from pathlib import Path

HOST = "127.0.0.1"
_LOWEST = 10_240
_EPHEMERAL_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def _highest() -> int:
    """The last port below the range from which the kernel serves outgoing connections.

    A port from that range (what binding to port 0 gives) can be taken by any client's outgoing
    connection while its server is down, and a client that keeps dialling it can even connect to itself.
    """
    try:
        return max(int(_EPHEMERAL_RANGE.read_text().split()[0]) - 1, _LOWEST + 1000)
    except (OSError, ValueError):
        return 32_767


def is_free(port: int) -> bool:
    """Whether a server could listen on `port` of the loopback interface now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: connections of the last run in TIME_WAIT do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def accepts(port: int, host: str = HOST, timeout_s: float = 1.0) -> bool:
    """Whether something accepts TCP connections there within `timeout_s` seconds."""
    try:
        with socket.create_connection((host, port), timeout=timeout_s):
            return True
    except OSError:
        return False


class PortBook:
    """Hands out free ports by name, and the same port for the same name the next time while it is free.

    So an address in a browser or a shell survives `make down` and `make up`. Safe to use from threads.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._ports: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
        self._handed_out: dict[str, int] = {}

    def port(self, name: str) -> int:
        """The port of `name`, free when it was asked for first. Raises RuntimeError when none can be found."""
        with self._lock:
            if name in self._handed_out:
                return self._handed_out[name]
            known = self._ports.get(name)
            if known is None or not is_free(known):
                known = self._fresh()
                self._ports[name] = known
                self._file.parent.mkdir(parents=True, exist_ok=True)
                self._file.write_text(json.dumps(self._ports, indent=1) + "\n")
            self._handed_out[name] = known
            return known

    def _fresh(self) -> int:
        reserved = set(self._ports.values())
        for _ in range(1000):
            candidate = random.randint(_LOWEST, _highest())
            if candidate not in reserved and is_free(candidate):
                return candidate
        raise RuntimeError(f"No free TCP port between {_LOWEST} and {_highest()}; stop something first.")
