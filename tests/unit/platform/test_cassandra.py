from __future__ import annotations

from itertools import count
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest
from cassandra import ConsistencyLevel, DriverException
from cassandra.cluster import ResponseFuture
from cassandra.connection import ConnectionShutdown
from cassandra.policies import RetryPolicy
from cassandra.protocol import RESULT_KIND_ROWS, ResultMessage

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
    cql.decide("SELECT x FROM k.t WHERE a = ?", [])


class Node:
    """A node and its connections, which are gone once the answer is that they are."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.is_shutdown = answer, False
        self.level: int | None = None
        """The consistency that it was asked for last."""

    def borrow_connection(self, timeout: float) -> tuple[Node, int]:
        assert timeout
        return self, 1

    def return_connection(self, connection: Node) -> None:
        assert connection is self

    def send_msg(self, message: Any, request_id: int, *, cb: Any, **_: Any) -> int:
        self.level = message.consistency_level
        self.is_shutdown = isinstance(self.answer, ConnectionShutdown)
        cb(self.answer)
        return request_id


class Cluster:
    """A session with some nodes; the driver's own `ResponseFuture` sends what it is given, and repeats it."""

    def __init__(self, *nodes: Node) -> None:
        self._pools = dict(enumerate(nodes))
        self.keyspace = self.cluster = None
        self.client_protocol_handler = SimpleNamespace(encode_message=None, decode_message=None)

    def prepare(self, _: str) -> Any:
        return SimpleNamespace(column_metadata=[], bind=lambda values: values)

    def execution_profile_clone_update(self, *_: Any, **updates: Any) -> Any:
        levels = {"consistency_level": None, "serial_consistency_level": ConsistencyLevel.LOCAL_SERIAL}
        return SimpleNamespace(**{"retry_policy": RetryPolicy(), **levels, **updates})

    def submit(self, call: Any, *arguments: Any) -> None:
        call(*arguments)

    def execute_async(self, statement: Any, _: Any, *, execution_profile: Any) -> ResponseFuture:
        future = ResponseFuture(
            self, SimpleNamespace(consistency_level=execution_profile.consistency_level), statement, None,
            retry_policy=execution_profile.retry_policy, row_factory=execution_profile.row_factory,
            load_balancer=SimpleNamespace(make_query_plan=lambda *_: list(self._pools)),
        )  # fmt: skip
        future.send_request()
        return future


def applied(*, is_applied: bool) -> ResultMessage:
    """A node's answer to a conditional statement."""
    answer = ResultMessage(RESULT_KIND_ROWS)
    answer.column_names, answer.column_types, answer.parsed_rows = ["[applied]"], [], [(is_applied,)]
    return answer


def test_a_change_whose_answer_was_lost_with_its_node_is_in_doubt_and_not_refused() -> None:
    """The node may have made it: then another node refuses it when it is asked again."""
    session = Cluster(Node(ConnectionShutdown("lost")), Node(applied(is_applied=False)))
    cql = Cql(lambda: session)  # type: ignore[arg-type, return-value]  # a fake
    assert cql.conditional_batches([[("UPDATE k.t SET a = ? IF a = ?", ("new", "old"))]]) == [None]


def test_what_decides_changes_reads_at_the_level_at_which_they_are_decided() -> None:
    node = Node(applied(is_applied=True))
    Cql(lambda: Cluster(node)).decide("SELECT b FROM k.t WHERE a = ? LIMIT 1", [("x",)])  # type: ignore[arg-type, return-value]  # a fake
    assert node.level == ConsistencyLevel.LOCAL_SERIAL


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
