"""What User-Org says of deleted, blocked and broken accounts, and what becomes of their transfers."""

from __future__ import annotations

from typing import Any

import pytest

from ownership.domain.states import Decision
from ownership.reconcile.run import ReconcileConf, look_at_ranges, plan
from tests.integration.stages.transfer_world import ORGANISATION, Faults, World, opened_world

BLOCKED = "UOS_USRRED0006: User account has been blocked ."
OTHER = "another-organisation"


def delete(world: World, *users: str) -> None:
    """User-Org has deleted these accounts."""
    for user in users:
        world.platform.add_user(user, ORGANISATION, deleted=True)


def test_the_batches_of_a_deleted_user_move_and_the_run_and_the_ledger_say_so(world: World) -> None:
    old, new = world.users("old", "new")
    batches = [
        world.batch(created_by=old, mentors=(old, "x"), created_for=(ORGANISATION,)),
        world.batch(created_by=old, created_for=(OTHER, f" {ORGANISATION.upper()} ")),
        world.batch(created_by=old),
        world.batch(mentors=(old,), created_for=("",)),
        world.batch(mentors=(old,), created_for=(" ", "\t")),
    ]
    delete(world, old)
    mid = world.transfer(old, new)
    summary = world.whole_run()
    assert summary.events == {"completed": 1}
    assert summary.notes[mid] == f"giver deleted: {BLOCKED}"
    assert [world.owners(b) for b in batches] == [
        (new, (new, "x")),
        (new, ()),
        (new, ()),
        (None, (new,)),
        (None, (new,)),
    ]
    row = world.read(mid)
    assert row.verdict == (Decision.GIVER_DELETED, BLOCKED)
    assert row.counts["moved"] == 5


def test_of_a_deleted_user_only_batches_of_the_events_organisation_move(world: World) -> None:
    old, new = world.users("old", "new")
    ours = world.batches(3, created_by=old, created_for=(ORGANISATION,))
    theirs = world.batch(created_by=old, mentors=("x", old), created_for=(OTHER,))
    delete(world, old)
    mid = world.transfer(old, new)
    assert world.whole_run().events == {"completed": 1}
    assert world.creators(ours) == [new] * 3
    assert world.owners(theirs) == (old, ("x", old))
    assert set(world.outcomes(mid)) == {b.batch_id for b in ours}
    # The second proof leaves them alone, too.
    again = world.run().pull(window=world.window())
    assert (again.pulled.follow_ups, again.pulled.claimed) == (0, 0)
    assert world.owners(theirs) == (old, ("x", old))
    # An undo gives back what moved, and nothing else.
    _, undone = world.undo(mid)
    assert undone.events == {"completed": 1}
    assert world.creators([*ours, theirs]) == [old] * 4


def test_the_second_proof_follows_up_within_the_organisation(own_world: World) -> None:
    world = own_world
    old, new = world.users("old", "new")
    delete(world, old)
    mid = world.transfer(old, new)
    world.whole_run()
    late, theirs = world.batch(created_by=old), world.batch(created_by=old, created_for=(OTHER,))
    run = world.run().pull(window=world.window())
    assert run.pulled.follow_ups == 1
    assert run.finish().events == {"completed": 1}
    assert world.read(f"{mid}:follow-up:1").giver_deleted
    assert world.creators([late, theirs]) == [new, old]
    assert world.run().pull(window=world.window()).pulled.follow_ups == 0


def test_a_reconciliation_does_not_miss_what_a_deleted_user_kept(own_world: World) -> None:
    world = own_world
    old, new = world.users("old", "new")
    theirs = world.batch(created_by=old, created_for=(OTHER,))
    left = world.make(1, created_by=old, created_for=(ORGANISATION,))
    world.platform.add_batches(left, documents=False)  # its document comes after the transfer
    delete(world, old)
    world.transfer(old, new)
    assert world.whole_run().events == {"completed": 1}
    world.platform.add_batches(left, rows=False)
    order = ReconcileConf(ranges=1, days=1)
    for share in plan(world.job.parts, "r", order):
        look_at_ranges(world.job.parts, share, patience_s=0.0)
    counts: dict[str, int] = {}
    for part in world.job.parts.reconciliations.done("r").values():
        counts |= part.counts
    assert counts.get("unmoved") == 1
    assert world.owners(theirs) == (old, ())
    world.hidden |= {b.batch_id for b in left}


def test_deleted_givers_of_one_organisation_share_a_phase_and_others_wait(own_world: World) -> None:
    world = own_world
    gone, new, staying = world.users("gone", "new", "staying")
    batches = [world.batch(created_by=u) for u in (gone, staying)]
    delete(world, gone)
    mids = [world.transfer(u, new) for u in (gone, gone, staying)]
    world.job.drain()
    assert world.job.states(mids) == ["completed"] * 3
    assert world.creators(batches) == [new, new]


@pytest.mark.parametrize("dry", [True, False])
def test_a_plan_for_a_deleted_user_shows_and_moves_the_same(world: World, dry: bool) -> None:
    old, new = world.users("old", "new")
    ours = world.batch(created_by=old, created_for=(ORGANISATION,))
    theirs = world.batch(created_by=old, created_for=(OTHER,))
    delete(world, old)
    summary = world.whole_run(form=world.form(old, new, dry_run=dry))
    if dry:
        (shown,) = summary.plans
        assert shown.batches == 1
        conf = {"execute_plan": shown.mid, "digest": shown.digest}
        assert world.whole_run(**conf).events == {"completed": 1}
    assert world.creators([ours, theirs]) == [new, old]


def test_a_setting_skips_the_transfers_of_deleted_users(stack: Any) -> None:
    with opened_world(stack.addresses, **{"transfer.deleted.givers": "skip"}) as world:
        old, new = world.users("old", "new")
        batch = world.batch(created_by=old)
        delete(world, old)
        mid = world.transfer(old, new)
        assert world.whole_run().events == {"skipped": 1}
        why = f"user {old!r} is deleted or blocked in User-Org ({BLOCKED}); transfer.deleted.givers = skip"
        assert world.read(mid).reason == why
        assert world.owners(batch) == (old, ())


@pytest.mark.parametrize("giver_too", [True, False])
def test_a_deleted_receiver_is_skipped_and_holds_nobody_back(world: World, giver_too: bool) -> None:
    old, new, other = world.users("old", "new", "other")
    batch = world.batch(created_by=old)
    delete(world, new, *([old] if giver_too else []))
    first, second = world.transfer(old, new), world.transfer(old, other)
    assert world.whole_run().events == {"skipped": 1, "completed": 1}
    assert world.read(first).reason == f"user {new!r} is deleted or blocked in User-Org ({BLOCKED})"
    assert world.state(second) == "completed"
    assert world.owners(batch) == (other, ())


@pytest.mark.parametrize("fault", ["500", "no organisation"])
def test_one_broken_record_lets_the_others_complete_in_the_same_run(
    world: World, userorg: Faults, fault: str
) -> None:
    bad, *others = world.users("bad", *(f"u{n}" for n in range(21)))
    (new,) = world.users("new")
    batches = [world.batch(created_by=u) for u in (bad, *others)]
    if fault == "500":
        userorg.set("500", user=bad)
    else:
        world.platform.add_user(bad, "")
    mids = [world.transfer(u, f"{u}-to") for u in others]
    world.platform.add_users([world.platform.add_user(f"{u}-to", ORGANISATION) for u in others])
    stuck = world.transfer(bad, new)
    run = world.run().pull()
    summary = run.finish()
    assert summary.events == {"completed": 21, "failed": 1}
    assert world.job.states(mids) == ["completed"] * 21
    assert world.creators(batches) == [bad, *(f"{u}-to" for u in others)]
    why = world.read(stuck).reason or ""
    assert f"for user {bad!r}: this user only" in why
    assert "mended in User-Org" in why
    assert run.errors == [] or all(f"user {bad!r}" in str(e) for e in run.errors)
    # Mended there, it completes by itself.
    userorg.clear()
    world.platform.add_user(bad, ORGANISATION)
    world.make_due(stuck)
    assert world.whole_run().events == {"completed": 1}
    assert world.owners(batches[0]) == (new, ())
    assert world.read(stuck).completed_at is not None
