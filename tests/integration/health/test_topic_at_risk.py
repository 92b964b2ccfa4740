"""What keeps messages from being accepted, or deletes them first, is seen on a real broker before it is too late."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from airflow.sdk.observability import stats
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
)

from local.servers.processes import await_condition
from ownership.domain.clock import now_ms
from ownership.domain.errors import SettingsError
from ownership.edge.triggers import _Watch
from ownership.health.look import look
from ownership.health.problems import HealthFacts, Kind, problems
from tests.integration.stages.transfer_world import World

HOUR_MS = 3_600_000


def looked(world: World) -> HealthFacts:
    return look(world.job.settings)


def sentences(facts: HealthFacts) -> dict[Kind, str]:
    return {p.kind: p.sentence for p in problems(facts, deadline_minutes=30)}


@pytest.fixture
def gauges(world: World, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the watcher sends, by name."""
    sent: dict[str, float] = {}
    monkeypatch.setattr(
        stats, "gauge", lambda name, value: sent.update({name.removeprefix("ownership."): value})
    )

    def send() -> dict[str, float]:
        sent.clear()
        with ExitStack() as stack:
            watch = _Watch(stack)
            watch.look()
            watch.measure()
        return sent

    return send


@contextmanager
def open_transaction(world: World, **message: Any) -> Iterator[Producer]:
    """Another producer with a message in a transaction that it does not end."""
    producer = Producer({"bootstrap.servers": world.kafka, "transactional.id": f"other-{world.env}"})
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(world.job.topic.name, b"{no event", **message)
    assert producer.flush(30) == 0
    try:
        yield producer
    finally:
        producer.abort_transaction(30)
        # The coordinator answers before the partition has the marker that ends the transaction.
        await_condition(lambda: not held_back(world), timeout_s=30, what="the end of the transaction")


def held_back(world: World) -> bool:
    """Whether an open transaction holds messages back."""
    backlog = looked(world).backlog
    assert backlog
    return bool(backlog.held_back)


def configured(world: World, **config: object) -> None:
    """Alter the topic."""
    resource = ConfigResource(
        ConfigResource.Type.TOPIC,
        world.job.topic.name,
        incremental_configs=[
            ConfigEntry(name.replace("_", "."), str(value), incremental_operation=AlterConfigOpType.SET)
            for name, value in config.items()
        ],
    )
    admin = AdminClient({"bootstrap.servers": world.kafka})
    admin.incremental_alter_configs([resource])[resource].result(30)


# --- transactions


def test_messages_behind_an_open_transaction_are_counted_named_and_pulled_when_it_ends(
    world: World, gauges: Any
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    began = now_ms() - HOUR_MS
    with open_transaction(world, partition=1, timestamp=began):
        world.platform.emit(world.event(old, new), partition=1)
        assert world.whole_run().events == {}

        facts = looked(world)

        assert facts.backlog
        assert facts.backlog.messages == 2
        ((partition, messages, since_ms),) = facts.backlog.held_back
        assert (partition, messages, since_ms) == (1, 2, began)
        assert "2 of partition 1 behind an open transaction for 60 min" in sentences(facts)[Kind.TRANSACTION]
        sent = gauges()
        assert (sent["backlog-messages"], sent["held-back-messages"]) == (2, 2)
        assert sent["backlog-age-seconds"] >= HOUR_MS / 1000
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    facts = looked(world)
    assert facts.backlog
    assert (facts.backlog.messages, facts.backlog.held_back, sentences(facts)) == (0, (), {})


def test_what_stands_before_the_transaction_and_on_other_partitions_is_not_held_back(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    world.platform.emit(world.event(a, b), partition=1)
    with open_transaction(world, partition=1):
        world.platform.emit(world.event(c, d), partition=0)

        facts = looked(world)

        assert facts.backlog
        assert facts.backlog.messages == 3
        assert [(h.partition, h.messages) for h in facts.backlog.held_back] == [(1, 1)]
    assert world.whole_run().events == {"completed": 2}


def test_transactions_that_have_ended_hold_nothing_back(world: World) -> None:
    producer = Producer({"bootstrap.servers": world.kafka, "transactional.id": f"other-{world.env}"})
    producer.init_transactions(30)
    for end in (producer.commit_transaction, producer.abort_transaction):
        producer.begin_transaction()
        producer.produce(world.job.topic.name, b"{no event", partition=0)
        end(30)

    await_condition(lambda: not held_back(world), timeout_s=30, what="the end of both")

    assert world.run().pull().pulled.rejected == 1  # the one that was committed


@pytest.mark.parametrize("value", ["read_uncommitted", "READ_UNCOMMITTED"])
def test_reading_uncommitted_messages_is_refused(
    environment: dict[str, Any], monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    from ownership.edge.hooks import opened_intake, opened_parts

    kafka = environment["AIRFLOW_CONN_KAFKA_DEFAULT"]
    kafka["extra"]["isolation.level"] = value
    monkeypatch.setenv("AIRFLOW_CONN_KAFKA_DEFAULT", json.dumps(kafka))

    with (
        pytest.raises(
            SettingsError, match=r"'kafka_default' has isolation\.level=read_uncommitted.*Remove it"
        ),
        opened_parts() as parts,
        opened_intake(parts),
    ):
        pass


# --- retention


def test_messages_are_a_problem_at_half_of_the_topics_retention_by_age(world: World, gauges: Any) -> None:
    old, new = world.users("old", "new")
    configured(world, retention_ms=2 * HOUR_MS)
    world.platform.emit(world.event(old, new), partition=0, timestamp=now_ms() - HOUR_MS // 2)
    assert Kind.RETENTION not in sentences(looked(world))
    assert 0.24 < gauges()["backlog-retention-share"] < 0.5

    world.platform.emit(world.event(old, new), partition=1, timestamp=now_ms() - HOUR_MS - 1)

    said = sentences(looked(world))[Kind.RETENTION]
    assert "2 messages not pulled yet" in said
    assert "50% of what the topic keeps (retention.ms, 2 h)" in said
    assert 0.5 <= gauges()["backlog-retention-share"] < 0.6
    world.whole_run()
    assert sentences(looked(world)) == {}


def test_messages_are_a_problem_at_half_of_the_topics_retention_by_size(world: World) -> None:
    old, new = world.users("old", "new")
    event = world.event(old, new)
    configured(world, retention_bytes=3 * len(json.dumps(event)))
    world.platform.emit(event, partition=0)
    assert Kind.RETENTION not in sentences(looked(world))

    world.platform.emit(event, partition=0)

    assert "retention.bytes" in sentences(looked(world))[Kind.RETENTION]
    world.whole_run()


def test_a_topic_that_keeps_everything_puts_nothing_at_risk(world: World) -> None:
    old, new = world.users("old", "new")
    world.platform.emit(world.event(old, new), timestamp=1)
    assert Kind.RETENTION not in sentences(looked(world))
    configured(world, cleanup_policy="compact", retention_ms=1000)
    assert Kind.RETENTION not in sentences(looked(world))
    configured(world, cleanup_policy="delete", retention_ms=-1)
    world.whole_run()


def test_messages_that_were_deleted_unread_are_a_problem_and_counted_by_the_run(world: World) -> None:
    old, new = world.users("old", "new")
    for _ in range(3):
        world.platform.emit(world.event(old, new), partition=0)
    world.run().pull()
    for _ in range(2):
        world.platform.emit(world.event(old, new), partition=0)
    end = TopicPartition(world.job.topic.name, 0, 5)
    admin = AdminClient({"bootstrap.servers": world.kafka})
    admin.delete_records([end])[end].result(30)

    assert "2 messages were deleted from the topic" in sentences(looked(world))[Kind.LOST]
    pulled = world.run().pull().pulled

    assert pulled.lost == 2
    assert sentences(looked(world)).keys() <= {Kind.OVERDUE}
    world.whole_run()
