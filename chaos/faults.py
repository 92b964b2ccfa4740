"""Faults in real processes: each is injected, lasts for seconds, and is repaired."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from random import Random
from typing import Any

import httpx
import psutil
from confluent_kafka.admin import AdminClient, NewPartitions
from elasticsearch import Elasticsearch

from chaos.database import Database
from chaos.inside.clocks import jumped
from chaos.relays import SearchRelay, StatementRelay
from chaos.ui import AirflowUi
from chaos.versions import BESIDE
from local.platform.schema import BATCH_INDEX, connect_elasticsearch, input_topic
from local.servers.airflow import COMPONENTS
from local.servers.pgbouncer import NAME as PGBOUNCER
from local.servers.postgres import NAME as POSTGRES
from local.servers.processes import await_condition
from local.stack import Stack

WORKER = "airflow worker -- "
EXECUTOR = WORKER + "LocalExecutor"
"""Prefixes of the titles of processes that run tasks, and of those that supervise them (Airflow 3.3.2)."""
STAGES = (
    "pull_transfer_events",
    "lookup_users",
    "update_course_batches",
    "reindex_course_batches",
    "settle",
)
STORES = ("kafka", "cassandra", "elasticsearch")
SERVICE_MODES = ("503", "slow", "drop", "garbage", "half")
MAX_HOLD_S = 45.0
"""Longer than every time-out of the job's clients: 10 s for Cassandra and Kafka, 25 s for PostgreSQL, 20 s for Elasticsearch."""
MAX_JUMP_S = 60.0
"""How far a worker's clock jumps at most."""
COMMITS_CUT = 0.3
"""Share of the ledger's commits whose connection is cut during that fault."""
HEALTHY_WITHIN_S = 240.0
NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Scene:
    """The target of faults: a stack, and the relays in front of three of its servers, if any."""

    stack: Stack
    cassandra: StatementRelay | None = None
    elasticsearch: SearchRelay | None = None
    database: Database | None = None
    shared: Path | None = None
    """The folder that is shared with the hook in the job's processes, if they have it."""


@dataclass(frozen=True)
class Fault:
    """A fault."""

    name: str
    seconds: tuple[float, float]
    """Shortest and longest duration."""
    during: Callable[[Scene, Random], Any]
    """A context manager that injects the fault on entry and repairs it on exit."""
    prepare: Callable[[Scene], None] = lambda _: None
    """Slow preparation without effect on the job; may run long before the fault."""

    def strike(self, scene: Scene, rng: Random) -> float:
        """Inject the fault, hold it, repair it. Returns its duration in seconds."""
        begun = time.monotonic()
        with self.during(scene, rng):
            time.sleep(rng.uniform(*self.seconds))
        return time.monotonic() - begun


@contextmanager
def _nothing(_: Scene, __: Random) -> Iterator[None]:
    yield


def _tasks_get(number: signal.Signals) -> Callable[[Scene, Random], Any]:
    @contextmanager
    def during(scene: Scene, _: Random) -> Iterator[None]:
        for process in task_processes(scene.stack):
            with suppress(psutil.Error):
                process.send_signal(number)
        yield

    return during


@contextmanager
def _runs_cleared(scene: Scene, _: Random) -> Iterator[None]:
    with AirflowUi.at(scene.stack) as ui:
        ui.clear_runs()
    yield


@contextmanager
def _runs_ended(scene: Scene, _: Random) -> Iterator[None]:
    with AirflowUi.at(scene.stack) as ui:
        ui.fail_runs()
    yield


@contextmanager
def _cassandra_answers_lost(scene: Scene, _: Random) -> Iterator[None]:
    """Statements are applied but their answers are lost: after the client's 10 s the result is unknown."""
    if scene.cassandra is None:
        raise ValueError("this fault needs the relays")
    with scene.cassandra.answers_lost():
        yield


@contextmanager
def _bulk_items_rejected(scene: Scene, rng: Random) -> Iterator[None]:
    if scene.elasticsearch is None:
        raise ValueError("this fault needs the relays")
    with scene.elasticsearch.items_rejected(rng):
        yield


@contextmanager
def _commits_cut(scene: Scene, rng: Random) -> Iterator[None]:
    """The job's connections are cut during a commit, so it cannot know whether the commit was carried out."""
    with _database(scene).commits.commits_cut(rng, COMMITS_CUT):
        yield


@contextmanager
def _clocks_jump(scene: Scene, rng: Random) -> Iterator[None]:
    if scene.shared is None:
        raise ValueError("this fault needs the hook")
    with jumped(scene.shared, rng.uniform(1, MAX_JUMP_S)):
        yield


@contextmanager
def _partitions_added(scene: Scene, _: Random) -> Iterator[None]:
    topic = input_topic("dev")
    admin = AdminClient({"bootstrap.servers": scene.stack.addresses.kafka})
    there = len(admin.list_topics(topic, timeout=30).topics[topic].partitions)
    for done in admin.create_partitions([NewPartitions(topic, there + 1)]).values():
        done.result(timeout=30)
    yield


def _add_standby(scene: Scene) -> None:
    _database(scene).add_standby()


@contextmanager
def _failed_over(scene: Scene, _: Random) -> Iterator[None]:
    """The primary is killed. There is no server until the standby, which has every acknowledged commit, is promoted."""
    database = _database(scene)
    database.add_standby()
    scene.stack.servers[POSTGRES].kill()
    try:
        yield
    finally:
        database.fail_over()
        supervise(scene.stack)


def _database(scene: Scene) -> Database:
    if scene.database is None:
        raise ValueError("this fault needs the relays")
    return scene.database


def _supervised(during: Callable[[Scene, Random], Any]) -> Callable[[Scene, Random], Any]:
    """The same fault; afterwards each Airflow process that has exited is started again."""

    @contextmanager
    def wrapped(scene: Scene, rng: Random) -> Iterator[None]:
        try:
            with during(scene, rng):
                yield
        finally:
            supervise(scene.stack)

    return wrapped


def supervise(stack: Stack) -> None:
    """Return when all of Airflow's processes have had a heartbeat since the call; those that exit are started again.

    One that was without its database may exit only seconds after that is back, and Airflow calls it healthy for half a
    minute more.
    """
    since = datetime.now(UTC)

    def healthy() -> bool:
        revive(stack)
        with suppress(httpx.HTTPError):
            return (
                all(stack.servers[name].answers() for name in stack.parts) and _last_heartbeats(stack) > since
            )
        return False

    await_condition(healthy, timeout_s=HEALTHY_WITHIN_S, what="a healthy Airflow", poll_s=0.5)


def _last_heartbeats(stack: Stack) -> datetime:
    """The oldest of the last heartbeats of scheduler, triggerer and DAG processor.

    Long ago for one that is not known: while its database is away Airflow answers without any.
    """
    url = f"{stack.addresses.airflow}/api/v2/monitor/health"
    health = httpx.get(url, timeout=5).raise_for_status().json()
    kinds = ("scheduler", "triggerer", "dag_processor")
    beats = (health[kind][f"latest_{kind}_heartbeat"] for kind in kinds)
    return min(datetime.fromisoformat(beat) if beat else NEVER for beat in beats)


def revive(stack: Stack) -> None:
    """Start each Airflow process that has exited, as a supervisor does: without its database a process may exit."""
    for server in (s for name, s in stack.servers.items() if name in (*stack.parts, BESIDE)):
        if not server.running:
            server.stop()  # ends its leftover children
            server.start()


@contextmanager
def _bouncer_killed(scene: Scene, rng: Random) -> Iterator[None]:
    """No effect without pgbouncer, so that a seed means the same fault on every machine."""
    with (_killed(PGBOUNCER) if PGBOUNCER in scene.stack.servers else _nothing)(scene, rng):
        yield


@contextmanager
def _tasks_frozen(scene: Scene, _: Random) -> Iterator[None]:
    """Frozen until their claims have expired: other runs take over, and then the old claimants resume beside them."""
    frozen = list(task_processes(scene.stack))
    for process in frozen:
        with suppress(psutil.Error):
            process.suspend()
    try:
        yield
    finally:
        for process in frozen:
            with suppress(psutil.Error):
                process.resume()


def task_processes(stack: Stack) -> Iterator[psutil.Process]:
    """The processes that are running tasks."""
    for scheduler in [s.pid for name, s in stack.servers.items() if name.startswith("scheduler")]:
        with suppress(psutil.Error):
            for process in psutil.Process(scheduler).children(recursive=True) if scheduler else ():
                with suppress(psutil.Error):
                    title = " ".join(process.cmdline())
                    if title.startswith(WORKER) and not title.startswith(EXECUTOR):
                        yield process


def _killed(*names: str) -> Callable[[Scene, Random], Any]:
    @contextmanager
    def during(scene: Scene, _: Random) -> Iterator[None]:
        for name in names:
            scene.stack.servers[name].kill()
        try:
            yield
        finally:
            for name in names:
                scene.stack.servers[name].start()
            for name in names:
                scene.stack.servers[name].wait_ready()

    return during


def _stopped(name: str) -> Callable[[Scene, Random], Any]:
    @contextmanager
    def during(scene: Scene, _: Random) -> Iterator[None]:
        scene.stack.servers[name].stop()
        try:
            yield
        finally:
            scene.stack.servers[name].restart()

    return during


def _frozen(name: str) -> Callable[[Scene, Random], Any]:
    @contextmanager
    def during(scene: Scene, _: Random) -> Iterator[None]:
        with scene.stack.servers[name].frozen():
            yield

    return during


def _service(name: str, mode: str) -> Callable[[Scene, Random], Any]:
    @contextmanager
    def during(scene: Scene, rng: Random) -> Iterator[None]:
        url = f"{getattr(scene.stack.addresses, name)}/_faults"
        httpx.put(url, json={"mode": mode, "seconds": rng.uniform(2, 25)}, timeout=10).raise_for_status()
        try:
            yield
        finally:
            httpx.delete(url, timeout=10).raise_for_status()

    return during


@contextmanager
def _index_full(scene: Scene, _: Random) -> Iterator[None]:
    """As Elasticsearch does when a disk is nearly full: it rejects writes and accepts deletions."""
    client: Elasticsearch = connect_elasticsearch(scene.stack.addresses.elasticsearch)
    setting = "index.blocks.read_only_allow_delete"
    client.indices.put_settings(index=BATCH_INDEX, settings={setting: True})
    try:
        yield
    finally:
        client.indices.put_settings(index=BATCH_INDEX, settings={setting: None})
        client.close()


FAULTS: Sequence[Fault] = (
    Fault("nothing", (0, 0), _nothing),
    Fault("task processes killed", (0, 0), _tasks_get(signal.SIGKILL)),
    Fault("task processes terminated", (0, 0), _tasks_get(signal.SIGTERM)),
    Fault("task processes frozen", (20, MAX_HOLD_S), _tasks_frozen),
    Fault("running runs cleared", (0, 0), _runs_cleared),
    Fault("running runs marked as failed", (0, 0), _runs_ended),
    Fault("scheduler killed", (0, 10), _killed("scheduler")),
    Fault("triggerer killed", (0, 10), _killed("triggerer")),
    Fault("API server killed", (0, 10), _killed("api-server")),
    Fault("Airflow killed", (0, 10), _killed(*COMPONENTS)),
    Fault("API server frozen", (5, 20), _frozen("api-server")),
    *(Fault(f"{name} stopped", (2, 20), _stopped(name)) for name in STORES),
    *(Fault(f"{name} killed", (0, 20), _killed(name)) for name in STORES),
    *(Fault(f"{name} frozen", (12, MAX_HOLD_S), _frozen(name)) for name in STORES),
    *(
        Fault(f"{name} answers {mode}", (3, 20), _service(name, mode))
        for name in ("lms", "userorg")
        for mode in SERVICE_MODES
    ),
    Fault("index read-only", (5, 20), _index_full),
    Fault("cassandra's answers lost", (11, 25), _cassandra_answers_lost),
    Fault("elasticsearch rejects bulk items", (5, 20), _bulk_items_rejected),
    Fault("postgres killed", (0, 20), _supervised(_killed(POSTGRES))),
    Fault("postgres frozen", (12, MAX_HOLD_S), _supervised(_frozen(POSTGRES))),
    Fault("postgres failed over", (0, 10), _failed_over, prepare=_add_standby),
    Fault("ledger's commits cut", (5, 20), _commits_cut),
    Fault("workers' clocks jump", (5, 30), _clocks_jump),
    Fault("partitions added", (0, 0), _partitions_added),
    Fault("pgbouncer killed", (0, 10), _bouncer_killed),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
"""Every fault by its name."""
MOMENTS = (*STAGES, "at random")
"""When a fault is injected: as soon as a stage is running, or up to 5 s after the first message."""


def drawn(seed: int) -> tuple[Fault, str]:
    """Fault and moment of a seed. Consecutive seeds go through all pairs of fault and moment."""
    pairs = list(product(FAULTS, MOMENTS))
    Random("every fault at every moment").shuffle(pairs)
    return pairs[seed % len(pairs)]
