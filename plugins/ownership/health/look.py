"""One look at everything that the job needs and has open. The edge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from ownership.domain.backlog import QueueFacts, queue_facts
from ownership.domain.clock import now_ms
from ownership.domain.errors import OwnershipError
from ownership.domain.settings import Settings
from ownership.edge.hooks import KafkaHook, checks, opened_parts
from ownership.health.judge import Seen
from ownership.stages.parts import Parts

REASONS = 20
"""Overdue events whose reason is read."""


def look(settings: Settings) -> Seen:
    """Ask every part; one that does not answer is named, and the others are asked all the same."""
    told: list[str] = []
    found: dict[str, Any] = {}
    with ExitStack() as stack:
        consumed: dict[int, int] = {}
        with _named(told):
            parts = stack.enter_context(opened_parts(settings))
            for check in checks(parts):
                with _named(told):
                    check()
            with _named(told):
                found |= _ledger(parts)
                at = parts.arrivals.consumed(settings.input_topic)
                consumed = {p: c.next_offset for p, c in at.items()}
        with _named(told):
            found |= _backlog(stack, settings, consumed)
    return Seen(now_ms(), tuple(dict.fromkeys(told)), **found)


def _backlog(stack: ExitStack, settings: Settings, consumed: Mapping[int, int]) -> dict[str, Any]:
    topic = KafkaHook(settings).topic()
    stack.callback(topic.close)
    topic.beside(settings.failed_topic).partitions()
    spans = topic.backlog(consumed)
    return {
        "backlog": sum(s.end - s.start for s in spans),
        "backlog_since_ms": topic.oldest_ms(spans),
        "deleted": sum(s.deleted for s in spans),
    }


def _ledger(parts: Parts) -> dict[str, Any]:
    queue = queue_facts(
        parts.queue.read(), now_ms=now_ms(), deadline_ms=parts.settings.deadline_minutes * 60_000
    )
    reports = parts.reconciliations.last(1)
    return {"queue": queue, "reasons": _reasons(parts, queue), "report": reports[0] if reports else None}


def _reasons(parts: Parts, queue: QueueFacts) -> dict[str, str]:
    late = sorted(queue.overdue, key=lambda r: r.accepted_ms)[:REASONS]
    events = parts.events.read([r.mid for r in late])
    return {m: f"{e.state}: {e.reason}" if e.reason else e.state for m, e in events.items()}


@contextmanager
def _named(told: list[str]) -> Iterator[None]:
    """What goes wrong is told, not raised."""
    try:
        yield
    except OwnershipError as e:
        told.append(str(e))
