"""The stores, services and settings that the stages work with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self
from zoneinfo import ZoneInfo

from elasticsearch import Elasticsearch

from ownership.domain.settings import Settings
from ownership.ledger.arrivals import Arrivals
from ownership.ledger.changes import Changes
from ownership.ledger.database import Database
from ownership.ledger.events import Events
from ownership.ledger.queue import Queue
from ownership.ledger.reports import Reconciliations
from ownership.platform.cassandra import Cql
from ownership.platform.course_batches import CourseBatches
from ownership.platform.http_service import Service
from ownership.platform.lms import BatchSearch
from ownership.platform.search_index import SearchIndex
from ownership.platform.user_org import Users


@dataclass(frozen=True)
class Parts:
    """Everything a stage reads and writes; made by the hooks, or by a test.

    `from_clients` is the one place that knows which part sits on which client.
    """

    settings: Settings
    database: Database
    arrivals: Arrivals
    events: Events
    queue: Queue
    changes: Changes
    reconciliations: Reconciliations
    rows: CourseBatches
    index: SearchIndex
    users: Users
    search: BatchSearch
    cql: Cql

    @classmethod
    def from_clients(
        cls,
        settings: Settings,
        database: Database,
        cql: Cql,
        connect_search: Callable[[], Elasticsearch],
        *,
        lms: Service,
        userorg: Service,
    ) -> Self:
        """The parts over clients, which stay the caller's to close; `connect_search` is called when the index is used."""
        return cls(
            settings=settings,
            database=database,
            arrivals=Arrivals(database),
            events=Events(database),
            queue=Queue(database),
            changes=Changes(database),
            reconciliations=Reconciliations(database),
            rows=CourseBatches(
                cql, settings.keyspace, settings.course_batch_table, batch_size=settings.batch_write_size
            ),
            index=SearchIndex(connect_search, settings.course_batch_index, zone=ZoneInfo(settings.time_zone)),
            users=Users(userorg, settings.user_read_api),
            search=BatchSearch(lms, settings.batch_search_api),
            cql=cql,
        )
