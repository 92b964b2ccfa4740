"""The page's one session to Cassandra in each process of the API server.

It is opened when it is first wanted, and again after it failed, never when the process starts. The threads of
the API server belong to Airflow: a Cassandra that does not answer must not take them all, so reads are few at
a time and short, and after a failure to connect nobody tries again for some seconds.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple

from cassandra.cluster import EXEC_PROFILE_DEFAULT

from ownership.connections import connection
from ownership.cql import Cql
from ownership.errors import OwnershipError, Unavailable
from ownership.hooks import CASSANDRA, CassandraHook, load_settings
from ownership.page.reads import Reads
from ownership.settings import Settings

AT_ONCE = 6
"""Requests of the page that read the ledger at the same time in one process."""
PATIENCE_S = 3.0
"""Longest wait for one's turn, or for somebody else who is connecting."""
REQUEST_TIMEOUT_S = 4.0
"""A statement's time-out, unless the Connection has a shorter one; it is tried twice."""
AGAIN_AFTER_S = 5.0
"""After a failure to connect, others are told the same for so long."""
LOOK_AGAIN_S = 10.0
"""Settings and Connection are read again when they are older than this."""


class Looked(NamedTuple):
    """Settings, and what names the Connection's content."""

    settings: Settings
    connection: str


@dataclass
class _Opened:
    hook: CassandraHook
    cql: Cql
    connection: str


class Store:
    """Opens the session, keeps it, lends it."""

    def __init__(
        self,
        look: Callable[[], Looked] | None = None,
        hook: Callable[[], Any] = CassandraHook,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._look, self._hook, self._clock = look or looked, hook, clock
        self._lock = threading.Lock()
        self._turns = threading.BoundedSemaphore(AT_ONCE)
        self._opened: _Opened | None = None
        self._last: tuple[float, Looked] | None = None
        self._failed: tuple[float, OwnershipError] | None = None

    @contextmanager
    def reads(self) -> Iterator[Reads]:
        """The ledger, to be read.

        :raises SettingsError: if a setting or the Connection is missing or wrong.
        :raises Unavailable: if Cassandra does not answer, or too many are reading.
        """
        if not self._turns.acquire(timeout=PATIENCE_S):
            raise Unavailable("the page", f"{AT_ONCE} others are reading; try again")
        try:
            opened, settings = self._open()
            yield Reads(opened.cql, settings.ledger_keyspace, retention_days=settings.retention_days)
        finally:
            self._turns.release()

    def settings(self) -> Settings:
        """The settings, at most some seconds old."""
        return self._looked().settings

    def close(self) -> None:
        """End the session, if there is one."""
        opened, self._opened = self._opened, None
        if opened:
            with suppress(Exception):
                opened.hook.shutdown_cluster()

    def _open(self) -> tuple[_Opened, Settings]:
        if not self._lock.acquire(timeout=PATIENCE_S):
            raise Unavailable("Cassandra", "another request is still connecting")
        try:
            now = self._clock()
            if self._failed and now - self._failed[0] < AGAIN_AFTER_S:
                raise self._failed[1]
            try:
                found = self._looked()
                if self._opened and self._opened.connection != found.connection:
                    self.close()
                if self._opened is None:
                    self._opened = self._connect(found)
                self._failed = None
            except OwnershipError as e:
                self._failed = (self._clock(), e)
                raise
            return self._opened, found.settings
        finally:
            self._lock.release()

    def _looked(self) -> Looked:
        now = self._clock()
        if self._last is None or now - self._last[0] > LOOK_AGAIN_S:
            self._last = (now, self._look())
        return self._last[1]

    def _connect(self, found: Looked) -> _Opened:
        hook = self._hook()
        try:
            session = hook.get_conn()
        except BaseException:
            with suppress(Exception):
                hook.shutdown_cluster()
            raise
        profile = session.get_execution_profile(EXEC_PROFILE_DEFAULT)
        profile.request_timeout = min(profile.request_timeout or REQUEST_TIMEOUT_S, REQUEST_TIMEOUT_S)
        return _Opened(hook, Cql(session, tries=2), found.connection)


def looked() -> Looked:
    """Settings and Connection as they are now."""
    conn = connection(CASSANDRA)
    content = repr((conn.host, conn.port, conn.login, conn.password, conn.schema, conn.extra))
    return Looked(load_settings(), hashlib.sha256(content.encode()).hexdigest())
