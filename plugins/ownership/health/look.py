"""One look at everything that the job needs and has open. The edge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ownership.domain.backlog import BacklogFacts, QueueFacts, queue_facts
from ownership.domain.clock import now_ms
from ownership.domain.errors import OwnershipError, Unavailable
from ownership.domain.installation import Host, HostKind
from ownership.domain.organisations import EVERYTHING
from ownership.domain.settings import Settings
from ownership.edge.api_server import heard
from ownership.edge.connections import leads_to
from ownership.edge.hooks import checks, opened_parts
from ownership.edge.hosts import report
from ownership.edge.kafka_hook import KafkaHook
from ownership.edge.ledger_hook import opened_database
from ownership.health.problems import HealthFacts, Unreachable
from ownership.ledger.arrivals import Arrivals
from ownership.ledger.database import Database
from ownership.ledger.hosts import Hosts
from ownership.ledger.reads import Reads
from ownership.stages.parts import Parts

MAX_REASONS = 20
"""Overdue events whose reason is read."""
CLAIM_SHARE = 4
"""Clocks may differ by this share of `claim.seconds`. A claim is renewed when a third of it is over: beyond two thirds
another run takes over what is worked on."""


def look(settings: Settings, *, on_worker: bool = False) -> HealthFacts:
    """Ask every part; one that does not answer is named, and the others are asked all the same."""
    unreachable: list[Unreachable] = []
    found: dict[str, Any] = {}
    beats: Mapping[str, int] = {}
    with _noted(unreachable):
        found["silent"], beats = heard()
    with ExitStack() as stack:
        consumed: dict[int, int] = {}
        with _noted(unreachable):
            parts = stack.enter_context(opened_parts(settings))
            for check in checks(parts):
                with _noted(unreachable):
                    check()
            with _noted(unreachable):
                found |= _ledger(parts)
                ledger_ms = parts.database.now_ms()
                found["parts_ahead_ms"] = {part: beat - ledger_ms for part, beat in beats.items()}
                consumed = _consumed(parts.arrivals, settings)
        with _noted(unreachable):
            found["backlog"] = _backlog(stack, settings, consumed)
        if "queue" in found:
            with _noted(unreachable):
                found["hosts"] = _hosts(parts.database, on_worker=on_worker)
    limit_ms = settings.claim_seconds * 1000 // CLAIM_SHARE
    return HealthFacts(now_ms(), tuple(dict.fromkeys(unreachable)), clock_limit_ms=limit_ms, **found)


def look_at_backlog(settings: Settings) -> HealthFacts:
    """Ask Kafka and the ledger, and no other part: one that hangs takes longer than a probe may."""
    unreachable: list[Unreachable] = []
    found: dict[str, Any] = {}
    consumed: dict[int, int] = {}
    with ExitStack() as stack:
        with _noted(unreachable):
            database = stack.enter_context(opened_database(connections=1))
            consumed = _consumed(Arrivals(database), settings)
            found["hosts"] = tuple(Hosts(database).read())
        with _noted(unreachable):
            found["backlog"] = _backlog(stack, settings, consumed)
    return HealthFacts(now_ms(), tuple(unreachable), **found)


def _consumed(arrivals: Arrivals, settings: Settings) -> dict[int, int]:
    """By partition, the offset of the next message that the ledger reads."""
    return {p: c.next_offset for p, c in arrivals.consumed(settings.input_topic).items()}


def _hosts(database: Database, *, on_worker: bool) -> tuple[Host, ...]:
    """What all have reported, this worker too; a shell may be anywhere, and reach the platform by other addresses."""
    if on_worker:
        report(database, HostKind.WORKER, leads_to())
    return tuple(Hosts(database).read())


def _backlog(stack: ExitStack, settings: Settings, consumed: dict[int, int]) -> BacklogFacts:
    kafka = KafkaHook(settings)
    topic = kafka.topic()
    stack.callback(topic.close)
    topic.beside(settings.failed_topic).partitions()
    return kafka.backlog_gauge(topic, stack).measure(consumed)


def _ledger(parts: Parts) -> dict[str, Any]:
    queue = queue_facts(parts.queue.read(), now_ms=now_ms(), deadline_ms=parts.settings.deadline_ms)
    reports = parts.reconciliations.last(1)
    (proven,) = Reads(parts.database, EVERYTHING).proven.days(
        1, at_ms=now_ms(), deadline_minutes=parts.settings.deadline_minutes
    )
    return {
        "queue": queue,
        "reasons": _reasons(parts, queue),
        "report": reports[0] if reports else None,
        "proven": proven,
    }


def _reasons(parts: Parts, queue: QueueFacts) -> dict[str, str]:
    late = sorted(queue.overdue, key=lambda r: r.accepted_ms)[:MAX_REASONS]
    events = parts.events.read([r.mid for r in late])
    return {m: f"{e.state}: {e.reason}" if e.reason else e.state for m, e in events.items()}


@contextmanager
def _noted(unreachable: list[Unreachable]) -> Iterator[None]:
    """An error of the job is noted, not raised."""
    try:
        yield
    except OwnershipError as e:
        unreachable.append(Unreachable(e.part if isinstance(e, Unavailable) else str(e), str(e)))
