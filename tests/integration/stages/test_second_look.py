"""The hourly run looks again: at completed events, at its window's messages; and events that are started by hand."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from ownership.domain.clock import now_ms
from ownership.stages.intake import Window
from tests.integration.stages.transfer_world import World, boom, replaced


def around(world: World, mid: str) -> Window:
    """A window that holds an event's message."""
    at = world.read(mid).kafka_ms
    return Window(at - 1000, at + 1000)


# --- the second proof


def test_a_document_that_was_written_late_from_an_older_row_is_mended(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, mentors=("x", old))
    mid = world.transfer(old, new)
    world.whole_run()
    assert world.read(mid).reproved_at is None
    world.platform.put_document(batch.batch_id, createdBy=old, mentors=["x", old])

    run = world.run().pull(window=around(world, mid))

    assert (run.pulled.follow_ups, run.pulled.claimed) == (0, 0)
    assert world.owners(batch) == (new, ("x", new))
    assert world.read(mid).reproved_at is not None


@pytest.mark.parametrize("approval_hours", [168, 1])
def test_what_completed_days_after_its_message_is_proven_by_the_next_hourly_run(
    world: World, approval_hours: int
) -> None:
    """As a transfer that waited for its approval, or for a service that was away for days."""
    settings = world.job.parts.settings.model_copy(update={"approval_hours": approval_hours})

    def run_hourly() -> None:
        with replaced(world.job, "parts", replace(world.job.parts, settings=settings)):
            world.run().pull(window=Window(now_ms() - 1000, now_ms()))

    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    world.whole_run()
    older = "UPDATE event SET kafka_ms = kafka_ms - 3 * 86400000 WHERE mid = :mid RETURNING id"
    assert len(world.execute(older, mid=mid)) == 1
    world.platform.put_document(batch.batch_id, createdBy=old)

    run_hourly()

    assert world.owners(batch) == (new, ())
    proven = world.read(mid).reproved_at
    assert proven is not None
    run_hourly()
    assert world.read(mid).reproved_at == proven, "once is enough"


def test_a_document_that_lost_its_batch_is_created_again_by_the_second_proof(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    world.whole_run()
    world.platform.delete_document(batch.batch_id)
    world.run().pull(window=around(world, mid))
    assert world.owners(batch) == (new, ())


@pytest.mark.parametrize("spelling", [str, str.upper])
def test_a_batch_that_appears_late_becomes_a_follow_up_which_completes(
    world: World, spelling: Callable[[str], str]
) -> None:
    old, new, other = world.users("old", "new", "other")
    world.batch(created_by=old)
    mid = world.transfer(old, new)
    world.whole_run()
    late = world.batch(created_by=other, mentors=("x", spelling(old)))

    run = world.run().pull(window=around(world, mid))
    assert (run.pulled.follow_ups, run.pulled.claimed) == (1, 1)
    assert run.finish().events == {"completed": 1}

    follow_up = world.read(f"{mid}:follow-up:1")
    assert (follow_up.state, follow_up.origin, follow_up.counts["moved"]) == ("completed", "follow-up", 1)
    assert world.owners(late) == (other, ("x", new))
    # A look at the same window again finds nothing more.
    again = world.run().pull(window=around(world, mid))
    assert (again.pulled.follow_ups, again.pulled.claimed) == (0, 0)


def test_a_follow_up_is_carried_out_although_the_old_user_is_deleted_by_now(world: World) -> None:
    old, new = world.users("old", "new")
    mid = world.transfer(old, new)
    world.whole_run()
    late = world.batch(created_by=old)
    world.platform.search.delete(index="user", id=old.lower(), refresh=True)
    assert world.run().pull(window=around(world, mid)).finish().events == {"completed": 1}
    assert world.owners(late) == (new, ())


def test_a_follow_up_of_a_chain_goes_on_to_where_the_chain_ended(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    first = world.transfer(a, b)
    world.whole_run()
    second = world.transfer(b, c)
    world.whole_run()
    late = world.batch(created_by=a)
    window = Window(world.read(first).kafka_ms, world.read(second).kafka_ms + 1)
    run = world.run().pull(window=window)
    assert run.pulled.follow_ups == 1
    assert run.finish().events == {"completed": 1}
    assert world.owners(late) == (c, ())


@pytest.mark.parametrize("copied", ["before both", "between"])
def test_rows_restored_from_an_older_copy_end_where_their_transfers_had_brought_them(
    world: World, copied: str
) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = world.batches(3, created_by=a, mentors=("x", a))
    first = world.transfer(a, b)
    world.whole_run()
    second = world.transfer(b, c)
    world.whole_run()
    held_by = a if copied == "before both" else b
    copies = [replace(batch, created_by=held_by, mentors=("x", held_by)) for batch in batches]
    world.platform.add_batches(copies, documents=False)

    window = Window(world.read(first).kafka_ms, world.read(second).kafka_ms + 1)
    run = world.run().pull(window=window)

    assert run.pulled.follow_ups == 1
    assert run.finish().events == {"completed": 1}
    assert {world.owners(batch) for batch in batches} == {(c, ("x", c))}


@pytest.mark.parametrize("end", ["rehearsed", "skipped"])
def test_an_open_event_that_will_give_the_old_user_nothing_hides_nothing_from_the_second_proof(
    world: World, end: str
) -> None:
    a, b, c = world.users("a", "b", "c")
    (stranger,) = world.users("d", organisation="another")
    batch = world.batch(created_by=a)
    first = world.transfer(a, b)
    world.whole_run()
    if end == "rehearsed":
        open_ = world.run().pull(form=world.form(c, a, dry_run=True))
    else:
        world.transfer(stranger, a)
        open_ = world.run().pull()
    world.platform.add_batches([batch])  # from an older copy

    run = world.run().pull(window=around(world, first))

    assert run.pulled.follow_ups == 1
    assert run.finish().events == {"completed": 1}
    assert open_.finish().events == {end: 1}
    assert world.owners(batch) == (b, ())


def test_a_follow_up_beside_a_transfer_to_the_old_user_leaves_what_that_gives(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=c)
    first = world.transfer(a, b)
    world.whole_run()
    world.transfer(c, a)
    at_work = world.run().pull().lookup().update()
    world.platform.put_document(batch.batch_id, createdBy=a)  # as the LMS does

    run = world.run().pull(window=around(world, first))

    assert (run.pulled.follow_ups, run.pulled.claimed) == (1, 0)
    at_work.reindex().settle()
    assert world.whole_run().events == {"completed": 1}
    assert world.read(f"{first}:follow-up:1").counts.get("moved", 0) == 0
    assert world.owners(batch) == (a, ())


@pytest.mark.parametrize("spelling", [str, str.upper])
def test_batches_of_a_user_who_received_again_later_are_not_taken_by_the_second_proof(
    world: World, spelling: Callable[[str], str]
) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    first = world.transfer(a, b)
    world.whole_run()
    second = world.transfer(spelling(b), spelling(a))
    world.whole_run()
    assert world.owners(batch) == (spelling(a), ())
    window = Window(world.read(first).kafka_ms, world.read(second).kafka_ms + 1)
    assert world.run().pull(window=window).pulled.follow_ups == 0
    assert world.owners(batch) == (spelling(a), ())


def test_documents_follow_what_an_abandoned_transfer_has_moved(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    world.run().pull().lookup().update()
    world.run().pull(abandon={"mids": [mid], "reason": "half-way"}).finish()
    world.run().pull(window=Window(now_ms() - 1000, now_ms()))
    assert world.owners(batch) == (new, ())


def test_what_a_dead_process_changed_of_an_abandoned_transfer_gets_its_outcome(world: World) -> None:
    old, new = world.users("old", "new")
    moved, stays = world.batch(created_by=old), world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    with replaced(world.job.parts.changes, "settle_images", boom):
        run.update()
    world.platform.update_row(
        stays.course_id, stays.batch_id, createdby=old
    )  # as if it had died before this one
    world.run().pull(abandon={"mids": [mid], "reason": "half-way"}).finish()
    world.run().pull(window=Window(now_ms() - 1000, now_ms()))
    outcomes = {i.id.batch_id: i.outcome for i in world.changes(mid)[1]}
    assert outcomes == {moved.batch_id: "applied", stays.batch_id: "superseded"}
    assert (world.owners(moved), world.owners(stays)) == ((new, ()), (old, ()))


def test_what_an_abandoned_transfer_gave_back_is_not_taken_by_the_second_proof(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    first = world.transfer(a, b)
    world.whole_run()
    second = world.transfer(b, a)
    world.run().pull().lookup().update()
    world.run().pull(abandon={"mids": [second], "reason": "half-way"}).finish()
    assert world.run().pull(window=around(world, first)).pulled.follow_ups == 0
    assert world.owners(batch) == (a, ())


def test_the_second_proof_lets_completed_batches_and_orphaned_documents_be(world: World) -> None:
    old, new = world.users("old", "new")
    mid = world.transfer(old, new)
    world.whole_run()
    completed = world.batch(created_by=old, status=2)
    world.platform.put_document(completed.batch_id, status=1)
    (orphan,) = world.batches(rows=False, created_by=old)
    assert world.run().pull(window=around(world, mid)).pulled.follow_ups == 0
    assert world.owners(completed) == (old, ())
    assert world.document(orphan) == (old, ())
    assert world.row(orphan) is None


# --- a window


def truncate(world: World) -> None:
    """The ledger loses everything but how far it has the topic."""
    world.execute("TRUNCATE event, payload, event_run, queue, plan, change, rejected_message")


def test_a_window_finds_the_messages_that_the_ledger_lost(own_world: World) -> None:
    world = own_world
    a, b, c, d = world.users("a", "b", "c", "d")
    outside = world.event(c, d)
    before = world.platform.emit(outside, timestamp=outside["ets"] - 7_200_000)
    batch, other = world.batch(created_by=a), world.batch(created_by=c)
    mid = world.transfer(a, b)
    bad = world.platform.emit(b"not json")
    world.run().pull()  # accepted and committed, then all is lost
    window = around(world, mid)
    truncate(world)
    assert world.run().pull().pulled.claimed == 0
    assert before.topic == bad.topic

    run = world.run().pull(window=window)

    assert (run.pulled.received, run.pulled.rejected, run.pulled.claimed) == (1, 1, 1)
    assert run.finish().events == {"completed": 1}
    assert world.owners(batch) == (b, ())
    assert world.owners(other) == (c, ())
    assert world.rejected(f"rejected:{bad.topic}:{bad.partition}:{bad.offset}").body == b"not json"
    again = world.run().pull(window=window)
    assert (again.pulled.received, again.pulled.known, again.pulled.claimed) == (0, 1, 0)


def test_a_transfer_done_before_the_ledger_was_lost_is_done_again_without_a_change(own_world: World) -> None:
    world = own_world
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    window = around(world, mid)
    row = world.platform.row(batch.course_id, batch.batch_id)
    truncate(world)
    assert world.run().pull(window=window).finish().events == {"completed": 1}
    assert world.platform.row(batch.course_id, batch.batch_id) == row
    assert world.trail(mid) == {}


def test_an_hour_with_nothing_in_it_ends_with_nothing_to_do(world: World) -> None:
    quiet = Window(0, 3_600_000)
    run = world.run().pull(window=quiet)
    assert (run.pulled.received, run.pulled.known, run.pulled.claimed, run.pulled.slices) == (0, 0, 0, ())


# --- by hand


def test_an_event_started_by_hand_is_queued_and_carried_out(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event = world.event(old, new)
    run = world.run().pull(events=[event])
    assert (run.pulled.received, run.pulled.claimed) == (1, 1)
    assert run.finish().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert world.read(event["mid"]).origin == "manual"


def test_an_event_started_by_hand_waits_for_an_earlier_open_one_and_the_run_says_which(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    first = world.transfer(a, b)
    one = world.run().pull()
    event = world.event(b, c)
    two = world.run().pull(events=[event], patient=False, timeout=0)
    assert two.pulled.claimed == 0
    assert two.pulled.waits == {event["mid"]: f"waits for {first}", first: f"is held by run {one.run_id}"}
    one.finish()
    two.settle()
    world.expire(event["mid"])
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (c, ())


def test_a_chain_started_by_hand_takes_effect_in_its_order(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b)]
    run = world.run().pull(events=[world.event(a, b), world.event(b, c)])
    assert run.finish().events == {"completed": 2}
    assert world.creators(batches) == [c, c]


def test_the_same_event_by_hand_and_from_the_topic_is_one_transfer(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    event: dict[str, Any] = world.event(old, new)
    world.platform.emit(event)
    run = world.run().pull(events=[event])
    assert (run.pulled.received, run.pulled.known, run.pulled.claimed) == (1, 1, 1)
    assert run.finish().events == {"completed": 1}
    assert world.owners(batch) == (new, ())


def test_an_event_by_hand_whose_mid_is_taken_is_rejected_each_time(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    for target in (c, d):
        event = world.event(a, target, mid=mid)
        run = world.run().pull(events=[event])
        assert (run.pulled.received, run.pulled.rejected, run.pulled.claimed) == (0, 1, 0)
        why = f"was rejected: mid {mid!r} was received before with another payload"
        assert run.pulled.refused == {mid: f"{why}: start a new run, and give another mid, or none"}
        # Its next try finds it in the ledger, and must not pass it over.
        again = world.job.run(run.run_id).pull(events=[event])
        assert (again.pulled.rejected, again.pulled.refused) == (0, run.pulled.refused)
        assert again.settle().failures == run.pulled.refused
    assert world.owners(batch) == (b, ())


def test_a_window_finds_its_message_behind_newer_ones(own_world: World) -> None:
    """Producers set the timestamps: the messages of an hour do not lie together."""
    world = own_world
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    world.platform.emit(world.event(b, c), partition=0)
    two_hours_ago = int(time.time() * 1000) - 2 * 3_600_000
    old = world.event(a, b, ets=two_hours_ago)
    world.platform.emit(old, partition=0, timestamp=two_hours_ago)
    world.job.drain()
    world.lose(old["mid"])

    run = world.run().pull(window=Window(two_hours_ago - 1000, two_hours_ago + 1000))

    assert (run.pulled.received, run.pulled.claimed) == (1, 1)
    assert run.finish().events == {"completed": 1}
    owners = world.owners(batch)
    assert owners is not None
    assert owners[0] in (b, c)
