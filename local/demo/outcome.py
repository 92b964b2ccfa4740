"""Results of the demo's dry run and messages, read from a summary, the ledger and the dead-letter topic."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import psycopg
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka import Message as KafkaMessage

from local.demo.story import FINAL, Message
from local.platform.stores import Owners, both_stores
from local.platform.world import Batch, Offset, Platform

UNSEEN: Final = "on the topic"
"""State of a message that no run has read."""
CONNECT_SECONDS = 10
_EVENTS = """
SELECT mid, state, reason, run_id, counts, completed_at FROM event WHERE mid = ANY(%(mids)s)
UNION ALL
SELECT mid, 'rejected', reason, NULL, NULL, NULL FROM rejected_message WHERE mid = ANY(%(mids)s)
"""


@dataclass(frozen=True)
class EventRow:
    """An event in the ledger."""

    state: str = UNSEEN
    reason: str = ""
    run_id: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)
    completed_at: datetime | None = None

    @property
    def final(self) -> bool:
        """Whether its state is final."""
        return self.state in FINAL


@dataclass(frozen=True)
class DeadLetter:
    """A copy of a rejected message, and why it was rejected. `source` is the offset of the original."""

    offset: int
    source: Offset
    error_class: str
    error_message: str


@dataclass(frozen=True)
class PlanRow:
    """A batch of a plan: its owners before and after, as text."""

    course_id: str
    batch_id: str
    before: str
    after: str


@dataclass(frozen=True)
class Plan:
    """What a dry run says a transfer would change. `digest` names exactly these changes."""

    mid: str
    digest: str
    batches: int
    roles: Mapping[str, int]
    courses: Mapping[str, int]
    conflicts: int
    first: tuple[PlanRow, ...]

    @classmethod
    def of(cls, summary: Mapping[str, Any], mid: str) -> Plan | None:
        """The plan of event `mid` in a run's summary."""
        for plan in summary.get("plans", ()):
            if plan["mid"] == mid:
                rows = tuple(
                    PlanRow(row["course_id"], row["batch_id"], row["before"], row["after"])
                    for row in plan["first"]
                )
                counts = (plan["batches"], plan["roles"], plan["courses"], plan["conflicts"])
                return cls(mid, plan["digest"], *counts, rows)
        return None

    @property
    def conf(self) -> dict[str, str]:
        """The conf of the run that applies it."""
        return {"execute_plan": self.mid, "digest": self.digest}


@dataclass(frozen=True)
class Standing:
    """A snapshot of the events and of the owners in both stores."""

    events: Mapping[str, EventRow]
    rows: Mapping[str, Owners | None]
    documents: Mapping[str, Owners | None]

    @property
    def states(self) -> Counter[str]:
        """Events by state."""
        return Counter(event.state for event in self.events.values())

    @property
    def final(self) -> bool:
        """Whether every event is final."""
        return all(event.final for event in self.events.values())


def standing(platform: Platform, ledger: str, mids: Collection[str], batches: Iterable[Batch]) -> Standing:
    """A snapshot of events, rows and documents; `ledger` is the ledger's URL."""
    stores = both_stores(platform, batches)
    return Standing(events_of(ledger, mids), stores.row_owners, stores.document_owners)


def events_of(ledger: str, mids: Collection[str]) -> dict[str, EventRow]:
    """These events and rejected messages in the ledger, by mid; `UNSEEN` where it has none. Raises psycopg.Error."""
    found = dict.fromkeys(mids, EventRow())
    with psycopg.connect(ledger, connect_timeout=CONNECT_SECONDS, prepare_threshold=None) as connection:
        for mid, state, reason, run_id, counts, completed_at in connection.execute(
            _EVENTS, {"mids": list(found)}
        ):
            found[mid] = EventRow(state, reason or "", run_id or "", counts or {}, completed_at)
    return found


def dead_letters(kafka: str, topic: str, places: Collection[Offset]) -> list[DeadLetter]:
    """The copies of the messages at `places` on the dead-letter topic, in its order."""
    wanted = set(places)
    consumer = Consumer(
        {"bootstrap.servers": kafka, "group.id": "demo-reader", "enable.auto.commit": False}
    )  # assigned by hand: no offsets are committed
    letters = []
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=30)
        consumer.assign([TopicPartition(topic, 0, low)])
        deadline = time.monotonic() + 30
        at = low
        while at < high and time.monotonic() < deadline:
            for message in consumer.consume(500, timeout=1):
                if message.error() is None:
                    at = (message.offset() or 0) + 1
                    letters.append(_letter(message))
    finally:
        consumer.close()
    return [letter for letter in letters if letter.source in wanted]


def _letter(message: KafkaMessage) -> DeadLetter:
    headers: dict[str, str] = {
        name: value.decode() if isinstance(value, bytes) else str(value)
        for name, value in dict(message.headers() or ()).items()
    }
    source = Offset(headers["topic"], int(headers["partition"]), int(headers["offset"]))
    return DeadLetter(message.offset() or 0, source, headers["error_class"], headers["error_message"])


def differences(
    now: Standing, sent: Mapping[str, Message], owners: Mapping[str, Owners], letters: Collection[DeadLetter]
) -> list[str]:
    """Deviations from what is expected, a sentence each."""
    wrong = [
        f"{message.what} ({mid}) is {now.events[mid].state}, not {message.expected}: {now.events[mid].reason}"
        for mid, message in sent.items()
        if now.events[mid].state != message.expected
    ]
    wrong += wrong_owners(now.rows, now.documents, owners)
    rejected = sum(message.expected == "rejected" for message in sent.values())
    if len(letters) != rejected:
        wrong.append(f"{len(letters)} dead letters, not {rejected}")
    return wrong


def wrong_owners(
    rows: Mapping[str, Owners | None], documents: Mapping[str, Owners | None], owners: Mapping[str, Owners]
) -> list[str]:
    """Rows and documents whose owners are not as expected, a sentence each."""
    return [
        f"the {store} of {batch} has {found[batch]}, not {expected}"
        for store, found in (("row", rows), ("document", documents))
        for batch, expected in owners.items()
        if found[batch] != expected
    ]
