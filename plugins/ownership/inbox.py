"""Accept: every message gets its durable rows in the ledger before its offset is committed.

Order of the writes (each may be repeated after a crash): dead-letter copy, open row, listings,
event row last; then the offsets.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from ownership.errors import Poison, Unavailable
from ownership.events import (
    OrderKey,
    Transfer,
    TransferEvent,
    follow_up,
    order_time,
    parse_event,
    readable_mid,
    same_payload,
)
from ownership.ledger import Arrival, EventRow, Ledger, Origin
from ownership.next_steps import put_back
from ownership.open_list import ORPHAN_MS, Held, OpenList, OpenRow
from ownership.options import PLAIN, Options, Request
from ownership.topic import Message, Place

log = structlog.get_logger(__name__)

MESSAGES_AT_ONCE = 500
"""Messages whose rows are written together."""
BYTES_AT_ONCE = 4 * 1024 * 1024
"""Bytes of values after which they are written although they are fewer messages."""
STORED_BYTES = 2 * 1024 * 1024
"""Most bytes of a rejected message that the ledger keeps; its dead letter has the rest."""


class Rejects(Protocol):
    """Where copies of rejected messages go."""

    def send(self, message: Message, *, error_class: str, reason: str) -> Place:
        """Store a copy durably; where it lies."""


class NoRejects:
    """For a run that reads no messages, so that there is nothing to reject but what it brings itself."""

    def send(self, message: Message, *, error_class: str, reason: str) -> Place:
        """Never called: events that are given by hand have no dead letters."""
        raise Unavailable(
            "Kafka", f"no dead letter can be written for {message.topic}: {error_class}: {reason}"
        )


@dataclass(frozen=True)
class Accepted:
    """What became of some messages."""

    received: list[Transfer] = field(default_factory=list)
    """Events that are new in the ledger."""
    known: list[str] = field(default_factory=list)
    """Mids that the ledger had: redelivered, or sent twice with the same payload."""
    rejected: list[tuple[str, str]] = field(default_factory=list)
    """Mid and reason of each message that was rejected."""

    def __add__(self, more: Accepted) -> Accepted:
        """Both together."""
        return Accepted(self.received + more.received, self.known + more.known, self.rejected + more.rejected)


class Inbox:
    """Takes messages and manual events into the ledger."""

    def __init__(self, ledger: Ledger, open_list: OpenList, rejects: Rejects, *, retention_ms: int) -> None:
        """`retention_ms`: a message older than this is refused, because its old rows are gone."""
        self._ledger = ledger
        self._open = open_list
        self._rejects = rejects
        self._retention_ms = retention_ms

    def accept(self, messages: Iterable[Message]) -> Accepted:
        """Write the rows of all messages. Everything before the return is durable."""
        total = Accepted()
        some: list[Message] = []
        size = 0
        for message in messages:
            some.append(message)
            size += len(message.value)
            if len(some) == MESSAGES_AT_ONCE or size > BYTES_AT_ONCE:
                total += self._accept_some(some)
                some, size = [], 0
        if some:
            total += self._accept_some(some)
        return total

    def accept_manual(self, requests: Sequence[Request], *, run_id: str, at_ms: int) -> Accepted:
        """Queue events that were given by hand, held for the run that brings them.

        `at_ms` (the run's own time, the same for every try) orders them after what is there.
        """
        arrivals = [
            _arrival(r.event, r.payload, Origin("manual", "", -1, n, at_ms), t=at_ms, options=r.options)
            for n, r in enumerate(requests)
        ]
        return self._store(arrivals, [], holder=run_id)

    def follow_up(self, after: EventRow) -> list[Transfer]:
        """Queue an event like `after` right behind it: batches that still name its old user."""
        if after.transfer is None:
            return []
        key = after.transfer.key
        mid = follow_up(after.mid)
        transfer = after.transfer._replace(key=OrderKey(key.t, key.partition, key.offset, mid))
        origin = Origin("follow-up", "", key.partition, key.offset, after.kafka_ms)
        arrival = Arrival(
            mid,
            origin,
            after.payload,
            transfer,
            after.organisation_id,
            options=after.options,
            requested_by=after.requested_by,
            request_reason=after.request_reason,
        )
        received = self._store([arrival], []).received
        # Decided already: its users may have left since, and their batches must follow all the same.
        self._ledger.decide_all([(Held(t, 0), True, None) for t in received], run_id="")
        return received

    def _accept_some(self, messages: Sequence[Message]) -> Accepted:
        arrivals: list[Arrival] = []
        rejected: list[tuple[Message, Arrival]] = []
        for message in messages:
            try:
                event = parse_event(message.value)
                self._refuse_old(message)
            except Poison as poison:
                mid = readable_mid(message.value)
                rejected.append((message, _rejection(message, str(poison), message_mid=mid)))
                continue
            origin = Origin("kafka", message.topic, message.partition, message.offset, message.kafka_ms)
            arrivals.append(_arrival(event, message.value, origin, t=order_time(event.ets, message.kafka_ms)))
        return self._store(arrivals, rejected)

    def _refuse_old(self, message: Message) -> None:
        if time.time() * 1000 - message.kafka_ms > self._retention_ms:
            raise Poison("older than ledger.retention.days: what was done with it then is no longer known")

    def _store(
        self,
        arrivals: Sequence[Arrival],
        rejected: Sequence[tuple[Message, Arrival]],
        *,
        holder: str | None = None,
    ) -> Accepted:
        """Open rows, listings, event rows of what is new; a rejection for what contradicts the ledger."""
        known = self._ledger.read({a.mid for a in arrivals})
        fresh: dict[str, Arrival] = {}
        again: list[str] = []
        clashes: list[Arrival] = []
        for a in arrivals:
            other = known.get(a.mid) or fresh.get(a.mid)
            if other is None:
                fresh[a.mid] = a
            elif same_payload(other.payload, a.payload):
                again.append(a.mid)
            else:
                clashes.append(a)

        new = list(fresh.values())
        self._queue(new, [known[m] for m in again if m in known], holder)
        self._ledger.index(new)
        there = self._ledger.insert(new)
        received: list[Transfer] = []
        for a in new:
            row = there.get(a.mid)
            if a.transfer is None or row is None or row.transfer == a.transfer:
                received += [a.transfer] if a.transfer else []
                continue
            # Another run accepted the same mid from another offset: our open row is a stray.
            self._open.remove([Held(a.transfer, 0)])
            if same_payload(row.payload, a.payload):
                again.append(a.mid)
            else:
                clashes.append(a)
        return Accepted(received, again, self._reject([*rejected, *map(_clash, clashes)]))

    def _reject(self, rejected: Sequence[tuple[Message, Arrival]]) -> list[tuple[str, str]]:
        """Dead-letter copies, then the rows, of those that the ledger does not know."""
        known = self._ledger.read({r.mid for _, r in rejected})
        new: list[Arrival] = []
        for message, rejection in rejected:
            if rejection.mid in known:
                continue
            reason = rejection.rejected_because or ""
            conf = None
            if message.topic:
                conf = put_back(*self._rejects.send(message, error_class=Poison.__name__, reason=reason))
            new.append(rejection._replace(next_conf=conf))
            log.warning("message rejected", mid=rejection.mid, why=reason, partition=message.partition)
        self._ledger.index(new)
        self._ledger.insert(new)
        return [(r.mid, r.rejected_because or "") for r in new]

    def _queue(self, fresh: Sequence[Arrival], again: Sequence[EventRow], holder: str | None) -> None:
        """Open rows of new events, and of redelivered ones that are not final: mends a crash."""
        now = int(time.time() * 1000)

        def accepted_ms(kafka_ms: int) -> int:
            # A producer's clock in the future must not keep an event young for ever, and an old message
            # whose event row is only about to be written is no orphan: it holds later events back.
            return min(max(kafka_ms, now - ORPHAN_MS // 2), now)

        rows = [
            OpenRow(
                a.transfer,
                accepted_ms=accepted_ms(a.origin.kafka_ms),
                holder=holder,
                # Long enough for the run to claim what it brought, before the watcher's run does.
                until_ms=now + 30_000 if holder else 0,
            )
            for a in fresh
            if a.transfer
        ]
        rows += [OpenRow(e.transfer, accepted_ms(e.kafka_ms)) for e in again if e.transfer and not e.final]
        if rows:
            self._open.add(rows)


def _arrival(
    event: TransferEvent, payload: bytes, origin: Origin, *, t: int, options: Options = PLAIN
) -> Arrival:
    key = OrderKey(t, origin.partition, origin.offset, event.mid)
    return Arrival(
        event.mid,
        origin,
        payload,
        Transfer(key, event.from_user, event.to_user),
        event.organisation_id,
        event.ets,
        options=options,
        requested_by=event.requested_by,
        request_reason=event.request_reason,
    )


def _clash(a: Arrival) -> tuple[Message, Arrival]:
    """The rejection of an event whose mid the ledger knows with another payload."""
    o = a.origin
    message = Message(o.topic, o.partition, o.offset, o.kafka_ms, a.payload)
    reason = f"mid {a.mid!r} was received before with another payload"
    return message, _rejection(message, reason, source=o.source, message_mid=a.mid)


def _rejection(
    message: Message, reason: str, *, source: str = "kafka", message_mid: str | None = None
) -> Arrival:
    """Ledger row of a message that is no event; its mid says where the message lies."""
    # By hand there is no place in a topic: the time of its run, its number in it and its mid tell it apart.
    # The longest mids are cut, so that this one can be given in a conf like any other.
    by_hand = f"{source}:{message.kafka_ms}:{message.offset}:{(message_mid or '')[:280]}"
    where = f"{message.topic}:{message.partition}:{message.offset}" if message.topic else by_hand
    origin = Origin(source, message.topic, message.partition, message.offset, message.kafka_ms)
    return Arrival(
        f"rejected:{where}",
        origin,
        message.value[:STORED_BYTES],
        None,
        rejected_because=reason[:2000],
        message_mid=message_mid,
    )
