"""Cassandra, as the row store uses it: prepared, concurrent, bounded, retried.

Statements are written with ``?`` and bound values; only validated names (`settings.CqlName`)
are ever put into their text.
"""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, TypeVar

from cassandra import (
    ConsistencyLevel,
    DriverException,
    InvalidRequest,
    OperationTimedOut,
    ReadFailure,
    ReadTimeout,
    Unauthorized,
    WriteFailure,
    WriteTimeout,
)
from cassandra import Unavailable as TooFewReplicas
from cassandra.cluster import EXEC_PROFILE_DEFAULT, ExecutionProfile, NoHostAvailable, Session
from cassandra.concurrent import execute_concurrent
from cassandra.connection import ConnectionException
from cassandra.policies import FallthroughRetryPolicy
from cassandra.protocol import RequestExecutionException, ServerError
from cassandra.query import BatchStatement, BatchType, BoundStatement, PreparedStatement, tuple_factory

from ownership.domain.errors import SettingsError, Unavailable

PART = "Cassandra"
CONCURRENT = 64
"""Statements under way at once from one process."""
SOCKET_OPTIONS = ((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),)
"""For the driver, which leaves the system's default: a request of several segments then waits 40 ms for the
server's delayed acknowledgement (measured: 100 keys in one statement 54 ms, with this 4 ms)."""
TRIES = 4
"""Tries of a statement that may be repeated; waits of 0.2, 0.4, 0.8 s (± half) between them."""

_KEYSPACE = "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = ?"
_COLUMNS = "SELECT column_name, type FROM system_schema.columns WHERE keyspace_name = ? AND table_name = ?"

T = TypeVar("T")
Statement = tuple[str, Sequence[Any]]
"""CQL and its values."""

_OUTAGES = (
    NoHostAvailable,
    ConnectionException,
    OperationTimedOut,
    ReadFailure,
    ReadTimeout,
    # Overloaded, bootstrapping, truncating: no driver exceptions, but the server's own messages.
    RequestExecutionException,
    ServerError,
    TooFewReplicas,
    WriteFailure,
    WriteTimeout,
)


class StatementRefused(SettingsError):
    """The server knows the statement and does not allow it: a restriction of its version, a guardrail, a bound."""


class Cql:
    """A session with prepared statements kept by their text; a statement is tried `TRIES` times at most."""

    def __init__(self, connect: Callable[[], Session]) -> None:
        """`connect` is called when the session is first used."""
        self._connect = connect
        self._ahead: Future[Session] | None = None
        self._prepared: dict[str, PreparedStatement] = {}

    @cached_property
    def session(self) -> Session:
        """The driver's session."""
        ahead, self._ahead = self._ahead, None
        return ahead.result() if ahead else self._connect()

    @cached_property
    def _profile(self) -> ExecutionProfile:
        """The session's own, for rows that are tuples: for a named one the driver makes a class with each answer."""
        return self.session.execution_profile_clone_update(EXEC_PROFILE_DEFAULT, row_factory=tuple_factory)

    @cached_property
    def _conditional(self) -> ExecutionProfile:
        """The same for conditional statements, of which the driver repeats none.

        Where a connection is lost, its own policy sends one to another node without a word, and what the first node had
        applied looks refused.
        """
        return self.session.execution_profile_clone_update(
            EXEC_PROFILE_DEFAULT, row_factory=tuple_factory, retry_policy=FallthroughRetryPolicy()
        )

    @cached_property
    def _serial(self) -> ExecutionProfile:
        """The same for reads that see what conditional statements have decided."""
        # Without a level of the session's own, the server decides conditional statements at SERIAL.
        level = self._profile.serial_consistency_level or ConsistencyLevel.SERIAL
        return self.session.execution_profile_clone_update(
            EXEC_PROFILE_DEFAULT, row_factory=tuple_factory, consistency_level=level
        )

    def connect_ahead(self) -> None:
        """Begin to connect (0.1 s) while the caller does something else; an error shows when the session is used."""
        if self._ahead or "session" in self.__dict__:
            return
        pool = ThreadPoolExecutor(1, "cassandra-connect")
        self._ahead = pool.submit(self._connect)
        pool.shutdown(wait=False)

    def wait_for_connect(self) -> None:
        """Let a connect that nobody used come to its end, so that it can be closed."""
        if self._ahead:
            wait([self._ahead])

    def bind(self, cql: str, values: Sequence[Any] = ()) -> BoundStatement:
        """The statement with its values bound."""
        statement = self._prepared.get(cql)
        if statement is None:
            statement = self._guard(lambda: self._prepare(cql))
            self._prepared[cql] = statement
        return statement.bind(values)

    def _prepare(self, cql: str) -> PreparedStatement:
        """The statement; from now on the driver knows on which nodes its rows are."""
        statement = self.session.prepare(cql)
        cluster = self.session.cluster
        for column in statement.column_metadata[:1]:
            if column.keyspace_name not in cluster.metadata.keyspaces:
                with suppress(DriverException):  # without it, a statement takes one hop more
                    cluster.refresh_keyspace_metadata(column.keyspace_name, max_schema_agreement_wait=0)
        return statement

    def has_keyspace(self, name: str) -> bool:
        """Whether the server has a keyspace."""
        return bool(self.select_each(_KEYSPACE, [(name,)])[0])

    def columns(self, keyspace: str, table: str) -> dict[str, str]:
        """The columns of a table, each with its type; none if there is no such table."""
        return dict(self.select_each(_COLUMNS, [(keyspace, table)])[0])

    def pages(self, cql: str, values: Sequence[Any], *, rows: int) -> Iterator[list[tuple[Any, ...]]]:
        """Rows of one query, `rows` at a time at most; a page that meets an outage is asked for again."""
        statement = self.bind(cql, values)
        statement.fetch_size = rows
        state: bytes | None = None
        while True:
            ask = partial(
                self.session.execute, statement, execution_profile=self._profile, paging_state=state
            )
            page = self._guard(ask)
            if found := list(page.current_rows):
                yield found
            state = page.paging_state
            if state is None:
                return

    def select_each(self, cql: str, values: Iterable[Sequence[Any]]) -> list[list[tuple[Any, ...]]]:
        """One query with many values, concurrently: its rows, in the order of `values`."""
        return [list(rows) for rows in self._concurrently([self.bind(cql, v) for v in values])]

    def decide(self, cql: str, values: Iterable[Sequence[Any]]) -> None:
        """Finish or rule out the conditional statements whose answers were lost, by a serial read of each partition.

        Until then one that some nodes have accepted is seen by no plain read, and is made by the next conditional
        statement. The query reads one partition for each of `values`.
        """
        self._concurrently([self.bind(cql, v) for v in values], serial=True)

    def conditional_batches(self, batches: Iterable[Sequence[Statement]]) -> list[bool | None]:
        """Many conditional batches on different partitions, concurrently: each applied as a whole or not at all.

        Returns for each, in their order, whether it was applied. A time-out leaves a batch in doubt, and the *same*
        batch is repeated. None: the repeated one was not applied, so the first one may have been.
        """
        in_doubt: set[int] = set()
        answers = self._concurrently([self._batch(b) for b in batches], in_doubt)
        return [_applied(r) or (None if n in in_doubt else False) for n, r in enumerate(answers)]

    def _batch(self, statements: Sequence[Statement]) -> BatchStatement | BoundStatement:
        if len(statements) == 1:
            return self.bind(*statements[0])
        batch = BatchStatement(BatchType.UNLOGGED)
        for s in statements:
            batch.add(self.bind(*s))
        return batch

    def _concurrently(
        self, statements: list[Any], repeated: set[int] | None = None, *, serial: bool = False
    ) -> list[Any]:
        """Results in order; statements that met an outage are repeated, `TRIES` times in all.

        Adds their numbers to `repeated`, which is given for conditional ones.
        """
        results: list[Any] = [None] * len(statements)
        if not statements:  # no reason to connect
            return results
        profile = self._conditional if repeated is not None else self._serial if serial else self._profile
        todo = list(range(len(statements)))
        for _ in _tries():
            outcomes = execute_concurrent(
                self.session,
                [(statements[i], ()) for i in todo],
                concurrency=CONCURRENT,
                raise_on_first_error=False,
                execution_profile=profile,
            )
            failed = []
            for i, (success, result) in zip(todo, outcomes, strict=True):
                if success:
                    results[i] = result
                elif isinstance(result, _OUTAGES):
                    failed.append((i, result))
                else:
                    raise _translated(result)
            if not failed:
                return results
            todo = [i for i, _ in failed]
            if repeated is not None:
                repeated.update(todo)
        raise Unavailable(PART, _short(failed[0][1]))

    def _guard(self, action: Callable[[], T]) -> T:
        for _ in _tries():
            try:
                return action()
            except _OUTAGES as e:
                last = e
            except DriverException as e:
                raise _translated(e) from None
        raise Unavailable(PART, _short(last)) from None


def _tries() -> Iterator[None]:
    """`TRIES` times, with a pause before each but the first."""
    yield
    for n in range(TRIES - 1):
        time.sleep(0.2 * 2**n * random.uniform(0.5, 1.5))
        yield


def _applied(rows: Iterable[Sequence[Any]]) -> bool:
    # A conditional statement always answers with at least one row; its first column says so.
    return all(row[0] for row in rows)


def _translated(error: Exception) -> Exception:
    if isinstance(error, Unauthorized):
        return SettingsError(
            f"Cassandra refuses a statement: {_short(error)}. Grant the job's role SELECT and MODIFY on the table."
        )
    if isinstance(error, InvalidRequest):
        return StatementRefused(
            f"Cassandra refuses a statement: {_short(error)}. Check keyspace and table "
            "(settings lms-cassandra.keyspace, lms-cassandra.course_batch.table), or the guardrail that it names."
        )
    return error


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:300]
