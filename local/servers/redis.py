"""Redis, Celery's broker; the program comes from `make tools`."""

from __future__ import annotations

import socket
from pathlib import Path

from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import Server

NAME = "redis"


def server(layout: Layout, program: Path) -> Server:
    """A Redis that writes each change to a file, so that queued tasks survive a crash. Its address is a `host:port`."""
    directory = layout.data(NAME)
    port = layout.port(NAME)
    settings = {
        "bind": HOST,
        "port": str(port),
        "dir": str(directory),
        "appendonly": "yes",
        "save": "",
        "daemonize": "no",
    }
    return Server(
        name=NAME,
        command=(str(program), *(word for key, value in settings.items() for word in (f"--{key}", value))),
        directory=directory,
        log_file=layout.log(NAME),
        pid_file=layout.pid(NAME),
        address=f"{HOST}:{port}",
        answers=lambda: _answers(port),
        ports=(port,),
        ready_within_s=20,
        stop_grace_s=5,
    )


def _answers(port: int) -> bool:
    """Whether it answers a ping; while it reads its file it answers with an error."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
