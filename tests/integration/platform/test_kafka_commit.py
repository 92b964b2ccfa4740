"""A broker that dies while a commit is under way: Kafka's client would wait until one is there again."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from confluent_kafka.admin import AdminClient, NewTopic

from local.servers import kafka as broker_of
from local.servers.layout import Layout
from local.stack import Stack
from ownership.domain.errors import Unavailable
from ownership.platform import kafka
from ownership.platform.kafka import Span, Topic


def test_a_commit_to_a_broker_that_dies_is_an_outage_and_the_client_can_be_closed(
    stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka, "CLOSE_SECONDS", 2.0)
    with broker_of.server(Layout.of(tmp_path), stack.releases.kafka) as broker:
        admin = AdminClient({"bootstrap.servers": broker.address})
        admin.create_topics([NewTopic("in", 1)])["in"].result(30)
        soon_back = {"reconnect.backoff.max.ms": 500}
        topic = Topic(Consumer({"bootstrap.servers": broker.address, "group.id": "g", **soon_back}), "in")
        topic.commit([Span(0, 0, 0)])  # the first one: the broker makes its topic of offsets
        monkeypatch.setattr(kafka, "COMMIT_SECONDS", 2.0)
        broker.freeze()
        with pytest.raises(Unavailable, match="no answer to a commit within 2 s"):
            topic.commit([Span(0, 0, 0)])
        broker.kill()
        topic.close()
        broker.restart()  # what was left behind comes to its end
        for thread in [t for t in threading.enumerate() if t.name.startswith("Kafka: ")]:
            thread.join(60)
            assert not thread.is_alive()
