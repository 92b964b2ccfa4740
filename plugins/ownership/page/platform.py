"""The platform's stores, as the page asks them: the search index and the rows of `course_batch`, read only.

A store that does not answer must block neither the API server nor the rest of a page. So each is asked by few threads
of its own, a request waits for `PATIENCE_S` at most, and for `AGAIN_AFTER_S` after an outage requests fail at once.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import TYPE_CHECKING, Annotated, Generic, TypeVar
from zoneinfo import ZoneInfo

from fastapi import Depends

from ownership.domain.errors import OwnershipError, Unavailable
from ownership.domain.settings import Settings
from ownership.edge.cassandra_hook import opened_cql
from ownership.edge.connections import CONTENT, endpoint
from ownership.edge.hooks import elasticsearch_client, userorg_endpoint
from ownership.page.settings import process_settings
from ownership.platform.content_search import Courses
from ownership.platform.course_batches import CourseBatches
from ownership.platform.http_service import Endpoint, Service
from ownership.platform.search_index import SearchIndex
from ownership.platform.user_org import Users

if TYPE_CHECKING:
    from collections.abc import Iterator

AT_ONCE = 2
"""Questions to one store at once, in one process."""
PATIENCE_S = 5.0
"""Longest wait for an answer, a connect included."""
AGAIN_AFTER_S = 5.0
"""After an outage, requests fail with the same error for this long."""
CALL_S = 4.0
"""Time-out of a call to the index; the driver of Cassandra has its Connection's."""

NAMES_S = 2.0
"""Longest wait for names, all together."""
NAME_S = 1.5
"""Longest wait for one of them, so that the others are shown."""
MAX_NAMES_BYTES = 1024 * 1024
"""Of one user's record, or of what a search by name finds."""

S = TypeVar("S")
T = TypeVar("T")


class Asked(Generic[S]):
    """One store: opened by the first question, and opened anew after an outage."""

    def __init__(
        self,
        name: str,
        opened: Callable[[], AbstractContextManager[S]],
        clock: Callable[[], float] = time.monotonic,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._name, self._opened, self._clock, self._patience_s = name, opened, clock, patience_s
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._threads = ThreadPoolExecutor(AT_ONCE, f"ask-{name}")
        self._store: S | None = None
        self._asking = 0
        self._closing = ExitStack()
        """Of all that were opened: closed when no question is under way, the newest too if it is given up."""
        self._failed: tuple[float, OwnershipError] | None = None

    def ask(self, question: Callable[[S], T]) -> T:
        """The answer to `question`.

        :raises SettingsError: if a setting or the Connection is missing or wrong.
        :raises Unavailable: if the store does not answer in time, or too many requests are asking it.
        """
        if self._failed and self._clock() - self._failed[0] < AGAIN_AFTER_S:
            raise self._failed[1]
        if not self._turns.acquire(blocking=False):
            raise Unavailable(self._name, "other requests are asking it; try again")
        asking = self._threads.submit(self._answer, question)
        try:
            answer = asking.result(timeout=self._patience_s)
        except TooLate:
            self._failed = (
                self._clock(),
                Unavailable(self._name, f"no answer within {self._patience_s:g} s"),
            )
            raise self._failed[1] from None
        except OwnershipError as e:
            self._failed = (self._clock(), e)
            raise
        self._failed = None
        return answer

    def _answer(self, question: Callable[[S], T]) -> T:
        works = False
        try:
            answer = question(self._begin())
            works = True
            return answer
        finally:
            self._end(works=works)
            self._turns.release()

    def _begin(self) -> S:
        with self._lock:
            self._asking += 1
            if self._store is None:
                self._store = self._closing.enter_context(self._opened())
            return self._store

    def _end(self, *, works: bool) -> None:
        """Give a store up that failed: its Connection may be another by now, and the driver's next try far away."""
        with self._lock:
            self._asking -= 1
            if not works:
                self._store = None
            if self._store is None and not self._asking:
                self._closing.close()


class Platform:
    """Index, rows, and the names of users and courses."""

    def __init__(self, settings: Callable[[], Settings]) -> None:
        self.index: Asked[SearchIndex] = Asked("Elasticsearch", lambda: _index(settings()))
        self.rows: Asked[CourseBatches] = Asked("Cassandra", lambda: _rows(settings()))
        self.users: Asked[Users] = Asked("User-Org", lambda: _users(settings()), patience_s=NAMES_S)
        self.courses: Asked[Courses] = Asked("content search", _courses, patience_s=NAMES_S)


@contextmanager
def _index(settings: Settings) -> Iterator[SearchIndex]:
    client = elasticsearch_client()
    try:
        quick = client.options(request_timeout=CALL_S, max_retries=0)
        yield SearchIndex(lambda: quick, settings.course_batch_index, zone=ZoneInfo(settings.time_zone))
    finally:
        client.close()


@contextmanager
def _rows(settings: Settings) -> Iterator[CourseBatches]:
    with opened_cql() as cql:
        yield CourseBatches(cql, settings.keyspace, settings.course_batch_table, batch_size=1)


@contextmanager
def _users(settings: Settings) -> Iterator[Users]:
    with _service("User-Org", lambda: userorg_endpoint(settings)) as service:
        yield Users(service, settings.user_read_api)


@contextmanager
def _courses() -> Iterator[Courses]:
    with _service("content search", lambda: endpoint(CONTENT)) as service:
        yield Courses(service)


def _service(name: str, endpoint: Callable[[], Endpoint]) -> Service:
    return Service(name, endpoint, tries=1, call_seconds=NAME_S, max_bytes=MAX_NAMES_BYTES)


_PLATFORM = Platform(process_settings())


def process_platform() -> Platform:
    """Of this process."""
    return _PLATFORM


Stores = Annotated[Platform, Depends(process_platform)]
