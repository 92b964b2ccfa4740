"""A lane whose events cannot be applied together: phase after phase in one run, wherever it is cut off."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from itertools import pairwise
from typing import Any, NamedTuple

import pytest

from local.platform.world import Batch
from ownership.domain.contracts import Work
from ownership.domain.errors import Unavailable
from ownership.domain.event import OrderKey, Transfer
from ownership.domain.plan import BatchId, Row
from ownership.domain.states import ChangeOutcome
from tests.harness import Run
from tests.integration.stages.transfer_world import World, replaced
from tests.unit.replay import replay, without_repeats

PHASES = 4


class Lane(NamedTuple):
    """Each user receives after they gave, so that every event is a phase of its own."""

    users: list[str]
    mids: list[str]
    batches: list[Batch]
    """One of each user."""


@pytest.fixture
def lane(world: World) -> Lane:
    users = world.users(*"abcde")
    batches = [world.batch(created_by=u) for u in users]
    mids = [world.transfer(giver, receiver) for giver, receiver in reversed(list(pairwise(users)))]
    return Lane(users, mids, batches)


def assert_moved_by_one(world: World, lane: Lane) -> None:
    """Each batch went to the next user and no further, by one change."""
    assert world.job.states(lane.mids) == ["completed"] * PHASES
    assert world.creators(lane.batches) == [*lane.users[1:], lane.users[-1]]
    for mid, batch, (giver, receiver) in zip(
        lane.mids, reversed(lane.batches[:-1]), reversed(list(pairwise(lane.users))), strict=True
    ):
        applied = [i for i in world.changes(mid)[1] if i.outcome == ChangeOutcome.APPLIED]
        assert [(i.id.batch_id, i.before.owners, i.after.owners) for i in applied] == [
            (batch.batch_id, (giver, ()), (receiver, ()))
        ]
        assert world.read(mid).counts["moved"] == 1


def once(
    owner: object, name: str, action: Callable[[], object], *, before: bool, when: Callable[[], bool]
) -> AbstractContextManager[None]:
    """`action` happens beside the first call of an attribute that finds `when` true."""
    function = getattr(owner, name)
    todo = [action]

    def called(*args: Any, **more: Any) -> Any:
        mine = bool(todo) and when()
        if mine:
            todo.clear()
        if mine and before:
            action()
        answer = function(*args, **more)
        if mine and not before:
            action()
        return answer

    return replaced(owner, name, called)


def in_phase(world: World, lane: Lane, number: int) -> Callable[[], bool]:
    """True while the phase of that number is open, and those before it are committed."""
    return lambda: world.job.open_mids() == lane.mids[number - 1 :]


def die() -> None:
    raise Unavailable("test", "the process died here")


def test_all_phases_of_a_lane_go_in_one_run_each_after_the_commit_of_the_one_before(
    world: World, lane: Lane
) -> None:
    run = world.run().pull()
    summary = run.finish()

    assert_moved_by_one(world, lane)
    assert (summary.events, summary.batches) == ({"completed": 4}, {"moved": 4})
    (work,) = [w for w in run.work if isinstance(w, Work)]
    assert (work.events, work.batches, work.waiting) == ({"completed": 4}, {"moved": 4}, ())
    events = [world.read(m) for m in lane.mids]
    for earlier, later in pairwise(events):
        assert earlier.completed_at is not None
        assert later.planned_at is not None
        assert earlier.completed_at <= later.planned_at
    assert {e.run_id for e in events} == {run.run_id}


CUTS = [
    pytest.param("changes", "plan", False, id="planned"),
    pytest.param("changes", "record", False, id="images written"),
    pytest.param("rows", "compare_and_set", False, id="rows changed"),
    pytest.param("index", "write", True, id="before the documents"),
    pytest.param("events", "complete", True, id="before the commit"),
    pytest.param("events", "complete", False, id="after the commit"),
]


@pytest.mark.parametrize(("part", "function", "before"), CUTS)
@pytest.mark.parametrize("phase", [2, 3])
def test_a_retry_goes_on_with_the_phase_that_is_open(
    world: World, lane: Lane, part: str, function: str, before: bool, phase: int
) -> None:
    run = world.run().pull().lookup().update()
    given, owner = list(run.work), getattr(world.job.parts, part)
    with once(owner, function, die, before=before, when=in_phase(world, lane, phase)):
        assert len(run.reindex().errors) == 1
    committed = phase if (function, before) == ("complete", False) else phase - 1
    assert world.job.states(lane.mids).count("completed") == committed
    assert world.job.open_mids() == lane.mids[committed:]

    run.work = given
    summary = run.reindex().settle()

    assert summary.events == {"completed": 4}
    assert_moved_by_one(world, lane)


@pytest.mark.parametrize(("part", "function", "before"), CUTS)
def test_a_run_that_died_in_a_later_phase_is_completed_by_another_run(
    world: World, lane: Lane, part: str, function: str, before: bool
) -> None:
    run = world.run().pull().lookup().update()
    owner = getattr(world.job.parts, part)
    with once(owner, function, die, before=before, when=in_phase(world, lane, 2)):
        run.reindex()
    left = world.job.open_mids()
    assert 2 <= len(left) <= 3
    assert world.run().pull().pulled.claimed == 0
    world.expire(*left)

    assert world.whole_run().events == {"completed": len(left)}

    assert_moved_by_one(world, lane)


def test_a_phase_that_fails_leaves_those_behind_it_to_a_later_run(world: World, lane: Lane) -> None:
    run = world.run().pull().lookup().update()
    with once(world.job.parts.rows, "compare_and_set", die, before=True, when=in_phase(world, lane, 2)):
        run.reindex()

    summary = run.settle()

    assert summary.events == {"completed": 1, "failed": 1, "waiting": 2}
    assert list(summary.failures) == [lane.mids[1]]
    assert summary.waits == {mid: world.read(mid).reason for mid in lane.mids[2:]}
    assert world.job.states(lane.mids) == ["completed", "failed", "received", "received"]
    assert world.run().pull().pulled.claimed == 0
    world.job.drain(patient=False)
    assert_moved_by_one(world, lane)


@pytest.mark.parametrize("lost", [1, 3])
def test_what_is_taken_over_between_two_phases_and_what_is_behind_it_is_left_alone(
    world: World, lane: Lane, lost: int
) -> None:
    """Of the three events that wait another run takes all, or, because it may have no more, the first."""
    run = world.run().pull().lookup().update()
    other: list[Run] = []

    def take_over() -> None:
        world.expire(*lane.mids[1 : 1 + lost])
        other.append(world.run().pull())

    with once(world.job.parts.events, "complete", take_over, before=False, when=lambda: True):
        run.reindex()
    assert world.job.states(lane.mids) == ["completed", *["received"] * 3]
    assert run.settle().events == {"completed": 1, "taken_over": lost} | ({"waiting": 2} if lost == 1 else {})

    assert other[0].finish().events == {"completed": lost}
    world.job.drain()
    assert_moved_by_one(world, lane)


def test_a_phase_that_is_taken_over_between_image_and_row_is_left_to_its_new_holder(
    world: World, lane: Lane
) -> None:
    run = world.run().pull().lookup().update()
    other: list[Run] = []

    def take_over() -> None:
        world.expire(lane.mids[1])
        other.append(world.run().pull())

    with once(world.job.parts.changes, "record", take_over, before=False, when=in_phase(world, lane, 2)):
        run.reindex()
    assert world.creators(lane.batches[:3]) == lane.users[:3]
    assert run.settle().events == {"completed": 1, "taken_over": 1, "waiting": 2}

    assert other[0].finish().events == {"completed": 1}
    world.job.drain()
    outcomes = [i.outcome for i in world.changes(lane.mids[1])[1]]
    assert outcomes == ["refused", "applied"]
    assert world.creators(lane.batches) == [*lane.users[1:], lane.users[-1]]


def test_an_earlier_event_that_came_late_goes_before_what_still_waits(world: World) -> None:
    a, b, c, x = world.users("a", "b", "c", "x")
    batches = [world.batch(created_by=u) for u in (a, c, x)]
    first = world.transfer(c, b)
    between = world.event(x, a)
    last = world.transfer(a, c)
    run = world.run().pull().lookup().update()
    world.platform.emit(between)
    other = world.run().pull()
    assert other.pulled.claimed == 1

    assert run.reindex().settle().events == {"completed": 1, "waiting": 1}
    assert world.job.states([first, between["mid"], last]) == ["completed", "received", "received"]

    assert other.finish().events == {"completed": 1}
    assert world.whole_run().events == {"completed": 1}
    assert world.creators(batches) == [c, b, c]


def test_lanes_of_a_slice_go_on_beside_one_that_is_held_back(world: World) -> None:
    (a, b, c), (d, e, f) = world.users(*"abc"), world.users(*"def")
    batches = [world.batch(created_by=u) for u in (a, c, d, f)]
    mids = [world.transfer(*pair) for pair in ((c, b), (f, e), (a, c), (d, f))]
    run = world.pull_one_slice().lookup()
    world.expire(mids[0])
    other = world.run().pull()
    assert [e.mid for s in other.pulled.slices for e in s.events] == [mids[0]]

    assert run.update().reindex().settle().events == {"completed": 2, "taken_over": 1, "waiting": 1}
    assert world.job.states(mids) == ["planned", "completed", "received", "completed"]

    other.finish()
    world.job.drain()
    assert world.creators(batches) == [c, b, f, e]


# --- random lanes


def random_lane(world: World, seed: int) -> tuple[list[Transfer], list[Batch], list[Row]]:
    """Transfers among a few people, their batches, and the rows that are to come out of it."""
    chosen = random.Random(seed)
    users = world.users(*(f"p{n}" for n in range(5)))
    pairs = [chosen.sample(users, 2) for _ in range(14)]
    made = [
        world.batch(created_by=u, mentors=tuple(chosen.sample([*users, "x"], chosen.randrange(3))))
        for u in users
    ]
    events = [
        Transfer(OrderKey(n, 0, n, world.transfer(*pair)), pair[0], pair[1]) for n, pair in enumerate(pairs)
    ]
    before = [Row(BatchId(b.course_id, b.batch_id), b.created_by, tuple(b.mentors or ()), 1) for b in made]
    return events, made, [without_repeats(replay(events, row)) for row in before]


def assert_replayed(world: World, batches: Sequence[Batch], expected: Sequence[Row]) -> None:
    found = [world.owners(b) for b in batches]
    assert [(o[0], set(o[1])) for o in found if o] == [(r.created_by, set(r.mentors)) for r in expected]


@pytest.mark.parametrize("seed", range(4))
def test_random_transfers_among_a_few_people_end_in_one_run_as_if_each_had_run_alone(
    world: World, seed: int
) -> None:
    events, batches, expected = random_lane(world, seed)
    assert world.whole_run().events == {"completed": len(events)}
    assert_replayed(world, batches, expected)


@pytest.mark.parametrize("seed", range(100, 108))
def test_random_transfers_end_the_same_wherever_their_runs_are_cut_off(world: World, seed: int) -> None:
    events, batches, expected = random_lane(world, seed)
    chosen = random.Random(seed)
    for _ in range(6):
        part, function, before = chosen.choice(CUTS).values
        calls = iter([False] * chosen.randrange(4) + [True])
        owner = getattr(world.job.parts, str(part))
        with once(owner, str(function), die, before=bool(before), when=calls.__next__):
            run = world.run().pull(patient=False).lookup().update()
            given = list(run.work)
            run.reindex()
        if chosen.random() < 0.5:  # the task is tried again
            run.work = given
            run.reindex()
        if chosen.random() < 0.5:
            run.settle()
        else:  # or the run is gone
            world.expire(*world.job.open_mids())
    world.job.drain(patient=False)
    assert set(world.job.states([e.mid for e in events])) == {"completed"}
    assert_replayed(world, batches, expected)
