"""An owner with more batches than the search can page through."""

from __future__ import annotations

import pytest

from local.platform.world import Owned
from tests.integration.stages.transfer_world import Faults, World

MANY = 10_500
"""More than the search shows of one question."""


@pytest.mark.timeout(240)
def test_an_owner_of_more_than_ten_thousand_batches_loses_all_also_where_the_service_counts_no_further(
    world: World, lms: Faults
) -> None:
    old, new = world.users("old", "new")
    batches = world.make(MANY, created_by=old)
    world.platform.add_batches(batches)
    mid = world.transfer(old, new)

    # A run that dies after it has planned everything ...
    first = world.run().pull().lookup()
    assert [w.batches for w in first.work] == [{"planned": MANY}]  # type: ignore[union-attr]  # a Slice fails the test
    world.expire(mid)

    # ... and another that the service tells of no more than 10,000.
    lms.set("capped-count")
    summary = world.whole_run()

    assert summary.events == {"completed": 1}
    assert summary.batches == {"moved": MANY}
    assert world.platform.owned_by([old, new]) == {old: Owned(), new: Owned(MANY, 0, MANY, 0)}
    outcomes = world.outcomes(mid)
    assert len(outcomes) == MANY
    assert set(outcomes.values()) == {"moved"}
    assert len(world.trail(mid)) == MANY
