"""Undo: what a transfer changed is taken back from its before-images, and nothing else is touched."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from local.platform.world import Batch
from tests.integration.stages.transfer_world import Faults, World, boom, replaced


def _since() -> str:
    return (datetime.now(UTC) - timedelta(hours=1)).isoformat()


def test_a_transfer_is_taken_back_in_both_stores(world: World) -> None:
    a, b, m = world.users("a", "b", "m")
    batches = [*world.batches(9, created_by=a), *world.batches(2, created_by=m, mentors=[a, m, a])]
    theirs = world.batch(created_by=b, mentors=[m])
    before = {x.batch_id: world.owners(x) for x in batches}
    mid = world.transfer(a, b)
    world.whole_run()
    assert world.creators(batches[:9]) == [b] * 9

    run, summary = world.undo(mid)

    new = f"undo:{run.run_id}:0"
    assert run.pulled.notes == {mid: f"is taken back as {new}"}
    assert summary.events == {"completed": 1}
    assert summary.batches == {"moved": 11}
    assert {x.batch_id: world.owners(x) for x in batches} == before
    assert world.owners(theirs) == (b, (m,))
    assert world.job.states([mid, new]) == ["completed", "completed"]
    assert len(world.trail(new)) == 11
    assert world.read(new).requested_by == "tester"


def test_an_undo_is_a_dry_run_at_first_and_its_plan_can_be_executed(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = world.batches(3, created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    world.edit(batches[0], createdby=c)
    world.platform.put_document(batches[0].batch_id, createdBy=c)
    before = world.platform.as_written(batches)

    run, summary = world.undo(mid, dry_run=True)

    (plan,) = summary.plans
    assert world.platform.as_written(batches) == before
    assert run.pulled.notes == {mid: f"is rehearsed as {plan.mid}"}
    assert (plan.batches, plan.conflicts) == (2, 1)
    assert {(line.before, line.after) for line in plan.first} == {(f"created by {b}", f"created by {a}")}
    assert plan.first_conflicts[0].before == f"created by {c}"
    executed = world.whole_run(execute_plan=plan.mid, digest=plan.digest)
    assert executed.events == {"completed": 1}
    assert world.creators(batches) == [c, a, a]


def test_what_somebody_changed_since_is_a_conflict_and_stays(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    owner, mentored, kept, gone, finished = (
        world.batch(created_by=a),
        world.batch(created_by=c, mentors=[a]),
        world.batch(created_by=a),
        world.batch(created_by=a),
        world.batch(created_by=a),
    )
    mid = world.transfer(a, b)
    world.whole_run()
    world.edit(owner, createdby=c)
    world.edit(mentored, mentors=[b, c])
    world.edit(kept, mentors=[c])  # the transfer did not change its mentors
    world.platform.delete_row(gone.course_id, gone.batch_id)
    world.edit(finished, status=2)

    run, summary = world.undo(mid)

    new = f"undo:{run.run_id}:0"
    assert summary.events == {"completed": 1}
    assert world.outcomes(new) == {
        owner.batch_id: "changed_elsewhere",
        mentored.batch_id: "changed_elsewhere",
        kept.batch_id: "moved",
        gone.batch_id: "gone",
        finished.batch_id: "moved",
    }
    assert {(c.course_id, c.batch_id) for c in summary.conflicts} == {
        (x.course_id, x.batch_id) for x in (owner, mentored)
    }
    assert world.owners(owner) == (c, ())
    assert world.owners(mentored) == (c, (b, c))
    assert world.owners(kept) == (a, (c,))
    assert world.owners(finished) == (a, ())
    assert world.row(gone) is None


def test_an_undo_twice_changes_nothing_more(world: World) -> None:
    a, b = world.users("a", "b")
    batches = world.batches(3, created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    world.undo(mid)
    before = world.platform.as_written(batches)

    run, summary = world.undo(mid)

    assert summary.events == {"completed": 1}
    assert set(world.outcomes(f"undo:{run.run_id}:0").values()) == {"already"}
    assert world.platform.as_written(batches) == before


def test_undoing_an_undo_gives_the_transfer_again(world: World) -> None:
    a, b, m = world.users("a", "b", "m")
    batches = [*world.batches(2, created_by=a), world.batch(created_by=m, mentors=[m, a])]
    mid = world.transfer(a, b)
    world.whole_run()
    after = [world.owners(x) for x in batches]
    run, _ = world.undo(mid)

    _, summary = world.undo(f"undo:{run.run_id}:0")

    assert summary.batches == {"moved": 3}
    assert [world.owners(x) for x in batches] == after


def test_of_a_composed_lane_the_last_hop_is_undone_alone(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_b = world.batches(2, created_by=a), world.batches(2, created_by=b)
    world.transfer(a, b)
    second = world.transfer(b, c)
    assert world.whole_run().events == {"completed": 2}
    assert world.creators([*of_a, *of_b]) == [c] * 4

    world.undo(second)

    assert world.creators([*of_a, *of_b]) == [b] * 4


def test_of_a_composed_lane_the_first_hop_alone_is_a_conflict_for_what_went_on(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    first = world.transfer(a, b)
    world.transfer(b, c)
    world.whole_run()

    run, summary = world.undo(first)

    assert summary.events == {"completed": 1}
    assert set(world.outcomes(f"undo:{run.run_id}:0").values()) == {"changed_elsewhere"}
    assert world.owners(batch) == (c, ())


def test_all_hops_of_a_composed_lane_are_undone_in_one_run(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_b = world.batches(2, created_by=a), world.batch(created_by=b, mentors=[a])
    mids = [world.transfer(a, b), world.transfer(b, c)]
    world.whole_run()
    assert world.owners(of_b) == (c, (c,))

    run, summary = world.undo(*mids)

    assert summary.events == {"completed": 2}
    assert world.creators(of_a) == [a, a]
    assert world.owners(of_b) == (b, (a,))
    # Newest first, each with its own share in the audit trail.
    assert [
        r.transfer.key.offset for r in map(world.read, (f"undo:{run.run_id}:1", f"undo:{run.run_id}:0"))
    ] == [0, 1]
    assert run.pulled.notes[mids[1]].endswith(":1")
    assert len(world.trail(f"undo:{run.run_id}:0")) == 3
    assert len(world.trail(f"undo:{run.run_id}:1")) == 3


def test_an_order_that_comes_again_when_one_more_event_is_final_takes_each_back_once(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    of_a, of_c = world.batch(created_by=a), world.batch(created_by=c)
    first = world.transfer(a, b)
    world.whole_run()
    second = world.transfer(c, d)
    other = world.run().pull()
    run, _ = world.undo(first, second)
    assert run.pulled.notes[second].endswith("abandon it first")
    assert run.pulled.refused == {second: run.pulled.notes[second]}
    other.finish()

    again = world.job.run(run.run_id).pull(undo={"mids": [first, second], "dry_run": False})

    assert again.pulled.rejected == 0
    assert again.finish().events == {"completed": 1}
    assert world.creators([of_a, of_c]) == [a, c]


def test_a_swap_is_undone(world: World) -> None:
    a, b = world.users("a", "b")
    of_a, of_b = world.batch(created_by=a), world.batch(created_by=b)
    first, second = world.transfer(a, b), world.transfer(b, a)
    world.job.drain()
    after = world.creators([of_a, of_b])

    world.undo(first, second)
    world.job.drain(patient=False)

    assert after == [a, a]
    assert world.creators([of_a, of_b]) == [a, b]


def test_undos_are_chosen_by_user_and_time_or_by_run(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    to_b, to_c = world.batch(created_by=a), world.batch(created_by=c)
    first = world.transfer(a, b)
    summary = world.run().pull()
    run_id = summary.run_id
    summary.finish()
    second = world.transfer(c, b)
    world.whole_run()

    by_user = world.run().pull(undo={"to_user": b.upper(), "since": _since()})
    assert set(by_user.pulled.notes) == {first, second}
    by_user.finish()
    by_pair = world.run().pull(undo={"from_user": c, "to_user": b, "since": _since()})
    assert set(by_pair.pulled.notes) == {second}
    by_pair.finish()
    of_run = world.run().pull(undo={"run_id": run_id, "dry_run": False})
    assert set(of_run.pulled.notes) == {first}
    of_run.finish()

    assert world.creators([to_b, to_c]) == [a, b]


@pytest.mark.parametrize(
    ("order", "sentence"),
    [
        pytest.param(
            {"run_id": "manual__typo"},
            "found no transfer that run 'manual__typo' was the last to carry out: look at the run's id, or give mids",
            id="run",
        ),
        pytest.param(
            {"to_user": "typo", "since": "2026-01-01T00:00:00", "until": "2026-01-02T00:00:00+05:30"},
            "found no transfer to 'typo' since 2026-01-01T00:00:00+00:00 and before 2026-01-02T00:00:00+05:30, apart "
            "from undos: look at the users and the time, or give mids",
            id="users and time",
        ),
    ],
)
def test_an_undo_of_nothing_fails_its_run(world: World, order: dict[str, Any], sentence: str) -> None:
    run = world.run().pull(undo={**order, "dry_run": False})
    assert run.pulled.claimed == 0
    assert run.settle().failures == {"undo": sentence}


def test_what_cannot_be_undone_is_reported(world: World, userorg: Faults) -> None:
    a, b, c = world.users("a", "b", "c")
    world.batch(created_by=a)
    empty = world.transfer(b, c)
    world.whole_run()
    userorg.set("503", user=a)
    failed = world.transfer(a, b)
    world.run().pull().lookup().settle()

    run = world.run().pull(undo={"mids": [empty, failed, "nobody's"]})

    assert run.pulled.notes == {
        empty: "is completed and changed nothing",
        failed: "is failed: abandon it first",
        "nobody's": "is not in the ledger",
    }
    assert run.pulled.claimed == 0
    userorg.clear()
    world.job.drain(patient=False)


def test_an_abandoned_transfer_that_moved_something_can_be_undone(world: World) -> None:
    a, b = world.users("a", "b")
    batches = world.batches(2, created_by=a)
    mid = world.transfer(a, b)
    world.run().pull().lookup().update()
    world.run().pull(abandon={"mids": [mid], "reason": "half-way"}).finish()

    _, summary = world.undo(mid)

    assert summary.batches == {"moved": 2}
    assert world.creators(batches) == [a, a]


def test_what_a_dead_process_moved_of_an_abandoned_transfer_can_be_undone(world: World) -> None:
    a, b = world.users("a", "b")
    batches = world.batches(2, created_by=a)
    mid = world.transfer(a, b)
    run = world.run().pull().lookup()
    with replaced(world.job.parts.changes, "settle_images", boom):
        run.update()
    assert {i.outcome for i in world.changes(mid)[1]} == {None}
    world.run().pull(abandon={"mids": [mid], "reason": "half-way"}).finish()
    assert {world.row(x) for x in batches} == {(b, ())}  # the documents did not follow

    _, summary = world.undo(mid)

    assert summary.batches == {"moved": 2}
    assert world.creators(batches) == [a, a]


def test_an_undo_waits_for_open_events_of_its_users(world: World, userorg: Faults) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    userorg.set("503", user=c)
    blocker = world.transfer(c, b)
    world.run().pull().lookup().settle()

    run, _ = world.undo(mid)

    new = f"undo:{run.run_id}:0"
    assert run.pulled.waits[new] == f"waits for {blocker}"
    assert world.owners(batch) == (b, ())
    userorg.clear()
    world.job.drain(patient=False)
    assert world.job.states([blocker, new]) == ["completed", "completed"]
    assert world.owners(batch) == (a, ())


def test_an_undo_run_claims_nothing_but_its_own(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    world.batch(created_by=a)
    other = world.batch(created_by=c)
    mid = world.transfer(a, b)
    world.whole_run()
    waiting = world.transfer(c, d)

    _, summary = world.undo(mid)

    assert summary.events == {"completed": 1}
    assert world.state(waiting) == "received"
    world.job.drain()
    assert world.owners(other) == (d, ())


def test_an_undo_gives_back_to_a_user_who_has_left(world: World) -> None:
    (b,) = world.users("b")
    (a,) = world.users("a")
    batch = world.batch(created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    world.platform.add_user(a, "another-organisation")

    _, summary = world.undo(mid)

    assert summary.events == {"completed": 1}
    assert world.owners(batch) == (a, ())


def test_the_second_proof_does_not_take_back_what_an_undo_gave(world: World) -> None:
    a, b = world.users("a", "b")
    batch, own = world.batch(created_by=a), world.batch(created_by=b)
    mid = world.transfer(a, b)
    world.whole_run()
    world.undo(mid)

    run = world.run().pull(window=world.window())

    assert (run.pulled.follow_ups, run.pulled.claimed) == (0, 0)
    assert world.creators([batch, own]) == [a, b]


def test_what_a_follow_up_moved_is_taken_back_with_its_transfer(world: World) -> None:
    a, b, m = world.users("a", "b", "m")
    first = world.batch(created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    late = world.batch(created_by=m, mentors=[a])  # the index showed it after the proof
    assert world.run().pull(window=world.window()).finish().events == {"completed": 1}
    assert world.owners(late) == (m, (b,))

    run, summary = world.undo(mid)

    assert set(run.pulled.notes) == {mid, f"{mid}:follow-up:1"}
    assert summary.events == {"completed": 2}
    assert (world.owners(first), world.owners(late)) == ((a, ()), (m, (a,)))


def test_a_late_transfer_is_not_passed_on_by_an_undo(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    mine, later = world.batch(created_by=a), world.batch(created_by=c)
    mid = world.transfer(a, b)
    world.whole_run()
    world.undo(mid)
    # Announced before the undo, read after it: c's batches go to b, and the undo has no say in them.
    event = world.event(c, b)
    event["ets"] = world.read(mid).transfer.key.t + 1
    world.platform.emit(event)
    world.job.drain()

    assert world.creators([mine, later]) == [a, b]


def test_an_undo_with_elasticsearch_down_is_finished_when_it_is_back(own_world: World, stack: Any) -> None:
    world = own_world
    a, b = world.users("a", "b")
    batches = world.batches(4, created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    run = world.run().pull(undo={"mids": [mid], "dry_run": False}).lookup().update()
    new = f"undo:{run.run_id}:0"
    block = {"index.blocks.write": True}
    index = world.job.settings.course_batch_index
    world.job.client.indices.put_settings(index=index, settings=block)
    try:
        run.reindex()
        assert [type(e).__name__ for e in run.errors] == ["Unavailable"]
        assert run.settle().events == {"failed": 1}
        assert {(world.row(x) or ("",))[0] for x in batches} == {a}
        assert {(world.document(x) or ("",))[0] for x in batches} == {b}
        assert world.state(new) == "failed"
    finally:
        world.job.client.indices.put_settings(index=index, settings={"index.blocks.write": None})

    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.creators(batches) == [a] * 4
    assert world.state(new) == "completed"


@pytest.mark.parametrize("crash", ["pull", "lookup", "update"])
def test_an_undo_that_died_is_completed_by_a_later_run(world: World, crash: str) -> None:
    a, b = world.users("a", "b")
    batches = world.batches(3, created_by=a)
    mid = world.transfer(a, b)
    world.whole_run()
    run = world.run().pull(undo={"mids": [mid], "dry_run": False})
    if crash != "pull":
        run.lookup()
    if crash == "update":
        run.update()
    world.expire(f"undo:{run.run_id}:0")

    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.creators(batches) == [a, a, a]


PEOPLE = 4


@st.composite
def _worlds(draw: st.DrawFn) -> tuple[list[tuple[int, list[int]]], list[tuple[int, int]]]:
    person = st.integers(0, PEOPLE - 1)
    batches = draw(st.lists(st.tuples(person, st.lists(person, max_size=3)), min_size=1, max_size=6))
    transfers = draw(
        st.lists(st.tuples(person, person).filter(lambda t: t[0] != t[1]), min_size=1, max_size=4)
    )
    return batches, transfers


@given(drawn=_worlds(), seed=st.integers(0, 2**16))
@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_for_any_world_transfers_and_their_undo_give_the_world_back(
    world: World, drawn: tuple[list[tuple[int, list[int]]], list[tuple[int, int]]], seed: int
) -> None:
    owned, transfers = drawn
    people = world.users(*(f"p{n}" for n in range(PEOPLE)))
    batches: list[Batch] = []
    for creator, mentors in owned:
        batches += world.batches(created_by=people[creator], mentors=[people[m] for m in mentors])
    before = [world.owners(x) for x in batches]
    mids = [world.transfer(people[f], people[t]) for f, t in transfers]
    world.job.drain(runs=20)
    assert set(world.job.states(mids)) == {"completed"}

    random.Random(seed).shuffle(mids)
    run = world.run().pull(undo={"mids": mids, "dry_run": False})
    run.finish()
    world.job.drain(runs=20, patient=False)

    assert [world.owners(x) for x in batches] == before
    undos = [drawn.split()[-1] for drawn in run.pulled.notes.values() if "taken back" in drawn]
    assert set(world.job.states(undos)) <= {"completed"}
    assert world.job.open_mids() == []
