"""Values that a clock wrote ahead stay although Cassandra answers *applied*: nothing else may suffer, and no trail lies."""

from __future__ import annotations

import time
from typing import Any

import pytest

from local.platform.world import Batch
from ownership.domain.states import ChangeOutcome
from ownership.stages import reindex
from tests.harness import Run
from tests.integration.stages.transfer_world import World

SECOND_US = 1_000_000
HOUR_US = 3600 * SECOND_US
COLUMNS = {
    "the creator": ("createdby",),
    "the mentors": ("mentors",),
    "both": ("createdby", "mentors"),
}
columns = pytest.mark.parametrize("columns", COLUMNS.values(), ids=COLUMNS)


@pytest.fixture
def quick_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mentors that stay as they are for an hour are tried again as often, but sooner."""
    monkeypatch.setattr(reindex, "POLL_US", 100_000)


def write_at(world: World, batch: Batch, at_us: int, **values: Any) -> None:
    """Write columns of a row with a write time (epoch µs)."""
    settings = world.job.settings
    sets = ", ".join(f"{name} = %s" for name in values)
    world.job.parts.cql.session.execute(
        f"UPDATE {settings.keyspace}.{settings.course_batch_table} USING TIMESTAMP {at_us} SET {sets} "
        "WHERE courseid = %s AND batchid = %s",
        (*values.values(), batch.course_id, batch.batch_id),
    )


def write_ahead(world: World, batch: Batch, ahead_us: int, columns: tuple[str, ...]) -> int:
    """Write columns of a row again, as they are, by a clock that is ahead; the write time."""
    at_us = time.time_ns() // 1000 + ahead_us
    creator, mentors = world.row(batch) or (None, ())
    values = {"createdby": creator, "mentors": list(mentors)}
    write_at(world, batch, at_us, **{name: values[name] for name in columns})
    return at_us


def reason(run: Run) -> str:
    """Why the run's only failing stage failed."""
    (error,) = run.errors
    return str(error)


def abandon(world: World, mid: str) -> None:
    """End an event whose row stays as it is: the world is shared."""
    world.run().pull(abandon={"mids": [mid], "reason": "the value stays"}).finish()
    assert world.state(mid) == "abandoned"


def applied_moves(world: World, mid: str) -> dict[str, int]:
    """Changes that the trail says were made, by batch id."""
    found: dict[str, int] = {}
    for image in world.changes(mid)[1]:
        if image.outcome == ChangeOutcome.APPLIED:
            found[image.id.batch_id] = found.get(image.id.batch_id, 0) + 1
    return found


@pytest.mark.usefixtures("quick_polls")
@columns
def test_the_other_batches_move_and_the_event_names_the_one_that_keeps_its_value(
    world: World, columns: tuple[str, ...]
) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    ahead, *others = world.batches(4, created_by=a, mentors=("x", a))
    at_us = write_ahead(world, ahead, HOUR_US, columns)
    of_c = world.batch(created_by=c)
    mid, healthy = world.transfer(a, b), world.transfer(c, d)

    run = world.run().pull().lookup().update().reindex()
    summary = run.settle()

    assert summary.events == {"failed": 1, "completed": 1}
    assert {world.owners(x) for x in others} == {(b, ("x", b))}
    assert world.creators([of_c]) == [d]
    assert world.state(healthy) == "completed"
    for said in (reason(run), summary.failures[mid]):
        assert f"batch {ahead.batch_id} of course {ahead.course_id}" in said
        assert all(x.batch_id not in said for x in others)
        if "createdby" in columns:
            assert time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(at_us // SECOND_US)) in said
    # A creator that cannot move keeps the whole row as it is; of mentors it shows only once they are written.
    found = (a, ("x", a)) if "createdby" in columns else (b, ("x", a))
    assert world.owners(ahead) == found
    applied = [i for i in world.changes(mid)[1] if i.outcome == ChangeOutcome.APPLIED]
    own = [i.after.owners for i in applied if i.id.batch_id == ahead.batch_id]
    assert own == ([] if "createdby" in columns else [found])
    assert applied_moves(world, mid).keys() - {ahead.batch_id} == {x.batch_id for x in others}
    abandon(world, mid)


@pytest.mark.usefixtures("quick_polls")
@columns
def test_a_value_in_nanoseconds_is_named_with_the_year_and_a_repeated_try_claims_no_move(
    world: World, columns: tuple[str, ...]
) -> None:
    a, b = world.users("a", "b")
    ahead, other = world.batches(2, created_by=a, mentors=(a,))
    creator_and_mentors = {"createdby": a, "mentors": [a]}
    write_at(world, ahead, time.time_ns(), **{name: creator_and_mentors[name] for name in columns})
    mid = world.transfer(a, b)

    for _ in range(2):
        run = world.run().pull(patient=False).lookup().update().reindex()
        assert run.settle().events == {"failed": 1}
        assert f"batch {ahead.batch_id} of course {ahead.course_id}" in reason(run)
        assert ("before the year 5" in reason(run)) == ("createdby" in columns)
    assert world.owners(other) == (b, (b,))
    moves = applied_moves(world, mid)
    assert moves[other.batch_id] == 1
    assert moves.get(ahead.batch_id, 0) == (1 if columns == ("mentors",) else 0)
    abandon(world, mid)


@columns
def test_two_seconds_ahead_heals_in_the_same_run_with_right_counts(
    world: World, columns: tuple[str, ...]
) -> None:
    a, b = world.users("a", "b")
    ahead, *others = world.batches(3, created_by=a, mentors=("x", a))
    run = world.run()
    mid = world.transfer(a, b)
    run.pull().lookup()
    write_ahead(world, ahead, 2 * SECOND_US, columns)

    summary = run.update().reindex().settle()

    assert summary.events == {"completed": 1}
    assert summary.batches == {"moved": 3}
    assert world.read(mid).counts == {"moved": 3, "rows": 3}
    assert {world.owners(x) for x in (ahead, *others)} == {(b, ("x", b))}
    # The trail leads from the row as it was to the row as it is.
    applied = [i for i in world.changes(mid)[1] if i.outcome == ChangeOutcome.APPLIED]
    own = [i for i in applied if i.id.batch_id == ahead.batch_id]
    assert (own[0].before.owners, own[-1].after.owners) == ((a, ("x", a)), (b, ("x", b)))
    undone, _ = world.undo(mid)
    assert undone.errors == []
    assert {world.owners(x) for x in (ahead, *others)} == {(a, ("x", a))}


def undone_list(world: World, *, whole: bool) -> tuple[Batch, Run, str]:
    """An undo that makes a list of mentors longer, of which a clock that is ahead wrote all, or an element."""
    a, b, other = world.users("a", "b", "other")
    batch = world.batch(created_by=other, mentors=(a, b))
    mid = world.transfer(a, b)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (other, (b,))
    at_us = time.time_ns() // 1000 + HOUR_US
    if whole:
        write_at(world, batch, at_us, mentors=[b])
    else:
        write_at(world, batch, at_us, **{"mentors[0]": b})
    run, _ = world.undo(mid)
    return batch, run, f"undo:{run.run_id}:0"


@pytest.mark.usefixtures("quick_polls")
def test_an_undo_of_a_list_that_is_ahead_names_the_batch(world: World) -> None:
    batch, run, undo = undone_list(world, whole=True)
    creator, (mentor,) = world.owners(batch) or (None, ())
    assert (creator, mentor) == (batch.created_by, mentor)
    assert f"the mentors of batch {batch.batch_id} of course {batch.course_id}" in reason(run)
    assert applied_moves(world, undo) == {}
    abandon(world, undo)


@pytest.mark.usefixtures("quick_polls")
def test_an_undo_does_not_put_the_old_list_beside_an_element_that_is_ahead(world: World) -> None:
    batch, _, undo = undone_list(world, whole=False)
    creator, mentors = world.owners(batch) or (None, ())
    assert creator == batch.created_by
    assert len(mentors) == len(batch.mentors or ())
    # The trail has the list as it is, and not as it should be.
    applied = [i for i in world.changes(undo)[1] if i.outcome == ChangeOutcome.APPLIED]
    assert [i.after.mentors for i in applied] == [mentors]


def test_another_field_that_is_ahead_keeps_no_batch_from_moving(world: World) -> None:
    a, b, other = world.users("a", "b", "other")
    batch = world.batch(created_by=other, mentors=(a,))
    write_ahead(world, batch, HOUR_US, ("createdby",))
    world.transfer(a, b)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (other, (b,))


def test_a_value_that_an_operator_wrote_by_hand_with_a_later_time_completes_the_event(world: World) -> None:
    a, b = world.users("a", "b")
    batch = world.batch(created_by=a)
    at_us = write_ahead(world, batch, HOUR_US, ("createdby",))
    mid = world.transfer(a, b)
    assert world.whole_run().events == {"failed": 1}
    write_at(world, batch, at_us + 1, createdby=b)
    world.job.drain(patient=False)
    assert world.state(mid) == "completed"
    assert world.creators([batch]) == [b]
    assert applied_moves(world, mid) == {}
