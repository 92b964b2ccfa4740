"""What a cluster consists of: its parts, their ports, and the settings that differ from a stack on one machine. Pure."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from typing import Final

from local.cluster import hostname
from local.paths import REPOSITORY
from local.servers import haproxy, postgres, redis, search
from local.servers.airflow import DATABASE, METADATA, Part
from local.servers.haproxy import Front
from local.servers.layout import Layout
from local.servers.nodes import nodes
from local.servers.pgbouncer import NAME as PGBOUNCER
from local.servers.ports import HOST
from local.stack import Nodes

GIB: Final = 1 << 30
NEEDED: Final = 12 * GIB
"""Memory of the machine, in bytes; the cluster takes about two thirds of it."""
TOOLS: Final = ("redis-server", "haproxy", "pgbouncer")
"""Programs that come by `make tools`."""

QUEUE: Final = "default"
"""Celery's queue in Redis, as Airflow names it."""
STANDBY: Final = "postgres-standby"
SLOTS_A_WORKER: Final = 4
WORKERS: Final = ("worker-1", "worker-2")

SOON_DEAD: Final[Mapping[str, str]] = {
    # A worker is dead when its task has sent no heartbeat (one a second here) for so long.
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
    "AIRFLOW__SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "5",
    # As long may the API servers be away before a task gives up by itself.
    "AIRFLOW__WORKERS__MAX_FAILED_HEARTBEATS": "20",
    # What a worker had taken from Redis and not begun is queued again, as often as it takes.
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT": "30",
    "AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT_CHECK_INTERVAL": "5",
    "AIRFLOW__SCHEDULER__NUM_STUCK_IN_QUEUED_RETRIES": "100",
    # The other scheduler and the other triggerer take over.
    "AIRFLOW__SCHEDULER__SCHEDULER_HEALTH_CHECK_THRESHOLD": "15",
    "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "10",
    "AIRFLOW__TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": "15",
}
"""Settings with which Airflow finds a dead part within half a minute instead of five to ten."""

_PRIMARY, _SEARCH = "postgres-primary", "search-nodes"


def _part(name: str, *command: str, port: str | None = None, **settings: str) -> Part:
    return Part(name, command, port, {hostname.VARIABLE: name, **settings})


def first_parts(layout: Layout, worker_names: Sequence[str] = WORKERS) -> list[Part]:
    """Airflow's processes that start as soon as its database is there."""
    api_servers = [
        _part(name, "api-server", port=name, AIRFLOW__API__PORT=str(layout.port(name)))
        for name in ("api-server-1", "api-server-2")
    ]
    schedulers = [_part(name, "scheduler") for name in ("scheduler-1", "scheduler-2")]
    workers = [
        _part(name, "celery", "worker", "--celery-hostname", name, "--skip-serve-logs")
        for name in worker_names
    ]
    return [*api_servers, *schedulers, *workers]


LAST_PARTS: Final = (
    _part("dag-processor", "dag-processor"),
    _part("triggerer-1", "triggerer", "--skip-serve-logs"),
    _part("triggerer-2", "triggerer", "--skip-serve-logs"),
)
"""Airflow's processes that start when the platform exists."""


def fronts(layout: Layout, stores: Nodes, search_release: str) -> dict[str, Front]:
    """What is behind HAProxy: the API servers, PostgreSQL's primary, and for LMS and User-Org the search nodes."""
    api_servers = [part for part in first_parts(layout) if part.kind == "api-server"]
    search_port = layout.port(search_release)
    return {
        "airflow": Front(
            layout.port("airflow"),
            haproxy.HTTP.format(path="/api/v2/version"),
            {part.name: f"{HOST}:{layout.port(part.name)}" for part in api_servers},
        ),
        _PRIMARY: Front(
            layout.port(_PRIMARY),
            haproxy.POSTGRES_PRIMARY,
            {name: f"{HOST}:{layout.port(name)}" for name in (postgres.NAME, STANDBY)},
            in_turn=False,
        ),
        _SEARCH: Front(
            layout.port(_SEARCH),
            haproxy.HTTP.format(path="/_cluster/health?local=true"),
            {
                node.named("search"): f"{node.host}:{search_port}"
                for node in nodes(stores.elasticsearch, stores.network)
                if not search.votes_only(node)
            },
        ),
    }


def primary(layout: Layout) -> str:
    """Where PostgreSQL's primary is reached, whichever server that is: `host:port`."""
    return f"{HOST}:{layout.port(_PRIMARY)}"


def search_url(layout: Layout) -> str:
    """The URL at which any search node answers."""
    return layout.url(_SEARCH)


def broker(layout: Layout) -> str:
    """Celery's URL of Redis."""
    return f"redis://{HOST}:{layout.port(redis.NAME)}/0"


def environment(layout: Layout, database_password: str) -> Mapping[str, str]:
    """Settings of Airflow's processes that differ from those of a stack on one machine."""
    login = f"{postgres.ADMINISTRATOR}:{database_password}"
    pooled = f"postgresql+psycopg2://{login}@{HOST}:{layout.port(PGBOUNCER)}/{DATABASE}"
    return {
        **SOON_DEAD,
        "PYTHONPATH": os.pathsep.join((str(REPOSITORY / "plugins"), str(REPOSITORY))),
        "AIRFLOW__CORE__HOSTNAME_CALLABLE": f"{hostname.__name__}.{hostname.of_this_part.__name__}",
        "AIRFLOW__CORE__EXECUTOR": "CeleryExecutor",
        # Two schedulers that look every 0.1 s take so much of two cores that one event is a fifth slower.
        "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.3",
        METADATA: pooled,
        # Past pgbouncer: asyncpg prepares statements, which belong to a session.
        f"{METADATA}_ASYNC": f"postgresql+asyncpg://{login}@{primary(layout)}/{DATABASE}",
        "AIRFLOW__CELERY__BROKER_URL": broker(layout),
        "AIRFLOW__CELERY__RESULT_BACKEND": f"db+{pooled}",
        "AIRFLOW__CELERY__WORKER_CONCURRENCY": str(SLOTS_A_WORKER),
        # Imported before a worker forks, or each task spends a second on it.
        "AIRFLOW__CELERY__EXTRA_CELERY_CONFIG": json.dumps({"imports": ["ownership.edge.preload"]}),
    }
