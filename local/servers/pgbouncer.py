"""pgbouncer in transaction mode, in front of the ledger and of Airflow's metadata; the program comes from `make tools`."""

from __future__ import annotations

import os
from pathlib import Path

from local.servers import postgres
from local.servers.layout import Layout
from local.servers.ports import HOST, accepts
from local.servers.processes import Server

NAME = "pgbouncer"
_UNPRIVILEGED = "nobody"


def server(layout: Layout, program: Path, postgres_at: str) -> Server:
    """A pgbouncer in front of the databases on the server at `postgres_at`, a `host:port`.

    Its address is a `host:port`. The ledger's login is as without it; PostgreSQL's administrator, as whom Airflow
    connects, has the ledger's password here.
    """
    directory = layout.data(NAME)
    port = layout.port(NAME)
    user = _UNPRIVILEGED if os.geteuid() == 0 else None  # it refuses to run as root
    host, _, behind = postgres_at.rpartition(":")
    configuration = directory / "pgbouncer.ini"
    users = directory / "users.txt"

    def prepare() -> None:
        password = postgres.ledger_password(layout)
        if user is not None:
            postgres.let_through(directory, user, program)
        for file, text in (
            (
                users,
                "".join(f'"{login}" "{password}"\n' for login in (postgres.LEDGER, postgres.ADMINISTRATOR)),
            ),
            (configuration, _configuration(host, behind, port, users)),
        ):
            file.touch(mode=0o600)
            file.write_text(text)
            if user is not None:
                os.chown(file, *postgres.ids(user))

    return Server(
        name=NAME,
        command=(str(program), str(configuration)),
        directory=directory,
        log_file=layout.log(NAME),
        pid_file=layout.pid(NAME),
        address=f"{HOST}:{port}",
        answers=lambda: accepts(port),
        prepare=prepare,
        ports=(port,),
        user=user,
        ready_within_s=20,
        stop_grace_s=5,
    )


def _configuration(host: str, behind: str, port: int, users: Path) -> str:
    return f"""\
[databases]
* = host={host} port={behind}

[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 20
max_client_conn = 500
server_connect_timeout = 5
server_login_retry = 1
"""
