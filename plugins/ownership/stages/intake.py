"""Intake: what is on the topic goes into the ledger, before offsets are committed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import structlog

from ownership.ledger.arrivals import Consumed
from ownership.platform.kafka import Message, Span, Topic
from ownership.stages.inbox import Accepted, Inbox, digest_of

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Window:
    """A data interval, epoch ms: start <= t < end."""

    start_ms: int
    end_ms: int


class Intake(NamedTuple):
    """Where events come from."""

    topic: Topic | None
    """None if Kafka is out of reach and the run can do without it."""
    inbox: Inbox
    dead_letters: Topic | None = None
    """The dead-letter topic."""
    missing: str = ""
    """Why there is no topic."""


class _CreatedAgain(Exception):
    """The topic has another message where the ledger read one: it was deleted and created again."""

    def __init__(self, partition: int) -> None:
        super().__init__(partition)
        self.partition = partition


def accept(topic: Topic, inbox: Inbox, window: Window | None) -> tuple[Accepted, int]:
    """Store everything up to the watermarks in the ledger, then commit the offsets to Kafka for its lag monitors.

    With a `window` also the messages of that interval that the ledger lost.

    Returns what became of them, and the clock (epoch ms) taken before the watermarks were read: an event that is older
    than the grace by it cannot be preceded by a message that was not read.

    :raises Unavailable: if Kafka or the ledger is; messages that were stored until then stay stored.
    """
    judged_ms = inbox.clock()
    consumed = inbox.arrivals.consumed(topic.name)
    backlog = _backlog(topic, consumed, thorough=window is not None)
    accepted = None
    while accepted is None:
        if starts := {s.partition: s.start for s in backlog if s.created_again}:
            inbox.arrivals.restart(topic.name, starts)
        topic.claim_offsets(backlog)
        try:
            accepted = inbox.accept(_messages(topic, backlog, consumed))
        except _CreatedAgain as e:
            backlog = _from_the_oldest(topic, backlog, {e.partition})
    if beyond := _beyond_the_last_message(topic, inbox, backlog):
        inbox.arrivals.store([], consumed=beyond)
    topic.commit(backlog)
    if window:
        # Messages of the interval below the offsets: new only if the ledger lost them.
        below = topic.read(_below(topic.since(window.start_ms), backlog))
        accepted += inbox.accept(m for m in below if window.start_ms <= m.kafka_ms < window.end_ms)
    lost = Accepted(lost=sum(s.deleted for s in backlog), notes=_notes(topic, backlog, consumed))
    return accepted + lost, judged_ms


def _backlog(topic: Topic, consumed: Mapping[int, Consumed], *, thorough: bool) -> list[Span]:
    """What the ledger has not read.

    A topic that was created again and has just as many messages as before shows no backlog: a `thorough` look compares
    the last message that was read, too.
    """
    backlog = topic.backlog({p: c.next_offset for p, c in consumed.items()})
    if not thorough:
        return backlog
    empty = (s.partition for s in backlog if s.start == s.end)
    return _from_the_oldest(topic, backlog, {p for p in empty if _differs(topic, consumed.get(p))})


def _messages(topic: Topic, backlog: Sequence[Span], consumed: Mapping[int, Consumed]) -> Iterator[Message]:
    """The messages of the backlog.

    Reading begins with the last message that the ledger has, to see that the topic still has the same one.

    :raises _CreatedAgain: if it has not.
    """
    for span in backlog:
        if span.start == span.end:
            continue
        before = None if span.created_again else consumed.get(span.partition)
        last = before.last_offset if before else None
        # Between the two lies no message that the topic still has.
        first = last if last is not None and span.oldest <= last < span.start else span.start
        for message in topic.read([span._replace(start=first)]):
            if before and message.offset == last and digest_of(message) != before.last_digest:
                raise _CreatedAgain(span.partition)
            if message.offset >= span.start:
                yield message


def _beyond_the_last_message(topic: Topic, inbox: Inbox, backlog: Sequence[Span]) -> list[Consumed]:
    """The ends of partitions that end with no message: the marker of a transaction, or a gap of compaction.

    Left out, they would stay a backlog for ever. Partitions without a row are among them, so that a ledger restored from
    a backup does not follow the group past what it has.
    """
    read = inbox.arrivals.consumed(topic.name)
    rows = ((s, read.get(s.partition, Consumed(topic.name, s.partition, -1))) for s in backlog)
    return [row._replace(next_offset=s.end) for s, row in rows if row.next_offset < s.end]


def _differs(topic: Topic, consumed: Consumed | None) -> bool:
    """True if the topic has another message at the place of the last one that the ledger has read."""
    if consumed is None or consumed.last_offset is None:
        return False
    message = topic.message_at(consumed.partition, consumed.last_offset)
    return message is not None and digest_of(message) != consumed.last_digest


def _from_the_oldest(topic: Topic, backlog: Sequence[Span], partitions: Collection[int]) -> list[Span]:
    """The backlog with all messages of partitions that were created again."""
    return [
        Span(s.partition, *topic.bounds(s.partition), created_again=True) if s.partition in partitions else s
        for s in backlog
    ]


def _notes(topic: Topic, backlog: Sequence[Span], consumed: Mapping[int, Consumed]) -> dict[str, str]:
    """What operators must know, by partition: deleted messages, a topic that was created again, an odd offset."""
    notes: dict[str, str] = {}
    for s in backlog:
        where = f"partition {s.partition}"
        if s.deleted:
            notes[where] = (
                f"of '{topic.name}' lost {s.deleted} messages unread, offsets {s.start - s.deleted} to {s.start - 1}: "
                "they were deleted before any run came; have them sent again"
            )
            log.error("messages were deleted unread", where=where, what=notes[where])
        elif s.created_again:
            before = consumed[s.partition].next_offset
            notes[where] = (
                f"of '{topic.name}' is another one: the topic was created again after the ledger had read up to "
                f"offset {before}; it is read from its oldest message, offset {s.start}"
            )
            log.warning("the topic was created again", where=where, what=notes[where])
        elif s.ignored is not None:
            notes[where] = (
                f"of '{topic.name}': the consumer group stands at offset {s.ignored}, the ledger at {s.start}; an "
                "offset that was set forward is not followed, because it would skip messages"
            )
            log.warning("an offset was set forward", where=where, what=notes[where])
    return notes


def _below(spans: Sequence[Span], backlog: Sequence[Span]) -> list[Span]:
    """The part of `spans` that the backlog did not cover."""
    starts = {s.partition: s.start for s in backlog}
    return [s._replace(end=min(s.end, starts.get(s.partition, s.end))) for s in spans]
