"""A run of the job without Airflow: the same stages, on real servers, one call each.

Tests use it for everything that is not Airflow's own doing; `tests/e2e` has the rest.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import psycopg
from cassandra.cluster import EXEC_PROFILE_DEFAULT, Cluster, ExecutionProfile, Session
from cassandra.policies import RoundRobinPolicy
from confluent_kafka import Consumer, Producer
from elasticsearch import Elasticsearch
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import text

from ownership.domain.clock import now_ms
from ownership.domain.conf import manual_events, orders, undo_order
from ownership.domain.contracts import Pulled, Slice, Summary, Work
from ownership.domain.errors import OwnershipError, TakenOver
from ownership.domain.options import Request
from ownership.domain.settings import Settings
from ownership.ledger.database import Database
from ownership.ledger.events import EventRow
from ownership.ledger.upgrade import upgrade
from ownership.platform.cassandra import SOCKET_OPTIONS, Cql
from ownership.platform.dead_letters import DeadLetters
from ownership.platform.http_service import Service
from ownership.platform.kafka import Topic
from ownership.platform.search_dialect import SearchNode
from ownership.stages.claim import Given, take_again
from ownership.stages.inbox import Inbox
from ownership.stages.intake import Intake, Window
from ownership.stages.later_phases import apply_later_phases
from ownership.stages.lookup import lookup_users
from ownership.stages.parts import Parts
from ownership.stages.pull import Collected, RunRequest, collect, hand_over, start_run
from ownership.stages.reindex import reindex_course_batches
from ownership.stages.settle import settle
from ownership.stages.update import update_course_batches

CONNECT_SECONDS = 30
"""The driver reads the schema while it connects, and gives up after 2 s by default: too early on a busy machine."""

GRACE_MS = 50
"""Each pull waits for it. A test whose messages overtake each other has a grace of its own."""

_runs = itertools.count(1)
_times: dict[str, int] = {}
"""When each run began: the same for every try of it."""

SLOTS = 32
"""Slots of the executor that there is not; Airflow's own default."""


@dataclass
class Run:
    """One run, stage by stage."""

    job: Job
    run_id: str
    pulled: Pulled = field(default_factory=Pulled)
    work: list[Slice | Work] = field(default_factory=list)
    errors: list[OwnershipError] = field(default_factory=list)

    def pull(
        self,
        *,
        window: Window | None = None,
        events: Sequence[Mapping[str, Any] | Request] = (),
        patient: bool = True,
        form: Mapping[str, Any] | None = None,
        undo: Mapping[str, Any] | None = None,
        timeout: float = 30,
        **conf: Any,
    ) -> Run:
        """`pull_transfer_events`, poked for `timeout` seconds at most.

        `form` names a transfer as a run's conf does, `conf` what is ordered beside transfers; with `undo`,
        the conf of `ownership_undo`, it is that DAG's pull.
        """
        at_ms = _times.setdefault(self.run_id, now_ms())
        requests = [e if isinstance(e, Request) else Request.of(dict(e)) for e in events]
        requests += manual_events(form or {}, run_id=self.run_id, at_ms=at_ms, by="tester")
        request = RunRequest(
            self.run_id,
            window,
            requests,
            at_ms,
            orders=orders(conf) if undo is None else undo_order(undo),
            patient=patient,
            started_by="tester",
            own_only=undo is not None,
        )
        parts = self.job.parts
        collected = self._poked(start_run(parts, self.job.intake, request), timeout)
        self.pulled = hand_over(parts, collected)
        self.work = list(self.pulled.slices)
        return self

    def _poked(self, collected: Collected, timeout: float) -> Collected:
        """What Airflow's sensor does."""
        until = time.monotonic() + timeout
        while not (collected := collect(self.job.parts, collected)).complete and time.monotonic() < until:
            time.sleep(0.02)
        return collected

    def lookup(self, *, last_try: bool = False) -> Run:
        """`lookup_users` of every slice; a failing one ends there, as its task would."""
        return self._stage(lambda w: lookup_users(self.job.parts, w, last_try=last_try))

    def update(self) -> Run:
        """`update_course_batches` of every slice."""
        return self._stage(lambda w: update_course_batches(self.job.parts, w))

    def reindex(self) -> Run:
        """`reindex_course_batches` of every slice, then the later phases of its lanes."""

        def stage(work: Work) -> Work:
            done = self._attempt(reindex_course_batches, work)
            return apply_later_phases(self.job.parts, done, self._attempt)

        return self._stage(stage)

    def again(self) -> Run:
        """The beginning of the next stage's next try."""
        self.work = [take_again(self.job.parts, cast("Work", w)) for w in self.work]  # or a Slice
        return self

    def _attempt(self, stage: Callable[[Parts, Given], Work], given: Given) -> Work:
        """A stage as a task tries it that will be tried again."""
        try:
            return stage(self.job.parts, given)
        except TakenOver:
            return given.step((), events={"taken_over": len(given.claimed)})

    def settle(self) -> Summary:
        """`settle`."""
        return settle(self.job.parts, self.pulled)[0]

    def finish(self) -> Summary:
        """Everything after the pull."""
        return self.lookup().update().reindex().settle()

    def _stage(self, stage: Callable[[Any], Work]) -> Run:
        done: list[Slice | Work] = []
        for w in self.work:
            try:
                done.append(stage(w))
            except TakenOver:
                continue
            except OwnershipError as e:
                self.errors.append(e)
        self.work = done
        return self


@dataclass
class Job:
    """The job over one set of servers, and a topic and consumer group of its own."""

    settings: Settings
    parts: Parts
    topic: Topic
    inbox: Inbox
    client: Elasticsearch
    dead_letters: Topic

    @property
    def intake(self) -> Intake:
        """Where events come from."""
        return Intake(self.topic, self.inbox, self.dead_letters)

    def run(self, run_id: str | None = None) -> Run:
        """A new run."""
        return Run(self, run_id or f"run-{next(_runs)}-{time.time_ns()}")

    def drain(self, *, runs: int = 10, **pull: Any) -> list[Summary]:
        """Runs, one after the other, until there is nothing to claim."""
        summaries: list[Summary] = []
        for _ in range(runs):
            run = self.run().pull(**pull)
            if not run.pulled.slices:
                return summaries
            summaries.append(run.finish())
        return summaries

    def event(self, mid: str) -> EventRow:
        """The ledger's row of an event."""
        return self.parts.events.read([mid])[mid]

    def states(self, mids: Sequence[str]) -> list[str]:
        """States of events, in order."""
        rows = self.parts.events.read(mids)
        return [rows[m].state for m in mids]

    def open_mids(self) -> list[str]:
        """What stands in the queue, in order."""
        return [e.mid for e in self.parts.queue.read()]


def administrator(address: str, database: str = "postgres") -> psycopg.Connection[Any]:
    """A session on the server of a ledger's address, as the local administrator, who needs no password."""
    given: dict[str, Any] = conninfo_to_dict(address)
    return psycopg.connect(
        host=given["host"], port=given["port"], user="postgres", dbname=database, autocommit=True
    )


def execute(ledger: Database, statement: str, **values: Any) -> list[Any]:
    """The rows of a statement in a ledger, if it returns any."""
    return ledger.run(
        lambda c: list(found) if (found := c.execute(text(statement), values)).returns_rows else []
    )


@contextmanager
def opened_ledger(address: str, name: str) -> Iterator[Database]:
    """A ledger of one's own on the server of `address` (a URL): a database, dropped at the end."""
    given: dict[str, Any] = conninfo_to_dict(address)
    with administrator(address) as server:
        server.execute(
            sql.SQL("CREATE DATABASE {} OWNER {}").format(*map(sql.Identifier, (name, given["user"])))
        )
        server.execute(sql.SQL("ALTER DATABASE {} SET synchronous_commit = on").format(sql.Identifier(name)))
        database = Database.at({**given, "dbname": name})
        try:
            upgrade(database)
            yield database
        finally:
            database.close()
            server.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def ledger_name(env: str) -> str:
    """The database of a world's own ledger."""
    return f"ledger_{env.replace('-', '_')}"


@contextmanager
def opened_job(
    *,
    ledger: str,
    kafka: str,
    cassandra: str,
    elasticsearch: str,
    lms: str,
    userorg: str,
    env: str,
    service: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Job]:
    """The job on these servers; `env` gives it a topic and a group of its own, `ledger` is the URL of its ledger.

    `service` are arguments of both services: how often and how long they are asked.
    """
    given = Settings.model_validate({"env": env, "grace.ms": GRACE_MS, **settings}).for_slots(SLOTS)
    host, port = cassandra.split(":")
    with ExitStack() as stack:
        profile = ExecutionProfile(load_balancing_policy=RoundRobinPolicy(), request_timeout=10)

        def connect() -> Session:
            # A cluster whose first connect fails stays shut: as in the job, each connect has one of its own.
            cluster = Cluster(
                [host],
                port=int(port),
                execution_profiles={EXEC_PROFILE_DEFAULT: profile},
                protocol_version=4,
                sockopts=SOCKET_OPTIONS,
                connect_timeout=CONNECT_SECONDS,
                control_connection_timeout=CONNECT_SECONDS,
                schema_metadata_enabled=False,
            )
            stack.callback(cluster.shutdown)
            return cluster.connect()

        cql = Cql(connect)
        database = Database.at(conninfo_to_dict(ledger))
        stack.callback(database.close)
        client = Elasticsearch(elasticsearch, node_class=SearchNode, request_timeout=30)
        stack.callback(client.close)
        services = [
            stack.enter_context(Service(name, partial(str, url), **(service or {})))
            for name, url in (("LMS", lms), ("User-Org", userorg))
        ]
        parts = Parts.from_clients(given, database, cql, lambda: client, lms=services[0], userorg=services[1])
        broker = {"bootstrap.servers": kafka, "reconnect.backoff.max.ms": 500}
        consumer = {
            **broker,
            "group.id": given.group_id,
            "enable.auto.commit": False,
            "auto.offset.reset": "error",
            "fetch.wait.max.ms": 50,  # as the job has it: other requests wait behind a fetch
        }
        topic = Topic(Consumer(consumer), given.input_topic)
        stack.callback(topic.close)
        dead_letters = topic.beside(given.failed_topic)
        dead = DeadLetters(Producer({**broker, "acks": "all"}), given.failed_topic)
        inbox = Inbox(parts.events, parts.arrivals, dead, given, clock=database.now_ms)
        yield Job(given, parts, topic, inbox, client, dead_letters)
