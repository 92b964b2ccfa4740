"""The fault suite on a cluster: a part dies, or freezes, for good, and comes back only when all events are final."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import product
from random import Random

import psycopg
from confluent_kafka.admin import AdminClient
from redis import Redis
from rich import box
from rich.table import Table

from chaos import oracle
from chaos.faults import STAGES
from chaos.retrying import retried
from chaos.rounds import Lms, await_stage, send
from chaos.ui import AirflowUi
from chaos.verdict import Places, violations
from chaos.worlds import World, random_world
from local.cluster import plan
from local.cluster.hosts import Hosts
from local.cluster.stack import Cluster
from local.demo.outcome import events_of
from local.platform.schema import connect_elasticsearch
from local.platform.world import Platform
from local.servers import postgres
from local.servers.processes import NotReadyError, await_condition

FINAL_WITHIN_S = 300.0
CLOSED_WITHIN_S = 420.0
"""Limits from the fault until every event is final, and until no run is open."""
WHOLE_WITHIN_S = 180.0
"""Limit from the repair until each store has all copies of its data."""
SHORT_S = 10.0
"""How long a part is away of which there is only one."""
FILLING_RUNS = 24
"""Runs without work of their own that fill the queue: three for each slot of the workers."""
FULL_WITHIN_S = 60.0

During = Callable[[Cluster, Random], AbstractContextManager[None]]
Choose = Callable[[Cluster, Random], str]
"""The name of the server that a fault is about."""


@dataclass(frozen=True)
class ClusterFault:
    """A fault: `during` injects it on entry and repairs it on exit."""

    name: str
    during: During
    for_good: bool = True
    """Whether it is repaired only when everything else has ended; otherwise after SHORT_S."""
    apart: bool = False
    """Whether the nodes of the stores must have hosts of their own."""


@dataclass
class ClusterRound:
    """The result of a round."""

    seed: int
    fault: str
    when: str
    in_time: bool = True
    """False if the stage at which the fault was to strike did not run any more."""
    messages: int = 0
    batches: int = 0
    final_s: float = 0.0
    """Of the slowest event: from the fault, or from its message if that was later, until it was final."""
    closed_s: float = 0.0
    """From the fault, or from the end of all sending and editing if that was later, until no run was open."""
    violations: list[str] = field(default_factory=list)


def play(cluster: Cluster, platform: Platform, seed: int, only: str | None = None) -> ClusterRound:
    """Play the round of `seed`: the world, fault and moment are always the same, the timing of processes is not."""
    rng = Random(f"cluster round {seed}")
    fault, when = drawn(seed)
    if only:
        fault = BY_NAME[only]
    world = random_world(seed)
    done = ClusterRound(seed, fault.name, when, messages=len(world.messages), batches=len(world.batches))
    platform.add_users(world.users)
    platform.add_batches(world.batches)
    with ExitStack() as repaired:
        struck = _Strike(cluster, fault, when, rng, repaired)
        struck.start()
        places = send(platform, world, rng)
        lms = Lms(platform, world)
        lms.edit_at_random(rng, waiting=False)
        lms.end()
        sent = time.monotonic()
        struck_at, done.in_time = struck.ended()
        began = max(struck_at, sent)
        _await(lambda: _is_final(cluster, world), FINAL_WITHIN_S, "every event to be final", done)
        done.final_s = retried(partial(_slowest, cluster, world, time.time() - time.monotonic() + struck_at))
        _await(lambda: _runs(cluster) == 0, CLOSED_WITHIN_S, "every run to end", done)
        done.closed_s = round(time.monotonic() - began, 1)
    _await(lambda: _is_whole(cluster), WHOLE_WITHIN_S, "all copies of all data", done)
    done.violations += _violations(cluster, platform, world, places)
    return done


class _Strike(threading.Thread):
    """Injects a fault at its moment."""

    def __init__(
        self, cluster: Cluster, fault: ClusterFault, when: str, rng: Random, repaired: ExitStack
    ) -> None:
        super().__init__(name="strike")
        self._cluster, self._fault, self._when = cluster, fault, when
        self._rng, self._repaired = rng, repaired
        self._at, self._in_time = 0.0, True
        self._failed: BaseException | None = None

    def run(self) -> None:
        try:
            if self._when in STAGES:
                self._in_time = await_stage(self._cluster, self._when)
            else:
                time.sleep(self._rng.uniform(0, 5))
            self._at = time.monotonic()
            self._repaired.enter_context(self._fault.during(self._cluster, self._rng))
            if not self._fault.for_good:
                time.sleep(SHORT_S)
                self._repaired.close()
        except BaseException as error:  # noqa: BLE001  # it is raised by the thread that waits for this one
            self._failed = error

    def ended(self) -> tuple[float, bool]:
        """Wait for it. Returns when the fault struck, and whether that was its moment."""
        self.join()
        if self._failed:
            raise self._failed
        return self._at, self._in_time


def _await(condition: Callable[[], bool], seconds: float, what: str, done: ClusterRound) -> None:
    try:
        await_condition(condition, timeout_s=seconds, what=what, poll_s=0.5)
    except NotReadyError as error:
        done.violations.append(str(error))


def _is_final(cluster: Cluster, world: World) -> bool:
    wanted = oracle.states(world)
    return all(e.final for e in retried(lambda: events_of(cluster.addresses.ledger, wanted)).values())


def _slowest(cluster: Cluster, world: World, struck_at: float) -> float:
    """Seconds that the slowest event took from its message, or from the fault (seconds since 1970)."""
    question = """
        SELECT max(extract(epoch FROM coalesce(completed_at, ended_at)) - greatest(%s, kafka_ms / 1000.0))
        FROM event WHERE mid = ANY(%s)
    """
    with psycopg.connect(cluster.addresses.ledger, autocommit=True, prepare_threshold=None) as connection:
        found = connection.execute(question, (struck_at, list(oracle.states(world)))).fetchone()
    return round(max(0.0, float((found and found[0]) or 0)), 1)


def _runs(cluster: Cluster) -> int:
    def ask() -> int:
        with AirflowUi.at(cluster) as ui:
            return ui.runs()

    return retried(ask)


def _is_whole(cluster: Cluster) -> bool:
    """Whether every document and message has all its copies again: the next fault is to be the only one."""
    a = cluster.addresses
    with connect_elasticsearch(a.elasticsearch) as search:
        health = retried(search.cluster.health)
    if health["status"] != "green" or health["number_of_nodes"] < cluster.nodes.elasticsearch:
        return False
    topics = AdminClient({"bootstrap.servers": a.kafka}).list_topics(timeout=30).topics.values()
    return all(len(p.isrs) == len(p.replicas) for topic in topics for p in topic.partitions.values())


def _violations(cluster: Cluster, platform: Platform, world: World, places: Places) -> list[str]:
    return retried(partial(violations, cluster, platform, world, places))


def _named(name: str) -> Choose:
    return lambda _, __: name


def _one_of(prefix: str) -> Choose:
    """Any node of a store, or part of a kind."""
    return lambda cluster, rng: rng.choice([n for n in cluster.servers if n.startswith(prefix)])


def _worker_at_work(cluster: Cluster, _: Random) -> str:
    """A worker that runs a task now, if one does."""

    def ask() -> str:
        with AirflowUi.at(cluster) as ui:
            return next(iter(sorted(ui.hosts() & set(plan.WORKERS))), plan.WORKERS[0])

    return retried(ask)


def _watching(cluster: Cluster, _: Random) -> str:
    """The triggerer that holds the watcher."""
    return retried(cluster.watching_triggerer)


def _killed(choose: Choose) -> During:
    @contextmanager
    def during(cluster: Cluster, rng: Random) -> Iterator[None]:
        server = cluster.servers[choose(cluster, rng)]
        server.kill()
        try:
            yield
        finally:
            server.start()
            server.wait_ready()

    return during


@contextmanager
def _redis_emptied(cluster: Cluster, _: Random) -> Iterator[None]:
    """Redis dies and has lost its file: what was queued, or was with a worker, it does not know any more."""
    server = cluster.servers["redis"]
    server.kill()
    shutil.rmtree(server.directory)
    try:
        yield
    finally:
        server.start()
        server.wait_ready()


@contextmanager
def _queue_full(cluster: Cluster, _: Random) -> Iterator[None]:
    """More runs than the workers have slots: tasks wait in Redis."""
    queue = Redis.from_url(plan.broker(cluster.layout))
    with AirflowUi.at(cluster) as ui:
        ui.start_runs(FILLING_RUNS)
    await_condition(
        lambda: bool(queue.llen(plan.QUEUE)), timeout_s=FULL_WITHIN_S, what="a full queue", poll_s=0.1
    )
    queue.close()
    yield


def _one_after_the_other(*faults: During) -> During:
    @contextmanager
    def during(cluster: Cluster, rng: Random) -> Iterator[None]:
        with ExitStack() as repaired:
            for fault in faults:
                repaired.enter_context(fault(cluster, rng))
            yield

    return during


def _two(what: Callable[[Choose], During]) -> During:
    """Two parts of different kinds at once: quorum remains of each. Both are chosen while all parts answer."""

    @contextmanager
    def during(cluster: Cluster, rng: Random) -> Iterator[None]:
        chosen = [choose(cluster, rng) for _, choose in rng.sample(_PARTS, 2)]
        with _one_after_the_other(*(what(_named(name)) for name in chosen))(cluster, rng):
            yield

    return during


def _on_a_host(partition: Callable[[Hosts, int], AbstractContextManager[None]]) -> During:
    """A partition of one host, with a node of each store."""

    @contextmanager
    def during(cluster: Cluster, rng: Random) -> Iterator[None]:
        if cluster.hosts is None:
            raise ValueError("this fault needs hosts of their own for the nodes")
        with partition(cluster.hosts, rng.randint(1, cluster.nodes.cassandra)):
            yield

    return during


def _frozen(choose: Choose) -> During:
    @contextmanager
    def during(cluster: Cluster, rng: Random) -> Iterator[None]:
        with cluster.servers[choose(cluster, rng)].frozen():
            yield

    return during


@contextmanager
def _promoted(cluster: Cluster, _: Random) -> Iterator[None]:
    """The primary dies, and the standby, which has every acknowledged commit, becomes the primary."""
    cluster.servers[postgres.NAME].kill()
    time.sleep(SHORT_S)
    cluster.fail_over()
    try:
        yield
    finally:
        cluster.add_standby()


_PARTS: Sequence[tuple[str, Choose]] = (
    ("worker", _worker_at_work),
    ("scheduler", _one_of("scheduler-")),
    ("triggerer", _watching),
    ("API server", _one_of("api-server-")),
    ("Cassandra node", _one_of("cassandra-")),
    ("Kafka broker", _one_of("kafka-")),
    ("search node", _one_of("elasticsearch-")),
)
FAULTS: Sequence[ClusterFault] = (
    *(ClusterFault(f"{name} killed", _killed(choose)) for name, choose in _PARTS),
    *(ClusterFault(f"{name} frozen", _frozen(choose)) for name, choose in _PARTS),
    ClusterFault("Redis killed", _killed(_named("redis")), for_good=False),
    ClusterFault("Redis frozen", _frozen(_named("redis")), for_good=False),
    ClusterFault("Redis without its file", _redis_emptied, for_good=False),
    ClusterFault("PostgreSQL promoted", _promoted),
    ClusterFault("queue full", _queue_full),
    ClusterFault("queue full, worker killed", _one_after_the_other(_queue_full, _killed(_worker_at_work))),
    ClusterFault("two parts killed", _two(_killed)),
    ClusterFault("two parts frozen", _two(_frozen)),
    ClusterFault("host cut off", _on_a_host(Hosts.cut_off), apart=True),
    ClusterFault("host mute", _on_a_host(Hosts.mute), apart=True),
    ClusterFault("host deaf", _on_a_host(Hosts.deaf), apart=True),
)
BY_NAME = {fault.name: fault for fault in FAULTS}
_PAIRS = list(product(FAULTS, (*STAGES, "at random")))
Random("every fault at every moment of a cluster").shuffle(_PAIRS)


def drawn(seed: int) -> tuple[ClusterFault, str]:
    """Fault and moment of a seed. Consecutive seeds go through all pairs of fault and moment."""
    return _PAIRS[seed % len(_PAIRS)]


def line(r: ClusterRound) -> str:
    """A round as a line on the terminal."""
    verdict = f"[red]{len(r.violations)} violations[/]" if r.violations else "[green]as it must be[/]"
    return (
        f"seed {r.seed}: {r.fault} {'at' if r.in_time else 'too late for'} {r.when}; {r.messages} messages, {r.batches} batches; final after {r.final_s:g} s, "
        f"runs closed after {r.closed_s:g} s: {verdict}"
    )


def table(rounds: Sequence[ClusterRound]) -> Table:
    """All rounds by fault."""
    met = len({(r.fault, r.when) for r in rounds if r.in_time})
    title = f"Faults; {met} of {len(_PAIRS)} pairs of fault and moment"
    made = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    made.add_column("fault")
    for column in (
        "rounds",
        "messages",
        "final after s, longest",
        "runs closed after s, longest",
        "violations",
    ):
        made.add_column(column, justify="right")
    for fault in sorted({r.fault for r in rounds}):
        of_fault = [r for r in rounds if r.fault == fault]
        made.add_row(
            fault,
            str(len(of_fault)),
            str(sum(r.messages for r in of_fault)),
            f"{max(r.final_s for r in of_fault):.1f}",
            f"{max(r.closed_s for r in of_fault):.1f}",
            str(sum(len(r.violations) for r in of_fault)),
        )
    return made
