"""A worker whose Connection `ownership_ledger` leads to another ledger than that of the run's pull."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from ownership.domain.errors import SettingsError
from ownership.ledger.arrivals import Arrivals
from ownership.ledger.changes import Changes
from ownership.ledger.events import Events
from ownership.ledger.queue import Queue
from ownership.stages.lookup import lookup_users
from ownership.stages.parts import Parts
from ownership.stages.reindex import reindex_course_batches
from ownership.stages.update import update_course_batches
from tests.harness import ledger_name, opened_ledger
from tests.integration.stages.transfer_world import World


@pytest.fixture
def elsewhere(own_world: World) -> Iterator[Parts]:
    """The parts of such a worker."""
    with opened_ledger(own_world.ledger, f"{ledger_name(own_world.env)}_other") as other:
        yield replace(
            own_world.job.parts,
            database=other,
            arrivals=Arrivals(other),
            events=Events(other),
            queue=Queue(other),
            changes=Changes(other),
        )


def test_a_stage_that_finds_none_of_its_events_says_so_and_changes_nothing(
    own_world: World, elsewhere: Parts
) -> None:
    old, new = own_world.users("old", "new")
    batch = own_world.batch(created_by=old)
    own_world.transfer(old, new)
    run = own_world.run().pull()

    def refused(stage: Any) -> None:
        (work,) = run.work
        with pytest.raises(SettingsError, match=r"^None of the 1 events .* in the ledger at .*_other"):
            stage(elsewhere, work)
        assert own_world.row(batch) == before

    before = own_world.row(batch)
    refused(lookup_users)
    run.lookup()
    refused(update_course_batches)
    run.update()
    before = own_world.row(batch)
    refused(reindex_course_batches)
    assert run.reindex().settle().events == {"completed": 1}
    assert own_world.owners(batch) == (new, ())
