"""The messages that wait: those that no run has accepted yet, and the events that are accepted but not final."""

from __future__ import annotations

import time
from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import NamedTuple, Self

import psycopg

from local.demo.story import FINAL
from local.platform.world import Offset

_LOOK = """
SELECT (SELECT jsonb_object_agg(kafka_partition::text, next_offset) FROM consumed_offset WHERE topic = %(topic)s),
       count(*), min(kafka_ms)
FROM queue JOIN event ON event.id = queue.event_id WHERE state <> ALL(%(final)s)
"""
"""One statement: an event is queued in the transaction that notes its message as read, so it is never counted twice."""

_UNAPPLIED = "SELECT count(*) FROM unnest(%s::text[]) AS sent(mid) LEFT JOIN event USING (mid) WHERE NOT coalesce(state = ANY(%s), false)"


class Look(NamedTuple):
    """One look. `age_s` is the age of the oldest waiting message by its timestamp in Kafka, 0 if none waits."""

    at_s: float
    """Seconds since the object was made."""
    messages: int
    age_s: float


class Waiting(AbstractContextManager["Waiting"]):
    """Counts the waiting ones among the messages that it was told of, and every event in the queue of `ledger` (a URL)."""

    def __init__(self, ledger: str, topic: str) -> None:
        self._connection = psycopg.connect(ledger, autocommit=True, prepare_threshold=None)
        self._topic = topic
        self._sent: dict[int, deque[tuple[int, int]]] = defaultdict(deque)
        self._begun = time.monotonic()

    def sent(self, offsets: Iterable[Offset], *, timestamp: int) -> None:
        """Note messages that were sent in this order with this `timestamp` (epoch ms)."""
        for place in offsets:
            self._sent[place.partition].append((place.offset, timestamp))

    def look(self) -> Look:
        """What waits now. Raises psycopg.Error."""
        row = self._connection.execute(_LOOK, {"topic": self._topic, "final": list(FINAL)}).fetchone()
        consumed, count, oldest = row or (None, 0, None)
        for partition, next_offset in (consumed or {}).items():
            unread = self._sent[int(partition)]
            while unread and unread[0][0] < next_offset:
                unread.popleft()
        unaccepted = [unread for unread in self._sent.values() if unread]
        count += sum(map(len, unaccepted))
        since = min(
            [unread[0][1] for unread in unaccepted] + ([] if oldest is None else [oldest]), default=None
        )
        age = 0.0 if since is None else max(0.0, time.time() - since / 1000)
        return Look(round(time.monotonic() - self._begun, 2), count, round(age, 3))

    def unapplied(self, mids: Sequence[str]) -> int:
        """Events whose rows are not all changed yet. Raises psycopg.Error."""
        found = self._connection.execute(_UNAPPLIED, (mids, ["applied", *FINAL])).fetchone()
        return int(found[0]) if found else 0

    def __enter__(self) -> Self:
        """Return itself; the constructor has connected."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._connection.close()
