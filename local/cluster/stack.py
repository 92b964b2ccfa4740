"""The cluster as a stack: started in parallel, ended completely."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import psycopg
from celery import Celery  # not in a thread: of two that import it at once, one finds half of it
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from local.cluster import plan
from local.cluster.hosts import Hosts
from local.servers import airflow, haproxy, pgbouncer, postgres, redis
from local.servers.nodes import Node
from local.servers.ports import HOST, host_and_port
from local.servers.processes import Server
from local.servers.releases import Releases
from local.stack import Nodes, Stack
from local.tools import programs

LARGE: Final = Nodes(kafka=3, cassandra=3, elasticsearch=3)
SMALL: Final = Nodes()
_PATIENCE: Final = 3
"""How many times as long a server of a cluster may take to start: two dozen start at once, beside whatever else runs."""
_JOBS: Final = {"scheduler": "SchedulerJob", "triggerer": "TriggererJob", "dag-processor": "DagProcessorJob"}


class Cluster(Stack):
    """Two of each part of Airflow on Redis, PostgreSQL with a standby, and stores of `stores` nodes.

    Without `airflow`, `start_airflow` starts it later; with fewer `workers`, the first ones only.
    With `hosts`, which are there already, the nodes of a number share the host of that number.
    Among `servers` are, beside those of every stack, postgres-standby, pgbouncer, haproxy and redis.
    """

    def __init__(
        self,
        directory: Path,
        *,
        airflow: bool = True,
        stores: Nodes = LARGE,
        workers: int = len(plan.WORKERS),
        hosts: Hosts | None = None,
        releases: Releases | None = None,
        settings: Mapping[str, Any] | None = None,
        durable: bool = False,
    ) -> None:
        super().__init__(directory, airflow=airflow, releases=releases, settings=settings, durable=durable)
        self.hosts = hosts
        self.nodes = replace(stores, network=hosts.network) if hosts else stores
        self.first_parts = plan.first_parts(self.layout, plan.WORKERS[:workers])
        self.last_parts = plan.LAST_PARTS
        self._primary, self._standby = postgres.NAME, plan.STANDBY

    def _name_addresses(self) -> None:
        super()._name_addresses()
        self.airflow_env |= plan.environment(self.layout, postgres.ledger_password(self.layout))

    def _ledger_address(self) -> str:
        return postgres.url_of_ledger(self.layout, f"{HOST}:{self.layout.port(pgbouncer.NAME)}")

    def _search_url_of_services(self) -> str:
        return plan.search_url(self.layout)

    def _run_postgres(self) -> None:
        """Start the primary, its standby, and what stands in front of them; then Redis."""
        super()._run_postgres()
        layout = self.layout
        first = self.servers[postgres.NAME]
        postgres.create_database(first.address, airflow.DATABASE)
        postgres.commit_durably(first.address, airflow.DATABASE)
        fronts = plan.fronts(layout, self.nodes, self.releases.search)
        self._run_together(
            {
                plan.STANDBY: postgres.standby(layout, first.ports[0], plan.STANDBY),
                haproxy.NAME: haproxy.server(layout, _program("haproxy"), fronts),
                pgbouncer.NAME: pgbouncer.server(layout, _program("pgbouncer"), plan.primary(layout)),
                redis.NAME: redis.server(layout, _program("redis-server")),
            }
        )
        postgres.replicate_synchronously(first)

    def _run_nodes(self, store: str, group: Sequence[Node], make: Callable[..., Server]) -> None:
        def placed(*, node: Node) -> Server:
            server = make(node=node)
            if self.hosts:
                server.command = (*self.hosts.inside(node.number), *server.command)
            return server

        super()._run_nodes(store, group, placed)

    def _run_together(self, servers: Mapping[str, Server]) -> None:
        for server in servers.values():
            server.ready_within_s *= _PATIENCE
        super()._run_together(servers)

    def watching_triggerer(self) -> str:
        """The name of the triggerer that holds the job's watcher. Raises RuntimeError when none does."""
        question = "SELECT hostname FROM trigger JOIN job ON job.id = triggerer_id"
        with _metadata(plan.primary(self.layout)) as connection:
            found = connection.execute(question).fetchone()
        if found is None:
            raise RuntimeError("No triggerer holds the watcher.")
        return str(found[0])

    def fail_over(self) -> None:
        """Promote the standby after the primary was killed; HAProxy sends everything to it from then on."""
        self._primary, self._standby = self._standby, self._primary
        postgres.promote(self.servers[self._primary])

    def add_standby(self) -> None:
        """Make what was the primary a standby of the promoted server."""
        primary = self.servers[self._primary]
        self.servers[self._standby].stop()
        postgres.forget(self.layout, self._standby)
        self._run(self._standby, postgres.standby(self.layout, primary.ports[0], self._standby))
        postgres.replicate_synchronously(primary)

    def _component(self, part: airflow.Part, environment: Mapping[str, str]) -> Server:
        answers = {
            "api-server": partial(airflow.api_answers, self.layout.url(part.name)),
            "worker": partial(_worker_answers, plan.broker(self.layout), part.name),
        }.get(part.kind) or _Heartbeat(plan.primary(self.layout), part)
        server = airflow.component(self.layout, environment, part, answers)
        if isinstance(answers, _Heartbeat):
            server.prepare = answers.forget
        return server


class _Heartbeat:
    """Whether one of several parts of a kind has begun to work: its first heartbeat after its start is in the database."""

    def __init__(self, database: str, part: airflow.Part) -> None:
        self._database, self._part = database, part
        self._since = datetime.now(UTC)

    def forget(self) -> None:
        """Count heartbeats of processes that start from now on."""
        self._since = datetime.now(UTC)

    def __call__(self) -> bool:
        question = "SELECT 1 FROM job WHERE job_type = %s AND hostname = %s AND state = 'running' AND start_date > %s"
        with suppress(psycopg.Error), _metadata(self._database) as connection:
            values = (_JOBS[self._part.kind], self._part.name, self._since)
            return connection.execute(question, values).fetchone() is not None
        return False


def _metadata(address: str) -> psycopg.Connection[Any]:
    """Airflow's database on the server at `address`."""
    host, port = host_and_port(address)
    return psycopg.connect(
        host=host, port=port, user=postgres.ADMINISTRATOR, dbname=airflow.DATABASE, connect_timeout=2
    )


def _worker_answers(broker: str, name: str) -> bool:
    app = Celery(broker=broker, set_as_current=False)
    try:
        return bool(app.control.ping(destination=[f"celery@{name}"], timeout=1.0))
    except (
        OperationalError,
        KombuError,
        RedisError,
        OSError,
    ):  # a pooled connection of before Redis died, too
        return False
    finally:
        app.close()


def _program(name: str) -> Path:
    """Raises RuntimeError when it is not there."""
    found = programs.found(name)
    if found is None:
        why = programs.why_missing(name)
        raise RuntimeError(f"{name} is missing{f': {why}' if why else ''}; run `make tools`.")
    return found
