"""The inbox: every message gets its durable row in the ledger before its offset is committed.

First the dead-letter copies, which may be repeated after a crash. Then one transaction: events, rejected messages and
the next offset of the partition.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import structlog

from ownership.domain.clock import DAY_MS, now_ms
from ownership.domain.decoding import same_payload
from ownership.domain.errors import Poison
from ownership.domain.event import (
    Legible,
    OrderKey,
    Transfer,
    TransferEvent,
    follow_ups,
    legible,
    parse_event,
    unnamed_mid,
)
from ownership.domain.event_times import EARLIEST_MS, none_ahead, order_time
from ownership.domain.next_steps import dead_letter_conf
from ownership.domain.options import PLAIN, Asset, Options, Request
from ownership.domain.settings import Settings
from ownership.domain.states import Decision
from ownership.ledger.arrivals import Arrival, Arrivals, Consumed, Origin, message_digest
from ownership.ledger.events import EventRow, Events, RejectedMessage
from ownership.platform.kafka import Message, Place

log = structlog.get_logger(__name__)

MESSAGES_AT_ONCE = 500
"""Messages whose rows are written together."""
BYTES_AT_ONCE = 4 * 1024 * 1024
"""Bytes of messages whose rows are written together, if that is fewer messages."""
NOTED_AHEAD_MS = 60_000
"""A producer's clock that is further ahead than this is reported."""
STORED_BYTES = 2 * 1024 * 1024
"""Bytes of a rejected message that the ledger keeps, at most; its dead letter has the rest."""


class Rejects(Protocol):
    """Where copies of rejected messages go."""

    def send(self, message: Message, *, error_class: str, reason: str) -> Place:
        """Store a copy durably; where it lies."""


@dataclass(frozen=True)
class Accepted:
    """What became of some messages."""

    received: list[Transfer] = field(default_factory=list)
    """Events that are new in the ledger."""
    known: list[str] = field(default_factory=list)
    """Mids that the ledger had: redelivered, or sent twice with the same payload."""
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Mid and reason of each message that was rejected."""
    notes: dict[str, str] = field(default_factory=dict)
    """What an operator should know of an event, by mid, or of a partition."""
    lost: int = 0
    """Messages that the topic deleted before they were accepted."""
    refused: dict[str, str] = field(default_factory=dict)
    """Of events given by hand, by mid, why they were rejected: at each try of their run."""

    def __add__(self, more: Accepted) -> Accepted:
        """Both together."""
        return Accepted(
            self.received + more.received,
            self.known + more.known,
            self.rejected + more.rejected,
            self.notes | more.notes,
            self.lost + more.lost,
            self.refused | more.refused,
        )


class _Read(NamedTuple):
    """A message that is an event. Times in epoch ms, as its producer and the broker have them."""

    message: Message
    event: TransferEvent
    options: Options
    sent_ms: int
    order_ms: int

    def arrival(self, order_ms: int, clock_ms: int) -> Arrival:
        """On its way into the ledger, with its place in the order; no time is beyond the clock."""
        m = self.message
        origin = Origin("kafka", m.topic, m.partition, m.offset, min(self.sent_ms, clock_ms))
        return _arrival(self.event, m.value, origin, t=order_ms, options=self.options)


class Inbox:
    """Takes messages and manual events into the ledger."""

    def __init__(
        self,
        events: Events,
        arrivals: Arrivals,
        rejects: Rejects | None,
        settings: Settings,
        *,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        """`rejects`: None for a run that reads no messages: what it rejects of its own conf has no dead letters.

        `clock`: epoch ms. It orders what is ahead of it, so the runs of all workers need the same one.
        """
        self._events = events
        self.arrivals = arrivals
        self._rejects = rejects
        self._settings = settings
        self.clock = clock

    def accept(self, messages: Iterable[Message]) -> Accepted:
        """Store messages, partition by partition in offset order. Everything before the return is durable."""
        total = Accepted()
        part: list[Message] = []
        size = clock_ms = 0
        for message in messages:
            if not part:
                clock_ms = self.clock()
            part.append(message)
            size += len(message.value)
            fill = max(len(part) / MESSAGES_AT_ONCE, size / BYTES_AT_ONCE)
            # The message behind one that is ahead of the clock bounds its time: the two are taken together.
            if fill >= 2 or (fill >= 1 and message.kafka_ms <= clock_ms):
                total += self._accept_part(part, clock_ms)
                part, size = [], 0
        if part:
            total += self._accept_part(part, clock_ms)
        return total

    def accept_manual(self, requests: Sequence[Request], *, run_id: str, at_ms: int) -> Accepted:
        """Queue events that were given by hand, held for the run that brings them.

        `at_ms` is the run's own time, the same for every try. It orders them, however late the run starts: of runs that
        had to wait together, any may be the first to come here.
        """
        arrivals: list[tuple[Message, Arrival]] = []
        rejected: list[tuple[Message, RejectedMessage]] = []
        for n, r in enumerate(requests):
            origin = Origin("manual", "", -1, n, at_ms)
            message = Message("", -1, n, at_ms, r.payload)
            try:
                arrival = _arrival(r.event, r.payload, origin, t=at_ms, options=self._options(r))
                arrivals.append((message, arrival))
            except Poison as poison:
                of = Legible(r.event.mid, r.event.request_id)
                rejected.append((message, _rejection(message, str(poison), source=origin.source, of=of)))
        return self._store(arrivals, rejected, holder=run_id)

    def follow_up(self, after: EventRow) -> list[Transfer]:
        """Queue an event like `after`, which can have a follow-up, right behind it: batches that still name its old user."""
        key = after.transfer.key
        mid = follow_ups(after.mid)[0]
        body = self._events.bodies([after.mid])[after.mid] or b""
        arrival = Arrival(
            after.transfer._replace(key=key._replace(mid=mid)),
            Origin("follow-up", "", key.partition, key.offset, after.kafka_ms),
            body,
            after.organisation_id or "",
            options=after.options,
            requested_by=after.requested_by,
            request_reason=after.request_reason,
            request_id=after.request_id,
            decision=after.verdict.decision if after.verdict else Decision.VALID,
        )
        message = Message("", key.partition, key.offset, after.kafka_ms, body)
        return self._store([(message, arrival)], []).received

    def _accept_part(self, messages: Sequence[Message], clock_ms: int) -> Accepted:
        read: list[_Read] = []
        rejected: list[tuple[Message, RejectedMessage]] = []
        for message in messages:
            try:
                read.append(self._read(message, clock_ms))
            except Poison as poison:
                rejected.append((message, _rejection(message, str(poison), of=legible(message.value))))
        times = none_ahead([(r.message.partition, r.order_ms) for r in read], clock_ms)
        arrivals = [(r.message, r.arrival(t, clock_ms)) for r, t in zip(read, times, strict=True)]
        stored = self._store(arrivals, rejected, _consumed(messages))
        return stored + Accepted(notes=_notes_of_clocks(read, stored.received, clock_ms))

    def _read(self, message: Message, clock_ms: int) -> _Read:
        """:raises Poison: if the message is no event that can be carried out."""
        unnamed = unnamed_mid(message.topic, message.partition, message.offset, digest_of(message))
        event = parse_event(message.value, unnamed=unnamed)
        sent_ms = message.kafka_ms if message.kafka_ms >= EARLIEST_MS else clock_ms
        if clock_ms - sent_ms > self._settings.retention_days * DAY_MS:
            raise Poison("older than ledger.retention.days: what was done with it then is no longer known")
        order_ms = order_time(event.ets, sent_ms)
        return _Read(message, event, PLAIN.about(self._asset(event)), sent_ms, order_ms)

    def _options(self, request: Request) -> Options:
        """How an event that was given by hand is carried out; undos and plans keep to what they follow."""
        options = request.options
        return options if options.undo_of or options.plan_of else options.about(self._asset(request.event))

    def _asset(self, event: TransferEvent) -> Asset | None:
        """The asset that the event is about, None for everything.

        :raises Poison: if it names one that cannot be read.
        """
        if self._settings.transfer_scope == "user" or (found := event.asset()) is None:
            return None
        kind, batch_id = found
        return Asset(kind=kind, batch_id=batch_id)

    def _store(
        self,
        arrivals: Sequence[tuple[Message, Arrival]],
        rejected: Sequence[tuple[Message, RejectedMessage]],
        consumed: Sequence[Consumed] = (),
        *,
        holder: str | None = None,
    ) -> Accepted:
        """Store new events, and a rejection for each event that contradicts the ledger.

        Where another run stores the same messages meanwhile, the next round finds its rows.
        """
        received: list[Transfer] = []
        again: list[str] = []
        clashes: list[tuple[Message, RejectedMessage]] = []
        refused: list[RejectedMessage] = []
        todo = list(arrivals)
        while True:
            known = self._events.bodies({a.mid for _, a in todo})
            fresh: dict[str, Arrival] = {}
            for message, a in todo:
                if a.mid not in known and a.mid not in fresh:
                    fresh[a.mid] = a
                    continue
                body = fresh[a.mid].payload if a.mid in fresh else known[a.mid]
                if body is None or same_payload(body, a.payload):
                    again.append(a.mid)
                else:
                    clashes.append(_clash(message, a))
            new = self._new_rejections([*rejected, *clashes])
            refused += new
            inserted = self.arrivals.store(list(fresh.values()), new, consumed, holder=holder)
            received += [a.transfer for a in fresh.values() if a.mid in inserted]
            todo = [(m, a) for m, a in todo if fresh.get(a.mid) is a and a.mid not in inserted]
            if not todo:
                by_hand = (
                    {r.message_mid or r.mid: r.reason for _, r in (*rejected, *clashes)} if holder else {}
                )
                return Accepted(received, again, [(r.mid, r.reason) for r in refused], refused=by_hand)

    def _new_rejections(self, rejected: Sequence[tuple[Message, RejectedMessage]]) -> list[RejectedMessage]:
        """The rejections that the ledger does not have; their dead letters are sent."""
        other_life = {r.mid: _of_another_life(r) for _, r in rejected}
        known = self._events.rejected({*other_life, *other_life.values()})
        new: dict[str, RejectedMessage] = {}
        for message, r in rejected:
            before = known.get(r.mid)
            if before is not None and (before.kafka_ms, before.body) != (r.kafka_ms, r.body):
                # The topic was created again: what lay at this place was another message.
                r = r._replace(mid=other_life[r.mid])  # noqa: PLW2901  # stored apart from that one
            if r.mid in known or r.mid in new:
                continue
            if message.topic:
                assert self._rejects is not None  # noqa: S101  # whoever reads messages gives it
                place = self._rejects.send(message, error_class=Poison.__name__, reason=r.reason)
                r = r._replace(next_conf=dead_letter_conf(*place))  # noqa: PLW2901  # stored with where its dead letter lies
            new[r.mid] = r
            log.warning("message rejected", mid=r.mid, why=r.reason, partition=message.partition)
        return list(new.values())


def _notes_of_clocks(read: Iterable[_Read], received: Iterable[Transfer], clock_ms: int) -> dict[str, str]:
    """A note, by mid, for each new event whose producer's clock is far ahead."""
    new = {t.mid for t in received}
    notes = {}
    for r in read:
        ahead_ms = r.order_ms - clock_ms
        if ahead_ms > NOTED_AHEAD_MS and r.event.mid in new:
            notes[r.event.mid] = (
                f"was sent by a clock that is {ahead_ms // 1000} s ahead; it counts as sent at its acceptance"
            )
            log.warning("a producer's clock is ahead", mid=r.event.mid, seconds=ahead_ms // 1000)
    return notes


def digest_of(message: Message) -> str:
    """Names a message beside its place: the same place may be another message's in a topic that was created again."""
    return message_digest(message.kafka_ms, message.value)


def _consumed(messages: Sequence[Message]) -> list[Consumed]:
    """How far these messages bring their partitions."""
    last = {m.partition: m for m in messages}
    return [Consumed(m.topic, m.partition, m.offset + 1, m.offset, digest_of(m)) for m in last.values()]


def _arrival(
    event: TransferEvent, payload: bytes, origin: Origin, *, t: int, options: Options = PLAIN
) -> Arrival:
    key = OrderKey(t, origin.partition, origin.offset, event.mid)
    return Arrival(
        Transfer(key, event.from_user, event.to_user),
        origin,
        payload,
        event.organisation_id,
        event.ets,
        options=options,
        requested_by=event.requested_by,
        request_reason=event.request_reason,
        request_id=event.request_id,
    )


def _clash(message: Message, a: Arrival) -> tuple[Message, RejectedMessage]:
    """The rejection of an event whose mid the ledger knows with another payload.

    By its message: a later read finds the same timestamp there, which the arrival has by the clock.
    """
    cure = "" if message.topic else ": start a new run, and give another mid, or none"
    reason = f"mid {a.mid!r} was received before with another payload{cure}"
    return message, _rejection(message, reason, source=a.origin.source, of=Legible(a.mid, a.request_id))


def _rejection(message: Message, reason: str, *, source: str = "kafka", of: Legible) -> RejectedMessage:
    """Ledger row of a message that is no event; its mid says where the message lies."""
    # By hand there is no place in a topic: the time of its run, its number in it and its mid tell it apart.
    # The longest mids are cut, so that this one can be given in a conf like any other.
    by_hand = f"{source}:{message.kafka_ms}:{message.offset}:{(of.mid or '')[:280]}"
    where = f"{message.topic}:{message.partition}:{message.offset}" if message.topic else by_hand
    return RejectedMessage(
        f"rejected:{where}",
        source,
        message.topic,
        message.partition,
        message.offset,
        message.kafka_ms,
        of.mid,
        message.value[:STORED_BYTES],
        reason[:2000],
        None,
        request_id=of.request_id,
    )


def _of_another_life(r: RejectedMessage) -> str:
    """The mid of a rejected message whose place an earlier topic of the same name had given to another."""
    return f"{r.mid}:{message_digest(r.kafka_ms, r.body)[:12]}"
