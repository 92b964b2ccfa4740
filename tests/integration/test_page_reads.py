"""The page's reads on a real ledger of many transfers: nothing left out, nothing twice, bounded, quick.

`PAGE_TRANSFERS=100000` fills it as full as a busy year; the figures in docs/performance.md were measured so.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from cassandra.concurrent import execute_concurrent_with_args
from transfer_world import World, opened_world

from ownership.events import OrderKey
from ownership.ledger import HOUR_MS
from ownership.page.reads import MOST_HOURS, MOST_LOOKED, PER_PAGE, Cursor, Listed, Reads, Wanted
from ownership.parts import now_ms
from ownership.reconcile.report import Report
from ownership.reconcile.store import Reconciliations
from ownership.schema import RECONCILE

COUNT = int(os.environ.get("PAGE_TRANSFERS", "3000"))
BURST = 1500
"""Transfers within one hour: more than one page looks at."""
GAP_HOURS = 40
BUSY = "page-busy"
MOST_MS = 2000
"""Far above what a page takes (docs/performance.md), far below a scan."""


class Filled(NamedTuple):
    """A ledger with many transfers, and their mids, newest first."""

    reads: Reads
    now_ms: int
    mids: list[str]
    of_busy: list[str]
    failed: list[str]


@pytest.fixture(scope="module")
def world_of_many(stack: Any) -> Iterator[World]:
    with opened_world(stack.addresses) as world:
        yield world


@pytest.fixture(scope="module")
def filled(world_of_many: World) -> Filled:
    parts = world_of_many.job.parts
    session, keyspace = parts.cql.session, parts.settings.ledger_keyspace
    now = now_ms()
    # The newest are a burst; before it comes a gap; the rest is one every eight seconds.
    burst_at = (now // HOUR_MS - 2) * HOUR_MS + HOUR_MS - 1
    times = [burst_at - n for n in range(BURST)]
    times += [burst_at - GAP_HOURS * HOUR_MS - n * 8000 for n in range(COUNT)]
    events, hours, users = [], [], []
    mids, of_busy, rare = [], [], []
    payload = b'{"pad": "' + b"x" * 1900 + b'"}'
    for n, t in enumerate(times):
        mid, old, new = f"many.{n:06}", BUSY if n % 4 == 0 else f"page-old-{n % 500}", f"page-new-{n % 500}"
        state = "abandoned" if n == len(times) - 50 else "skipped" if n % 30 == 0 else "completed"
        events.append((mid, state, n % 2, n, t, t, payload, old, new, {"moved": n % 40}, f"run-{n // 500}"))
        hours.append((t // HOUR_MS, t, n % 2, n, mid, t))
        users += [(u, t, n % 2, n, mid, old, new) for u in (old, new)]
        mids.append(mid)
        if old == BUSY:
            of_busy.append(mid)
        if state == "abandoned":
            rare.append(mid)
    for cql, rows in (
        (
            "transfer_event (mid, state, kafka_partition, kafka_offset, t, kafka_ms, payload, from_user, to_user, "
            "counts, run_id) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            events,
        ),
        (
            "transfer_event_by_hour (hour, t, kafka_partition, kafka_offset, mid, kafka_ms) VALUES (?, ?, ?, ?, ?, ?)",
            hours,
        ),
        (
            "transfer_event_by_user (user_id, t, kafka_partition, kafka_offset, mid, from_user, to_user) "
            "VALUES (?, ?, ?, ?, ?, ?, ?)",
            users,
        ),
    ):
        statement = session.prepare(f"INSERT INTO {keyspace}.{cql}")
        execute_concurrent_with_args(session, statement, rows, concurrency=24)
    return Filled(Reads(parts.cql, keyspace, retention_days=400), now, mids, of_busy, rare)


def turned(filled: Filled, wanted: Wanted, most: int) -> list[Listed]:
    """Pages, one after the other."""
    pages: list[Listed] = []
    cursor: Cursor | None = None
    while len(pages) < most:
        pages.append(filled.reads.page(wanted._replace(cursor=cursor), now_ms=filled.now_ms))
        cursor = pages[-1].cursor
        if cursor is None:
            return pages
    return pages


def mids_of(pages: list[Listed]) -> list[str]:
    return [r.mid for page in pages for r in page.rows]


def test_pages_show_every_transfer_once_newest_first_across_a_burst_and_a_gap(filled: Filled):
    most = (BURST + 1000) // PER_PAGE
    pages = turned(filled, Wanted(), most)
    assert mids_of(pages) == filled.mids[: most * PER_PAGE]
    assert {p.looked for p in pages[:-1]} == {MOST_LOOKED}
    assert sum(pages[0].states.values()) == MOST_LOOKED


def test_a_user_s_transfers_are_shown_to_the_last(filled: Filled):
    pages = turned(filled, Wanted(user=BUSY.upper()), 1 + len(filled.of_busy) // PER_PAGE)
    assert mids_of(pages) == filled.of_busy
    one = turned(filled, Wanted(user="page-new-7"), 100)
    assert mids_of(one) == [m for n, m in enumerate(filled.mids) if n % 500 == 7]
    assert one[-1].cursor is None


def test_a_rare_state_is_found_by_going_on_and_every_page_says_how_far_it_looked(filled: Filled):
    pages = turned(filled, Wanted(state="abandoned"), 2 + COUNT // 1000)
    assert mids_of(pages) == filled.failed
    spans = [(p.from_ms, p.to_ms) for p in pages]
    for (since, _), (_, before) in itertools.pairwise(spans):
        assert since is not None
        assert before is not None
        assert before <= since + HOUR_MS


def test_a_span_of_time_shows_what_is_in_it_and_nothing_else(filled: Filled):
    shown = filled.reads.page(Wanted(), now_ms=filled.now_ms).rows
    times = sorted({r.t for r in shown}, reverse=True)
    before, since = times[10], times[20]
    pages = turned(filled, Wanted(since_ms=since, before_ms=before), 10)
    assert {r.t for p in pages for r in p.rows} == {t for t in times if since <= t < before}
    assert pages[-1].cursor is None


def test_far_back_there_is_nothing_and_the_walk_is_bounded(filled: Filled):
    before = filled.now_ms - 200 * 24 * HOUR_MS
    page = filled.reads.page(Wanted(before_ms=before), now_ms=filled.now_ms)
    assert (page.rows, page.looked) == ([], 0)
    assert page.cursor
    assert page.from_ms is not None
    assert before - page.from_ms <= (MOST_HOURS + 1) * HOUR_MS
    # And ends where the ledger's retention ends.
    pages = turned(filled, Wanted(before_ms=filled.now_ms - 390 * 24 * HOUR_MS), 3)
    assert pages[-1].cursor is None


@pytest.mark.parametrize(
    "cursor",
    [
        Cursor(hour=0),
        Cursor(hour=2**31),
        Cursor.after(OrderKey(2**63 - 1, 0, 0, ""), 2**31),
        Cursor(t=-(2**63)),
    ],
    ids=["the beginning", "far ahead", "the last key", "the first key"],
)
@pytest.mark.parametrize(
    "wanted", [Wanted(), Wanted(user=BUSY), Wanted(state="failed"), Wanted(run_id="run-1")]
)
def test_a_cursor_that_somebody_made_up_reads_no_more_than_any(
    filled: Filled, cursor: Cursor, wanted: Wanted
):
    page = filled.reads.page(wanted._replace(cursor=cursor), now_ms=filled.now_ms)
    assert page.looked <= MOST_LOOKED


def test_a_page_of_many_transfers_is_quick(filled: Filled, capsys: pytest.CaptureFixture[str]):
    def milliseconds(action: Callable[[], Any]) -> list[float]:
        action()  # statements are prepared once
        found = []
        for _ in range(5):
            begun = time.perf_counter()
            action()
            found.append((time.perf_counter() - begun) * 1000)
        return found

    reads, now = filled.reads, filled.now_ms
    third = turned(filled, Wanted(), 3)[-1].cursor
    measured = {
        "newest": lambda: reads.page(Wanted(), now_ms=now),
        "third page": lambda: reads.page(Wanted(cursor=third), now_ms=now),
        "busy user": lambda: reads.page(Wanted(user=BUSY), now_ms=now),
        "rare state": lambda: reads.page(Wanted(state="abandoned"), now_ms=now),
        "open": lambda: reads.page(Wanted(state="open"), now_ms=now),
        "far back": lambda: reads.page(Wanted(before_ms=now - 200 * 24 * HOUR_MS), now_ms=now),
        "open now": reads.open_now,
    }
    told = {name: milliseconds(action) for name, action in measured.items()}
    with capsys.disabled():
        print(f"\n{len(filled.mids)} transfers; ms in the ledger, median and worst of 5:")  # noqa: T201  # figures
        for name, found in told.items():
            print(f"  {name:<12} {statistics.median(found):7.1f} {max(found):7.1f}")  # noqa: T201
    assert {name: m for name, found in told.items() if (m := statistics.median(found)) > MOST_MS} == {}


# -- one transfer, carried out for real


def test_the_changes_of_a_transfer_come_in_pages_whatever_its_partitions(world: World, monkeypatch: Any):
    monkeypatch.setattr("ownership.changes.ROWS_PER_BUCKET", 20)
    old, new = world.users("old", "new")
    batches = world.batches(130, created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    reads = Reads(world.job.parts.cql, world.job.settings.ledger_keyspace, retention_days=400)

    progress = reads.progress(reads.event(mid))
    assert (progress.planned, progress.moved, progress.proven) == (130, 0, 0)
    run.update()
    assert reads.progress(reads.event(mid)).moved == 130
    run.reindex().settle()

    event = reads.event(mid)
    assert event.buckets > 3
    found, after = [], None
    while True:
        page = reads.changes(event, after, most=17)
        assert 0 < len(page.batches) <= 17
        found += page.batches
        after = page.cursor
        if after is None:
            break
    assert sorted(c.id.batch_id for c in found) == sorted(b.batch_id for b in batches)
    assert {(c.plan.outcome, len(c.images)) for c in found} == {("moved", 1)}
    assert reads.progress(event).proven == 130


def test_a_lane_is_found_from_each_of_its_events_and_an_undo_from_what_it_took_back(world: World):
    a, b, c = world.users("a", "b", "c")
    world.batches(3, created_by=a)
    first, second = world.transfer(a, b), world.transfer(b, c)
    world.whole_run()
    reads = Reads(world.job.parts.cql, world.job.settings.ledger_keyspace, retention_days=400)
    for mid in (first, second):
        assert [e.mid for e in reads.lane(reads.event(mid))] == [first, second]
        changed = reads.changes(reads.event(mid), None).batches
        assert [(c.plan.outcome, c.images[0].hops) for c in changed] == [("moved", 2)] * 3
    assert reads.followed_by(reads.event(second)) == []

    run, _ = world.undo(second)

    (undo,) = reads.followed_by(reads.event(second))
    assert undo.mid == f"undo:{run.run_id}:0"
    assert reads.followed_by(reads.event(first)) == []


def test_an_event_that_waits_is_told_what_for(world: World):
    a, b, c = world.users("a", "b", "c")
    first = world.transfer(a, b)
    run = world.run().pull()
    second = world.transfer(b, c)
    world.run().pull()
    reads = Reads(world.job.parts.cql, world.job.settings.ledger_keyspace, retention_days=400)
    row = world.open_row(second)
    assert reads.queued(row.key) == row
    assert reads.waits_for(row.transfer) == first
    assert reads.waits_for(world.open_row(first).transfer) is None
    assert reads.open_now().events == 2
    held = reads.page(Wanted(run_id=run.run_id), now_ms=now_ms())
    assert [r.mid for r in held.rows] == [first]
    run.finish()
    world.whole_run()


def test_a_run_shows_what_it_skipped_too(world: World):
    old, new = world.users("old", "new")
    moved, skipped = world.transfer(old, new), world.transfer(new, "nobody-knows-this-user")
    run = world.run().pull()
    run.finish()
    reads = Reads(world.job.parts.cql, world.job.settings.ledger_keyspace, retention_days=400)
    listed = reads.page(Wanted(run_id=run.run_id), now_ms=now_ms())
    assert {r.mid: r.state for r in listed.rows} == {moved: "completed", skipped: "skipped"}


def test_a_ledger_from_before_reconciliations_has_none_and_its_page_no_error(own_world: World):
    parts = own_world.job.parts
    reads = Reads(parts.cql, parts.settings.ledger_keyspace, retention_days=400)
    Reconciliations(parts.cql, parts.settings.ledger_keyspace).tell(
        Report(run_id="manual__1", started_ms=1, ended_ms=2, repair=False, parts=1, done=1)
    )
    assert [r.run_id for r in reads.reconciliations(5)] == ["manual__1"]
    parts.cql.session.execute(f"DROP TABLE {parts.settings.ledger_keyspace}.{RECONCILE}", timeout=60)
    assert reads.reconciliations(5) == []
