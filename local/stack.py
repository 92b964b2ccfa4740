"""The whole local stack: servers, stand-ins, platform, Airflow; started in parallel, ended completely."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import urlsplit

from local.paths import REPOSITORY
from local.servers import airflow, cassandra, kafka, postgres, search
from local.servers.layout import Layout
from local.servers.nodes import LOOPBACK, Node, nodes
from local.servers.ports import HOST, accepts
from local.servers.processes import NotReadyError, ProcessRecord, Server, child_environment, end
from local.servers.releases import Releases

Progress = Callable[[str, str, float], None]
"""Called with a part's name, one of "starting", "ready", "given", "stopped", and the seconds it took."""

GIVEN = ("KAFKA", "CASSANDRA", "ELASTICSEARCH", "LEDGER", "LMS", "USERORG")
"""Addresses that may be given in the environment. A part with a given address is not started."""

_PORTS = {"http": 80, "https": 443, "postgresql": 5432}
_SCHEMES = {"KAFKA": ("",), "CASSANDRA": ("",), "LEDGER": ("postgresql",)}
_FORMS = {
    "KAFKA": "host:port",
    "CASSANDRA": "host:port",
    "LEDGER": "postgresql://login:password@host:port/database",
}
DEFAULT_SETTINGS: Mapping[str, Any] = {"env": "dev"}
_OWNER = "owner.json"


@dataclass(frozen=True)
class Addresses:
    """The address of each part. `airflow` and its password are empty in a stack without Airflow."""

    kafka: str = ""  # host:port, of several nodes host:port,host:port
    cassandra: str = ""  # host:port, of several nodes host,host:port
    elasticsearch: str = ""  # URL, as the others below; of several nodes http://host,host:port
    ledger: str = ""  # with login and password
    lms: str = ""
    userorg: str = ""
    airflow: str = ""
    airflow_user: str = ""
    airflow_password: str = ""

    def as_environment(self) -> dict[str, str]:
        """The addresses by environment variable, without the empty ones."""
        return {name.upper(): value for name, value in asdict(self).items() if value}

    def write(self, file: Path) -> None:
        """Write them to `file` as NAME=value lines, readable by the owner only (passwords are among them)."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.unlink(missing_ok=True)
        file.touch(mode=0o600)
        file.write_text("".join(f"{name}={value}\n" for name, value in self.as_environment().items()))

    @classmethod
    def read(cls, file: Path) -> Addresses:
        """The addresses in `file`. Raises FileNotFoundError, and ValueError for an unknown name."""
        pairs = (line.partition("=") for line in file.read_text().splitlines() if line.strip())
        try:
            return cls(**{name.lower(): value for name, _, value in pairs})
        except TypeError as error:
            raise ValueError(f"{file} is not a list of addresses: {error}") from None


def given_from_environment() -> dict[str, str]:
    """The addresses that are set in this process's environment."""
    return {name: os.environ[name] for name in GIVEN if os.environ.get(name)}


@dataclass(frozen=True)
class Nodes:
    """How many nodes each store has, and the first three numbers of their addresses."""

    kafka: int = 1
    cassandra: int = 1
    elasticsearch: int = 1
    network: str = LOOPBACK


def _silent(part: str, state: str, seconds: float) -> None:
    pass


class Stack:
    """Kafka, Cassandra, Elasticsearch or OpenSearch, PostgreSQL, both stand-ins and, if wanted, Airflow.

    `releases` are those of the first three (default: `Releases()`). All files are below `directory`; ports are
    chosen among the free ones. A part that `given` names (see GIVEN) is used, not started. `settings` becomes the
    Airflow Variable that the job reads. If `durable`, acknowledged rows survive a crash of Cassandra. As a context
    manager it starts and stops.

    `servers` holds what was started: kafka, cassandra, elasticsearch (of several nodes kafka-1 and so on), postgres,
    lms, userorg, and the parts of Airflow. `airflow_env` is the environment with which any
    `airflow …` command, or the job's own code, finds this stack.
    """

    nodes = Nodes()
    first_parts: Sequence[airflow.Part] = airflow.FIRST_PARTS
    last_parts: Sequence[airflow.Part] = airflow.LAST_PARTS
    """Airflow's processes; the last ones start when the platform exists."""

    def __init__(
        self,
        directory: Path,
        *,
        airflow: bool,
        releases: Releases | None = None,
        given: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
        durable: bool = False,
    ) -> None:
        self.layout = Layout.of(directory)
        self.with_airflow = airflow
        self.releases = releases or Releases()
        self.given = {name: value for name, value in (given or {}).items() if value}
        self.settings = dict(DEFAULT_SETTINGS if settings is None else settings)
        self._durable = durable
        self.servers: dict[str, Server] = {}
        self.addresses = Addresses()
        self.airflow_env: dict[str, str] = {}
        self._progress: Progress = _silent
        self._lock = threading.Lock()
        self._cancelled = threading.Event()
        unknown = sorted(set(self.given) - set(GIVEN))
        if unknown:
            raise ValueError(f"{unknown[0]} is no part of the stack; known are {', '.join(GIVEN)}.")

    @property
    def directory(self) -> Path:
        """Where the stack keeps everything."""
        return self.layout.directory

    @property
    def parts(self) -> list[str]:
        """The names of Airflow's processes among the servers."""
        return [part.name for part in (*self.first_parts, *self.last_parts)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, progress: Progress | None = None) -> None:
        """Start everything and return when it can be used.

        Raises RuntimeError, NotReadyError when a part does not answer in time. The parts that had started are stopped.
        """
        self._progress = progress or _silent
        if running := running_parts(self.directory):
            raise RuntimeError(
                f"A stack runs in {self.directory} already ({', '.join(running)}); `make down` ends it."
            )
        claim(self.directory)
        self._name_addresses()
        with self._pool() as pool:
            self._start(pool)

    def start_airflow(self, progress: Progress | None = None) -> None:
        """Add Airflow to a stack that was started without. Raises as `start` does."""
        self._progress = progress or self._progress
        if self.servers.keys() & set(self.parts):
            return
        self.with_airflow = True
        with self._pool() as pool:
            self._start_airflow_core(pool, pool.submit(self._start_postgres))
            self._start_airflow_rest(pool)

    def stop(self) -> None:
        """End every process of the stack, Airflow's first, all their children included.

        Raises RuntimeError when one of them cannot be ended.
        """
        self.stop_airflow()
        self._stop_all([server for name, server in self.servers.items() if name not in self.parts])
        (self.directory / _OWNER).unlink(missing_ok=True)

    def stop_airflow(self) -> None:
        """End Airflow's processes alone. Raises as `stop` does."""
        self._stop_all([server for name, server in self.servers.items() if name in self.parts])

    # -- how -----------------------------------------------------------------------------------------

    @contextmanager
    def _pool(self) -> Iterator[ThreadPoolExecutor]:
        """Threads for one start. When a part fails, the others are stopped at once."""
        with ThreadPoolExecutor(max_workers=16, thread_name_prefix="stack") as pool:
            try:
                yield pool
            except BaseException:
                self._cancelled.set()
                pool.shutdown(wait=False, cancel_futures=True)
                self.stop()
                raise

    def _start(self, pool: ThreadPoolExecutor) -> None:
        """Start all parts in parallel; their ports are known beforehand. Only these steps wait for another.

        The platform needs the stores. The ledger and Airflow need their databases. Airflow's dag-processor comes
        last: a parsed DAG is watched at once, and its topics and tables have to exist by then.
        """
        database = pool.submit(self._start_postgres)
        stores = [
            database,
            pool.submit(self._part, "KAFKA", self.releases.kafka, self._start_kafka),
            pool.submit(self._part, "CASSANDRA", self.releases.rows, self._start_cassandra),
            pool.submit(self._part, "ELASTICSEARCH", self.releases.search, self._start_search),
        ]
        others = [
            pool.submit(self._part, name.upper(), name, partial(self._start_service, name))
            for name in ("lms", "userorg")
        ]
        if self.with_airflow:
            others.append(pool.submit(self._start_airflow_core, pool, database))
        _all_of(*stores, then=others)
        others.append(pool.submit(self._timed, "platform", self._create_platform))
        _all_of(*others)
        if self.with_airflow:
            self._start_airflow_rest(pool)

    def _name_addresses(self) -> None:
        layout, given = self.layout, self.given
        for variable, address in given.items():
            _check_given(variable, address)
        self.addresses = Addresses(
            kafka=given.get("KAFKA") or self._kafka_address(),
            cassandra=given.get("CASSANDRA") or self._cassandra_address(),
            elasticsearch=given.get("ELASTICSEARCH") or self._search_address(),
            ledger=given.get("LEDGER") or self._ledger_address(),
            lms=given.get("LMS") or layout.url("lms"),
            userorg=given.get("USERORG") or layout.url("userorg"),
        )
        known = self.addresses
        self.airflow_env = {
            **airflow.base_environment(layout, self.settings),
            **airflow.connections(
                kafka=known.kafka,
                cassandra=known.cassandra,
                elasticsearch=known.elasticsearch,
                ledger=known.ledger,
                lms=known.lms,
                userorg=known.userorg,
            ),
        }

    def _timed(self, part: str, work: Callable[[], None]) -> None:
        begun = time.monotonic()
        self._progress(part, "starting", 0.0)
        work()
        self._progress(part, "ready", time.monotonic() - begun)

    def _kafka_address(self) -> str:
        port = self.layout.port(self.releases.kafka)
        return ",".join(f"{node.host}:{port}" for node in self._nodes(self.nodes.kafka))

    def _cassandra_address(self) -> str:
        hosts = ",".join(node.host for node in self._nodes(self.nodes.cassandra))
        return f"{hosts}:{self.layout.port(self.releases.rows)}"

    def _search_address(self) -> str:
        found = self._nodes(self.nodes.elasticsearch)
        hosts = [node.host for node in found if not search.votes_only(node)]
        return f"http://{','.join(hosts)}:{self.layout.port(self.releases.search)}"

    def _ledger_address(self) -> str:
        return postgres.url_of_ledger(self.layout)

    def _part(self, variable: str, name: str, start: Callable[[], None]) -> None:
        if variable in self.given:
            self._progress(variable.lower(), "given", 0.0)
        else:
            self._timed(name, start)

    def _start_kafka(self) -> None:
        make = partial(kafka.server, self.layout, self.releases.kafka)
        self._run_nodes("kafka", self._nodes(self.nodes.kafka), make)

    def _start_cassandra(self) -> None:
        make = partial(cassandra.server, self.layout, self.releases.rows, durable=self._durable)
        first, *others = self._nodes(self.nodes.cassandra)
        for group in ([first], others):  # the others learn from the first one how the ring looks
            self._run_nodes("cassandra", group, make)

    def _start_search(self) -> None:
        make = partial(search.server, self.layout, self.releases.search)
        self._run_nodes("elasticsearch", self._nodes(self.nodes.elasticsearch), make)

    def _start_service(self, name: str) -> None:
        port = self.layout.port(name)
        url = f"http://{HOST}:{port}"
        where = ("--port", str(port), "--elasticsearch", self._search_url_of_services())
        server = Server(
            name=name,
            command=(sys.executable, "-m", "local.platform.standins", name, *where),
            directory=self.layout.data(name),
            log_file=self.layout.log(name),
            pid_file=self.layout.pid(name),
            address=url,
            answers=lambda: _is_healthy(f"{url}/health"),
            environment=child_environment(PYTHONPATH=str(REPOSITORY)),
            ports=(port,),
            stop_grace_s=5,
        )
        self._run(name, server)

    def _search_url_of_services(self) -> str:
        """The one address that LMS and User-Org use."""
        return self.addresses.elasticsearch

    def _nodes(self, count: int) -> list[Node]:
        return nodes(count, self.nodes.network)

    def _run_nodes(self, store: str, group: Sequence[Node], make: Callable[..., Server]) -> None:
        """Start these nodes of a store; `make` takes `node`."""
        self._run_together({node.named(store): make(node=node) for node in group})

    def _run(self, name: str, server: Server) -> None:
        self._run_together({name: server})

    def _run_together(self, servers: Mapping[str, Server]) -> None:
        """Start all of them, and return when all are ready: none may be without the others."""
        for name, server in servers.items():
            with self._lock:
                if self._cancelled.is_set():
                    raise RuntimeError(f"{name} was not started, because another part failed.")
                self.servers[name] = server
                server.start()
        for server in servers.values():
            server.wait_ready()

    def _create_platform(self) -> None:
        """Create keyspace, indexes and topics, which the platform has without the job, then the ledger's tables."""
        from local.platform import world
        from local.platform.schema import Copies

        known = self.addresses
        copies = Copies(
            rows=self.nodes.cassandra,
            documents=min(2, self.nodes.elasticsearch),
            messages=self.nodes.kafka,
        )
        world.create_platform(
            copies,
            cassandra=known.cassandra,
            elasticsearch=known.elasticsearch,
            kafka=known.kafka,
            env=str(self.settings.get("env", DEFAULT_SETTINGS["env"])),
        )
        done = subprocess.run(
            (sys.executable, "-m", "ownership.ledger", "upgrade"),
            env=self.airflow_env,
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(
                f"The ledger's tables could not be created: {(done.stderr or done.stdout).strip()}"
            )

    def _start_postgres(self) -> None:
        """Start the server with the ledger's database. Not needed when a ledger is given and Airflow is not wanted."""
        if "LEDGER" in self.given:
            self._progress("ledger", "given", 0.0)
        if "postgres" in self.servers or ("LEDGER" in self.given and not self.with_airflow):
            return
        self._timed("postgres", self._run_postgres)

    def _run_postgres(self) -> None:
        server = postgres.server(self.layout)
        self._run("postgres", server)
        if "LEDGER" not in self.given:
            postgres.create_ledger_database(server.address, postgres.ledger_password(self.layout))

    def _start_airflow_core(self, pool: ThreadPoolExecutor, database: Future[None]) -> None:
        _all_of(database)
        sockets = self.servers["postgres"].address
        needed = airflow.process_environment(self.layout, sockets)
        # A value that is already set stays: the fault suite sets another address of the database.
        self.airflow_env |= {name: value for name, value in needed.items() if name not in self.airflow_env}
        self._timed("migration", lambda: airflow.migrate(self.layout, self.airflow_env, sockets))
        _all_of(*(pool.submit(self._start_component, part) for part in self.first_parts))

    def _start_airflow_rest(self, pool: ThreadPoolExecutor) -> None:
        url = self.layout.url("airflow")
        password = airflow.Secrets.of(self.layout.data("airflow")).password
        # Before the DAG is parsed: its watcher starts then, and reads these connections.
        airflow.store(url, password, self.airflow_env)
        _all_of(*(pool.submit(self._start_component, part) for part in self.last_parts))
        if any((REPOSITORY / "dags").glob("*.py")):
            self._timed("dags", lambda: airflow.await_dags(url, password))
        self.addresses = replace(
            self.addresses, airflow=url, airflow_user=airflow.USER, airflow_password=password
        )

    def _start_component(self, part: airflow.Part) -> None:
        server = self._component(part, airflow.own_environment(self.airflow_env))
        self._timed(part.name, partial(self._run, part.name, server))

    def _component(self, part: airflow.Part, environment: Mapping[str, str]) -> Server:
        return airflow.component(self.layout, environment, part)

    def _stop_all(self, servers: Iterable[Server]) -> None:
        with ThreadPoolExecutor(max_workers=8) as pool:
            _all_of(*(pool.submit(self._stop_one, server) for server in servers))

    def _stop_one(self, server: Server) -> None:
        begun = time.monotonic()
        server.stop()
        self._progress(server.name, "stopped", time.monotonic() - begun)


def _all_of(*futures: Future[None], then: Iterable[Future[None]] = ()) -> None:
    """Wait for all `futures`; raise the first error among them and `then` as soon as there is one."""
    waiting = {*futures}
    watched = {*futures, *then}
    while waiting:
        done, watched = wait(watched, return_when=FIRST_COMPLETED)
        for future in done:
            future.result()
        waiting -= done


def _check_given(variable: str, address: str) -> None:
    """Check a given address. A store must answer now, because tables and topics are created in it; a service need not.

    Raises ValueError when it is not an address, NotReadyError when a store does not answer.
    """
    try:
        parts = urlsplit(address if "://" in address else f"//{address}")
        host, port = parts.hostname, parts.port or _PORTS.get(parts.scheme)
    except ValueError:
        host, port = None, None
    schemes = _SCHEMES.get(variable, ("http", "https"))
    shown = f"{variable}={address}" if "@" not in address else variable  # no password on a terminal
    if not host or not port or parts.scheme not in schemes:
        form = _FORMS.get(variable, "http://host:port")
        raise ValueError(f"{shown} cannot be used; give it as {form}.")
    if variable not in {"LMS", "USERORG"} and not accepts(port, host, timeout_s=5):
        raise NotReadyError(f"Nothing answers at {shown}; start it, or unset {variable}.")


def _is_healthy(url: str) -> bool:
    import httpx

    try:
        return httpx.get(url, timeout=2).status_code == 200
    except httpx.HTTPError:
        return False


def records(directory: Path) -> dict[str, ProcessRecord]:
    """Records of the processes that a stack in `directory` started and did not end, by name. Some may have died."""
    found = ((file.stem, ProcessRecord.load(file)) for file in sorted((directory / "pids").glob("*.json")))
    return {name: record for name, record in found if record is not None}


def running_parts(directory: Path) -> list[str]:
    """Names of the running processes of the stack in `directory`."""
    return [name for name, record in records(directory).items() if record.alive]


def claim(directory: Path) -> None:
    """Record this process as the owner of the servers in `directory`; `make down` leaves them alone while it lives."""
    ProcessRecord.of(os.getpid()).save(directory / _OWNER)


def owner(directory: Path) -> ProcessRecord | None:
    """Record of the process that started the stack in `directory`; it may have ended."""
    return ProcessRecord.load(directory / _OWNER)


def end_all(directory: Path, progress: Progress | None = None) -> list[str]:
    """End every process of the stack in `directory`, also one that another command started.

    Returns the names of those that were still running.

    Raises RuntimeError when one of them cannot be ended.
    """
    known = records(directory)
    ran: list[str] = []

    def finish(name: str, record: ProcessRecord) -> None:
        begun = time.monotonic()
        if record.family():
            ran.append(name)
            end(record, grace_s=10)
            (progress or _silent)(name, "stopped", time.monotonic() - begun)
        (directory / "pids" / f"{name}.json").unlink(missing_ok=True)

    for of_airflow in (True, False):
        with ThreadPoolExecutor(max_workers=8) as pool:
            _all_of(
                *(
                    pool.submit(finish, name, record)
                    for name, record in known.items()
                    if name.startswith("airflow") == of_airflow
                )
            )
    (directory / _OWNER).unlink(missing_ok=True)
    return sorted(ran)
