"""Speed, as ratios that hold on any machine: bounds far above the noise, far below row-by-row work.

Figures are in `docs/performance.md`; `make bench` measures them.
"""

from __future__ import annotations

import time
from typing import Any

import pytest

from benchmarks.floors import stores
from local.platform.stores import Owners
from local.platform.world import Batch
from tests.integration.stages.transfer_world import World

ROWS = 600
MAX_TIMES_THE_FLOOR = 20
"""7 to 8 on a quiet machine; writes of one row each alone make it 8 to 13, which the next bound is for."""
MAX_REQUESTS_A_ROW = 1.0
"""Requests to Cassandra for each row, all stages, in courses of ten rows: 0.6, and 1.5 with writes row by row."""
MAX_GROWTH = 3.0


def _owned(world: World, count: int) -> tuple[str, str, list[Batch]]:
    """An owner of `count` batches, ten a course, and who gets them. Not among what the module checks row by row."""
    old, new = world.users("old", "new")
    batches = [Batch(f"speed-{old}-{n // 10}", f"speed-{old}-{n}", created_by=old) for n in range(count)]
    world.platform.add_batches(batches)
    return old, new, batches


def _seconds(world: World, count: int) -> float:
    """The stages of one run, from the pull to the settled summary."""
    old, new, _ = _owned(world, count)
    world.transfer(old, new)
    time.sleep(world.job.settings.grace_ms / 1000)
    begun = time.monotonic()
    summary = world.whole_run()
    seconds = time.monotonic() - begun
    assert summary.batches == {"moved": count}
    return seconds


def _floor(world: World, count: int) -> float:
    _, new, batches = _owned(world, count)
    return stores(world.platform, batches, {b.batch_id: Owners(new, ()) for b in batches})


def test_a_run_costs_a_small_multiple_of_its_bare_writes(world: World):
    _seconds(world, 20)
    _floor(world, 20)

    ratios = [_seconds(world, ROWS) / _floor(world, ROWS) for _ in range(3)]

    assert min(ratios) < MAX_TIMES_THE_FLOOR, ratios


def test_a_batch_costs_no_more_among_two_thousand_than_among_five_hundred(world: World):
    _seconds(world, 20)

    growth = [(_seconds(world, 2_000) / 2_000) / (_seconds(world, 500) / 500) for _ in range(2)]

    assert min(growth) < MAX_GROWTH, growth


def test_cassandra_is_asked_by_partition_and_not_by_row(world: World, monkeypatch: pytest.MonkeyPatch):
    session = world.job.parts.cql.session
    send, sent = session.execute_async, []

    def counted(*args: Any, **options: Any) -> Any:
        sent.append(1)
        return send(*args, **options)

    monkeypatch.setattr(session, "execute_async", counted)
    _seconds(world, ROWS)

    assert ROWS / 10 < len(sent) < ROWS * MAX_REQUESTS_A_ROW, len(sent)
