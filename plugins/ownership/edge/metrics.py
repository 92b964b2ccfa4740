"""The job's metrics, with the names of the old job where it had one.

Names carry everything, because plain StatsD drops tags. All begin with ``ownership.``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from airflow.sdk.observability import stats

if TYPE_CHECKING:
    from ownership.domain.backlog import BacklogFacts, QueueFacts
    from ownership.domain.contracts import Pulled
    from ownership.domain.proven import ProvenCounts

PREFIX = "ownership"


def pulled(facts: Pulled) -> None:
    """What a pull accepted."""
    _count("total-transfer-events-count", facts.received)
    _count("rejected-message-count", facts.rejected)
    _count("known-message-count", facts.known)
    _count("lost-message-count", facts.lost)
    _count("follow-up-events-count", facts.follow_ups)


def settled(events: Mapping[str, int], batches: Mapping[str, int]) -> None:
    """How a run ended: events by state, batches by outcome."""
    _count("success-message-count", events.get("completed", 0))
    _count("skipped-message-count", events.get("skipped", 0))
    _count("failed-message-count", events.get("failed", 0))
    _count("rehearsed-message-count", events.get("rehearsed", 0))
    _count("declined-message-count", events.get("declined", 0))
    _count("awaiting-approval-count", events.get("awaiting_approval", 0))
    _count("db-update-success-count", batches.get("moved", 0))
    _count("conflict-count", batches.get("changed_elsewhere", 0))


def users_read(count: int) -> None:
    """Answers of User-Org with a verdict on a user."""
    _count("api-read-success-count", count)


def backlog(facts: BacklogFacts, dead_letters: int | None, now_ms: int) -> None:
    """The watcher's gauges of the topics: messages that no run has accepted, what puts them at risk, dead letters.

    Without `dead_letters` that gauge is not sent.
    """
    stats.gauge(f"{PREFIX}.backlog-messages", facts.messages)
    stats.gauge(f"{PREFIX}.backlog-age-seconds", _seconds_since(facts.since_ms, now_ms))
    stats.gauge(f"{PREFIX}.held-back-messages", sum(h.messages for h in facts.held_back))
    stats.gauge(f"{PREFIX}.backlog-retention-share", round(facts.retention_share, 3))
    if dead_letters is not None:
        stats.gauge(f"{PREFIX}.dead-letters", dead_letters)


def queue(facts: QueueFacts, now_ms: int) -> None:
    """The watcher's gauges of the queue."""
    stats.gauge(f"{PREFIX}.open-events", facts.open)
    stats.gauge(f"{PREFIX}.oldest-open-event-seconds", _seconds_since(facts.oldest_ms, now_ms))
    stats.gauge(f"{PREFIX}.overdue-events", len(facts.overdue))
    stats.gauge(f"{PREFIX}.blocked-events", facts.blocked)
    stats.gauge(f"{PREFIX}.claims-held", facts.held)
    stats.gauge(f"{PREFIX}.awaiting-approval-events", facts.awaiting)


def problems(count: int) -> None:
    """Problems that the last run of `ownership_health` found."""
    stats.gauge(f"{PREFIX}.health-problems", count)


def proven(counts: ProvenCounts) -> None:
    """The share of the last day's events that were proven within their deadline, and how many were due."""
    stats.gauge(f"{PREFIX}.proven-in-time-share", round(counts.share, 4))
    stats.gauge(f"{PREFIX}.due-events", counts.due)


def lag(milliseconds: float) -> None:
    """The time from the broker's timestamp to the proof of one event."""
    stats.timing(f"{PREFIX}.event-to-proven", milliseconds)


def reconciled(rows: int, documents: int, found: Mapping[str, int]) -> None:
    """Rows and documents that a reconciliation read, and the batches that it found, by kind."""
    _count("reconcile-rows-count", rows)
    _count("reconcile-documents-count", documents)
    _count("stale-owner-count", found.get("stale_owner", 0))
    _count("stale-mentors-count", found.get("stale_mentors", 0))
    _count("missing-document-count", found.get("missing_document", 0))
    _count("orphan-document-count", found.get("orphan_document", 0))
    _count("unproven-batch-count", found.get("unproven", 0))
    _count("unmoved-batch-count", found.get("unmoved", 0))


def reconciliation_ended(left: int, in_flight: int, repaired: int) -> None:
    """How a reconciliation ended. What differs still is a gauge, so that it can be watched between two runs."""
    _count("repaired-document-count", repaired)
    _count("in-flight-difference-count", in_flight)
    stats.gauge(f"{PREFIX}.reconcile-differences-left", left)


def _seconds_since(at_ms: int | None, now_ms: int) -> float:
    return 0 if at_ms is None else round(max(now_ms - at_ms, 0) / 1000, 1)


def _count(name: str, value: int) -> None:
    if value:
        stats.incr(f"{PREFIX}.{name}", value)
