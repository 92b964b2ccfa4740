"""When Airflow is ready to be used."""

from __future__ import annotations

import json
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from local.paths import REPOSITORY
from local.servers.airflow import DAG_IDS, await_dags, connections
from local.servers.processes import NotReadyError
from tests.unit.conftest import Request, Server


class Dags:
    """Lists each DAG when it has been asked for it as often as `after` says; `errors` are import errors."""

    def __init__(self, after: dict[str, int], errors: list[dict[str, str]] | None = None) -> None:
        self.after, self.errors = after, errors or []
        self.asked = Counter[str]()

    def __call__(self, request: Request, _handler: BaseHTTPRequestHandler) -> tuple[int, Any]:
        name = request.path.rpartition("/")[2]
        if name == "token":
            return 201, {"access_token": "t"}
        if name == "importErrors":
            return 200, {"import_errors": self.errors}
        self.asked[name] += 1
        if self.asked[name] == self.after[name]:
            return 200, {"is_paused": True}
        return (200, {"is_paused": False}) if self.asked[name] > self.after[name] else (404, {})


def test_the_stack_waits_for_every_dag_that_there_is():
    assert sorted(DAG_IDS) == sorted(file.stem for file in (REPOSITORY / "dags").glob("*.py"))


def test_the_ledger_s_address_becomes_a_connection():
    made = connections(
        kafka="k:1",
        cassandra="c:2",
        elasticsearch="http://e:3",
        ledger="postgresql://o:p%40ss@h:5433/ledger?sslmode=require",
        lms="http://l:4",
        userorg="http://u:5",
    )
    assert json.loads(made["AIRFLOW_CONN_OWNERSHIP_LEDGER"]) == {
        "conn_type": "postgres",
        "host": "h",
        "port": 5433,
        "schema": "ledger",
        "login": "o",
        "password": "p@ss",
        "extra": {"sslmode": "require"},
    }


def test_airflow_is_ready_when_the_last_dag_is_parsed_and_unpaused(server: Server):
    server.answer = dags = Dags({"one": 0, "two": 2})
    await_dags(server.url, "secret", ["one", "two"])
    assert dags.asked == {"one": 1, "two": 3}


def test_a_dag_that_does_not_come_in_time_is_named(server: Server):
    server.answer = Dags({"one": 0, "two": 1000})
    with pytest.raises(NotReadyError, match="for the DAGs one, two to be parsed"):
        await_dags(server.url, "secret", ["one", "two"], timeout_s=0.3)


def test_a_dag_that_cannot_be_imported_is_reported_at_once(server: Server):
    server.answer = Dags({"one": 1000}, [{"filename": "one.py", "stack_trace": "NameError: x"}])
    with pytest.raises(NotReadyError, match=r"(?s)one\.py cannot be imported:.*NameError: x"):
        await_dags(server.url, "secret", ["one"])
