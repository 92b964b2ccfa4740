from __future__ import annotations

from typing import Any

import pytest

from ownership.domain.backlog import BacklogFacts, HeldBack, QueueFacts
from ownership.domain.compare import LABELS
from ownership.domain.contracts import Pulled
from ownership.domain.proven import ProvenCounts
from ownership.domain.queue import QueuedEvent
from ownership.edge import metrics
from tests.unit.replay import transfer


class Stats:
    """Takes what StatsD would get."""

    def __init__(self) -> None:
        self.got: list[tuple[str, str, float]] = []

    def incr(self, name: str, count: int = 1) -> None:
        self.got.append(("count", name, count))

    def gauge(self, name: str, value: float) -> None:
        self.got.append(("gauge", name, value))

    def timing(self, name: str, milliseconds: float) -> None:
        self.got.append(("timing", name, milliseconds))


@pytest.fixture
def got(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, float]]:
    stats = Stats()
    monkeypatch.setattr(metrics, "stats", stats)
    return stats.got


def test_a_pull_counts_what_it_accepted(got: list[Any]) -> None:
    metrics.pulled(Pulled(received=4, rejected=3, known=2, lost=9, follow_ups=1))
    assert got == [
        ("count", "ownership.total-transfer-events-count", 4),
        ("count", "ownership.rejected-message-count", 3),
        ("count", "ownership.known-message-count", 2),
        ("count", "ownership.lost-message-count", 9),
        ("count", "ownership.follow-up-events-count", 1),
    ]


def test_a_settled_run_counts_under_the_words_that_operators_know(got: list[Any]) -> None:
    metrics.settled(
        {"completed": 5, "skipped": 4, "failed": 3, "waiting": 9}, {"moved": 140, "changed_elsewhere": 2, "already": 7}
    )  # fmt: skip
    assert got == [
        ("count", "ownership.success-message-count", 5),
        ("count", "ownership.skipped-message-count", 4),
        ("count", "ownership.failed-message-count", 3),
        ("count", "ownership.db-update-success-count", 140),
        ("count", "ownership.conflict-count", 2),
    ]


def test_reads_of_users_are_counted(got: list[Any]) -> None:
    metrics.users_read(2)
    assert got == [("count", "ownership.api-read-success-count", 2)]


def test_a_reconciliation_counts_what_it_read_and_found_by_kind(got: list[Any]) -> None:
    metrics.reconciled(100, 90, dict(zip(LABELS, range(1, 7), strict=True)))
    metrics.reconciliation_ended(left=0, in_flight=2, repaired=3)
    assert got == [
        ("count", "ownership.reconcile-rows-count", 100),
        ("count", "ownership.reconcile-documents-count", 90),
        ("count", "ownership.stale-owner-count", 1),
        ("count", "ownership.stale-mentors-count", 2),
        ("count", "ownership.missing-document-count", 3),
        ("count", "ownership.orphan-document-count", 4),
        ("count", "ownership.unproven-batch-count", 5),
        ("count", "ownership.unmoved-batch-count", 6),
        ("count", "ownership.repaired-document-count", 3),
        ("count", "ownership.in-flight-difference-count", 2),
        ("gauge", "ownership.reconcile-differences-left", 0),
    ]


def test_nothing_is_not_counted(got: list[Any]) -> None:
    metrics.pulled(Pulled())
    metrics.settled({}, {})
    metrics.users_read(0)
    metrics.reconciled(0, 0, {})
    assert got == []


def test_an_empty_backlog_is_sent_too(got: list[Any]) -> None:
    metrics.backlog(BacklogFacts(), 0, 5000)
    assert got == [
        ("gauge", "ownership.backlog-messages", 0),
        ("gauge", "ownership.backlog-age-seconds", 0),
        ("gauge", "ownership.held-back-messages", 0),
        ("gauge", "ownership.backlog-retention-share", 0),
        ("gauge", "ownership.dead-letters", 0),
    ]


def test_dead_letters_that_cannot_be_counted_are_not_sent_as_zero(got: list[Any]) -> None:
    held = (HeldBack(0, 3, 2500), HeldBack(1, 4, 4000))
    metrics.backlog(BacklogFacts(8, 2500, held_back=held, retention_share=0.51236), None, 5000)
    assert got == [
        ("gauge", "ownership.backlog-messages", 8),
        ("gauge", "ownership.backlog-age-seconds", 2.5),
        ("gauge", "ownership.held-back-messages", 7),
        ("gauge", "ownership.backlog-retention-share", 0.512),
    ]


def test_the_queue_is_sent_in_numbers(got: list[Any]) -> None:
    late = QueuedEvent(transfer(0, "a", "b"), 1000)
    metrics.queue(QueueFacts(open=9, held=3, blocked=4, awaiting=2, oldest_ms=1000, overdue=(late,)), 3500)
    metrics.queue(QueueFacts(), 3500)
    assert got == [
        ("gauge", "ownership.open-events", 9),
        ("gauge", "ownership.oldest-open-event-seconds", 2.5),
        ("gauge", "ownership.overdue-events", 1),
        ("gauge", "ownership.blocked-events", 4),
        ("gauge", "ownership.claims-held", 3),
        ("gauge", "ownership.awaiting-approval-events", 2),
        ("gauge", "ownership.open-events", 0),
        ("gauge", "ownership.oldest-open-event-seconds", 0),
        ("gauge", "ownership.overdue-events", 0),
        ("gauge", "ownership.blocked-events", 0),
        ("gauge", "ownership.claims-held", 0),
        ("gauge", "ownership.awaiting-approval-events", 0),
    ]


def test_what_is_wrong_is_counted(got: list[Any]) -> None:
    metrics.problems(2)
    assert got == [("gauge", "ownership.health-problems", 2)]


def test_the_time_to_the_proof_is_in_milliseconds(got: list[Any]) -> None:
    metrics.lag(1234.5)
    assert got == [("timing", "ownership.event-to-proven", 1234.5)]


def test_the_share_that_is_proven_in_time_is_one_where_nothing_was_due(got: list[Any]) -> None:
    metrics.proven(ProvenCounts(in_time=997, late=2, overdue=1, pending=5, asked=4, unproven=3))
    metrics.proven(ProvenCounts(pending=5, unproven=3))
    assert got == [
        ("gauge", "ownership.proven-in-time-share", 0.997),
        ("gauge", "ownership.due-events", 1000),
        ("gauge", "ownership.proven-in-time-share", 1.0),
        ("gauge", "ownership.due-events", 0),
    ]
