"""Dry runs beside the old job, on real stores: the report says what that job did against what this one would have."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest

from local.platform.old_job import OldJob
from local.servers.processes import await_condition
from local.stack import Stack
from ownership.domain.clock import now_ms
from ownership.stages.rehearsals import Outcome, Rehearsal, compare
from tests.integration.stages.transfer_world import ORGANISATION, World

HOUR_MS = 3_600_000


def rehearsals(world: World) -> list[Rehearsal]:
    return list(compare(world.job.parts, now_ms() - HOUR_MS, now_ms() + HOUR_MS))


def rehearse(world: World, old: str, new: str) -> None:
    form = {"from_user": old, "to_user": new, "organisation_id": ORGANISATION, "dry_run": True}
    summary = world.job.run().pull(form=form).finish()
    assert summary.events == {"rehearsed": 1}


def test_what_the_old_job_does_is_reported_batch_by_batch(own_world: World, stack: Stack) -> None:
    world = own_world
    old, new, third = world.users("old", "new", "third")
    mine = world.batches(33, created_by=old)
    (mentored,) = world.batches(mentors=[old])
    world.edit(mentored, mentors=[old, third])  # after the index was written
    (stale,) = world.batches(created_by=old)
    world.edit(stale, createdby=third)
    world.hidden |= {b.batch_id for b in (*mine, mentored, stale)}
    rehearse(world, old, new)
    before = rehearsals(world)
    assert [r.counts for r in before] == [Counter({Outcome.NOT_MOVED: 34, Outcome.LEFT_ALONE: 1})]
    assert len(before[0].findings) == 34

    world.platform.emit(world.event(old, new))
    known = stack.addresses
    with OldJob(world.platform, kafka=world.kafka, lms=known.lms, userorg=known.userorg) as job:
        await_condition(lambda: bool(job.carried_out), timeout_s=60, what="the old job's transfer")
    (after,) = rehearsals(world)
    overwritten = after.counts[Outcome.OVERWRITTEN]  # whether it is among the 30
    assert after.counts[Outcome.AS_PLANNED] + overwritten == 30
    assert after.counts[Outcome.NOT_MOVED] == 33 - after.counts[Outcome.AS_PLANNED]
    assert after.counts[Outcome.OTHERWISE] == 1  # the mentor that only the row had
    assert [f.batch.batch_id for f in after.findings if f.outcome == Outcome.OTHERWISE] == [mentored.batch_id]
    assert str(after).startswith(f"{old} → {new}: {after.counts[Outcome.AS_PLANNED]} as planned, ")


def test_of_a_chain_the_last_plan_of_a_batch_counts(own_world: World) -> None:
    first, second, third = own_world.users("a", "b", "c")
    batches = own_world.batches(2, created_by=first)
    rehearse(own_world, first, second)
    for batch in batches:
        own_world.edit(batch, createdby=second)
        own_world.platform.put_document(batch.batch_id, **{**batch.document(), "createdBy": second})
    rehearse(own_world, second, third)
    found = rehearsals(own_world)
    assert [r.counts for r in found] == [Counter(), Counter({Outcome.NOT_MOVED: 2})]
    assert str(found[0]) == f"{first} → {second}: no batches"


def test_a_batch_without_a_status_stays_as_its_plan_has_it(own_world: World) -> None:
    """Its document is live, so the search finds it; null is no status that moves."""
    old, new = own_world.users("old", "new")
    own_world.edit(own_world.batch(created_by=old), status=None)
    rehearse(own_world, old, new)
    (found,) = rehearsals(own_world)
    assert (found.counts, found.findings) == (Counter({Outcome.LEFT_ALONE: 1}), ())


def test_the_command_says_what_is_not_as_planned_and_ends_with_one(
    own_world: World,
    environment: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ownership.edge.rehearsals import MAX_LINES, main

    monkeypatch.setenv("AIRFLOW_VAR_USER_OWNERSHIP_TRANSFER", json.dumps({"env": own_world.env}))
    own_world.lead_to_ledger(environment, monkeypatch)
    assert main([]) == 1
    assert capsys.readouterr().out == "No dry run in the last 24 hours.\n"
    old, new = own_world.users("old", "new")
    own_world.batches(MAX_LINES + 2, created_by=old)
    rehearse(own_world, old, new)
    assert main(["--hours", "1"]) == 1
    first, *more, last = capsys.readouterr().out.splitlines()
    assert first == f"{old} → {new}: {MAX_LINES + 2} not moved"
    assert len(more) == MAX_LINES
    assert more[0].endswith(f": not moved; created by {old}")
    assert last == "  and 2 more"
