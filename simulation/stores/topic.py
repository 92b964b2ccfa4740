"""Kafka: what a consumer and a producer do with the input topic and the dead letters, in memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from simulation.scheduler import Scheduler

STORE = "kafka"


class Record(NamedTuple):
    """A message in a partition, as the client's own objects show it."""

    name: str
    number: int
    place: int
    ms: int
    body: bytes
    labels: Sequence[tuple[str, bytes]] = ()

    def error(self) -> None:
        """None."""

    def topic(self) -> str:
        """Its topic."""
        return self.name

    def partition(self) -> int:
        """Its partition."""
        return self.number

    def offset(self) -> int:
        """Its offset."""
        return self.place

    def timestamp(self) -> tuple[int, int]:
        """Kind and epoch ms."""
        return 1, self.ms

    def value(self) -> bytes:
        """What was sent."""
        return self.body

    def headers(self) -> Sequence[tuple[str, bytes]]:
        """Its headers."""
        return self.labels


def _lost() -> BaseException:
    return KafkaException(KafkaError(KafkaError._TIMED_OUT))  # noqa: SLF001  # the client's own name


@dataclass
class Broker:
    """Topics, and where the consumer group stands."""

    scheduler: Scheduler
    topics: dict[str, list[list[Record]]] = field(default_factory=dict)
    """By name, the records of each partition."""
    committed: dict[tuple[str, int], int] = field(default_factory=dict)
    on_commit: Callable[[Mapping[tuple[str, int], int]], None] = lambda _: None

    def append(
        self, topic: str, partition: int, body: bytes, labels: Sequence[tuple[str, bytes]] = ()
    ) -> Record:
        """Store a message, at the world's time."""
        records = self.topics[topic][partition]
        record = Record(topic, partition, len(records), self.scheduler.now_ms, body, labels)
        records.append(record)
        return record

    def consumer(self) -> Consumer:
        """A client of the consumer group."""
        return Consumer(self)

    def producer(self) -> Producer:
        """A client that sends dead letters."""
        return Producer(self)


class Consumer:
    """As confluent_kafka's, as far as the job uses it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._at: TopicPartition | None = None

    def _call(self, what: str, effect: Callable[[], Any], told: Callable[[Any], str] | None = None) -> Any:
        return self._broker.scheduler.call(STORE, what, effect, _lost, told=told)

    def assignment(self) -> list[Any]:
        """What is assigned."""
        return [self._at] if self._at else []

    def poll(self, _timeout: float) -> None:
        """None: nothing is reported."""

    def close(self) -> None:
        """Nothing is open."""

    def list_topics(self, name: str, **_: Any) -> Any:
        """Partitions of a topic. No call of its own: the watermarks follow at once."""
        partitions = dict.fromkeys(range(len(self._broker.topics[name])))
        return SimpleNamespace(topics={name: SimpleNamespace(error=None, partitions=partitions)})

    def committed(self, wanted: Sequence[TopicPartition], **_: Any) -> list[TopicPartition]:
        """The group's offsets."""

        def effect() -> list[TopicPartition]:
            offsets = self._broker.committed
            return [
                TopicPartition(t.topic, t.partition, offsets.get((t.topic, t.partition), -1001))
                for t in wanted
            ]

        found: list[TopicPartition] = self._call("committed", effect, lambda a: str([t.offset for t in a]))
        return found

    def get_watermark_offsets(self, at: TopicPartition, **_: Any) -> tuple[int, int]:
        """The first offset and the one after the last."""
        records = self._broker.topics[at.topic][at.partition]
        found: tuple[int, int] = self._call(f"watermark {at.partition}", lambda: (0, len(records)), str)
        return found

    def offsets_for_times(self, wanted: Sequence[TopicPartition], **_: Any) -> list[TopicPartition]:
        """The first offset at or after each time."""

        def effect() -> list[TopicPartition]:
            found = []
            for t in wanted:
                records = self._broker.topics[t.topic][t.partition]
                offset = next((r.place for r in records if r.ms >= t.offset), -1)
                found.append(TopicPartition(t.topic, t.partition, offset))
            return found

        found: list[TopicPartition] = self._call("offsets for times", effect)
        return found

    def assign(self, places: Sequence[TopicPartition]) -> None:
        """Read from here on."""
        self._at = TopicPartition(places[0].topic, places[0].partition, places[0].offset)

    def unassign(self) -> None:
        """Read nothing."""
        self._at = None

    def consume(self, count: int, **_: Any) -> list[Record]:
        """The next records, `count` at most."""
        at = self._at
        assert at is not None  # noqa: S101  # assigned before
        records = self._broker.topics[at.topic][at.partition]
        found: list[Record] = self._call(
            f"consume {at.partition}",
            lambda: records[at.offset : at.offset + count],
            lambda a: f"{len(a)} from {at.offset}",
        )
        at.offset += len(found)
        return found

    def position(self, _: Sequence[TopicPartition]) -> list[TopicPartition]:
        """Where reading goes on."""
        return [self._at] if self._at else []

    def commit(self, *, offsets: Sequence[TopicPartition], **_: Any) -> list[TopicPartition]:
        """Set the group's offsets."""
        wanted = {(t.topic, t.partition): t.offset for t in offsets}

        def effect() -> None:
            self._broker.on_commit(wanted)
            self._broker.committed |= wanted

        self._call(f"commit {list(wanted.values())}", effect)
        return []


class Producer:
    """As confluent_kafka's, as far as the job uses it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def poll(self, _timeout: float) -> int:
        """Nothing is left to be called back."""
        return 0

    def produce(
        self,
        topic: str,
        *,
        value: bytes,
        headers: Sequence[tuple[str, bytes]],
        on_delivery: Callable[[Any, Any], None],
    ) -> None:
        """Store a message and report it; without an answer the error is reported."""
        try:
            record = self._broker.scheduler.call(
                STORE, f"dead letter {topic}", lambda: self._broker.append(topic, 0, value, headers), _lost
            )
        except KafkaException as e:
            on_delivery(e.args[0], None)
            return
        on_delivery(None, record)
