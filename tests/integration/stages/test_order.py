"""Transfers that share users end as if each had run alone, in the order of their events."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from ownership.domain.clock import now_ms
from ownership.domain.contracts import Phase, Work
from tests.integration.stages.transfer_world import Faults, World


def moves_of(work: Sequence[object]) -> list[dict[str, str]]:
    """The maps of the phases that a lookup chose."""
    phases: list[Phase] = [p for w in work if isinstance(w, Work) for p in w.phases]
    return [p.moves for p in phases]


# --- in one run


def test_a_chain_in_one_run_ends_at_its_last_user(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_b, of_c = (world.batches(2, created_by=u, mentors=(u, "x")) for u in (a, b, c))
    mids = [world.transfer(a, b), world.transfer(b, c)]
    assert world.whole_run().events == {"completed": 2}
    assert world.job.states(mids) == ["completed", "completed"]
    assert {world.owners(x) for x in (*of_a, *of_b, *of_c)} == {(c, (c, "x"))}


def test_a_swap_in_one_run_gives_everything_to_the_one_who_received_last(world: World) -> None:
    a, b = world.users("a", "b")
    of_a, of_b = world.batches(2, created_by=a), world.batches(2, created_by=b, mentors=(a, b))
    world.transfer(a, b)
    world.transfer(b, a)
    assert world.whole_run().events == {"completed": 2}
    assert world.creators([*of_a, *of_b]) == [a] * 4
    assert {world.owners(x) for x in of_b} == {(a, (a,))}


def test_a_circle_of_three_gives_everything_to_the_one_where_it_began(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b, c)]
    for pair in ((a, b), (b, c), (c, a)):
        world.transfer(*pair)
    assert world.whole_run().events == {"completed": 3}
    assert world.creators(batches) == [a, a, a]


def test_a_transfer_to_a_user_who_gave_before_keeps_what_arrives(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_b, of_c = (world.batch(created_by=u) for u in (a, b, c))
    first, second = world.transfer(c, b), world.transfer(a, c)

    run = world.run().pull().lookup()
    assert moves_of(run.work) == [{c: b, b: b}]
    assert world.read(second).waits_for == first
    run.update()
    assert [world.row(x) for x in (of_a, of_c)] == [(a, ()), (b, ())]
    assert run.reindex().settle().events == {"completed": 2}
    assert world.creators([of_a, of_b, of_c]) == [c, b, b]


def test_an_event_that_waited_in_an_earlier_run_fails_with_a_run_whose_stage_died(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a = world.batch(created_by=a)
    first, second = world.transfer(c, b), world.transfer(a, c)
    run = world.run().pull().lookup()
    assert world.read(second).waits_for == first
    run.settle()
    world.make_due(first)

    died = world.run().pull().settle()

    assert died.events == {"failed": 2}
    assert "without a result" in died.failures[second]
    assert world.read(second).waits_for is None
    world.job.drain(patient=False)
    assert world.creators([of_a]) == [c]


def test_a_long_chain_in_one_run_ends_at_its_last_user(world: World) -> None:
    users = world.users(*"abcdefgh")
    batches = [world.batch(created_by=u) for u in users]
    for pair in pairwise(users):
        world.transfer(*pair)
    assert world.whole_run().events == {"completed": 7}
    assert world.creators(batches) == [users[-1]] * 8


def test_the_order_is_the_producers_not_that_of_the_partitions(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b, c)]
    first, second = world.event(a, b), world.event(b, c)
    # The later one is pushed first.
    world.platform.emit(second, partition=1)
    world.platform.emit(first, partition=0)
    world.whole_run()
    assert world.creators(batches) == [c, c, c]


def test_pairs_without_a_common_user_are_lanes_of_their_own(world: World) -> None:
    users = world.users(*"abcdef")
    pairs = [(users[n], users[n + 1]) for n in (0, 2, 4)]
    batches = [world.batch(created_by=a) for a, _ in pairs]
    for pair in pairs:
        world.transfer(*pair)
    run = world.run().pull()
    assert [len(s.events) for s in run.pulled.slices] == [1, 1, 1]
    assert run.finish().events == {"completed": 3}
    assert world.creators(batches) == [b for _, b in pairs]


def test_a_batch_of_two_lanes_gets_both_changes(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    batch = world.batch(created_by=a, mentors=(c, a))
    first, second = world.transfer(a, b), world.transfer(c, d)
    assert world.whole_run().events == {"completed": 2}
    assert world.owners(batch) == (b, (d, b))
    assert world.read(first).counts["moved"] == 1
    assert world.read(second).counts["moved"] == 1


# --- across runs


@pytest.mark.parametrize("stages", [0, 1, 2, 3])
def test_a_chain_whose_second_part_arrives_in_another_run_while_the_first_is_running(
    world: World, stages: int
) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b, c)]
    world.transfer(a, b)
    one = world.run().pull()
    for stage in (one.lookup, one.update, one.reindex)[:stages]:
        stage()
    late = world.transfer(b, c)

    two = world.run().pull()

    if stages < 3:  # the first is still open: it blocks its users
        assert two.pulled.claimed == 0
        assert late in two.pulled.waits
        for stage in (one.lookup, one.update, one.reindex)[stages:]:
            stage()
        assert one.settle().events == {"completed": 1}
        two = world.run().pull()
    assert two.finish().events == {"completed": 1}
    one.settle()
    assert world.creators(batches) == [c, c, c]


def test_a_swap_across_two_runs(world: World) -> None:
    a, b = world.users("a", "b")
    batches = [world.batch(created_by=u) for u in (a, b)]
    world.transfer(a, b)
    world.whole_run()
    assert world.creators(batches) == [b, b]
    world.transfer(b, a)
    world.whole_run()
    assert world.creators(batches) == [a, a]


def test_a_circle_across_two_runs(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b, c)]
    world.transfer(a, b)
    world.whole_run()
    world.transfer(b, c)
    world.transfer(c, a)
    world.whole_run()
    assert world.creators(batches) == [a, a, a]


def test_a_transfer_arrives_for_a_user_whose_own_is_running(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_c = world.batch(created_by=a), world.batch(created_by=c)
    world.transfer(c, b)
    one = world.run().pull().lookup()
    world.transfer(a, c)
    assert world.run().pull().pulled.claimed == 0
    one.update().reindex()
    assert one.settle().events == {"completed": 1}
    assert world.whole_run().events == {"completed": 1}
    assert world.creators([of_a, of_c]) == [c, b]


def test_an_earlier_event_that_fails_holds_back_the_later_one_of_the_same_user(
    world: World, userorg: Faults
) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b, c)]
    first = world.transfer(a, b)
    userorg.set("503", user=a)
    run = world.run().pull().lookup()
    assert len(run.errors) == 1
    assert run.settle().events == {"failed": 1}
    second = world.transfer(b, c)

    # The run of a person, which tries failed events at once, and one of the watcher, which waits for their time.
    assert world.whole_run(patient=True).events == {}
    assert world.run().pull(patient=False).lookup(last_try=True).settle().events == {
        "failed": 1,
        "waiting": 1,
    }
    assert world.job.states([first, second]) == ["failed", "received"]
    assert world.creators(batches) == [a, b, c]

    userorg.clear()
    world.job.drain(patient=False)
    assert world.job.states([first, second]) == ["completed", "completed"]
    assert world.creators(batches) == [c, c, c]


def test_a_failing_event_holds_back_only_its_own_users(world: World, userorg: Faults) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    of_a, of_c = world.batch(created_by=a), world.batch(created_by=c)
    userorg.set("503", user=a)
    failing, healthy = world.transfer(a, b), world.transfer(c, d)
    assert world.whole_run().events == {"completed": 1, "failed": 1}
    assert world.job.states([failing, healthy]) == ["failed", "completed"]
    assert world.creators([of_a, of_c]) == [a, d]
    userorg.clear()
    world.job.drain(patient=False)
    assert world.creators([of_a, of_c]) == [b, d]


def test_a_worker_whose_clock_is_behind_keeps_the_order(
    own_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = own_world
    a, b, c = world.users("a", "b", "c")
    of_a = world.batch(created_by=a)
    first = world.transfer(a, b)
    run = world.run().pull()
    second = world.transfer(b, c)
    with monkeypatch.context() as behind:
        for module in ("domain.clock", "stages.pull", "ledger.arrivals", "ledger.queue"):
            behind.setattr(f"ownership.{module}.now_ms", lambda: now_ms() - 10_000)
        other = world.run().pull(timeout=1)

    assert (run.pulled.claimed, other.pulled.claimed) == (1, 0)
    assert world.read(first).transfer < world.read(second).transfer
    assert (
        world.queued(second).accepted_ms == world.read(second).kafka_ms
    )  # its grace begins when it was sent
    run.finish()
    world.job.drain(patient=False)
    assert world.creators([of_a]) == [c]


# --- events that come late


@pytest.mark.parametrize("spelling", [str, str.upper])
def test_an_event_older_than_a_completed_one_is_late_and_moves_what_its_user_holds_now(
    world: World, spelling: Callable[[str], str]
) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_b = world.batch(created_by=a), world.batch(created_by=b)
    older = world.event(a, b)
    second = world.transfer(spelling(b), c)
    world.whole_run()
    assert world.creators([of_a, of_b]) == [a, c]

    world.platform.emit(older)
    assert world.whole_run().events == {"completed": 1}

    # In order, A's would have gone on to C with B's.
    assert world.creators([of_a, of_b]) == [c, c]
    assert world.read(older["mid"]).late
    assert not world.read(second).late


def test_an_event_that_comes_late_waits_for_the_run_that_has_begun_a_later_one(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_b = world.batch(created_by=a), world.batch(created_by=b)
    older = world.event(a, b)
    second = world.transfer(b, c)
    run = world.run().pull().lookup()
    world.platform.emit(older)
    assert world.run().pull().pulled.claimed == 0
    run.update()
    assert world.run().pull().pulled.claimed == 0
    assert run.reindex().settle().events == {"completed": 1}

    assert world.whole_run().events == {"completed": 1}
    assert world.creators([of_a, of_b]) == [c, c]
    assert (world.read(older["mid"]).late, world.read(second).late) == (True, False)


def test_what_a_dead_run_has_begun_goes_before_an_event_that_came_late(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_b = world.batch(created_by=a), world.batch(created_by=b)
    older = world.event(b, c)
    begun = world.transfer(a, b)
    world.run().pull().lookup().update()
    world.platform.emit(older)
    world.expire(begun)
    assert world.whole_run().events == {"completed": 1}
    assert world.job.states([older["mid"], begun]) == ["received", "completed"]

    assert world.whole_run().events == {"completed": 1}
    assert world.creators([of_a, of_b]) == [b, c]


def test_a_run_leaves_what_it_has_not_begun_to_the_event_that_came_late_and_is_claimed(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a, of_b = world.batch(created_by=a), world.batch(created_by=b)
    older = world.event(a, b)
    second = world.transfer(b, c)
    run = world.run().pull()
    world.platform.emit(older)
    other = world.run().pull()
    assert other.pulled.claimed == 1
    assert run.lookup().update().reindex().settle().events == {"waiting": 1}
    assert world.read(second).reason == f"waits for {older['mid']}, which goes first"

    assert other.finish().events == {"completed": 1}
    assert world.whole_run().events == {"completed": 1}
    assert world.creators([of_a, of_b]) == [c, c]
    assert not world.read(older["mid"]).late


@pytest.mark.parametrize("late_first", [True, False])
def test_a_late_event_and_what_its_batches_are_passed_on_to_go_one_after_the_other(
    world: World, *, late_first: bool
) -> None:
    """B->C has ended when A->B comes late: A's batches go to C. C->D, which comes last, moves them on."""
    a, b, c, d = world.users("a", "b", "c", "d")
    of_a, of_c = world.batch(created_by=a), world.batch(created_by=c)
    older = world.event(a, b)
    world.transfer(b, c)
    world.whole_run()
    world.platform.emit(older)
    late = world.run().pull()
    last = world.transfer(c, d)
    on_time = world.run().pull()
    assert (late.pulled.claimed, on_time.pulled.claimed) == (1, 1)
    first, second = (late, on_time) if late_first else (on_time, late)
    goes_first, waits = (older["mid"], last) if late_first else (last, older["mid"])

    first.lookup().update()
    assert second.lookup().update().reindex().settle().events == {"waiting": 1}
    assert world.read(waits).reason == f"waits for {goes_first}, which goes first"
    assert world.run().pull().pulled.claimed == 0
    assert first.reindex().settle().events == {"completed": 1}
    assert world.whole_run().events == {"completed": 1}

    assert world.creators([of_a, of_c]) == [d, d]
    assert world.read(older["mid"]).late


def test_a_phase_that_has_lost_an_event_to_another_try_of_its_run_is_not_begun(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    first, second = world.transfer(a, b), world.transfer(a, c)
    run = world.run().pull()
    (slice_,) = run.pulled.slices
    parts = world.job.parts
    parts.queue.take_over(first, run_id=run.run_id)

    parts.queue.begin([slice_.events], run_id=run.run_id, passes_to={})

    assert [world.queued(m).begun for m in (first, second)] == [False, False]
    parts.queue.release_all(run.run_id)
    assert world.whole_run().events == {"completed": 2}
    assert not world.read(first).late
    assert world.creators([batch]) == [b]


@pytest.mark.parametrize("undone", [1, 2])
def test_a_late_event_does_not_follow_a_later_one_that_was_taken_back(world: World, undone: int) -> None:
    """Where the undo was taken back as well, it does."""
    a, b, c = world.users("a", "b", "c")
    of_a, of_b = world.batch(created_by=a), world.batch(created_by=b)
    older = world.event(a, b)
    last = world.transfer(b, c)
    world.whole_run()
    for _ in range(undone):
        last = f"undo:{world.undo(last)[0].run_id}:0"
    world.platform.emit(older)
    assert world.whole_run().events == {"completed": 1}
    assert world.creators([of_a, of_b]) == ([b, b] if undone == 1 else [c, c])


def test_a_late_event_leaves_what_the_later_user_got_since(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    of_a = world.batch(created_by=a)
    older = world.event(a, b)
    world.transfer(b, c)
    world.whole_run()
    since = world.batch(created_by=b)
    world.platform.emit(older)
    world.whole_run()
    assert world.creators([of_a, since]) == [c, b]


@pytest.mark.parametrize("spelling", [str, str.upper])
def test_a_late_event_does_not_take_back_what_a_later_one_gave(
    world: World, spelling: Callable[[str], str]
) -> None:
    a, b = world.users("a", "b")
    of_a, of_b = world.batch(created_by=a), world.batch(created_by=b)
    older = world.event(b, a)
    world.transfer(a, spelling(b))
    world.whole_run()
    assert world.creators([of_a, of_b]) == [spelling(b), b]
    world.platform.emit(older)
    world.whole_run()
    # B to A, then A to B: B's batches come back to B.
    assert [str(u).lower() for u in world.creators([of_a, of_b])] == [b, b]
    assert world.read(older["mid"]).late


def test_a_late_event_passes_on_what_another_has_merged_into_a_place_that_a_later_one_gave(
    world: World,
) -> None:
    """X->C has ended when first D->C comes late, and then C->B: D's place goes on to B, and X's stays with C."""
    b, c, d, x, creator = world.users("b", "c", "d", "x", "creator")
    batch = world.batch(created_by=creator, mentors=(d, x))
    first, second = world.event(d, c), world.event(c, b)
    world.transfer(x, c)
    for late in (first, second):
        world.whole_run()
        world.platform.emit(late)
    world.whole_run()

    # Each in time: d,x → c,x → b,x → b,c.
    assert world.owners(batch) == (creator, (b, c))


@pytest.mark.parametrize(
    ("later", "late", "before", "then", "after"),
    [
        pytest.param("ac", "cb", ("a", "bc"), ("c", "bc"), ("c", "b"), id="became the creator, was a mentor"),
        pytest.param(
            "ab", "bc", ("b", "da"), ("b", "db"), ("c", "db"), id="was the creator, became a mentor"
        ),
        pytest.param("ab", "bc", ("a", "ab"), ("b", "b"), ("b", "cb"), id="was a mentor, and became one"),
    ],
)
def test_a_late_event_moves_what_its_user_had_in_the_other_role(
    world: World,
    later: str,
    late: str,
    before: tuple[str, str],
    then: tuple[str, str],
    after: tuple[str, str],
) -> None:
    ids = dict(zip("abcd", world.users(*"abcd"), strict=True))

    def owners(of: tuple[str, str]) -> tuple[str, tuple[str, ...]]:
        return ids[of[0]], tuple(ids[m] for m in of[1])

    creator, mentors = owners(before)
    batch = world.batch(created_by=creator, mentors=mentors)
    older = world.event(*(ids[u] for u in late))
    world.transfer(*(ids[u] for u in later))
    world.whole_run()
    assert world.owners(batch) == owners(then)

    world.platform.emit(older)
    world.whole_run()

    assert world.owners(batch) == owners(after)


def test_late_events_that_cross_end_one_after_the_other(world: World) -> None:
    """What came in time leads each of their batches to the other's old user."""
    a, b, c, d = world.users(*"abcd")
    of_a, of_c = world.batch(created_by=a), world.batch(created_by=c)
    first, second = world.event(a, b), world.event(c, d)
    world.transfer(b, c)
    world.transfer(d, a)
    world.whole_run()
    for late in (first, second):
        world.platform.emit(late)
    assert world.pull_one_slice().finish().events == {"completed": 2}
    # The second acts on what its old user holds by then.
    assert world.creators([of_a, of_c]) == [a, a]
    assert world.read(first["mid"]).late
    assert world.read(second["mid"]).late


def test_a_change_after_a_late_event_is_put_down_to_the_event_that_made_it(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=b)
    late = world.event(b, a)
    world.transfer(a, b)
    world.whole_run()
    world.platform.emit(late)
    on_time = world.transfer(b, a)
    assert world.whole_run().events == {"completed": 2}
    assert world.creators([batch]) == [a]
    assert [world.read(mid).counts.get("moved", 0) for mid in (late["mid"], on_time)] == [0, 1]
    # There is nothing of the late one to be taken back.
    world.undo(late["mid"])
    assert world.creators([batch]) == [a]


def test_a_late_event_leaves_what_an_abandoned_later_one_gave(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    older = world.event(b, c)
    later = world.transfer(a, b)
    world.run().pull().lookup().update()
    world.run().pull(abandon={"mids": [later], "reason": "half-way"}).finish()
    world.platform.emit(older)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (b, ())
    assert world.read(older["mid"]).late


@pytest.mark.parametrize("days_ago", [0, 3])
def test_what_an_abandoned_transfer_has_given_is_found_though_its_document_did_not_follow(
    world: World, days_ago: int
) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=b)
    first = world.transfer(b, a)
    world.run().pull().lookup().update()
    world.run().pull(abandon={"mids": [first], "reason": "half-way"}).finish()
    assert world.row(batch) == (a, ())
    world.execute(
        "UPDATE event SET ended_at = ended_at - :n * interval '1 day' WHERE mid = :mid", n=days_ago, mid=first
    )
    world.transfer(a, b)
    world.whole_run()
    assert world.owners(batch) == (b, ())


@pytest.mark.parametrize(("waited_hours", "proven_again"), [(0, False), (3, False), (0, True)])
def test_what_a_chain_has_just_given_is_found_though_the_lms_wrote_its_document_from_an_older_row(
    world: World, waited_hours: int, *, proven_again: bool
) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=c)
    chain = [world.transfer(c, b), world.transfer(b, a)]
    world.whole_run()
    older = "UPDATE event SET order_ms = order_ms - :ms WHERE mid = ANY(:mids) RETURNING id"
    assert len(world.execute(older, ms=waited_hours * 3_600_000, mids=chain)) == 2
    if proven_again:
        world.whole_run(window=world.window())
    world.platform.put_document(batch.batch_id, **batch.document())
    world.transfer(a, b)
    world.whole_run()
    assert world.row(batch) == world.document(batch) == (b, ())


def test_an_event_whose_clock_is_far_off_is_ordered_by_the_brokers(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b, c)]
    first = world.event(a, b, ets=4_000_000_000_000)
    second = world.event(b, c)
    world.platform.emit(first, partition=0)
    later = world.transfer(c, b)
    world.platform.emit(second, partition=1, timestamp=second["ets"] - 1000)
    world.job.drain()
    # By the broker: B to C a second ago, then A to B, then C to B.
    assert world.job.states([first["mid"], second["mid"], later]) == ["completed"] * 3
    assert world.creators(batches) == [b, b, b]
    assert world.read(first["mid"]).transfer.key.t < 4_000_000_000_000
