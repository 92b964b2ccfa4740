"""Speed, in what a busy machine does not change: requests, which are counted, and CPU seconds beside bare writes.

Figures are in `docs/performance.md`; `make bench` measures them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import event

from benchmarks.floors import stores
from benchmarks.machine import Meter
from local.platform.stores import Owners
from local.platform.world import Batch
from local.stack import Stack
from tests.integration.stages.transfer_world import World

COURSES, BATCHES_A_COURSE = 100, 10
BATCHES = COURSES * BATCHES_A_COURSE
MAX_TIMES_THE_FLOOR = 5
"""CPU seconds of this process and of every server: 1.6 to 2.7."""
MAX_CASSANDRA_REQUESTS = 2 * COURSES
"""130: a conditional batch for each course, and two reads of ten courses each."""
MAX_SEARCH_REQUESTS = 12
"""7: a search and a bulk for all documents, their versions, a search for the old user, and refreshes."""
MAX_SEARCHES = 2
"""By creator and by mentor."""
MAX_LEDGER_STATEMENTS = 120
"""92."""
MAX_GROWTH = 3.0
EVENTS = 40
MAX_ROWS_OF_THE_QUEUE = 4 * EVENTS
"""Unlocked: a claim reads the queue once or twice, a fence fetches one row, not one for each event."""


def _owned(world: World, count: int) -> tuple[str, str, list[Batch]]:
    """An owner of `count` batches, ten a course, and who gets them. Not among what the module checks row by row."""
    old, new = world.users("old", "new")
    batches = [
        Batch(f"speed-{old}-{n // BATCHES_A_COURSE}", f"speed-{old}-{n}", created_by=old)
        for n in range(count)
    ]
    world.platform.add_batches(batches)
    return old, new, batches


def _transferred(world: World, count: int) -> Callable[[], None]:
    """An announced transfer of `count` batches: the stages of its run, from the pull to the settled summary."""
    old, new, _ = _owned(world, count)
    world.transfer(old, new)
    time.sleep(world.job.settings.grace_ms / 1000)

    def run() -> None:
        assert world.whole_run().batches == {"moved": count}

    return run


def _written(world: World, count: int) -> Callable[[], None]:
    """The bare writes of such a transfer."""
    _, new, batches = _owned(world, count)
    owners = {b.batch_id: Owners(new, ()) for b in batches}

    def write() -> None:
        stores(world.platform, batches, owners)

    return write


def _cpu(stack: Stack, work: Callable[[], None]) -> float:
    begun = time.process_time()
    with Meter(stack.servers) as meter:
        work()
    return time.process_time() - begun + sum(meter.cpu.values())


@contextmanager
def _requests(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """How often each server is asked."""
    asked: Counter[str] = Counter()

    def count(owner: object, name: str, part: str) -> None:
        ask = getattr(owner, name)

        def counted(*args: Any, **options: Any) -> Any:
            asked[part] += 1
            return ask(*args, **options)

        monkeypatch.setattr(owner, name, counted)

    count(world.job.parts.cql.session, "execute_async", "cassandra")
    count(world.job.client.transport, "perform_request", "search")
    count(world.job.parts.search._service, "call", "lms")
    engine = world.job.parts.database._engine

    def on_statement(*_: Any) -> None:
        asked["ledger"] += 1

    event.listen(engine, "before_cursor_execute", on_statement)
    try:
        yield asked
    finally:
        event.remove(engine, "before_cursor_execute", on_statement)


def test_a_transfer_asks_cassandra_by_course_and_the_others_by_wave(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    _transferred(world, 20)()
    run = _transferred(world, BATCHES)

    with _requests(world, monkeypatch) as asked:
        run()

    assert COURSES < asked["cassandra"] <= MAX_CASSANDRA_REQUESTS, asked
    assert 0 < asked["search"] <= MAX_SEARCH_REQUESTS, asked
    assert 0 < asked["ledger"] <= MAX_LEDGER_STATEMENTS, asked


def test_dry_runs_of_many_users_ask_no_more_often_than_a_transfer(
    world: World, monkeypatch: pytest.MonkeyPatch
):
    (new,) = world.users("new")
    forms = [world.form(_owned(world, 1)[0], new) for _ in range(EVENTS)]
    run = world.run().pull(form={"events": forms, "dry_run": True})

    with _requests(world, monkeypatch) as asked:
        run.lookup()

    assert run.settle().events == {"rehearsed": EVENTS}
    assert 0 < asked["lms"] <= MAX_SEARCHES, asked
    assert 0 < asked["cassandra"] <= EVENTS, asked
    assert 0 < asked["search"] <= MAX_SEARCH_REQUESTS, asked
    assert 0 < asked["ledger"] <= MAX_LEDGER_STATEMENTS, asked


def test_the_fence_fetches_no_row_for_each_event(world: World):
    for _ in range(EVENTS):
        old, new, _batches = _owned(world, 1)
        world.transfer(old, new)
    time.sleep(world.job.settings.grace_ms / 1000)
    engine = world.job.parts.database._engine
    fetched: Counter[str] = Counter()

    def on_answer(_: Any, cursor: Any, statement: str, *__: Any) -> None:
        if "queue" in statement and statement.startswith("SELECT") and "FOR UPDATE" not in statement:
            fetched[statement] += cursor.rowcount

    event.listen(engine, "after_cursor_execute", on_answer)
    try:
        assert world.whole_run().batches == {"moved": EVENTS}
    finally:
        event.remove(engine, "after_cursor_execute", on_answer)

    assert 0 < sum(fetched.values()) <= MAX_ROWS_OF_THE_QUEUE, fetched


def test_a_transfer_costs_a_small_multiple_of_the_cpu_of_its_bare_writes(world: World, stack: Stack):
    _transferred(world, 20)()
    _written(world, 20)()

    ratios = [
        _cpu(stack, _transferred(world, BATCHES)) / _cpu(stack, _written(world, BATCHES)) for _ in range(3)
    ]

    assert min(ratios) < MAX_TIMES_THE_FLOOR, ratios


def test_a_batch_costs_no_more_among_two_thousand_than_among_five_hundred(world: World, stack: Stack):
    _transferred(world, 20)()

    growth = [
        (_cpu(stack, _transferred(world, 2_000)) / 2_000) / (_cpu(stack, _transferred(world, 500)) / 500)
        for _ in range(2)
    ]

    assert min(growth) < MAX_GROWTH, growth
