"""Whatever is set wrong: the first task fails with one sentence that says what to set where.

The checks are those that the sensor runs before it reads a message; `tests/e2e` shows one in Airflow.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from ownership.errors import OwnershipError, SettingsError, Unavailable

VARIABLE = "AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER"


def opened() -> None:
    """What the sensor does before it reads."""
    from ownership.hooks import opened_intake, opened_parts

    with opened_parts() as parts, opened_intake(parts):
        pass


def test_the_stack_s_own_settings_pass(environment: dict[str, Any]):
    opened()


@pytest.mark.parametrize("name", ["kafka", "cassandra", "elasticsearch", "lms", "userorg"])
def test_a_missing_connection_is_named(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.delenv(f"AIRFLOW_CONN_{name.upper()}_DEFAULT")

    with pytest.raises(SettingsError, match=f"Connection '{name}_default' is missing.*Admin → Connections"):
        opened()


@pytest.mark.parametrize("name", ["kafka", "cassandra", "elasticsearch", "lms", "userorg"])
def test_a_wrong_host_is_named(nowhere: Callable[[str], None], name: str):
    nowhere(name)

    with pytest.raises(Unavailable, match=f"Connection '{name}_default' right"):
        opened()


@pytest.mark.parametrize("value", ["true", "True", True], ids=repr)
def test_automatic_commits_are_refused(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, value: object
):
    wrong = environment["AIRFLOW_CONN_KAFKA_DEFAULT"]
    wrong["extra"]["enable.auto.commit"] = value
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(wrong))

    with pytest.raises(SettingsError, match=r"enable\.auto\.commit=true, which loses events"):
        opened()


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        pytest.param({"kafka.input.topik": "x"}, "Unknown setting 'kafka.input.topik'", id="unknown"),
        pytest.param({"threshold.batch.write.size": 0}, "threshold.batch.write.size", id="out of bounds"),
        pytest.param({"env": "nowhere"}, "no topic 'nowhere.user.ownership.transfer'", id="no topic"),
        pytest.param({"kafka.failed.topic": "nowhere"}, "no topic 'nowhere'", id="no dead-letter topic"),
        pytest.param({"lms-cassandra.keyspace": "nowhere"}, "no keyspace 'nowhere'", id="no keyspace"),
        pytest.param({"lms-cassandra.course_batch.table": "nothing"}, "no table 'nothing'", id="no table"),
        pytest.param({"ledger.keyspace": "system_auth"}, "python -m ownership.create_ledger", id="no ledger"),
        pytest.param({"es.course_batch.index": "nothing"}, "no index 'nothing'", id="no index"),
        pytest.param({"es.course_batch.index": "user"}, "no sub-field 'createdBy.raw'", id="another index"),
        pytest.param({"service.lms.basePath": "no url"}, "service.lms.basePath", id="no URL"),
    ],
)
def test_a_wrong_setting_is_named(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any], sentence: str
):
    monkeypatch.setenv(VARIABLE, json.dumps({"env": "dev", **settings}))

    with pytest.raises(SettingsError, match=sentence):
        opened()


def test_settings_that_are_no_json_are_refused(environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(VARIABLE, "{env: dev}")

    with pytest.raises(OwnershipError, match="is not JSON"):
        opened()
