"""HAProxy, in front of what a cluster has two of; the program comes from `make tools`."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from local.servers.layout import Layout
from local.servers.ports import HOST, accepts
from local.servers.processes import Server

NAME = "haproxy"

HTTP = """\
    mode http
    option httpchk GET {path}
    option redispatch
    timeout client 120s
    timeout server 120s"""
"""Of a service with a path that answers 200 while it is healthy."""

_WHERE = b"user\0postgres\0database\0postgres\0\0"
_STARTUP = struct.pack(">ii", len(_WHERE) + 8, 196608) + _WHERE
_ASKED = b"SELECT pg_is_in_recovery()\0"
_QUESTION = b"Q" + struct.pack(">i", len(_ASKED) + 4) + _ASKED
_READY = b"Z" + struct.pack(">i", 5) + b"I"
_PRIMARY = b"D" + struct.pack(">ihi", 11, 1, 1) + b"f"
POSTGRES_PRIMARY = f"""\
    mode tcp
    option tcp-check
    tcp-check connect
    tcp-check send-binary {_STARTUP.hex()}
    tcp-check expect binary {_READY.hex()}
    tcp-check send-binary {_QUESTION.hex()}
    tcp-check expect binary {_PRIMARY.hex()}
    timeout client 1d
    timeout server 1d"""
"""Of PostgreSQL: healthy is the server that says in its own protocol that it is no standby."""


@dataclass(frozen=True)
class Front:
    """One port, and the servers behind it."""

    port: int
    kind: str
    """How it speaks to them and how it checks them: HTTP (with its path filled in) or POSTGRES_PRIMARY."""
    servers: Mapping[str, str]
    """Addresses (`host:port`) by name."""
    in_turn: bool = True
    """Whether all of them are used; otherwise the first one that is healthy."""


def server(layout: Layout, program: Path, fronts: Mapping[str, Front]) -> Server:
    """An HAProxy with these fronts, by name."""
    directory = layout.data(NAME)
    file = directory / "haproxy.cfg"

    def prepare() -> None:
        file.write_text(configuration(fronts))

    return Server(
        name=NAME,
        command=(str(program), "-db", "-f", str(file)),
        directory=directory,
        log_file=layout.log(NAME),
        pid_file=layout.pid(NAME),
        address=HOST,
        answers=lambda: all(accepts(front.port) for front in fronts.values()),
        prepare=prepare,
        ports=tuple(front.port for front in fronts.values()),
        ready_within_s=20,
        stop_grace_s=2,
    )


def configuration(fronts: Mapping[str, Front]) -> str:
    """The text of its configuration.

    A server that is found unhealthy loses its connections: a frozen one would keep its clients waiting.
    """
    sections: Sequence[str] = [
        f"""\
listen {name}
    bind {HOST}:{front.port}
{front.kind}
    timeout connect 2s
    timeout check 3s
    default-server check inter 1s fall 3 rise 1 on-marked-down shutdown-sessions
"""
        + "".join(
            f"    server {each} {address}{'' if front.in_turn or first else ' backup'}\n"
            for first, (each, address) in zip(
                (True, *[False] * len(front.servers)), front.servers.items(), strict=False
            )
        )
        for name, front in fronts.items()
    ]
    return "\n".join(("global\n    maxconn 4000\n", *sections))
