"""The page's database in each process of the API server.

The first request opens it. The threads of the API server belong to Airflow, and a ledger that does not answer must not
block them all: reads are few at a time and short, and after a failed connect requests fail fast for `AGAIN_AFTER_S`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Annotated, Any

from fastapi import Depends, HTTPException

from ownership.domain.errors import OwnershipError, Unavailable
from ownership.domain.organisations import NOTHING, VisibleOrganisations
from ownership.edge.ledger_hook import ledger_parameters
from ownership.ledger.database import PART, Database
from ownership.ledger.events import EventRow
from ownership.ledger.hosts import EVERY_SECONDS
from ownership.ledger.reads import Reads
from ownership.page.access import Visible
from ownership.page.host import report_api_server

AT_ONCE = 6
"""Concurrent reads of the ledger in one process, and its connections."""
PATIENCE_S = 3.0
"""Longest wait for a read to end, or for another request that is connecting."""
STATEMENT_MS = 4000
"""Time-out of a statement of the page."""
TRIES = 2
AGAIN_AFTER_S = 5.0
"""After a failed connect, requests fail with the same error for this long."""
LOOK_AGAIN_S = 10.0
"""The Connection is read again after this."""


def opened_for_page(parameters: Mapping[str, Any]) -> Database:
    """The database as the page uses it."""
    return Database.at(parameters, connections=AT_ONCE, tries=TRIES)


class Store:
    """Opens the database, keeps it, lends reads of it."""

    def __init__(
        self,
        parameters: Callable[[], Mapping[str, Any]] = ledger_parameters,
        opened: Callable[[Mapping[str, Any]], Database] = opened_for_page,
        clock: Callable[[], float] = time.monotonic,
        report: Callable[[Database], None] = lambda _database: None,
    ) -> None:
        """`report` is called with the database by a request, once in `EVERY_SECONDS`."""
        self._parameters, self._opened, self._clock, self._report = parameters, opened, clock, report
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._database: Database | None = None
        self._given: Mapping[str, Any] = {}
        self._looked_at: float | None = None
        self._answers = False
        """False until the database has answered, and again when a read met an outage."""
        self._report_at = float("-inf")
        self._failed: tuple[float, OwnershipError] | None = None

    @contextmanager
    def reads(self, visible: VisibleOrganisations) -> Iterator[Reads]:
        """The ledger, to be read by a person to whom these organisations are visible.

        :raises SettingsError: if the Connection is missing or wrong.
        :raises Unavailable: if the database does not answer, or too many requests are reading.
        """
        if not self._turns.acquire(timeout=PATIENCE_S):
            raise Unavailable("the page", f"{AT_ONCE} other requests are reading; try again")
        try:
            database = self._open()
            if (now := self._clock()) >= self._report_at:
                self._report_at = now + EVERY_SECONDS
                self._report(database)
            yield Reads(database, visible, statement_ms=STATEMENT_MS)
        except Unavailable:
            self._answers = False
            raise
        finally:
            self._turns.release()

    def report(self) -> None:
        """Report this API server, if no request did a moment ago. A ledger that does not answer is let be."""
        if self._clock() >= self._report_at:
            with suppress(OwnershipError), self.reads(NOTHING):
                pass

    def close(self) -> None:
        """End the connections, if there are any."""
        database, self._database = self._database, None
        if database:
            database.close()

    def _open(self) -> Database:
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise Unavailable(PART, "another request is still connecting")
        try:
            if self._failed and self._clock() - self._failed[0] < AGAIN_AFTER_S:
                raise self._failed[1]
            try:
                database = self._current()
                if not self._answers:
                    database.run(lambda _connection: None)
                self._answers, self._failed = True, None
            except OwnershipError as e:
                self._failed = (self._clock(), e)
                raise
            return database
        finally:
            self._lock.release()

    def _current(self) -> Database:
        """The database that the Connection names."""
        now = self._clock()
        if self._looked_at is None or now - self._looked_at > LOOK_AGAIN_S:
            given = self._parameters()
            if given != self._given:
                self.close()
            self._given, self._looked_at = given, now
        if self._database is None:
            self._database, self._answers = self._opened(self._given), False
        return self._database


_STORE = Store(report=report_api_server)


def process_store() -> Store:
    """The store of this process."""
    return _STORE


class VisibleLedger:
    """The ledger, as far as the user of a request may see it."""

    def __init__(self, store: Annotated[Store, Depends(process_store)], visible: Visible) -> None:
        self._store = store
        self.visible = visible

    def reads(self) -> AbstractContextManager[Reads]:
        """`Store.reads` of what is visible."""
        return self._store.reads(self.visible)

    def event(self, mid: str) -> EventRow:
        """An event; answer 404 if the user sees none with this mid."""
        with self.reads() as reads:
            event = reads.details.event(mid)
        if event is None:
            raise HTTPException(404, "The ledger has no such transfer.")
        return event


Ledger = Annotated[VisibleLedger, Depends()]
"""The ledger, for a route: what the user may not see is not in it."""
