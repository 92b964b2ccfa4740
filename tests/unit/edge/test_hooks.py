"""Parts that are opened ahead, while Airflow prepares the task."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Semaphore
from typing import Any

import pytest
from elasticsearch import Elasticsearch

from ownership.domain.errors import SettingsError
from ownership.domain.settings import Settings
from ownership.edge import hooks
from ownership.ledger.database import Database
from ownership.platform.cassandra import Cql

Log = list[str]


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    """What is opened, connected and closed, in this order."""
    done: Log = []

    class Session:
        def prepare(self, _: str) -> Any:
            done.append("cassandra used")

    @contextmanager
    def opened_cql() -> Iterator[Cql]:
        cql = Cql(Session)  # type: ignore[arg-type]  # a fake
        try:
            yield cql
        finally:
            cql.wait_for_connect()
            done.append("cassandra closed")

    @contextmanager
    def opened_database() -> Iterator[Any]:
        class Ledger(Database):
            def __init__(self) -> None: ...

            def connect(self) -> None:
                done.append("ledger connected")

        try:
            yield Ledger()
        finally:
            done.append("ledger closed")

    class Client(Elasticsearch):
        def close(self) -> None:
            done.append("index closed")

    def client() -> Elasticsearch:
        done.append("index opened")
        return Client("http://127.0.0.1:9")

    monkeypatch.setattr(hooks, "opened_cql", opened_cql)
    monkeypatch.setattr(hooks, "opened_database", opened_database)
    monkeypatch.setattr(hooks, "elasticsearch_client", client)
    monkeypatch.setattr(hooks, "load_settings", Settings)
    return done


def test_parts_that_were_opened_ahead_are_given_once_and_closed_by_who_uses_them(log: Log) -> None:
    hooks.open_ahead(rows=True, index=False, services=False)
    with hooks.opened_parts() as parts:
        assert log == ["ledger connected"]
        assert parts.cql.session
        assert log == ["ledger connected"]
    assert sorted(log[1:]) == ["cassandra closed", "ledger closed"]
    del log[:]
    with hooks.opened_parts() as parts:
        assert log == []
        parts.index.connect()
        assert log == ["index opened"]
    assert sorted(log[1:]) == ["cassandra closed", "index closed", "ledger closed"]


def test_the_clients_that_a_task_will_use_are_made_while_it_works(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Semaphore(0)

    def address(name: str) -> str:
        log.append(name)
        made.release()
        return "http://127.0.0.1:9"

    monkeypatch.setattr(hooks, "lms_endpoint", lambda _: address("LMS opened"))
    monkeypatch.setattr(hooks, "userorg_endpoint", lambda _: address("User-Org opened"))
    hooks.open_ahead(rows=False, index=True, services=True)
    with hooks.opened_parts():
        assert made.acquire(timeout=30)
        assert made.acquire(timeout=30)
    assert log[:4] == ["ledger connected", "index opened", "User-Org opened", "LMS opened"]


def test_an_error_of_an_opening_ahead_shows_where_the_parts_are_used(
    log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def wrong() -> Settings:
        raise SettingsError("a setting is wrong")

    monkeypatch.setattr(hooks, "load_settings", wrong)
    hooks.open_ahead(rows=True, index=True, services=True)
    with pytest.raises(SettingsError, match="a setting is wrong"), hooks.opened_parts():
        raise AssertionError
    assert log == ["ledger connected", "cassandra closed", "ledger closed"]
