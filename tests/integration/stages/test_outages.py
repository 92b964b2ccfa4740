"""An outage is not absence: whatever fails, the event stays open and completes when all is well again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from cassandra.protocol import OverloadedErrorMessage
from elasticsearch import Elasticsearch

from local.platform.schema import BATCH_INDEX
from ownership.domain.clock import now_ms
from ownership.domain.errors import Unavailable
from ownership.domain.states import Decision
from ownership.ledger.events import Verdict
from ownership.platform.search_index import Written
from tests.integration.stages.transfer_world import Faults, World, opened_world, replaced


@pytest.fixture(scope="module")
def module_world(stack: Any) -> Iterator[World]:
    """The services are asked once, so that an outage does not take a minute here.

    They have the job's own time to answer: half a second was too short for the first answer of a cold stand-in.
    """
    with opened_world(stack.addresses, service={"tries": 1}) as world:
        yield world


def failed_run(world: World, *mids: str) -> None:
    """A run in which the events of `mids` fail at the lookup, with every try."""
    run = world.run().pull(patient=False).lookup()
    assert run.errors, "nothing failed"
    assert run.update().reindex().settle().events["failed"] == len(mids)
    assert world.job.states(mids) == ["failed"] * len(mids)


def test_user_org_out_of_order_for_all_then_healthy(world: World, userorg: Faults) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    userorg.set("drop")
    failed_run(world, mid)
    assert world.read(mid).verdict is None
    assert (world.read(mid).reason or "").startswith("User-Org unavailable: ")
    assert world.row(batch) == (old, ())

    userorg.clear()
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert world.read(mid).reason is None


def test_the_lms_out_of_order_for_all_then_healthy(world: World, lms: Faults) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old, mentors=(old,))
    mid = world.transfer(old, new)
    lms.set("half")
    failed_run(world, mid)
    assert world.read(mid).verdict == Verdict(Decision.VALID)
    assert world.row(batch) == (old, (old,))

    lms.clear()
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.owners(batch) == (new, (new,))


@pytest.mark.parametrize("which", ["old", "new"])
def test_user_org_out_of_order_for_one_user_does_not_stop_the_others(
    world: World, userorg: Faults, which: str
) -> None:
    old, new, c, d = world.users("old", "new", "c", "d")
    batch, other = world.batch(created_by=old), world.batch(created_by=c)
    userorg.set("garbage", user=old if which == "old" else new)
    mids = [world.transfer(old, new), world.transfer(c, d)]
    assert world.whole_run().events == {"failed": 1, "completed": 1}
    assert world.job.states(mids) == ["failed", "completed"]
    assert world.creators([batch, other]) == [old, d]
    userorg.clear()
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.owners(batch) == (new, ())


def test_the_lms_out_of_order_for_one_user_does_not_stop_the_others(world: World, lms: Faults) -> None:
    old, new, c, d = world.users("old", "new", "c", "d")
    batch, other = world.batch(created_by=old), world.batch(created_by=c)
    lms.set("503", user=old)
    mids = [world.transfer(old, new), world.transfer(c, d)]
    assert world.whole_run().events == {"failed": 1, "completed": 1}
    assert world.job.states(mids) == ["failed", "completed"]
    assert world.creators([batch, other]) == [old, d]
    lms.clear()
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.owners(batch) == (new, ())


def test_the_lms_out_of_order_for_one_user_of_a_slice_does_not_stop_the_others(
    stack: Any, lms: Faults
) -> None:
    with opened_world(stack.addresses, **{"user.ownership.transfer.parallelism": 1}) as world:
        givers, receivers = world.users(*["old"] * 6), world.users(*["new"] * 6)
        batches = [world.batch(created_by=u) for u in givers]
        lms.set("500", user=givers[2])
        for old, new in zip(givers, receivers, strict=True):
            world.transfer(old, new)
        run = world.run().pull()
        assert len(run.pulled.slices) == 1
        assert run.finish().events == {"completed": 6}
        assert world.creators(batches) == receivers


def test_one_failure_of_a_service_is_not_even_noticed(own_world: World, lms: Faults, userorg: Faults) -> None:
    old, new = own_world.users("old", "new")
    batch = own_world.batch(created_by=old)
    mid = own_world.transfer(old, new)
    lms.set("drop", times=1)
    userorg.set("503", times=1)
    assert own_world.whole_run().events == {"completed": 1}
    assert own_world.owners(batch) == (new, ())
    assert own_world.read(mid).attempts == 1


def test_a_user_whom_the_service_does_not_know_is_skipped_although_the_other_one_cannot_be_asked(
    world: World, userorg: Faults
) -> None:
    (old,) = world.users("old")
    userorg.set("503", user=old)
    mid = world.transfer(old, "nobody")
    assert world.whole_run().events == {"skipped": 1}
    assert world.state(mid) == "skipped"


def test_a_verdict_once_given_stands_although_the_user_is_gone_at_the_next_try(
    world: World, lms: Faults
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    lms.set("503")
    failed_run(world, mid)
    lms.clear()
    world.platform.search.delete(index="user", id=old.lower(), refresh=True)
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.owners(batch) == (new, ())


def test_a_failed_event_is_left_alone_until_its_time_and_then_taken_by_any_run(
    world: World, userorg: Faults
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    userorg.set("503")
    failed_run(world, mid)
    userorg.clear()

    waiting = world.run().pull()
    assert waiting.pulled.claimed == 0
    assert waiting.pulled.waits[mid].startswith("failed and is tried again at ")
    due = world.queued(mid).next_try_ms
    world.make_due(mid)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert due > 1


def test_each_failure_doubles_the_delay_and_counts_an_attempt(world: World, userorg: Faults) -> None:
    old, new = world.users("old", "new")
    mid = world.transfer(old, new)
    userorg.set("503")
    delays = []
    for n in (1, 2, 3):
        before = now_ms()
        failed_run(world, mid)
        after = now_ms()
        assert world.read(mid).attempts == n
        due = world.queued(mid).next_try_ms
        delays.append(((due - after) / 1000, (due - before) / 1000))
    for n, (least, most) in enumerate(delays):
        assert least <= 10 * 2**n * 1.25
        assert most >= 10 * 2**n * 0.75
    userorg.clear()
    assert world.whole_run(patient=False).events == {"completed": 1}


# --- Elasticsearch


@contextmanager
def read_only_index(world: World) -> Iterator[None]:
    """The index refuses writes, as it does when a disk is full."""
    indices = world.platform.search.indices
    indices.put_settings(index=BATCH_INDEX, settings={"index.blocks.write": True})
    try:
        yield
    finally:
        indices.put_settings(index=BATCH_INDEX, settings={"index.blocks.write": None})


@contextmanager
def closed_port(world: World) -> Iterator[None]:
    """The job's client finds nobody at Elasticsearch's address."""
    nowhere = Elasticsearch("http://127.0.0.1:1", max_retries=0, request_timeout=2)
    with nowhere, replaced(world.job.parts.index, "_es", nowhere):
        yield


def test_an_index_that_refuses_writes_after_the_rows_have_moved_then_healthy(world: World) -> None:
    old, new = world.users("old", "new")
    batches = world.batches(3, created_by=old, mentors=("x", old))
    mid = world.transfer(old, new)
    run = world.run().pull().lookup()
    with read_only_index(world):
        run.update().reindex()
        assert len(run.errors) == 1
        assert "Elasticsearch" in str(run.errors[0])
        assert run.settle().events == {"failed": 1}
        assert world.state(mid) == "failed"
        assert world.read(mid).completed_at is None
        assert [world.row(b) for b in batches] == [(new, ("x", new))] * 3
        assert [world.document(b) for b in batches] == [(old, ("x", old))] * 3
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert {world.owners(b) for b in batches} == {(new, ("x", new))}
    assert world.read(mid).counts["moved"] == 3


@pytest.mark.parametrize("stage", ["lookup", "reindex"])
def test_elasticsearch_out_of_reach_then_healthy(world: World, stage: str) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull()
    if stage == "reindex":
        run.lookup().update()
    with closed_port(world):
        getattr(run, stage)()
    assert len(run.errors) == 1
    assert str(run.errors[0]).startswith("Elasticsearch unavailable: ")
    assert run.settle().events == {"failed": 1}
    assert world.row(batch) == ((new if stage == "reindex" else old), ())
    assert world.document(batch) == (old, ())
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.owners(batch) == (new, ())
    assert world.state(mid) == "completed"


def test_an_event_behind_one_that_is_not_proven_waits(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    batches = [world.batch(created_by=u) for u in (a, b)]
    first = world.transfer(a, b)
    run = world.run().pull().lookup()
    with read_only_index(world):
        run.update().reindex().settle()
    second = world.transfer(b, c)
    waiting = world.run().pull()
    assert waiting.pulled.claimed == 0
    assert waiting.pulled.waits[second] == f"waits for {first}"
    world.job.drain(patient=False)
    assert world.job.states([first, second]) == ["completed", "completed"]
    assert world.creators(batches) == [c, c]


def test_a_proof_that_never_agrees_is_failed_as_incomplete_and_never_completed(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    run = world.run().pull().lookup().update()
    with replaced(world.job.parts.index, "write", lambda *_: Written({}, [])):
        run.reindex()
    assert [type(e).__name__ for e in run.errors] == ["Incomplete"]
    assert run.settle().events == {"failed": 1}
    assert (world.read(mid).reason or "").startswith("incomplete: ")
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.owners(batch) == (new, ())


class Overloaded:
    """What the driver gives for a request that a Cassandra with too much to do has refused."""

    error = OverloadedErrorMessage(0x1001, "Too many in flight hints", None)

    def add_callbacks(self, **given: Any) -> None:
        given["errback"](self.error, *given["errback_args"])

    def result(self) -> Any:
        raise self.error


def overloaded(world: World, *, every: int) -> AbstractContextManager[None]:
    """Cassandra refuses every so many requests meanwhile."""
    session = world.job.parts.cql.session
    send, count = session.execute_async, itertools.count(1)

    def sometimes(*args: Any, **options: Any) -> Any:
        return Overloaded() if next(count) % every == 0 else send(*args, **options)

    return replaced(session, "execute_async", sometimes)


def test_an_overloaded_cassandra_is_asked_again_after_a_pause(world: World) -> None:
    old, new = world.users("old", "new")
    batches = world.batches(20, created_by=old)
    world.transfer(old, new)
    run = world.run().pull()
    with overloaded(world, every=5):
        summary = run.finish()
    assert summary.events == {"completed": 1}
    assert {world.owners(b) for b in batches} == {(new, ())}


def test_a_cassandra_that_stays_overloaded_is_an_outage_and_no_bug(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    world.transfer(old, new)
    run = world.run().pull().lookup()
    with overloaded(world, every=1):
        run.update()
    assert [type(e) for e in run.errors] == [Unavailable]
    assert "Cassandra" in str(run.errors[0])
    assert "Too many in flight" in str(run.errors[0])
    assert run.settle().events == {"failed": 1}
    assert world.whole_run(patient=False).events == {"completed": 1}
    assert world.owners(batch) == (new, ())
