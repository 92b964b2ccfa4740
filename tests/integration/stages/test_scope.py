"""`transfer.scope = asset`: an event moves the one batch that it names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from local.platform.world import Batch
from ownership.domain.states import Decision
from ownership.stages.intake import Window
from tests.integration.stages.transfer_world import ORGANISATION, World, opened_world


@pytest.fixture(scope="module")
def module_world(stack: Any) -> Iterator[World]:
    with opened_world(stack.addresses, **{"transfer.scope": "asset"}) as world:
        yield world


def asset(batch: Batch, **more: Any) -> dict[str, Any]:
    """What the platform says of a batch that an administrator has chosen."""
    return {"objectType": "Course Batch", "identifier": batch.batch_id, "name": batch.name, **more}


def test_an_event_moves_the_batch_that_it_names_and_no_other(world: World) -> None:
    old, new = world.users("old", "new")
    named, other = world.batches(2, created_by=old, mentors=(old, "x"))
    mid = world.transfer(old, new, asset=asset(named))
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(named) == (new, (new, "x"))
    assert world.owners(other) == (old, (old, "x"))
    assert world.read(mid).counts["moved"] == 1
    again = world.run().pull(window=world.window())
    assert (again.pulled.follow_ups, again.pulled.claimed) == (0, 0)
    _, undone = world.undo(mid)
    assert undone.events == {"completed": 1}
    assert world.creators([named, other]) == [old, old]


def test_another_batch_that_the_old_user_received_since_hides_none_from_the_second_proof(
    world: World,
) -> None:
    a, b, c = world.users("a", "b", "c")
    named, other = world.batch(created_by=a), world.batch(created_by=c)
    first = world.transfer(a, b, asset=asset(named))
    world.whole_run()
    last = world.transfer(c, a, asset=asset(other))
    world.whole_run()
    world.platform.add_batches([named])  # from an older copy

    window = Window(world.read(first).kafka_ms, world.read(last).kafka_ms + 1)
    run = world.run().pull(window=window)

    assert run.pulled.follow_ups == 1
    assert run.finish().events == {"completed": 1}
    assert world.creators([named, other]) == [b, a]


@pytest.mark.parametrize("given", [{}, None])
def test_an_event_that_names_no_asset_moves_everything(world: World, given: Any) -> None:
    old, new = world.users("old", "new")
    batches = world.batches(3, created_by=old)
    world.transfer(old, new, edata={"assetInformation": given})
    assert world.whole_run().events == {"completed": 1}
    assert world.creators(batches) == [new] * 3


def test_a_batch_that_the_old_user_does_not_hold_stays(world: World) -> None:
    old, new, somebody = world.users("old", "new", "somebody")
    theirs, own = world.batch(created_by=somebody), world.batch(created_by=old)
    mid = world.transfer(old, new, asset=asset(theirs))
    assert world.whole_run().events == {"completed": 1}
    assert world.creators([theirs, own]) == [somebody, old]
    assert "moved" not in world.read(mid).counts


def test_another_kind_of_asset_is_skipped_as_not_this_jobs(world: World) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new, asset={"objectType": "Content", "identifier": "do_21"})
    assert world.whole_run().events == {"skipped": 1}
    why = "names an asset of kind 'Content', which is not this job's (transfer.scope = asset)"
    assert world.read(mid).reason == why
    assert world.owners(batch) == (old, ())


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "edata.assetInformation: must be an object"),
        (7, "edata.assetInformation: must be an object"),
        ({"objectType": "Course Batch"}, "edata.assetInformation.identifier: Field required"),
        ({"identifier": "b"}, "edata.assetInformation.objectType: Field required"),
    ],
)
def test_an_asset_that_cannot_be_read_moves_nothing_and_its_dead_letter_can_be_mended(
    world: World, given: Any, why: str
) -> None:
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    world.platform.emit({**(e := world.event(old, new)), "edata": {**e["edata"], "assetInformation": given}})
    run = world.run().pull()
    assert (run.pulled.rejected, run.pulled.claimed) == (1, 0)
    at = len(world.dead_letters()) - 1
    assert why in world.dead_letters()[at][0]["error_message"]
    assert world.owners(batch) == (old, ())
    mend = {"edata": {"assetInformation": None}}
    letters = {"partition": 0, "from_offset": at, "to_offset": at, "merge_patch": mend}
    assert world.whole_run(redrive={"dead_letters": letters}).events == {"completed": 1}
    assert world.owners(batch) == (new, ())


def test_many_assets_of_the_same_users_are_each_their_own_in_one_run(world: World) -> None:
    old, new = world.users("old", "new")
    batches = world.batches(12, created_by=old)
    rest = world.batches(2, created_by=old)
    mids = [world.transfer(old, new, asset=asset(b)) for b in batches]
    summary = world.whole_run()
    assert summary.events == {"completed": 12}
    assert world.creators([*batches, *rest]) == [new] * 12 + [old] * 2
    assert [world.outcomes(m) for m in mids] == [{b.batch_id: "moved"} for b in batches]
    assert not any(world.read(m).late for m in mids)
    _, undone = world.undo(mids[3])
    assert undone.events == {"completed": 1}
    assert world.creators(batches) == [new] * 3 + [old] + [new] * 8


def test_a_chain_for_one_asset_and_another_for_the_next_end_where_they_lead(world: World) -> None:
    a, b, c, d = world.users("a", "b", "c", "d")
    x, y, z = world.batches(3, created_by=a)
    at_b = world.batch(created_by=b)
    world.transfer(a, b, asset=asset(x))
    world.transfer(a, d, asset=asset(y))
    world.transfer(b, c, asset=asset(x))
    world.transfer(d, a, asset=asset(y))
    world.job.drain()
    assert world.creators([x, y, z, at_b]) == [c, a, a, b]


@pytest.mark.parametrize("first", ["asset", "everything"])
def test_an_asset_and_everything_take_effect_in_their_order(world: World, first: str) -> None:
    a, b, c = world.users("a", "b", "c")
    x, y = world.batches(2, created_by=a)
    wanted = [world.event(a, b, asset=asset(x)), world.event(a, c)]
    if first == "everything":
        wanted = [world.event(a, c), world.event(a, b, asset=asset(x))]
    for event in wanted:
        world.platform.emit(event, partition=0)
    world.job.drain()
    assert world.creators([x, y]) == ([b, c] if first == "asset" else [c, c])


def test_a_swap_of_one_batch_is_not_composed(world: World) -> None:
    a, b, c = world.users("a", "b", "c")
    x, y = world.batch(created_by=a), world.batch(created_by=c)
    world.platform.emit(world.event(c, b, asset=asset(x)), partition=0)
    world.platform.emit(world.event(a, c, asset=asset(x)), partition=0)
    world.job.drain()
    assert world.creators([x, y]) == [c, c]


def test_a_plan_an_approval_and_a_redrive_keep_to_the_asset(stack: Any) -> None:
    settings = {"transfer.scope": "asset", "approval.batches": 1}
    with opened_world(stack.addresses, **settings) as world:
        old, new = world.users("old", "new")
        named, *others = world.batches(4, created_by=old)
        event = world.event(old, new, asset=asset(named))
        # A dry run shows one batch, which needs no approval, and its plan moves it.
        summary = world.whole_run(events=[], form={"events": [event], "dry_run": True})
        (shown,) = summary.plans
        assert (shown.batches, shown.first[0].batch_id) == (1, named.batch_id)
        assert world.whole_run(execute_plan=shown.mid, digest=shown.digest).events == {"completed": 1}
        assert world.creators([named, *others]) == [new] + [old] * 3
        # Skipped once, it keeps to its asset when it is tried again.
        skipped = world.transfer(old, "nobody-yet", asset=asset(others[0]))
        assert world.whole_run().events == {"skipped": 1}
        world.platform.add_user("nobody-yet", ORGANISATION)
        assert world.whole_run(redrive={"mids": [skipped]}).events == {"completed": 1}
        assert world.creators(others) == ["nobody-yet", old, old]
        # Everything is more than one batch: it waits for an approval.
        assert world.run().pull(events=[world.event(old, new)]).finish().events == {"awaiting_approval": 1}


def test_a_deleted_giver_and_an_asset_of_another_organisation(world: World) -> None:
    old, new = world.users("old", "new")
    ours, theirs = world.batch(created_by=old), world.batch(created_by=old, created_for=("another",))
    world.platform.add_user(old, ORGANISATION, deleted=True)
    mids = [world.transfer(old, new, asset=asset(b)) for b in (ours, theirs)]
    assert world.whole_run().events == {"completed": 2}
    assert world.creators([ours, theirs]) == [new, old]
    assert {world.read(m).verdict.decision for m in mids} == {Decision.GIVER_DELETED}  # type: ignore[union-attr]  # None fails the test


def test_by_default_an_asset_is_not_looked_at(stack: Any) -> None:
    with opened_world(stack.addresses) as world:
        old, new = world.users("old", "new")
        batches = world.batches(3, created_by=old)
        event = world.event(old, new)
        world.platform.emit({**event, "edata": {**event["edata"], "assetInformation": [["odd"]]}})
        assert world.whole_run().events == {"completed": 1}
        assert world.creators(batches) == [new] * 3
