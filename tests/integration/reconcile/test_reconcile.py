"""Reconciliation on real servers: rows and documents of a platform that holds nothing else."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.platform.schema import BATCH_INDEX, KEYSPACE, TABLE, create_batch_index
from local.platform.world import Batch
from ownership.domain.clock import now_ms
from ownership.domain.errors import Unavailable
from ownership.domain.plan import BatchId
from ownership.domain.reconciliation import Report
from ownership.domain.states import ChangeOutcome
from ownership.platform import search_index
from ownership.platform.course_batches import RawRow
from ownership.platform.ring import MAX_TOKEN, MIN_TOKEN, TokenRange, range_of, token, token_range
from ownership.platform.search_index import SearchIndex
from ownership.reconcile import run as reconciling
from ownership.reconcile import scan
from ownership.reconcile.pace import Pace
from ownership.reconcile.run import ReconcileConf, Share
from ownership.stages import second_proof
from ownership.stages.parts import Parts
from tests.harness import Job
from tests.integration.stages.transfer_world import World, opened_world

RANGES = 8
FEW = {"reconcile.slices": 1, "reconcile.days": 1}
"""Settings: the ledger is asked about each hour of the days, and no event here is older than the test."""


@pytest.fixture(scope="module")
def module_world(stack: Any) -> Iterator[World]:
    with opened_world(stack.addresses, **FEW) as world:
        yield world


@pytest.fixture
def world(module_world: World) -> Iterator[World]:
    """The stores are emptied: what other tests left differs, and is meant to."""
    w = module_world
    w.made, w.hidden = [], set()
    w.platform.delete_batches()
    yield w
    assert w.job.open_mids() == []


@pytest.fixture
def job(world: World) -> Job:
    return world.job


def planned(job: Job, *, run_id: str = "", **conf: Any) -> tuple[str, list[Share]]:
    run_id = run_id or f"reconcile-{uuid.uuid4().hex}"
    order = ReconcileConf.of({"ranges": RANGES, "rows_per_second": 0, **conf})
    return run_id, reconciling.plan(job.parts, run_id, order)


def reported(job: Job, run_id: str, **conf: Any) -> Report:
    found = reconciling.put_together(job.parts, run_id, ReconcileConf.of(conf))
    assert found
    return found[0]


def reconcile(job: Job, *, run_id: str = "", **conf: Any) -> Report:
    """A whole run."""
    run_id, shares = planned(job, run_id=run_id, **conf)
    for share in shares:
        reconciling.look_at_ranges(job.parts, share, patience_s=0)
    reconciling.look_at_ledger(job.parts, run_id, ReconcileConf.of(conf))
    return reported(job, run_id, **conf)


def stores(world: World, batches: list[Batch]) -> Any:
    return world.platform.as_written(batches)


# --- each kind


def test_stores_that_agree_have_no_difference_and_every_row_and_document_is_read(
    world: World, job: Job
) -> None:
    world.batches(40, created_by="a", mentors=("m", "n"))
    world.batches(3, created_by=None, mentors=None, status=2)
    report = reconcile(job)
    assert (report.rows, report.documents, report.different, report.in_flight, report.left) == (
        43,
        43,
        0,
        0,
        0,
    )
    assert report.complete
    assert report.counts == {}


def test_each_kind_of_difference_is_found_and_nothing_is_written(world: World, job: Job) -> None:
    batches = world.batches(30, created_by="a", mentors=("m",))
    owner, mentors, both, missing, orphan = batches[:5]
    world.platform.put_document(owner.batch_id, createdBy="z")
    world.platform.put_document(mentors.batch_id, mentors=["m", "z"])
    world.platform.put_document(both.batch_id, createdBy="z", mentors=[])
    world.platform.delete_document(missing.batch_id)
    world.platform.delete_row(orphan.course_id, orphan.batch_id)
    before = stores(world, batches)

    report = reconcile(job)

    assert report.counts == {
        "stale_owner": 2, "stale_mentors": 2, "missing_document": 1, "orphan_document": 1,
    }  # fmt: skip
    assert (report.different, report.left, report.repaired) == (5, 5, 0)
    named = {(s.kind, s.batch_id) for s in report.samples}
    assert ("missing_document", missing.batch_id) in named
    assert ("orphan_document", orphan.batch_id) in named
    assert {b for k, b in named if k == "stale_owner"} == {owner.batch_id, both.batch_id}
    assert stores(world, batches) == before


def test_a_repair_makes_documents_follow_their_rows_and_leaves_orphans(world: World, job: Job) -> None:
    batches = world.batches(30, created_by="a", mentors=("m",), description="about a")
    owner, mentors, missing, orphan = batches[:4]
    world.platform.put_document(owner.batch_id, createdBy="z", name="a newer name")
    world.platform.put_document(mentors.batch_id, mentors=[])
    world.platform.delete_document(missing.batch_id)
    world.platform.delete_row(orphan.course_id, orphan.batch_id)
    rows = {b.batch_id: world.row(b) for b in batches}

    report = reconcile(job, repair=True)

    assert (report.different, report.repaired, report.left) == (4, 3, 1)
    assert {b.batch_id: world.row(b) for b in batches} == rows
    assert [world.document(b) for b in (owner, mentors, missing)] == [("a", ("m",))] * 3
    mended = world.platform.document(owner.batch_id)
    assert mended
    assert (mended["name"], mended["description"]) == ("a newer name", "about a")
    assert world.platform.document(orphan.batch_id)
    again = reconcile(job, repair=True)
    assert (again.counts, again.repaired) == ({"orphan_document": 1}, 0)


def test_a_document_of_another_course_is_not_taken_for_the_row_s_and_is_not_written(
    world: World, job: Job
) -> None:
    batch = world.batch(created_by="a")
    twin = Batch(f"{batch.course_id}-other", batch.batch_id, created_by="b")
    world.platform.add_batches([twin], documents=False)
    report = reconcile(job, repair=True)
    assert (report.counts, report.repaired, report.left) == ({"missing_document": 1}, 0, 1)
    assert world.document(batch) == ("a", ())
    assert "is of course" in report.samples[0].note


def test_hostile_owners_and_courses_are_compared_as_they_are_and_shown_on_one_line(
    world: World, job: Job
) -> None:
    batch = world.batch(created_by="a")
    world.platform.put_document(batch.batch_id, createdBy=7, mentors="one\nline")
    world.platform.search.index(index=BATCH_INDEX, id="stray", document={"courseId": 7}, refresh=True)
    report = reconcile(job)
    assert report.counts == {"stale_owner": 1, "stale_mentors": 1, "orphan_document": 1}
    assert all(s.document.isprintable() for s in report.samples)
    assert reconcile(job, repair=True).repaired == 1
    assert world.document(batch) == ("a", ())


# --- meanwhile


def test_a_row_that_is_edited_between_the_two_looks_is_no_difference(
    world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = world.batch(created_by="a")
    world.edit(batch, createdby="b")
    first = scan.Scan._differs

    def then_the_lms_writes_the_document(row: RawRow, documents: Any) -> bool:
        found = first(row, documents)
        world.platform.put_document(batch.batch_id, createdBy="b")
        return found

    monkeypatch.setattr(scan.Scan, "_differs", staticmethod(then_the_lms_writes_the_document))
    assert reconcile(job, repair=True).different == 0


def test_a_document_that_is_written_during_the_repair_is_not_overwritten_with_an_older_row(
    world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = world.batch(created_by="a")
    world.platform.put_document(batch.batch_id, createdBy="z")
    read, edits = type(job.parts.rows).read, iter(("b",))

    def then_the_lms_edits(self: Any, ids: Any) -> Any:
        found = read(self, ids)
        if BatchId(batch.course_id, batch.batch_id) in found and (edit := next(edits, None)):
            world.edit(batch, createdby=edit)
            world.platform.put_document(batch.batch_id, createdBy=edit)
        return found

    monkeypatch.setattr(type(job.parts.rows), "read", then_the_lms_edits)
    report = reconcile(job, repair=True)
    assert world.owners(batch) == ("b", ())
    assert report.left == 0


def test_a_row_that_is_deleted_during_the_repair_leaves_no_document(
    world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = world.batch(created_by="a")
    world.platform.delete_document(batch.batch_id)
    follow = second_proof.follow_rows

    def and_the_row_goes(parts: Parts, ids: Any) -> None:
        follow(parts, ids)
        world.platform.delete_row(batch.course_id, batch.batch_id)

    monkeypatch.setattr(scan, "follow_rows", and_the_row_goes)
    report = reconcile(job, repair=True)
    assert world.platform.document(batch.batch_id) is None
    assert (report.different, report.left) == (0, 0)


def test_what_a_transfer_is_moving_is_in_flight_and_not_repaired(world: World, job: Job) -> None:
    old, new = world.users("old", "new")
    moving = world.batch(created_by=old, mentors=(old,))
    other = world.batch(created_by="a")
    world.platform.put_document(other.batch_id, createdBy="z")
    world.transfer(old, new)
    run = world.run().pull().lookup().update()
    assert world.row(moving) == (new, (new,))

    report = reconcile(job, repair=True)

    assert (report.in_flight, report.different, report.repaired) == (
        2,
        1,
        1,
    )  # by the look at rows, and at the ledger
    assert world.document(moving) == (old, (old,))
    run.reindex().settle()
    assert reconcile(job).different == 0
    assert world.owners(moving) == (new, (new,))


def test_an_announced_transfer_of_a_user_does_not_explain_what_it_will_not_find(
    world: World, job: Job
) -> None:
    old, new = world.users("old", "new")
    hidden = world.batch(created_by=old)
    world.platform.delete_document(hidden.batch_id)
    world.transfer(old, new)
    run = world.run().pull()
    report = reconcile(job)
    assert (report.counts, report.in_flight) == ({"missing_document": 1}, 0)
    run.finish()


def test_a_batch_that_a_completed_transfer_did_not_see_is_reported_and_one_that_was_given_since_is_not(
    world: World, job: Job
) -> None:
    old, new = world.users("old", "new")
    hidden = world.batch(created_by=old)
    world.platform.delete_document(hidden.batch_id)
    mid = world.transfer(old, new)
    world.whole_run()
    since = world.batch(created_by=old)
    ended = world.batch(created_by=old, status=2)

    report = reconcile(job, repair=True)

    assert report.counts == {"missing_document": 1, "unmoved": 1}
    assert (report.repaired, report.left) == (1, 1)
    (left,) = [s for s in report.samples if s.kind == "unmoved"]
    assert (left.batch_id, mid in left.note) == (hidden.batch_id, True)
    assert world.creators([since, ended]) == [old, old]
    assert reconcile(job, days=0).counts == {}


# --- moves that were never proven


def test_what_an_abandoned_transfer_moved_is_not_proven(world: World, job: Job) -> None:
    old, new = world.users("old", "new")
    moved, back = world.batches(2, created_by=old)
    mid = world.transfer(old, new)
    world.run().pull().lookup().update()
    world.run().pull(abandon={"mids": [mid], "reason": "no"}).finish()
    world.edit(back, createdby=old)

    report = reconcile(job, repair=True)

    assert report.counts == {"stale_owner": 1, "unproven": 1}
    (sample,) = [s for s in report.samples if s.kind == "unproven"]
    assert (sample.batch_id, "is abandoned" in sample.note) == (moved.batch_id, True)


@pytest.mark.parametrize(
    ("outcome", "found"),
    [(ChangeOutcome.LATE, 1), (ChangeOutcome.IN_DOUBT, 1), (ChangeOutcome.SUPERSEDED, 0)],
)
def test_images_that_are_late_or_in_doubt_are_not_proven(
    world: World, job: Job, outcome: ChangeOutcome, found: int
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    world.whole_run()
    (image,) = world.changes(mid)[1]
    job.parts.changes.settle_images([(image, outcome)])
    assert reconcile(job).counts.get("unproven", 0) == found
    world.edit(batch, createdby="x")
    world.platform.put_document(batch.batch_id, createdBy="x")
    assert reconcile(job).counts.get("unproven", 0) == (1 if outcome == ChangeOutcome.IN_DOUBT else 0)
    assert reconcile(job, days=0).counts == {}


# --- resumed, throttled, paged


def test_a_run_that_crashed_goes_on_with_the_ranges_that_are_not_done(
    world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = world.batches(60, created_by="a")
    world.platform.put_document(batches[0].batch_id, createdBy="z")
    whole = scan.Scan.compare
    read: list[int] = []

    def until_the_fourth(self: scan.Scan, tokens: TokenRange, documents: Any) -> Any:
        if len(read) == 3:
            raise Unavailable("Cassandra", "gone")
        return the_rest(self, tokens, documents)

    def the_rest(self: scan.Scan, tokens: TokenRange, documents: Any) -> Any:
        read.append(tokens.number)
        return whole(self, tokens, documents)

    monkeypatch.setattr(scan.Scan, "compare", until_the_fourth)
    run_id, (share,) = planned(job)
    with pytest.raises(Unavailable):
        reconciling.look_at_ranges(job.parts, share, patience_s=0)
    unfinished = reported(job, run_id)
    assert (unfinished.done, unfinished.complete) == (3, False)

    monkeypatch.setattr(scan.Scan, "compare", the_rest)
    report = reconcile(job, run_id=run_id)
    assert read == list(range(RANGES))
    assert (report.rows, report.documents, report.different, report.complete) == (60, 60, 1, True)
    # Cleared as a whole it reads nothing again, whatever the settings say by now, and its report is the same.
    assert reconcile(job, run_id=run_id, ranges=3) == report
    assert len(read) == RANGES


def test_the_reports_of_the_last_runs_are_listed_the_newest_first(world: World, job: Job) -> None:
    batch = world.batch(created_by="a")
    first = reconcile(job)
    world.platform.put_document(batch.batch_id, createdBy="z")
    second = reconcile(job)
    third = reconcile(job, repair=True)
    assert job.parts.reconciliations.last(3) == [third, second, first]
    found = reconciling.put_together(job.parts, third.run_id, ReconcileConf.of({"repair": True}))
    assert found
    assert [(p.left, p.repaired) for p in found[1][-3:]] == [(0, 0), (1, 0), (0, 1)]


def test_rows_and_documents_are_paid_for_by_time(
    world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.batches(50, created_by="a")
    monkeypatch.setattr(scan, "ROWS_A_PAGE", 10)
    slept: list[float] = []
    pace = Pace(100, clock=lambda: 0.0, sleep=slept.append)
    looking = scan.Scan(job.parts, pace)
    with looking.read_index(1, [0]) as index:
        documents = index.take(0)
    # The index may hold the documents in several parts: then the later ones wait for the first.
    assert all(0 < seconds < 0.5 for seconds in slept)
    slept.clear()
    looking.compare(token_range(0, 1), documents)
    assert slept[0] == pytest.approx(0.5)  # for the documents
    assert all(0 < later - earlier < 0.101 for earlier, later in pairwise(slept))
    assert slept[-1] < 1
    assert len(slept) >= 5


def test_the_limit_is_shared_by_the_slices(world: World, job: Job) -> None:
    parts = replace(job.parts, settings=job.settings.model_copy(update={"reconcile_slices": 3}))
    shares = reconciling.plan(
        parts, f"r-{uuid.uuid4().hex}", ReconcileConf.of({"ranges": 8, "rows_per_second": 300})
    )
    assert [s.per_second for s in shares] == [100.0] * 3
    assert sorted(n for s in shares for n in s.ranges) == list(range(8))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_a_page_of_any_size_shows_every_row_once(world: World, job: Job, size: int) -> None:
    made = {BatchId(b.course_id, b.batch_id) for b in world.batches(9, created_by="a")}
    pages = [list(job.parts.rows.pages(token_range(n, 3), rows=size)) for n in range(3)]
    rows = [BatchId(r.courseid, r.batchid) for some in pages for page in some for r in page]
    assert len(rows) == len(made) == len(set(rows))
    assert set(rows) == made
    assert all(0 < len(page) <= size for some in pages for page in some)


def test_ranges_end_exactly_at_a_token(world: World, job: Job) -> None:
    batch = world.batch(created_by="a")
    found = job.parts.cql.session.execute(
        f"SELECT token(courseid) AS t FROM {KEYSPACE}.{TABLE} WHERE courseid = %s", (batch.course_id,)
    )
    t = found.one().t

    def shows(after: int, upto: int, number: int = 1) -> bool:
        return any(job.parts.rows.pages(TokenRange(number, after, upto), rows=10))

    assert shows(t - 1, t)
    assert shows(t, t, 0)
    assert not shows(t, MAX_TOKEN)
    assert not shows(MIN_TOKEN, t - 1, 0)
    assert shows(MIN_TOKEN, MAX_TOKEN, 0)


def test_a_walk_through_an_index_of_several_shards_shows_every_document_once_page_by_page(
    world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, name = world.platform.search, f"shards-{uuid.uuid4().hex[:8]}"
    create_batch_index(client, name, shards=3)
    made = [f"b{n}" for n in range(40)]
    monkeypatch.setattr(search_index, "DOCS_PER_PAGE", 7)
    try:
        for batch in made:
            client.index(index=name, id=batch, document={"batchId": batch, "courseId": "c"})
        client.indices.refresh(index=name)
        pages = list(SearchIndex(lambda: client, name, zone=UTC).documents())
    finally:
        client.indices.delete(index=name)
    assert max(len(p) for p in pages) == 7
    assert len(pages) >= 6
    assert sorted(d.batch_id for p in pages for d in p) == sorted(made)


def test_the_job_finds_a_course_in_the_range_where_cassandra_has_it(world: World, job: Job) -> None:
    batches = [Batch(course, "b", created_by="a") for course in ("do_1", "é☃", "x" * 300, "a\nb")]
    world.platform.add_batches(batches, documents=False)
    for row in job.parts.cql.session.execute(
        f"SELECT courseid, token(courseid) AS t FROM {KEYSPACE}.{TABLE}"
    ):
        assert token(row.courseid) == row.t
        of = 1000
        (found,) = [n for n in range(of) if token_range(n, of).holds(row.t)]
        assert range_of(row.courseid, of) == found


def test_a_large_index_is_cut_into_more_ranges(
    world: World, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconciling, "DOCUMENTS_A_RANGE", 4)
    world.batches(41, created_by="a")
    report = reconcile(job, ranges=2)
    assert (report.parts, report.rows, report.documents, report.left) == (11 + 1, 41, 41, 0)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(["right", "owner", "mentors", "missing", "orphan"]), max_size=12))
def test_whatever_is_wrong_is_counted_once_and_one_repair_leaves_the_orphans_alone(
    world: World, job: Job, wrong: list[str]
) -> None:
    batches = world.batches(len(wrong), created_by="a", mentors=("m",))
    made = now_ms()
    for what, batch in zip(wrong, batches, strict=True):
        if what == "owner":
            world.platform.put_document(batch.batch_id, createdBy=f"z{made}")
        elif what == "mentors":
            world.platform.put_document(batch.batch_id, mentors=[])
        elif what == "missing":
            world.platform.delete_document(batch.batch_id)
        elif what == "orphan":
            world.platform.delete_row(batch.course_id, batch.batch_id)
    report = reconcile(job, repair=True)
    repairable = sum(w in ("owner", "mentors", "missing") for w in wrong)
    assert report.repaired == repairable
    assert report.left == report.counts.get("orphan_document", 0)
    assert reconcile(job).left == report.left
