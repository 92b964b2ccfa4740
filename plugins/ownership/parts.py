"""The stores, services and settings that the stages work with."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from elasticsearch import Elasticsearch

from ownership.batches import BatchSearch
from ownership.changes import Changes
from ownership.course_batches import CourseBatches
from ownership.cql import Cql
from ownership.ledger import Ledger
from ownership.open_list import OpenList
from ownership.search_index import SearchIndex
from ownership.service import Service
from ownership.settings import Settings
from ownership.users import Users


@dataclass(frozen=True)
class Parts:
    """Everything a stage reads and writes; made by the hooks, or by a test.

    `over` is the one place that knows which part sits on which client.
    """

    settings: Settings
    ledger: Ledger
    open_list: OpenList
    changes: Changes
    rows: CourseBatches
    index: SearchIndex
    users: Users
    search: BatchSearch
    cql: Cql

    @classmethod
    def over(
        cls, settings: Settings, cql: Cql, client: Elasticsearch, *, lms: Service, userorg: Service
    ) -> Self:
        """The parts over opened clients, which stay the caller's to close."""
        return cls(
            settings=settings,
            ledger=Ledger(cql, settings.ledger_keyspace),
            open_list=OpenList(cql, settings.ledger_keyspace),
            changes=Changes(cql, settings.ledger_keyspace),
            rows=CourseBatches(
                cql, settings.keyspace, settings.course_batch_table, batch_size=settings.batch_write_size
            ),
            index=SearchIndex(client, settings.course_batch_index),
            users=Users(userorg, settings.user_read_api),
            search=BatchSearch(lms, settings.batch_search_api),
            cql=cql,
        )


def now_ms() -> int:
    """This worker's clock, epoch ms."""
    return int(time.time() * 1000)
