"""Measures what the ledger has not read of the topic: how much, since when, and what puts it at risk."""

from __future__ import annotations

from collections.abc import Mapping

from confluent_kafka.admin import AdminClient, ConfigResource

from ownership.domain.backlog import BacklogFacts, HeldBack, RetentionLimits, retention_share
from ownership.domain.clock import now_ms
from ownership.domain.errors import Unavailable
from ownership.domain.event_times import EARLIEST_MS
from ownership.platform.kafka import Message, Span, Topic
from ownership.platform.kafka_errors import SECONDS, admin_errors


class BacklogGauge:
    """Looks at the topic up to its high watermark, which is beyond what a transfer may be read from.

    A reader of committed messages stops at the last stable offset, where the oldest open transaction begins. What
    stands behind it has no other sign: to that reader the topic ends there.
    """

    def __init__(self, topic: Topic, uncommitted: Topic, admin: AdminClient) -> None:
        """`uncommitted` is the same topic through a client that reads uncommitted messages, too."""
        self._topic = topic
        self._uncommitted = uncommitted
        self._admin = admin

    def serve(self) -> None:
        """Let the clients renew their tokens. To be called every few seconds between two measurements."""
        self._uncommitted.serve()
        self._admin.poll(0)

    def measure(self, consumed: Mapping[int, int]) -> BacklogFacts:
        """What is behind the ledger's next offsets (`consumed`, by partition).

        :raises SettingsError: if there is no such topic.
        :raises Unavailable: if the broker does not answer.
        """
        self.serve()
        spans = self._uncommitted.backlog(consumed)
        # Read after the high watermarks: a message that arrives in between is not taken for one that is held back.
        stable = {s.partition: s.end for s in self._topic.backlog(consumed)}
        oldest = self._uncommitted.oldest(spans)
        limits, why = self._limits()
        now = now_ms()
        return BacklogFacts(
            messages=sum(s.end - s.start for s in spans),
            since_ms=min((m.kafka_ms for m in oldest.values() if _has_time(m)), default=None),
            deleted=sum(s.deleted for s in spans),
            held_back=tuple(
                self._held_back(s, stable[s.partition])
                for s in spans
                if stable.get(s.partition, s.end) < s.end
            ),
            retention=limits,
            retention_share=max(
                (_share(s, oldest[s.partition], limits, now) for s in spans if s.partition in oldest),
                default=0.0,
            ),
            retention_unread=why,
        )

    def _held_back(self, span: Span, stable_end: int) -> HeldBack:
        behind = span._replace(start=max(span.start, stable_end))
        first = self._uncommitted.oldest([behind]).get(span.partition)
        since_ms = first.kafka_ms if first and _has_time(first) else None
        return HeldBack(span.partition, behind.end - behind.start, since_ms)

    def _limits(self) -> tuple[RetentionLimits, str]:
        """The topic's retention, or why it cannot be read: a login without DescribeConfigs is no outage."""
        resource = ConfigResource(ConfigResource.Type.TOPIC, self._topic.name)
        answer = self._admin.describe_configs([resource], request_timeout=SECONDS)[resource]
        try:
            with admin_errors():
                found = answer.result(timeout=SECONDS)
        except Unavailable as e:
            return RetentionLimits(), e.reason
        deletes = "delete" in found["cleanup.policy"].value
        return RetentionLimits(
            *(
                limit if deletes and (limit := int(found[name].value)) >= 0 else None
                for name in ("retention.ms", "retention.bytes")
            )
        ), ""


def _has_time(message: Message) -> bool:
    """True if a message's timestamp is one: it may have none, or one in another unit."""
    return message.kafka_ms >= EARLIEST_MS


def _share(span: Span, oldest: Message, limits: RetentionLimits, now: int) -> float:
    # Of a message without a timestamp the broker goes by the age of its file.
    age_ms = now - oldest.kafka_ms if oldest.kafka_ms >= 0 else 0
    return retention_share(age_ms=age_ms, size=(span.end - span.start) * len(oldest.value), limits=limits)
