"""The input topic: what lies in it, and where the consumer group stands.

Partitions are assigned, not subscribed to: no rebalance, and no offset moves unless `commit`
is called. A group with subscribed, live members refuses the commit. (The old Flink job assigns its
partitions too: nothing can tell that it still runs.)
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, suppress
from itertools import islice
from typing import Any, NamedTuple

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from ownership.domain.errors import SettingsError, Unavailable
from ownership.platform.kafka_errors import (
    PART,
    SECONDS,
    ClientErrors,
    KafkaErrors,
    no_topic,
    patiently,
    within,
)

COMMIT_SECONDS = 15.0
"""Bound of a commit, above the client's own of 10 s, which does not hold where a broker dies with the commit under way:
then the client waits until one is there again."""
CLOSE_SECONDS = 5.0
STALL_SECONDS = 30.0
"""A read that yields nothing for this long, below the watermark, is an outage."""


class Message(NamedTuple):
    """A message as it lies in the topic. `kafka_ms` is its timestamp, epoch ms; negative where it has none."""

    topic: str
    partition: int
    offset: int
    kafka_ms: int
    value: bytes
    headers: Mapping[str, str] = {}


class Place(NamedTuple):
    """Where a message lies in its topic."""

    partition: int
    offset: int


class Span(NamedTuple):
    """Messages of a partition: start <= offset < end."""

    partition: int
    start: int
    end: int
    deleted: int = 0
    """Messages before `start` that the topic deleted before the ledger had them."""
    ignored: int | None = None
    """The consumer group's offset, where it is ahead of the ledger: it is not followed."""
    created_again: bool = False
    """True if the ledger had read further than the topic goes: it is another topic of the same name."""
    oldest: int = 0
    """The oldest offset that the topic still has."""


class Topic:
    """The messages of the input topic, and where the consumer group stands."""

    def __init__(self, consumer: Consumer, name: str, client_errors: ClientErrors | None = None) -> None:
        """`client_errors` is what the consumer's ``error_cb`` fills."""
        self._consumer = consumer
        self._client_errors = deque() if client_errors is None else client_errors
        self.name = name

    def beside(self, name: str) -> Topic:
        """Another topic over the same client, for the same consumer group; closed with this one."""
        return Topic(self._consumer, name, self._client_errors)

    def close(self) -> None:
        """Leave the broker. A client that still waits for a commit is left behind."""
        with suppress(Unavailable):
            within(CLOSE_SECONDS, "closing", self._consumer.close)

    def serve(self) -> None:
        """Let the client call back: it reports errors, and renews an OAUTHBEARER token, only while it is polled.

        Every other call does it, too: this is for a caller that makes none for long.
        """
        # While partitions are assigned, a poll could take a message, and `consume` serves the client anyhow.
        if self._consumer.assignment():
            return
        message = self._consumer.poll(0)
        if message is not None and (error := message.error()):
            self._client_errors.append(error)

    def _errors(self) -> KafkaErrors:
        return KafkaErrors(self.name, self.serve, self._client_errors)

    def partitions(self) -> list[int]:
        """The topic's partitions.

        :raises SettingsError: if there is no such topic.
        :raises Unavailable: if the broker does not answer.
        """
        with self._errors():
            metadata = self._consumer.list_topics(self.name, timeout=SECONDS).topics.get(self.name)
            if metadata is None:
                raise no_topic(self.name)
            if metadata.error is not None:
                raise KafkaException(metadata.error)
            return sorted(metadata.partitions)

    def backlog(self, consumed: Mapping[int, int]) -> list[Span]:
        """What the ledger has not read, per partition, up to the watermarks now.

        `consumed` is the ledger's next offset of each partition that it has read. `position` says where a partition
        begins.
        """
        with self._errors():
            partitions = self.partitions()
            wanted = [TopicPartition(self.name, p) for p in partitions]
            committed = {t.partition: t.offset for t in self._committed(wanted)}
            spans = []
            for p in partitions:
                low, high = self._watermarks(p)
                spans.append(position(p, low, high, committed.get(p, -1), consumed.get(p)))
            return spans

    def message_at(self, partition: int, offset: int) -> Message | None:
        """The message at an offset; None if there is none, or none comes within two seconds."""
        at = TopicPartition(self.name, partition, offset)
        with self._errors():
            low, high = self._watermarks(partition)
            if not low <= offset < high:
                return None
            self._consumer.assign([at])
            try:
                found = self._consumer.consume(1, timeout=2.0)
            finally:
                self._consumer.unassign()
            message = _message(found[0]) if found and not found[0].error() else None
            return message if message and message.offset == offset else None

    def oldest(self, spans: Sequence[Span]) -> dict[int, Message]:
        """The first message of each span that has one, by partition."""
        found = {}
        for span in spans:
            with closing(self.read([span], at_once=1)) as messages:
                for message in islice(messages, 1):
                    found[span.partition] = message
        return found

    def bounds(self, partition: int) -> tuple[int, int]:
        """The oldest offset that the topic still has, and the one after the newest.

        :raises SettingsError: if there is no such topic or partition.
        """
        with self._errors():
            return self._watermarks(partition)

    def _committed(self, wanted: list[TopicPartition]) -> list[TopicPartition]:
        """The group's offsets."""
        return _answered(patiently(lambda: self._consumer.committed(wanted, timeout=SECONDS)))

    def _watermarks(self, partition: int) -> tuple[int, int]:
        at = TopicPartition(self.name, partition)
        low, high = patiently(lambda: self._consumer.get_watermark_offsets(at, timeout=SECONDS))
        return low, high

    def since(self, start_ms: int) -> list[Span]:
        """From the first message whose timestamp is not before `start_ms`, per partition, to the watermark.

        Producers' timestamps are not in order, so an interval's end cannot be found by time: a
        caller that wants one reads on and looks at each message.
        """
        with self._errors():
            partitions = self.partitions()
            first = self._consumer.offsets_for_times(
                [TopicPartition(self.name, p, start_ms) for p in partitions], timeout=SECONDS
            )
            spans = []
            for t in _answered(first):
                low, high = self._watermarks(t.partition)
                spans.append(Span(t.partition, max(low, t.offset) if t.offset >= 0 else high, high))
            return spans

    def read(self, spans: Sequence[Span], *, at_once: int = 500) -> Generator[Message]:
        """The messages of `spans`, partition by partition, each in offset order; the client waits for `at_once`.

        :raises Unavailable: if the broker stops answering below a span's end.
        """
        for span in spans:
            if span.start < span.end:
                yield from self._read_span(span, at_once)

    def _read_span(self, span: Span, at_once: int) -> Generator[Message]:
        with self._errors():
            self._consumer.assign([TopicPartition(self.name, span.partition, span.start)])
            try:
                position, last = span.start, time.monotonic()
                while position < span.end:
                    # It waits for as many as it is asked for, so it is asked for no more than there are.
                    for m in self._consumer.consume(min(at_once, span.end - position), timeout=0.5):
                        if error := m.error():
                            raise KafkaException(error)
                        message = _message(m)
                        if message.offset >= span.end:
                            return
                        yield message
                    # Compacted or transactional topics have gaps: trust the position, not a count.
                    here = self._consumer.position([TopicPartition(self.name, span.partition)])[0].offset
                    if here > position:
                        # The clock begins anew: the caller may have taken long over what it was given.
                        position, last = here, time.monotonic()
                    elif time.monotonic() - last > STALL_SECONDS:
                        raise Unavailable(PART, f"stops at offset {position} of partition {span.partition}")
            finally:
                self._consumer.unassign()

    def await_message(self, spans: Sequence[Span], seconds: float) -> None:
        """Return when there is a message behind one of `spans`, or after `seconds`."""
        with self._errors():
            self._consumer.assign([TopicPartition(self.name, s.partition, s.end) for s in spans])
            try:
                self._consumer.poll(seconds)
            finally:
                self._consumer.unassign()

    def claim_offsets(self, spans: Sequence[Span]) -> None:
        """Commit what is committed already, before anything is read.

        A group that refuses this would refuse the real commit when the ledger has the messages.

        :raises SettingsError: if the group has live members.
        """
        self.commit([s._replace(end=s.start) for s in spans if s.start < s.end])

    def commit(self, spans: Sequence[Span]) -> None:
        """Commit the ends of `spans`, synchronously.

        :raises SettingsError: if the group has live members, so that offsets are not ours to move.
        :raises Unavailable: if the broker does not answer within `COMMIT_SECONDS`.
        """
        offsets = [TopicPartition(self.name, s.partition, s.end) for s in spans]
        if not offsets:
            return
        with self._errors():
            try:
                done = within(
                    COMMIT_SECONDS,
                    "a commit",
                    lambda: self._consumer.commit(offsets=offsets, asynchronous=False),
                )
            except KafkaException as e:
                if e.args[0].code() in (KafkaError.UNKNOWN_MEMBER_ID, KafkaError.REBALANCE_IN_PROGRESS):
                    raise SettingsError(
                        f"The consumer group of topic '{self.name}' has live members: stop them, "
                        "or set another 'kafka.groupId'."
                    ) from None
                raise
            _answered(done or [])


def position(partition: int, low: int, high: int, committed: int, consumed: int | None) -> Span:
    """Where reading a partition goes on. Pure.

    `low` and `high` are its watermarks, `committed` is the consumer group's offset (negative: none), `consumed` the
    ledger's next one. The ledger's counts. A group that an operator set back is followed, and so is one that has no
    offset, or one beyond the end: what is read again is known. One that was set forward is not.
    """
    if consumed is None:
        start = committed if low <= committed <= high else low
        deleted = max(low - committed, 0) if committed >= 0 else 0
        return Span(partition, start, high, deleted, oldest=low)
    if consumed > high:
        return Span(partition, low, high, created_again=True, oldest=low)
    deleted = max(low - consumed, 0)
    if committed > high or committed < 0:
        return Span(partition, low, high, deleted, oldest=low)
    start = max(min(committed, consumed), low)
    ignored = committed if committed > start else None
    return Span(partition, start, high, deleted, ignored, oldest=low)


def _answered(places: list[TopicPartition]) -> list[TopicPartition]:
    """The same places, if the broker has answered for each: of one with an error nothing is known.

    :raises KafkaException: with the first error.
    """
    for place in places:
        if place.error:
            raise KafkaException(place.error)
    return places


def _message(m: Any) -> Message:
    _, ms = m.timestamp()  # -1 where there is none: the same at every read, as the message's digest must be
    return Message(m.topic(), m.partition(), m.offset(), ms, m.value() or b"", _headers(m))


def _headers(m: Any) -> dict[str, str]:
    """The headers of a message; none if the client cannot read their names, which may be any bytes."""
    try:
        return {k: (v or b"").decode("utf-8", "replace") for k, v in m.headers() or ()}
    except (SystemError, UnicodeDecodeError):  # confluent-kafka 2.16 hides the second behind the first
        return {}
