"""The command that creates the job's topics, on a real broker."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient, ConfigResource
from confluent_kafka.cimpl import NewTopic

from local.servers.processes import await_condition
from ownership.edge.topics import main

DAY_MS = 86_400_000


@pytest.fixture
def env(environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str:
    """An installation whose topics do not exist yet."""
    assert environment
    name = f"t{uuid.uuid4().hex[:8]}"
    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", json.dumps({"env": name}))
    return name


@pytest.fixture
def admin(environment: dict[str, Any]) -> AdminClient:
    servers = environment["AIRFLOW_CONN_KAFKA_DEFAULT"]["extra"]["bootstrap.servers"]
    return AdminClient({"bootstrap.servers": servers})


def await_partitions(admin: AdminClient, wanted: dict[str, int]) -> None:
    """Until the broker shows topics with so many partitions: it answers a creation before it shows them."""

    def shown() -> bool:
        known = admin.list_topics(timeout=30).topics
        return {name: len(known[name].partitions) for name in wanted if name in known} == wanted

    await_condition(shown, timeout_s=30, what=f"{wanted} to be shown")


def kept_ms(admin: AdminClient, topic: str) -> int:
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return int(admin.describe_configs([resource])[resource].result(timeout=30)["retention.ms"].value)


def test_topics_are_created_once(env: str, admin: AdminClient, capsys: pytest.CaptureFixture[str]) -> None:
    topic = f"{env}.user.ownership.transfer"
    assert main(["--partitions", "3"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{topic}: created, keeps messages for 14 days",
        f"{topic}.failed: created, keeps messages for 30 days",
    ]
    await_partitions(admin, {topic: 3, f"{topic}.failed": 1})
    assert main(["--partitions", "5"]) == 0
    assert capsys.readouterr().out.splitlines()[0] == f"{topic}: exists, keeps messages for 14 days"
    await_partitions(admin, {topic: 3})


@pytest.mark.parametrize(
    ("days", "then", "said"),
    [
        pytest.param(
            2, 14, "existed, keeps messages for 14 days instead of 2 days", id="the platform's two days"
        ),
        pytest.param(60, 60, "exists, keeps messages for 60 days", id="longer"),
        pytest.param(None, None, "exists, keeps messages for ever", id="for ever"),
    ],
)
def test_the_retention_of_a_topic_is_made_longer_and_never_shorter(
    env: str,
    admin: AdminClient,
    capsys: pytest.CaptureFixture[str],
    days: int | None,
    then: int | None,
    said: str,
) -> None:
    topic = f"{env}.user.ownership.transfer"
    before = {"retention.ms": str(days * DAY_MS if days else -1), "max.message.bytes": "2000000"}
    admin.create_topics([NewTopic(topic, 2, 1, config=before)])[topic].result(timeout=30)
    assert main([]) == 0
    assert f"{topic}: {said}" in capsys.readouterr().out.splitlines()
    assert kept_ms(admin, topic) == (then * DAY_MS if then else -1)
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    config = admin.describe_configs([resource])[resource].result(timeout=30)
    assert config["max.message.bytes"].value == "2000000"


def test_a_broker_out_of_reach_and_a_replication_that_it_has_not_are_reported(
    env: str,
    environment: dict[str, Any],
    nowhere: Callable[[str], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert env
    assert main(["--replication", "3"]) == 1
    assert "Kafka unavailable" in capsys.readouterr().err
    nowhere("kafka")
    assert main([]) == 1
    assert "is 'bootstrap.servers' of Connection 'kafka_default' right?" in capsys.readouterr().err
