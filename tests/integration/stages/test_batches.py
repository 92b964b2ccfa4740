"""Which fields of which batches a transfer moves, in both stores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from local.platform.world import COMPLETED, UPCOMING, Owned
from tests.integration.stages.transfer_world import World


def test_an_owner_of_a_hundred_batches_who_mentors_forty_loses_all_of_them(world: World) -> None:
    old, new, other = world.users("old", "new", "other")
    owned = world.batches(100, created_by=old)
    mentored = world.batches(40, created_by=other, mentors=("first", old, "last"))
    mid = world.transfer(old, new)

    summary = world.whole_run()

    assert summary.events == {"completed": 1}
    assert world.read(mid).counts["moved"] == 140
    assert world.creators(owned) == [new] * 100
    assert {world.owners(b) for b in mentored} == {(other, ("first", new, "last"))}
    assert world.platform.owned(old) == Owned()
    assert world.platform.owned(new) == Owned(100, 40, 100, 40)


def test_mentors_keep_their_order_and_nobody_is_there_twice(world: World) -> None:
    old, new = world.users("old", "new")
    lists = {  # before, after
        (old, "x", old): (new, "x"),
        ("x", old, "y", new): ("x", new, "y"),
        (new, "x", old, "y"): (new, "x", "y"),
        (old,): (new,),
        ("y", "y", old): ("y", new),
    }
    batches = [world.batch(created_by="somebody", mentors=before) for before in lists]
    world.transfer(old, new)
    world.whole_run()
    assert [world.owners(b) for b in batches] == [("somebody", after) for after in lists.values()]


def test_mentors_of_a_batch_that_only_changes_its_creator_are_left_as_they_are(world: World) -> None:
    old, new = world.users("old", "new")
    repeated = world.batch(created_by=old, mentors=("x", "y", "x"))
    null = world.batch(created_by=old, mentors=None)
    nobodys = world.batch(created_by=None, mentors=("x", old))
    world.transfer(old, new)
    world.whole_run()
    assert world.owners(nobodys) == (None, ("x", new))
    assert world.owners(repeated) == (new, ("x", "y", "x"))
    assert world.owners(null) == (new, ())
    row = world.platform.row(null.course_id, null.batch_id)
    assert row is not None
    assert row["mentors"] is None


def test_upcoming_batches_move_and_completed_ones_do_not(world: World) -> None:
    old, new = world.users("old", "new")
    upcoming = world.batch(created_by=old, status=UPCOMING)
    completed = world.batch(created_by=old, mentors=(old,), status=COMPLETED)
    before = world.platform.row(completed.course_id, completed.batch_id)
    mid = world.transfer(old, new)
    world.whole_run()
    assert world.owners(upcoming) == (new, ())
    assert world.platform.row(completed.course_id, completed.batch_id) == before
    assert world.platform.document(completed.batch_id) == completed.document()
    assert world.outcomes(mid) == {upcoming.batch_id: "moved"}


def test_a_batch_that_only_the_index_still_calls_live_is_not_touched(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, status=COMPLETED)
    world.platform.put_document(batch.batch_id, status=1)
    mid = world.transfer(old, new)
    world.whole_run()
    assert world.owners(batch) == (old, ())
    assert world.state(mid) == "completed"
    assert world.read(mid).counts == {"not_live": 1}


def test_the_id_inside_name_and_description_and_every_other_field_stay(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(
        created_by=old,
        mentors=(old, "x"),
        name=f"Course of {old}",
        description=f"Ask {old}, or mail {old}@example.org",
        created_for=(old, "org"),
        cert_templates={"t": {"issuer": old}},
    )
    row = world.platform.row(batch.course_id, batch.batch_id)
    document = world.platform.document(batch.batch_id)
    assert row is not None
    assert document is not None
    world.transfer(old, new)
    world.whole_run()
    moved = world.platform.row(batch.course_id, batch.batch_id)
    assert moved == {**row, "createdby": new, "mentors": [new, "x"]}
    assert world.platform.document(batch.batch_id) == {**document, "createdBy": new, "mentors": [new, "x"]}


def test_batches_of_other_people_are_not_touched(world: World) -> None:
    old, new, other = world.users("old", "new", "other")
    world.batches(3, created_by=old)
    theirs = world.batches(3, created_by=other, mentors=(f"{old}-junior", new))
    world.transfer(old, new)
    world.whole_run()
    assert {world.owners(b) for b in theirs} == {(other, (f"{old}-junior", new))}


def test_a_user_without_batches_completes_with_nothing_moved(world: World) -> None:
    old, new = world.users("old", "new")
    mid = world.transfer(old, new)
    assert world.whole_run().events == {"completed": 1}
    assert world.read(mid).counts == {}


@pytest.mark.parametrize("event_spells", [str, str.upper, str.lower])
@pytest.mark.parametrize("row_spells", [str, str.upper, str.lower])
def test_ids_that_differ_in_case_only_are_one_user(
    world: World, event_spells: Callable[[str], str], row_spells: Callable[[str], str]
) -> None:
    old, new = world.users("Old", "New")
    there = row_spells(old)
    batch = world.batch(created_by=there, mentors=("X", there, "y"))
    mid = world.transfer(event_spells(old), new)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ("X", new, "y"))
    assert world.outcomes(mid) == {batch.batch_id: "moved"}


def test_the_new_user_is_written_as_the_event_spells_it_and_stays_as_it_is_where_it_was(world: World) -> None:
    old, new = world.users("Old", "New")
    moved, there = world.batch(created_by=old), world.batch(created_by=new, mentors=("x",))
    world.transfer(old, new.upper())
    world.whole_run()
    assert world.owners(moved) == (new.upper(), ())
    assert world.owners(there) == (new, ("x",))


@pytest.mark.parametrize("order", [1, -1])
def test_a_new_user_who_is_a_mentor_in_another_case_is_there_once(world: World, order: int) -> None:
    old, new = world.users("Old", "New")
    batch = world.batch(created_by="somebody", mentors=("x", *(new.upper(), old)[::order]))
    world.transfer(old, new)
    world.whole_run()
    creator, mentors = world.owners(batch) or (None, ())
    assert (creator, [m.lower() for m in mentors]) == ("somebody", ["x", new.lower()])


def test_users_whose_ids_need_escaping_are_moved(world: World) -> None:
    old, new = world.users("o'ld/ü ? #%2F", 'n"ew\\$1 {}')
    batch = world.batch(created_by=old, mentors=("x", old))
    mid = world.transfer(old, new)
    world.whole_run()
    assert world.state(mid) == "completed"
    assert world.owners(batch) == (new, ("x", new))


def test_twenty_events_of_one_request_are_one_move_and_twenty_completed_events(world: World) -> None:
    old, new = world.users("old", "new")
    batches = world.batches(3, created_by=old)
    events = [
        world.event(old, new, request_id="one", asset={"identifier": f"do_{n}", "objectType": "Content"})
        for n in range(20)
    ]
    world.platform.emit_all(events)

    summary = world.whole_run()

    mids = [e["mid"] for e in events]
    assert summary.events == {"completed": 20}
    assert world.job.states(mids) == ["completed"] * 20
    assert world.creators(batches) == [new] * 3
    assert [sum(map(len, world.trail(m).values())) for m in mids] == [3] + [0] * 19
    assert summary.batches == {"moved": 3}


def test_a_hundred_and_ten_events_of_one_pair_are_committed_together(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    events = [world.event(old, new) for _ in range(110)]
    world.platform.emit_all(events)
    assert world.whole_run().events == {"completed": 110}
    assert world.owners(batch) == (new, ())
