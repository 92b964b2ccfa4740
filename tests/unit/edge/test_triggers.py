from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from ownership.edge import triggers
from ownership.edge.triggers import Announcer, BacklogTrigger, QueueLook, WorkInSight

RESIGNAL = 30.0
SLOTS = 8
NOTHING = QueueLook(1)


class Watching:
    """An announcer under a clock and a queue of its own."""

    def __init__(self) -> None:
        self.announcer = Announcer(RESIGNAL, SLOTS)
        self.now = 1000.0
        self.looks = 0
        self.claimable: frozenset[tuple[str, int]] = frozenset()

    def look(
        self, committed: int = 0, high: int = 0, *claimable: str, token: int = 1, cached: bool = False,
        after: float = 0.5, at_work: int = 0, unclaimed: bool = False,
    ) -> bool:  # fmt: skip
        self.now += after
        if not cached:
            self.looks += 1
            self.claimable = frozenset((mid, token) for mid in claimable)
        queue = QueueLook(self.looks, self.claimable, at_work, unclaimed)
        seen = WorkInSight((committed,), (high,), queue)
        return self.announcer.worth_a_signal(seen, self.now)


@pytest.fixture
def watching() -> Watching:
    return Watching()


def test_nothing_to_do_is_not_announced(watching: Watching) -> None:
    assert not any(watching.look(5, 5) for _ in range(200))


def test_a_backlog_is_announced_once_until_it_is_committed(watching: Watching) -> None:
    assert watching.look(0, 10)
    assert not watching.look(0, 10)
    assert not watching.look(0, 14), "the run that was started reads these too"
    assert not watching.look(10, 10)


def test_what_arrives_after_the_commit_is_announced(watching: Watching) -> None:
    assert watching.look(0, 10)
    assert watching.look(10, 14)


def test_what_arrived_meanwhile_and_was_not_read_is_announced_after_the_commit(watching: Watching) -> None:
    assert watching.look(0, 10)
    assert not watching.look(0, 14)
    assert watching.look(10, 14)


def test_a_backlog_that_stands_still_is_announced_again(watching: Watching) -> None:
    assert watching.look(0, 10)
    assert not watching.look(0, 10, after=RESIGNAL - 1)
    assert watching.look(0, 10, after=1)
    assert not watching.look(0, 10)
    assert watching.look(0, 10, after=RESIGNAL)


def test_the_first_look_after_a_restart_announces_an_existing_backlog() -> None:
    assert Watching().look(3, 10)


def test_an_event_in_the_queue_counts_when_two_looks_at_the_queue_show_it(watching: Watching) -> None:
    assert not watching.look(0, 0, "m1")
    assert watching.look(0, 0, "m1")
    assert not watching.look(0, 0, "m1")


def test_one_look_at_the_queue_that_is_shown_twice_counts_once(watching: Watching) -> None:
    assert not watching.look(0, 0, "m1")
    assert not any(watching.look(cached=True) for _ in range(3))
    assert watching.look(0, 0, "m1")


def test_an_event_that_its_own_run_claims_meanwhile_is_not_announced(watching: Watching) -> None:
    assert not watching.look(0, 0, "m1")
    assert not watching.look(0, 0)
    assert not watching.look(0, 0, "m2")


def test_an_event_that_was_claimed_and_released_is_announced_again(watching: Watching) -> None:
    watching.look(0, 0, "m1")
    assert watching.look(0, 0, "m1")
    assert not watching.look(0, 0)
    assert not watching.look(0, 0, "m1", token=2)
    assert watching.look(0, 0, "m1", token=2)


def test_another_event_in_the_queue_is_left_to_the_run_that_was_just_announced(watching: Watching) -> None:
    watching.look(0, 0, "m1")
    assert watching.look(0, 0, "m1")
    assert not watching.look(0, 0, "m1", "m2")
    assert not watching.look(0, 0, "m1", "m2")


def test_another_event_in_the_queue_is_announced_if_that_run_left_it(watching: Watching) -> None:
    watching.look(0, 0, "m1")
    assert watching.look(0, 0, "m1")
    assert not watching.look(0, 0, "m1", "m2")
    assert watching.look(0, 0, "m2")


def test_while_the_runs_at_work_leave_no_room_for_another_nothing_is_announced(watching: Watching) -> None:
    half = SLOTS // 2
    assert watching.look(0, 10, at_work=half)
    assert not watching.look(10, 20, at_work=half + 1)
    assert not watching.look(10, 20, "m1", at_work=half + 1, after=2 * RESIGNAL)
    assert not watching.look(10, 20, "m1", at_work=10 * SLOTS, after=2 * RESIGNAL)
    assert watching.look(10, 20, "m1", at_work=half)


def test_while_runs_keep_the_cores_busy_signals_are_some_seconds_apart(watching: Watching) -> None:
    cores = SLOTS // 4
    assert watching.look(0, 10)
    assert not watching.look(10, 20, at_work=cores)
    assert not watching.look(10, 30, at_work=cores, after=triggers.PACE_SECONDS - 1)
    assert watching.look(10, 30, at_work=cores, after=1), "other work goes on beside a long one"


def test_a_run_that_leaves_a_core_idle_gets_another_beside_it(watching: Watching) -> None:
    assert watching.look(0, 10)
    assert watching.look(10, 20, at_work=SLOTS // 4 - 1)


def test_what_comes_while_a_run_may_still_collect_is_left_to_it(watching: Watching) -> None:
    assert watching.look(0, 10)
    assert not watching.look(10, 20, unclaimed=True)
    assert watching.look(10, 20)


def test_the_first_work_after_a_pause_is_announced_at_once_although_runs_are_busy(watching: Watching) -> None:
    assert watching.look(0, 10)
    assert watching.look(10, 11, at_work=SLOTS // 4, unclaimed=True, after=triggers.PACE_SECONDS)


def test_an_executor_of_one_slot_is_given_work() -> None:
    seen = WorkInSight((0,), (10,), NOTHING)
    assert Announcer(RESIGNAL, 1).worth_a_signal(seen, 1.0)


def test_a_queue_that_stands_still_is_announced_again(watching: Watching) -> None:
    watching.look(0, 0, "m1")
    assert watching.look(0, 0, "m1")
    assert not watching.look(0, 0, "m1", after=RESIGNAL - 1)
    assert watching.look(0, 0, "m1", after=1)


def test_a_signal_for_the_backlog_does_not_announce_the_queue_twice(watching: Watching) -> None:
    watching.look(0, 0, "m1")
    assert watching.look(0, 0, "m1")
    assert watching.look(0, 5, "m1")
    assert not watching.look(5, 5, "m1")


def test_every_partition_must_be_read_before_new_messages_count(watching: Watching) -> None:
    announcer = watching.announcer
    assert announcer.worth_a_signal(WorkInSight((0, 0), (10, 10), NOTHING), 1.0)
    assert not announcer.worth_a_signal(WorkInSight((10, 0), (11, 10), NOTHING), 2.0)
    assert announcer.worth_a_signal(WorkInSight((10, 10), (11, 10), NOTHING), 3.0)


class FakeWatch:
    """Fails the first time, then shows a backlog; remembers that it was closed."""

    tries = 0
    closed = 0

    def __init__(self, stack: Any) -> None:
        stack.callback(self._close)
        self.resignal_seconds = RESIGNAL
        self.slots = SLOTS

    def _close(self) -> None:
        type(self).closed += 1

    def look(self) -> WorkInSight:
        type(self).tries += 1
        if self.tries == 1:
            raise OSError("no broker")
        return WorkInSight((0,), (7,), NOTHING)

    def measure(self) -> None: ...

    def wait(self) -> None: ...


def test_the_trigger_survives_an_error_and_closes_what_it_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triggers, "_Watch", FakeWatch)
    monkeypatch.setattr(triggers, "RETRY_SECONDS", 0.0)

    async def first() -> Any:
        events = BacklogTrigger().run()
        try:
            return await asyncio.wait_for(anext(events), 60)
        finally:
            await events.aclose()  # type: ignore[attr-defined]  # a generator

    assert asyncio.run(first()).payload == {"backlog": 7, "claimable": 0}
    assert FakeWatch.closed == 2


def test_what_a_trigger_opens_while_it_is_cancelled_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    opening, go_on, closed = threading.Event(), threading.Event(), threading.Event()

    def open_late(stack: Any) -> None:
        opening.set()
        go_on.wait(10)
        stack.callback(closed.set)

    async def cancelled_meanwhile() -> bool:
        running = asyncio.ensure_future(anext(BacklogTrigger().run()))
        await asyncio.to_thread(opening.wait, 10)
        running.cancel()
        asyncio.get_running_loop().call_later(0, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await running
        return closed.is_set()

    monkeypatch.setattr(triggers, "_Watch", open_late)
    assert asyncio.run(cancelled_meanwhile())


def test_a_call_ends_before_a_cancelled_trigger_closes_its_clients() -> None:
    called, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def call() -> None:
        called.set()
        go_on.wait(10)
        ended.set()

    async def cancelled_meanwhile() -> bool:
        running = asyncio.ensure_future(triggers._in_thread(call))
        await asyncio.to_thread(called.wait, 10)
        running.cancel()
        asyncio.get_running_loop().call_later(0, go_on.set)
        with pytest.raises(asyncio.CancelledError):
            await running
        return ended.is_set()

    assert asyncio.run(cancelled_meanwhile())


def test_the_trigger_has_no_arguments_so_that_every_process_makes_the_same_one() -> None:
    path, arguments = BacklogTrigger().serialize()
    assert path == f"{BacklogTrigger.__module__}.{BacklogTrigger.__qualname__}"
    assert arguments == {}


@pytest.mark.parametrize(
    ("took", "pause"),
    [
        pytest.param(0.0, 1.0, id="an empty list"),
        pytest.param(0.8, 8.0, id="a long list"),
        pytest.param(40.0, 15.0, id="an outage: events that wait must not wait for ten times as long"),
    ],
)
def test_looks_at_the_queue_are_apart_for_their_cost_and_never_for_long(took: float, pause: float) -> None:
    assert triggers.next_look(100.0, 100.0 + took) == pytest.approx(100.0 + took + pause)
