"""Runs that die, and runs that come back from the dead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from ownership.domain.clock import now_ms
from ownership.domain.contracts import Slice
from ownership.domain.errors import Unavailable
from ownership.domain.queue import ClaimedEvent
from ownership.domain.states import ChangeOutcome
from ownership.ledger import arrivals
from ownership.platform.kafka import Span
from ownership.stages import update
from ownership.stages.claim import Claim, take_again
from ownership.stages.intake import accept
from ownership.stages.pull import Collected, RunRequest, collect
from simulation.seams import InlinePool
from tests.harness import Run
from tests.integration.stages.transfer_world import World, boom, replaced

STAGES = ("lookup", "update", "reindex")


def until(run: Run, stage: str) -> Run:
    """A run up to and with `stage`."""
    run.pull()
    for name in STAGES[: 0 if stage == "pull" else STAGES.index(stage) + 1]:
        getattr(run, name)()
    return run


def after(run: Run, stage: str) -> Run:
    """The rest of its stages."""
    for name in STAGES[0 if stage == "pull" else STAGES.index(stage) + 1 :]:
        getattr(run, name)()
    return run


@contextmanager
def answers_lost(world: World, *, then: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Rows are written, then something else may happen, and the repeated compare-and-set can tell nothing."""
    rows = world.job.parts.rows
    compare_and_set = rows.compare_and_set

    def timed_out(changes: list[object], **how: bool) -> list[None]:
        compare_and_set(changes, **how)  # type: ignore[arg-type]  # as they came
        then()
        return [None] * len(changes)

    with replaced(rows, "compare_and_set", timed_out):
        yield


@pytest.mark.parametrize("stage", ["pull", "lookup", "update"])
def test_a_run_that_died_after_a_stage_is_completed_by_a_later_one(world: World, stage: str) -> None:
    old, new, other = world.users("old", "new", "other")
    batches = world.batches(3, created_by=old, mentors=("x", old))
    mid = world.transfer(old, new)
    until(world.run(), stage)

    # While its claim lives, nobody else takes the event.
    blocked = world.run().pull()
    assert blocked.pulled.claimed == 0
    assert "is held by run" in blocked.pulled.waits[mid]

    behind = world.transfer(new, other)
    world.expire(mid)
    assert world.whole_run().events == {"completed": 2}
    assert world.job.states([mid, behind]) == ["completed", "completed"]
    assert {world.owners(b) for b in batches} == {(other, ("x", other))}
    assert set(world.outcomes(mid).values()) == {"moved"}


def test_a_claim_that_is_silent_for_its_seconds_is_taken_over(world: World) -> None:
    settings = world.job.settings
    assert settings.claim_seconds == 120
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    world.run().pull()
    row = world.queued(mid)
    assert row.accepted_ms + 120_000 <= row.lease_expires_ms <= now_ms() + 120_001  # it is rounded
    world.expire(mid)
    world.whole_run()
    assert world.owners(batch) == (new, ())


def test_a_stage_renews_a_claim_only_when_a_third_of_its_life_is_over(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull()
    first = world.queued(mid).lease_expires_ms

    run.lookup()
    assert world.queued(mid).lease_expires_ms == first

    world.expire(mid)  # nobody has taken it over yet: the token still is the run's
    run.update()
    assert world.queued(mid).lease_expires_ms > first

    run.reindex().settle()
    assert world.owners(batch) == (new, ())


def test_a_later_try_fences_off_the_one_before_also_where_that_let_go_of_its_events(world: World) -> None:
    """As a try does at a SIGTERM. One that was frozen meanwhile has their token still."""
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull()
    (given,) = run.work
    assert isinstance(given, Slice)
    queue = world.job.parts.queue
    queue.release(given.claimed, next_try_ms=0)

    run.work = [take_again(world.job.parts, given)]

    assert queue.held(given.claimed).lost == {mid}
    run.lookup().update().reindex().settle()
    assert world.owners(batch) == (new, ())


def test_a_run_that_died_in_the_middle_of_its_rows_is_completed_with_one_move_a_row(world: World) -> None:
    old, new = world.users("old", "new")
    batches = world.batches(14, created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    # After the rows, before what became of them is written.
    with replaced(world.job.parts.changes, "settle_images", boom):
        assert len(run.update().errors) == 1
    assert [world.row(b) for b in batches] == [(new, ())] * 14
    assert world.state(mid) == "planned"
    world.expire(mid)

    assert world.whole_run().batches == {"moved": 14}
    assert world.creators(batches) == [new] * 14
    assert set(world.outcomes(mid).values()) == {"moved"}
    assert world.trail(mid) == {b.batch_id: [((old, ()), (new, ()))] for b in batches}


def test_a_try_that_froze_before_it_wrote_its_outcomes_leaves_what_its_successor_has_judged(
    world: World,
) -> None:
    old, new, other = world.users("old", "new", "other")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    changes = world.job.parts.changes
    settle, frozen = changes.settle_images, []

    def freeze(*given: Any, **more: Any) -> None:
        frozen.append(partial(settle, *given, **more))
        boom()

    with replaced(changes, "settle_images", freeze):
        run.update()
    world.edit(batch, createdby=other)
    world.expire(mid)
    world.whole_run()
    (_, (judged,)), planned = world.changes(mid), world.outcomes(mid)

    wakes = frozen[0]
    wakes()

    assert world.changes(mid)[1] == [judged]
    assert judged.outcome == ChangeOutcome.IN_DOUBT
    assert world.outcomes(mid) == planned


def test_a_write_whose_answer_was_lost_counts_though_a_successor_saw_the_row_before_it(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    rows, changes = world.job.parts.rows, world.job.parts.changes
    compare_and_set, record = rows.compare_and_set, changes.record

    def unanswered(wanted: list[object], **how: bool) -> list[None]:
        def arrives(images: list[Any]) -> None:
            record(images)
            compare_and_set(wanted, **how)  # type: ignore[arg-type]  # as they came

        world.expire(mid)
        with replaced(rows, "compare_and_set", compare_and_set), replaced(changes, "record", arrives):
            world.whole_run()
        return [None] * len(wanted)

    with replaced(rows, "compare_and_set", unanswered):
        run.update()

    assert world.owners(batch) == (new, ())
    assert [i.outcome for i in world.changes(mid)[1]] == ["applied", "refused"]


def test_a_write_of_a_try_that_froze_and_died_counts_though_a_successor_saw_the_row_before_it(
    world: World,
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    rows, changes = world.job.parts.rows, world.job.parts.changes
    compare_and_set = rows.compare_and_set

    def wakes(wanted: list[object], **how: bool) -> None:
        world.expire(mid)
        successor = world.run().pull().lookup()
        with replaced(changes, "record", boom):
            successor.update()
        compare_and_set(wanted, **how)  # type: ignore[arg-type]  # as they came
        boom()

    with replaced(rows, "compare_and_set", wakes):
        run.update()
    assert [i.outcome for i in world.changes(mid)[1]] == ["superseded"]
    world.expire(mid)

    assert world.whole_run().batches == {"moved": 1}
    assert world.owners(batch) == (new, ())
    assert [i.outcome for i in world.changes(mid)[1]] == ["applied"]


def test_a_lost_answer_claims_no_change_that_a_try_that_froze_has_counted(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    rows = world.job.parts.rows
    compare_and_set = rows.compare_and_set

    def wakes(wanted: list[object], **how: bool) -> list[bool | None]:
        def unanswered(successors: list[object], **_: bool) -> list[None]:
            late.extend(compare_and_set(wanted, **how))  # type: ignore[arg-type]  # as they came
            changes.settle_images([(world.changes(mid)[1][0], ChangeOutcome.LATE)])
            return [None] * len(successors)

        world.expire(mid)
        successor = world.run().pull().lookup()
        with replaced(rows, "compare_and_set", unanswered):
            successor.update()
        return late

    late: list[bool | None] = []
    changes = world.job.parts.changes
    with replaced(rows, "compare_and_set", wakes):
        run.update()
    world.expire(mid)
    world.whole_run()

    assert world.owners(batch) == (new, ())
    assert [i.outcome for i in world.changes(mid)[1]] == ["late", "superseded"]


def test_a_run_that_died_between_image_and_write_leaves_an_image_that_says_so(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    with replaced(world.job.parts.rows, "compare_and_set", boom):
        run.update()
    assert world.row(batch) == (old, ())
    world.expire(mid)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert [i.outcome for i in world.changes(mid)[1]] == ["superseded", "applied"]
    assert world.read(mid).counts["moved"] == 1


def test_a_write_that_applied_although_it_was_told_not_to_have_is_reported_as_applied(world: World) -> None:
    old, new = world.users("old", "new")
    batches = world.batches(10, created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    with answers_lost(world):
        run.update()
    assert run.errors == []
    assert run.reindex().settle().batches == {"moved": 10}
    assert world.creators(batches) == [new] * 10
    assert len(world.trail(mid)) == 10


def test_a_write_without_an_answer_to_a_row_that_was_edited_since_is_in_doubt(world: World) -> None:
    old, new, other = world.users("old", "new", "other")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    with answers_lost(world, then=lambda: world.edit(batch, createdby=other)):
        run.update()

    assert run.reindex().settle().batches == {"changed_elsewhere": 1}
    assert [i.outcome for i in world.changes(mid)[1]] == ["in_doubt"]


def test_a_try_that_wakes_leaves_its_change_to_the_image_that_counts_it(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    rows, changes = world.job.parts.rows, world.job.parts.changes
    compare_and_set, record = rows.compare_and_set, changes.record

    def dies(images: list[Any]) -> None:
        def freezes(wanted: list[object], **how: bool) -> list[bool | None]:
            answers = compare_and_set(wanted, **how)  # type: ignore[arg-type]  # as they came
            record(images)
            world.expire(mid)
            with replaced(rows, "compare_and_set", compare_and_set):
                world.whole_run()
            return answers

        world.expire(mid)
        successor = world.run().pull().lookup()
        with replaced(changes, "record", record), replaced(rows, "compare_and_set", freezes):
            successor.update()
        boom()

    with replaced(changes, "record", dies):
        run.update()

    assert world.owners(batch) == (new, ())
    assert [i.outcome for i in world.changes(mid)[1]] == ["applied", "superseded"]


def test_a_lost_answer_counts_though_an_earlier_event_made_the_same_change(world: World) -> None:
    old, new = world.users("old", "new")
    world.batch(created_by=old)
    for pair in ((old, new), (new, old)):
        world.transfer(*pair)
        world.whole_run()
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    with answers_lost(world):
        run.update()

    assert run.reindex().settle().batches == {"moved": 1}
    assert [i.outcome for i in world.changes(mid)[1]] == ["applied"]


def test_a_run_that_died_before_its_commit_is_proven_and_completed_by_a_later_one(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup().update()
    with replaced(world.job.parts.events, "complete", boom):
        run.reindex()
    assert world.owners(batch) == (new, ())
    assert world.state(mid) == "applied"
    world.expire(mid)
    assert world.whole_run().events == {"completed": 1}
    assert world.read(mid).counts["moved"] == 1


def test_a_commit_whose_answer_is_lost_is_found_when_it_is_repeated(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b)]
    mids = [world.transfer(a, b), world.transfer(b, c)]
    run = world.run().pull().lookup().update()
    complete = world.job.parts.events.complete

    def twice(phases: list[list[tuple[ClaimedEvent, dict[str, int]]]]) -> list[ClaimedEvent]:
        first = complete(phases)
        assert complete(phases) == first
        return first

    monkeypatch.setattr(world.job.parts.events, "complete", twice)
    assert run.reindex().settle().events == {"completed": 2}
    assert world.job.states(mids) == ["completed", "completed"]
    assert [world.read(m).counts["moved"] for m in mids] == [1, 2]
    assert world.job.open_mids() == []
    assert world.creators(batches) == [c, c]


def test_a_run_that_died_just_after_its_commit_leaves_nothing_to_do(world: World) -> None:
    a, b = world.users("a", "b")
    batches = world.batches(3, created_by=a)
    mid = world.transfer(a, b)
    run = world.run().pull().lookup().update()
    complete = world.job.parts.events.complete
    with replaced(world.job.parts.events, "complete", lambda phases: (complete(phases), boom())):
        assert len(run.reindex().errors) == 1
    assert (world.state(mid), world.job.open_mids()) == ("completed", [])
    assert world.run().pull().pulled.claimed == 0
    assert world.read(mid).counts["moved"] == 3
    assert world.creators(batches) == [b] * 3


# --- the fence


@pytest.mark.parametrize("stage", ["pull", "lookup", "update"])
def test_a_holder_whose_claim_was_taken_over_and_finished_writes_nothing(world: World, stage: str) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    slow = until(world.run(), stage)
    world.expire(mid)
    assert world.whole_run().events == {"completed": 1}
    # Afterwards the LMS gives the batch to the old user again, in both stores.
    world.edit(batch, createdby=old)
    world.platform.put_document(batch.batch_id, createdBy=old, mentors=["someone"])
    world.hidden.add(batch.batch_id)
    trail, event = world.trail(mid), world.read(mid)

    after(slow, stage).settle()

    assert world.row(batch) == (old, ())
    assert world.document(batch) == (old, ("someone",))
    assert world.trail(mid) == trail
    assert world.read(mid) == event


@pytest.mark.parametrize("stage", ["pull", "lookup", "update"])
def test_a_holder_whose_claim_was_taken_over_leaves_the_event_to_its_new_holder(
    world: World, stage: str
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    slow = until(world.run(), stage)
    world.expire(mid)
    other = world.run().pull()
    before, event = world.row(batch), world.read(mid)

    after(slow, stage)
    assert slow.settle().events == {"taken_over": 1}

    assert world.row(batch) == before
    assert world.read(mid) == event
    assert other.finish().events == {"completed": 1}
    assert world.owners(batch) == (new, ())


@pytest.mark.parametrize("stage", STAGES)
def test_a_try_that_comes_back_when_a_later_one_has_begun_writes_nothing(world: World, stage: str) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = until(world.run(), STAGES[STAGES.index(stage) - 1] if stage != "lookup" else "pull")
    frozen, state = replace(run), world.job.states([mid])
    run.again()

    assert [phase for work in getattr(frozen, stage)().work for phase in work.phases] == []

    assert world.job.states([mid]) == state
    getattr(run, stage)()
    assert after(run, stage).settle().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert world.outcomes(mid) == {batch.batch_id: "moved"}


def test_a_fence_takes_up_the_lease_of_one_event_that_was_let_go_beside_another(world: World) -> None:
    mids = []
    for _ in range(2):
        old, new = world.users("old", "new")
        world.batch(created_by=old)
        mids.append(world.transfer(old, new))
    run = until(world.run(), "pull")
    claimed = [e for s in run.pulled.slices for e in s.events]
    assert len(claimed) == 2
    world.job.parts.queue.release(claimed[:1], next_try_ms=0)

    assert not Claim(world.job.parts, claimed, run.run_id).check()

    assert [world.queued(m).holder for m in mids] == [run.run_id] * 2
    assert run.finish().events == {"completed": 2}


def test_a_try_that_is_replaced_records_every_wave_that_it_has_written(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update, "ROWS_PER_WAVE", 1)
    monkeypatch.setattr(update, "ThreadPoolExecutor", InlinePool)
    old, new = world.users("old", "new")
    batches = world.batches(2, created_by=old)
    mid = world.transfer(old, new)
    run = until(world.run(), "lookup")
    successor = replace(run)
    write = world.job.parts.rows.compare_and_set
    waves = []

    def write_late(changes: Any, **how: Any) -> list[bool | None]:
        waves.append(changes)
        if len(waves) == 2:  # behind its fence, and before the first wave's outcomes
            successor.again()
        return write(changes, **how)

    with replaced(world.job.parts.rows, "compare_and_set", write_late):
        run.update()

    written = {row.id.batch_id for wave in waves for row, _ in wave}
    assert written == {b.batch_id for b in batches}
    assert {i.id.batch_id: i.outcome for i in world.changes(mid)[1]} == dict.fromkeys(
        written, ChangeOutcome.LATE
    )
    assert successor.update().reindex().settle().events == {"completed": 1}
    assert {world.owners(b) for b in batches} == {(new, ())}
    world.undo(mid)
    assert {world.owners(b) for b in batches} == {(old, ())}


def test_settle_releases_what_a_later_try_has_taken_again(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = until(world.run(), "lookup").again()
    assert run.settle().events == {"failed": 1}
    row = world.queued(mid)
    assert (row.holder, row.next_try_ms > 0) == (None, True)
    world.make_due(mid)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())


def test_the_settle_of_a_run_that_was_cleared_leaves_its_new_claim_alone(world: World) -> None:
    old, new = world.users("old", "new")
    world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull()
    before = replace(run)
    run.pull()
    assert before.settle().events == {"taken_over": 1}
    assert world.queued(mid).holder == run.run_id
    assert run.finish().events == {"completed": 1}


def test_a_later_try_takes_nothing_from_a_run_that_took_over(world: World) -> None:
    old, new = world.users("old", "new")
    world.batch(created_by=old)
    mid = world.transfer(old, new)
    dead = until(world.run(), "lookup")
    world.expire(mid)
    other = world.run().pull()
    assert dead.again().update().work == []
    assert world.queued(mid).holder == other.run_id
    assert other.finish().events == {"completed": 1}


def test_a_claim_lost_between_image_and_write_ends_without_the_write(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    slow = world.run().pull().lookup()
    record = world.job.parts.changes.record
    takers: list[Run] = []

    def taken_over_after(*args: object) -> None:
        record(*args)  # type: ignore[arg-type]  # as they came
        if not takers:
            world.expire(mid)
            takers.append(world.run().pull())

    with replaced(world.job.parts.changes, "record", taken_over_after):
        slow.update()
    assert slow.work == []
    assert world.row(batch) == (old, ())
    assert [i.outcome for i in world.changes(mid)[1]] == ["refused"]
    assert takers[0].finish().events == {"completed": 1}
    assert world.owners(batch) == (new, ())


# --- accept


def test_a_run_that_dies_while_it_accepts_leaves_nothing_and_the_messages_are_read_again(
    world: World,
) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    mids = [world.transfer(a, b), world.transfer(b, c)]
    consumed = world.job.inbox.arrivals.consumed(world.platform.input_topic)
    # After the events and their places in the queue, before the offsets.
    with replaced(arrivals, "_set_offsets", boom), pytest.raises(Unavailable):
        world.run().pull()
    assert world.job.open_mids() == []
    assert world.job.parts.events.read(mids) == {}
    assert world.job.inbox.arrivals.consumed(world.platform.input_topic) == consumed

    run = world.run().pull()
    assert (run.pulled.received, run.pulled.claimed) == (2, 2)
    assert run.finish().events == {"completed": 2}
    assert world.owners(batch) == (c, ())


def test_event_rows_without_a_commit_are_known_when_they_come_again(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    world.transfer(a, b)
    world.platform.emit(b"not json")
    dead = len(world.dead_letters())
    commit = world.job.topic.commit

    def dying(spans: Sequence[Span]) -> None:
        if any(s.end > s.start for s in spans):
            boom()
        commit(spans)  # the trial before it, of what is committed anyway

    with replaced(world.job.topic, "commit", dying), pytest.raises(Unavailable):
        world.run().pull()
    run = world.run().pull()
    assert (run.pulled.received, run.pulled.known, run.pulled.rejected) == (0, 1, 0)
    assert run.finish().events == {"completed": 1}
    assert world.owners(batch) == (b, ())
    assert len(world.dead_letters()) == dead + 1
    consumed = world.job.inbox.arrivals.consumed(world.platform.input_topic)
    backlog = world.job.topic.backlog({p: c.next_offset for p, c in consumed.items()})
    assert sum(s.end - s.start for s in backlog) == 0


def test_a_dead_letter_without_its_row_is_sent_again(world: World) -> None:
    at = world.platform.emit(b"not json either")
    dead = len(world.dead_letters())
    with replaced(world.job.parts.arrivals, "store", boom), pytest.raises(Unavailable):
        world.run().pull()
    assert world.run().pull().pulled.rejected == 1
    mid = f"rejected:{at.topic}:{at.partition}:{at.offset}"
    assert world.job.parts.events.rejected([mid])[mid].body == b"not json either"
    copies = [value for _, value in world.dead_letters()[dead:]]
    assert copies == [b"not json either"] * 2


# --- claims


def test_runs_that_claim_at_the_same_time_share_the_queue_and_never_hold_the_same_event(world: World) -> None:
    users = world.users(*(f"u{n}" for n in range(24)))
    events = [world.event(users[n], users[n + 1]) for n in range(0, 24, 2)]
    batches = [world.batch(created_by=e["edata"]["fromUserProfile"]["userId"]) for e in events]
    world.platform.emit_all(events)
    accept(world.job.topic, world.job.inbox, None)
    limited = world.job.settings.model_copy(update={"max_events": 5, "grace_ms": 0})
    parts = replace(world.job.parts, settings=limited)
    without_kafka = world.job.intake._replace(topic=None)

    def take(n: int) -> list[str]:
        return [e.mid for e in collect(parts, Collected(RunRequest(f"racer-{n}"), without_kafka)).claimed]

    with ThreadPoolExecutor(4) as pool:
        taken = [mid for mids in pool.map(take, range(4)) for mid in mids]
    assert sorted(taken) == sorted(e["mid"] for e in events)

    world.expire(*taken)
    assert world.whole_run().events == {"completed": 12}
    assert world.creators(batches) == [e["edata"]["toUserProfile"]["userId"] for e in events]
