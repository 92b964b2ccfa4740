"""What is measured of messages that no run has accepted, where their timestamps say little."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import Any, cast

import pytest

from ownership.domain.backlog import BacklogFacts
from ownership.domain.clock import now_ms
from ownership.platform.backlog import BacklogGauge
from ownership.platform.kafka import Message, Span

HOUR_MS = 3_600_000


def measured(*times_ms: int) -> BacklogFacts:
    """A topic that keeps messages for two hours, and has an unread one of each time in a partition of its own."""
    spans = [Span(n, 0, 1) for n in range(len(times_ms))]
    oldest = {n: Message("in", n, 0, ms, b"v") for n, ms in enumerate(times_ms)}
    answer: Future[Any] = Future()
    config = {"cleanup.policy": "delete", "retention.ms": str(2 * HOUR_MS), "retention.bytes": "-1"}
    answer.set_result({name: SimpleNamespace(value=value) for name, value in config.items()})
    topic = SimpleNamespace(name="in", backlog=lambda _: spans, oldest=lambda _: oldest, serve=lambda: None)
    admin = SimpleNamespace(
        describe_configs=lambda asked, **_: dict.fromkeys(asked, answer), poll=lambda _: None
    )
    return BacklogGauge(*cast("Any", (topic, topic, admin))).measure({})


@pytest.mark.parametrize(
    "odd_ms",
    [pytest.param(-1, id="none"), pytest.param(now_ms() // 1000, id="in seconds")],
)
def test_a_timestamp_that_is_none_says_nothing_of_how_long_its_message_waits(odd_ms: int) -> None:
    assert measured(odd_ms).since_ms is None
    since = now_ms() - HOUR_MS
    assert measured(odd_ms, since).since_ms == since


def test_a_message_without_a_timestamp_is_not_about_to_be_deleted() -> None:
    assert measured(-1).retention_share == 0
    assert measured(-1, now_ms() - HOUR_MS).retention_share == pytest.approx(0.5, abs=0.01)


def test_a_timestamp_in_another_unit_is_as_old_as_the_broker_takes_it_for() -> None:
    assert measured(now_ms() // 1000).retention_share > 1
