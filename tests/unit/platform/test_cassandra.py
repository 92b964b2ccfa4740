from __future__ import annotations

from itertools import count
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from cassandra import DriverException

from ownership.domain.errors import Unavailable
from ownership.platform.cassandra import Cql


def test_a_session_that_is_connected_ahead_is_the_one_that_is_used():
    calls = count()
    cql = Cql(lambda: next(calls))  # any session will do
    cql.connect_ahead()
    assert [cql.session, cql.session] == [0, 0]
    assert next(calls) == 1


def test_the_caller_goes_on_while_the_session_is_connected_ahead():
    may_end = Event()

    def connect() -> Any:
        assert may_end.wait(30)
        return "session"

    cql = Cql(connect)
    cql.connect_ahead()  # returns although connect has not
    may_end.set()
    assert cql.session == "session"


def test_an_error_of_connecting_ahead_is_raised_where_the_session_is_used_and_the_next_use_connects_anew():
    answers = iter([Unavailable("Cassandra", "no node"), "session"])

    def connect() -> Any:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    cql = Cql(connect)
    cql.connect_ahead()
    with pytest.raises(Unavailable, match="no node"):
        _ = cql.session
    assert cql.session == "session"


def test_a_connect_that_nobody_used_has_ended_before_its_clients_are_closed():
    may_end, ended = Event(), Event()

    def connect() -> Any:
        assert may_end.wait(30)
        ended.set()

    cql = Cql(connect)
    cql.connect_ahead()
    may_end.set()
    cql.wait_for_connect()
    assert ended.is_set()


def test_what_asks_for_nothing_does_not_connect():
    cql = Cql(lambda: pytest.fail("it connects"))
    assert cql.select_each("SELECT x FROM k.t WHERE a = ?", []) == []
    assert cql.conditional_batches([]) == []


class Metadata:
    """A cluster that knows the nodes of no keyspace until it is asked to."""

    def __init__(self) -> None:
        self.keyspaces: dict[str, str] = {}
        self.refreshed: list[str] = []

    @property
    def metadata(self) -> Metadata:
        return self

    def refresh_keyspace_metadata(self, keyspace: str, *, max_schema_agreement_wait: float) -> None:
        assert max_schema_agreement_wait == 0
        self.refreshed.append(keyspace)
        if keyspace == "unreadable":
            raise DriverException
        self.keyspaces[keyspace] = keyspace


def test_the_driver_knows_the_nodes_of_a_keyspace_when_its_first_statement_is_prepared():
    cluster = Metadata()

    def prepare(cql: str) -> Any:
        return SimpleNamespace(
            column_metadata=[SimpleNamespace(keyspace_name=cql.partition(".")[0])], bind=lambda _: cql
        )

    cql = Cql(lambda: SimpleNamespace(prepare=prepare, cluster=cluster))  # type: ignore[arg-type, return-value]  # a fake
    for text in ("k.one", "k.two", "k.one", "unreadable.one"):
        assert cql.bind(text, ("a",)) == text  # also without its nodes, by one hop more
    assert cluster.refreshed == ["k", "unreadable"]
