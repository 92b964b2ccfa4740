"""Two at the same thing at the same time: runs that pull the same messages, a writer that was frozen."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from threading import Barrier
from typing import Any

import pytest

from ownership.domain.clock import now_ms
from ownership.domain.plan import Row
from ownership.domain.states import ChangeOutcome
from ownership.stages.intake import Window
from tests.harness import Job, Run, opened_job
from tests.integration.stages.transfer_world import World, replaced

SERVERS = ("kafka", "cassandra", "elasticsearch", "lms", "userorg")


def test_the_run_of_the_hour_and_that_of_the_backlog_pull_the_same_messages_at_once(
    own_world: World, stack: Any
) -> None:
    world = own_world
    users = world.users(*(f"u{n}" for n in range(40)))
    events = [world.event(users[n], users[n + 1]) for n in range(0, 40, 2)]
    batches = [world.batch(created_by=e["edata"]["fromUserProfile"]["userId"]) for e in events]
    bad = [b"not json", b'{"edata": 7}']
    began = now_ms()
    world.platform.emit_all([*events, *bad, *events[:5]])
    hour = Window(began - 1000, began + 3_600_000)
    together = Barrier(4)

    def pulled(job: Job, window: Window | None) -> Run:
        together.wait(20)
        return job.run().pull(window=window)

    with ExitStack() as opened, ThreadPoolExecutor(4) as pool:
        servers = {name: getattr(stack.addresses, name) for name in SERVERS}
        jobs = [
            world.job,
            *(
                opened.enter_context(opened_job(**servers, ledger=world.ledger, env=world.env))
                for _ in range(3)
            ),
        ]
        runs = list(pool.map(pulled, jobs, [None, hour, None, hour]))

        held = [h.mid for run in runs for s in run.pulled.slices for h in s.events]
        assert sorted(held) == sorted(e["mid"] for e in events)
        assert world.event_rows() == len(events) + len(bad)
        completed = sum(run.finish().events.get("completed", 0) for run in runs)
    assert completed == len(events)
    assert world.creators(batches) == [e["edata"]["toUserProfile"]["userId"] for e in events]
    assert {world.read(e["mid"]).counts["moved"] for e in events} == {1}
    assert len({(h["partition"], h["offset"]) for h, _ in world.dead_letters()}) == len(bad)


def test_a_writer_frozen_exactly_before_its_write_is_detected_where_it_cannot_be_stopped(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """The one case that compare-and-set cannot refuse: the row is back at the value that was read."""
    old, new = world.users("old", "new")
    batch = world.batch(created_by=old)
    mid = world.transfer(old, new)
    frozen = world.run().pull().lookup()
    rows = world.job.parts.rows
    compare_and_set = rows.compare_and_set
    struck: list[bool] = []
    others: list[dict[str, int]] = []

    def frozen_before(changes: Sequence[tuple[Row, Row]], *, alone: bool = False) -> list[bool | None]:
        if not struck:
            struck.append(True)
            world.expire(mid)
            others.append(world.whole_run().events)
            assert world.owners(batch) == (new, ())
            # The LMS gives the batch back, to the very value that the frozen process has read.
            world.edit(batch, createdby=old)
            world.platform.put_document(batch.batch_id, createdBy=old)
        return compare_and_set(changes, alone=alone)

    with replaced(rows, "compare_and_set", frozen_before):
        frozen.update()

    assert others == [{"completed": 1}]
    assert frozen.work == []  # it found out right after its write that its claim is gone
    assert world.row(batch) == (new, ())
    assert sorted(i.outcome or "" for i in world.changes(mid)[1]) == ["applied", ChangeOutcome.LATE]
    at = world.read(mid).kafka_ms
    with caplog.at_level(logging.WARNING):
        world.run().pull(window=Window(at - 1000, at + 1000))
    assert f"batch {batch.batch_id} of course {batch.course_id}" in caplog.text
    assert "compare row and audit trail" in caplog.text
    assert world.owners(batch) == (new, ())
