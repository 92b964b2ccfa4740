"""Retention: months that are too old leave the ledger, events that are not final stay."""

from __future__ import annotations

import pytest

from ownership.domain.clock import from_ms, now_ms
from ownership.ledger import months
from ownership.ledger.database import Database
from ownership.ledger.months import Removed, ensure_months, remove_old
from ownership.ledger.schema import MONTH_SHIFT, PARTITIONED
from tests.harness import execute

DAYS = 400


def month_before(days: int) -> int:
    """The month, counted from year 0, in which a day lies."""
    at = from_ms(now_ms() - days * 24 * 3_600_000)
    return at.year * 12 + at.month - 1


def arrived(ledger: Database, mid: str, month: int, *, queued: bool = False) -> int:
    """An event of a month, with a row in every table; completed, or in the queue."""
    event_id = (month << MONTH_SHIFT) + execute(ledger, "SELECT nextval('event_number')")[0][0]
    for table in PARTITIONED:
        execute(
            ledger,
            f"CREATE TABLE IF NOT EXISTS {table}_{month // 12}_{month % 12 + 1:02d} PARTITION OF {table} "
            f"FOR VALUES FROM ({month << MONTH_SHIFT}) TO ({(month + 1) << MONTH_SHIFT})",
        )
    ended = "NULL, NULL" if queued else "now(), now()"
    execute(
        ledger,
        "INSERT INTO event (id, mid, order_ms, kafka_partition, kafka_offset, from_user, to_user, source_user, "
        "target_user, origin, topic, kafka_ms, state, completed_at, ended_at) VALUES (:id, :mid, 1, 0, :id, 'a', 'b', "
        f"'a', 'b', 'kafka', 't', 1, :state, {ended})",
        id=event_id, mid=mid, state="planned" if queued else "completed",
    )  # fmt: skip
    execute(ledger, "INSERT INTO payload VALUES (:id, 'x')", id=event_id)
    execute(ledger, "INSERT INTO event_run VALUES ('run', :id)", id=event_id)
    execute(ledger, "INSERT INTO plan (event_id, course_id, batch_id) VALUES (:id, 'c', 'b')", id=event_id)
    execute(
        ledger,
        "INSERT INTO change (event_id, course_id, batch_id, image, hop, hops, fencing_token, role) "
        "VALUES (:id, 'c', 'b', gen_random_uuid(), 0, 1, 1, 'created')",
        id=event_id,
    )
    if queued:
        execute(ledger, "INSERT INTO queue (event_id, accepted_at) VALUES (:id, now())", id=event_id)
    return event_id


def mids(ledger: Database) -> list[str]:
    return [r.mid for r in execute(ledger, "SELECT mid FROM event ORDER BY mid")]


def test_a_month_that_is_too_old_is_dropped_and_a_younger_one_stays(ledger: Database) -> None:
    arrived(ledger, "old", month_before(DAYS + 62))
    arrived(ledger, "of the last kept month", month_before(DAYS))
    arrived(ledger, "new", month_before(0))

    removed = remove_old(ledger, DAYS)

    month = month_before(DAYS + 62)
    name = f"{month // 12}_{month % 12 + 1:02d}"
    assert removed == Removed(tuple(sorted(f"{t}_{name}" for t in PARTITIONED)), events=1)
    assert mids(ledger) == ["new", "of the last kept month"]
    for table in (*PARTITIONED, "event_run"):
        assert execute(ledger, f"SELECT count(*) FROM {table}")[0][0] == 2
    assert remove_old(ledger, DAYS) == Removed()


def test_an_event_that_is_not_final_keeps_its_month_until_it_ends(ledger: Database) -> None:
    month = month_before(DAYS + 62)
    waits = arrived(ledger, "waits", month, queued=True)
    arrived(ledger, "beside it", month)
    arrived(ledger, "older", month - 1)

    assert remove_old(ledger, DAYS).events == 1
    assert mids(ledger) == ["beside it", "waits"]
    assert execute(ledger, "SELECT batch_id FROM change WHERE event_id = :id", id=waits)

    execute(ledger, "DELETE FROM queue")
    execute(ledger, "UPDATE event SET state = 'completed', completed_at = now(), ended_at = now()")
    assert remove_old(ledger, DAYS).events == 2
    assert mids(ledger) == []


@pytest.mark.parametrize(
    "named",
    [
        pytest.param("options = jsonb_build_object('undo_of', 'needed')", id="what it takes back"),
        pytest.param("options = jsonb_build_object('plan_of', 'needed')", id="whose plan it applies"),
        pytest.param("planned_with = ARRAY['needed']", id="with which it was planned"),
    ],
)
def test_an_event_that_is_not_final_keeps_the_month_of_the_event_that_it_reads(
    ledger: Database, named: str
) -> None:
    """An undo that waits for its approval would find no image, and end with nothing taken back."""
    month = month_before(DAYS + 62)
    needed = arrived(ledger, "needed", month)
    arrived(ledger, "older", month - 1)
    arrived(ledger, "waits", month_before(0), queued=True)
    execute(ledger, f"UPDATE event SET {named} WHERE mid = 'waits'")

    assert remove_old(ledger, DAYS).events == 1
    assert mids(ledger) == ["needed", "waits"]
    assert execute(ledger, "SELECT batch_id FROM change WHERE event_id = :id", id=needed)

    execute(ledger, "DELETE FROM queue")
    assert remove_old(ledger, DAYS).events == 1
    assert mids(ledger) == ["waits"]


def test_events_are_deleted_in_transactions_of_bounded_size(
    ledger: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for n in range(7):
        arrived(ledger, f"m{n}", month_before(DAYS + 62))
    monkeypatch.setattr(months, "ROWS_PER_DELETE", 3)
    monkeypatch.setattr(months, "MAX_DELETES", 2)
    assert remove_old(ledger, DAYS).events == 6
    assert remove_old(ledger, DAYS).events == 1


def test_rejected_messages_and_reports_go_by_their_own_age(ledger: Database) -> None:
    for name, days in (("old", DAYS + 1), ("new", DAYS - 1)):
        execute(
            ledger,
            "INSERT INTO rejected_message (mid, origin, topic, kafka_partition, kafka_offset, kafka_ms, body, reason, "
            "received_at) VALUES (:mid, 'kafka', 't', 0, 1, 1, 'x', 'y', now() - make_interval(days => :days))",
            mid=name, days=days,
        )  # fmt: skip
        execute(
            ledger,
            "INSERT INTO reconciliation VALUES (:run, '{}', now() - make_interval(days => :days))",
            run=name,
            days=days,
        )
        execute(
            ledger,
            "INSERT INTO reconciliation_part VALUES (:run, 'p', '{}', '[]', now(), now())",
            run=name,
        )
    removed = remove_old(ledger, DAYS)
    assert (removed.rejected_messages, removed.reconciliations) == (1, 1)
    for table, key in (
        ("rejected_message", "mid"),
        ("reconciliation", "run_id"),
        ("reconciliation_part", "run_id"),
    ):
        assert [r[0] for r in execute(ledger, f"SELECT {key} FROM {table}")] == ["new"]


def test_the_months_partitions_are_there_before_the_first_event_of_the_month(
    ledger: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Six weeks from now, after nobody has kept the house.
    later = now_ms() + 45 * 24 * 3_600_000
    monkeypatch.setattr(months, "now_ms", lambda: later)
    ledger.months_upto = 0
    ensure_months(ledger)
    at = from_ms(later)
    wanted = {f"{t}_{at.year}_{at.month:02d}" for t in PARTITIONED}
    there = execute(ledger, "SELECT relname FROM pg_class WHERE relispartition AND relkind = 'r'")
    assert wanted <= {r.relname for r in there}
