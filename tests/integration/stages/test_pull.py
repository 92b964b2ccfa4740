"""How long a pull waits: for events that are too young, and for runs that work on what its own events wait for."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from ownership.domain.queue import Wait, WaitKind
from ownership.stages.pull import Collected, RunRequest, collect, hand_over, start_run
from tests.e2e.airflow_world import until
from tests.harness import Run
from tests.integration.stages.transfer_world import World

HOUR_MS = 3_600_000


def poke(world: World, so_far: Collected | None = None, *, grace_ms: int = 0) -> Collected:
    """One pass of a run of the watcher."""
    settings = world.job.settings.model_copy(update={"grace_ms": grace_ms})
    so_far = so_far or Collected(RunRequest(world.run().run_id), world.job.intake)
    return collect(replace(world.job.parts, settings=settings), so_far)


def aged(world: World, mid: str) -> None:
    """Let an event have been accepted an hour ago."""
    statement = "UPDATE queue SET accepted_at = now() - interval '1 hour' FROM event WHERE id = event_id AND mid = :mid"
    world.execute(statement, mid=mid)


def mids(collected: Collected) -> list[str]:
    return [e.mid for e in collected.claimed]


def test_one_poke_is_enough_for_an_event_that_is_old_enough(own_world: World) -> None:
    world = own_world
    mid = world.transfer(*world.users("a", "b"))
    collected = poke(world)
    assert (mids(collected), collected.complete) == ([mid], True)


def test_a_run_that_has_nothing_pokes_again_while_events_are_too_young(own_world: World) -> None:
    world = own_world
    mid = world.transfer(*world.users("a", "b"))
    first = poke(world, grace_ms=60_000)
    assert (mids(first), first.complete) == ([], False)
    assert first.choice.waits[mid].kind is WaitKind.YOUNG
    again = poke(world, first, grace_ms=60_000)
    assert (mids(again), again.complete) == ([], False)

    aged(world, mid)
    assert mids(last := poke(world, again, grace_ms=60_000)) == [mid]
    assert last.complete


def test_a_burst_is_one_run_s_with_its_tail_and_what_comes_later_is_not_waited_for(own_world: World) -> None:
    world = own_world
    first, tail, later = (world.transfer(*world.users("a", "b")) for _ in range(3))
    accepted = poke(world, grace_ms=HOUR_MS)  # all of them are in the queue now
    aged(world, first)
    one = poke(world, accepted, grace_ms=60_000)
    assert (mids(one), one.complete) == ([first], False)

    aged(world, tail)
    # The time of the tail is over, and the last event is too young still.
    two = poke(world, replace(one, tail_until_ms=1), grace_ms=60_000)

    assert (mids(two), two.complete) == ([first, tail], True)
    assert [e.fencing_token for e in two.claimed] == sorted({e.fencing_token for e in two.claimed})
    assert world.queued(first).holder == world.queued(tail).holder == two.request.run_id
    assert world.queued(later).holder is None
    pulled = hand_over(world.job.parts, two)
    assert sorted(e.mid for s in pulled.slices for e in s.events) == sorted([first, tail])
    world.expire(first, tail)
    world.job.drain()


def test_a_run_by_hand_waits_while_another_run_works_on_what_blocks_its_event(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batch = world.batch(created_by=a)
    first = world.transfer(a, b)
    one = world.run().pull()
    assert one.pulled.claimed == 1
    event = world.event(b, c)

    with ThreadPoolExecutor(1) as pool:
        two = pool.submit(world.run().pull, events=[event], patient=False, timeout=120)
        until("the run has queued its event", lambda: event["mid"] in world.job.open_mids())
        assert one.finish().events == {"completed": 1}
        run: Run = two.result()

    assert [e.mid for s in run.pulled.slices for e in s.events] == [event["mid"]]
    assert run.pulled.waits == {}
    assert run.finish().events == {"completed": 1}
    assert world.job.states([first, event["mid"]]) == ["completed", "completed"]
    assert world.owners(batch) == (c, ())


@pytest.mark.parametrize("by_hand", [True, False])
@pytest.mark.parametrize("retried", [True, False])
def test_only_the_run_that_brought_an_event_waits_and_only_for_a_run_that_is_at_work(
    world: World, *, by_hand: bool, retried: bool
) -> None:
    a, b, c = world.users("a", "b", "c")
    first = world.transfer(a, b)
    holder = world.run().pull()
    if retried:  # as a stage does that failed: the claim outlives the delay of its retry
        world.execute(
            "UPDATE queue SET lease_expires_at = now() + interval '1 hour' FROM event WHERE id = event_id AND mid = :mid",
            mid=first,
        )
    run = world.run().pull(form=world.form(b, c), patient=False, timeout=0)
    (own,) = run.pulled.own
    assert run.pulled.waits[own] == f"waits for {first}"

    request = RunRequest(run.run_id)
    started = start_run(world.job.parts, world.job.intake, request)
    collected = collect(world.job.parts, replace(started, own=(own,) if by_hand else ()))

    assert collected.choice.waits[own] == Wait(WaitKind.BLOCKED, first)
    assert collected.complete is not (by_hand and not retried)
    assert hand_over(world.job.parts, collected).claimed == 0
    assert world.queued(own).holder is None
    world.expire(first)
    assert holder.finish().events
    world.job.drain(patient=False)


def test_a_run_that_cannot_wait_longer_lets_go_of_the_event_that_it_brought(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    first = world.transfer(a, b)
    one = world.run().pull()
    run = world.run().pull(form=world.form(b, c), timeout=0)
    (own,) = run.pulled.own
    assert (run.pulled.slices, world.queued(own).holder) == ((), None)
    one.finish()
    assert world.whole_run().events == {"completed": 1}
    assert world.job.states([first, own]) == ["completed"] * 2
